//! First runs of an embedding model: that the longest text fits, whether texts may share runs, and what pieces cost.

use std::time::{Duration, Instant};

use runtime::{RunError, Session, Stop};
use tracing::warn;

use crate::embed::Embedder;
use crate::embed::form::{Form, PIECE, pieces};
use crate::embed::tokens::Tokens;
use crate::load_failure::LoadFailure;
use crate::model::Model;
use crate::shares::Shares;
use crate::turns::{self, Turns};
use crate::warm_up::Clock;

/// The length that the curve is measured with: most texts are sentences.
const USUAL: usize = 64;
/// Runs of one size; the shortest time counts.
const COUNTED: usize = 3;
/// The cosine of a text's vector alone and among others. Other kernels and another order of additions stay far above it.
const SAME: f64 = 0.999_99;

/// What came of the first runs.
pub(crate) struct Loaded {
    pub(crate) embedder: Embedder,
    pub(crate) form: Form,
    /// Measured time of a run by pieces.
    pub(crate) curve: Vec<(usize, Duration)>,
    /// Most pieces in one run ...
    pub(crate) most_pieces: usize,
    /// ... and the usual texts that they are.
    pub(crate) most_texts: usize,
}

pub(crate) fn load(
    model: &Model,
    session: &mut Session,
    budget: Duration,
    clock: Clock,
    stop: &Stop,
) -> Result<Loaded, LoadFailure> {
    let settings = &model.folder.settings;
    let table = &settings.embed;
    let tokens = Tokens::open(&model.folder.path, table.max_tokens)?;
    let mut form = Form::of(session, table)?;
    let some = |count| tokens.some(count).map_err(|error| format!("tokenizer.json: a plain text {error}"));
    // Without this a text within the limit could fail: graphs have tables of positions, and end where those end.
    let longest = some(tokens.most())?;
    let vector = form.run(session, &[&longest], stop).map_err(|error| match error {
        RunError::Stopped => LoadFailure::Run(error),
        error => LoadFailure::Reason(format!("a text of {} tokens (`embed.max_tokens`): {error}", longest.len())),
    })?;
    let dimensions = vector.first().map_or(0, Vec::len);
    form.joins = texts_are_independent(session, &form, [&some(5)?, &some(USUAL.min(tokens.most()))?], stop)?;
    if !form.joins {
        warn!(model = %model.name(), "a text gives another vector among others than alone: served one by one");
    }
    // What leaves a run is bounded as any other output is.
    let bounded = model.settings().output_bytes as usize / (PIECE * dimensions.max(1) * size_of::<f32>());
    let texts = settings.batching.clone().unwrap_or_default().max_rows;
    let longest = pieces(form.length(tokens.most()));
    let most_pieces = if form.joins { (texts * pieces(USUAL)).min(bounded).max(longest) } else { longest };
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size <= most_pieces);
    let sizes: Vec<usize> = sizes.collect();
    let begin = Instant::now();
    let mut curve: Vec<(usize, Duration)> = Vec::new();
    for size in sizes {
        // So many texts of so many tokens; a model that runs texts one by one has one that long.
        let usual = if form.joins { USUAL } else { usize::MAX };
        let length = (size * PIECE).min(usual).min(tokens.most());
        let text = some(length)?;
        let texts = vec![text.as_slice(); (size * PIECE / length).max(1)];
        if curve.last().is_some_and(|(_, time)| begin.elapsed() + *time * 2 * (COUNTED as u32 + 1) > budget) {
            break;
        }
        let mut best = Duration::MAX;
        for round in 0..=COUNTED {
            let start = clock.now();
            form.run(session, &texts, stop)?;
            // The first run of a shape plans memory.
            if round > 0 {
                best = best.min(clock.now().saturating_sub(start));
            }
        }
        curve.push((size, best));
    }
    let most_pieces = curve.last().map_or(most_pieces, |(size, _)| (*size).max(longest));
    let most_texts = if form.joins { (most_pieces / pieces(USUAL)).max(1) } else { 1 };
    Ok(Loaded {
        embedder: Embedder {
            tokens: tokens.into(),
            tokenizing: Turns::new(turns::cores()),
            shares: Shares::default(),
            form: form.clone(),
            dimensions,
        },
        form,
        curve,
        most_pieces,
        most_texts,
    })
}

/// Whether a short text has the same vector alone and, filled up, beside a long one.
fn texts_are_independent(
    session: &mut Session,
    form: &Form,
    [short, long]: [&[u32]; 2],
    stop: &Stop,
) -> Result<bool, RunError> {
    let alone = form.run_at(session, &[short], short.len(), stop)?;
    let together = match form.run_at(session, &[long, short], long.len(), stop) {
        Ok(together) => together,
        Err(RunError::Stopped) => return Err(RunError::Stopped),
        // A graph that takes one text at a time says so here.
        Err(_) => return Ok(false),
    };
    Ok(cosine(&alone[0], &together[1]) >= SAME)
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}
