//! The services, as traits, and the way of a call to their methods.
//!
//! The macro spells out, for each service, the trait and one `match` over method names; `methods` and a test keep the
//! names equal to those in the IDL.

use std::future::Future;
use std::sync::Arc;

use wire::Request;

use crate::admin::{AdminReply, LoadRequest, StatisticsReply, StatisticsRequest, UnloadRequest};
use crate::chat::{ChatReply, ChatRequest, NextReply, NextRequest, StartReply, StartRequest, StopReply, StopRequest};
use crate::dispatch::{Dispatched, answered, is_for, silent};
use crate::fault::Fault;
use crate::health::{CheckReply, CheckRequest};
use crate::inference::{
    CancelRequest, ClassifyReply, ClassifyRequest, EmbedReply, EmbedRequest, InferReply, InferRequest, ModelsReply,
    ModelsRequest,
};

macro_rules! service {
    (
        $(#[$about:meta])* $service:ident, $dispatch:ident {
            $($(#[$doc:meta])* $method:ident($request:ty) -> $reply:ty;)*
        }
        $(oneway { $($(#[$silent_doc:meta])* $silent:ident($silent_request:ty);)* })?
    ) => {
        $(#[$about])*
        pub trait $service: Send + Sync + 'static {
            /// What comes along with a call: caller, connection, deadline.
            type Context: Send + 'static;

            $(
                $(#[$doc])*
                fn $method(
                    &self,
                    cx: Self::Context,
                    request: $request,
                ) -> impl Future<Output = Result<$reply, Fault>> + Send;
            )*
            $($(
                $(#[$silent_doc])*
                fn $silent(&self, cx: Self::Context, request: $silent_request) -> impl Future<Output = ()> + Send;
            )*)?
        }

        #[doc = concat!("Leads a call to its method of [`", stringify!($service), "`]; decodes the arguments at once.")]
        pub fn $dispatch<S: $service>(
            service: &Arc<S>,
            cx: S::Context,
            request: Request,
        ) -> Dispatched<S::Context> {
            if !is_for(&request, stringify!($service)) {
                return Dispatched::NotMine(request, cx);
            }
            let service = Arc::clone(service);
            match request.method.as_str() {
                $(
                    stringify!($method) => Dispatched::Handled(answered(request, move |args: $request| async move {
                        service.$method(cx, args).await
                    })),
                )*
                $($(
                    stringify!($silent) => Dispatched::Handled(silent(request, move |args: $silent_request| async move {
                        service.$silent(cx, args).await;
                    })),
                )*)?
                _ => Dispatched::NotMine(request, cx),
            }
        }
    };
}

service! {
    /// `Inference` of `idl/inference.thrift`.
    Inference, dispatch_inference {
        /// What is served here.
        models(ModelsRequest) -> ModelsReply;
        /// Named raw tensors through a model.
        infer(InferRequest) -> InferReply;
        /// Pictures to labels.
        classify(ClassifyRequest) -> ClassifyReply;
        /// Texts to vectors.
        embed(EmbedRequest) -> EmbedReply;
    }
    oneway {
        /// Stops a call that is waiting or running.
        cancel(CancelRequest);
    }
}

service! {
    /// `Chat` of `idl/chat.thrift`.
    Chat, dispatch_chat {
        /// The whole answer in one reply.
        complete(ChatRequest) -> ChatReply;
        /// Begins a stream.
        start(StartRequest) -> StartReply;
        /// The pieces of a stream since a number.
        next_pieces(NextRequest) -> NextReply;
        /// Ends a stream early.
        stop(StopRequest) -> StopReply;
    }
}

service! {
    /// `Health` of `idl/health.thrift`.
    Health, dispatch_health {
        /// Whether the server, or a model, can answer now.
        check(CheckRequest) -> CheckReply;
    }
}

service! {
    /// `Admin` of `idl/admin.thrift`.
    Admin, dispatch_admin {
        /// Loads a model.
        load(LoadRequest) -> AdminReply;
        /// Stops serving a model.
        unload(UnloadRequest) -> AdminReply;
        /// Loads a model again.
        reload(LoadRequest) -> AdminReply;
        /// The server's counters.
        statistics(StatisticsRequest) -> StatisticsReply;
    }
}
