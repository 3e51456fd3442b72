//! How busy and how well an endpoint is, as seen from here.
//!
//! Why peak-sensitive: one slow answer counts at once, many quick ones are needed to forget it (peak EWMA, as Finagle
//! and tower have it). Cost is latency x calls in flight. Failures count as slow, else a server that refuses quickly
//! would draw all calls.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is assumed before the first answer.
const FIRST_GUESS: Duration = Duration::from_millis(1);

/// After so long two thirds of an observation are forgotten.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure counts as, at least.
const FAILURE_COST: Duration = Duration::from_secs(1);

/// When an endpoint is left out of choice, and for how long.
///
/// It is let back with one call at a time, then two, four and so on as they are answered; a failure meanwhile, or a server that
/// hangs, leaves it out again for twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// So many failures without a success between them take it out.
    pub failures: u32,
    /// For so long at first.
    pub first: Duration,
    /// Doubled each time up to this.
    pub longest: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, first: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

/// So many answers end the probation: then 32 calls may be in flight at once, and what a call costs is known.
const PROVEN: u32 = 5;

/// So long one that did not serve something is asked only when there is no other, whatever that one has done before.
const LOADING: Duration = Duration::from_millis(100);

/// So long it costs as much as one that fails, and so does one that broke down over something: enough that a thread's calls do not all
/// go there first, and so short that what it does serve comes back.
const COSTLY: Duration = Duration::from_secs(1);

/// A server that says that it is leaving is believed for so long, as when its answer was about something that passed; longer where it
/// is asked again less often.
const TURNED_AWAY: Duration = Duration::from_secs(2);

/// How a call ended, as far as load is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A result came.
    Answered,
    /// A declared exception came: it says nothing good about the latency, since refusals are quick.
    Declined,
    /// It does not serve this now, but perhaps others: while it loads a model, say. Few should come for it, and none for long.
    NotHere,
    /// It says that it failed at it, as with a device that is lost. That may be quick, and as well the fault of what was asked.
    Broke,
    /// No answer by the deadline: it says how long was waited, which may be as little as the caller had patience for.
    TooLate,
    /// The server as a whole takes no new calls.
    TurnedAway,
    /// Lost, or unreadable.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Load {
    in_flight: AtomicUsize,
    ejection: Ejection,
    /// So often it is asked whether it is there.
    ping: Option<Duration>,
    seen: Mutex<Seen>,
}

/// What speaks for and against one more call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// It does not take new calls, as while it drains.
    pub(crate) leaving: bool,
    /// A moment ago it did not serve what others may.
    pub(crate) loading: bool,
    /// It failed again and again, and may not have another call now.
    pub(crate) barred: bool,
    /// What one more call would cost, in seconds.
    pub(crate) cost: f64,
}

#[derive(Debug)]
struct Seen {
    /// Seconds.
    latency: f64,
    at: Instant,
    failures: u32,
    /// How often it was ejected lately: so often the time was doubled.
    ejections: u32,
    ejected_at: Instant,
    ejected_until: Option<Instant>,
    /// Answers since it was let back, while it has to prove itself.
    probation: Option<u32>,
    leaving_until: Option<Instant>,
    loading_until: Option<Instant>,
    costly_until: Option<Instant>,
}

/// Counts as a call in flight until dropped.
pub(crate) struct InFlight<'a>(&'a Load);

impl Load {
    pub(crate) fn new(ejection: Ejection, ping: Option<Duration>) -> Self {
        let seen = Seen {
            latency: FIRST_GUESS.as_secs_f64(),
            at: Instant::now(),
            failures: 0,
            ejections: 0,
            ejected_at: Instant::now(),
            ejected_until: None,
            probation: None,
            leaving_until: None,
            loading_until: None,
            costly_until: None,
        };
        Self { in_flight: AtomicUsize::new(0), ejection, ping, seen: Mutex::new(seen) }
    }

    pub(crate) fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn latency(&self, now: Instant) -> Duration {
        Duration::from_secs_f64(self.seen.lock().decayed(now))
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.seen.lock().ejected_until.is_some_and(|until| now < until)
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let in_flight = self.in_flight();
        let seen = self.seen.lock();
        let ejected = seen.ejected_until.is_some_and(|until| now < until);
        let proving = seen.probation.is_some_and(|answered| in_flight >= 1 << answered);
        Standing {
            leaving: seen.leaving_until.is_some_and(|until| now < until),
            loading: seen.loading_until.is_some_and(|until| now < until),
            barred: ejected || proving,
            cost: (in_flight + 1) as f64 * seen.cost(now),
        }
    }

    /// Notes that it says that it is leaving, or that it serves after all.
    pub(crate) fn leaves(&self, leaves: bool, now: Instant) {
        self.seen.lock().leaving_until = leaves.then(|| now + self.turned_away());
    }

    /// Not less than until it has answered the next question.
    fn turned_away(&self) -> Duration {
        self.ping.map_or(TURNED_AWAY, |every| TURNED_AWAY.max(2 * every))
    }

    /// Takes it out of choice, whatever its calls came to; whether it was in it.
    pub(crate) fn eject(&self, now: Instant) -> bool {
        self.seen.lock().eject(&self.ejection, now)
    }

    /// Notes how a call ended; whether that ejected the endpoint.
    pub(crate) fn observe(&self, outcome: Outcome, took: Duration, now: Instant) -> bool {
        let mut seen = self.seen.lock();
        let latency = match outcome {
            Outcome::Answered => Some(took.as_secs_f64()),
            Outcome::Declined | Outcome::TooLate => Some(took.as_secs_f64().max(seen.latency)),
            // How quick it is at what it does serve is not known by that.
            Outcome::NotHere | Outcome::Broke => None,
            Outcome::TurnedAway | Outcome::Failed => Some(took.max(FAILURE_COST).as_secs_f64()),
        };
        // What fails together with the calls that ejected it says nothing of how quick it will be.
        if let Some(latency) = latency
            && (outcome != Outcome::Failed || seen.ejected_until.is_none_or(|until| now >= until))
        {
            seen.note(latency, now);
        }
        match outcome {
            Outcome::Answered | Outcome::Declined => {
                if seen.succeeded(&self.ejection, took, now) {
                    seen.latency = took.as_secs_f64();
                }
                return false;
            }
            // A short deadline is its caller's choice, and no server's failure. What is short for an answer nobody knows here, so where
            // the server is asked whether it is there its answer counts, and not its callers' patience.
            Outcome::TooLate if took < FAILURE_COST || self.ping.is_some() => return false,
            // Other models may be well served there.
            Outcome::NotHere => {
                (seen.loading_until, seen.costly_until) = (Some(now + LOADING), Some(now + COSTLY));
                return false;
            }
            // That is no failure either: another process may be there in a moment.
            Outcome::TurnedAway => {
                seen.leaving_until = Some(now + self.turned_away());
                return false;
            }
            Outcome::Broke => seen.costly_until = Some(now + COSTLY),
            Outcome::TooLate | Outcome::Failed => {}
        }
        seen.failures += 1;
        // Who has to prove itself may not fail once.
        (seen.failures >= self.ejection.failures || seen.probation.is_some()) && seen.eject(&self.ejection, now)
    }
}

impl Seen {
    fn eject(&mut self, ejection: &Ejection, now: Instant) -> bool {
        self.failures = 0;
        // Calls that were in flight together fail together: that is one reason and not many.
        if self.ejected_until.is_some_and(|until| now < until) {
            return false;
        }
        let long = ejection.first.saturating_mul(1 << self.ejections.min(16)).min(ejection.longest);
        self.ejected_at = now;
        // Else no call would ever come for it to prove itself.
        (self.latency, self.at) = (FIRST_GUESS.as_secs_f64(), now);
        self.ejected_until = Some(now + long);
        self.probation = Some(0);
        self.ejections += 1;
        true
    }

    fn note(&mut self, latency: f64, now: Instant) {
        self.latency = if latency > self.latency {
            latency
        } else {
            let kept = self.kept(now);
            self.latency * kept + latency * (1.0 - kept)
        };
        self.at = now;
    }

    /// Whether that ends a probation. That it leaves is not taken back by it: what was begun there it answers all the same.
    fn succeeded(&mut self, ejection: &Ejection, took: Duration, now: Instant) -> bool {
        self.failures = 0;
        let Some(mut until) = self.ejected_until else { return false };
        if now < until {
            let began_before = now.checked_sub(took).is_none_or(|began| began < self.ejected_at);
            if began_before {
                return false;
            }
            // Sent because there was no other, and answered: it proves itself from now on.
            until = now;
            self.ejected_until = Some(until);
        }
        let had_to_prove = self.probation.is_some();
        self.probation = self.probation.map(|answered| answered + 1).filter(|answered| *answered < PROVEN);
        // One that hangs every minute costs its callers something each time.
        if now >= until + ejection.longest {
            (self.ejections, self.ejected_until) = (0, None);
        }
        had_to_prove && self.probation.is_none()
    }

    /// The share of the old value that is still believed.
    fn kept(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }

    /// What a call costs, in seconds.
    fn cost(&self, now: Instant) -> f64 {
        let least = if self.costly_until.is_some_and(|until| now < until) { FAILURE_COST.as_secs_f64() } else { 0.0 };
        self.decayed(now).max(least)
    }

    /// Decays while nothing is asked, too, else nobody would ever come back.
    fn decayed(&self, now: Instant) -> f64 {
        (self.latency * self.kept(now)).max(1e-6)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn fresh() -> (Load, Instant) {
        (Load::new(Ejection::default(), None), Instant::now())
    }

    #[test]
    fn one_slow_answer_counts_at_once_and_fades() {
        let (load, now) = fresh();
        load.observe(Outcome::Answered, 100 * MS, now);
        assert_eq!(load.latency(now).as_millis(), 100);
        load.observe(Outcome::Answered, MS, now + 10 * MS);
        assert!(load.latency(now + 10 * MS) > 99 * MS, "a single quick answer hides it");
        assert!(load.latency(now + Duration::from_secs(60)) < MS);
    }

    #[test]
    fn calls_in_flight_multiply_the_cost() {
        let (load, now) = fresh();
        let cost = |load: &Load| load.standing(now).cost;
        let idle = cost(&load);
        let calls = [load.enter(), load.enter(), load.enter()];
        assert!((cost(&load) / idle - 4.0).abs() < 0.01);
        drop(calls);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn quick_failures_and_refusals_never_look_fast() {
        let (failing, now) = fresh();
        failing.observe(Outcome::Failed, MS, now);
        assert!(failing.latency(now) >= FAILURE_COST);
        let (refusing, _) = fresh();
        refusing.observe(Outcome::Answered, 50 * MS, now);
        refusing.observe(Outcome::Declined, MS / 10, now);
        assert_eq!(refusing.latency(now).as_millis(), 50);
    }

    #[test]
    fn a_short_deadline_counts_as_time_and_a_long_one_as_a_failure() {
        let (load, now) = fresh();
        for _ in 0..50 {
            load.observe(Outcome::TooLate, 30 * MS, now);
        }
        assert!(!load.is_ejected(now));
        assert_eq!(load.latency(now).as_millis(), 30);
        let now = now + DECAY;
        load.observe(Outcome::TooLate, MS, now);
        assert_eq!(load.latency(now).as_millis(), 30, "less patience is no better latency");
        for _ in 0..Ejection::default().failures {
            assert!(!load.is_ejected(now));
            load.observe(Outcome::TooLate, FAILURE_COST, now);
        }
        assert!(load.is_ejected(now));
    }

    /// Clients with little patience took servers out of choice whose answers were long.
    #[test]
    fn whoever_is_asked_whether_it_is_there_is_not_out_for_its_callers_patience() {
        let (load, now) = (Load::new(Ejection::default(), Some(Duration::from_secs(1))), Instant::now());
        for _ in 0..50 {
            assert!(!load.observe(Outcome::TooLate, 5 * FAILURE_COST, now));
        }
        assert_eq!(load.latency(now), 5 * FAILURE_COST, "it is slow all the same");
    }

    /// It was the cheapest of all, and never had enough of it.
    #[test]
    fn who_breaks_down_at_once_is_not_cheap_and_after_some_times_out() {
        let (load, now) = (Load::new(RULES, None), Instant::now());
        load.observe(Outcome::Answered, 50 * MS, now);
        load.observe(Outcome::Broke, MS, now);
        assert!(load.standing(now).cost >= FAILURE_COST.as_secs_f64());
        let later = now + COSTLY;
        assert!(load.standing(later).cost <= 0.05, "it may have been what was asked");
        load.observe(Outcome::Answered, 50 * MS, later);
        for _ in 1..RULES.failures {
            assert!(!load.observe(Outcome::Broke, MS, later));
        }
        assert!(load.observe(Outcome::Broke, MS, later) && load.is_ejected(later));
    }

    /// One failed model took the server's others out of use for half a minute, again and again.
    #[test]
    fn what_is_not_served_costs_as_a_failure_for_a_moment_and_ejects_nobody() {
        let (load, now) = fresh();
        load.observe(Outcome::Answered, 5 * MS, now);
        for _ in 0..50 {
            load.observe(Outcome::NotHere, MS, now);
        }
        assert!(load.standing(now).loading && load.standing(now).cost >= FAILURE_COST.as_secs_f64());
        assert!(!load.is_ejected(now));
        let now = now + COSTLY;
        assert!(!load.standing(now).loading && load.standing(now).cost <= 0.005, "what else it has costs what it did");
    }

    const RULES: Ejection = Ejection { failures: 3, first: Duration::from_secs(1), longest: Duration::from_secs(4) };

    /// Until the endpoint is out; when it comes back.
    fn fail(load: &Load, now: Instant) -> Instant {
        for _ in 0..100 {
            if load.observe(Outcome::Failed, MS, now) {
                assert!(load.is_ejected(now) && load.standing(now).barred);
                let mut seconds = (1..100).map(Duration::from_secs);
                return now + seconds.find(|after| !load.is_ejected(now + *after)).expect("it comes back");
            }
        }
        panic!("it is never taken out");
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time_up_to_a_limit() {
        let (load, mut now) = (Load::new(RULES, None), Instant::now());
        for _ in 1..RULES.failures {
            assert!(!load.observe(Outcome::Failed, MS, now));
        }
        load.observe(Outcome::Answered, MS, now);
        assert!(!load.observe(Outcome::Failed, MS, now), "not in a row");
        for seconds in [1, 2, 4, 4] {
            let back = fail(&load, now);
            assert_eq!((back - now).as_secs(), seconds);
            now = back;
        }
    }

    /// Eight calls that were lost together made a pause of eight seconds.
    #[test]
    fn calls_that_fail_together_eject_once() {
        let (load, now) = (Load::new(RULES, None), Instant::now());
        let ejected = (0..50).filter(|_| load.observe(Outcome::Failed, MS, now)).count();
        assert_eq!(ejected, 1);
        assert!(!load.eject(now), "it is out already");
        assert!(!load.is_ejected(now + RULES.first));
    }

    #[test]
    fn who_comes_back_gets_one_call_then_two_and_is_out_again_after_one_failure() {
        let (load, now) = (Load::new(RULES, None), Instant::now());
        assert!(load.eject(now));
        let now = now + RULES.first;
        for admitted in [1, 2, 4, 8, 16] {
            let mut calls = Vec::new();
            while !load.standing(now).barred && calls.len() < 100 {
                calls.push(load.enter());
            }
            assert_eq!(calls.len(), admitted);
            drop(calls);
            load.observe(Outcome::Answered, MS, now);
        }
        let calls: Vec<InFlight<'_>> = (0..1_000).map(|_| load.enter()).collect();
        assert!(!load.standing(now).barred, "it has proven itself");
        drop(calls);
        assert!(!load.observe(Outcome::Failed, MS, now));
        assert!(load.eject(now), "a second time");
        let now = now + 2 * RULES.first;
        assert!(load.observe(Outcome::Failed, MS, now), "at the first failure");
        assert!(load.is_ejected(now + 3 * RULES.first));
    }

    /// While another one was loading, all calls went there first, until no more of them could be repeated.
    #[test]
    fn who_answers_while_it_is_out_comes_back_unless_the_call_was_older() {
        let (load, now) = (Load::new(RULES, None), Instant::now());
        assert!(load.eject(now));
        let now = now + 10 * MS;
        load.observe(Outcome::Answered, 20 * MS, now);
        assert!(load.is_ejected(now));
        for _ in 0..PROVEN {
            load.observe(Outcome::Answered, MS, now);
            assert!(!load.is_ejected(now));
        }
        let calls: Vec<InFlight<'_>> = (0..100).map(|_| load.enter()).collect();
        assert!(!load.standing(now).barred);
        drop(calls);
    }

    /// It cost a second still, so that no call ever came, and one other that was loading was preferred.
    #[test]
    fn who_comes_back_is_as_cheap_as_one_that_nobody_knows() {
        let (load, now) = (Load::new(RULES, None), Instant::now());
        let now = fail(&load, now);
        assert!(load.standing(now).cost <= FIRST_GUESS.as_secs_f64());
        // But one that loads is not.
        load.observe(Outcome::NotHere, MS, now);
        assert!(load.standing(now).cost >= FAILURE_COST.as_secs_f64());
        for _ in 0..PROVEN {
            load.observe(Outcome::Answered, 3 * MS, now);
        }
        assert_eq!(load.latency(now).as_millis(), 3);
    }

    #[test]
    fn a_long_time_without_trouble_is_a_pardon() {
        let (load, now) = (Load::new(RULES, None), Instant::now());
        let now = fail(&load, fail(&load, now));
        let later = now + RULES.longest;
        load.observe(Outcome::Answered, MS, later);
        load.observe(Outcome::Answered, MS, later);
        assert_eq!((fail(&load, later) - later).as_secs(), 1);
    }

    #[test]
    fn who_says_that_it_leaves_is_believed_for_a_moment_or_until_it_says_otherwise() {
        let (load, now) = fresh();
        load.observe(Outcome::TurnedAway, MS, now);
        assert!(load.standing(now).leaving && !load.standing(now).barred);
        assert!(!load.standing(now + TURNED_AWAY).leaving);
        load.leaves(false, now);
        assert!(!load.standing(now).leaving);
        load.leaves(true, now);
        assert!(load.standing(now).leaving);
    }

    /// The pieces of what was begun there took it back among those that get new calls, to be turned away there.
    #[test]
    fn who_leaves_and_answers_what_was_begun_there_leaves_all_the_same() {
        let (load, now) = fresh();
        load.observe(Outcome::TurnedAway, MS, now);
        load.observe(Outcome::Answered, MS, now);
        assert!(load.standing(now).leaving);
    }

    /// Between two pings it came back into choice.
    #[test]
    fn who_leaves_is_believed_until_it_is_asked_again() {
        let (every, now) = (Duration::from_secs(30), Instant::now());
        let load = Load::new(Ejection::default(), Some(every));
        load.leaves(true, now);
        assert!(load.standing(now + every + MS).leaving);
        load.leaves(false, now);
        load.observe(Outcome::TurnedAway, MS, now);
        assert!(load.standing(now + every + MS).leaving);
    }
}
