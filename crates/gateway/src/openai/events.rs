//! A streamed answer as server-sent events.
//!
//! Promises: the pieces of an answer in order, then for each answer one chunk with its `finish_reason`, then the usage when it is
//! asked for, then `[DONE]`; or an error, and nothing behind it.
//! Not here: where the pieces come from, and when they leave (`stream`).

use bytes::Bytes;
use fault::Fault;
use idl::chat::{FinishReason, Piece, Usage};
use serde::Serialize;

use super::given_up;
use super::logprobs::{ChatLogprobs, CompletionLogprobs, Place};
use super::request::Form;
use super::shape::{
    ChatChunk, ChunkChoice, CompletionAnswer, CompletionChoice, Delta, Head, UsageBody, finish_reason, text,
};

/// Says that the connection is alive; clients pass over it.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Writes the events of one stream.
pub(super) struct Events {
    head: Head,
    echo: Option<String>,
    answers: Vec<Answer>,
    usage: Option<Usage>,
}

/// One of the answers of a stream.
#[derive(Default)]
struct Answer {
    /// How far it has come, for the offsets of log-probabilities.
    place: Place,
    finished: bool,
}

impl Events {
    pub(super) fn new(head: Head, answers: usize, echo: Option<String>) -> Self {
        let answers = std::iter::repeat_with(Answer::default).take(answers).collect();
        Self { head, echo, answers, usage: None }
    }

    /// What stands before all pieces: who speaks, or the prompt that is to be repeated.
    pub(super) fn opening(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        for index in 0..self.answers.len() as i32 {
            match (self.head.form, &self.echo) {
                (Form::Chat, _) => {
                    let delta = Delta { role: Some("assistant"), content: Some("") };
                    self.chat(&mut out, ChunkChoice { index, delta, logprobs: None, finish_reason: None });
                }
                (Form::Completion, Some(prompt)) => {
                    self.completion(
                        &mut out,
                        CompletionChoice { text: prompt, index, logprobs: None, finish_reason: None },
                    );
                }
                (Form::Completion, None) => {}
            }
        }
        out
    }

    /// The events of a piece.
    ///
    /// # Errors
    /// Unavailable when the server gave an answer up; Internal when it sends what cannot be.
    pub(super) fn piece(&mut self, piece: &Piece, out: &mut Vec<u8>) -> Result<(), Fault> {
        let index = piece.index.unwrap_or(0);
        let answer = usize::try_from(index).ok().and_then(|index| self.answers.get_mut(index));
        let Some(answer) = answer.filter(|answer| !answer.finished) else {
            return Err(Fault::internal(format!("the server sent a piece for answer {index}, which is none or ended")));
        };
        if piece.finish == Some(FinishReason::CANCELLED) {
            return Err(given_up());
        }
        answer.finished = piece.finish.is_some();
        let reason = piece.finish.map(|finish| finish_reason(Some(finish)));
        let logprobs = piece.logprobs.as_deref().filter(|tokens| !tokens.is_empty());
        let says = !text(&piece.text).is_empty() || logprobs.is_some();
        match self.head.form {
            Form::Chat => {
                if says {
                    let delta = Delta { role: None, content: Some(text(&piece.text)) };
                    let logprobs = logprobs.map(ChatLogprobs::new);
                    self.chat(out, ChunkChoice { index, delta, logprobs, finish_reason: None });
                }
                if reason.is_some() {
                    let delta = Delta::default();
                    self.chat(out, ChunkChoice { index, delta, logprobs: None, finish_reason: reason });
                }
            }
            Form::Completion => {
                let logprobs = logprobs.map(|tokens| CompletionLogprobs::new(tokens, &mut answer.place));
                if says {
                    let text = text(&piece.text);
                    self.completion(out, CompletionChoice { text, index, logprobs, finish_reason: None });
                }
                if reason.is_some() {
                    self.completion(out, CompletionChoice { text: "", index, logprobs: None, finish_reason: reason });
                }
            }
        }
        if piece.usage.is_some() {
            self.usage.clone_from(&piece.usage);
        }
        Ok(())
    }

    /// What was counted, once the last piece has come.
    pub(super) fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// The end of an answer that is complete.
    ///
    /// # Errors
    /// Internal when it is not.
    pub(super) fn end(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if !self.answers.iter().all(|answer| answer.finished) {
            return Err(Fault::internal("the server ended the stream before the answer was complete"));
        }
        if self.head.include_usage {
            let usage = Some(Some(UsageBody::from(&self.usage.clone().unwrap_or_default())));
            match self.head.form {
                Form::Chat => event(out, &ChatChunk::new(&self.head, Vec::new(), usage)),
                Form::Completion => event(out, &CompletionAnswer::new(&self.head, Vec::new(), usage)),
            }
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        Ok(())
    }

    fn chat(&self, out: &mut Vec<u8>, choice: ChunkChoice<'_>) {
        event(out, &ChatChunk::new(&self.head, vec![choice], self.no_usage_yet()));
    }

    fn completion(&self, out: &mut Vec<u8>, choice: CompletionChoice<'_>) {
        event(out, &CompletionAnswer::new(&self.head, vec![choice], self.no_usage_yet()));
    }

    fn no_usage_yet(&self) -> Option<Option<UsageBody>> {
        self.head.include_usage.then_some(None)
    }
}

/// One event with a JSON value.
pub(super) fn event(out: &mut Vec<u8>, value: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut *out, value).expect("plain structs with finite numbers are always JSON");
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests;
