//! Logs: text on a terminal, one JSON object a line elsewhere.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text when standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requests {
    /// One event for each.
    #[default]
    All,
    /// Only those that failed.
    Failures,
}

/// The `log` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What is logged, as in `info,rpc=debug`.
    pub filter: String,
    /// How lines look.
    pub format: Format,
    /// Which requests are logged.
    pub requests: Requests,
}

impl Default for Settings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Auto, requests: Requests::All }
    }
}

/// Begins to log to standard error. Keep the guard until the end of the process: dropping it writes what is left.
///
/// Lines are written by a thread of their own, so that a slow terminal or pipe never holds up a request; when 128,000 lines
/// wait, further ones are dropped.
///
/// # Errors
/// One sentence when the filter cannot be read.
pub fn start(settings: &Settings) -> Result<WorkerGuard, String> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| format!("settings: `log.filter` is {:?}: {error}", settings.filter))?;
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).finish(std::io::stderr());
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        builder.with_ansi(terminal).init();
    }
    Ok(guard)
}
