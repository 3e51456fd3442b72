//! `outboard call`: one server, one method, the answer as a table or as JSON.

mod chat;
mod classify;
mod embed;
mod infer;
mod models;

use crate::args::Call;
use crate::client::block_on;
use crate::exit::Failure;

pub(crate) fn run(call: &Call) -> Result<(), Failure> {
    block_on(async {
        match call {
            Call::Models { address, model, target } => {
                let mut target = target.clone();
                if let Some(address) = address {
                    target.server.clone_from(address);
                }
                models::models(model.as_deref(), &target).await
            }
            Call::Classify { files, model, top_k, target } => classify::classify(files, model, *top_k, target).await,
            Call::Embed { texts, model, truncate, target } => embed::embed(texts, model, *truncate, target).await,
            Call::Chat(asked) => chat::chat(asked).await,
            Call::Infer { model, input, output, target } => infer::infer(model, input, output, target).await,
        }
    })
}

/// A field that the server may have left out.
fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}
