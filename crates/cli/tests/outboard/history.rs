//! `outboard history`: who only looks makes nothing, and an export that cannot begin takes nothing.

use tempfile::TempDir;

use crate::{outboard, refused};

#[test]
fn looking_where_there_is_no_history_says_so_and_makes_none() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().join("histroy");
    let setting = format!("folder={}", place.display());
    let history = |command: &str| outboard(&["history", command, "--set", &setting]);
    for command in ["list", "export"] {
        let ended = history(command).with(1);
        assert!(ended.err.contains("there is no history in") && ended.err.contains("histroy"), "{}", ended.err);
        assert!(!place.exists(), "{command}");
    }
    assert!(history("migrate").with(0).out.contains("they were of 0"));
    assert!(history("list").with(0).out.starts_with("TIME"));
    assert_eq!(history("export").with(0).out, "");
}

#[test]
fn an_export_from_a_store_that_is_away_leaves_the_last_one() {
    let folder = TempDir::new().unwrap();
    let (file, pictures) = (folder.path().join("history.jsonl"), folder.path().join("pictures"));
    std::fs::write(&file, "the last one").unwrap();
    let nodes = format!("cassandra.nodes={}", refused());
    let place = format!("folder={}", folder.path().display());
    let settings = ["--set", "store=cassandra", "--set", &nodes, "--set", &place];
    let to = ["--output", file.to_str().unwrap(), "--pictures", pictures.to_str().unwrap()];
    let ended = outboard(&[&["history", "export"], &to[..], &settings[..]].concat()).with(3);
    assert!(ended.err.contains("cannot be reached"), "{}", ended.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "the last one");
    assert!(!pictures.exists());
}
