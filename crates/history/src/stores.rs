//! The stores that the settings name.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use crate::cassandra::Cassandra;
use crate::folder::Folder;
use crate::s3::S3;
use crate::settings::{PicturesKind, Settings, StoreKind};
use crate::sqlite::Sqlite;
use crate::store::{Answer, Pictures, Records};

/// Records and their pictures.
#[derive(Clone)]
pub struct Stores {
    /// What was answered.
    pub records: Arc<dyn Records>,
    /// The pictures, where they are kept.
    pub pictures: Option<Arc<dyn Pictures>>,
}

impl Stores {
    /// Opens them, and makes what lies on this host where it is missing. A database over the network is not waited for: it may come
    /// later.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let place = settings.place().map_err(|error| error.to_string())?;
        let sqlite = || {
            make(&place)?;
            check_place(&place)?;
            let file = place.join("history.sqlite3");
            Sqlite::open(&file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let folder = || {
            make(&place)?;
            let folder = place.join("pictures");
            Folder::open(&folder).map_err(|error| format!("{}: {error}", folder.display()))
        };
        Self::of(settings, sqlite, folder)
    }

    /// Opens them as they are, to look at: makes and changes nothing.
    ///
    /// # Errors
    /// Also where there is no history yet.
    pub fn open_existing(settings: &Settings) -> Result<Self, String> {
        let place = settings.place().map_err(|error| error.to_string())?;
        let sqlite = || {
            let file = place.join("history.sqlite3");
            if !file.exists() {
                return Err(format!("there is no history in {} (`history.folder`)", place.display()));
            }
            check_place(&place)?;
            Sqlite::open_existing(&file).map_err(|error| format!("{}: {error}", file.display()))
        };
        Self::of(settings, sqlite, || Ok(Folder::at(&place.join("pictures"))))
    }

    fn of(
        settings: &Settings,
        sqlite: impl FnOnce() -> Result<Sqlite, String>,
        folder: impl FnOnce() -> Result<Folder, String>,
    ) -> Result<Self, String> {
        let records: Arc<dyn Records> = match settings.store {
            StoreKind::None => return Err("settings: `history.store` is \"none\": there is no history".to_owned()),
            StoreKind::Sqlite => Arc::new(sqlite()?),
            StoreKind::Cassandra => Arc::new(Cassandra::new(&settings.cassandra, settings.days, settings.timeout)),
        };
        let pictures: Option<Arc<dyn Pictures>> = match settings.pictures {
            PicturesKind::None => None,
            PicturesKind::Folder => Some(Arc::new(folder()?)),
            PicturesKind::S3 => Some(Arc::new(S3::open(&settings.s3, settings.timeout)?)),
        };
        Ok(Self { records, pictures })
    }

    /// Whether all of them answer.
    pub fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.records.check().await?;
            match &self.pictures {
                Some(pictures) => pictures.check().await,
                None => Ok(()),
            }
        })
    }
}

/// Makes the folder of the history, for its owner alone: it holds other people's pictures. One that is there stays as it is.
pub(crate) fn make(place: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(place).map_err(|error| {
        format!("the history's folder {} (`history.folder`) cannot be made: {error}; `history.store = \"none\"` keeps nothing", place.display())
    })
}

/// SQLite needs locks and shared memory that network file systems only pretend to have: a file there is lost one day.
fn check_place(place: &Path) -> Result<(), String> {
    // From Linux' magic.h.
    const NETWORKS: [(i64, &str); 8] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x5346_414f, "AFS"),
        (0x00c3_6400, "Ceph"),
        (0x0bd0_0bd0, "Lustre"),
        (0x0102_1997, "9P"),
    ];
    const FUSE: i64 = 0x6573_5546;
    let Ok(told) = rustix::fs::statfs(place) else { return Ok(()) };
    // Its type differs between processors.
    #[allow(clippy::unnecessary_cast)]
    let kind = told.f_type as i64 & 0xffff_ffff;
    if kind == FUSE {
        warn!(place = %place.display(), "the history lies on FUSE: it must be a local disk");
    }
    match NETWORKS.iter().find(|(magic, _)| *magic == kind) {
        None => Ok(()),
        Some((_, name)) => Err(format!(
            "the history's folder {} (`history.folder`) is on {name}: SQLite needs a local disk; for several hosts set \
             `history.store = \"cassandra\"`",
            place.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(folder: &Path) -> u32 {
        fs::metadata(folder).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn the_folder_is_its_owners_alone_unless_somebody_made_it_otherwise() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = |name: &str| Settings { folder: folder.path().join(name), ..Settings::default() };
        Stores::open(&settings("a/history")).expect("opens");
        assert_eq!(mode(&folder.path().join("a/history")), 0o700);
        let other = folder.path().join("other");
        fs::create_dir(&other)
            .and_then(|()| fs::set_permissions(&other, fs::Permissions::from_mode(0o750)))
            .expect("made");
        Stores::open(&settings("other")).expect("opens");
        assert_eq!(mode(&other), 0o750);
    }

    #[test]
    fn who_only_looks_makes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings { folder: folder.path().join("history"), ..Settings::default() };
        let refused = Stores::open_existing(&settings).err().expect("there is nothing");
        assert!(refused.starts_with("there is no history in ") && refused.contains("`history.folder`"), "{refused}");
        assert!(!settings.folder.exists());
        Stores::open(&settings).expect("opens");
        Stores::open_existing(&settings).expect("it is there");
    }
}
