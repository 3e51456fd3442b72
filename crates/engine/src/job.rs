//! Work on its way through the queue to a worker, and the answer on its way back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use model_store::Activation;
use runtime::{RunError, Tensor};
use tokio::sync::oneshot;
use units::TraceParent;

use crate::decoding::Held;
use crate::embed::Finish;
use crate::scores::Scored;

/// What a worker is to run.
pub(crate) enum Work {
    /// Rows of the model's one float input, which may share a run with others.
    Rows {
        data: Floats,
        want: Want,
        /// The memory of `data`, counted until the run has ended, even when its caller has left.
        _room: Option<Held>,
    },
    /// Tokens of texts, which may share a run with others.
    Texts { texts: Vec<Vec<u32>>, finish: Finish },
    /// Named tensors, which run alone.
    Tensors { inputs: Vec<(String, Tensor)>, outputs: Vec<String> },
}

impl Work {
    /// What its caller gave, in the caller's own count, `rows` being what it takes in the lane.
    pub(crate) fn items(&self, rows: usize) -> usize {
        match self {
            Self::Texts { texts, .. } => texts.len(),
            Self::Rows { .. } | Self::Tensors { .. } => rows,
        }
    }
}

/// The elements of rows.
pub(crate) enum Floats {
    /// Made here, in a buffer of [`crate::buffers::Buffers`].
    Made(Vec<f32>),
    /// As they came, little-endian, wherever they lie in the caller's message: the worker copies them when their turn has
    /// come, into memory that is in its cache already, so that waiting rows are in memory once.
    Came(Bytes),
}

impl Floats {
    /// The elements where they lie; `None` when they lie unaligned.
    pub(crate) fn in_place(&self) -> Option<&[f32]> {
        match self {
            Self::Made(floats) => Some(floats),
            Self::Came(bytes) => bytemuck::try_cast_slice(bytes).ok(),
        }
    }

    /// Copies the elements to the end of `to`.
    pub(crate) fn append(&self, to: &mut Vec<f32>) {
        match self {
            Self::Made(floats) => to.extend_from_slice(floats),
            Self::Came(bytes) => to.extend(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk))),
        }
    }
}

/// What the caller of [`Work::Rows`] wants of a run.
#[derive(Clone)]
pub(crate) enum Want {
    /// The best classes of each row.
    Best { top_k: usize, activation: Activation },
    /// These outputs, by position among the model's; each must be float and have one row for each row of input.
    Outputs(Vec<usize>),
}

/// What came of it.
pub(crate) enum Outcome {
    /// For each row its best classes; `None` for a row whose output is not a number.
    Best(Vec<Option<Vec<Scored>>>),
    Tensors(Vec<(String, Tensor)>),
    /// One for each text.
    Vectors(Vec<Vec<f32>>),
}

/// The answer, with where its time went.
pub(crate) struct Answer {
    pub(crate) outcome: Result<Outcome, RunError>,
    pub(crate) queue: Duration,
    pub(crate) run: Duration,
    pub(crate) batch_rows: usize,
    /// When the run began.
    pub(crate) began: Instant,
    /// The run's own span.
    pub(crate) batch: Option<TraceParent>,
    /// Nothing else ran in the process, neither in the same run nor beside it.
    pub(crate) lonely: bool,
}

/// Work, and where its answer goes.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Answer>,
    /// The span of its call.
    pub(crate) trace: Option<TraceParent>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_the_same_wherever_they_lie() {
        let values = [1.5_f32, -2.0, f32::MIN_POSITIVE];
        let mut message = vec![0_u8; 4];
        values.iter().for_each(|value| message.extend_from_slice(&value.to_le_bytes()));
        message.extend([0; 4]);
        let whole = Bytes::from(message);
        let mut in_place = 0;
        for shift in 0..4 {
            let moved = Bytes::from([&vec![0; shift][..], &whole].concat());
            let floats = Floats::Came(moved.slice(shift + 4..shift + 16));
            if let Some(there) = floats.in_place() {
                in_place += 1;
                assert_eq!(there, values);
            }
            let mut copied = vec![7.0];
            floats.append(&mut copied);
            assert_eq!(copied, [&[7.0], &values[..]].concat());
        }
        assert_eq!(in_place, 1, "one of four places is aligned");
        assert_eq!(Floats::Made(values.to_vec()).in_place(), Some(&values[..]));
    }
}
