//! A running server, and one call at a time over a plain socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use wire::{DecodeLimits, MessageKind, Method, Protocol, Response, ResponseError, TSerializable};

/// Far more than anything here takes; what is waited for ends the wait.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program, without any setting of the test's own environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboard-server"));
    command.current_dir(repository()).stdin(Stdio::null());
    command
}

/// What a call was answered.
pub(crate) type Answer<R> = Result<Result<R, idl::fault::Fault>, ResponseError>;

pub(crate) struct Running {
    folder: TempDir,
    child: Child,
    pub(crate) thrift: String,
    admin: String,
}

impl Running {
    /// Serves mnist.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::serving(TempDir::new().unwrap(), &["--only", "mnist"], settings)
    }

    /// The same; its operator's listener takes connections from everywhere.
    pub(crate) fn start_everywhere(settings: &[&str]) -> Self {
        Self::listening(TempDir::new().unwrap(), "0.0.0.0", &["--only", "mnist"], settings)
    }

    /// Serves a tiny language model, with this `model.toml`, under the name `talk`.
    pub(crate) fn with_chat(model: &str, toml: &str, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let (from, to) = (repository().join("crates/generate/testdata").join(model), folder.path().join("models/talk"));
        std::fs::create_dir_all(to.join("onnx")).unwrap();
        for file in
            ["config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx", "onnx/model.onnx_data"]
        {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
        std::fs::write(to.join("model.toml"), toml).unwrap();
        let models = folder.path().join("models").display().to_string();
        Self::serving(folder, &["--models", &models], settings)
    }

    /// Serves a tiny embedding model under the name `sentences`.
    pub(crate) fn with_texts(settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let from = repository().join("crates/engine/testdata/tiny-bert");
        let to = folder.path().join("models/sentences");
        std::fs::create_dir_all(to.join("1")).unwrap();
        std::fs::copy(from.join("model.onnx"), to.join("1/model.onnx")).unwrap();
        std::fs::copy(from.join("tokenizer.json"), to.join("tokenizer.json")).unwrap();
        std::fs::write(to.join("model.toml"), "task = \"embed\"\n[embed]\nmax_tokens = 40\n").unwrap();
        let models = folder.path().join("models").display().to_string();
        Self::serving(folder, &["--models", &models], settings)
    }

    fn serving(folder: TempDir, arguments: &[&str], settings: &[&str]) -> Self {
        Self::listening(folder, "127.0.0.1", arguments, settings)
    }

    fn listening(folder: TempDir, admin: &str, arguments: &[&str], settings: &[&str]) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = command();
        let admin = format!("{admin}:0");
        command.args(["--listen", "127.0.0.1:0", "--admin", &admin, "--set", "log.format=json"]);
        command.args(arguments).stderr(log);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let child = command.spawn().unwrap();
        let mut running = Self { folder, child, thrift: String::new(), admin: String::new() };
        let address = |it: &Self, name: &str| {
            let log = it.log();
            let listening =
                log.lines().find(|line| line.contains(r#""message":"listening""#) && line.ends_with('}'))?;
            let (_, rest) = listening.split_once(&format!("\"{name}\":\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        running.wait_until("address", |it| address(it, "address").is_some());
        (running.thrift, running.admin) = (address(&running, "address").unwrap(), address(&running, "admin").unwrap());
        running.wait_until("readiness", |it| it.page("/health/ready").is_some_and(|page| page.contains(" 200 ")));
        running
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub(crate) fn wait_until(&mut self, what: &str, mut seen: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !seen(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "no {what}: {ended:?}\n{}", self.log());
            // The pause between two looks, not the wait itself.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A page of the admin listener, head and all; `None` while nobody listens.
    pub(crate) fn page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.admin).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    /// The sum of all series that begin so.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        let page = self.page("/metrics").unwrap();
        let series = page.lines().filter(|line| line.starts_with(start));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.thrift).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn call<Q, R>(&self, method: &Method<Q, R, idl::fault::Fault>, request: &Q) -> Answer<R>
    where
        Q: TSerializable,
        R: TSerializable,
    {
        let mut stream = self.connect();
        stream.write_all(&call(method.name, request)).unwrap();
        answer(&mut stream).result()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end, and gives the status and all that it logged.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log())
    }

    pub(crate) fn stop(self) -> (Option<i32>, String) {
        self.terminate();
        self.ended()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A framed call.
pub(crate) fn call<Q: TSerializable>(name: &str, request: &Q) -> Bytes {
    numbered(name, 7, request)
}

/// The same with a sequence number: calls with equal ones are answered in order.
pub(crate) fn numbered<Q: TSerializable>(name: &str, seqid: i32, request: &Q) -> Bytes {
    wire::encode_call(Protocol::Binary, name, seqid, MessageKind::Call, request).unwrap().to_bytes()
}

/// A framed message that nobody answers.
pub(crate) fn oneway<Q: TSerializable>(name: &str, request: &Q) -> Bytes {
    wire::encode_call(Protocol::Binary, name, 7, MessageKind::Oneway, request).unwrap().to_bytes()
}

pub(crate) fn answer(stream: &mut TcpStream) -> Response {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    Response::parse(frame.into(), &DecodeLimits::default()).unwrap()
}
