//! How many answers of one caller may be in work or waiting at the same time, whole ones and streamed ones alike.
//!
//! Why: a chat model has few slots and a short queue, and one caller must not have all of both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use engine::MOST_ANSWERS;
use fault::Fault;
use parking_lot::Mutex;

/// When a caller that has too many is to try again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The seats of all callers.
#[derive(Clone)]
pub(crate) struct Seats(Arc<Shared>);

struct Shared {
    /// Of one caller.
    limit: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// The seats of one request, given back when dropped.
pub(super) struct Seat {
    shared: Arc<Shared>,
    caller: String,
    answers: usize,
}

impl Seats {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, taken: Mutex::default() }))
    }

    /// Seats for `answers`, as they were asked for. A number that nobody may ask for takes one: it is the engine's to refuse.
    ///
    /// # Errors
    /// Overloaded when the caller has too many, TooLarge when it asks for more than it may ever have.
    pub(super) fn take(&self, caller: &str, answers: Option<i32>) -> Result<Seat, Fault> {
        let asked = usize::try_from(answers.unwrap_or(1)).ok();
        let answers = asked.filter(|asked| (1..=MOST_ANSWERS).contains(asked)).unwrap_or(1);
        let limit = self.0.limit;
        if answers > limit {
            let message = format!("n is {answers}, one caller may have {limit} answers in work");
            return Err(Fault::too_large(message).with_param("n"));
        }
        let mut all = self.0.taken.lock();
        let taken = all.get(caller).copied().unwrap_or_default();
        if taken + answers > limit {
            let message =
                format!("{taken} answers of this caller are in work, {answers} more would pass the limit of {limit}");
            return Err(Fault::overloaded(message).with_retry_after(TRY_AGAIN));
        }
        all.insert(caller.to_owned(), taken + answers);
        Ok(Seat { shared: Arc::clone(&self.0), caller: caller.to_owned(), answers })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.shared.taken.lock();
        if let Some(taken) = all.get_mut(&self.caller) {
            *taken -= self.answers;
            if *taken == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fault::Kind;

    use super::*;

    #[test]
    fn each_answer_takes_a_seat_and_other_callers_have_their_own() {
        let seats = Seats::new(5);
        let (three, two) = (seats.take("a", Some(3)).expect("room"), seats.take("a", Some(2)).expect("room"));
        let fault = seats.take("a", None).err().expect("all five are taken");
        assert_eq!((fault.kind, fault.retry_after.is_some()), (Kind::Overloaded, true));
        assert!(fault.message.contains("5 answers") && fault.message.contains("limit of 5"), "{fault}");
        let other = seats.take("b", Some(5)).expect("another caller");
        drop(two);
        let again = seats.take("a", Some(2)).expect("two are free again");
        drop((three, other, again));
        assert!(seats.0.taken.lock().is_empty(), "nothing is left of callers that have gone");
    }

    #[test]
    fn what_can_never_fit_is_not_told_to_come_again() {
        let fault = Seats::new(5).take("a", Some(6)).err().expect("there are five");
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::TooLarge, Some("n")));
        for wrong in [i32::MAX, 17, 0, -1] {
            assert!(Seats::new(5).take("a", Some(wrong)).is_ok(), "{wrong} is refused by its own name, later");
        }
    }
}
