//! Why a model that has first runs of its own kind is not served.

use runtime::RunError;

/// Why a model does not load.
pub(crate) enum LoadFailure {
    /// One sentence.
    Reason(String),
    /// Its first runs failed.
    Run(RunError),
}

impl LoadFailure {
    /// The sentence; `of_run` makes that of a run.
    pub(crate) fn sentence(self, of_run: impl FnOnce(RunError) -> String) -> String {
        match self {
            Self::Reason(reason) => reason,
            Self::Run(error) => of_run(error),
        }
    }
}

impl From<RunError> for LoadFailure {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl From<String> for LoadFailure {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}
