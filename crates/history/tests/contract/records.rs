use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use history::cassandra::Cassandra;
use history::settings::Cassandra as Address;
use history::sqlite::Sqlite;
use history::store::Records;
use history::{Correction, Day, Filter, Migration, Page, Record, RecordId, StoreError};

use crate::{NOBODY, record};

/// 20 minutes of moments a second apart, the oldest first, ending a minute ago: all of them on at most two days.
fn moments(count: usize) -> Vec<RecordId> {
    let now = RecordId::generate().millis();
    (0..count).map(|place| RecordId::first_of(now - 60_000 - 1_000 * (count - place) as u64)).collect()
}

async fn all(store: &dyn Records, filter: &Filter, limit: usize) -> Vec<Record> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let Page { records, next } = store.page(filter, before, limit).await.expect("a page");
        assert!(records.len() <= limit);
        assert!(next.is_none() || !records.is_empty(), "a page with a next one is not empty");
        found.extend(records);
        before = next;
        if before.is_none() {
            return found;
        }
    }
}

fn ids(records: &[Record]) -> Vec<RecordId> {
    records.iter().map(|record| record.id).collect()
}

/// Everything that a store promises, on an empty one.
async fn keeps_its_contract(store: Arc<dyn Records>) {
    let store = store.as_ref();
    let Migration { from, to } = store.migrate().await.expect("migrates");
    assert!(from <= to && to > 0);
    assert_eq!(store.migrate().await, Ok(Migration { from: to, to }), "again changes nothing");
    assert_eq!(store.check().await, Ok(()));
    the_list_is_whole_in_order_and_in_parts(store).await;
    filters_meet_exactly(store).await;
    again_is_once(store).await;
    corrections_stay(store).await;
    what_was_deleted_stays_away(store).await;
    many_at_once_are_all_there(store).await;
    old_days_go(store).await;
}

async fn the_list_is_whole_in_order_and_in_parts(store: &dyn Records) {
    assert_eq!(store.page(&Filter::default(), None, 10).await, Ok(Page { records: vec![], next: None }));
    let made = moments(50);
    let records: Vec<Record> = made.iter().map(|id| record(*id, "mnist", "seven")).collect();
    // Not in the order of their moments.
    let (late, early) = records.split_at(23);
    store.put(early).await.expect("stored");
    store.put(late).await.expect("stored");
    let newest_first: Vec<RecordId> = made.iter().rev().copied().collect();
    for limit in [1, 7, 25, 50, 200] {
        assert_eq!(ids(&all(store, &Filter::default(), limit).await), newest_first, "by {limit}");
    }
    assert_eq!(store.get(made[0]).await, Ok(Some(records[0].clone())), "every field comes back");
    assert_eq!(store.get(RecordId::generate()).await, Ok(None));
    let oldest = store.oldest(3).await.expect("asked");
    assert_eq!(oldest.iter().map(|(id, _)| *id).collect::<Vec<_>>(), made[..3]);
    assert!(oldest.iter().all(|(_, weight)| *weight >= 2_000), "{oldest:?}");
    let usage = store.usage().await.expect("counted");
    assert_eq!(usage.records, 50);
    assert!(usage.bytes >= 50 * 2_000, "{usage:?}");
    store.delete(&made).await.expect("deleted");
    assert_eq!(store.usage().await.map(|usage| usage.records), Ok(0));
    assert_eq!(all(store, &Filter::default(), 10).await, []);
}

async fn filters_meet_exactly(store: &dyn Records) {
    let day = Day::today().back(3);
    let first = day.first_id().millis();
    let at = |millis: u64| RecordId::first_of(millis);
    let rows = [
        record(at(first - 1), "mnist", "seven"),
        record(at(first), "mnist", "seven"),
        record(at(first + 1_000), "mnist", "it's 100 % \u{1f600}"),
        record(at(first + 2_000), "fashion-mnist", "seven"),
        record(at(first + 86_399_999), "fashion-mnist", "Ankle boot"),
        record(at(first + 86_400_000), "mnist", "seven"),
    ];
    store.put(&rows).await.expect("stored");
    let places = |filter: Filter| {
        let rows = &rows;
        async move {
            let found = all(store, &filter, 2).await;
            let place = |record: &Record| rows.iter().position(|row| row == record).expect("one of them, unchanged");
            found.iter().map(place).collect::<Vec<_>>()
        }
    };
    let model = |name: &str| Filter { model: Some(name.to_owned()), ..Filter::default() };
    let label = |name: &str| Filter { label: Some(name.to_owned()), ..Filter::default() };
    assert_eq!(places(Filter::default()).await, [5, 4, 3, 2, 1, 0]);
    assert_eq!(places(model("mnist")).await, [5, 2, 1, 0]);
    assert_eq!(places(label("seven")).await, [5, 3, 1, 0]);
    assert_eq!(places(label("it's 100 % \u{1f600}")).await, [2]);
    assert_eq!(places(label("seve")).await, Vec::<usize>::new(), "no part of a label");
    assert_eq!(places(label("o'ther \"label\"")).await, Vec::<usize>::new(), "only the best label counts");
    assert_eq!(places(Filter { label: Some("seven".into()), ..model("mnist") }).await, [5, 1, 0]);
    let on = |filter: Filter| Filter { day: Some(day), ..filter };
    assert_eq!(places(on(Filter::default())).await, [4, 3, 2, 1]);
    assert_eq!(places(on(model("fashion-mnist"))).await, [4, 3]);
    assert_eq!(places(on(label("seven"))).await, [3, 1]);
    assert_eq!(places(on(Filter { label: Some("seven".into()), ..model("mnist") })).await, [1]);
    assert_eq!(places(Filter { day: Some(day.back(2)), ..Filter::default() }).await, Vec::<usize>::new());
    store.delete(&ids(&rows)).await.expect("deleted");
}

async fn again_is_once(store: &dyn Records) {
    let made = moments(5);
    let records: Vec<Record> = made.iter().map(|id| record(*id, "mnist", "seven")).collect();
    for _ in 0..3 {
        store.put(&records[..3]).await.expect("stored");
        store.put(&records).await.expect("stored");
    }
    assert_eq!(all(store, &Filter::default(), 2).await.len(), 5);
    assert_eq!(store.usage().await.map(|usage| usage.records), Ok(5));
    store.delete(&made).await.expect("deleted");
}

async fn corrections_stay(store: &dyn Records) {
    let id = moments(1)[0];
    let row = record(id, "mnist", "seven");
    store.put(std::slice::from_ref(&row)).await.expect("stored");
    let correction = Correction { label: "one".to_owned(), by: "me".to_owned(), at_ms: 1_700_000_000_000 };
    assert_eq!(store.correct(id, Some(correction.clone())).await, Ok(true));
    // What waited in a spool comes once more, and knows nothing of the correction.
    store.put(std::slice::from_ref(&row)).await.expect("stored");
    let corrected = Record { correction: Some(correction), ..row.clone() };
    assert_eq!(store.get(id).await, Ok(Some(corrected.clone())));
    let label = Filter { label: Some("seven".to_owned()), ..Filter::default() };
    assert_eq!(all(store, &label, 5).await, [corrected], "found by what was answered");
    assert_eq!(store.correct(id, None).await, Ok(true));
    assert_eq!(store.get(id).await, Ok(Some(row)));
    store.delete(&[id]).await.expect("deleted");
    let late = Correction { label: "two".to_owned(), by: "me".to_owned(), at_ms: 1 };
    assert_eq!(store.correct(id, Some(late)).await, Ok(false), "nothing is made by a correction");
    assert_eq!(store.get(id).await, Ok(None));
    assert_eq!(all(store, &Filter::default(), 5).await, []);
}

async fn what_was_deleted_stays_away(store: &dyn Records) {
    let made = moments(3);
    let records: Vec<Record> = made.iter().map(|id| record(*id, "mnist", "seven")).collect();
    store.put(&records).await.expect("stored");
    store.delete(&made[..1]).await.expect("deleted");
    store.delete(&made[..1]).await.expect("twice is no failure");
    assert_eq!(store.deleted(&made).await, Ok(made[..1].to_vec()));
    store.put(&records).await.expect("stored");
    let newest_first: Vec<RecordId> = made[1..].iter().rev().copied().collect();
    assert_eq!(ids(&all(store, &Filter::default(), 5).await), newest_first);
    let model = Filter { model: Some("mnist".to_owned()), ..Filter::default() };
    assert_eq!(ids(&all(store, &model, 5).await), newest_first);
    assert_eq!(store.get(made[0]).await, Ok(None));
    assert_eq!(store.usage().await.map(|usage| usage.records), Ok(2));
    store.delete(&made).await.expect("deleted");
}

async fn many_at_once_are_all_there(store: &dyn Records) {
    let groups: Vec<Vec<Record>> =
        (0..8).map(|_| (0..64).map(|_| record(RecordId::generate(), "mnist", "seven")).collect()).collect();
    // Every group twice, as two gateways would that have the same spool by turns.
    let puts = groups.iter().chain(&groups).map(|group| store.put(group));
    for done in futures_util::future::join_all(puts).await {
        done.expect("stored");
    }
    let expected: BTreeSet<RecordId> = groups.iter().flatten().map(|record| record.id).collect();
    let found = all(store, &Filter::default(), 200).await;
    assert_eq!(found.len(), expected.len());
    assert_eq!(ids(&found).into_iter().collect::<BTreeSet<_>>(), expected);
    let all: Vec<RecordId> = expected.into_iter().collect();
    store.delete(&all).await.expect("deleted");
}

/// A store that ages by itself is told so when the record is put; here it is only seen that nothing younger goes.
async fn old_days_go(store: &dyn Records) {
    let today = Day::today();
    let rows: Vec<Record> = (0..4).map(|days| record(today.back(days).first_id(), "mnist", "seven")).collect();
    store.put(&rows).await.expect("stored");
    while store.expire(today.back(1)).await.expect("expired") {}
    let left = all(store, &Filter::default(), 10).await;
    assert!(left.starts_with(&rows[..2]), "{left:?}");
    store.delete(&ids(&rows)).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let store = Sqlite::open(&folder.path().join("history.sqlite3")).expect("opens");
    keeps_its_contract(Arc::new(store)).await;
}

#[tokio::test]
async fn sqlite_forgets_days_before_a_day_and_counts_them_off() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let store = Sqlite::open(&folder.path().join("history.sqlite3")).expect("opens");
    let today = Day::today();
    let rows: Vec<Record> = (0..4).map(|days| record(today.back(days).first_id(), "mnist", "seven")).collect();
    store.put(&rows).await.expect("stored");
    assert_eq!(store.expire(today.back(1)).await, Ok(false), "nothing is left to do");
    assert_eq!(all(&store, &Filter::default(), 10).await, rows[..2]);
    assert_eq!(store.usage().await.map(|usage| usage.records), Ok(2));
}

#[test]
fn a_file_of_sqlite_can_be_made_by_several_at_the_same_moment() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.sqlite3");
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    Sqlite::open(&file).expect("opens");
                });
            }
        });
    }
}

#[tokio::test]
async fn two_processes_share_a_file_of_sqlite() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("history.sqlite3");
    let stores = [Sqlite::open(&file).expect("opens"), Sqlite::open(&file).expect("opens")];
    let groups: Vec<Vec<Record>> =
        (0..20).map(|_| (0..5).map(|_| record(RecordId::generate(), "mnist", "seven")).collect()).collect();
    let puts = groups.iter().enumerate().map(|(place, group)| stores[place % 2].put(group));
    for done in futures_util::future::join_all(puts).await {
        done.expect("stored");
    }
    assert_eq!(stores[1].usage().await.map(|usage| usage.records), Ok(100));
    assert_eq!(all(&stores[0], &Filter::default(), 30).await.len(), 100);
}

/// A keyspace of the test's own in the Cassandra that `scripts/test cassandra` has started.
fn cassandra(test: &str, keep_days: u32) -> Cassandra {
    let node = std::env::var("OUTBOARD_TEST_CASSANDRA").expect("scripts/test cassandra names the node");
    let keyspace = format!("{test}_{:x}", RecordId::generate().millis());
    let address = Address { nodes: vec![node], keyspace, replication: 1, user: String::new(), password: String::new() };
    Cassandra::new(&address, keep_days, Duration::from_secs(20))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test cassandra starts what it needs"]
async fn cassandra_keeps_the_contract() {
    keeps_its_contract(Arc::new(cassandra("contract", 0))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test cassandra starts what it needs"]
async fn cassandra_keeps_the_contract_where_records_have_an_end() {
    keeps_its_contract(Arc::new(cassandra("aging", 30))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test cassandra starts what it needs"]
async fn what_is_too_old_for_cassandra_does_not_come() {
    let store = cassandra("old", 7);
    store.migrate().await.expect("migrates");
    let rows = [6, 7, 8].map(|days| record(Day::today().back(days).first_id(), "mnist", "seven"));
    store.put(&rows).await.expect("stored");
    assert_eq!(all(&store, &Filter::default(), 5).await, rows[..2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test cassandra starts what it needs"]
async fn without_tables_cassandra_says_what_to_do() {
    let store = cassandra("bare", 0);
    let error = store.check().await.expect_err("there is nothing");
    assert!(matches!(error, StoreError::Version { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("outboard history migrate"), "{error}");
    let error = store.put(&[record(RecordId::generate(), "mnist", "seven")]).await.expect_err("there is nothing");
    assert!(matches!(error, StoreError::Version { found: 0, .. }), "{error}");
    store.migrate().await.expect("migrates");
    assert_eq!(store.check().await, Ok(()));
}

#[tokio::test]
async fn a_cassandra_that_is_not_there_is_away_and_nothing_worse() {
    let address = Address {
        nodes: vec![NOBODY.to_owned()],
        keyspace: "none".to_owned(),
        replication: 1,
        user: String::new(),
        password: String::new(),
    };
    let store = Cassandra::new(&address, 0, Duration::from_secs(20));
    assert!(matches!(store.check().await, Err(StoreError::Away { .. })));
    assert!(matches!(store.put(&[record(RecordId::generate(), "m", "l")]).await, Err(StoreError::Away { .. })));
}
