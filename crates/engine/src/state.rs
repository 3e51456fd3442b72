//! Where a model is between load and drain.

use std::fmt;
use std::time::Instant;

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The file is being read.
    Loading,
    /// Loaded; runs of every batch size are being measured.
    Warming,
    /// It answers.
    Ready,
    /// It does not load, or its first run failed.
    Failed(String),
    /// What it has taken is finished, new work is refused.
    Draining,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loading => f.write_str("loading"),
            Self::Warming => f.write_str("warming up"),
            Self::Ready => f.write_str("ready"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Draining => f.write_str("draining"),
        }
    }
}

/// A state and since when it holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) state: State,
    pub(crate) since: Instant,
}

impl Held {
    pub(crate) fn new(state: State) -> Self {
        Self { state, since: Instant::now() }
    }
}
