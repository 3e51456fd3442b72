//! The file of keys, looked at again and again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use keys::{FileError, Keys};
use tracing::{info, warn};

use crate::site::Process;

/// How often the file is looked at. Asking the system costs microseconds; being told by it does not work on every file system, nor
/// where a whole folder is replaced, as orchestrators do.
const PAUSE: Duration = Duration::from_secs(1);

/// The keys that hold now.
pub(crate) struct Keyring {
    path: PathBuf,
    keys: ArcSwap<Keys>,
}

/// What changes when a file is written or replaced; `None` while there is none.
type Stamp = Option<(u64, u64, Option<SystemTime>)>;

impl Keyring {
    /// # Errors
    /// When the file cannot be used.
    pub(crate) fn open(path: PathBuf) -> Result<Self, FileError> {
        let keys = keys::read(&path)?;
        Ok(Self { path, keys: ArcSwap::from_pointee(keys) })
    }

    pub(crate) fn keys(&self) -> Guard<Arc<Keys>> {
        self.keys.load()
    }

    fn stamp(&self) -> Stamp {
        let data = fs::metadata(&self.path).ok()?;
        Some((data.ino(), data.len(), data.modified().ok()))
    }

    /// Follows the file, for ever. While it cannot be used the keys before hold: a mistake in it must not lock everyone out.
    pub(crate) async fn follow(process: Arc<Process>) {
        let (Some(this), metrics) = (&process.keyring, &process.metrics) else { return };
        // Of nothing: what was written between the start and now is seen.
        let mut before: Option<Stamp> = None;
        loop {
            let keyring = Arc::clone(this);
            // A file system can hang.
            let looked = tokio::task::spawn_blocking(move || {
                let stamp = keyring.stamp();
                (before != Some(stamp)).then(|| (stamp, keys::read(&keyring.path)))
            });
            if let Ok(Some((stamp, read))) = looked.await {
                match read {
                    Ok(keys) => {
                        let count = keys.entries().len();
                        metrics.keys.set(count as i64);
                        this.keys.store(Arc::new(keys));
                        info!(file = %this.path.display(), keys = count, "keys read");
                    }
                    Err(error) => {
                        metrics.key_file_errors.inc();
                        warn!(%error, "the file of keys cannot be used, those before hold");
                    }
                }
                before = Some(stamp);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
