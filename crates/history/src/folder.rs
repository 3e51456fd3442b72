//! Pictures in a folder: a folder for each day in it, and one for what is being written.
//!
//! Promises: a file is there whole or not at all, also after a power cut; nothing of what a client wrote is in a path.

use std::fs::{self, File};
use std::io::{ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use crate::day::Day;
use crate::record::RecordId;
use crate::store::{Answer, Kind, Pictures, StoreError, place};

/// What a process that was killed has left behind is not found by a record's name. No picture takes so long to be written.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Pictures in a folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Uses this folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> std::result::Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        // They stand in nobody's way.
        if let Err(error) = absent_is_fine(remove_abandoned(&drafts(folder))) {
            warn!(folder = %folder.display(), %error, "what was left half-written there cannot be removed");
        }
        Ok(Self::at(folder))
    }

    /// This folder as it is; one that is not there has no pictures.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    fn on_thread<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Answer<'_, T> {
        let folder = self.0.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&folder).map_err(|error| failed(&error))).await;
            done.unwrap_or_else(|error| {
                Err(StoreError::Broken { store: "store of pictures", reason: error.to_string() })
            })
        })
    }
}

/// Folders come back (mounts), fill up and are emptied: nothing about them is final.
fn failed(error: &std::io::Error) -> StoreError {
    StoreError::Away { store: "store of pictures", reason: error.to_string() }
}

/// What is in the folder itself: names of files and folders that were made or taken away there are durable after this.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)?.sync_all()
}

fn drafts(folder: &Path) -> PathBuf {
    folder.join("drafts")
}

fn remove_abandoned(drafts: &Path) -> Result<()> {
    for entry in fs::read_dir(drafts)? {
        let entry = entry?;
        // Others look at the same time, and finish theirs.
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            absent_is_fine(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

fn absent_is_fine(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl Pictures for Folder {
    fn put(&self, id: RecordId, kind: Kind, bytes: Bytes) -> Answer<'_, ()> {
        self.on_thread(move |folder| {
            let file = folder.join(place(id, kind));
            let day = folder.join(id.day().to_string());
            if !day.exists() {
                fs::create_dir_all(&day)?;
                sync_folder(folder)?;
            }
            // Several gateways may bring the same record: each writes a file of its own.
            let drafts = drafts(folder);
            let draft = drafts.join(RecordId::generate().to_string());
            let write = || {
                fs::create_dir_all(&drafts)?;
                let mut open = File::create_new(&draft)?;
                open.write_all(&bytes)?;
                open.sync_data()?;
                fs::rename(&draft, &file)?;
                sync_folder(&day)
            };
            let done = write();
            if done.is_err() {
                // It may not be there; the first failure is the one to tell.
                let _ = fs::remove_file(&draft);
            }
            done
        })
    }

    fn get(&self, id: RecordId, kind: Kind) -> Answer<'_, Option<Bytes>> {
        self.on_thread(move |folder| match fs::read(folder.join(place(id, kind))) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn delete(&self, id: RecordId) -> Answer<'_, ()> {
        self.on_thread(move |folder| {
            absent_is_fine(fs::remove_file(folder.join(place(id, Kind::Picture))))?;
            absent_is_fine(fs::remove_file(folder.join(place(id, Kind::Preview))))
        })
    }

    fn expire(&self, before: Day) -> Answer<'_, ()> {
        self.on_thread(move |folder| {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                // Folders of other names are none of ours.
                let day = entry.file_name().to_str().and_then(Day::parse);
                if day.is_some_and(|day| day < before) {
                    absent_is_fine(fs::remove_dir_all(entry.path()))?;
                }
            }
            Ok(())
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        self.on_thread(|folder| fs::metadata(folder).map(drop))
    }
}
