//! `outboard history`: who only looks makes nothing.

use tempfile::TempDir;

use crate::outboard;

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
