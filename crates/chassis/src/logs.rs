//! Logs: text on a terminal, one JSON object a line elsewhere.

use std::io::IsTerminal as _;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use serde::{Deserialize, Serialize};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::gathered::Gathered;
use crate::json_line::JsonLine;
use crate::metrics::Metrics;
use crate::silence::{Heard, Silence};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
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
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Requests {
    /// One event for each.
    #[default]
    All,
    /// Only those that failed.
    Failures,
}

impl TryFrom<String> for Format {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not allowed, allowed are auto, text, json")),
        }
    }
}

impl TryFrom<String> for Requests {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "all" => Ok(Self::All),
            "failures" => Ok(Self::Failures),
            _ => Err(format!("{text:?} is not allowed, allowed are all, failures")),
        }
    }
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

/// Lines that may wait for the writer. A line is below 2 KiB in practice, so a writer that is stuck costs some 32 MiB. The programs
/// cut what peers wrote (a name to 128 bytes, a reason to 1,024), so that even lines full of escapes cost no more than 128 MiB.
const WAITING: usize = 16_384;

/// Writes what is left when dropped: keep it until the end of the process.
#[must_use = "dropping it ends the log"]
pub struct Logs {
    silence: Silence,
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// Begins to log to standard error.
///
/// Lines are written by a thread of their own, so that a slow terminal or pipe never holds up a request; when 16,384 lines
/// wait, further ones are dropped and counted. A line leaves at most 20 ms after it was made.
///
/// # Errors
/// One sentence when the filter cannot be read.
pub fn start(settings: &Settings) -> Result<Logs, String> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| format!("settings: `log.filter` is {:?}: {error}", settings.filter))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING)
        .finish(Gathered::new(std::io::stderr()));
    let dropped = writer.error_counter();
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let silence = Silence::default();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(terminal);
    if json {
        builder.event_format(Heard { format: JsonLine, silence: silence.clone() }).init();
    } else {
        let format = tracing_subscriber::fmt::format::Format::default().with_ansi(terminal);
        builder.event_format(Heard { format, silence: silence.clone() }).init();
    }
    Ok(Logs { silence, dropped, _guard: guard })
}

impl Logs {
    /// What can be silenced later.
    pub fn silence(&self) -> Silence {
        self.silence.clone()
    }

    /// Shows how many lines were dropped as `outboard_log_dropped_lines_total`.
    pub fn counted_in(&self, metrics: &Metrics) {
        let dropped = Dropped(self.dropped.clone());
        metrics.register(|registry| registry.register_collector(Box::new(dropped)));
    }
}

struct Dropped(ErrorCounter);

impl std::fmt::Debug for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dropped({})", self.0.dropped_lines())
    }
}

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let lines = ConstCounter::new(self.0.dropped_lines() as u64);
        let help = "Log lines dropped because the writer was too slow";
        lines.encode(encoder.encode_descriptor("log_dropped_lines", help, None, lines.metric_type())?)
    }
}
