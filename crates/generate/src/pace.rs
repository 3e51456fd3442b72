//! How many tokens of a prompt go in at once beside answers that go on.
//!
//! Why: a piece of a prompt holds up everybody's next token for as long as it takes, and what a token of it costs beside a step
//! depends on the model, its weights, the device, and on what lies in the cache already. So both are measured while they run.
//! Promises: a piece takes about as long as a step and a half, so that the slowest times between two tokens, which prompts of a
//! few words that come and go make anyway, are not doubled by a long one; more only where more prompts go in than answers go on,
//! which then share the device by their numbers, and where a piece would be so short that the network's weights were read for
//! next to nothing.

use std::time::Duration;

/// With fewer tokens a piece costs little less: reading the weights is most of it. On two cores 20 tokens of the bundled model
/// take 1.4 times as long as a step of four answers; with 16 a prompt of 1,500 took 4.6 s beside them, with 24 it took 4.0 s.
const LEAST: usize = 20;

/// What a piece may cost, in steps. With one step a prompt of 1,500 tokens took 5.5 s beside four answers, alone 1.4 s.
const STEPS: f64 = 1.5;

/// How much one measurement moves the mean: a quarter follows answers that join and leave within a few steps.
const FOLLOW: f64 = 0.25;

/// What steps and pieces cost lately, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    step: Option<f64>,
    token: Option<f64>,
}

impl Pace {
    /// A step took so long.
    pub(crate) fn stepped(&mut self, time: Duration) {
        follow(&mut self.step, time.as_secs_f64());
    }

    /// A piece of so many tokens took so long, beside answers that go on.
    pub(crate) fn put_in(&mut self, tokens: usize, time: Duration) {
        follow(&mut self.token, time.as_secs_f64() / tokens.max(1) as f64);
    }

    /// How many tokens of a prompt go in now, where so many prompts go in beside so many answers that go on; `most` at most.
    pub(crate) fn piece(&self, prompts: usize, answers: usize, most: usize) -> usize {
        let share = (prompts as f64 / answers.max(1) as f64).max(1.0);
        let tokens = match (self.step, self.token) {
            (Some(step), Some(token)) if token > 0.0 => (share * STEPS * step / token) as usize,
            _ => 0,
        };
        tokens.max(LEAST).min(most.max(1))
    }
}

fn follow(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + FOLLOW * (value - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device on which a piece costs so many seconds, and so much more for each token.
    fn settled(step: f64, (fixed, token): (f64, f64), prompts: usize, answers: usize) -> usize {
        let mut pace = Pace::default();
        (0..100).for_each(|_| {
            pace.stepped(Duration::from_secs_f64(step));
            let tokens = pace.piece(prompts, answers, 128);
            pace.put_in(tokens, Duration::from_secs_f64(fixed + token * tokens as f64));
        });
        pace.piece(prompts, answers, 128)
    }

    #[test]
    fn a_piece_takes_about_as_long_as_a_step_and_a_half() {
        let tokens = settled(0.040, (0.014, 0.000_8), 1, 8);
        assert!((56..=58).contains(&tokens), "{tokens} tokens, 57 take as long as a step and a half");
        assert_eq!(settled(0.050, (0.014, 0.0), 1, 8), 128, "never more than the limit");
    }

    #[test]
    fn a_piece_is_never_so_short_that_it_costs_as_much_as_a_longer_one() {
        assert_eq!(settled(0.009, (0.014, 0.000_8), 1, 8), LEAST);
        assert_eq!(Pace::default().piece(1, 8, 128), LEAST, "nothing is known yet");
        assert_eq!(Pace::default().piece(1, 8, 5), 5, "but for the limit");
    }

    #[test]
    fn many_prompts_beside_few_answers_share_the_device_by_their_number() {
        let (one, four) = (settled(0.020, (0.014, 0.000_8), 1, 2), settled(0.020, (0.014, 0.000_8), 4, 2));
        assert!((19..=21).contains(&one) && (56..=58).contains(&four), "{one} and {four} tokens");
        assert_eq!(settled(0.020, (0.014, 0.000_8), 2, 4), one, "fewer prompts than answers get no less");
    }

    #[test]
    fn it_follows_when_steps_change() {
        let mut pace = Pace::default();
        pace.put_in(100, Duration::from_millis(100));
        (0..50).for_each(|_| pace.stepped(Duration::from_millis(100)));
        assert!((148..=150).contains(&pace.piece(1, 8, 512)));
        (0..20).for_each(|_| pace.stepped(Duration::from_millis(40)));
        assert!((59..=61).contains(&pace.piece(1, 8, 512)));
    }
}
