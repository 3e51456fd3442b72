//! Texts to vectors.
//!
//! Promises: a text that is too long is refused with its number and both lengths, and cut only when the caller says so; a text has
//! the same vector whoever shares its run (a model for which that is not so runs each text alone); a caller with thousands of texts
//! keeps others waiting for a few runs at most.

mod form;
mod load;
mod tokens;

use std::ops::Range;
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
use crate::shares::{Share, Shares};
use crate::turns::{self, Turns};
use crate::{CallScope, Task, Timing};

/// What the lane of an embedding model counts instead of rows.
pub(crate) const UNIT: &str = "pieces of 16 tokens";

/// Tokenising fewer bytes than this takes some tens of microseconds, about what two thread switches do.
const INLINE_BYTES: usize = 512;

/// A thread makes tokens of so many bytes in about 20 ms, then it is somebody else's turn.
const CHUNK_BYTES: usize = 64 << 10;

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

    /// # Errors
    /// InvalidInput with the number of the first that is empty.
    fn check(&self) -> Result<(), Fault> {
        let empty = match self {
            Self::Words(texts) => texts.iter().position(String::is_empty),
            Self::Tokens(texts) => texts.iter().position(Vec::is_empty),
        };
        empty.map_or(Ok(()), |at| Err(named(self, at, &TokensError::Empty)))
    }

    /// Where the texts end that are made into tokens together with that at `from`.
    fn chunk(&self, from: usize) -> usize {
        let mut bytes = 0;
        let fits = |each: &usize| {
            bytes += each;
            bytes <= CHUNK_BYTES
        };
        let more = match self {
            Self::Words(texts) => texts[from..].iter().map(String::len).take_while(fits).count(),
            Self::Tokens(texts) => {
                texts[from..].iter().map(|text| size_of_val(text.as_slice())).take_while(fits).count()
            }
        };
        from + more.max(1)
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
#[derive(Clone, Debug, Default)]
pub struct EmbedOptions {
    /// Vectors of length 1; `None`: as the model says.
    pub normalise: Option<bool>,
    /// How many of the first numbers; `None`: all.
    pub dimensions: Option<usize>,
    /// Cut what is too long.
    pub truncate: bool,
    /// Whose texts they are: those with the same text here share what one caller has of the model.
    pub owner: String,
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
    pub(crate) shares: Shares,
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
        let dimensions = self.check_texts(&texts, &options, embedder)?;
        let normalise = options.normalise.unwrap_or(self.folder.settings.embed.normalise);
        let begin = Instant::now();
        let window = serving.lane().window();
        let share = embedder.shares.of(&options.owner, window, turns::cores());
        let tokens = self.tokens_of(texts, options.truncate, embedder, &share, call).await?;
        let decode = begin.elapsed();
        self.observer().phase(Phase::Tokenize, decode);
        let token_counts = tokens.iter().map(Vec::len).collect();
        let total = tokens.iter().map(|text| pieces(embedder.form.length(text.len()))).sum();
        serving.lane().expect(total, share.waiting(), call.deadline)?;
        let together = if embedder.form.joins { serving.lane().together(total).min(window) } else { 0 };
        let finish = Finish { dimensions, normalise };
        let runs = groups(tokens, together, &embedder.form).into_iter().map(|group| {
            let (waiting, since) = (share.wait(group.pieces), Instant::now());
            async move {
                let room = waiting.room(call.deadline).await;
                let _room = room.ok_or_else(|| self.late("the deadline passed while the texts waited"))?;
                let waited = since.elapsed();
                let work = Work::Texts { texts: group.texts, finish };
                let joins = embedder.form.joins;
                let answer = serving.lane().submit(work, group.pieces, joins, call, None).await?;
                Ok::<_, Fault>((group.places, answer, waited, Instant::now()))
            }
        });
        let parts = try_join_all(runs.collect::<Vec<_>>()).await?;
        let mut timing = Timing { decode, ..Timing::default() };
        if let Some((_, last, waited, _)) = parts.iter().max_by_key(|(.., ended)| *ended) {
            timing = Timing {
                queue: *waited + last.queue,
                run: last.run,
                batch_rows: last.batch_rows,
                began: Some(last.began),
                batch: last.batch,
                ..timing
            };
        }
        let each = dimensions * size_of::<f32>();
        let mut vectors = vec![0; count * each];
        for (places, answer, ..) in parts {
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
    fn check_texts(&self, texts: &Texts, options: &EmbedOptions, embedder: &Embedder) -> Result<usize, Fault> {
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
        share: &Share,
        call: CallScope,
    ) -> Result<Vec<Vec<u32>>, Fault> {
        // Before any work: a call is refused for it in the end.
        texts.check()?;
        let count = texts.len();
        if texts.bytes() <= INLINE_BYTES {
            return tokenise(&embedder.tokens, &texts, 0..count, cut, || false);
        }
        let texts = Arc::new(texts);
        let caller = Caller::default();
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let range = all.len()..texts.chunk(all.len());
            let (tokens, texts, gone) = (Arc::clone(&embedder.tokens), Arc::clone(&texts), Arc::clone(&caller.0));
            let work = async {
                // First those of the caller: who has much to do waits for itself, and only then with others.
                let own = share.thread(call.deadline).await.ok_or_else(overdue)?;
                let turn = embedder.tokenizing.take(call.deadline).await.ok_or_else(overdue)?;
                let task = tokio::task::spawn_blocking(move || {
                    let _turns = (own, turn);
                    let over = || gone.load(Ordering::Relaxed) || call.deadline.is_over(Instant::now());
                    tokenise(&tokens, &texts, range, cut, over)
                });
                task.await.map_err(|_| Fault::internal("making tokens of the texts panicked"))?
            };
            all.extend(work.await.inspect_err(|fault| self.note(fault))?);
        }
        Ok(all)
    }

    fn late(&self, message: &'static str) -> Fault {
        let fault = Fault::deadline_exceeded(message);
        self.note(&fault);
        fault
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

/// What is wrong with the text at this place of a call.
fn named(texts: &Texts, at: usize, error: &TokensError) -> Fault {
    let message =
        if texts.len() > 1 { format!("text {} of the call {error}", at + 1) } else { format!("the text {error}") };
    let fault = match error {
        TokensError::TooLong { .. } | TokensError::TooManyBytes { .. } => Fault::too_large(message),
        TokensError::Empty | TokensError::Unknown { .. } | TokensError::Tokenizer(_) => Fault::invalid_input(message),
    };
    fault.with_param(texts.param())
}

/// The tokens of some of the texts. `over` is asked before each.
fn tokenise(
    tokens: &Tokens,
    texts: &Texts,
    range: Range<usize>,
    cut: bool,
    over: impl Fn() -> bool,
) -> Result<Vec<Vec<u32>>, Fault> {
    let each = |at: usize| {
        if over() {
            return Err(overdue());
        }
        let made = match texts {
            Texts::Words(texts) => tokens.of_text(&texts[at], cut),
            Texts::Tokens(texts) => tokens.of_tokens(&texts[at], cut),
        };
        made.map_err(|error| named(texts, at, &error))
    };
    range.map(each).collect()
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
