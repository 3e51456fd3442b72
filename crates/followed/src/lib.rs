//! What a running process has made of files, made anew whenever they change.
//!
//! Promises: what cannot be used leaves what was there before in force, so that a mistake in a file stops nobody; it is told once,
//! and tried again at every look until it can be used, for what keeps a file from being read need not lie in the file. It is told
//! at the second look: who replaces a certificate and then its key is not told, between the two, that they do not belong together.
//! Not here: what the files mean.

use std::convert::Infallible;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

/// How often the files are looked at. Asking the system costs microseconds; being told by it does not work on every file system, nor
/// where a whole folder is replaced, as orchestrators do.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that is made of files.
pub trait Source: Send + Sync + 'static {
    /// What it is.
    type Made: Send + Sync;
    /// Why it could not be made.
    type Error: Display + Send;

    /// The files whose change makes it another.
    fn files(&self) -> Vec<&Path>;

    /// Reads them.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    fn make(&self) -> Result<Self::Made, Self::Error>;
}

/// What is made of the files now.
pub struct Followed<S: Source> {
    source: S,
    now: ArcSwap<S::Made>,
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
    /// Makes it for the first time.
    ///
    /// # Errors
    /// That of the source.
    pub fn new(source: S) -> Result<Self, S::Error> {
        // Before they are read: what is written meanwhile is then seen as a change.
        let stamps = stamps(&source);
        Ok(Self { now: ArcSwap::from_pointee(source.make()?), source, stamps })
    }

    /// What it is made from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// What was made last.
    pub fn now(&self) -> Guard<Arc<S::Made>> {
        self.now.load()
    }

    /// Follows the files, for ever, and tells of every change.
    pub async fn follow(self: Arc<Self>, told: impl FnMut(Result<&S::Made, S::Error>)) -> Infallible {
        let before = Some(self.stamps.clone());
        self.follow_from(before, told).await
    }

    /// As [`Followed::follow`], but begins by reading them once more, and tells of that as well.
    pub async fn read_and_follow(self: Arc<Self>, told: impl FnMut(Result<&S::Made, S::Error>)) -> Infallible {
        self.follow_from(None, told).await
    }

    async fn follow_from(
        self: Arc<Self>,
        mut before: Option<Vec<Stamp>>,
        mut told: impl FnMut(Result<&S::Made, S::Error>),
    ) -> Infallible {
        let (mut failing, mut told_of) = (false, None);
        loop {
            let (this, last) = (Arc::clone(&self), before.clone());
            // A file system can hang.
            let looked = tokio::task::spawn_blocking(move || {
                let stamps = stamps(&this.source);
                (last.as_ref() != Some(&stamps)).then(|| (stamps, this.source.make()))
            });
            match looked.await {
                Ok(Some((stamps, Ok(made)))) => {
                    self.now.store(Arc::new(made));
                    (before, failing, told_of) = (Some(stamps), false, None);
                    told(Ok(&self.now.load()));
                }
                Ok(Some((stamps, Err(error)))) => {
                    let failure = Some((stamps, error.to_string()));
                    if failing && told_of != failure {
                        told(Err(error));
                        told_of = failure;
                    }
                    (before, failing) = (None, true);
                }
                Ok(None) | Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use tempfile::TempDir;
    use tokio::sync::mpsc;

    use super::*;

    /// Cannot be made while there is another file beside: what a process cannot read for a while does not show in the file itself.
    struct Text {
        file: PathBuf,
        failing: PathBuf,
    }

    impl Source for Text {
        type Made = String;
        type Error = String;

        fn files(&self) -> Vec<&Path> {
            vec![&self.file]
        }

        fn make(&self) -> Result<String, String> {
            if self.failing.exists() {
                return Err("too many open files".to_owned());
            }
            fs::read_to_string(&self.file).map_err(|error| error.to_string())
        }
    }

    /// It says `before`.
    fn followed_text() -> (TempDir, Arc<Followed<Text>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, failing) = (folder.path().join("file"), folder.path().join("failing"));
        fs::write(&file, "before").expect("written");
        (folder, Arc::new(Followed::new(Text { file, failing }).expect("a text")))
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_read_is_told_once_and_read_again_though_the_file_is_the_same() {
        let (_folder, followed) = followed_text();
        let Text { file, failing } = followed.source();
        let (tell, mut told) = mpsc::unbounded_channel();
        let following = tokio::spawn(
            Arc::clone(&followed).follow(move |change| tell.send(change.cloned()).expect("somebody listens")),
        );
        fs::write(failing, "").expect("written");
        fs::write(file, "after").expect("written");
        assert_eq!(told.recv().await, Some(Err("too many open files".to_owned())));
        tokio::time::sleep(PAUSE * 3).await;
        assert_eq!(**followed.now(), "before");
        fs::remove_file(failing).expect("it is there");
        assert_eq!(told.recv().await, Some(Ok("after".to_owned())), "it was told more than once");
        assert_eq!(**followed.now(), "after");
        tokio::time::sleep(PAUSE * 3).await;
        assert!(told.try_recv().is_err(), "what has not changed is not read again");
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_replaced_between_two_looks_is_not_told_as_a_failure() {
        let (_folder, followed) = followed_text();
        let Text { file, failing } = followed.source();
        let (tell, mut told) = mpsc::unbounded_channel();
        fs::write(failing, "").expect("written");
        fs::write(file, "after").expect("written");
        let following = tokio::spawn(
            Arc::clone(&followed).follow(move |change| tell.send(change.cloned()).expect("somebody listens")),
        );
        // The clock stands still until the first look is over.
        tokio::time::sleep(PAUSE / 2).await;
        assert!(told.try_recv().is_err());
        fs::remove_file(failing).expect("it is there");
        assert_eq!(told.recv().await, Some(Ok("after".to_owned())));
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_given_to_others_has_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "text").expect("written");
        let followed = Followed::new(Text { file: file.clone(), failing: folder.path().join("failing") });
        let (tell, mut told) = mpsc::unbounded_channel();
        let following = Arc::new(followed.expect("a text")).follow(move |change| drop(tell.send(change.cloned())));
        let following = tokio::spawn(following);
        // So that it is not of the same moment in a file system's clock.
        std::thread::sleep(Duration::from_millis(20));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        assert_eq!(told.recv().await, Some(Ok("text".to_owned())));
        following.abort();
    }
}
