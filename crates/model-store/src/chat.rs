//! `[chat]` of `model.toml`: how a language model is run, and how it answers when a request does not say.

use serde::Deserialize;

use crate::settings::in_range;

/// What a language model may take, and its defaults for sampling. A key that is not here is an error.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chat {
    /// Bytes of the cache of all conversations together. It is cut into slots, one for each answer in work.
    pub kv_bytes: u64,
    /// Most tokens of one conversation, prompt and answer together: the length of a slot. What the model was trained for is a
    /// limit as well.
    pub max_context: usize,
    /// Prompts that may wait for a slot; more are refused as Overloaded.
    pub waiting: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Smallest set of likeliest tokens whose probabilities reach this.
    pub top_p: f64,
    /// Only so many likeliest; 0 keeps all.
    pub top_k: usize,
    /// Drops tokens less likely than this share of the likeliest one; 0 keeps all.
    pub min_p: f64,
    /// Divides (multiplies, when negative) the logits of tokens seen so far; 1 changes nothing.
    pub repetition_penalty: f64,
    /// Subtracted once from the logit of a token that was generated before.
    pub presence_penalty: f64,
    /// Subtracted for each time a token was generated before.
    pub frequency_penalty: f64,
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            kv_bytes: 1 << 30,
            max_context: 2048,
            waiting: 64,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }
}

impl Chat {
    pub(crate) fn check(&self) -> Result<(), String> {
        in_range("chat.kv_bytes", self.kv_bytes, 1, 1 << 44)?;
        // One token of prompt and one of answer.
        in_range("chat.max_context", self.max_context, 2, 1 << 20)?;
        in_range("chat.waiting", self.waiting, 0, 100_000)?;
        in_range("chat.temperature", self.temperature, 0.0, 2.0)?;
        in_range("chat.top_k", self.top_k, 0, 1 << 20)?;
        in_range("chat.min_p", self.min_p, 0.0, 1.0)?;
        in_range("chat.presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        in_range("chat.frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        for (key, value, most) in
            [("chat.top_p", self.top_p, 1.0), ("chat.repetition_penalty", self.repetition_penalty, 100.0)]
        {
            if !(value > 0.0 && value <= most) {
                return Err(format!("`{key}` is {value}, allowed is above 0, to {most}"));
            }
        }
        Ok(())
    }
}
