//! Many answers at the same time, by one model: the handle on the thread that owns the decoder (`turns`).
//!
//! Promises: every request that was taken gets exactly one [`Event::Finished`] or [`Event::Failed`], unless its
//! [`Ticket`] is dropped or its sink says that nobody listens; its tokens do not depend on who else is there.
//!
//! [`Event::Finished`]: crate::Event::Finished
//! [`Event::Failed`]: crate::Event::Failed

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use runtime::Decoder;

use crate::beat::Beat;

use crate::format::{Format, Grammar, Grammars};
use crate::request::{Refusal, Request, Sink};
use crate::slots::Owner;
use crate::turns::Turns;
use crate::waiting::Room;

/// Bounds of a generator.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Prompts that may wait for a slot. One owner may have three quarters of them, fewer where others wait.
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
pub(crate) struct Shared {
    pub(crate) room: Mutex<Room<Arrived>>,
    /// Something came into the room, or nothing can any more.
    pub(crate) arrived: Condvar,
    /// The last handle is gone.
    pub(crate) abandoned: AtomicBool,
    /// The thread has ended.
    pub(crate) ended: AtomicBool,
    pub(crate) beat: Beat,
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

/// A request that was taken. Dropped, it ends: at once while it waits, else at the next turn; its sink hears no more.
#[must_use = "dropping it ends the request"]
pub struct Ticket {
    left: Arc<AtomicBool>,
    number: u64,
    shared: Arc<Shared>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.left.store(true, Ordering::Release);
        let withdrawn = self.shared.room.lock().withdraw(self.number);
        // Its sink is the caller's: not while others cannot come in.
        drop(withdrawn);
    }
}

/// When the last handle goes, the thread is told.
struct Handles(Arc<Shared>);

impl Drop for Handles {
    fn drop(&mut self) {
        let _room = self.0.room.lock();
        self.0.abandoned.store(true, Ordering::Release);
        self.0.arrived.notify_all();
    }
}

/// A handle on the thread that generates. The thread ends, after the answers that it has begun, when the last handle is gone.
#[derive(Clone)]
pub struct Generator {
    shared: Arc<Shared>,
    _handles: Arc<Handles>,
    grammars: Grammars,
    slots: usize,
    context: usize,
}

impl Generator {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(decoder: Decoder, tokens: Tokens, limits: Limits) -> std::io::Result<Self> {
        let (slots, context) = (decoder.slots(), decoder.context());
        let shared = Arc::new(Shared {
            room: Mutex::new(Room::new(slots, limits.waiting)),
            arrived: Condvar::new(),
            abandoned: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            beat: Beat::new(),
            prompt: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            generated: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        });
        let grammars = Grammars::start(&tokens)?;
        let turns = Turns::new(decoder, tokens, limits, Arc::clone(&shared));
        std::thread::Builder::new().name("generate".to_owned()).spawn(move || turns.run())?;
        Ok(Self { _handles: Arc::new(Handles(Arc::clone(&shared))), shared, grammars, slots, context })
    }

    /// Waits until the grammar of a format is there, no longer than `until`; requests with it that come soon after need not wait.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn prepare(&self, owner: Owner, format: &Format, until: Instant) -> Result<(), Refusal> {
        self.grammars.of(owner, format, Some(until)).map(drop)
    }

    /// Takes a request, or refuses it at once. Events go to `sink` from the generator's thread, which must not be held up.
    /// For a format other than text it waits for the grammar: not to be called where nothing may wait.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, Refusal> {
        let owner = request.owner;
        let first = self.enter(owner, vec![self.check(request, sink)?])?;
        first.into_iter().next().ok_or(Refusal::Ended)
    }

    /// As [`Self::submit`], for several answers that an owner wants together: all are taken, or none.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn submit_all(&self, owner: Owner, requests: Vec<(Request, Sink)>) -> Result<Vec<Ticket>, Refusal> {
        let checked = requests.into_iter().map(|(request, sink)| self.check(Request { owner, ..request }, sink));
        self.enter(owner, checked.collect::<Result<_, _>>()?)
    }

    fn check(&self, request: Request, sink: Sink) -> Result<Arrived, Refusal> {
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
        let grammar = self.grammars.of(request.owner, &request.format, None)?;
        Ok(Arrived { request, grammar, sink, left: Arc::default(), since: Instant::now() })
    }

    fn enter(&self, owner: Owner, arrived: Vec<Arrived>) -> Result<Vec<Ticket>, Refusal> {
        let left: Vec<_> = arrived.iter().map(|arrived| Arc::clone(&arrived.left)).collect();
        let mut room = self.shared.room.lock();
        if self.shared.ended.load(Ordering::Acquire) {
            return Err(Refusal::Ended);
        }
        let first = room.enter(owner, arrived)?;
        drop(room);
        self.shared.arrived.notify_all();
        let ticket = |(number, left)| Ticket { left, number, shared: Arc::clone(&self.shared) };
        Ok((first..).zip(left).map(ticket).collect())
    }

    /// How busy it is, and what it has done.
    #[must_use]
    pub fn load(&self) -> Load {
        let room = self.shared.room.lock();
        Load {
            waiting: room.waiting(),
            busy: room.busy(),
            slots: self.slots,
            prompt_tokens: self.shared.prompt.load(Ordering::Relaxed),
            cached_tokens: self.shared.cached.load(Ordering::Relaxed),
            generated_tokens: self.shared.generated.load(Ordering::Relaxed),
            moves: self.shared.moves.load(Ordering::Relaxed),
        }
    }

    /// When the turn that is going on began; none while there is nothing to do. A turn is a run or two of the network: one that
    /// takes much longer hangs.
    #[must_use]
    pub fn turn_began(&self) -> Option<Instant> {
        self.shared.beat.began()
    }

    /// Whether its thread has ended: nothing will come of it any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Most tokens of one conversation.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }
}
