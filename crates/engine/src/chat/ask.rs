//! What is asked of a chat model, and whether it is within its ranges.

use std::ops::RangeInclusive;

use fault::Fault;
use generate::{Format, Message, Sampling};

/// Most answers to one request.
pub const MOST_ANSWERS: usize = 16;
/// Most texts that end an answer, and the longest in bytes.
const STOPS: usize = 16;
const STOP_BYTES: usize = 256;
/// Most likeliest tokens that are reported at each place.
const LOGPROBS: i64 = 20;
/// Most entries of a bias.
const BIASES: usize = 300;

/// What is to be gone on with.
#[derive(Clone, Debug)]
pub enum Input {
    /// A conversation, through the model's template.
    Messages(Vec<Message>),
    /// A text as it is.
    Prompt(String),
}

impl Input {
    /// The parameter that faults are about.
    pub(crate) fn param(&self) -> &'static str {
        match self {
            Self::Messages(_) => "messages",
            Self::Prompt(_) => "prompt",
        }
    }
}

/// How tokens are to be chosen; what is absent is the model's default. Values are as they came.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// Above 0, to 1.
    pub top_p: Option<f64>,
    /// 0 and up.
    pub top_k: Option<i64>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// Above 0, to 100.
    pub repetition_penalty: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Tokens and what is added to their logits, -100 to 100 each.
    pub logit_bias: Vec<(i64, f64)>,
    /// Absent: random.
    pub seed: Option<u64>,
}

/// A request for answers, with values as they came.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is to be gone on with.
    pub input: Input,
    /// Most tokens of an answer; absent: what is left of the context.
    pub max_tokens: Option<i64>,
    /// How tokens are chosen.
    pub sampling: Wishes,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// The form of an answer.
    pub format: Format,
    /// How many answers; 1 to [`MOST_ANSWERS`].
    pub answers: i64,
    /// Report the log-probabilities of tokens and of so many likeliest others, 0 to 20.
    pub logprobs: Option<i64>,
    /// Whose prefixes may be gone on from: prefixes are shared among requests with the same text here.
    pub owner: String,
}

/// What was asked, checked.
pub(crate) struct Plan {
    pub(crate) max_tokens: Option<usize>,
    pub(crate) sampling: Sampling,
    pub(crate) answers: usize,
    pub(crate) logprobs: Option<usize>,
}

impl Ask {
    /// # Errors
    /// InvalidInput with the name, the value and the range of the first that is out of it.
    pub(crate) fn check(&self, defaults: &Sampling, vocabulary: usize) -> Result<Plan, Fault> {
        match &self.input {
            Input::Messages(messages) if messages.is_empty() => {
                return Err(bad("messages", "messages is empty".to_owned()));
            }
            Input::Messages(messages) => {
                if let Some(at) = messages.iter().position(|message| message.role.is_empty()) {
                    return Err(bad("messages", format!("message {at} has no role")));
                }
            }
            Input::Prompt(prompt) if prompt.is_empty() => return Err(bad("prompt", "prompt is empty".to_owned())),
            Input::Prompt(_) => {}
        }
        if self.stops.len() > STOPS {
            return Err(bad("stop", format!("stop has {} texts, allowed is 0 to {STOPS}", self.stops.len())));
        }
        if let Some(stop) = self.stops.iter().find(|stop| !(1..=STOP_BYTES).contains(&stop.len())) {
            return Err(bad("stop", format!("a stop text has {} bytes, allowed is 1 to {STOP_BYTES}", stop.len())));
        }
        let max_tokens = self.max_tokens.map(|most| whole("max_tokens", most, 1..=i64::from(i32::MAX))).transpose()?;
        let logprobs = self.logprobs.map(|count| whole("logprobs", count, 0..=LOGPROBS)).transpose()?;
        Ok(Plan {
            max_tokens,
            sampling: self.sampling.check(defaults, vocabulary)?,
            answers: whole("n", self.answers, 1..=MOST_ANSWERS as i64)?,
            logprobs,
        })
    }
}

impl Wishes {
    fn check(&self, defaults: &Sampling, vocabulary: usize) -> Result<Sampling, Fault> {
        let within =
            |name, value: Option<f64>, default, range| value.map_or(Ok(default), |value| real(name, value, range));
        let above =
            |name, value: Option<f64>, default, most| value.map_or(Ok(default), |value| above_0(name, value, most));
        if self.logit_bias.len() > BIASES {
            let count = self.logit_bias.len();
            return Err(bad("logit_bias", format!("logit_bias has {count} entries, allowed is 0 to {BIASES}")));
        }
        let bias = |(token, bias): &(i64, f64)| {
            let token = u32::try_from(*token).ok().filter(|token| (*token as usize) < vocabulary).ok_or_else(|| {
                bad("logit_bias", format!("logit_bias names token {token}, the model has 0 to {}", vocabulary - 1))
            })?;
            Ok::<_, Fault>((token, real("logit_bias", *bias, -100.0..=100.0)?))
        };
        let top_k = self.top_k.map(|top_k| whole("top_k", top_k, 0..=i64::from(i32::MAX))).transpose()?;
        Ok(Sampling {
            temperature: within("temperature", self.temperature, defaults.temperature, 0.0..=2.0)?,
            top_p: above("top_p", self.top_p, defaults.top_p, 1.0)?,
            top_k: top_k.unwrap_or(defaults.top_k),
            min_p: within("min_p", self.min_p, defaults.min_p, 0.0..=1.0)?,
            repetition_penalty: above(
                "repetition_penalty",
                self.repetition_penalty,
                defaults.repetition_penalty,
                100.0,
            )?,
            presence_penalty: within("presence_penalty", self.presence_penalty, defaults.presence_penalty, -2.0..=2.0)?,
            frequency_penalty: within(
                "frequency_penalty",
                self.frequency_penalty,
                defaults.frequency_penalty,
                -2.0..=2.0,
            )?,
            logit_bias: self.logit_bias.iter().map(bias).collect::<Result<_, _>>()?,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
        })
    }
}

/// The seed of one of several answers: the request's own for the first, so that asking for one gives the same as asking for many.
pub(crate) fn seed_of(seed: u64, answer: usize) -> u64 {
    if answer == 0 {
        return seed;
    }
    // Steele et al. 2014, SplitMix64: neighbours come out unrelated.
    let mut mixed = seed.wrapping_add((answer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn bad(param: &'static str, message: String) -> Fault {
    Fault::invalid_input(message).with_param(param)
}

fn whole(name: &'static str, value: i64, range: RangeInclusive<i64>) -> Result<usize, Fault> {
    usize::try_from(value)
        .ok()
        .filter(|_| range.contains(&value))
        .ok_or_else(|| bad(name, format!("{name} is {value}, allowed is {} to {}", range.start(), range.end())))
}

fn real(name: &'static str, value: f64, range: RangeInclusive<f64>) -> Result<f32, Fault> {
    if range.contains(&value) {
        return Ok(value as f32);
    }
    Err(bad(name, format!("{name} is {value}, allowed is {} to {}", range.start(), range.end())))
}

fn above_0(name: &'static str, value: f64, most: f64) -> Result<f32, Fault> {
    // So small that it is 0 as f32 is not above 0.
    if value <= most && value as f32 > 0.0 {
        return Ok(value as f32);
    }
    Err(bad(name, format!("{name} is {value}, allowed is above 0, to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            input: Input::Prompt("Once".to_owned()),
            max_tokens: None,
            sampling: Wishes::default(),
            stops: Vec::new(),
            format: Format::Text,
            answers: 1,
            logprobs: None,
            owner: String::new(),
        }
    }

    #[test]
    fn what_is_out_of_its_range_is_named_with_it() {
        type Change = fn(&mut Ask);
        let wrong: [(Change, &str, &str); 21] = [
            (|it| it.sampling.temperature = Some(2.1), "temperature", "temperature is 2.1, allowed is 0 to 2"),
            (|it| it.sampling.temperature = Some(f64::NAN), "temperature", "temperature is NaN, allowed is 0 to 2"),
            (|it| it.sampling.top_p = Some(0.0), "top_p", "top_p is 0, allowed is above 0, to 1"),
            (|it| it.sampling.top_p = Some(1e-60), "top_p", "above 0"),
            (|it| it.sampling.top_k = Some(-1), "top_k", "top_k is -1, allowed is 0 to 2147483647"),
            (|it| it.sampling.min_p = Some(1.5), "min_p", "min_p is 1.5, allowed is 0 to 1"),
            (
                |it| it.sampling.repetition_penalty = Some(-1.0),
                "repetition_penalty",
                "is -1, allowed is above 0, to 100",
            ),
            (|it| it.sampling.repetition_penalty = Some(f64::INFINITY), "repetition_penalty", "is inf"),
            (|it| it.sampling.presence_penalty = Some(-3.0), "presence_penalty", "is -3, allowed is -2 to 2"),
            (|it| it.sampling.frequency_penalty = Some(3.0), "frequency_penalty", "is 3, allowed is -2 to 2"),
            (|it| it.sampling.logit_bias = vec![(384, 1.0)], "logit_bias", "token 384, the model has 0 to 383"),
            (|it| it.sampling.logit_bias = vec![(1, 101.0)], "logit_bias", "is 101, allowed is -100 to 100"),
            (|it| it.sampling.logit_bias = vec![(1, 1.0); 301], "logit_bias", "has 301 entries, allowed is 0 to 300"),
            (|it| it.max_tokens = Some(0), "max_tokens", "max_tokens is 0, allowed is 1 to"),
            (|it| it.answers = 17, "n", "n is 17, allowed is 1 to 16"),
            (|it| it.logprobs = Some(21), "logprobs", "logprobs is 21, allowed is 0 to 20"),
            (|it| it.stops = vec!["x".to_owned(); 17], "stop", "stop has 17 texts, allowed is 0 to 16"),
            (|it| it.stops = vec!["x".repeat(257)], "stop", "a stop text has 257 bytes, allowed is 1 to 256"),
            (|it| it.stops = vec![String::new()], "stop", "a stop text has 0 bytes"),
            (|it| it.input = Input::Messages(Vec::new()), "messages", "messages is empty"),
            (|it| it.input = Input::Prompt(String::new()), "prompt", "prompt is empty"),
        ];
        assert!(ask().check(&Sampling::default(), 384).is_ok());
        for (change, param, says) in wrong {
            let mut ask = ask();
            change(&mut ask);
            let Err(fault) = ask.check(&Sampling::default(), 384) else { panic!("{says}: was taken") };
            assert_eq!((fault.kind, fault.param.as_deref()), (fault::Kind::InvalidInput, Some(param)), "{fault}");
            assert!(fault.message.contains(says), "{fault}");
        }
    }

    #[test]
    fn what_is_absent_is_the_models_default() {
        let defaults = Sampling { temperature: 0.25, top_k: 7, ..Sampling::default() };
        let mut ask = ask();
        ask.sampling.top_k = Some(0);
        ask.sampling.seed = Some(3);
        let plan = ask.check(&defaults, 384).expect("in range");
        assert_eq!(plan.sampling, Sampling { temperature: 0.25, top_k: 0, seed: 3, ..Sampling::default() });
    }

    #[test]
    fn each_answer_has_a_seed_of_its_own_and_the_first_the_requests() {
        let seeds: std::collections::HashSet<u64> = (0..16).map(|answer| seed_of(5, answer)).collect();
        assert_eq!((seeds.len(), seed_of(5, 0)), (16, 5));
    }
}
