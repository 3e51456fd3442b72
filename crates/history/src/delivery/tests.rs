use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::day::Day;
use crate::folder::Folder;
use crate::record::RecordId;
use crate::spool::Limits;
use crate::sqlite::Sqlite;
use crate::store::{Filter, Pictures};
use crate::testing::record;

/// A delivery from a spool into a file of SQLite and a folder.
struct Bench {
    delivery: Delivery,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let pictures = Folder::open(&folder.path().join("pictures")).expect("opens");
        Self::with(folder, Arc::new(pictures))
    }

    fn with(folder: TempDir, pictures: Arc<dyn Pictures>) -> Self {
        let records = Sqlite::open(&folder.path().join("history.sqlite3")).expect("opens");
        let counts = Counts::new();
        let limits = Limits { queue_bytes: 64 << 20, disk_bytes: 1 << 30, pictures: true };
        let spool = Spool::open(&folder.path().join("spool"), limits, counts.clone()).expect("opens");
        let stores = Stores { records: Arc::new(records), pictures: Some(pictures) };
        let (trouble, timeout) = (Trouble::default(), Duration::from_secs(5));
        Self { delivery: Delivery { spool, stores, counts, trouble, timeout }, folder }
    }

    async fn keep(&self, model: &str) -> RecordId {
        let record = record(model);
        let id = record.id;
        let entry = Entry { record, picture: Some(Bytes::from_static(b"a picture")), preview: None };
        assert_eq!(self.delivery.spool.keep(entry).await, Ok(true));
        id
    }

    async fn carry(&self) {
        let batch = self.delivery.spool.batch(MOST, BYTES).expect("is read").expect("some wait");
        self.delivery.carry(batch).await;
    }

    /// As somebody else who has the file open.
    fn in_the_file(&self, statement: &str) {
        let file = rusqlite::Connection::open(self.folder.path().join("history.sqlite3")).expect("opens");
        file.execute_batch(statement).expect("done");
    }

    async fn listed(&self) -> Vec<RecordId> {
        let page = self.delivery.stores.records.page(&Filter::default(), None, 100).await.expect("a page");
        page.records.iter().rev().map(|record| record.id).collect()
    }

    fn set_aside(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path().join("spool/0")).expect("there");
        files
            .filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|it| it == "refused")))
            .count()
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_alone_is_set_aside_and_keeps_nothing_else_away() {
    let bench = Bench::new();
    bench.in_the_file(
        "CREATE TRIGGER odd BEFORE INSERT ON records WHEN new.model = 'odd' BEGIN SELECT RAISE(ABORT, 'odd'); END",
    );
    let good = [bench.keep("a").await, bench.keep("b").await];
    bench.keep("odd").await;
    bench.carry().await;
    assert_eq!(bench.listed().await, good);
    assert_eq!(bench.set_aside(), 1);
    assert_eq!(bench.delivery.counts.waiting.get(), 0);
    assert_eq!(*bench.delivery.trouble.lock(), None, "the store takes records");
}

#[tokio::test(start_paused = true)]
async fn what_a_store_refuses_that_refuses_everything_waits_and_comes_when_it_takes_records_again() {
    let bench = Bench::new();
    bench.in_the_file("CREATE TRIGGER none BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'none today'); END");
    let first = [bench.keep("a").await, bench.keep("b").await];
    bench.carry().await;
    assert_eq!((bench.set_aside(), bench.listed().await), (0, vec![]));
    assert!(bench.delivery.trouble.lock().as_ref().is_some_and(|trouble| trouble.contains("none today")));
    assert_eq!(bench.delivery.counts.waiting.get(), 2);
    let last = bench.keep("c").await;
    bench.in_the_file("DROP TRIGGER none");
    bench.carry().await;
    assert_eq!(bench.listed().await, [first[0], first[1], last]);
    assert_eq!(*bench.delivery.trouble.lock(), None);
    // Also after many attempts they are counted off.
    assert_eq!(bench.delivery.counts.waiting.get(), 0);
    assert_eq!(bench.delivery.spool.batch(MOST, BYTES).expect("is read").map(|batch| batch.entries), None);
}

/// A store of pictures in which somebody else deletes a record as soon as its picture has come again.
struct Deleting {
    pictures: Folder,
    records: Sqlite,
}

impl Pictures for Deleting {
    fn put(&self, id: RecordId, kind: Kind, bytes: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            let ids = [id];
            let deleting: Answer<'_, ()> = crate::store::Records::delete(&self.records, &ids);
            deleting.await?;
            self.pictures.put(id, kind, bytes).await
        })
    }

    fn get(&self, id: RecordId, kind: Kind) -> Answer<'_, Option<Bytes>> {
        self.pictures.get(id, kind)
    }

    fn delete(&self, id: RecordId) -> Answer<'_, ()> {
        self.pictures.delete(id)
    }

    fn expire(&self, before: Day) -> Answer<'_, ()> {
        self.pictures.expire(before)
    }

    fn check(&self) -> Answer<'_, ()> {
        self.pictures.check()
    }
}

#[tokio::test]
async fn a_picture_that_comes_again_while_its_record_is_deleted_does_not_stay() {
    let folder = TempDir::new().expect("a folder");
    let records = Sqlite::open(&folder.path().join("history.sqlite3")).expect("opens");
    let pictures = Folder::open(&folder.path().join("pictures")).expect("opens");
    let bench = Bench::with(folder, Arc::new(Deleting { pictures, records }));
    let id = bench.keep("a").await;
    let mut batch = bench.delivery.spool.batch(MOST, BYTES).expect("is read").expect("one waits");
    batch.maybe_again = true;
    bench.delivery.carry(batch).await;
    assert_eq!(bench.listed().await, []);
    let pictures = bench.delivery.stores.pictures.as_ref().expect("there");
    assert_eq!(pictures.get(id, Kind::Picture).await, Ok(None));
}
