//! Work on its way through the queue to a worker, and the answer on its way back.

use std::time::Duration;

use model_store::Activation;
use runtime::{RunError, Tensor};
use tokio::sync::oneshot;

use crate::decoding::Held;
use crate::scores::Scored;

/// What a worker is to run.
pub(crate) enum Work {
    /// Rows of the model's one float input, which may share a run with others.
    Rows {
        data: Vec<f32>,
        want: Want,
        /// The memory of `data`, counted until the run has ended, even when its caller has left.
        _room: Option<Held>,
    },
    /// Named tensors, which run alone.
    Tensors { inputs: Vec<(String, Tensor)>, outputs: Vec<String> },
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
}

/// The answer, with where its time went.
pub(crate) struct Answer {
    pub(crate) outcome: Result<Outcome, RunError>,
    pub(crate) queue: Duration,
    pub(crate) run: Duration,
    pub(crate) batch_rows: usize,
}

/// Work, and where its answer goes.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Answer>,
}
