//! What is counted.

use chassis::metrics::Seconds;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What became of a record.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Outcome {
    /// It is in the stores.
    Stored,
    /// Too many were in line in memory.
    QueueFull,
    /// Too many bytes wait on the disk.
    SpoolFull,
    /// The disk took it not.
    SpoolFailed,
    /// Damaged, or refused by the stores for good; kept in a file.
    SetAside,
    /// Gone by age or for room.
    Expired,
}

const OUTCOMES: [&str; 6] = ["stored", "queue_full", "spool_full", "spool_failed", "set_aside", "expired"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Every handle, looked up once.
#[derive(Clone)]
pub(crate) struct Counts {
    records: Family<OutcomeLabels, Counter>,
    seconds: Family<OperationLabels, Histogram, Seconds>,
    pub(crate) waiting: Gauge,
    pub(crate) spool_bytes: Gauge,
    pub(crate) store_up: Gauge,
    pub(crate) kept_records: Gauge,
    pub(crate) kept_bytes: Gauge,
}

impl Counts {
    pub(crate) fn new() -> Self {
        let records = Family::<OutcomeLabels, Counter>::default();
        for outcome in OUTCOMES {
            // Made, so that it is there with 0.
            drop(records.get_or_create(&OutcomeLabels { outcome }));
        }
        Self {
            records,
            seconds: Family::new_with_constructor(Seconds),
            waiting: Gauge::default(),
            spool_bytes: Gauge::default(),
            store_up: Gauge::default(),
            kept_records: Gauge::default(),
            kept_bytes: Gauge::default(),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let history = registry.sub_registry_with_prefix("history");
        history.register("records", "Records by what became of them", self.records.clone());
        history.register("store_seconds", "What the stores take for an operation", self.seconds.clone());
        history.register("waiting_records", "Records of this process that wait for the stores", self.waiting.clone());
        history.register("spool_bytes", "Bytes of the spool's files", self.spool_bytes.clone());
        history.register("store_up", "1 while the stores take records", self.store_up.clone());
        history.register("kept_records", "Records in the store, when it was last asked", self.kept_records.clone());
        history.register(
            "kept_bytes",
            "Bytes of records and pictures, when it was last asked",
            self.kept_bytes.clone(),
        );
    }

    pub(crate) fn records(&self, outcome: Outcome, count: u64) {
        self.records.get_or_create(&OutcomeLabels { outcome: OUTCOMES[outcome as usize] }).inc_by(count);
    }

    #[cfg(test)]
    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.records.get_or_create(&OutcomeLabels { outcome: OUTCOMES[outcome as usize] }).get()
    }

    pub(crate) fn took(&self, operation: &'static str, seconds: f64) {
        self.seconds.get_or_create(&OperationLabels { operation }).observe(seconds);
    }
}
