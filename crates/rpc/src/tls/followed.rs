//! What was made of files, made anew when they change.
//!
//! Promises: what cannot be used is told once, and tried again at every look until it can be, for what keeps a file from being
//! read need not lie in the file.

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

/// What changes when a file is written, replaced, or given to others; `None` while there is none.
type Stamp = Option<FileStamp>;

#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Also at a change of owner or mode, which can make readable what was not.
    changed: (i64, i64),
}

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
        let mut before = Some(self.stamps.clone());
        let mut failed: Option<(Vec<Stamp>, String)> = None;
        loop {
            tokio::time::sleep(PAUSE).await;
            let (this, last) = (Arc::clone(&self), before.clone());
            // A file system can hang.
            let looked = tokio::task::spawn_blocking(move || {
                let stamps = stamps(&this.source);
                (last.as_ref() != Some(&stamps)).then(|| (stamps, this.source.make()))
            });
            match looked.await {
                Ok(Some((stamps, Ok(made)))) => {
                    let expires = S::expires(&made);
                    *self.made.write() = Arc::new(made);
                    (before, failed) = (Some(stamps), None);
                    tell(TlsChange::Used { expires });
                }
                Ok(Some((stamps, Err(error)))) => {
                    let failure = Some((stamps, error.to_string()));
                    if failed != failure {
                        tell(TlsChange::Kept(error));
                    }
                    (before, failed) = (None, failure);
                }
                Ok(None) | Err(_) => {}
            }
        }
    }
}

fn stamps<S: Source>(source: &S) -> Vec<Stamp> {
    let stamp = |file: &Path| {
        let data = fs::metadata(file).ok()?;
        Some(FileStamp {
            inode: data.ino(),
            bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    };
    source.files().into_iter().map(stamp).collect()
}

/// The files that are named.
pub(super) fn named<'a>(files: impl IntoIterator<Item = Option<&'a PathBuf>>) -> Vec<&'a Path> {
    files.into_iter().flatten().map(PathBuf::as_path).collect()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::sync::mpsc;

    use super::*;

    /// Cannot be made while there is another file beside: what a process cannot read for a while does not show in the file itself.
    struct Text {
        file: PathBuf,
        failing: PathBuf,
    }

    impl Source for Text {
        type Made = String;

        fn files(&self) -> Vec<&Path> {
            vec![&self.file]
        }

        fn make(&self) -> Result<String, TlsError> {
            let failed = |error| TlsError::Read { file: self.file.clone(), error };
            if self.failing.exists() {
                return Err(failed(io::Error::other("too many open files")));
            }
            fs::read_to_string(&self.file).map_err(failed)
        }

        fn expires(_: &String) -> Option<SystemTime> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_read_is_told_once_and_read_again_though_the_file_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, failing) = (folder.path().join("file"), folder.path().join("failing"));
        fs::write(&file, "before").expect("written");
        let followed = Arc::new(Followed::new(Text { file: file.clone(), failing: failing.clone() }).expect("a text"));
        let (tell, mut told) = mpsc::unbounded_channel();
        let following =
            tokio::spawn(Arc::clone(&followed).follow(move |change| tell.send(change).expect("somebody listens")));
        fs::write(&failing, "").expect("written");
        fs::write(&file, "after").expect("written");
        assert!(matches!(told.recv().await, Some(TlsChange::Kept(TlsError::Read { .. }))));
        tokio::time::sleep(PAUSE * 3).await;
        assert_eq!(*followed.now(), "before");
        fs::remove_file(&failing).expect("it is there");
        assert!(matches!(told.recv().await, Some(TlsChange::Used { .. })), "it was told more than once");
        assert_eq!(*followed.now(), "after");
        tokio::time::sleep(PAUSE * 3).await;
        assert!(told.try_recv().is_err(), "what has not changed is not read again");
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_given_to_others_has_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "text").expect("written");
        let followed = Followed::new(Text { file: file.clone(), failing: folder.path().join("failing") });
        let (tell, mut told) = mpsc::unbounded_channel();
        let following = Arc::new(followed.expect("a text")).follow(move |change| drop(tell.send(change)));
        let following = tokio::spawn(following);
        // So that it is not of the same moment in a file system's clock.
        std::thread::sleep(Duration::from_millis(20));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        assert!(matches!(told.recv().await, Some(TlsChange::Used { .. })));
        following.abort();
    }
}
