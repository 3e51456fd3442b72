//! A file that a running process reads again whenever it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::Guard;
use followed::Source;

/// What a file says now.
pub struct Followed<T: Send + Sync + 'static>(Arc<followed::Followed<File<T>>>);

struct File<T> {
    path: PathBuf,
    read: fn(&Path) -> Result<T, String>,
}

impl<T: Send + Sync + 'static> Source for File<T> {
    type Made = T;
    type Error = String;

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }

    fn make(&self) -> Result<T, String> {
        (self.read)(&self.path)
    }
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// That of `read`.
    pub fn open(path: &Path, read: fn(&Path) -> Result<T, String>) -> Result<Self, String> {
        followed::Followed::new(File { path: path.to_owned(), read }).map(|file| Self(Arc::new(file)))
    }

    /// What it said when it was last read.
    pub fn now(&self) -> Guard<Arc<T>> {
        self.0.now()
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.source().path
    }

    /// Follows the file, for ever; tells `told` of each reading, the first one included.
    pub async fn follow(self: Arc<Self>, told: impl Fn(Result<&T, &str>)) {
        let file = Arc::clone(&self.0);
        file.read_and_follow(|read| told(read.as_ref().copied().map_err(String::as_str))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// Between two looks.
    const PAUSE: Duration = Duration::from_secs(1);

    fn number(path: &Path) -> Result<u32, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| format!("{text:?} is no number"))
    }

    type Told = Arc<Mutex<Vec<Result<u32, String>>>>;

    fn follow(followed: &Arc<Followed<u32>>) -> (Told, tokio::task::JoinHandle<()>) {
        let told = Told::default();
        let notes = Arc::clone(&told);
        let tell =
            move |read: Result<&u32, &str>| notes.lock().expect("whole").push(read.copied().map_err(str::to_owned));
        (told, tokio::spawn(Arc::clone(followed).follow(tell)))
    }

    /// Waits for so many notes, and for a few looks more.
    async fn looked(told: &Told, notes: usize) {
        while told.lock().expect("whole").len() < notes {
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(PAUSE * 3).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_mistake_leaves_what_was_there_and_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        assert!(Followed::open(&path, number).is_err(), "there is none");
        fs::write(&path, "7").expect("written");
        let followed = Arc::new(Followed::open(&path, number).expect("a number"));
        let (told, following) = follow(&followed);
        for (text, notes, now) in [("7", 1, 7), ("seven", 2, 7), ("12", 3, 12)] {
            fs::write(&path, text).expect("written");
            looked(&told, notes).await;
            assert_eq!(**followed.now(), now, "{text}");
        }
        following.abort();
        let all = vec![Ok(7), Err("\"seven\" is no number".to_owned()), Ok(12)];
        assert_eq!(*told.lock().expect("whole"), all);
    }

    /// Fails while there is another file beside: what a process cannot read for a while does not show in the file itself.
    fn number_alone(path: &Path) -> Result<u32, String> {
        let failing = fs::exists(path.with_extension("failing")).map_err(|error| error.to_string())?;
        if failing { Err("too many open files".to_owned()) } else { number(path) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_read_is_read_again_though_the_file_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        let failing = path.with_extension("failing");
        fs::write(&path, "7").expect("written");
        let followed = Arc::new(Followed::open(&path, number_alone).expect("a number"));
        let (told, following) = follow(&followed);
        looked(&told, 1).await;
        fs::write(&failing, "").expect("written");
        let whole = path.with_extension("new");
        fs::write(&whole, "12").expect("written");
        fs::rename(&whole, &path).expect("replaced");
        looked(&told, 2).await;
        assert_eq!(**followed.now(), 7);
        fs::remove_file(&failing).expect("it is there");
        looked(&told, 3).await;
        assert_eq!(**followed.now(), 12);
        following.abort();
        assert_eq!(*told.lock().expect("whole"), [Ok(7), Err("too many open files".to_owned()), Ok(12)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_given_to_others_has_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        fs::write(&path, "7").expect("written");
        let followed = Arc::new(Followed::open(&path, number).expect("a number"));
        let (told, following) = follow(&followed);
        looked(&told, 1).await;
        // So that it is not of the same moment in a file system's clock.
        std::thread::sleep(Duration::from_millis(20));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        looked(&told, 2).await;
        following.abort();
        assert_eq!(*told.lock().expect("whole"), [Ok(7), Ok(7)]);
    }
}
