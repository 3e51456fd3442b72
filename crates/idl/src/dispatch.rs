//! From an undecoded call to the future that answers it.

use std::future::{Future, ready};
use std::pin::Pin;

use wire::{Carried, MessageKind, Reply, Request, TSerializable, WireError};

use crate::HasBase;
use crate::fault::Fault;

/// The work on one call; its output is the answer, or `None` for a oneway call. Dropping it cancels the call.
pub type Handling = Pin<Box<dyn Future<Output = Option<Reply>> + Send>>;

/// What became of a call that was offered to a service.
pub enum Dispatched<C> {
    /// The service has the method; the arguments are decoded, the work is not begun.
    Handled(Handling),
    /// It has not: the call and its context, to offer to the next service.
    NotMine(Request, C),
}

impl<C> Dispatched<C> {
    /// The work, or what `next` makes of the call.
    #[must_use]
    pub fn or_else(self, next: impl FnOnce(Request, C) -> Self) -> Self {
        match self {
            Self::Handled(_) => self,
            Self::NotMine(request, context) => next(request, context),
        }
    }

    /// The work, or the answer that there is no such method.
    #[must_use]
    pub fn or_unknown_method(self) -> Handling {
        match self {
            Self::Handled(handling) => handling,
            Self::NotMine(request, _) => {
                let text = match &request.service {
                    Some(service) => format!("no method {service}:{} is served here", request.method),
                    None => format!("no method {} is served here", request.method),
                };
                let reply = request.application_error(wire::ApplicationErrorKind::UnknownMethod, &text);
                Box::pin(ready(unless_oneway(&request, reply)))
            }
        }
    }
}

/// Whether the call is meant for this service; plain clients do not name one.
pub(crate) fn is_for(request: &Request, service: &str) -> bool {
    request.service.as_deref().is_none_or(|named| named == service)
}

/// Decodes the arguments, and makes the future that runs `handle` on them and encodes the answer.
pub(crate) fn answered<Q, R, W>(request: Request, handle: impl FnOnce(Q) -> W + Send + 'static) -> Handling
where
    Q: TSerializable + HasBase + Send + 'static,
    R: TSerializable,
    W: Future<Output = Result<R, Fault>> + Send,
{
    let args = match args(&request) {
        Ok(args) => args,
        Err(error) => return Box::pin(ready(unless_oneway(&request, request.undecodable(&error)))),
    };
    // The decoded arguments hold what they need of the frame.
    let request = request.without_body();
    Box::pin(async move {
        let reply = match handle(args).await {
            Ok(value) => request.reply(&value),
            Err(fault) => request.exception(&fault),
        };
        unless_oneway(&request, reply)
    })
}

/// The same for a oneway method: there is no answer, whatever happens and however the call was sent.
pub(crate) fn silent<Q, W>(request: Request, handle: impl FnOnce(Q) -> W + Send + 'static) -> Handling
where
    Q: TSerializable + HasBase + Send + 'static,
    W: Future<Output = ()> + Send,
{
    match args(&request) {
        Ok(args) => Box::pin(async move {
            handle(args).await;
            None
        }),
        Err(_) => Box::pin(ready(None)),
    }
}

/// The arguments, with what the transport said about the call where the request itself says nothing.
fn args<Q: TSerializable + HasBase>(request: &Request) -> Result<Q, WireError> {
    let mut args: Q = request.args()?;
    if let Some(carried) = request.carried()
        && *carried != Carried::default()
    {
        let base = args.base_mut();
        base.timeout_ms = base.timeout_ms.filter(|ms| *ms != 0).or(carried.timeout_ms);
        base.request_id = base.request_id.take().or_else(|| carried.log_id.clone());
        base.caller = base.caller.take().or_else(|| carried.caller.clone());
        if base.traceparent.is_none() {
            // The two belong together: a state beside another's parent would be that of another trace.
            base.traceparent = carried.traceparent.clone();
            base.tracestate = carried.tracestate.clone();
        }
        base.key = base.key.take().or_else(|| carried.key.clone());
    }
    Ok(args)
}

fn unless_oneway(request: &Request, reply: Reply) -> Option<Reply> {
    (request.kind != MessageKind::Oneway).then_some(reply)
}
