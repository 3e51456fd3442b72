//! What is asked of a generator, and what comes back.

use std::time::Duration;

use crate::format::Format;
use crate::sampling::{Chosen, Sampling};
use crate::slots::Owner;

/// A text to go on with.
#[derive(Clone, Debug)]
pub struct Request {
    /// The text so far, at least one token.
    pub prompt: Vec<u32>,
    /// Most tokens to generate, at least one.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer and are no part of it.
    pub stops: Vec<String>,
    /// What form the answer must have.
    pub format: Format,
    /// Log-probabilities of the tokens and of so many likeliest others are wanted.
    pub logprobs: Option<usize>,
    /// Whose prefixes may be used.
    pub owner: Owner,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model's end token, or nothing can come after what is there in the format.
    End,
    /// A stop text, by its place in the request.
    Stop(usize),
    /// `max_tokens`, or the end of the context.
    Length,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a slot.
    pub queue: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens generated, the end token among them.
    pub completion: usize,
    /// Tokens of the prompt that were in the cache already.
    pub cached: usize,
}

/// Something that happened to a request. After [`Event::Finished`] or [`Event::Failed`] nothing comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Some more of the answer. The text can be empty while a character or a stop text is still open.
    Piece {
        /// Whole characters.
        text: String,
        /// The token that brought it on; absent when only held text leaves at the end.
        token: Option<Chosen>,
    },
    /// The answer is whole.
    Finished {
        /// Why.
        finish: Finish,
        /// What was counted.
        usage: Usage,
        /// Where the time went.
        timing: Timing,
    },
    /// It broke.
    Failed(Failure),
}

/// Why an answer broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The model, or what runs it.
    #[error("{0}")]
    Model(String),
    /// The format that was asked for became too much work on the way.
    #[error("the format of the answer cannot be kept any more: {0}")]
    Format(String),
}

/// Where events go. False: nobody wants any more, and the request ends.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The prompt and the answer do not fit a slot.
    #[error("{prompt} tokens of prompt and {answer} of answer are more than the context of {context} tokens")]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Most tokens of the answer.
        answer: usize,
        /// What fits.
        context: usize,
    },
    /// As many wait as may.
    #[error("{waiting} prompts wait already, the limit is {limit}")]
    Full {
        /// How many wait.
        waiting: usize,
        /// How many may.
        limit: usize,
    },
    /// The owner has as many waiting as leave room for others.
    #[error(
        "{waiting} prompts of this caller and {others} of others wait already, of {limit} that may; the rest is for others"
    )]
    Share {
        /// How many of the owner's wait.
        waiting: usize,
        /// How many of others.
        others: usize,
        /// How many may in all.
        limit: usize,
    },
    /// So many together never find room.
    #[error("{wanted} answers are wanted at once, {most} can be taken at most")]
    TooMany {
        /// How many are wanted.
        wanted: usize,
        /// How many fit when nobody else is there.
        most: usize,
    },
    /// The prompt is empty, or no tokens are wanted.
    #[error("{0}")]
    Empty(&'static str),
    /// No answer can be held to the format, with the reason.
    #[error("the format of the answer cannot be kept: {0}")]
    Format(String),
    /// The schemas of others keep the compiler busy.
    #[error("{0}")]
    Compiler(String),
    /// The time was over before the schema was compiled.
    #[error("the deadline passed before the schema of the answer was compiled")]
    Late,
    /// The generator has ended.
    #[error("the generator has ended")]
    Ended,
}
