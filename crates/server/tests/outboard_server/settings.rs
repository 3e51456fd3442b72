//! What makes the program refuse to start, and what it says then.

use std::process::Output;

use tempfile::TempDir;

use crate::program::command;

/// How it ended: with status 2 and this on standard error.
#[track_caller]
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let Output { status, stderr, .. } =
        command().args(free).args(arguments).envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{said}");
    said.lines().last().unwrap().to_owned()
}

#[test]
fn wrong_settings_end_it_with_2_and_name_key_value_place_and_what_is_allowed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, "[limits]\nframes = 3\n").unwrap();
    let said = refused(&["--config", file.to_str().unwrap()], &[]);
    assert!(said.contains("`limits.frames`") && said.contains("wrong.toml") && said.contains("frame_time"), "{said}");
    let said = refused(&[], &[("OUTBOARD_SERVER__LIMITS__IDLE", "long")]);
    assert!(said.contains("`limits.idle`") && said.contains("OUTBOARD_SERVER__LIMITS__IDLE=long"), "{said}");
    let said = refused(&["--set", "limits.top_k=0"], &[]);
    assert!(said.contains("`limits.top_k` is 0, allowed is 1 to"), "{said}");
    let said = refused(&["--device", "gpu", "--print-config"], &[]);
    assert!(said.contains("`device`") && said.contains("gpu"), "{said}");
    let said = refused(&["--only", "no name", "--print-config"], &[]);
    assert!(said.contains("`only`"), "{said}");
}

#[test]
fn an_address_that_others_reach_needs_a_word() {
    let said = refused(&["--set", "listen=0.0.0.0:0"], &[]);
    assert!(said.contains("0.0.0.0:0") && said.contains("auth = \"open\""), "{said}");
}

#[test]
fn a_missing_library_is_one_sentence_that_says_what_to_run() {
    let folder = TempDir::new().unwrap();
    let said = refused(&[], &[("OUTBOARD_CACHE", folder.path().to_str().unwrap())]);
    assert!(said.contains("scripts/onnxruntime cpu"), "{said}");
}

#[test]
fn no_model_says_where_it_looked() {
    let folder = TempDir::new().unwrap();
    let here = folder.path().to_str().unwrap();
    assert!(refused(&["--models", here], &[]).contains(here));
    assert!(refused(&["--models", &format!("{here}/absent")], &[]).contains("absent"));
    assert!(refused(&["--only", "nothere"], &[]).contains("nothere"));
}

#[test]
fn the_environment_and_the_command_line_change_what_is_printed() {
    let mut command = command();
    command.args(["--print-config", "--set", "limits.top_k=9"]);
    let Output { status, stdout, .. } = command.env("OUTBOARD_SERVER__ONLY", "mnist,x").output().unwrap();
    let printed: toml::Table = String::from_utf8(stdout).unwrap().parse().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(printed["limits"]["top_k"].as_integer(), Some(9));
    assert_eq!(printed["only"].as_array().map(Vec::len), Some(2));
}
