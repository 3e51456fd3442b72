//! What one chat came to, all its answers together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{ChatTiming, Said, Usage};
use parking_lot::Mutex;

/// What is told of a chat that has ended: to its caller, and in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talked {
    /// Completion tokens of all answers; the prompt counts once.
    pub(crate) usage: Usage,
    /// The longest of all answers.
    pub(crate) timing: ChatTiming,
    /// From the request to the first token; none when it ended before.
    pub(crate) first_token: Option<Duration>,
    /// How it ended, for the log.
    pub(crate) finish: &'static str,
}

/// Counts as it goes on, because a chat that is cut has no last word.
pub(crate) struct Tally {
    received: Instant,
    usage: Usage,
    timing: ChatTiming,
    first_token: Option<Duration>,
    /// Tokens of each answer that has not ended, by its pieces; `None` of one that has.
    open: Vec<Option<usize>>,
}

impl Tally {
    pub(crate) fn new(received: Instant, prompt: usize, answers: usize) -> Self {
        let usage = Usage { prompt, ..Usage::default() };
        Self { received, usage, timing: ChatTiming::default(), first_token: None, open: vec![Some(0); answers] }
    }

    pub(crate) fn count(&mut self, said: &Said) {
        self.first_token.get_or_insert_with(|| self.received.elapsed());
        match said {
            Said::Piece { answer, tokens, .. } => {
                if let Some(counted) = &mut self.open[*answer] {
                    *counted += tokens;
                }
            }
            Said::Finished { answer, usage, timing, .. } => {
                self.open[*answer] = None;
                self.usage.completion += usage.completion;
                self.usage.cached = self.usage.cached.max(usage.cached);
                self.timing.queue = self.timing.queue.max(timing.queue);
                self.timing.prefill = self.timing.prefill.max(timing.prefill);
                self.timing.decode = self.timing.decode.max(timing.decode);
            }
        }
    }

    /// The answers that have not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> {
        self.open.iter().enumerate().filter_map(|(answer, open)| open.map(|_| answer))
    }

    pub(crate) fn talked(&self, finish: &'static str) -> Talked {
        let Self { mut usage, timing, first_token, .. } = *self;
        usage.completion += self.open.iter().flatten().sum::<usize>();
        Talked { usage, timing, first_token, finish }
    }
}

/// The tally of a whole answer, for whoever tells of it when it was cut. Empty until it has begun. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Talk(Arc<Mutex<Option<Tally>>>);

impl Talk {
    pub(super) fn begin(&self, tally: Tally) {
        *self.0.lock() = Some(tally);
    }

    pub(super) fn count(&self, said: &Said) {
        if let Some(tally) = &mut *self.0.lock() {
            tally.count(said);
        }
    }

    /// `None`: nothing has begun.
    pub(crate) fn talked(&self, finish: &'static str) -> Option<Talked> {
        self.0.lock().as_ref().map(|tally| tally.talked(finish))
    }
}
