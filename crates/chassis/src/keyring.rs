//! The file of API keys, followed while a process runs.

use std::path::Path;
use std::sync::Arc;

use arc_swap::Guard;
use keys::Keys;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::{info, warn};

use crate::followed::Followed;

/// The keys that hold now.
pub struct Keyring {
    file: Arc<Followed<Keys>>,
    count: Gauge,
    errors: Counter,
}

impl Keyring {
    /// The file of the setting `keys`; `None` when that is empty.
    ///
    /// # Errors
    /// When the file cannot be used, naming the setting.
    pub fn open(path: &Path) -> Result<Option<Arc<Self>>, String> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let file = Followed::open(path, |path| keys::read(path).map_err(|error| error.to_string()));
        let file = Arc::new(file.map_err(|error| format!("settings: `keys`: {error}"))?);
        Ok(Some(Arc::new(Self { file, count: Gauge::default(), errors: Counter::default() })))
    }

    /// Shows how many there are, and how often a change could not be used.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("keys", "Keys in the file of keys", self.count.clone());
        registry.register(
            "key_file_errors",
            "Times that a changed file of keys could not be used",
            self.errors.clone(),
        );
    }

    /// The keys.
    pub fn keys(&self) -> Guard<Arc<Keys>> {
        self.file.now()
    }

    /// Follows the file, for ever.
    pub async fn follow(self: Arc<Self>) {
        let file = Arc::clone(&self.file);
        let told = |read: Result<&Keys, &str>| match read {
            Ok(keys) => {
                let count = keys.entries().len();
                self.count.set(count as i64);
                info!(file = %self.file.path().display(), keys = count, "keys read");
            }
            Err(error) => {
                self.errors.inc();
                warn!(error, "the file of keys cannot be used, those before hold");
            }
        };
        file.follow(told).await;
    }
}
