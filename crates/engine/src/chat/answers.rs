//! Answers on their way.

use std::sync::Arc;
use std::time::Instant;

use fault::Fault;
use generate::{Chosen, Event as Happened, Failure};
use tokio::sync::mpsc::UnboundedReceiver;
use units::{Deadline, ModelName};

use super::{Speaker, Submitted};
use crate::CallScope;
use crate::model::Model;
use crate::observe::{Event, Observe, Phase};

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model had nothing more to say.
    End,
    /// This stop text would have come.
    Stop(String),
    /// `max_tokens`, or the end of the context.
    Length,
}

/// A token with its log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// What it stands for; none for a special one. It may be a part of a character.
    pub bytes: Vec<u8>,
    /// Under the model's own logits.
    pub logprob: f32,
    /// The likeliest at this place, best first; their own `top` is empty.
    pub top: Vec<Token>,
}

/// Something of one of the answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Some more.
    Piece {
        /// Which answer.
        answer: usize,
        /// Whole characters; can be empty.
        text: String,
        /// The token that brought it on, when log-probabilities were asked for.
        token: Option<Token>,
        /// Tokens behind it: 1, or 0 for what was held back before.
        tokens: usize,
    },
    /// This answer is whole.
    Finished {
        /// Which answer.
        answer: usize,
        /// Why.
        finish: Finish,
        /// What was counted.
        usage: generate::Usage,
        /// Where the time went.
        timing: generate::Timing,
    },
}

/// The answers to one request, as they come. Dropped, those that have not ended are withdrawn.
pub struct Answers {
    /// Of the answers that have not ended.
    tickets: Vec<Option<generate::Ticket>>,
    events: UnboundedReceiver<(usize, Happened)>,
    speaker: Arc<Speaker>,
    observer: Arc<dyn Observe>,
    model: ModelName,
    stops: Vec<String>,
    prompt_tokens: usize,
    logprobs: bool,
    received: Instant,
    /// Until a token has come.
    first: Option<Instant>,
    deadline: Deadline,
}

impl Answers {
    pub(super) fn new(
        submitted: Submitted,
        speaker: Arc<Speaker>,
        model: &Model,
        call: CallScope,
        first: Instant,
    ) -> Self {
        Self {
            tickets: submitted.tickets.into_iter().map(Some).collect(),
            events: submitted.events,
            speaker,
            observer: Arc::clone(model.observer()),
            model: model.name().clone(),
            stops: submitted.stops,
            prompt_tokens: submitted.prompt_tokens,
            logprobs: submitted.logprobs,
            received: call.received,
            first: Some(first),
            deadline: call.deadline,
        }
    }

    /// Tokens of the prompt.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// How many answers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tickets.len()
    }

    /// What comes next; `None` when all answers have ended. Dropping the future loses nothing.
    ///
    /// # Errors
    /// DeadlineExceeded, Internal when the model failed, InvalidInput when the asked format became too much work. All answers
    /// have ended then.
    pub async fn next(&mut self) -> Result<Option<Said>, Fault> {
        if self.tickets.iter().all(Option::is_none) {
            return Ok(None);
        }
        let until = self.first.map_or(self.deadline.instant(), |first| first.min(self.deadline.instant()));
        let fault = match tokio::time::timeout_at(until.into(), self.events.recv()).await {
            Ok(Some((answer, Happened::Piece { text, token }))) => {
                return Ok(Some(self.piece(answer, text, token)));
            }
            Ok(Some((answer, Happened::Finished { finish, usage, timing }))) => {
                self.told_first();
                self.tickets[answer] = None;
                self.observer.phase(Phase::Queue, timing.queue);
                self.observer.phase(Phase::Prefill, timing.prefill);
                self.observer.phase(Phase::Generate, timing.decode);
                let finish = match finish {
                    generate::Finish::End => Finish::End,
                    generate::Finish::Stop(at) => Finish::Stop(self.stops.get(at).cloned().unwrap_or_default()),
                    generate::Finish::Length => Finish::Length,
                };
                return Ok(Some(Said::Finished { answer, finish, usage, timing }));
            }
            // The caller's schema, and not the model, is what did not do.
            Ok(Some((_, Happened::Failed(reason @ Failure::Format(_))))) => {
                Fault::invalid_input(reason.to_string()).with_param("format")
            }
            Ok(Some((_, Happened::Failed(reason @ Failure::Model(_))))) => {
                Fault::internal(format!("model `{}` failed to generate: {reason}", self.model))
            }
            Ok(None) => self.speaker.ended(&self.model),
            Err(_) => {
                self.observer.event(Event::Expired);
                let millis = until.saturating_duration_since(self.received).as_millis();
                let what = if self.first.is_some() { "no token had come" } else { "the answer was not whole" };
                Fault::deadline_exceeded(format!("{what} after {millis} ms, which was the limit"))
            }
        };
        self.tickets.fill_with(|| None);
        Err(fault)
    }

    fn piece(&mut self, answer: usize, text: String, token: Option<Chosen>) -> Said {
        self.told_first();
        let tokens = usize::from(token.is_some());
        let named = |id: u32, logprob: f32, top: Vec<Token>| Token {
            id,
            bytes: self.speaker.vocabulary.bytes(id).to_vec(),
            logprob,
            top,
        };
        let token = token.filter(|_| self.logprobs).map(|chosen| {
            let top = chosen.top.iter().map(|(id, logprob)| named(*id, *logprob, Vec::new())).collect();
            named(chosen.token, chosen.logprob, top)
        });
        Said::Piece { answer, text, token, tokens }
    }

    fn told_first(&mut self) {
        if self.first.take().is_some() {
            self.observer.first_token(self.received.elapsed());
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if self.tickets.iter().any(Option::is_some) {
            self.observer.event(Event::Cancelled);
        }
    }
}
