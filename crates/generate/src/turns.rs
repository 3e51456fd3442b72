//! The thread that owns the decoder, turn by turn.
//!
//! Why one thread: each step of the network serves all answers at once, so there is nothing to run beside it; between two steps
//! answers join and leave.
//! A turn is: take what came, give slots to those who wait, one piece of a prompt that is not in yet, one step for the row of
//! slots from the first to the last that has an answer; an answer moves into a hole of that row when that pays. A long prompt
//! therefore holds up the others by one piece at a time.
//! Promises: a turn that panics fails the answers that were in work, and the next ones go on; a prompt that begins like one that is going in waits for that and takes its beginning over, so that the same
//! tokens are worked out once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use runtime::{Decoder, Next, RunError, Stop};

use crate::answer::{Answer, Went};
use crate::generator::{Limits, Shared, Tokens};
use crate::pace::Pace;
use crate::request::{Event, Failure};
use crate::slots::{Slots, WORTH_A_COPY, shared};

/// An idle slot in the row costs a step more than copying so many tokens of the cache from slot to slot. Moving by this rule made
/// 16 answers whose lengths lie evenly between 6 and 96 tokens quicker by a quarter (examples/tokens_per_second, `spread`, f32,
/// one thread).
const COPIED_FOR_A_ROW: usize = 64;

/// So many steps an answer is thought to go on at least, unless it may not: long ones and short ones are like that.
const STEPS_AHEAD: usize = 32;

/// The thread is gone when this is.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut room = self.0.room.lock();
        self.0.ended.store(true, Ordering::Release);
        // Their sinks go, which is how those that wait hear of it.
        let left: Vec<_> = std::iter::from_fn(|| room.next(|_| 0)).collect();
        drop(room);
        drop(left);
    }
}

pub(crate) struct Turns {
    decoder: Decoder,
    slots: Slots,
    tokens: Tokens,
    limits: Limits,
    /// In the order in which they came.
    answers: Vec<Answer>,
    shared: Arc<Shared>,
    pace: Pace,
    /// The next piece is one of the oldest prompt.
    oldest_next: bool,
    stop: Stop,
}

impl Turns {
    pub(crate) fn new(decoder: Decoder, tokens: Tokens, limits: Limits, shared: Arc<Shared>) -> Self {
        let slots = Slots::new(decoder.slots());
        let (answers, pace, stop) = (Vec::new(), Pace::default(), Stop::new());
        Self { decoder, slots, tokens, limits, answers, shared, pace, oldest_next: true, stop }
    }

    pub(crate) fn run(mut self) {
        // Whatever ends the thread: nobody may wait for it any more.
        let _ended = Ended(Arc::clone(&self.shared));
        while self.wait() {
            self.shared.beat.begin();
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                self.begin_anew();
            }
            self.shared.room.lock().set_busy(self.slots.busy());
            self.shared.beat.rest();
        }
    }

    fn turn(&mut self) {
        self.let_go();
        self.admit();
        self.put_in();
        self.close_up();
        self.step();
    }

    /// Waits for something to do. False: nothing can come any more.
    fn wait(&self) -> bool {
        let mut room = self.shared.room.lock();
        while self.answers.is_empty() && room.waiting() == 0 {
            if self.shared.abandoned.load(Ordering::Acquire) {
                return false;
            }
            self.shared.arrived.wait(&mut room);
        }
        true
    }

    /// Something in a turn panicked: what was in work fails, and nothing that the cache holds is trusted.
    fn begin_anew(&mut self) {
        for mut answer in self.answers.drain(..) {
            let failed = || (answer.sink)(Event::Failed(Failure::Model("the generator panicked".to_owned())));
            // It may have been this sink that panicked.
            let _ = catch_unwind(AssertUnwindSafe(failed));
        }
        self.slots = Slots::new(self.decoder.slots());
    }

    /// Ends what nobody waits for any more.
    fn let_go(&mut self) {
        for at in (0..self.answers.len()).rev() {
            if self.answers[at].left.load(Ordering::Acquire) {
                self.end(at);
            }
        }
    }

    /// Gives slots to those who wait.
    fn admit(&mut self) {
        while self.slots.busy() < self.decoder.slots() {
            let answers = &self.answers;
            let in_work = |owner| answers.iter().filter(|answer| answer.request.owner == owner).count();
            let Some(arrived) = self.shared.room.lock().next(in_work) else { return };
            let Some(place) = self.slots.enter(arrived.request.owner, &arrived.request.prompt) else { return };
            self.shared.prompt.fetch_add(arrived.request.prompt.len() as u64, Ordering::Relaxed);
            let at = self.answers.len();
            self.answers.push(Answer::new(arrived, place.slot));
            let held = match place.copy_from.map(|from| self.decoder.copy(from, place.slot, place.held)) {
                // Without the copy it is worked out anew.
                Some(Err(_)) => {
                    self.slots.forget(place.slot);
                    0
                }
                Some(Ok(())) | None => place.held,
            };
            self.shared.cached.fetch_add(held as u64, Ordering::Relaxed);
            (self.answers[at].past, self.answers[at].cached) = (held, held);
        }
    }

    /// Which prompt goes on: by turns the oldest and the one that is soonest in, so that a short one is not held up by a long one
    /// for longer than it takes itself; or the one that it can take something over from.
    fn next_prompt(&mut self) -> Option<usize> {
        let going = self.answers.iter().enumerate().filter(|(_, answer)| answer.is_going_in());
        let (oldest, _) = going.clone().next()?;
        let left = |answer: &Answer| answer.request.prompt.len() - answer.past;
        self.oldest_next = !self.oldest_next;
        let soonest = || going.clone().min_by_key(|(_, answer)| left(answer)).map_or(oldest, |(at, _)| at);
        let mut at = if self.oldest_next { soonest() } else { oldest };
        // Ends: one that has begun waits for none, the others for one that has or for one before them.
        while let Some(other) = self.awaited(at) {
            at = other;
        }
        Some(at)
    }

    /// The prompt that is going in and will hold more of the beginning of this one than any slot does now.
    fn awaited(&self, at: usize) -> Option<usize> {
        let answer = &self.answers[at];
        if answer.begun {
            return None;
        }
        let (owner, beginning) = (answer.request.owner, answer.beginning());
        let held = self.slots.longest(owner, beginning).map_or(0, |(_, held)| held).max(answer.past);
        self.answers.iter().enumerate().position(|(index, other)| {
            (other.begun || index < at)
                && other.is_going_in()
                && other.request.owner == owner
                && shared(&other.request.prompt, beginning) >= held + WORTH_A_COPY
        })
    }

    /// Copies what another slot holds of the beginning of a prompt whose first piece is about to go in.
    fn take_over(&mut self, at: usize) {
        let answer = &mut self.answers[at];
        answer.begun = true;
        let Some((from, held)) = self.slots.longest(answer.request.owner, answer.beginning()) else { return };
        if from == answer.slot || held < answer.past + WORTH_A_COPY {
            return;
        }
        match self.decoder.copy(from, answer.slot, held) {
            Ok(()) => {
                self.slots.take_over(answer.slot, &answer.request.prompt[..held]);
                self.shared.cached.fetch_add((held - answer.past) as u64, Ordering::Relaxed);
                (answer.past, answer.cached) = (held, held);
            }
            // What was there may be overwritten in part: all of it is worked out anew.
            Err(_) => {
                self.slots.forget(answer.slot);
                self.shared.cached.fetch_sub(answer.cached as u64, Ordering::Relaxed);
                (answer.past, answer.cached) = (0, 0);
            }
        }
    }

    /// One piece of one prompt.
    fn put_in(&mut self) {
        let Some(at) = self.next_prompt() else { return };
        if !self.answers[at].begun {
            self.take_over(at);
        }
        let prompts = self.answers.iter().filter(|answer| answer.is_going_in()).count();
        let others = self.answers.len() - prompts;
        let most = match others {
            0 => self.limits.piece_alone.max(1),
            _ => self.pace.piece(prompts, others, self.limits.piece),
        };
        let ends = &self.tokens.ends;
        let answer = &mut self.answers[at];
        let end = answer.request.prompt.len().min(answer.past + most);
        let piece = answer.past..end;
        let whole = end == answer.request.prompt.len();
        let (slot, past) = (answer.slot, answer.past);
        let tokens = answer.request.prompt[piece.clone()].to_vec();
        let begun = Instant::now();
        let chosen = self
            .decoder
            .prefill(slot, past, &tokens, 1, &self.stop, |logits| whole.then(|| answer.choose(logits.row(0), ends)));
        match chosen {
            Ok(chosen) => {
                // The last piece of a prompt may be a few tokens: what the whole of it costs says nothing about one.
                if others > 0 && tokens.len() == most {
                    self.pace.put_in(tokens.len(), begun.elapsed());
                }
                self.slots.extend(slot, &tokens);
                answer.past = end;
                if let Some(chosen) = chosen {
                    answer.first = Some(Instant::now());
                    self.shared.generated.fetch_add(1, Ordering::Relaxed);
                    let went = answer.say(chosen, &self.tokens);
                    self.settle(at, &went);
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
        let begun = Instant::now();
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
        self.pace.stepped(begun.elapsed());
        self.shared.generated.fetch_add(chosen.len() as u64, Ordering::Relaxed);
        let mut chosen = chosen.into_iter();
        let mut ended = Vec::new();
        for (at, answer) in self.answers.iter_mut().enumerate() {
            let Some(token) = answer.next else { continue };
            self.slots.extend(answer.slot, &[token]);
            answer.past += 1;
            let Some(chosen) = chosen.next() else { break };
            match answer.say(chosen, &self.tokens) {
                Went::On => {}
                went => ended.push((at, went)),
            }
        }
        ended.iter().rev().for_each(|(at, went)| self.settle(*at, went));
    }

    fn settle(&mut self, at: usize, went: &Went) {
        match went {
            Went::On => {}
            Went::Ended => self.end(at),
            Went::Broken => {
                self.slots.forget(self.answers[at].slot);
                self.end(at);
            }
        }
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
        let _ = (answer.sink)(Event::Failed(Failure::Model(error.to_string())));
    }
}
