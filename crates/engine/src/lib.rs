//! This crate knows how to serve models, from load to drain.
//!
//! A request goes: [`Model::classify`] or [`Model::infer`] -> picture decoded under a budget (`decoding`) -> queue
//! (`scheduler`) -> a worker thread that owns a session (`worker`) -> answer; or [`Model::chat`] -> tokens -> the one thread of
//! the model's generator (`generate`) -> [`Answers`]. Dropping the future withdraws the request
//! wherever it is; when all callers of a run have gone, the run is stopped.
//!
//! Promises: a model is ready only after real runs of every batch size; work past its deadline never reaches the device,
//! and its caller learns so at that moment; one broken model does not stop the others; what waits and what is decoded is
//! bounded by settings.
//! Not here: Thrift and HTTP (`server`, `gateway`), the choice of batch sizes (`scheduler`).

mod buffers;
mod chat;
mod classify;
mod decoding;
mod embed;
mod engine;
mod infer;
mod job;
mod lane;
mod load;
mod load_failure;
mod model;
mod observe;
mod scores;
mod settings;
mod shares;
mod state;
mod turns;
mod warm_up;
mod worker;

pub use chat::{Answers, Ask, Finish, Format, Input, MOST_ANSWERS, Message, Said, Slots, Token, Wishes};
pub use classify::{Classification, Classified, ClassifyOptions};
pub use embed::{EmbedOptions, Embedded, Texts};
pub use engine::{Engine, Health, ModelHealth, Status};
pub use generate::{Load as ChatLoad, Timing as ChatTiming, Usage};
pub use infer::Inferred;
pub use model::{Description, Model};
pub use model_store::Task;
pub use observe::{Event, Observe, Phase, Ran, Silent};
pub use settings::Settings;
pub use state::State;

use std::time::{Duration, Instant};

use units::{Deadline, TraceParent};

/// When a call began and when its answer is of no use any more.
#[derive(Clone, Copy, Debug)]
pub struct CallScope {
    /// The request was complete.
    pub received: Instant,
    /// The answer is of no use after this.
    pub deadline: Deadline,
    /// The call's span, when spans are told of it.
    pub trace: Option<TraceParent>,
}

/// Where the time of a call went. Queue, run and rows are those of the run that ended last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Bytes to rows, waiting for a decoder included.
    pub decode: Duration,
    /// Waiting for a worker.
    pub queue: Duration,
    /// On the device.
    pub run: Duration,
    /// From `received` to the answer.
    pub total: Duration,
    /// Rows in the run.
    pub batch_rows: usize,
    /// When the run began; none of a call that has not come so far.
    pub began: Option<Instant>,
    /// The run's own span, when spans are told of one of its calls.
    pub batch: Option<TraceParent>,
}
