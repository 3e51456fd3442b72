//! The prompts that wait for a slot, by owner, so that nobody's many keep somebody's few waiting.
//!
//! Promises: of the owners that wait the next one is who has the fewest answers in work, of those who waited longest for a turn; of
//! one owner the oldest prompt comes first. One owner may have as many waiting as three times the room that is left to the others
//! (a threshold that moves with what is left: Choudhury and Hahne 1998), so that there is always some. Prompts that belong
//! together are taken all or none. What is withdrawn is gone, and counted no more, at once.

use std::collections::VecDeque;

use crate::request::Refusal;
use crate::slots::Owner;

/// An owner's prompts in waiting by the room that they leave.
const SHARE: usize = 3;

struct Line<T> {
    owner: Owner,
    /// With their numbers.
    prompts: VecDeque<(u64, T)>,
}

/// All that wait.
pub(crate) struct Room<T> {
    /// In the order of their turns; none is empty.
    lines: VecDeque<Line<T>>,
    waiting: usize,
    busy: usize,
    slots: usize,
    limit: usize,
    entered: u64,
}

impl<T> Room<T> {
    /// Before so many slots, for `limit` prompts beyond those that find one.
    pub(crate) fn new(slots: usize, limit: usize) -> Self {
        Self { lines: VecDeque::new(), waiting: 0, busy: 0, slots, limit, entered: 0 }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn busy(&self) -> usize {
        self.busy
    }

    /// So many slots are in use.
    pub(crate) fn set_busy(&mut self, busy: usize) {
        self.busy = busy;
    }

    /// Takes all of an owner's prompts that belong together, or none. The numbers that they got follow the one that is returned.
    pub(crate) fn enter(&mut self, owner: Owner, prompts: Vec<T>) -> Result<u64, Refusal> {
        let (wanted, most) = (prompts.len(), self.most());
        if wanted > most {
            return Err(Refusal::TooMany { wanted, most });
        }
        let free = self.slots.saturating_sub(self.busy);
        // Those that find a slot at once pass through as well.
        let left = (self.limit + free).saturating_sub(self.waiting);
        if wanted > left {
            return Err(Refusal::Full { waiting: self.waiting, limit: self.limit });
        }
        let line = self.lines.iter().position(|line| line.owner == owner);
        let mine = line.map_or(0, |line| self.lines[line].prompts.len());
        if mine + wanted > free + SHARE * (left - wanted + 1) {
            return Err(Refusal::Share { waiting: mine, others: self.waiting - mine, limit: self.limit });
        }
        let line = line.unwrap_or_else(|| {
            self.lines.push_back(Line { owner, prompts: VecDeque::new() });
            self.lines.len() - 1
        });
        let first = self.entered;
        self.lines[line].prompts.extend((first..).zip(prompts));
        self.entered += wanted as u64;
        self.waiting += wanted;
        Ok(first)
    }

    /// Most prompts that an owner can have taken at once, when nobody else is there.
    fn most(&self) -> usize {
        let room = self.slots + self.limit;
        room.min((self.slots + SHARE * (room + 1)) / (SHARE + 1))
    }

    /// The next prompt, which is in a slot from now on. `in_work` tells how many answers of an owner are in slots.
    pub(crate) fn next(&mut self, in_work: impl Fn(Owner) -> usize) -> Option<T> {
        let (at, _) = self.lines.iter().enumerate().min_by_key(|(_, line)| in_work(line.owner))?;
        let mut line = self.lines.remove(at)?;
        let (_, prompt) = line.prompts.pop_front()?;
        if !line.prompts.is_empty() {
            self.lines.push_back(line);
        }
        self.waiting -= 1;
        self.busy += 1;
        Some(prompt)
    }

    /// Takes a prompt out, when it still waits.
    pub(crate) fn withdraw(&mut self, number: u64) -> Option<T> {
        for at in 0..self.lines.len() {
            // Ascending: those that came later stand behind.
            if let Ok(place) = self.lines[at].prompts.binary_search_by_key(&number, |(number, _)| *number) {
                let (_, prompt) = self.lines[at].prompts.remove(place)?;
                if self.lines[at].prompts.is_empty() {
                    self.lines.remove(at);
                }
                self.waiting -= 1;
                return Some(prompt);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Owner(1);
    const B: Owner = Owner(2);
    const C: Owner = Owner(3);

    /// Everything that waits, in the order in which it gets slots that nobody gives back.
    fn served(room: &mut Room<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| room.next(|_| 0)).collect()
    }

    fn full(slots: usize, limit: usize) -> Room<&'static str> {
        let mut room = Room::new(slots, limit);
        room.set_busy(slots);
        room
    }

    #[test]
    fn owners_take_turns_whoever_brought_more() {
        let mut room = full(2, 64);
        for (owner, prompts) in [(A, vec!["a1", "a2", "a3"]), (B, vec!["b1"]), (A, vec!["a4"]), (C, vec!["c1", "c2"])] {
            room.enter(owner, prompts).expect("there is room");
        }
        assert_eq!(room.waiting(), 7);
        assert_eq!(served(&mut room), ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]);
        assert_eq!((room.waiting(), room.busy()), (0, 9));
    }

    #[test]
    fn who_has_fewest_in_work_comes_first() {
        let mut room = full(4, 64);
        room.enter(A, vec!["a1"]).expect("there is room");
        room.enter(B, vec!["b1", "b2"]).expect("there is room");
        assert_eq!(room.next(|owner| if owner == A { 4 } else { 0 }), Some("b1"));
        assert_eq!(room.next(|owner| if owner == A { 3 } else { 1 }), Some("b2"));
        assert_eq!(room.next(|_| 2), Some("a1"));
    }

    #[test]
    fn one_owner_leaves_room_for_others() {
        let mut room = full(2, 64);
        let many = std::iter::repeat_with(|| room.enter(A, vec!["a"])).take_while(Result::is_ok).count();
        assert_eq!(many, 48);
        assert_eq!(room.enter(A, vec!["a"]), Err(Refusal::Share { waiting: 48, others: 0, limit: 64 }));
        let others = std::iter::repeat_with(|| room.enter(B, vec!["b"])).take_while(Result::is_ok).count();
        assert_eq!(others, 12);
        assert!(room.enter(C, vec!["c"; 3]).is_ok(), "and for a third");
        assert_eq!(room.enter(C, vec!["c"; 2]), Err(Refusal::Full { waiting: 63, limit: 64 }));
    }

    #[test]
    fn a_small_room_is_one_owners_own() {
        for limit in [0, 1, 2] {
            let mut room = full(3, limit);
            let many = std::iter::repeat_with(|| room.enter(A, vec!["a"])).take_while(Result::is_ok).count();
            assert_eq!(many, limit);
        }
        let mut room = Room::new(3, 0);
        assert!(room.enter(A, vec!["a"; 3]).is_ok(), "those that find a slot do not wait");
        assert_eq!(room.enter(B, vec!["b"]), Err(Refusal::Full { waiting: 3, limit: 0 }));
    }

    #[test]
    fn what_belongs_together_is_taken_all_or_none() {
        let mut room = full(2, 4);
        assert_eq!(room.enter(A, vec!["a", "a"]), Ok(0));
        assert_eq!(room.enter(B, vec!["b"; 3]), Err(Refusal::Full { waiting: 2, limit: 4 }));
        assert_eq!((room.waiting(), room.lines.len()), (2, 1));
        assert_eq!(room.enter(B, vec!["b"; 2]), Ok(2), "which fit");
    }

    #[test]
    fn more_than_can_ever_fit_is_told_with_the_number() {
        for (slots, limit, most) in [(2, 1, 3), (11, 64, 59), (1, 0, 1), (16, 64, 64)] {
            let mut room = Room::new(slots, limit);
            assert_eq!(room.enter(A, vec!["a"; most + 1]), Err(Refusal::TooMany { wanted: most + 1, most }));
            assert_eq!(room.enter(A, vec!["a"; most]), Ok(0), "{slots} slots, {limit} may wait");
        }
    }

    #[test]
    fn what_is_withdrawn_is_counted_no_more() {
        let mut room = full(1, 3);
        let first = room.enter(A, vec!["a1", "a2"]).expect("there is room");
        room.enter(B, vec!["b1"]).expect("there is room");
        assert_eq!(room.withdraw(first + 1), Some("a2"));
        assert_eq!(room.withdraw(first + 1), None);
        assert_eq!(room.waiting(), 2);
        assert_eq!(room.withdraw(first), Some("a1"));
        assert_eq!(served(&mut room), ["b1"]);
        assert_eq!(room.withdraw(first + 2), None, "it has a slot");
    }
}
