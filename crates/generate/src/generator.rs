//! Many answers at the same time, by one model: the thread that owns the decoder.
//!
//! Why one thread: each step of the network serves all answers at once, so there is nothing to run beside it; between two steps
//! answers join and leave.
//! A turn is: take what came, give slots to those who wait, one piece of the oldest prompt that is not in yet, one step for the
//! row of slots from the first to the last that has an answer; an answer moves into a hole of that row when that pays. A long prompt therefore holds up the others by one piece at a time.
//! Promises: every request that was taken gets exactly one [`Event::Finished`] or [`Event::Failed`], unless its
//! [`Ticket`] is dropped or its sink says that nobody listens; its tokens do not depend on who else is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use runtime::{Decoder, Next, RunError, Stop};

use crate::format::{Grammar, Grammars};
use crate::request::{Event, Finish, Refusal, Request, Sink, Timing, Usage};
use crate::sampling::{Chosen, Sampler};
use crate::slots::Slots;
use crate::text::Text;

/// An idle slot in the row costs a step more than copying so many tokens of the cache from slot to slot. Moving by this rule made
/// 16 answers whose lengths lie evenly between 6 and 96 tokens quicker by a quarter (examples/tokens_per_second, `spread`, f32,
/// one thread).
const COPIED_FOR_A_ROW: usize = 64;

/// So many steps an answer is thought to go on at least, unless it may not: long ones and short ones are like that.
const STEPS_AHEAD: usize = 32;

/// Bounds of a generator.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Prompts that may wait for a slot.
    pub waiting: usize,
    /// Tokens of a prompt that go in at once while others are being answered: so long do those wait.
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

#[derive(Default)]
struct Shared {
    waiting: AtomicUsize,
    busy: AtomicUsize,
    prompt: AtomicU64,
    cached: AtomicU64,
    generated: AtomicU64,
    moves: AtomicU64,
}

struct Arrived {
    request: Request,
    grammar: Option<Grammar>,
    sink: Sink,
    left: Arc<AtomicBool>,
    since: Instant,
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
        let turns = Turns {
            slots: Slots::new(slots),
            decoder,
            tokens,
            limits,
            waiting: VecDeque::new(),
            answers: Vec::new(),
            shared: Arc::clone(&shared),
            stop: Stop::new(),
        };
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

/// One request with a slot.
struct Answer {
    request: Request,
    sink: Sink,
    left: Arc<AtomicBool>,
    slot: usize,
    /// Prompt tokens that are in the cache.
    past: usize,
    /// The token that goes in next; none while the prompt is not all in.
    next: Option<u32>,
    sampler: Sampler,
    grammar: Option<Grammar>,
    /// Nothing can come any more in its grammar.
    whole: bool,
    text: Text,
    generated: usize,
    cached: usize,
    since: Instant,
    entered: Instant,
    first: Option<Instant>,
}

/// What one turn did to an answer.
enum Went {
    On,
    /// It has ended, and its sink knows.
    Ended,
}

struct Turns {
    decoder: Decoder,
    slots: Slots,
    tokens: Tokens,
    limits: Limits,
    waiting: VecDeque<Arrived>,
    /// In the order in which they came.
    answers: Vec<Answer>,
    shared: Arc<Shared>,
    stop: Stop,
}

impl Turns {
    fn run(mut self, arrived: &Receiver<Arrived>) {
        loop {
            if !self.take(arrived) {
                return;
            }
            self.let_go();
            self.admit();
            self.put_in();
            self.close_up();
            self.step();
            self.shared.busy.store(self.slots.busy(), Ordering::Release);
        }
    }

    /// Takes what came, and waits for something when there is nothing to do. False: nobody can come any more.
    fn take(&mut self, arrived: &Receiver<Arrived>) -> bool {
        let idle = self.answers.is_empty() && self.waiting.is_empty();
        if idle {
            match arrived.recv() {
                Ok(one) => self.waiting.push_back(one),
                Err(_) => return false,
            }
        }
        self.waiting.extend(arrived.try_iter());
        true
    }

    /// Ends what nobody waits for any more.
    fn let_go(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|one| !one.left.load(Ordering::Acquire));
        self.shared.waiting.fetch_sub(before - self.waiting.len(), Ordering::AcqRel);
        for at in (0..self.answers.len()).rev() {
            if self.answers[at].left.load(Ordering::Acquire) {
                self.end(at);
            }
        }
    }

    fn admit(&mut self) {
        while let Some(first) = self.waiting.front() {
            let Some(place) = self.slots.enter(first.request.owner, &first.request.prompt) else { return };
            let Some(Arrived { request, grammar, sink, left, since }) = self.waiting.pop_front() else { return };
            // Before it leaves the queue: in between it counts twice, and never not at all.
            self.shared.busy.store(self.slots.busy(), Ordering::Release);
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            let held = match place.copy_from.map(|from| self.decoder.copy(from, place.slot, place.held)) {
                // Without the copy it is worked out anew.
                Some(Err(_)) => {
                    self.slots.forget(place.slot);
                    0
                }
                Some(Ok(())) | None => place.held,
            };
            self.shared.prompt.fetch_add(request.prompt.len() as u64, Ordering::Relaxed);
            self.shared.cached.fetch_add(held as u64, Ordering::Relaxed);
            self.answers.push(Answer {
                sampler: Sampler::new(request.sampling.clone(), request.logprobs, &request.prompt),
                text: Text::new(request.stops.clone()),
                grammar,
                whole: false,
                slot: place.slot,
                past: held,
                cached: held,
                next: None,
                generated: 0,
                since,
                entered: Instant::now(),
                first: None,
                request,
                sink,
                left,
            });
        }
    }

    /// One piece of the oldest prompt that is not all in.
    fn put_in(&mut self) {
        let others = self.answers.iter().any(|answer| answer.next.is_some());
        let Some(at) = self.answers.iter().position(|answer| answer.next.is_none()) else { return };
        let ends = &self.tokens.ends;
        let answer = &mut self.answers[at];
        let most = if others { self.limits.piece } else { self.limits.piece_alone };
        let end = answer.request.prompt.len().min(answer.past + most.max(1));
        let piece = answer.past..end;
        let whole = end == answer.request.prompt.len();
        let (slot, past) = (answer.slot, answer.past);
        let tokens = answer.request.prompt[piece.clone()].to_vec();
        let chosen = self
            .decoder
            .prefill(slot, past, &tokens, 1, &self.stop, |logits| whole.then(|| answer.choose(logits.row(0), ends)));
        match chosen {
            Ok(chosen) => {
                self.slots.extend(slot, &tokens);
                answer.past = end;
                if let Some(chosen) = chosen {
                    answer.first = Some(Instant::now());
                    self.shared.generated.fetch_add(1, Ordering::Relaxed);
                    if let Went::Ended = answer.say(chosen, &self.tokens) {
                        self.end(at);
                    }
                }
            }
            Err(error) => self.fail(at, &error),
        }
    }

    /// Moves one answer into a hole when that pays: an idle slot in the row costs in every step about as much as copying
    /// [`COPIED_FOR_A_ROW`] tokens does.
    fn close_up(&mut self) {
        let Some(gap) = self.slots.gap() else { return };
        let Some(answer) = self.answers.iter_mut().find(|answer| answer.slot == gap.from) else { return };
        let steps = (answer.request.max_tokens - answer.generated).min(STEPS_AHEAD);
        let copied = gap.held + gap.kept.map_or(0, |(_, held)| held);
        if copied > gap.saved * steps * COPIED_FOR_A_ROW {
            return;
        }
        let kept = gap.kept.map_or(Ok(()), |(slot, held)| self.decoder.copy(gap.to, slot, held));
        if kept.and_then(|()| self.decoder.copy(gap.from, gap.to, gap.held)).is_err() {
            // Everything stays where it is, but for what was overwritten in part.
            gap.kept.iter().for_each(|(slot, _)| self.slots.forget(*slot));
            self.slots.forget(gap.to);
            return;
        }
        self.slots.moved(&gap);
        answer.slot = gap.to;
        self.shared.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// One token for every answer whose prompt is in.
    fn step(&mut self) {
        let going = || self.answers.iter().filter(|answer| answer.next.is_some()).map(|answer| answer.slot);
        let (Some(first), Some(last)) = (going().min(), going().max()) else { return };
        // A slot that has nothing to say takes part at the end of what it holds; a full one gives up its last token for that.
        let idle = |slot: usize| Next { token: 0, past: self.slots.held(slot).min(self.decoder.context() - 1) };
        let mut next: Vec<Next> = (first..=last).map(idle).collect();
        for answer in &self.answers {
            if let Some(token) = answer.next {
                next[answer.slot - first] = Next { token, past: answer.past };
            }
        }
        for slot in first..=last {
            self.slots.truncate(slot, self.decoder.context() - 1);
        }
        let (answers, ends) = (&mut self.answers, &self.tokens.ends);
        let chosen = self.decoder.step(first, &next, &self.stop, |logits| {
            let going = answers.iter_mut().filter(|answer| answer.next.is_some());
            going.map(|answer| answer.choose(logits.row(answer.slot - first), ends)).collect::<Vec<_>>()
        });
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(error) => {
                while !self.answers.is_empty() {
                    self.fail(0, &error);
                }
                return;
            }
        };
        self.shared.generated.fetch_add(chosen.len() as u64, Ordering::Relaxed);
        let mut chosen = chosen.into_iter();
        let mut ended = Vec::new();
        for (at, answer) in self.answers.iter_mut().enumerate() {
            let Some(token) = answer.next else { continue };
            self.slots.extend(answer.slot, &[token]);
            answer.past += 1;
            let Some(chosen) = chosen.next() else { break };
            if let Went::Ended = answer.say(chosen, &self.tokens) {
                ended.push(at);
            }
        }
        ended.into_iter().rev().for_each(|at| self.end(at));
    }

    fn end(&mut self, at: usize) {
        let answer = self.answers.remove(at);
        self.slots.leave(answer.slot);
    }

    fn fail(&mut self, at: usize, error: &RunError) {
        let mut answer = self.answers.remove(at);
        self.slots.forget(answer.slot);
        self.slots.leave(answer.slot);
        // Nobody may be listening any more.
        let _ = (answer.sink)(Event::Failed(error.to_string()));
    }
}

impl Answer {
    /// The next token; an error when the answer's grammar has become too much work.
    fn choose(&mut self, logits: &[f32], ends: &[u32]) -> Result<Chosen, String> {
        let Some(grammar) = &mut self.grammar else { return Ok(self.sampler.choose(logits, self.generated, None)) };
        let allowed = grammar.allowed()?;
        let chosen = self.sampler.choose(logits, self.generated, Some(allowed.as_slice()));
        if !ends.contains(&chosen.token) {
            self.whole = grammar.take(chosen.token)?;
        }
        Ok(chosen)
    }

    /// Tells a token, and whether the answer ends with it.
    fn say(&mut self, chosen: Result<Chosen, String>, tokens: &Tokens) -> Went {
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(reason) => {
                // Nobody may be listening any more.
                let _ =
                    (self.sink)(Event::Failed(format!("the format of the answer cannot be kept any more: {reason}")));
                return Went::Ended;
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
