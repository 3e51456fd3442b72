use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::cassandra::Cassandra;
use crate::folder::Folder;
use crate::record::{Record, Source, Timing};
use crate::settings;
use crate::sqlite::Sqlite;
use crate::store::{Filter, Kind};

fn stores(folder: &TempDir) -> Stores {
    Stores {
        records: Arc::new(Sqlite::open(&folder.path().join("history.sqlite3")).expect("opens")),
        pictures: Some(Arc::new(Folder::open(&folder.path().join("pictures")).expect("opens"))),
    }
}

async fn put(stores: &Stores, id: RecordId, bytes: usize) {
    let record = Record {
        id,
        request_id: String::new(),
        caller: String::new(),
        source: Source::Page,
        model: "m".to_owned(),
        version: String::new(),
        file_name: String::new(),
        format: String::new(),
        bytes: 0,
        sha256: String::new(),
        width: 0,
        height: 0,
        labels: Vec::new(),
        timing: Timing::default(),
        outcome: "ok".to_owned(),
        kept_bytes: bytes as u64,
        has_preview: false,
        correction: None,
    };
    if let Some(pictures) = &stores.pictures {
        pictures.put(id, Kind::Picture, Bytes::from(vec![0; bytes])).await.expect("stored");
    }
    stores.records.put(&[record]).await.expect("stored");
}

async fn left(stores: &Stores) -> Vec<RecordId> {
    let page = stores.records.page(&Filter::default(), None, 100).await.expect("a page");
    page.records.iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn whole_days_go_with_their_pictures() {
    let folder = TempDir::new().expect("a folder");
    let stores = stores(&folder);
    let days: Vec<RecordId> = (0..5).map(|days| Day::today().back(days).first_id()).collect();
    for id in &days {
        put(&stores, *id, 10).await;
    }
    once(&stores, &Counts::new(), Retention { days: 2, bytes: 0 }, Day::today()).await.expect("swept");
    assert_eq!(left(&stores).await, days[..3]);
    let pictures = stores.pictures.as_ref().expect("there");
    assert_eq!(pictures.get(days[3], Kind::Picture).await, Ok(None));
    assert!(pictures.get(days[2], Kind::Picture).await.expect("asked").is_some());
    once(&stores, &Counts::new(), Retention { days: 0, bytes: 0 }, Day::today()).await.expect("swept");
    assert_eq!(left(&stores).await.len(), 3, "without limits all stays");
}

#[test]
fn a_clock_that_jumps_ahead_is_not_believed_at_once() {
    let (begin, first) = (Instant::now(), Day::today());
    let hours = |hours: u64| begin + Duration::from_secs(hours * 60 * 60);
    let mut calendar = Calendar::new(first, begin);
    assert_eq!(calendar.today(first.ahead(1), hours(1)), first.ahead(1), "over midnight");
    assert_eq!(calendar.today(first.ahead(400), hours(2)), first.ahead(1));
    assert_eq!(calendar.today(first.ahead(400), hours(20)), first.ahead(1));
    assert_eq!(calendar.today(first.ahead(1), hours(21)), first.ahead(1), "it was a mistake");
    assert_eq!(calendar.today(first.ahead(400), hours(22)), first.ahead(1), "doubted anew");
    assert_eq!(calendar.today(first.ahead(400), hours(47)), first.ahead(400), "it stays with it");
    assert_eq!(calendar.today(first, hours(48)), first, "back is harmless");
    assert_eq!(calendar.today(first.ahead(11), hours(48 + 24 * 10)), first.ahead(11), "after a long pause");
}

#[tokio::test]
async fn a_clock_that_is_ahead_at_the_start_is_not_believed_either() {
    let folder = TempDir::new().expect("a folder");
    let stores = stores(&folder);
    let begin = Instant::now();
    let mut fresh = Calendar::of(&stores).await.expect("asked");
    assert_eq!(fresh.today(Day::today(), begin), Day::today(), "nothing is known, and nothing can go");
    let known = Day::today().back(100);
    put(&stores, known.first_id(), 10).await;
    let mut calendar = Calendar::of(&stores).await.expect("asked");
    assert_eq!(calendar.today(Day::today(), begin), known);
    assert_eq!(calendar.today(Day::today(), Instant::now() + DOUBT), Day::today(), "it stays with it");
}

#[tokio::test]
async fn the_oldest_go_until_there_is_room_and_no_more() {
    let folder = TempDir::new().expect("a folder");
    let stores = stores(&folder);
    let now = RecordId::generate().millis();
    let made: Vec<RecordId> = (0..10).map(|place| RecordId::first_of(now + place)).collect();
    for id in &made {
        put(&stores, *id, 100_000).await;
    }
    once(&stores, &Counts::new(), Retention { days: 0, bytes: 450_000 }, Day::today()).await.expect("swept");
    let newest_first: Vec<RecordId> = made[6..].iter().rev().copied().collect();
    assert_eq!(left(&stores).await, newest_first);
    let pictures = stores.pictures.as_ref().expect("there");
    assert_eq!(pictures.get(made[5], Kind::Picture).await, Ok(None));
    assert!(stores.records.usage().await.expect("counted").bytes <= 450_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test cassandra starts what it needs"]
async fn in_cassandra_the_oldest_go_until_there_is_room_and_no_more() {
    let node = std::env::var("OUTBOARD_TEST_CASSANDRA").expect("scripts/test cassandra names the node");
    let address = settings::Cassandra {
        nodes: vec![node],
        keyspace: format!("room_{:x}", RecordId::generate().millis()),
        ..settings::Settings::default().cassandra
    };
    let records = Arc::new(Cassandra::new(&address, 0, Duration::from_secs(20)));
    let stores = Stores { records, pictures: None };
    stores.records.migrate().await.expect("migrates");
    // From three days, in partitions that nobody knows beforehand; more than one step has.
    let today = Day::today();
    let made: Vec<RecordId> = [2, 1, 0]
        .iter()
        .flat_map(|days| {
            let first = today.back(*days).first_id().millis();
            (0..150).map(move |place| RecordId::first_of(first + place))
        })
        .collect();
    for id in &made {
        put(&stores, *id, 100_000).await;
    }
    let before = stores.records.usage().await.expect("counted");
    assert_eq!(before.records, 450);
    // Room for a hundred of them.
    let room = before.bytes / 450 * 100;
    let counts = Counts::new();
    once(&stores, &counts, Retention { days: 0, bytes: room }, Day::today()).await.expect("swept");
    let newest_first: Vec<RecordId> = made[350..].iter().rev().copied().collect();
    assert_eq!(left(&stores).await, newest_first);
    let after = stores.records.usage().await.expect("counted");
    assert!(after.bytes <= room && after.records == 100, "{after:?}");
    assert_eq!((counts.kept_records.get(), counts.kept_bytes.get()), (100, after.bytes as i64));
    once(&stores, &counts, Retention { days: 0, bytes: room }, Day::today()).await.expect("swept");
    assert_eq!(stores.records.usage().await, Ok(after), "there is room now");
}
