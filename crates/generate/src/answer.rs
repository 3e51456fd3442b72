//! One answer on its way: its tokens chosen, its text told.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::format::Grammar;
use crate::generator::{Arrived, Tokens};
use crate::request::{Event, Failure, Finish, Request, Sink, Timing, Usage};
use crate::sampling::{Chosen, NoChoice, Sampler};
use crate::text::Text;

/// One request with a slot.
pub(crate) struct Answer {
    pub(crate) request: Request,
    pub(crate) sink: Sink,
    pub(crate) left: Arc<AtomicBool>,
    pub(crate) slot: usize,
    /// Something of its prompt was put in.
    pub(crate) begun: bool,
    /// Tokens that are in the cache.
    pub(crate) past: usize,
    /// The token that goes in next; none while the prompt is not all in.
    pub(crate) next: Option<u32>,
    sampler: Sampler,
    grammar: Option<Grammar>,
    /// Nothing can come any more in its grammar.
    whole: bool,
    text: Text,
    pub(crate) generated: usize,
    pub(crate) cached: usize,
    since: Instant,
    entered: Instant,
    pub(crate) first: Option<Instant>,
}

/// What one turn did to an answer.
pub(crate) enum Went {
    On,
    /// It has ended, and its sink knows.
    Ended,
    /// Likewise, and what its slot holds is not to be gone on from.
    Broken,
}

impl Answer {
    /// In a slot that is its own.
    pub(crate) fn new(arrived: Arrived, slot: usize) -> Self {
        let Arrived { request, grammar, sink, left, since } = arrived;
        Self {
            sampler: Sampler::new(request.sampling.clone(), request.logprobs, &request.prompt),
            text: Text::new(request.stops.clone()),
            grammar,
            whole: false,
            slot,
            begun: false,
            past: 0,
            cached: 0,
            next: None,
            generated: 0,
            since,
            entered: Instant::now(),
            first: None,
            request,
            sink,
            left,
        }
    }

    /// Its prompt is not all in.
    pub(crate) fn is_going_in(&self) -> bool {
        self.next.is_none()
    }

    /// What of its prompt may be held already: at least the last token is put in, its logits are what the answer begins with.
    pub(crate) fn beginning(&self) -> &[u32] {
        let prompt = &self.request.prompt;
        &prompt[..prompt.len() - 1]
    }

    /// The next token, or why there is none: the answer's grammar has become too much work, or the model has failed.
    pub(crate) fn choose(&mut self, logits: &[f32], ends: &[u32]) -> Result<Chosen, Failure> {
        let failed = |reason: NoChoice| Failure::Model(reason.to_string());
        let Some(grammar) = &mut self.grammar else {
            return self.sampler.choose(logits, self.generated, None).map_err(failed);
        };
        let allowed = grammar.allowed().map_err(Failure::Format)?;
        let chosen = self.sampler.choose(logits, self.generated, Some(allowed.as_slice())).map_err(failed)?;
        if !ends.contains(&chosen.token) {
            self.whole = grammar.take(chosen.token).map_err(Failure::Format)?;
        }
        Ok(chosen)
    }

    /// Tells a token, and whether the answer ends with it.
    pub(crate) fn say(&mut self, chosen: Result<Chosen, Failure>, tokens: &Tokens) -> Went {
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(reason) => {
                // Nobody may be listening any more.
                let _ = (self.sink)(Event::Failed(reason));
                return Went::Broken;
            }
        };
        let token = chosen.token;
        self.generated += 1;
        if tokens.ends.contains(&token) {
            return self.finish(Finish::End);
        }
        let bytes = tokens.bytes.get(token as usize).map_or(&[][..], |bytes| bytes);
        let told = self.text.push(bytes);
        if let Some(stop) = told.stopped {
            let listens = told.text.is_empty() || (self.sink)(Event::Piece { text: told.text, token: None });
            return if listens { self.finish(Finish::Stop(stop)) } else { Went::Ended };
        }
        if !(self.sink)(Event::Piece { text: told.text, token: Some(chosen) }) {
            return Went::Ended;
        }
        if self.whole {
            return self.finish(Finish::End);
        }
        if self.generated == self.request.max_tokens {
            return self.finish(Finish::Length);
        }
        self.next = Some(token);
        Went::On
    }

    fn finish(&mut self, finish: Finish) -> Went {
        let rest = if matches!(finish, Finish::Stop(_)) { String::new() } else { self.text.finish() };
        if !rest.is_empty() && !(self.sink)(Event::Piece { text: rest, token: None }) {
            return Went::Ended;
        }
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        let usage = Usage { prompt: self.request.prompt.len(), completion: self.generated, cached: self.cached };
        let timing = Timing { queue: self.entered - self.since, prefill: first - self.entered, decode: now - first };
        let _ = (self.sink)(Event::Finished { finish, usage, timing });
        Went::Ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{Format, Owner, Sampling};

    #[test]
    fn logits_that_are_no_numbers_fail_the_answer_and_its_slot() {
        let (send, events) = channel();
        let request = Request {
            prompt: vec![1],
            max_tokens: 5,
            sampling: Sampling::default(),
            stops: Vec::new(),
            format: Format::Text,
            logprobs: None,
            owner: Owner(1),
        };
        let sink = Box::new(move |event| send.send(event).is_ok());
        let arrived = Arrived { request, grammar: None, sink, left: Arc::default(), since: Instant::now() };
        let mut answer = Answer::new(arrived, 0);
        let chosen = answer.choose(&[f32::NAN; 100], &[]);
        assert!(matches!(answer.say(chosen, &Tokens::default()), Went::Broken));
        let events: Vec<_> = events.try_iter().collect();
        let failure = Failure::Model("the model gave logits that are no finite numbers".to_owned());
        assert_eq!(events, [Event::Failed(failure)]);
    }
}
