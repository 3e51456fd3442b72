//! Which token comes next, from a row of logits.
//!
//! Order of the steps, as transformers and llama.cpp have them: bias, penalties, temperature, then the cuts (top-k, top-p,
//! min-p), then the draw. The draw depends on the seed and on the token's place in the answer only, never on what else is in
//! the batch.

use std::cmp::Ordering;
use std::collections::HashMap;

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token. 0 to 2.
    pub temperature: f32,
    /// Smallest set of likeliest tokens whose probabilities reach this. Above 0, to 1; 1 keeps all.
    pub top_p: f32,
    /// Only so many likeliest; 0 keeps all.
    pub top_k: usize,
    /// Drops tokens less likely than this share of the likeliest. 0 to 1; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits of tokens seen before, in the prompt too, and multiplies negative ones (Keskar et al. 2019,
    /// CTRL). Above 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted once for a token that was generated before. -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted for each time a token was generated before. -2 to 2.
    pub frequency_penalty: f32,
    /// Added to the logits of tokens. -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// Same seed, same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// A token that was chosen, with what was asked for about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Its log-probability under the model's own logits, before bias, penalties and temperature. 0 unless asked for.
    pub logprob: f32,
    /// The likeliest tokens at this place, best first, likewise.
    pub top: Vec<(u32, f32)>,
}

/// What one answer has seen, and how it goes on.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// Log-probabilities of so many likeliest tokens, and of the chosen one.
    logprobs: Option<usize>,
    /// Tokens of the prompt and of the answer, with how often the answer has them.
    seen: HashMap<u32, u32>,
    /// Used again from token to token.
    scratch: Vec<f32>,
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// For one answer. `logprobs` asks for the log-probabilities of each token and of so many likeliest; `prompt` counts for the
    /// repetition penalty.
    #[must_use]
    pub fn new(sampling: Sampling, logprobs: Option<usize>, prompt: &[u32]) -> Self {
        let penalised = sampling.repetition_penalty != 1.0;
        let seen = if penalised { prompt.iter().map(|token| (*token, 0)).collect() } else { HashMap::new() };
        Self { sampling, logprobs, seen, scratch: Vec::new(), candidates: Vec::new() }
    }

    /// Whether the logits are used as they are and the likeliest token wins.
    fn is_plain(&self) -> bool {
        let it = &self.sampling;
        it.temperature == 0.0
            && it.logit_bias.is_empty()
            && it.repetition_penalty == 1.0
            && it.presence_penalty == 0.0
            && it.frequency_penalty == 0.0
    }

    /// Chooses the token at place `at` of the answer. `allowed` has one bit for each token
    /// that may come, from the lowest of the first word on, none for those beyond; all may when absent.
    pub fn choose(&mut self, logits: &[f32], at: usize, allowed: Option<&[u32]>) -> Chosen {
        let token = if self.is_plain() && allowed.is_none() {
            likeliest(logits)
        } else {
            self.adjust(logits, allowed);
            self.draw(at)
        };
        *self.seen.entry(token).or_insert(0) += 1;
        let (logprob, top) = match self.logprobs {
            Some(count) => log_probabilities(logits, token, count),
            None => (0.0, Vec::new()),
        };
        Chosen { token, logprob, top }
    }

    fn adjust(&mut self, logits: &[f32], allowed: Option<&[u32]>) {
        let Self { sampling, seen, scratch, .. } = self;
        scratch.clear();
        scratch.extend_from_slice(logits);
        for (token, bias) in &sampling.logit_bias {
            if let Some(logit) = scratch.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        for (token, count) in seen.iter() {
            let Some(logit) = scratch.get_mut(*token as usize) else { continue };
            *logit =
                if *logit > 0.0 { *logit / sampling.repetition_penalty } else { *logit * sampling.repetition_penalty };
            if *count > 0 {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * *count as f32;
            }
        }
        if let Some(allowed) = allowed {
            let words = allowed.iter().copied().chain(std::iter::repeat(0));
            for (logits, word) in scratch.chunks_mut(32).zip(words) {
                match word {
                    0 => logits.fill(f32::NEG_INFINITY),
                    u32::MAX => {}
                    // Without a branch for each: masks have no pattern that a processor could guess.
                    _ => logits.iter_mut().enumerate().for_each(|(bit, logit)| {
                        *logit = if word >> bit & 1 == 0 { f32::NEG_INFINITY } else { *logit };
                    }),
                }
            }
        }
    }

    fn draw(&mut self, at: usize) -> u32 {
        let Self { sampling, scratch, candidates, .. } = self;
        if sampling.temperature == 0.0 {
            return likeliest(scratch);
        }
        let most = scratch.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !most.is_finite() {
            return likeliest(scratch);
        }
        candidates.clear();
        // A share of 1e-9 of the likeliest token is never drawn in practice; leaving those out makes sorting cheap.
        let floor = most + sampling.temperature * sampling.min_p.max(1e-9).ln();
        let kept = scratch.iter().enumerate().filter(|(_, logit)| **logit >= floor);
        candidates.extend(kept.map(|(token, logit)| (token as u32, ((logit - most) / sampling.temperature).exp())));
        // Equal shares in the order of their numbers, so that the draw is the same everywhere.
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if sampling.top_k > 0 && sampling.top_k < candidates.len() {
            candidates.select_nth_unstable_by(sampling.top_k - 1, order);
            candidates.truncate(sampling.top_k);
        }
        candidates.sort_unstable_by(order);
        if sampling.top_p < 1.0 {
            let enough = candidates.iter().map(|(_, share)| f64::from(*share)).sum::<f64>() * f64::from(sampling.top_p);
            let mut sum = 0.0;
            let reached = candidates.iter().position(|(_, share)| {
                sum += f64::from(*share);
                sum >= enough
            });
            candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
        }
        let sum: f64 = candidates.iter().map(|(_, share)| f64::from(*share)).sum();
        let mut point = uniform(sampling.seed, at) * sum;
        for (token, share) in candidates.iter() {
            point -= f64::from(*share);
            if point < 0.0 {
                return *token;
            }
        }
        // Rounding at the very end.
        candidates.last().map_or_else(|| likeliest(scratch), |(token, _)| *token)
    }
}

/// Between 0 and 1, by seed and place alone.
fn uniform(seed: u64, at: usize) -> f64 {
    // Neighbouring places must not give neighbouring streams: the place is spread over all bits first (Steele et al. 2014,
    // SplitMix64's increment).
    fastrand::Rng::with_seed(seed ^ (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).f64()
}

/// The token with the greatest logit, the first of equals.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    // In blocks: finding the block's greatest is what the compiler can do in parallel.
    for (block, values) in logits.chunks(256).enumerate() {
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if most > best.0 {
            let inside = values.iter().position(|value| *value == most).unwrap_or_default();
            best = (most, block * 256 + inside);
        }
    }
    best.1 as u32
}

/// Of one token and of the likeliest ones.
fn log_probabilities(logits: &[f32], token: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - most).exp())).sum();
    let total = f64::from(most) + sum.ln();
    let of = |logit: f32| (f64::from(logit) - total) as f32;
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    if count > 0 {
        for (token, logit) in logits.iter().enumerate() {
            if top.len() == count && top.last().is_some_and(|(_, least)| least >= logit) {
                continue;
            }
            let place = top.partition_point(|(_, other)| other.partial_cmp(logit) != Some(Ordering::Less));
            top.insert(place, (token as u32, *logit));
            top.truncate(count);
        }
    }
    top.iter_mut().for_each(|(_, logit)| *logit = of(*logit));
    (logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| of(*logit)), top)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 3.0];

    fn choose(sampling: Sampling, at: usize) -> u32 {
        Sampler::new(sampling, None, &[]).choose(&LOGITS, at, None).token
    }

    fn drawn(sampling: &Sampling) -> Vec<u32> {
        let mut all: Vec<u32> = (0..400).map(|at| choose(sampling.clone(), at)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn without_temperature_the_first_of_the_likeliest_wins() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(choose(greedy.clone(), 0), 1);
        let many: Vec<f32> = (0..1000).map(|at| if at == 700 { 5.0 } else { -(at as f32) }).collect();
        assert_eq!(likeliest(&many), 700);
        let biased = Sampling { logit_bias: vec![(3, 100.0), (9, 100.0)], ..greedy };
        assert_eq!(choose(biased, 0), 3);
    }

    #[test]
    fn cuts_leave_what_they_say() {
        let base = Sampling::default();
        assert_eq!(drawn(&base), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(&Sampling { top_k: 3, ..base.clone() }), [1, 2, 4]);
        assert_eq!(drawn(&Sampling { top_p: 0.5, ..base.clone() }), [1, 4]);
        assert_eq!(drawn(&Sampling { top_p: 0.01, ..base.clone() }), [1]);
        assert_eq!(drawn(&Sampling { min_p: 0.3, ..base.clone() }), [1, 2, 4]);
        assert_eq!(drawn(&Sampling { temperature: 0.05, ..base }), [1, 4]);
    }

    #[test]
    fn shares_are_those_of_the_softmax() {
        let sampling = Sampling { seed: 7, ..Sampling::default() };
        let mut counts = [0_u32; 5];
        (0..20_000).for_each(|at| counts[choose(sampling.clone(), at) as usize] += 1);
        let sum: f32 = LOGITS.iter().map(|logit| logit.exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            let share = *count as f32 / 20_000.0;
            assert!((share - logit.exp() / sum).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn the_draw_depends_on_seed_and_place_alone() {
        let of = |seed, at| choose(Sampling { seed, ..Sampling::default() }, at);
        let row = |seed| (0..50).map(|at| of(seed, at)).collect::<Vec<_>>();
        assert_eq!(row(1), row(1));
        assert_ne!(row(1), row(2));
    }

    #[test]
    fn penalties_follow_what_was_said() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let mut presence = Sampler::new(Sampling { presence_penalty: 1.5, ..greedy.clone() }, None, &[]);
        let first: Vec<u32> = (0..3).map(|at| presence.choose(&LOGITS, at, None).token).collect();
        assert_eq!(first, [1, 4, 2]);
        let mut frequency = Sampler::new(Sampling { frequency_penalty: 0.4, ..greedy.clone() }, None, &[]);
        let said: Vec<u32> = (0..6).map(|at| frequency.choose(&LOGITS, at, None).token).collect();
        assert_eq!(said, [1, 4, 1, 4, 1, 4]);
        // What stands in the prompt counts for repetition and for nothing else.
        let mut repetition = Sampler::new(Sampling { repetition_penalty: 2.0, ..greedy.clone() }, None, &[1]);
        assert_eq!(repetition.choose(&LOGITS, 0, None).token, 4);
        let mut prompt = Sampler::new(Sampling { presence_penalty: 2.0, ..greedy }, None, &[1]);
        assert_eq!(prompt.choose(&LOGITS, 0, None).token, 1);
    }

    #[test]
    fn only_what_is_allowed_is_chosen() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }, None, &[]);
            assert_eq!(sampler.choose(&LOGITS, 0, Some(&[1 << 3])).token, 3);
            let many = [9.0; 100];
            assert_eq!(sampler.choose(&many, 0, Some(&[0, 0, 1 << 7])).token, 71, "beyond the bits nothing may come");
            assert!((32..64).contains(&sampler.choose(&many, 0, Some(&[0, u32::MAX])).token));
        }
    }

    #[test]
    fn log_probabilities_are_the_models_own() {
        let sampling = Sampling { temperature: 0.0, logit_bias: vec![(0, 50.0)], ..Sampling::default() };
        let chosen = Sampler::new(sampling, Some(3), &[]).choose(&LOGITS, 0, None);
        let total = LOGITS.iter().map(|logit| logit.exp()).sum::<f32>().ln();
        assert_eq!(chosen.token, 0);
        assert!((chosen.logprob - (1.0 - total)).abs() < 1e-5, "{chosen:?}");
        let expected = [(1, 3.0), (4, 3.0), (2, 2.0)];
        for ((token, logprob), (wanted, logit)) in chosen.top.iter().zip(expected) {
            assert_eq!(*token, wanted);
            assert!((logprob - (logit - total)).abs() < 1e-5, "{chosen:?}");
        }
        assert_eq!(chosen.top.len(), 3);
    }
}
