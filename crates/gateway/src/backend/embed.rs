//! Calls of `Inference.embed`.

use fault::Fault;
use idl::inference::{EmbedReply, EmbedRequest};
use rpc::CallOptions;
use units::{CallId, Deadline};

use super::{Backend, call, thrown};
use crate::trace::Names;

impl Backend {
    /// Makes vectors of texts. Dropping the future stops the work on the server.
    ///
    /// # Errors
    /// The server's faults; Unavailable, DeadlineExceeded.
    pub(crate) async fn embed(
        &self,
        request: EmbedRequest,
        caller: &str,
        names: &Names,
        deadline: Deadline,
    ) -> Result<EmbedReply, Fault> {
        let (call_id, calling) = (CallId::random(), names.calling("embed"));
        let mut request =
            EmbedRequest { base: Some(self.speaker(caller, names).base_of(&calling, call_id)), ..request };
        let options = CallOptions::new(deadline).with_call_id(call_id);
        let reply = call(&self.channel, &idl::methods::EMBED, &mut request, options, calling).await;
        reply.map_err(Fault::from)?.map_err(thrown)
    }
}
