use tempfile::TempDir;

use super::*;
use crate::testing::record;

async fn put(store: &Sqlite) -> Result<RecordId, StoreError> {
    let record = record("m");
    let id = record.id;
    store.put(&[record]).await.map(|()| id)
}

async fn listed(store: &Sqlite) -> Vec<RecordId> {
    let page = store.page(&Filter::default(), None, 100).await.expect("a page");
    page.records.iter().rev().map(|record| record.id).collect()
}

#[tokio::test]
async fn a_file_that_is_taken_away_is_missed_and_one_in_its_place_is_used() {
    let folder = TempDir::new().expect("a folder");
    let (file, away) = (folder.path().join("history.sqlite3"), folder.path().join("away.sqlite3"));
    let store = Sqlite::open(&file).expect("opens");
    let first = put(&store).await.expect("stored");
    assert_eq!(listed(&store).await, [first]);
    let aside = |from: &Path, to: &Path| {
        for ending in ["", "-wal", "-shm"] {
            let name = |path: &Path| PathBuf::from(format!("{}{ending}", path.display()));
            if name(from).exists() {
                fs::rename(name(from), name(to)).expect("moved");
            }
        }
    };
    aside(&file, &away);
    // Nothing is promised that would be written to a file without a name, and none is made that would be in the way.
    assert!(matches!(put(&store).await, Err(StoreError::Away { .. })));
    assert!(matches!(store.check().await, Err(StoreError::Away { .. })));
    assert!(matches!(store.page(&Filter::default(), None, 1).await, Err(StoreError::Away { .. })));
    assert!(!file.exists());
    let other = Sqlite::open(&file).expect("opens");
    let second = put(&other).await.expect("stored");
    let third = put(&store).await.expect("stored");
    for store in [&store, &other] {
        assert_eq!(listed(store).await, [second, third]);
    }
}

#[tokio::test]
async fn what_a_newer_program_has_changed_is_not_written_to() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("history.sqlite3");
    let store = Sqlite::open(&file).expect("opens");
    put(&store).await.expect("stored");
    Connection::open(&file).and_then(|file| file.pragma_update(None, "user_version", 99)).expect("changed");
    assert!(matches!(put(&store).await, Err(StoreError::Version { found: 99, .. })));
    assert_eq!(listed(&store).await.len(), 1, "it can be looked at");
}

#[tokio::test]
async fn a_file_that_is_opened_as_it_is_is_neither_made_nor_changed() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("history.sqlite3");
    assert!(matches!(Sqlite::open_existing(&file), Err(StoreError::Away { .. })));
    assert!(!file.exists());
    Connection::open(&file).and_then(|file| file.execute_batch("CREATE TABLE other (x)")).expect("made");
    assert!(matches!(Sqlite::open_existing(&file), Err(StoreError::Version { found: 0, .. })));
    Sqlite::open(&file).expect("opens");
    Sqlite::open_existing(&file).expect("opens");
}

#[tokio::test]
async fn what_was_deleted_is_remembered_for_its_time_also_where_nothing_ages() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("history.sqlite3");
    let store = Sqlite::open(&file).expect("opens");
    let (old, new) = (RecordId::generate(), RecordId::generate());
    store.delete(&[old]).await.expect("deleted");
    let long_ago = millis_now() - REMEMBERED.as_millis() as u64 - 1;
    let inside = Connection::open(&file).expect("opens");
    inside.execute("UPDATE deleted SET at_ms = ?1", [long_ago as i64]).expect("changed");
    store.delete(&[new]).await.expect("deleted");
    assert_eq!(store.deleted(&[old, new]).await, Ok(vec![new]));
}

/// What is wrong with the file and not with the record does not set records aside.
#[tokio::test]
async fn a_file_that_must_not_be_written_is_away_for_now() {
    let folder = TempDir::new().expect("a folder");
    let store = Sqlite::open(&folder.path().join("history.sqlite3")).expect("opens");
    let query_only =
        |it: &mut Option<Opened>| it.as_ref().map(|it| it.connection.pragma_update(None, "query_only", true));
    assert_eq!(query_only(&mut store.0.writer.lock()), Some(Ok(())));
    assert!(matches!(put(&store).await, Err(StoreError::Away { .. })));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_at_the_start_is_used_once_it_can() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("history.sqlite3");
    fs::write(&file, "no database at all, whatever it is called".repeat(50)).expect("written");
    let store = Sqlite::open(&file).expect("a gateway starts without it");
    assert!(matches!(put(&store).await, Err(StoreError::Away { .. })));
    assert!(matches!(store.check().await, Err(StoreError::Away { .. })));
    assert!(matches!(store.page(&Filter::default(), None, 1).await, Err(StoreError::Away { .. })));
    fs::write(&file, "").expect("emptied");
    // Before a record is put once more it is asked whether it was deleted.
    assert_eq!(store.deleted(&[RecordId::generate()]).await, Ok(vec![]));
    assert_eq!(store.check().await, Ok(()));
    let id = put(&store).await.expect("stored");
    assert_eq!(listed(&store).await, [id]);
    // Where there is nothing yet and nothing can be made, somebody has named the wrong place.
    let nowhere = folder.path().join("none/history.sqlite3");
    assert!(matches!(Sqlite::open(&nowhere), Err(StoreError::Away { .. })));
}
