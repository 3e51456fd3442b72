//! `Inference.embed`.

use std::sync::Arc;

use engine::{EmbedOptions, Texts};
use fault::Fault;
use idl::inference::{EmbedReply, EmbedRequest};

use crate::convert;
use crate::methods::{Context, Methods, owner};
use crate::record::{About, Spent};

impl Methods {
    pub(crate) async fn embed_texts(
        &self,
        cx: Context,
        request: EmbedRequest,
    ) -> Result<EmbedReply, idl::fault::Fault> {
        let seen = Arc::clone(&cx.model);
        let count = request.texts.as_ref().map_or(0, Vec::len) + request.tokens.as_ref().map_or(0, Vec::len);
        let about = About::new(request.model.as_deref(), count);
        self.run("embed", cx, about, request, |request, request_id, call| async move {
            let model = self.find(request.model.as_deref(), request.version.as_deref(), &seen)?;
            let scope = self.scope(request.base.as_ref(), &call, model.default_deadline());
            let options = EmbedOptions {
                normalise: request.normalise,
                dimensions: request.dimensions.map(dimensions).transpose()?,
                truncate: request.truncate.unwrap_or(false),
                owner: owner(&call, request.base.as_ref()),
            };
            let texts = match (request.texts, request.tokens) {
                (Some(texts), None) => Texts::Words(texts),
                (None, Some(tokens)) => {
                    Texts::Tokens(tokens.into_iter().map(|text| text.ids.unwrap_or_default()).collect())
                }
                (Some(_), Some(_)) => {
                    let message = "the request has both texts and tokens, allowed is one of them";
                    return Err(Fault::invalid_input(message).with_param("tokens"));
                }
                (None, None) => Texts::Words(Vec::new()),
            };
            let done = model.embed(texts, options, scope).await?;
            let tokens = done.token_counts.iter().sum();
            self.metrics.embedded(model.name(), done.token_counts.len(), tokens);
            let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
            let reply = EmbedReply {
                vectors: Some(done.vectors),
                dimensions: Some(count(done.dimensions)),
                token_counts: Some(done.token_counts.into_iter().map(count).collect()),
                model: Some(model.name().to_string()),
                version: Some(model.version().to_owned()),
                timing: Some(convert::timing(&done.timing)),
                request_id: Some(request_id.as_str().to_owned()),
            };
            Ok((reply, Spent::Texts(done.timing, tokens)))
        })
        .await
    }
}

/// What is more than the model has is the engine's to refuse.
fn dimensions(asked: i32) -> Result<usize, Fault> {
    let wrong =
        |_| Fault::invalid_input(format!("dimensions is {asked}, allowed is 1 and more")).with_param("dimensions");
    usize::try_from(asked).map_err(wrong)
}
