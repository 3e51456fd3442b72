//! Calls of `Inference.embed`.

use fault::Fault;
use idl::inference::{EmbedReply, EmbedRequest};
use rpc::CallOptions;
use units::{CallId, Deadline, RequestId};

use super::{Backend, thrown};

impl Backend {
    /// Makes vectors of texts. Dropping the future stops the work on the server.
    ///
    /// # Errors
    /// The server's faults; Unavailable, DeadlineExceeded.
    pub(crate) async fn embed(
        &self,
        request: EmbedRequest,
        caller: &str,
        request_id: &RequestId,
        deadline: Deadline,
    ) -> Result<EmbedReply, Fault> {
        let call_id = CallId::random();
        let mut request = EmbedRequest { base: Some(self.speaker(caller, request_id).base(call_id)), ..request };
        let options = CallOptions::new(deadline).with_call_id(call_id);
        let reply = self.channel.call(&idl::methods::EMBED, &mut request, options).await;
        reply.map_err(Fault::from)?.map_err(thrown)
    }
}
