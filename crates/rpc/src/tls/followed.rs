//! What was made of files, made anew when they change.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

use super::TlsError;

/// How often files are looked at. Being told by the system does not work on every file system, nor where a whole folder is
/// replaced, as orchestrators do.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that is made of files.
pub(super) trait Source: Send + Sync + 'static {
    type Made: Send + Sync;

    fn files(&self) -> Vec<&Path>;

    fn make(&self) -> Result<Self::Made, TlsError>;

    /// When the certificate of this side ends, if it has one.
    fn expires(made: &Self::Made) -> Option<SystemTime>;
}

/// What became of files that have changed.
#[derive(Debug)]
pub enum TlsChange {
    /// New connections use what is in them. With the time at which this side's certificate ends, if it has one.
    Used {
        /// The first end of its chain.
        expires: Option<SystemTime>,
    },
    /// They cannot be used; new connections get what was there before.
    Kept(TlsError),
}

pub(super) struct Followed<S: Source> {
    source: S,
    made: RwLock<Arc<S::Made>>,
    stamps: Vec<Stamp>,
}

/// What changes when a file is written or replaced; `None` while there is none.
type Stamp = Option<(u64, u64, Option<SystemTime>)>;

impl<S: Source> Followed<S> {
    pub(super) fn new(source: S) -> Result<Self, TlsError> {
        // Before they are read: what is written meanwhile is then seen as a change.
        let stamps = stamps(&source);
        let made = RwLock::new(Arc::new(source.make()?));
        Ok(Self { source, made, stamps })
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    pub(super) fn now(&self) -> Arc<S::Made> {
        Arc::clone(&self.made.read())
    }

    pub(super) fn expires(&self) -> Option<SystemTime> {
        S::expires(&self.now())
    }

    /// Follows the files, for ever, and tells of every change.
    pub(super) async fn follow(self: Arc<Self>, mut tell: impl FnMut(TlsChange)) -> Infallible {
        let mut before = self.stamps.clone();
        loop {
            tokio::time::sleep(PAUSE).await;
            let (this, last) = (Arc::clone(&self), before.clone());
            // A file system can hang.
            let looked = tokio::task::spawn_blocking(move || {
                let stamps = stamps(&this.source);
                (stamps != last).then(|| (stamps, this.source.make()))
            });
            if let Ok(Some((stamps, made))) = looked.await {
                before = stamps;
                tell(match made {
                    Ok(made) => {
                        let expires = S::expires(&made);
                        *self.made.write() = Arc::new(made);
                        TlsChange::Used { expires }
                    }
                    Err(error) => TlsChange::Kept(error),
                });
            }
        }
    }
}

fn stamps<S: Source>(source: &S) -> Vec<Stamp> {
    let stamp = |file: &Path| {
        let data = fs::metadata(file).ok()?;
        Some((data.ino(), data.len(), data.modified().ok()))
    };
    source.files().into_iter().map(stamp).collect()
}

/// The files that are named.
pub(super) fn named<'a>(files: impl IntoIterator<Item = Option<&'a PathBuf>>) -> Vec<&'a Path> {
    files.into_iter().flatten().map(PathBuf::as_path).collect()
}
