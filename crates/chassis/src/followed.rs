//! A file that a running process reads again whenever it changes.
//!
//! Promises: what cannot be used leaves what was read before in force, so that a mistake in a file stops nobody; it is told once.
//! Not here: what the file means.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};

/// How often the file is looked at. Asking the system costs microseconds; being told by it does not work on every file system, nor
/// where a whole folder is replaced, as orchestrators do.
const PAUSE: Duration = Duration::from_secs(1);

/// What a file says now.
pub struct Followed<T> {
    path: PathBuf,
    read: fn(&Path) -> Result<T, String>,
    now: ArcSwap<T>,
}

/// What changes when a file is written or replaced; `None` while there is none.
type Stamp = Option<(u64, u64, Option<SystemTime>)>;

impl<T: Send + Sync + 'static> Followed<T> {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// That of `read`.
    pub fn open(path: &Path, read: fn(&Path) -> Result<T, String>) -> Result<Self, String> {
        Ok(Self { now: ArcSwap::from_pointee(read(path)?), path: path.to_owned(), read })
    }

    /// What it said when it was last read.
    pub fn now(&self) -> Guard<Arc<T>> {
        self.now.load()
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn stamp(&self) -> Stamp {
        let data = fs::metadata(&self.path).ok()?;
        Some((data.ino(), data.len(), data.modified().ok()))
    }

    /// Follows the file, for ever; tells `told` of each reading.
    pub async fn follow(self: Arc<Self>, told: impl Fn(Result<&T, &str>)) {
        // Of nothing: what was written between the start and now is seen.
        let mut before: Option<Stamp> = None;
        loop {
            let this = Arc::clone(&self);
            // A file system can hang.
            let looked = tokio::task::spawn_blocking(move || {
                let stamp = this.stamp();
                (before != Some(stamp)).then(|| (stamp, (this.read)(&this.path)))
            });
            if let Ok(Some((stamp, read))) = looked.await {
                match read {
                    Ok(read) => {
                        self.now.store(Arc::new(read));
                        told(Ok(&self.now.load()));
                    }
                    Err(error) => told(Err(&error)),
                }
                before = Some(stamp);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn number(path: &Path) -> Result<u32, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| format!("{text:?} is no number"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_mistake_leaves_what_was_there_and_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        assert!(Followed::open(&path, number).is_err(), "there is none");
        fs::write(&path, "7").expect("written");
        let followed = Arc::new(Followed::open(&path, number).expect("a number"));
        let told = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&told);
        let tell =
            move |read: Result<&u32, &str>| notes.lock().expect("whole").push(read.copied().map_err(str::to_owned));
        let following = tokio::spawn(Arc::clone(&followed).follow(tell));
        for (text, notes, now) in [("7", 1, 7), ("seven", 2, 7), ("12", 3, 12)] {
            fs::write(&path, text).expect("written");
            while told.lock().expect("whole").len() < notes {
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(PAUSE * 3).await;
            assert_eq!(**followed.now(), now, "{text}");
        }
        following.abort();
        let all = vec![Ok(7), Err("\"seven\" is no number".to_owned()), Ok(12)];
        assert_eq!(*told.lock().expect("whole"), all);
    }
}
