//! The stores that the settings name.

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
    /// Opens them. A database over the network is not waited for: it may come later.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let place = settings.place().map_err(|error| error.to_string())?;
        let records: Arc<dyn Records> = match settings.store {
            StoreKind::None => return Err("settings: `history.store` is \"none\": there is no history".to_owned()),
            StoreKind::Sqlite => {
                make(&place)?;
                check_place(&place)?;
                let file = place.join("history.sqlite3");
                Arc::new(Sqlite::open(&file).map_err(|error| format!("{}: {error}", file.display()))?)
            }
            StoreKind::Cassandra => Arc::new(Cassandra::new(&settings.cassandra, settings.days, settings.timeout)),
        };
        let pictures: Option<Arc<dyn Pictures>> = match settings.pictures {
            PicturesKind::None => None,
            PicturesKind::Folder => {
                let folder = place.join("pictures");
                Some(Arc::new(Folder::open(&folder).map_err(|error| format!("{}: {error}", folder.display()))?))
            }
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

/// Makes the folder of the history.
pub(crate) fn make(place: &Path) -> Result<(), String> {
    std::fs::create_dir_all(place).map_err(|error| {
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
