//! The gateway's process.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::client::{connect, get, wait_until};
use crate::server::FakeServer;

/// A running gateway on ports that the system chose; killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    folder: TempDir,
    /// `host:port` of pages and APIs.
    pub(crate) address: String,
    /// `host:port` of metrics.
    pub(crate) admin: String,
}

impl Gateway {
    /// Starts one with these `key=value` settings and waits until it listens.
    pub(crate) fn start(servers: &str, settings: &[&str]) -> Self {
        Self::start_with(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--servers", servers], settings)
    }

    /// With these flags, and with these settings besides.
    pub(crate) fn start_with(flags: &[&str], settings: &[&str]) -> Self {
        let mut command = Self::command();
        command.args(flags);
        for setting in ["workers=2", "log.format=json", "history.store=none"].iter().chain(settings) {
            command.args(["--set", setting]);
        }
        let mut this = Self::spawn(command);
        let listening = wait_until("the gateway to listen", || {
            assert!(this.ended().is_none(), "{}", this.log());
            this.events().into_iter().find(|event| event["message"] == "listening")
        });
        let text = |name: &str| listening[name].as_str().expect("an address").to_owned();
        (this.address, this.admin) = (text("address"), text("admin"));
        this
    }

    /// What it says on standard error, when it ends by itself with the status of settings that cannot be used.
    pub(crate) fn refused(arguments: &[&str]) -> String {
        let mut command = Self::command();
        command.args(arguments);
        let mut this = Self::spawn(command);
        let status = this.wait();
        assert_eq!(status.code(), Some(2), "{arguments:?}: {}", this.log());
        this.log()
    }

    fn spawn(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(folder.path().join("log")).expect("the log can be made");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("the gateway starts");
        Self { child, folder, address: String::new(), admin: String::new() }
    }

    /// The program, without any setting.
    pub(crate) fn command() -> Command {
        Command::new(env!("CARGO_BIN_EXE_outboard-gateway"))
    }

    /// The most bytes of memory that the process has had at one time.
    pub(crate) fn most_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    /// A connection that carries one request whose answer is not read yet.
    pub(crate) fn begin(&self, request: &[u8]) -> TcpStream {
        let mut stream = connect(&self.address);
        stream.write_all(request).expect("the gateway reads");
        stream
    }

    /// Something when a metric has this value.
    pub(crate) fn metric(&self, name: &str, value: &str) -> Option<()> {
        let page = get(&self.admin, "/metrics").text();
        page.lines().any(|line| line.split_once(' ') == Some((name, value))).then_some(())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The log's events.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The event of a request, once it is there.
    pub(crate) fn event(&self, request_id: &str) -> serde_json::Value {
        wait_until("the event of a request", || {
            self.events().into_iter().find(|event| event["request_id"] == request_id)
        })
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until("the gateway to end", || self.ended())
    }

    pub(crate) fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server and a gateway before it.
pub(crate) fn both(settings: &[&str]) -> (FakeServer, Gateway) {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), settings);
    (server, gateway)
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway\n{}", self.log());
        } else {
            // A driver's words about a database that is away are its own.
            let ours = |event: &serde_json::Value| !event["target"].as_str().is_some_and(|it| it.starts_with("scylla"));
            let errors: Vec<_> =
                self.events().into_iter().filter(|event| event["level"] == "ERROR" && ours(event)).collect();
            assert!(errors.is_empty(), "the gateway has logged {errors:?}");
        }
    }
}
