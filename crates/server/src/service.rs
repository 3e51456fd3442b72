//! From a connection's calls to the methods.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::Phase;
use fault::{Fault, Kind};
use idl::Dispatched;
use idl::health::CheckRequest;
use rpc::{CallContext, CallFuture, Instead, Refusal, Service};
use units::RequestId;
use wire::Request;

use crate::methods::{Context, Finished, Methods};
use crate::metrics::{METHODS, OTHER};

/// The services of the Thrift listener.
pub(crate) struct Services(pub(crate) Arc<Methods>);

impl Service for Services {
    fn call(&self, request: Request, call: CallContext) -> CallFuture {
        let (received, read) = (call.received, call.read);
        let (finished, model) = (Finished::default(), Arc::new(OnceLock::new()));
        let cx = Context { call, finished: finished.clone(), model: Arc::clone(&model) };
        let methods = &self.0;
        let called = METHODS.into_iter().find(|method| request.method.as_str() == *method);
        let dispatched = idl::dispatch_inference(methods, cx, request)
            .or_else(|request, cx| idl::dispatch_chat(methods, cx, request))
            .or_else(|request, cx| idl::dispatch_health(methods, cx, request));
        let method = called.filter(|_| matches!(dispatched, Dispatched::Handled(_))).unwrap_or(OTHER);
        let handling = dispatched.or_unknown_method();
        let (metrics, traces) = (Arc::clone(&methods.metrics), methods.traces.clone());
        Box::pin(async move {
            let reply = handling.await;
            if !finished.has_begun() {
                // No such method, or arguments that cannot be read: no handler has counted it.
                metrics.call(method, Kind::InvalidInput.row().code);
            }
            let encode = finished.since(received);
            if let Some(model) = model.get() {
                let observer = model.observer();
                observer.phase(Phase::Read, read);
                if let Some(encode) = encode {
                    observer.phase(Phase::Encode, encode);
                }
            }
            if let Some(spans) = finished.spans(encode.unwrap_or_default()) {
                traces.tell(spans);
            }
            reply
        })
    }

    fn continues(&self, request: &Request) -> bool {
        matches!(request.method.as_str(), "next_pieces" | "stop")
    }

    fn refuse(&self, request: &Request, why: Refusal) -> Instead {
        let health = why == Refusal::Draining && request.method.as_str() == "check";
        if health && let Ok(check) = request.args::<CheckRequest>() {
            return Instead::Answered(match self.0.check_now(&check) {
                Ok(reply) => request.reply(&reply),
                Err(fault) => request.exception(&fault),
            });
        }
        let fault = match why {
            Refusal::Draining => Fault::unavailable("the server is draining").with_retry_after(Duration::from_secs(1)),
            Refusal::CallsPerConnection { limit } => {
                Fault::overloaded(format!("{limit} calls are in flight on this connection, which is the limit"))
                    .with_retry_after(Duration::from_millis(10))
            }
            Refusal::BytesInFlight { limit } => {
                Fault::overloaded(format!("requests in flight reach the limit of {limit} bytes"))
                    .with_retry_after(Duration::from_millis(100))
            }
        };
        // The arguments may be cut off, so the request's own id cannot be read.
        let thrown = idl::fault::Fault::thrown(fault, &RequestId::generate());
        Instead::Refused(Some(request.exception(&thrown)))
    }
}
