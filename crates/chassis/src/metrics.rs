//! The registry, buckets that fit requests, and the process's own figures.

use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of histograms in seconds: 50 us to 60 s in steps of about two and a half.
const SECONDS: [f64; 16] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0];

/// Makes histograms of seconds: buckets up to 50 us, 100 us and so on to 60 s.
#[derive(Clone, Copy, Debug)]
pub struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// All metrics of the process. Names begin with `outboard_`.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Brings gauges up to date that nobody keeps.
    refresh: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Metrics {
    /// A registry with the process's own figures in it.
    #[must_use]
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::with_prefix("outboard");
        registry.register_collector(Box::new(Process));
        let info = prometheus_client::metrics::info::Info::new([("program", program), ("version", version)]);
        registry.register("build", "The program and its version", info);
        Self { registry: Arc::new(Mutex::new(registry)), refresh: None }
    }

    /// The same, calling `refresh` before each page is made: for gauges whose value is somewhere else.
    #[must_use]
    pub fn refreshed_by(mut self, refresh: impl Fn() + Send + Sync + 'static) -> Self {
        self.refresh = Some(Arc::new(refresh));
        self
    }

    /// Registers metrics.
    ///
    /// # Panics
    /// When an earlier call panicked half-way.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().expect("registering does not panic"));
    }

    /// The page that Prometheus reads.
    ///
    /// # Panics
    /// When an earlier call panicked half-way.
    #[must_use]
    pub fn page(&self) -> String {
        if let Some(refresh) = &self.refresh {
            refresh();
        }
        let mut page = String::with_capacity(16 << 10);
        let registry = self.registry.lock().expect("registering does not panic");
        prometheus_client::encoding::text::encode(&mut page, &registry).expect("writing to a string does not fail");
        page
    }
}

/// Memory, processor time and open files, read when asked.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let resident = ConstGauge::new(resident_bytes() as i64);
        let metric = encoder.encode_descriptor(
            "process_resident_memory",
            "Memory in use",
            Some(&Unit::Bytes),
            resident.metric_type(),
        )?;
        resident.encode(metric)?;
        let files = ConstGauge::new(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as i64);
        let metric = encoder.encode_descriptor("process_open_fds", "Open files", None, files.metric_type())?;
        files.encode(metric)?;
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = ConstCounter::new(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9);
        let metric =
            encoder.encode_descriptor("process_cpu", "Processor time", Some(&Unit::Seconds), cpu.metric_type())?;
        cpu.encode(metric)
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_process_and_ends_as_the_format_asks() {
        let page = Metrics::new("test", "1.2.3").page();
        for line in ["outboard_process_resident_memory_bytes ", "outboard_process_open_fds ", "version=\"1.2.3\""] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
        assert!(page.ends_with("# EOF\n"));
        assert!(resident_bytes() > 1 << 20);
    }
}
