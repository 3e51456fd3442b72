//! A whole installation: server, gateway and nginx on ports of their own.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::Http;
use crate::ports::free_ports;
use crate::process::{Program, wait_until};
use crate::tools::{model_cache, repository, target_folder};

/// Loading and warming the models takes a second or two; a busy machine takes several times that.
const START: Duration = Duration::from_secs(90);

/// What to start, and with which settings.
#[derive(Clone)]
pub struct Parts {
    /// Folders with models; the bundled ones by default.
    pub models: Vec<PathBuf>,
    /// Only these models.
    pub only: Vec<String>,
    /// Further `--set key=value` settings of the server.
    pub server: Vec<String>,
    /// Further `--set key=value` settings of the gateway.
    pub gateway: Vec<String>,
    /// Start a gateway and nginx as well.
    pub web: bool,
    /// Variables of the command line, as for TLS.
    pub outboard: Vec<(&'static str, String)>,
    /// Errors in the programs' logs fail the test, but for those whose targets begin so.
    pub errors: &'static [&'static str],
    /// A Thrift server that the test has started itself, instead of `outboard-server`.
    pub instead: Option<SocketAddr>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            models: vec![repository().join("models"), model_cache()],
            only: vec!["fashion-mnist".into(), "mnist".into()],
            server: Vec::new(),
            gateway: Vec::new(),
            web: true,
            outboard: Vec::new(),
            errors: &[],
            instead: None,
        }
    }
}

/// The running programs.
pub struct Stand {
    parts: Parts,
    /// Ports: server, server's admin, gateway, gateway's admin, nginx.
    ports: [u16; 5],
    /// `outboard-server`.
    pub server: Option<Program>,
    /// `outboard-gateway`.
    pub gateway: Option<Program>,
    /// The real nginx.
    pub nginx: Option<Program>,
    /// Last, so that it is still there when a program tells the end of its log.
    folder: TempDir,
}

impl Stand {
    /// Starts everything that `parts` names and waits until it is ready.
    ///
    /// # Panics
    /// When something does not become ready.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let folder = TempDir::with_prefix("outboard-e2e-").expect("a temporary folder can be made");
        let ports = free_ports();
        let mut stand = Self { parts, ports, server: None, gateway: None, nginx: None, folder };
        if stand.parts.instead.is_none() {
            stand.launch_server();
            // A gateway whose workers start before it listens pause before they try again, each for itself: one may be ready
            // while another still says that nothing can be reached.
            stand.wait_serving();
        }
        if stand.parts.web {
            stand.launch_gateway();
            stand.launch_nginx();
        }
        stand.wait_ready();
        stand
    }

    /// `127.0.0.1:port` of the server's Thrift listener.
    #[must_use]
    pub fn thrift(&self) -> String {
        self.parts.instead.map_or_else(|| format!("127.0.0.1:{}", self.ports[0]), |address| address.to_string())
    }

    /// The server's admin listener.
    #[must_use]
    pub fn server_admin(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.ports[1]))
    }

    /// The gateway itself, past nginx.
    #[must_use]
    pub fn gateway_http(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.ports[2]))
    }

    /// The gateway's admin listener.
    #[must_use]
    pub fn gateway_admin(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.ports[3]))
    }

    /// nginx, as people reach it.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::new(&self.web_address())
    }

    /// `127.0.0.1:port` of nginx.
    #[must_use]
    pub fn web_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[4])
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Starts the server (again).
    pub fn launch_server(&mut self) {
        let mut command = Command::new(target_folder().join("outboard-server"));
        command
            .args(["--listen", &self.thrift(), "--admin", &format!("127.0.0.1:{}", self.ports[1])])
            .current_dir(repository());
        let models: Vec<String> = self.parts.models.iter().map(|path| path.display().to_string()).collect();
        command.args(["--models", &models.join(",")]);
        if !self.parts.only.is_empty() {
            command.args(["--only", &self.parts.only.join(",")]);
        }
        for setting in &self.parts.server {
            command.args(["--set", setting]);
        }
        self.server = Some(Program::start("server", command, self.folder.path()).may_log_errors(self.parts.errors));
    }

    /// Starts the gateway (again).
    pub fn launch_gateway(&mut self) {
        let mut command = Command::new(target_folder().join("outboard-gateway"));
        command
            .args(["--listen", &format!("127.0.0.1:{}", self.ports[2])])
            .args(["--admin", &format!("127.0.0.1:{}", self.ports[3])])
            .args(["--servers", &self.thrift()])
            .args(["--set", &format!("history.folder={}", self.folder.path().join("history").display())])
            .current_dir(repository());
        for setting in &self.parts.gateway {
            command.args(["--set", setting]);
        }
        self.gateway = Some(Program::start("gateway", command, self.folder.path()).may_log_errors(self.parts.errors));
    }

    /// Starts the gateway anew with these settings instead.
    pub fn launch_gateway_with(&mut self, settings: &[String]) {
        self.parts.gateway = settings.to_vec();
        self.launch_gateway();
    }

    /// Starts nginx (again).
    pub fn launch_nginx(&mut self) {
        let prefix = self.folder.path().join("nginx");
        let configured = Command::new(repository().join("nginx/configure"))
            .arg("--prefix")
            .arg(&prefix)
            .args(["--listen", &self.web_address()])
            .args(["--gateway", &format!("127.0.0.1:{}", self.ports[2])])
            .output()
            .expect("nginx/configure runs");
        assert!(configured.status.success(), "{configured:?}");
        let nginx = if std::path::Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&prefix).args(["-c", "conf/nginx.conf", "-e", "logs/error.log", "-g", "daemon off;"]);
        // Its master takes the workers with it only when it is asked.
        self.nginx = Some(Program::start("nginx", command, self.folder.path()).with_farewell(Signal::TERM));
    }

    /// Waits until the server, and the web side when there is one, say that they are ready.
    ///
    /// # Panics
    /// When a program ends or is not ready in time.
    pub fn wait_ready(&mut self) {
        self.wait_serving();
        if self.parts.web {
            let http = self.http();
            wait_until("the web side to be ready", START, || {
                self.assert_running();
                http.try_get("/health/ready").is_ok_and(|answer| answer.status == 200).then_some(())
            });
        }
    }

    fn wait_serving(&mut self) {
        wait_until("the server to serve", START, || {
            self.assert_running();
            self.probe(&[&self.thrift()]).status.success().then_some(())
        });
    }

    fn assert_running(&mut self) {
        for program in [&mut self.server, &mut self.gateway, &mut self.nginx].into_iter().flatten() {
            let ended = program.ended();
            assert!(ended.is_none(), "{ended:?}: {}", program.log());
        }
    }

    /// Runs `outboard` with these arguments.
    #[must_use]
    pub fn outboard(&self, arguments: &[&str]) -> Output {
        let program = target_folder().join("outboard");
        let variables = self.parts.outboard.iter().map(|(name, value)| (*name, value.as_str()));
        let output = Command::new(&program).args(arguments).envs(variables).output();
        output.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
    }

    /// Runs `outboard probe` with these arguments.
    #[must_use]
    pub fn probe(&self, arguments: &[&str]) -> Output {
        self.outboard(&[&["probe"], arguments].concat())
    }

    /// A new connection to the Thrift listener.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn connect_thrift(&self) -> TcpStream {
        let stream = TcpStream::connect(self.thrift()).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket takes a timeout");
        stream
    }

    /// The value of a counter or gauge on the server's metrics page; all series whose line begins with `prefix`, added.
    #[must_use]
    pub fn server_metric(&self, prefix: &str) -> f64 {
        let page = self.server_admin().get("/metrics").text();
        page.lines()
            .filter(|line| line.starts_with(prefix))
            .filter_map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()))
            .sum()
    }
}
