//! `[embed]` of `model.toml`: how a model makes one vector of a text.

use serde::Deserialize;

use crate::settings::in_range;

/// What makes one vector of the vectors of all tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first one, which the model was trained to put the whole text into.
    Cls,
}

/// How texts become vectors. A key that is not here is an error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Embed {
    /// What makes one vector of the tokens' vectors. Means nothing for an output that has one vector for each text already.
    pub pooling: Pooling,
    /// Whether vectors are scaled to length 1 when the request does not say.
    pub normalise: bool,
    /// Most tokens of one text, those that the tokenizer adds included.
    pub max_tokens: usize,
    /// The output with the vectors; without it `last_hidden_state`, or the first one.
    pub output: Option<String>,
}

impl Default for Embed {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalise: true, max_tokens: 512, output: None }
    }
}

impl Embed {
    pub(crate) fn check(&self) -> Result<(), String> {
        // Most tokenizers add two: one must be left.
        in_range("embed.max_tokens", self.max_tokens, 3, 1 << 17)
    }
}
