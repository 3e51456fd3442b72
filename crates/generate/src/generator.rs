//! Many answers at the same time, by one model: the handle on the thread that owns the decoder (`turns`).
//!
//! Promises: every request that was taken gets exactly one [`Event::Finished`] or [`Event::Failed`], unless its
//! [`Ticket`] is dropped or its sink says that nobody listens; its tokens do not depend on who else is there.
//!
//! [`Event::Finished`]: crate::Event::Finished
//! [`Event::Failed`]: crate::Event::Failed

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use runtime::Decoder;

use crate::format::{Grammar, Grammars};
use crate::request::{Refusal, Request, Sink};
use crate::turns::Turns;

/// Bounds of a generator.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Prompts that may wait for a slot.
    pub waiting: usize,
    /// Most tokens of a prompt that go in at once while others are being answered. As a rule they are fewer: as many as cost about
    /// what a step of the others does.
    pub piece: usize,
    /// ... and while nobody is.
    pub piece_alone: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { waiting: 64, piece: 128, piece_alone: 512 }
    }
}

/// What tokens are to a generator.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// The bytes of each token; empty for those that are no text.
    pub bytes: Vec<Box<[u8]>>,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
}

/// How busy a generator is, and what it has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Prompts that wait for a slot.
    pub waiting: usize,
    /// Slots in use.
    pub busy: usize,
    /// Slots in all.
    pub slots: usize,
    /// Tokens of the prompts that got a slot.
    pub prompt_tokens: u64,
    /// ... of which the cache held so many already.
    pub cached_tokens: u64,
    /// Tokens generated, end tokens among them.
    pub generated_tokens: u64,
    /// Answers that were moved to another slot.
    pub moves: u64,
}

/// What the thread and its handles both know.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) waiting: AtomicUsize,
    pub(crate) busy: AtomicUsize,
    pub(crate) prompt: AtomicU64,
    pub(crate) cached: AtomicU64,
    pub(crate) generated: AtomicU64,
    pub(crate) moves: AtomicU64,
}

/// A request that was taken and has no slot yet.
pub(crate) struct Arrived {
    pub(crate) request: Request,
    pub(crate) grammar: Option<Grammar>,
    pub(crate) sink: Sink,
    pub(crate) left: Arc<AtomicBool>,
    pub(crate) since: Instant,
}

/// A request that was taken. Dropped, it ends at the next turn, wherever it is, and its sink hears no more.
#[must_use = "dropping it ends the request"]
#[derive(Debug)]
pub struct Ticket(Arc<AtomicBool>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A handle on the thread that generates. The thread ends, after the answers that it has begun, when the last handle is gone.
#[derive(Clone)]
pub struct Generator {
    arrivals: Sender<Arrived>,
    grammars: Grammars,
    shared: Arc<Shared>,
    limits: Limits,
    slots: usize,
    context: usize,
}

impl Generator {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(decoder: Decoder, tokens: Tokens, limits: Limits) -> std::io::Result<Self> {
        let (arrivals, arrived) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let grammars = Grammars::start(&tokens)?;
        let (slots, context) = (decoder.slots(), decoder.context());
        let turns = Turns::new(decoder, tokens, limits, Arc::clone(&shared));
        std::thread::Builder::new().name("generate".to_owned()).spawn(move || turns.run(&arrived))?;
        Ok(Self { arrivals, grammars, shared, limits, slots, context })
    }

    /// Takes a request, or refuses it at once. Events go to `sink` from the generator's thread, which must not be held up.
    /// For a format other than text it waits for the grammar: not to be called where nothing may wait.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, Refusal> {
        let (prompt, answer) = (request.prompt.len(), request.max_tokens);
        if prompt == 0 {
            return Err(Refusal::Empty("the prompt has no tokens"));
        }
        if answer == 0 {
            return Err(Refusal::Empty("no tokens are wanted"));
        }
        if prompt.saturating_add(answer) > self.context {
            return Err(Refusal::TooLong { prompt, answer, context: self.context });
        }
        let grammar = self.grammars.of(&request.format)?;
        let limit = self.limits.waiting;
        let counted = self.shared.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            // Those that find a slot at once pass through the queue as well.
            let free = self.slots.saturating_sub(self.shared.busy.load(Ordering::Acquire));
            (waiting < limit + free).then_some(waiting + 1)
        });
        if let Err(waiting) = counted {
            return Err(Refusal::Full { waiting, limit });
        }
        let left = Arc::new(AtomicBool::new(false));
        let arrived = Arrived { request, grammar, sink, left: Arc::clone(&left), since: Instant::now() };
        self.arrivals.send(arrived).map_err(|_| Refusal::Ended)?;
        Ok(Ticket(left))
    }

    /// How busy it is, and what it has done.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            waiting: self.shared.waiting.load(Ordering::Acquire),
            busy: self.shared.busy.load(Ordering::Acquire),
            slots: self.slots,
            prompt_tokens: self.shared.prompt.load(Ordering::Relaxed),
            cached_tokens: self.shared.cached.load(Ordering::Relaxed),
            generated_tokens: self.shared.generated.load(Ordering::Relaxed),
            moves: self.shared.moves.load(Ordering::Relaxed),
        }
    }

    /// Most tokens of one conversation.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }
}
