//! The `traces` table.

use hyper::Uri;
use serde::{Deserialize, Serialize};
use units::TraceParent;

use crate::settings::{self, SettingsError};

/// Where OTLP's receivers take traces.
const PATH: &str = "/v1/traces";

/// Where spans are sent, and which. The variables of OpenTelemetry stand below the file and the program's own variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The collector, as in `http://127.0.0.1:4318`; empty: nowhere.
    pub endpoint: String,
    /// What the process is called in traces; empty: as the program.
    pub service: String,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// How many, 0 to 1, of those that `sampler` decides by it.
    pub ratio: f64,
    /// Spans that wait for the collector; further ones are dropped.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        // The queue is OpenTelemetry's own; full, it takes about 2 MiB.
        let (endpoint, service) = (String::new(), String::new());
        Self { endpoint, service, sampler: Sampler::default(), ratio: 1.0, queue: 2_048 }
    }
}

impl Settings {
    /// # Errors
    /// The first value that cannot be used, with its key and what is allowed.
    pub fn check(&self) -> Result<(), SettingsError> {
        settings::within("traces.ratio", self.ratio, 0.0..=1.0)?;
        settings::within("traces.queue", self.queue, 1..=1_000_000)?;
        self.collector().map(|_| ())
    }

    /// The whole address; `None` when nothing is sent.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn collector(&self) -> Result<Option<Uri>, SettingsError> {
        if self.endpoint.is_empty() {
            return Ok(None);
        }
        let wrong = |why: &str| SettingsError::Value(format!("`traces.endpoint` is {:?}: {why}", self.endpoint));
        let address: Uri = self.endpoint.parse().map_err(|_| wrong("this is no address"))?;
        if address.scheme_str() != Some("http") || address.host().is_none_or(str::is_empty) {
            return Err(wrong("it must be http://HOST:PORT, of a collector that takes OTLP over HTTP"));
        }
        if address.path() != "/" {
            return Ok(Some(address));
        }
        let whole = format!("{}{PATH}", self.endpoint.trim_end_matches('/'));
        whole.parse().map(Some).map_err(|_| wrong("this is no address"))
    }
}

/// Which traces are kept; the names are OpenTelemetry's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum Sampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// So many, whatever their callers say.
    #[serde(rename = "traceidratio")]
    Ratio,
    /// As their callers say; all that begin here.
    #[serde(rename = "parentbased_always_on")]
    ParentOrOn,
    /// As their callers say; none that begin here.
    #[serde(rename = "parentbased_always_off")]
    ParentOrOff,
    /// As their callers say; so many of those that begin here.
    #[default]
    #[serde(rename = "parentbased_traceidratio")]
    ParentOrRatio,
}

impl TryFrom<String> for Sampler {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "always_on" => Ok(Self::AlwaysOn),
            "always_off" => Ok(Self::AlwaysOff),
            "traceidratio" => Ok(Self::Ratio),
            "parentbased_always_on" => Ok(Self::ParentOrOn),
            "parentbased_always_off" => Ok(Self::ParentOrOff),
            "parentbased_traceidratio" => Ok(Self::ParentOrRatio),
            _ => Err(format!(
                "{text:?} is not allowed, allowed are always_on, always_off, traceidratio, parentbased_always_on, \
                 parentbased_always_off, parentbased_traceidratio"
            )),
        }
    }
}

impl Sampler {
    /// Whether the trace of `this` is kept.
    pub(super) fn keeps(self, ratio: f64, parent: Option<TraceParent>, this: TraceParent) -> bool {
        match (self, parent) {
            (Self::ParentOrOn | Self::ParentOrOff | Self::ParentOrRatio, Some(parent)) => parent.is_sampled(),
            (Self::AlwaysOn | Self::ParentOrOn, _) => true,
            (Self::AlwaysOff | Self::ParentOrOff, _) => false,
            (Self::Ratio | Self::ParentOrRatio, _) => is_among(ratio, this),
        }
    }
}

/// By the trace's id, so that every process that decides comes to the same: its last 63 bits are a random number, as in
/// OpenTelemetry's own samplers.
fn is_among(ratio: f64, this: TraceParent) -> bool {
    let [.., a, b, c, d, e, f, g, h] = this.trace_id().bytes();
    let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    ratio >= 1.0 || (number as f64) < ratio * (1_u64 << 63) as f64
}
