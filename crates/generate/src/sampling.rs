//! Which token comes next, from a row of logits.
//!
//! Order of the steps, as transformers and llama.cpp have them: bias, penalties, temperature, then the cuts (top-k, top-p,
//! min-p), then the draw. The draw depends on the seed and on the token's place in the answer only, never on what else is in
//! the batch.

use std::cmp::Ordering;
use std::collections::HashMap;

/// So few candidates are sorted; more are divided first.
const FEW: usize = 64;

/// Values that are compared side by side.
const LANES: usize = 16;
/// Values whose greatest is found before it is compared with that of others.
const BLOCK: usize = 256;

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

/// Why no token can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChoice {
    /// The model has failed: half precision that ran over looks like this.
    #[error("the model gave logits that are no finite numbers")]
    NoNumbers,
    /// The mask, or the model's own logits under it, leave nothing.
    #[error("no token may come next")]
    NothingAllowed,
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

    fn penalises(&self) -> bool {
        let it = &self.sampling;
        it.repetition_penalty != 1.0 || it.presence_penalty != 0.0 || it.frequency_penalty != 0.0
    }

    /// Chooses the token at place `at` of the answer. `allowed` has one bit for each token
    /// that may come, from the lowest of the first word on, none for those beyond; all may when absent.
    ///
    /// # Errors
    /// [`NoChoice`].
    pub fn choose(&mut self, logits: &[f32], at: usize, allowed: Option<&[u32]>) -> Result<Chosen, NoChoice> {
        let (mut token, mut most) = likeliest(logits).ok_or(NoChoice::NoNumbers)?;
        let penalises = self.penalises();
        let adjusts = penalises || allowed.is_some() || !self.sampling.logit_bias.is_empty();
        if adjusts {
            self.adjust(logits, penalises, allowed);
            (token, most) = likeliest(&self.scratch).ok_or(NoChoice::NothingAllowed)?;
        }
        if self.sampling.temperature != 0.0 {
            let values = if adjusts { &self.scratch } else { logits };
            token = draw(&self.sampling, &mut self.candidates, values, most, at).unwrap_or(token);
        }
        if penalises {
            *self.seen.entry(token).or_insert(0) += 1;
        }
        let (logprob, top) = match self.logprobs {
            Some(count) => log_probabilities(logits, token, count),
            None => (0.0, Vec::new()),
        };
        Ok(Chosen { token, logprob, top })
    }

    fn adjust(&mut self, logits: &[f32], penalises: bool, allowed: Option<&[u32]>) {
        let Self { sampling, seen, scratch, .. } = self;
        scratch.clear();
        scratch.extend_from_slice(logits);
        for (token, bias) in &sampling.logit_bias {
            if let Some(logit) = scratch.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        for (token, count) in seen.iter().filter(|_| penalises) {
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
}

/// Draws from the logits, of which `most` is the greatest; none only when there is nothing to draw from.
fn draw(sampling: &Sampling, candidates: &mut Vec<(u32, f32)>, logits: &[f32], most: f32, at: usize) -> Option<u32> {
    candidates.clear();
    // A share of 1e-9 of the likeliest token is never drawn in practice.
    let floor = most + sampling.temperature * sampling.min_p.max(1e-9).ln();
    let kept = logits.iter().enumerate().filter(|(_, logit)| **logit >= floor);
    candidates.extend(kept.map(|(token, logit)| (token as u32, ((logit - most) / sampling.temperature).exp())));
    if sampling.top_k > 0 && sampling.top_k < candidates.len() {
        candidates.select_nth_unstable_by(sampling.top_k - 1, by_share);
        candidates.truncate(sampling.top_k);
    }
    let mut sum: f64 = candidates.iter().map(|(_, share)| f64::from(*share)).sum();
    if sampling.top_p < 1.0 {
        let (last, reached) = reached(candidates, sum, sum * f64::from(sampling.top_p))?;
        candidates.truncate(last + 1);
        sum = reached;
    }
    let (drawn, _) = reached(candidates, sum, uniform(sampling.seed, at) * sum)?;
    candidates.get(drawn).map(|(token, _)| *token)
}

/// Greater shares first, equal ones in the order of their numbers, so that the draw is the same everywhere.
fn by_share(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The place in the order [`by_share`] where the sum of the shares, from the greatest on, reaches `point`, and that sum. The
/// candidates before that place are moved in front of it.
///
/// Sorting all of them for that would take most of a millisecond where nearly a whole vocabulary is left. Here the part in which
/// the point lies is divided at its mean until it is small, which for the shares of a language model is a few passes over less
/// and less.
fn reached(candidates: &mut [(u32, f32)], sum: f64, point: f64) -> Option<(usize, f64)> {
    let (mut from, mut to) = (0, candidates.len());
    // Of what lies before the part, and of the part.
    let (mut before, mut inside) = (0.0, sum);
    loop {
        let part = &mut candidates[from..to];
        let mean = (inside / part.len().max(1) as f64) as f32;
        let (mut split, mut above) = (0, 0.0);
        if part.len() > FEW {
            for at in 0..part.len() {
                if part[at].1 > mean {
                    above += f64::from(part[at].1);
                    part.swap(at, split);
                    split += 1;
                }
            }
        }
        // Few, or all alike.
        if split == 0 || split == part.len() {
            part.sort_unstable_by(by_share);
            for (at, (_, share)) in part.iter().enumerate() {
                before += f64::from(*share);
                if before >= point {
                    return Some((from + at, before));
                }
            }
            // Sums in another order may end a rounding below the point.
            return to.checked_sub(1).map(|last| (last, before));
        }
        if before + above >= point {
            (to, inside) = (from + split, above);
        } else {
            (from, before, inside) = (from + split, before + above, inside - above);
        }
    }
}

/// Between 0 and 1, by seed and place alone.
fn uniform(seed: u64, at: usize) -> f64 {
    // Neighbouring places must not give neighbouring streams: the place is spread over all bits first (Steele et al. 2014,
    // SplitMix64's increment).
    fastrand::Rng::with_seed(seed ^ (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).f64()
}

/// The token with the greatest logit, the first of equals, and its logit; none when that is no finite number, or one is NaN.
fn likeliest(logits: &[f32]) -> Option<(u32, f32)> {
    let (mut best, mut block) = (f32::NEG_INFINITY, 0);
    let mut sound = true;
    // In blocks: finding the block's greatest is what the compiler can do in parallel.
    for (number, values) in logits.chunks(BLOCK).enumerate() {
        let (most, numbers) = greatest(values);
        sound &= numbers;
        if most > best {
            (best, block) = (most, number * BLOCK);
        }
    }
    let inside = logits.get(block..)?.iter().position(|value| *value == best)?;
    (sound && best.is_finite()).then_some(((block + inside) as u32, best))
}

/// The greatest value, and whether all of them are numbers.
fn greatest(values: &[f32]) -> (f32, bool) {
    let (mut most, mut numbers) = ([f32::NEG_INFINITY; LANES], [true; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            most[lane] = if chunk[lane] > most[lane] { chunk[lane] } else { most[lane] };
            numbers[lane] &= !chunk[lane].is_nan();
        }
    }
    let most = most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (most, numbers.iter().all(|all| *all) && !rest.iter().any(|value| value.is_nan()))
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
        Sampler::new(sampling, None, &[]).choose(&LOGITS, at, None).expect("numbers").token
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
        assert_eq!(likeliest(&many), Some((700, 5.0)));
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

    /// Everything sorted, then cut, then walked through: what a draw is by definition.
    fn drawn_by_definition(sampling: &Sampling, logits: &[f32], at: usize) -> u32 {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let share = |logit: &f32| ((logit - most) / sampling.temperature).exp();
        let least = sampling.min_p.max(1e-9);
        let mut all: Vec<(u32, f32)> =
            (0..).zip(logits.iter().map(share)).filter(|(_, share)| *share >= least).collect();
        all.sort_by(by_share);
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k);
        }
        let sum = |all: &[(u32, f32)]| all.iter().map(|(_, share)| f64::from(*share)).sum::<f64>();
        let walk = |all: &[(u32, f32)], point: f64| {
            let mut passed = 0.0;
            let reached = all.iter().position(|(_, share)| {
                passed += f64::from(*share);
                passed >= point
            });
            reached.unwrap_or(all.len() - 1)
        };
        if sampling.top_p < 1.0 {
            all.truncate(walk(&all, sum(&all) * f64::from(sampling.top_p)) + 1);
        }
        all[walk(&all, sum(&all) * uniform(sampling.seed, at))].0
    }

    #[test]
    fn the_draw_is_that_from_the_sorted_vocabulary() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut compared = std::collections::HashSet::new();
        for round in 0..120 {
            // Peaked, flat and in between; some with many equals.
            let (spread, grain) = ([0.0, 1.0, 4.0, 12.0][round % 4], [0.0, 0.5][round / 4 % 2]);
            let value = |random: &mut fastrand::Rng| {
                let value = spread * (random.f32() + random.f32() + random.f32() - 1.5);
                if grain > 0.0 { (value / grain).round() * grain } else { value }
            };
            let logits: Vec<f32> = (0..3000).map(|_| value(&mut random)).collect();
            let sampling = Sampling {
                temperature: [0.3, 1.0, 2.0][round % 3],
                top_p: [1.0, 0.9, 0.999, 0.3][round / 3 % 4],
                top_k: [0, 0, 40, 1000][round / 5 % 4],
                min_p: [0.0, 0.0, 0.05][round / 7 % 3],
                seed: round as u64,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(sampling.clone(), None, &[]);
            for at in 0..30 {
                let token = sampler.choose(&logits, at, None).expect("numbers").token;
                assert_eq!(
                    token,
                    drawn_by_definition(&sampling, &logits, at),
                    "{sampling:?}, spread {spread}, place {at}"
                );
                compared.insert(token);
            }
        }
        assert!(compared.len() > 500, "only {} tokens were drawn", compared.len());
    }

    #[test]
    fn logits_that_are_no_numbers_choose_nothing() {
        for broken in [f32::NAN, f32::INFINITY] {
            for at in [0, 17, 299] {
                let mut logits = vec![1.0; 300];
                logits[at] = broken;
                for temperature in [0.0, 1.0] {
                    let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }, None, &[]);
                    assert_eq!(sampler.choose(&logits, 0, None), Err(NoChoice::NoNumbers), "{broken} at {at}");
                }
            }
        }
        let mut greedy = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }, None, &[]);
        assert_eq!(greedy.choose(&[f32::NEG_INFINITY; 3], 0, None), Err(NoChoice::NoNumbers));
        assert_eq!(greedy.choose(&[], 0, None), Err(NoChoice::NoNumbers));
        // Some models give that to numbers that are no tokens.
        let padded = greedy.choose(&[1.0, 2.0, f32::NEG_INFINITY], 0, None).expect("there are numbers");
        assert_eq!(padded.token, 1);
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
        let first: Vec<u32> = (0..3).map(|at| presence.choose(&LOGITS, at, None).expect("numbers").token).collect();
        assert_eq!(first, [1, 4, 2]);
        let mut frequency = Sampler::new(Sampling { frequency_penalty: 0.4, ..greedy.clone() }, None, &[]);
        let said: Vec<u32> = (0..6).map(|at| frequency.choose(&LOGITS, at, None).expect("numbers").token).collect();
        assert_eq!(said, [1, 4, 1, 4, 1, 4]);
        // What stands in the prompt counts for repetition and for nothing else.
        let mut repetition = Sampler::new(Sampling { repetition_penalty: 2.0, ..greedy.clone() }, None, &[1]);
        assert_eq!(repetition.choose(&LOGITS, 0, None).expect("numbers").token, 4);
        let mut prompt = Sampler::new(Sampling { presence_penalty: 2.0, ..greedy }, None, &[1]);
        assert_eq!(prompt.choose(&LOGITS, 0, None).expect("numbers").token, 1);
    }

    #[test]
    fn only_what_is_allowed_is_chosen() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }, None, &[]);
            let mut choose =
                |logits: &[f32], allowed: &[u32]| sampler.choose(logits, 0, Some(allowed)).map(|chosen| chosen.token);
            assert_eq!(choose(&LOGITS, &[1 << 3]), Ok(3));
            let many = [9.0; 100];
            assert_eq!(choose(&many, &[0, 0, 1 << 7]), Ok(71), "beyond the bits nothing may come");
            assert!(choose(&many, &[0, u32::MAX]).is_ok_and(|token| (32..64).contains(&token)));
            assert_eq!(choose(&many, &[]), Err(NoChoice::NothingAllowed));
        }
    }

    #[test]
    fn log_probabilities_are_the_models_own() {
        let sampling = Sampling { temperature: 0.0, logit_bias: vec![(0, 50.0)], ..Sampling::default() };
        let chosen = Sampler::new(sampling, Some(3), &[]).choose(&LOGITS, 0, None).expect("numbers");
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
