//! Texts to vectors.
//!
//! Promises: a text that is too long is refused with its number and both lengths, and cut only when the caller says so; a text has
//! the same vector whoever shares its run (a model for which that is not so runs each text alone).

mod form;
mod load;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fault::Fault;
use futures_util::future::try_join_all;

pub(crate) use form::{Finish, Form};
pub(crate) use load::{Loaded, load};

use crate::embed::form::pieces;
use crate::embed::tokens::{Tokens, TokensError};
use crate::job::{Answer, Outcome, Work};
use crate::model::{Model, fault_of};
use crate::observe::Phase;
use crate::turns::Turns;
use crate::{CallScope, Task, Timing};

/// What the lane of an embedding model counts instead of rows.
pub(crate) const UNIT: &str = "pieces of 16 tokens";

/// Tokenising fewer bytes than this takes some tens of microseconds, about what two thread switches do.
const INLINE_BYTES: usize = 512;

/// What is to be embedded.
#[derive(Clone, Debug)]
pub enum Texts {
    /// As people write them.
    Words(Vec<String>),
    /// As tokens of the model.
    Tokens(Vec<Vec<i32>>),
}

impl Texts {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Words(texts) => texts.len(),
            Self::Tokens(texts) => texts.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Words(texts) => texts.iter().map(String::len).sum(),
            Self::Tokens(texts) => texts.iter().map(|text| size_of_val(text.as_slice())).sum(),
        }
    }

    /// The field of the request.
    fn param(&self) -> &'static str {
        match self {
            Self::Words(_) => "texts",
            Self::Tokens(_) => "tokens",
        }
    }
}

/// What the caller wants done.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbedOptions {
    /// Vectors of length 1; `None`: as the model says.
    pub normalise: Option<bool>,
    /// How many of the first numbers; `None`: all.
    pub dimensions: Option<usize>,
    /// Cut what is too long.
    pub truncate: bool,
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The vectors one after the other, 32-bit floats, little-endian.
    pub vectors: Bytes,
    /// Numbers in each.
    pub dimensions: usize,
    /// Tokens of each text.
    pub token_counts: Vec<usize>,
    /// Where the time went; `decode` is the time that making tokens took, `batch_rows` counts texts.
    pub timing: Timing,
}

/// What an embedding model has besides its lane.
pub(crate) struct Embedder {
    pub(crate) tokens: Arc<Tokens>,
    /// Calls whose texts are made into tokens at the same time: turns of their own, so that texts do not keep pictures waiting.
    pub(crate) tokenizing: Turns,
    pub(crate) form: Form,
    pub(crate) dimensions: usize,
}

/// Texts of a call that share a run: which ones, and their tokens.
struct Group {
    places: Vec<usize>,
    texts: Vec<Vec<u32>>,
    pieces: usize,
}

impl Model {
    /// Makes vectors of texts. Dropping the future withdraws the call.
    ///
    /// # Errors
    /// A [`Fault`] whose message names the text, the value and the limit.
    pub async fn embed(&self, texts: Texts, options: EmbedOptions, call: CallScope) -> Result<Embedded, Fault> {
        if self.task() != Task::Embed {
            let message = format!("model `{}` does not embed texts", self.name());
            return Err(Fault::invalid_input(message).with_param("model"));
        }
        let serving = self.serving()?;
        let Some(embedder) = self.embedder.get() else {
            return Err(Fault::internal("an embedding model is ready and has no tokenizer"));
        };
        let count = texts.len();
        let dimensions = self.check_texts(&texts, options, embedder)?;
        let normalise = options.normalise.unwrap_or(self.folder.settings.embed.normalise);
        let begin = Instant::now();
        let tokens = self.tokens_of(texts, options.truncate, embedder, call).await?;
        let decode = begin.elapsed();
        self.observer().phase(Phase::Tokenize, decode);
        let token_counts = tokens.iter().map(Vec::len).collect();
        let total = tokens.iter().map(|text| pieces(embedder.form.length(text.len()))).sum();
        // All or nothing, as with pictures.
        let mut promise = serving.lane().promise(total, call.deadline)?;
        let together = if embedder.form.joins { serving.lane().together(total) } else { 0 };
        let finish = Finish { dimensions, normalise };
        let runs = groups(tokens, together, &embedder.form).into_iter().map(|group| {
            let promise = promise.split(group.pieces);
            async move {
                let work = Work::Texts { texts: group.texts, finish };
                let joins = embedder.form.joins;
                let answer = serving.lane().submit(work, group.pieces, joins, call.deadline, Some(promise)).await?;
                Ok::<_, Fault>((group.places, answer, Instant::now()))
            }
        });
        let parts = try_join_all(runs.collect::<Vec<_>>()).await?;
        let mut timing = Timing { decode, ..Timing::default() };
        if let Some((_, last, _)) = parts.iter().max_by_key(|(.., ended)| *ended) {
            timing = Timing { queue: last.queue, run: last.run, batch_rows: last.batch_rows, ..timing };
        }
        let each = dimensions * size_of::<f32>();
        let mut vectors = vec![0; count * each];
        for (places, answer, _) in parts {
            let Answer { outcome, run, lonely, .. } = answer;
            let Outcome::Vectors(made) = outcome.map_err(|error| fault_of(error, self.name(), run, lonely))? else {
                return Err(Fault::internal(format!("model `{}` gave no vectors", self.name())));
            };
            for (place, vector) in places.into_iter().zip(made) {
                if vector.len() != dimensions {
                    return Err(Fault::internal(format!("model `{}` gave a vector of {}", self.name(), vector.len())));
                }
                let bytes = vectors[place * each..(place + 1) * each].chunks_exact_mut(size_of::<f32>());
                bytes.zip(vector).for_each(|(bytes, value)| bytes.copy_from_slice(&value.to_le_bytes()));
            }
        }
        timing.total = call.received.elapsed();
        Ok(Embedded { vectors: vectors.into(), dimensions, token_counts, timing })
    }

    /// How many numbers each vector has, when the call is within the limits.
    fn check_texts(&self, texts: &Texts, options: EmbedOptions, embedder: &Embedder) -> Result<usize, Fault> {
        let (have, limit) = (texts.len(), self.settings().texts_per_call);
        if have == 0 {
            return Err(Fault::invalid_input("there is no text in the request").with_param("texts"));
        }
        if have > limit {
            let message = format!("{have} texts in one call, the limit is {limit}");
            return Err(Fault::too_large(message).with_param(texts.param()));
        }
        let dimensions = options.dimensions.unwrap_or(embedder.dimensions);
        if !(1..=embedder.dimensions).contains(&dimensions) {
            let most = embedder.dimensions;
            let message = format!("dimensions is {dimensions}, model `{}` gives 1 to {most}", self.name());
            return Err(Fault::invalid_input(message).with_param("dimensions"));
        }
        let (bytes, limit) = ((have * dimensions * size_of::<f32>()) as u64, self.settings().output_bytes);
        if bytes > limit {
            let message = format!("{have} vectors of {dimensions} numbers have {bytes} bytes, the limit is {limit}");
            return Err(Fault::too_large(message).with_param(texts.param()));
        }
        Ok(dimensions)
    }

    async fn tokens_of(
        &self,
        texts: Texts,
        cut: bool,
        embedder: &Embedder,
        call: CallScope,
    ) -> Result<Vec<Vec<u32>>, Fault> {
        let tokens = Arc::clone(&embedder.tokens);
        if texts.bytes() <= INLINE_BYTES {
            return tokenise(&tokens, &texts, cut, || false);
        }
        let deadline = call.deadline;
        let caller = Caller::default();
        let gone = Arc::clone(&caller.0);
        let work = async {
            let turn = embedder.tokenizing.take(deadline).await.ok_or_else(overdue)?;
            let task = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                tokenise(&tokens, &texts, cut, || gone.load(Ordering::Relaxed) || deadline.is_over(Instant::now()))
            });
            task.await.map_err(|_| Fault::internal("making tokens of the texts panicked"))?
        };
        work.await.inspect_err(|fault| self.note(fault))
    }
}

/// Says that the caller has gone when it is dropped, which a thread cannot see by itself.
#[derive(Default)]
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn overdue() -> Fault {
    Fault::deadline_exceeded("the deadline passed while the texts were made into tokens or waited for their turn")
}

/// `over` is asked before each text: a call may have thousands.
fn tokenise(tokens: &Tokens, texts: &Texts, cut: bool, over: impl Fn() -> bool) -> Result<Vec<Vec<u32>>, Fault> {
    let (many, param) = (texts.len() > 1, texts.param());
    let named = |at: usize, made: Result<Vec<u32>, TokensError>| {
        made.map_err(|error| {
            let message =
                if many { format!("text {} of the call {error}", at + 1) } else { format!("the text {error}") };
            let fault = match error {
                TokensError::TooLong { .. } | TokensError::TooManyBytes { .. } => Fault::too_large(message),
                TokensError::Empty | TokensError::Unknown { .. } | TokensError::Tokenizer(_) => {
                    Fault::invalid_input(message)
                }
            };
            fault.with_param(param)
        })
    };
    // Before any work: a call is refused for it in the end.
    let empty = match texts {
        Texts::Words(texts) => texts.iter().position(String::is_empty),
        Texts::Tokens(texts) => texts.iter().position(Vec::is_empty),
    };
    if let Some(at) = empty {
        return named(at, Err(TokensError::Empty)).map(|_| Vec::new());
    }
    let each = |at: usize| {
        if over() {
            return Err(overdue());
        }
        let made = match texts {
            Texts::Words(texts) => tokens.of_text(&texts[at], cut),
            Texts::Tokens(texts) => tokens.of_tokens(&texts[at], cut),
        };
        named(at, made)
    };
    (0..texts.len()).map(each).collect()
}

/// Texts in groups of at most `together` pieces, each with others of about its length; one that has more is alone.
fn groups(tokens: Vec<Vec<u32>>, together: usize, form: &Form) -> Vec<Group> {
    let mut order: Vec<(usize, Vec<u32>)> = tokens.into_iter().enumerate().collect();
    order.sort_by_key(|(_, text)| text.len());
    let mut groups: Vec<Group> = Vec::new();
    for (place, text) in order {
        let each = pieces(form.length(text.len()));
        let group = match groups.last_mut() {
            Some(last) if last.pieces + each <= together => last,
            _ => groups.push_mut(Group { places: Vec::new(), texts: Vec::new(), pieces: 0 }),
        };
        group.places.push(place);
        group.texts.push(text);
        group.pieces += each;
    }
    groups
}
