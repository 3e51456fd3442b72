//! A language model that goes on with texts: one step for many of them, a stretch of one of them.
//!
//! Why: such a model reads what it has seen before from a cache that it extends itself; copying that cache at each step would
//! cost more than the step. Here the cache is one memory of slots, given to the graph as past and as present.
//! Understands: graphs in Hugging Face's layout with GroupQueryAttention (`input_ids`, `attention_mask`, `position_ids` or not,
//! `num_logits_to_keep` or not, `past_key_values.N.key` and `.value`; `logits`, `present.N.key` and `.value`). On CUDA the cache
//! stays in the device's memory; what goes there in a step are token numbers, what comes back are logits.
//! Promises: shapes are read from the graph, anything else is refused with what is missing; a slot's tokens never depend on
//! what other slots hold.
//! Not here: which slot belongs to whom, and which token comes next (`generate`).

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::ops::Range;

use half::f16;

use crate::device::Device;
use crate::dtype::DType;
use crate::raw::{Cache, Copier, Value, View};
use crate::session::{RunError, Session};
use crate::spec::Dim;
use crate::stop::Stop;
use crate::tensor::Tensor;

/// The operator that can work on one memory for past and present.
const ATTENTION: &str = "GroupQueryAttention";

/// The numbers of a decoder's graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoderSpec {
    /// Layers with a cache.
    pub layers: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_size: usize,
    /// Element type of the cache: `f32` or `f16`.
    pub cache: DType,
    /// Logits for each position.
    pub vocabulary: usize,
}

impl DecoderSpec {
    /// Bytes of the cache for one token.
    #[must_use]
    pub fn token_bytes(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_size * self.cache.byte_size().unwrap_or(4)
    }
}

/// What one slot goes on with in a [`Decoder::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The token.
    pub token: u32,
    /// How many the slot holds before it: its position.
    pub past: usize,
}

/// Logits of some positions of some rows, in that order.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    vocabulary: usize,
}

impl<'a> Logits<'a> {
    /// One position's.
    ///
    /// # Panics
    /// When there is no such position.
    #[must_use]
    pub fn row(&self, at: usize) -> &'a [f32] {
        &self.values[at * self.vocabulary..(at + 1) * self.vocabulary]
    }

    /// How many positions there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocabulary
    }
}

/// Names of one layer's inputs and outputs.
struct Names {
    past: CString,
    present: CString,
}

/// A loaded decoder with its cache: one run at a time.
pub struct Decoder {
    session: Session,
    spec: DecoderSpec,
    has_positions: bool,
    keeps: bool,
    slots: usize,
    context: usize,
    names: Vec<Names>,
    caches: Vec<Cache>,
    /// For a cache of the session's allocator.
    copier: Option<Copier>,
}

/// Where the cache of a [`Decoder`] lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// In CPU memory that becomes real where it is written.
    Pages,
    /// In memory of the session's device, by its allocator and within its limit.
    Allocator,
}

impl Decoder {
    /// Reads what a graph is, and nothing else.
    ///
    /// # Errors
    /// One sentence that says what is missing or unknown.
    pub fn spec_of(session: &Session) -> Result<DecoderSpec, String> {
        read(session).map(|found| found.spec)
    }

    /// Takes a session, with memory for `slots` conversations of at most `context` tokens.
    ///
    /// # Errors
    /// As [`Decoder::spec_of`]; also when the cache is too large to be addressed, or for the device's memory.
    pub fn new(session: Session, slots: usize, context: usize) -> Result<Self, String> {
        let place = if session.chosen().device == Device::Cpu { CachePlace::Pages } else { CachePlace::Allocator };
        Self::with_cache(session, slots, context, place)
    }

    /// As [`Decoder::new`], with the cache where it is said to be.
    ///
    /// # Errors
    /// As [`Decoder::new`]; also for pages of the CPU under a session on another device.
    pub fn with_cache(session: Session, slots: usize, context: usize, place: CachePlace) -> Result<Self, String> {
        let Found { spec, has_positions, keeps } = read(&session)?;
        let device = session.chosen().device;
        let failed = |error: ort::Error| format!("no cache of {slots} slots of {context} tokens: {}", error.message());
        let copier = match place {
            CachePlace::Pages if device == Device::Cpu => None,
            CachePlace::Pages => return Err(format!("a cache in pages is for the cpu, the session is on {device}")),
            CachePlace::Allocator => Some(Copier::new(session.origin(), device, spec.cache).map_err(failed)?),
        };
        let shape = [slots, spec.kv_heads, context, spec.head_size];
        let (mut names, mut caches) = (Vec::new(), Vec::new());
        for layer in 0..spec.layers {
            for part in ["key", "value"] {
                let name = |start: &str| CString::new(format!("{start}.{layer}.{part}")).unwrap_or_default();
                names.push(Names { past: name("past_key_values"), present: name("present") });
                let cache = match &copier {
                    None => Cache::in_pages(spec.cache, shape),
                    Some(copier) => Cache::of_session(session.loaded(), spec.cache, shape, copier),
                };
                caches.push(cache.map_err(failed)?);
            }
        }
        Ok(Self { session, spec, has_positions, keeps, slots, context, names, caches, copier })
    }

    /// The numbers of the graph.
    #[must_use]
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// How many conversations fit.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// How many tokens of one conversation fit.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// The session that runs the graph.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Puts `tokens` into a slot that holds `past` before them; what it held from there on is gone. Hands the logits of the last
    /// `keep` of them (of all when 0), one row each, to `read`.
    ///
    /// # Errors
    /// [`RunError`]; the slot then holds `past` tokens still.
    pub fn prefill<R>(
        &mut self,
        slot: usize,
        past: usize,
        tokens: &[u32],
        keep: usize,
        stop: &Stop,
        read: impl FnOnce(Logits<'_>) -> R,
    ) -> Result<R, RunError> {
        let total = past + tokens.len();
        if tokens.is_empty() || slot >= self.slots || total > self.context {
            let what = format!("{} tokens from position {past} of slot {slot}", tokens.len());
            return Err(RunError::Failed(format!("{what} do not fit {} slots of {}", self.slots, self.context)));
        }
        let keep = if keep == 0 { tokens.len() } else { keep.min(tokens.len()) };
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let positions: Vec<i64> = (past..total).map(|position| position as i64).collect();
        let mask = vec![1_i64; total];
        let run = Run { slots: slot..slot + 1, tokens: tokens.len(), total, keep };
        self.run(&run, [ids, positions, mask], stop, read)
    }

    /// Goes on with a row of slots, from `first` on, each by one token. A slot that has nothing to say takes part with any
    /// token at the end of what it holds, which is overwritten by its next one. Hands a row of logits for each to `read`.
    ///
    /// # Errors
    /// [`RunError`]; no slot has gone on then.
    pub fn step<R>(
        &mut self,
        first: usize,
        next: &[Next],
        stop: &Stop,
        read: impl FnOnce(Logits<'_>) -> R,
    ) -> Result<R, RunError> {
        let total = next.iter().map(|next| next.past + 1).max().unwrap_or_default();
        if next.is_empty() || first + next.len() > self.slots || total > self.context {
            let what = format!("slots {first} to {} with up to {total} tokens", first + next.len());
            return Err(RunError::Failed(format!("{what} do not fit {} slots of {}", self.slots, self.context)));
        }
        let ids: Vec<i64> = next.iter().map(|next| i64::from(next.token)).collect();
        let positions: Vec<i64> = next.iter().map(|next| next.past as i64).collect();
        let mut mask = vec![0_i64; next.len() * total];
        for (row, next) in mask.chunks_exact_mut(total).zip(next) {
            row[..=next.past].fill(1);
        }
        let run = Run { slots: first..first + next.len(), tokens: 1, total, keep: 1 };
        self.run(&run, [ids, positions, mask], stop, read)
    }

    /// Copies the first `tokens` of one slot to another.
    ///
    /// # Errors
    /// [`RunError`] of the device; the slot that was copied to then holds nothing.
    ///
    /// # Panics
    /// When there is no such slot, or for one and the same.
    pub fn copy(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), RunError> {
        let Self { caches, copier, session, .. } = self;
        let mut copies = caches.iter_mut().map(|cache| cache.copy(from, to, tokens, copier.as_ref()));
        copies.try_for_each(|copied| copied.map_err(|error| session.error(&error)))
    }

    fn run<R>(
        &mut self,
        run: &Run,
        [ids, positions, mask]: [Vec<i64>; 3],
        stop: &Stop,
        read: impl FnOnce(Logits<'_>) -> R,
    ) -> Result<R, RunError> {
        let Self { session, spec, has_positions, keeps, names, caches, .. } = self;
        let rows = run.slots.len() as i64;
        let tokens = run.tokens as i64;
        let mut scalars = vec![
            (c"input_ids", Tensor::from_i64(&[rows, tokens], &ids)),
            (c"attention_mask", Tensor::from_i64(&[rows, run.total as i64], &mask)),
        ];
        if *has_positions {
            scalars.push((c"position_ids", Tensor::from_i64(&[rows, tokens], &positions)));
        }
        if *keeps {
            scalars.push((c"num_logits_to_keep", Tensor::from_i64(&[], &[run.keep as i64])));
        }
        let memory = session.memory();
        let views = caches.iter().map(|cache| cache.view(run.slots.start, run.slots.len()));
        let views: Vec<View<'_>> = views.collect::<ort::Result<_>>().map_err(|error| session.error(&error))?;
        let values = scalars.iter().map(|(_, tensor)| Value::from_tensor(memory, tensor));
        let values: Vec<Value<'_>> = values.collect::<ort::Result<_>>().map_err(|error| session.error(&error))?;
        let mut inputs: Vec<(&CStr, &Value<'_>)> = scalars.iter().map(|(name, _)| *name).zip(&values).collect();
        inputs.extend(names.iter().zip(&views).map(|(name, view)| (name.past.as_c_str(), view.value())));
        let mut outputs: Vec<(&CStr, Option<&View<'_>>)> = vec![(c"logits", None)];
        outputs.extend(names.iter().zip(&views).map(|(name, view)| (name.present.as_c_str(), Some(view))));
        let results = session.execute_into(&inputs, &outputs, stop)?;
        let [logits] = results.as_slice() else { return Err(RunError::Failed("the model gave no logits".to_owned())) };
        let (all, per_row) = floats(logits).map_err(|error| session.error(&error))?;
        let vocabulary = spec.vocabulary;
        if all.len() != run.slots.len() * per_row * vocabulary || per_row < run.keep {
            return Err(RunError::Failed(format!("the model gave {} logits for {} positions", all.len(), run.keep)));
        }
        // Of a model that cannot be asked for the last positions alone.
        let skip = (per_row - run.keep) * vocabulary;
        let values = match skip {
            0 => all,
            _ => all.chunks_exact(per_row * vocabulary).flat_map(|row| &row[skip..]).copied().collect(),
        };
        Ok(read(Logits { values: &values, vocabulary }))
    }
}

/// The elements of `[rows, positions, vocabulary]`, and how many positions there are.
fn floats<'a>(logits: &'a Value<'_>) -> ort::Result<(Cow<'a, [f32]>, usize)> {
    let (dtype, shape) = logits.type_and_shape()?;
    let values = match dtype {
        Some(DType::F16) => {
            let halves = logits.bytes()?.as_chunks().0;
            Cow::Owned(halves.iter().map(|half| f16::from_le_bytes(*half).to_f32()).collect())
        }
        _ => Cow::Borrowed(logits.floats()?),
    };
    Ok((values, shape.get(1).map_or(0, |positions| *positions as usize)))
}

/// One run's extent.
struct Run {
    slots: Range<usize>,
    tokens: usize,
    /// Of the longest row, the new ones included.
    total: usize,
    keep: usize,
}

struct Found {
    spec: DecoderSpec,
    has_positions: bool,
    keeps: bool,
}

fn read(session: &Session) -> Result<Found, String> {
    if !session.nodes().iter().any(|(_, operator)| operator == ATTENTION) {
        return Err(format!("the graph has no {ATTENTION}, which is how past and present can share memory"));
    }
    let input = |name: &str| session.inputs().iter().find(|spec| spec.name == name);
    for name in ["input_ids", "attention_mask"] {
        if input(name).is_none_or(|spec| spec.dtype != DType::I64) {
            return Err(format!("the graph has no input {name} of i64"));
        }
    }
    let layers = (0..).take_while(|layer| input(&format!("past_key_values.{layer}.key")).is_some()).count();
    let Some(key) = input("past_key_values.0.key") else {
        return Err("the graph has no input past_key_values.0.key".to_owned());
    };
    let (Some([_, Dim::Fixed(kv_heads), _, Dim::Fixed(head_size)]), DType::F32 | DType::F16) =
        (key.shape.as_deref(), key.dtype)
    else {
        return Err(format!("past_key_values.0.key is {key}, expected f32 or f16 of [batch, HEADS, tokens, SIZE]"));
    };
    for layer in 0..layers {
        for part in ["key", "value"] {
            let name = format!("past_key_values.{layer}.{part}");
            if input(&name).is_none_or(|spec| (&spec.shape, spec.dtype) != (&key.shape, key.dtype)) {
                return Err(format!("the graph has no input {name} like that of layer 0"));
            }
            let name = format!("present.{layer}.{part}");
            if !session.outputs().iter().any(|spec| spec.name == name && spec.dtype == key.dtype) {
                return Err(format!("the graph has no output {name} of {}", key.dtype));
            }
        }
    }
    let known = |name: &str| ["input_ids", "attention_mask", "position_ids", "num_logits_to_keep"].contains(&name);
    let mut others = session.inputs().iter().filter(|spec| !spec.optional && !known(&spec.name));
    let mut pasts = 0;
    if let Some(other) = others.find(|spec| {
        let past = spec.name.starts_with("past_key_values.");
        pasts += usize::from(past);
        !past || pasts > 2 * layers
    }) {
        return Err(format!("the graph wants an input {}, which is not known", other.name));
    }
    let logits = session.outputs().iter().find(|spec| spec.name == "logits");
    let vocabulary = match logits.map(|spec| (spec.shape.as_deref(), spec.dtype)) {
        Some((Some([_, _, Dim::Fixed(vocabulary)]), DType::F32 | DType::F16)) => *vocabulary as usize,
        _ => return Err("the graph has no output logits, f32 or f16 of [batch, tokens, VOCABULARY]".to_owned()),
    };
    let (kv_heads, head_size) = (*kv_heads as usize, *head_size as usize);
    Ok(Found {
        spec: DecoderSpec { layers, kv_heads, head_size, cache: key.dtype, vocabulary },
        has_positions: input("position_ids").is_some(),
        keeps: input("num_logits_to_keep").is_some(),
    })
}
