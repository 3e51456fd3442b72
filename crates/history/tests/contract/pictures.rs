use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use history::folder::Folder;
use history::s3::S3;
use history::settings::S3 as Address;
use history::store::Pictures;
use history::{Day, Kind, RecordId, StoreError};

use crate::NOBODY;

/// Everything that a store of pictures promises.
async fn keeps_its_contract(store: &dyn Pictures) {
    assert_eq!(store.check().await, Ok(()));
    let id = RecordId::generate();
    assert_eq!(store.get(id, Kind::Picture).await, Ok(None));
    let (picture, preview) = (Bytes::from(vec![7; 300_000]), Bytes::from_static(b"small"));
    for _ in 0..2 {
        store.put(id, Kind::Picture, picture.clone()).await.expect("stored");
        store.put(id, Kind::Preview, preview.clone()).await.expect("stored");
    }
    assert_eq!(store.get(id, Kind::Picture).await, Ok(Some(picture.clone())));
    assert_eq!(store.get(id, Kind::Preview).await, Ok(Some(preview.clone())));
    store.delete(id).await.expect("deleted");
    store.delete(id).await.expect("twice is no failure");
    assert_eq!(store.get(id, Kind::Picture).await, Ok(None));
    assert_eq!(store.get(id, Kind::Preview).await, Ok(None));

    let today = Day::today();
    let days: Vec<RecordId> = (0..4).map(|days| today.back(days).first_id()).collect();
    for id in &days {
        store.put(*id, Kind::Picture, preview.clone()).await.expect("stored");
        store.put(*id, Kind::Preview, preview.clone()).await.expect("stored");
    }
    store.expire(today.back(1)).await.expect("expired");
    for (place, id) in days.iter().enumerate() {
        let there = store.get(*id, Kind::Picture).await.expect("asked").is_some();
        assert_eq!(there, place <= 1, "{place} days old");
    }
    for id in days {
        store.delete(id).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let store = Folder::open(&folder.path().join("pictures")).expect("opens");
    keeps_its_contract(&store).await;
}

#[tokio::test]
async fn what_is_not_ours_in_the_folder_stays() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let store = Folder::open(folder.path()).expect("opens");
    let other = folder.path().join("2000-01-01-backup");
    std::fs::create_dir(&other).expect("made");
    store.expire(Day::today()).await.expect("expired");
    assert!(other.is_dir());
}

#[tokio::test]
async fn what_a_killed_process_was_writing_does_not_stay() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let store = Folder::open(folder.path()).expect("opens");
    let id = RecordId::generate();
    store.put(id, Kind::Picture, Bytes::from_static(b"whole")).await.expect("stored");
    let drafts = folder.path().join("drafts");
    assert_eq!(std::fs::read_dir(&drafts).expect("there").count(), 0, "it has its name");
    let (old, new) = (drafts.join("old"), drafts.join("new"));
    for file in [&old, &new] {
        std::fs::write(file, "half").expect("written");
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    std::fs::File::options().write(true).open(&old).and_then(|file| file.set_modified(long_ago)).expect("set");
    let store = Folder::open(folder.path()).expect("opens");
    assert!(!old.exists() && new.exists(), "another gateway may be writing");
    assert_eq!(store.get(id, Kind::Picture).await, Ok(Some(Bytes::from_static(b"whole"))));
}

/// How to reach the bucket of the tests, with these certificates besides the system's.
pub(crate) fn address(endpoint: String, ca: &Path) -> Address {
    Address {
        endpoint,
        ca: ca.to_owned(),
        bucket: "outboard".to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "outboard".to_owned(),
        secret_key: "outboard-secret".to_owned(),
    }
}

fn s3(endpoint: String) -> S3 {
    S3::open(&address(endpoint, Path::new("")), Duration::from_secs(20)).expect("good settings")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test s3 starts what it needs"]
async fn a_bucket_keeps_the_contract() {
    let endpoint = std::env::var("OUTBOARD_TEST_S3").expect("scripts/test s3 names the endpoint");
    keeps_its_contract(&s3(endpoint)).await;
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_away_and_nothing_worse() {
    let store = s3(format!("http://{NOBODY}"));
    assert!(matches!(store.check().await, Err(StoreError::Away { .. })));
    let id = RecordId::generate();
    assert!(matches!(store.put(id, Kind::Picture, Bytes::from_static(b"x")).await, Err(StoreError::Away { .. })));
    assert!(matches!(store.get(id, Kind::Picture).await, Err(StoreError::Away { .. })));
}
