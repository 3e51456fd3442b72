//! One running program.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Waits until `look` gives something, at most `limit`.
///
/// # Panics
/// When the limit passes; the message says what was waited for.
pub fn wait_until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        // The pause between two looks, not the wait itself.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A started program whose output goes to a file; killed when dropped.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    farewell: Option<Signal>,
    errors: &'static [&'static str],
}

impl Program {
    /// Starts `command` with its output in `folder/name.log`.
    ///
    /// # Panics
    /// When the program is not there.
    #[must_use]
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the log can be made");
        let errors = file.try_clone().expect("a file handle can be doubled");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} ({command:?}) does not start: {error}"));
        Self { name: name.to_owned(), child, log, farewell: None, errors: &[] }
    }

    /// When dropped it first gets this signal and ten seconds: for a program that has children, which only it can end.
    #[must_use]
    pub fn with_farewell(mut self, signal: Signal) -> Self {
        self.farewell = Some(signal);
        self
    }

    /// Errors in its log whose target begins with one of these do not fail the test. All others do.
    #[must_use]
    pub fn may_log_errors(mut self, targets: &'static [&'static str]) -> Self {
        self.errors = targets;
        self
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).expect("a child can be signalled");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_until(&what, limit, || self.ended())
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a running process has VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("VmRSS is a number of KiB") * 1024
    }

    fn is_unexpected(&self, line: &str) -> bool {
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { return false };
        let target = event["target"].as_str().unwrap_or_default();
        event["level"] == "ERROR" && !self.errors.iter().any(|known| target.starts_with(known))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(signal) = self.farewell
            && self.ended().is_none()
        {
            self.signal(signal);
            // Not `wait`: its panic here could be a second one.
            let begin = Instant::now();
            while self.ended().is_none() && begin.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // What it has logged last may still be on its way to the file.
        std::thread::sleep(Duration::from_millis(30));
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            eprintln!("--- end of the log of {}\n{tail}", self.name);
        } else {
            let log = self.log();
            let error = log.lines().find(|line| self.is_unexpected(line));
            assert_eq!(error, None, "{} has logged an error", self.name);
        }
    }
}
