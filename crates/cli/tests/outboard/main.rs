//! The real `outboard` against servers that answer what a test wants: exit statuses, and what is printed.

#![allow(clippy::unwrap_used)]

mod call;
mod chat;
mod check;
mod fake;
mod history;
mod keys;
mod own_key;
mod probe;
mod pull;

use std::process::{Command, Output, Stdio};

/// How `outboard` ended.
struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    /// Fails with everything that was printed.
    #[track_caller]
    fn with(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

fn outboard<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ended {
    // A proxy in the environment must not come between a probe and what it asks about.
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_outboard"))
        .env("http_proxy", "http://127.0.0.1:1")
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .args(arguments)
        .output()
        .expect("outboard starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { status: status.code(), out: text(stdout), err: text(stderr) }
}

/// An address where nobody listens: the port is of a service that nobody has any more.
fn refused() -> String {
    "127.0.0.1:1".to_owned()
}

/// Connects and never says a word, for as long as it is kept.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn wrong_usage_is_2_and_says_how() {
    for arguments in [
        &["probe"][..],
        &["probe", "127.0.0.1:1", "--timeout", "soon"],
        &["probe", "127.0.0.1:1", "--live", "--deep"],
        &["probe", "nonsense"],
        &["probe", "http://127.0.0.1:1", "--model", "mnist"],
        &["probe", "http://"],
        &["call", "classify", "--model", "mnist"],
        &["call", "infer", "--model", "mnist", "--input", "x=f99:[1]:[1]"],
        &["call", "classify", "/no/such/picture", "--model", "mnist"],
        &["unknown"],
    ] {
        let ended = outboard(arguments).with(2);
        assert!(!ended.err.trim().is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_help_text_has_an_example_or_says_the_exit_statuses() {
    for command in [
        &["--help"][..],
        &["probe", "--help"],
        &["call", "--help"],
        &["call", "infer", "--help"],
        &["call", "classify", "--help"],
        &["models", "check", "--help"],
        &["keys", "--help"],
    ] {
        let help = outboard(command).with(0).out;
        assert!(
            help.contains("outboard ")
                && (help.contains("Example") || help.contains("--input") || help.contains("Exit"))
        );
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = outboard(&["completions", shell]).with(0).out;
        assert!(script.contains("probe") && script.contains("classify"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut outboard = Command::new(env!("CARGO_BIN_EXE_outboard"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("outboard starts");
    // Either it has not written yet and finds nobody there, or it is at the end already: never a panic.
    drop(outboard.stdout.take());
    let ended = outboard.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn the_status_survives_when_nobody_reads_the_errors() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let arguments = ["probe", &refused()];
    let status = Command::new(env!("CARGO_BIN_EXE_outboard")).args(arguments).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(3));
}
