//! Which conversation lies in which slot of the cache, and what of it a new one can go on from.
//!
//! Why: a second question repeats everything that was said before; what the cache still holds of it needs no work. A slot whose
//! answer is finished therefore stays as it is until it is needed.
//! Promises: what is held is only ever shared between requests of one owner; the slot that was idle for longest goes first.

/// A shorter match than this is not worth a copy between slots: working it out anew is about as quick.
pub(crate) const WORTH_A_COPY: usize = 16;

/// Whose conversations they are: callers that share a number share prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(pub u64);

/// How many tokens two texts have in common from their beginning on.
pub(crate) fn shared(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[derive(Debug, Default)]
struct Slot {
    owner: Option<Owner>,
    /// What the cache holds, from the first position on.
    tokens: Vec<u32>,
    busy: bool,
    /// Greater is later.
    used: u64,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The slot, which is the request's until [`Slots::leave`].
    pub slot: usize,
    /// So many tokens of the prompt are there already.
    pub held: usize,
    /// ... once they were copied from this slot.
    pub copy_from: Option<usize>,
}

/// A busy conversation that goes to another slot, so that those in use lie closer together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it is.
    pub from: usize,
    /// Where it goes.
    pub to: usize,
    /// So many tokens are copied.
    pub held: usize,
    /// What the new slot holds is worth keeping: it goes to this slot first, so many tokens.
    pub kept: Option<(usize, usize)>,
    /// The row of slots in use is shorter by so many afterwards.
    pub saved: usize,
}

/// All slots of a cache.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    clock: u64,
}

impl Slots {
    /// Empty slots.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| Slot::default()).collect(), clock: 0 }
    }

    /// How many are in use.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.slots.iter().filter(|slot| slot.busy).count()
    }

    /// A slot for a prompt; `None` when all are in use. At least the last token of the prompt is never held: its logits are
    /// what the answer begins with.
    pub fn enter(&mut self, owner: Owner, prompt: &[u32]) -> Option<Place> {
        let wanted = &prompt[..prompt.len().saturating_sub(1)];
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.busy);
        // Of equals the first, so that slots in use lie close together.
        let (oldest, _) = free().min_by_key(|(_, slot)| slot.used)?;
        let (from, most) = self.longest(owner, wanted)?;
        // The conversation itself goes on, with the end of it said anew at most: it is used where it lies. Where only a beginning
        // is shared, however long, as a system prompt, the old conversation is kept as long as an older one can go.
        let goes_on = !self.slots[from].busy && self.slots[from].tokens.len() - most < WORTH_A_COPY;
        let place = if most > 0 && (goes_on || from == oldest) {
            Place { slot: from, held: most, copy_from: None }
        } else if most >= WORTH_A_COPY {
            Place { slot: oldest, held: most, copy_from: Some(from) }
        } else {
            Place { slot: oldest, held: 0, copy_from: None }
        };
        self.clock += 1;
        let slot = &mut self.slots[place.slot];
        slot.busy = true;
        slot.used = self.clock;
        slot.owner = Some(owner);
        slot.tokens.clear();
        slot.tokens.extend_from_slice(&prompt[..place.held]);
        Some(place)
    }

    /// The slot that holds most of a beginning, the first of equals, and how much of it. It may be in use.
    #[must_use]
    pub fn longest(&self, owner: Owner, beginning: &[u32]) -> Option<(usize, usize)> {
        let held = |slot: &Slot| if slot.owner == Some(owner) { shared(&slot.tokens, beginning) } else { 0 };
        self.slots.iter().map(held).enumerate().max_by_key(|(at, held)| (*held, usize::MAX - at))
    }

    /// A slot in use holds these tokens of its prompt now, copied from another one.
    pub fn take_over(&mut self, slot: usize, tokens: &[u32]) {
        self.slots[slot].tokens.clear();
        self.slots[slot].tokens.extend_from_slice(tokens);
    }

    /// The cache holds more of a slot's conversation.
    pub fn extend(&mut self, slot: usize, tokens: &[u32]) {
        self.slots[slot].tokens.extend_from_slice(tokens);
    }

    /// How many tokens a slot holds.
    #[must_use]
    pub fn held(&self, slot: usize) -> usize {
        self.slots[slot].tokens.len()
    }

    /// What a slot holds beyond so many tokens is gone.
    pub fn truncate(&mut self, slot: usize, tokens: usize) {
        self.slots[slot].tokens.truncate(tokens);
    }

    /// The slot's request has ended; what it holds stays until the slot is needed.
    pub fn leave(&mut self, slot: usize) {
        self.clock += 1;
        let slot = &mut self.slots[slot];
        slot.busy = false;
        slot.used = self.clock;
    }

    /// The move that makes the row from the first to the last slot in use shortest: of its first or its last into a hole. `None`
    /// when there is no hole.
    #[must_use]
    pub fn gap(&self) -> Option<Move> {
        let busy: Vec<usize> = (0..self.slots.len()).filter(|slot| self.slots[*slot].busy).collect();
        let (first, last) = (*busy.first()?, *busy.last()?);
        let is_hole = |slot: &usize| !self.slots[*slot].busy;
        let down = (first..last).find(is_hole).map(|to| (last, to, first..=to.max(busy[busy.len() - 2])));
        let up = (first..last).rfind(is_hole).map(|to| (first, to, to.min(busy[1])..=last));
        let (from, to, row) =
            [down, up].into_iter().flatten().min_by_key(|(from, _, row)| (row.clone().count(), self.held(*from)))?;
        let oldest = (0..self.slots.len()).filter(is_hole).min_by_key(|slot| self.slots[*slot].used)?;
        let kept = (oldest != to && self.held(to) >= WORTH_A_COPY).then(|| (oldest, self.held(to)));
        Some(Move { from, to, held: self.held(from), kept, saved: last + 1 - first - row.count() })
    }

    /// What was said by [`Slots::gap`] has been done to the cache.
    pub fn moved(&mut self, done: &Move) {
        if let Some((slot, _)) = done.kept {
            self.slots[slot] = std::mem::take(&mut self.slots[done.to]);
        }
        self.slots[done.to] = std::mem::take(&mut self.slots[done.from]);
    }

    /// What a slot holds can no longer be trusted.
    pub fn forget(&mut self, slot: usize) {
        self.slots[slot].tokens.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Owner = Owner(1);
    const OTHER: Owner = Owner(2);

    fn at(slot: usize) -> Place {
        Place { slot, held: 0, copy_from: None }
    }

    fn words(from: u32, count: u32) -> Vec<u32> {
        (from..from + count).collect()
    }

    #[test]
    fn slots_fill_from_the_first_and_then_there_is_none() {
        let mut slots = Slots::new(2);
        assert_eq!(slots.enter(ME, &[1, 2]), Some(at(0)));
        assert_eq!(slots.enter(ME, &[5, 6]), Some(at(1)));
        assert_eq!((slots.enter(ME, &[7]), slots.busy()), (None, 2));
        slots.leave(0);
        assert_eq!(slots.enter(ME, &[7]), Some(at(0)));
    }

    #[test]
    fn the_next_turn_goes_on_where_the_last_one_ended() {
        let mut slots = Slots::new(3);
        let place = slots.enter(ME, &[1, 2, 3]).expect("free");
        slots.extend(place.slot, &[1, 2, 3, 9, 8]);
        slots.leave(place.slot);
        let next = slots.enter(ME, &[1, 2, 3, 9, 8, 4, 5]).expect("free");
        assert_eq!(next, Place { slot: 0, held: 5, copy_from: None });
        assert_eq!(slots.held(0), 5);
    }

    #[test]
    fn the_last_token_of_a_prompt_is_always_worked_out() {
        let mut slots = Slots::new(1);
        slots.enter(ME, &[1, 2, 3]);
        slots.extend(0, &[1, 2, 3]);
        slots.leave(0);
        assert_eq!(slots.enter(ME, &[1, 2, 3]), Some(Place { slot: 0, held: 2, copy_from: None }));
    }

    #[test]
    fn nothing_is_shared_with_others() {
        let mut slots = Slots::new(2);
        let long = words(0, 100);
        slots.enter(ME, &long);
        slots.extend(0, &long);
        slots.leave(0);
        assert_eq!(slots.enter(OTHER, &long), Some(at(1)));
    }

    #[test]
    fn a_long_prefix_in_a_busy_slot_is_copied_and_a_short_one_is_not() {
        for (shared, copies) in [(40, true), (10, false)] {
            let mut slots = Slots::new(3);
            let first = words(0, shared);
            slots.enter(ME, &first);
            slots.extend(0, &first);
            let second: Vec<u32> = first.iter().copied().chain(words(500, 10)).collect();
            let place = slots.enter(ME, &second).expect("free");
            let expected = if copies { Place { slot: 1, held: 40, copy_from: Some(0) } } else { at(1) };
            assert_eq!(place, expected);
        }
    }

    #[test]
    fn a_new_conversation_with_the_same_beginning_leaves_the_old_one_alone() {
        let mut slots = Slots::new(2);
        let old = words(0, 100);
        slots.enter(ME, &old);
        slots.extend(0, &old);
        slots.leave(0);
        let new: Vec<u32> = old[..80].iter().copied().chain(words(500, 10)).collect();
        assert_eq!(slots.enter(ME, &new), Some(Place { slot: 1, held: 80, copy_from: Some(0) }));
        let longer: Vec<u32> = old.iter().copied().chain(words(700, 3)).collect();
        assert_eq!(slots.enter(ME, &longer), Some(Place { slot: 0, held: 100, copy_from: None }));
    }

    #[test]
    fn a_conversation_goes_on_where_it_is_though_its_last_words_are_others() {
        let mut slots = Slots::new(2);
        let old = words(0, 100);
        slots.enter(ME, &old);
        slots.extend(0, &old);
        slots.leave(0);
        let new: Vec<u32> = old[..90].iter().copied().chain(words(500, 10)).collect();
        assert_eq!(slots.enter(ME, &new), Some(Place { slot: 0, held: 90, copy_from: None }));
    }

    #[test]
    fn the_last_idle_slot_gives_up_its_conversation_for_the_beginning() {
        let mut slots = Slots::new(2);
        let old = words(0, 100);
        for owner in [OTHER, ME] {
            let place = slots.enter(owner, &old).expect("free");
            slots.extend(place.slot, &old);
        }
        slots.leave(1);
        let new: Vec<u32> = old[..80].iter().copied().chain(words(500, 10)).collect();
        assert_eq!(slots.enter(ME, &new), Some(Place { slot: 1, held: 80, copy_from: None }));
    }

    #[test]
    fn what_was_idle_for_longest_goes_first() {
        let mut slots = Slots::new(3);
        for slot in 0..3 {
            let prompt = words(100 * slot as u32, 5);
            assert_eq!(slots.enter(ME, &prompt), Some(at(slot)));
            slots.extend(slot, &prompt);
        }
        for slot in [1, 2, 0] {
            slots.leave(slot);
        }
        assert_eq!(slots.enter(ME, &[900]), Some(at(1)));
        assert_eq!(slots.enter(ME, &[901]), Some(at(2)));
        assert_eq!(slots.enter(ME, &[902]), Some(at(0)));
    }

    /// Slots with so many tokens each, of which some are in use; the first is idle for longest.
    fn row(held: &[u32], busy: &[usize]) -> Slots {
        let mut slots = Slots::new(held.len());
        for (slot, held) in held.iter().enumerate() {
            let prompt = words(1000 * slot as u32, *held);
            slots.enter(Owner(slot as u64), &prompt);
            slots.extend(slot, &prompt);
        }
        (0..held.len()).filter(|slot| !busy.contains(slot)).for_each(|slot| slots.leave(slot));
        slots
    }

    #[test]
    fn one_end_of_the_row_goes_into_a_hole() {
        let to = |from, to, held, saved| Some(Move { from, to, held, kept: None, saved });
        for (held, busy, expected) in [
            (&[5, 6, 7, 8][..], &[][..], None),
            (&[5, 6, 7, 8], &[2], None),
            (&[5, 6, 7, 8], &[1, 2], None),
            (&[5, 6, 7, 8], &[0, 2, 3], to(0, 1, 5, 1)),
            (&[8, 6, 7, 5], &[0, 1, 3], to(3, 2, 5, 1)),
            (&[9, 8, 7, 6, 5, 4], &[0, 1, 5], to(5, 2, 4, 3)),
            (&[4, 8, 7, 6, 5, 9], &[0, 4, 5], to(0, 3, 4, 3)),
            (&[4, 8, 7, 6, 5, 9], &[0, 5], to(0, 4, 4, 4)),
        ] {
            assert_eq!(row(held, busy).gap(), expected, "{held:?}, {busy:?}");
        }
    }

    #[test]
    fn what_lies_in_the_hole_is_kept_and_the_oldest_goes() {
        let mut slots = row(&[50, 60, 70, 80], &[1, 3]);
        slots.leave(0);
        let again = slots.enter(Owner(0), &words(0, 60)).expect("free");
        slots.leave(again.slot);
        // Slot 2 is idle for longer than slot 0.
        let done = slots.gap().expect("a hole");
        assert_eq!(done, Move { from: 1, to: 2, held: 60, kept: None, saved: 1 });
        let mut slots = row(&[50, 60, 70, 80], &[1, 3]);
        let done = slots.gap().expect("a hole");
        assert_eq!(done, Move { from: 1, to: 2, held: 60, kept: Some((0, 70)), saved: 1 });
        slots.moved(&done);
        assert_eq!((slots.held(0), slots.held(1), slots.held(2), slots.busy()), (70, 0, 60, 2));
        let longer: Vec<u32> = words(2000, 75);
        let place = slots.enter(Owner(2), &longer).expect("free");
        assert_eq!(place, Place { slot: 0, held: 70, copy_from: None }, "the old conversation goes on where it is now");
    }

    #[test]
    fn what_cannot_be_trusted_is_not_used_again() {
        let mut slots = Slots::new(1);
        slots.enter(ME, &[1, 2, 3]);
        slots.extend(0, &[1, 2, 3]);
        slots.forget(0);
        slots.leave(0);
        assert_eq!(slots.enter(ME, &[1, 2, 3]), Some(at(0)));
    }
}
