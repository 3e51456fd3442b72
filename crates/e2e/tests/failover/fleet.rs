//! Two servers, two gateways, nginx.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use e2e::{Http, Program, free_ports, repository, target_folder, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::load::Load;
use crate::network::Namespace;
use crate::relay::Relay;
use crate::{LONG, MANY};

const START: Duration = Duration::from_secs(90);

/// Threads of each gateway.
pub(crate) const WORKERS: usize = 2;

/// One of the programs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Server(usize),
    Gateway(usize),
}

/// The running programs.
pub(crate) struct Fleet {
    /// The first is behind `relay`, the second in `namespace`.
    pub(crate) servers: Vec<Program>,
    /// Both know both servers.
    pub(crate) gateways: Vec<Program>,
    nginx: Option<Program>,
    /// What lies before the first server.
    pub(crate) relay: Relay,
    /// Where the second server runs, where that is possible.
    pub(crate) namespace: Option<Namespace>,
    thrift: [SocketAddr; 2],
    ports: Vec<u16>,
    folder: TempDir,
}

impl Fleet {
    /// Starts it and waits until it is ready.
    pub(crate) fn start() -> Self {
        let ports = free_ports::<9>().to_vec();
        let namespace = Namespace::make();
        let second = namespace.as_ref().map_or("127.0.0.1", Namespace::address);
        let at = |host: &str, port: u16| format!("{host}:{port}").parse::<SocketAddr>().expect("an address");
        let thrift = [at("127.0.0.1", ports[0]), at(second, ports[1])];
        let mut fleet = Self {
            servers: Vec::new(),
            gateways: Vec::new(),
            nginx: None,
            relay: Relay::to(thrift[0]),
            namespace,
            thrift,
            ports,
            folder: TempDir::with_prefix("outboard-failover-").expect("a temporary folder can be made"),
        };
        for index in 0..2 {
            fleet.launch_server(index);
            fleet.launch_gateway(index);
        }
        fleet.launch_nginx();
        for index in 0..2 {
            fleet.wait_server(index);
            fleet.wait_gateway(index);
        }
        wait_until("the fleet to be ready", START, || fleet.ready().then_some(()));
        fleet
    }

    /// `127.0.0.1:port` of nginx.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[8])
    }

    /// Whether a request would be answered.
    pub(crate) fn ready(&self) -> bool {
        Http::new(&self.address()).try_get("/health/ready").is_ok_and(|answer| answer.status == 200)
    }

    /// Starts a server (again).
    pub(crate) fn launch_server(&mut self, index: usize) {
        let program = target_folder().join("outboard-server");
        let mut command = match &self.namespace {
            Some(namespace) if index == 1 => namespace.command(&program),
            _ => Command::new(program),
        };
        command
            .args(["--listen", &self.thrift[index].to_string()])
            .args(["--admin", &format!("127.0.0.1:{}", self.ports[2 + index])])
            .args([
                "--models",
                "models",
                "--only",
                "fashion-mnist",
                "--set",
                "auth=open",
                "--set",
                "log.requests=failures",
            ])
            .current_dir(repository());
        let program = Program::start(&format!("server-{}", index + 1), command, self.folder.path());
        put(&mut self.servers, index, program);
    }

    /// Starts a gateway (again).
    pub(crate) fn launch_gateway(&mut self, index: usize) {
        let servers = format!("{},{}", self.relay.address, self.thrift[1]);
        let mut command = Command::new(target_folder().join("outboard-gateway"));
        command
            .args(["--listen", &format!("127.0.0.1:{}", self.ports[4 + index])])
            .args(["--admin", &format!("127.0.0.1:{}", self.ports[6 + index])])
            .args(["--servers", &servers, "--set", &format!("workers={WORKERS}"), "--set", "log.requests=failures"])
            // What it keeps of pages goes with the folder.
            .env("XDG_STATE_HOME", self.folder.path().join(format!("state-{index}")))
            .current_dir(repository());
        let program = Program::start(&format!("gateway-{}", index + 1), command, self.folder.path());
        put(&mut self.gateways, index, program);
    }

    fn launch_nginx(&mut self) {
        let prefix = self.folder.path().join("nginx");
        let gateways = format!("127.0.0.1:{},127.0.0.1:{}", self.ports[4], self.ports[5]);
        let configured = Command::new(repository().join("nginx/configure"))
            .arg("--prefix")
            .arg(&prefix)
            .args(["--listen", &self.address(), "--gateway", &gateways])
            .output()
            .expect("nginx/configure runs");
        assert!(configured.status.success(), "{configured:?}");
        let nginx = if std::path::Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&prefix).args(["-c", "conf/nginx.conf", "-e", "logs/error.log", "-g", "daemon off;"]);
        self.nginx = Some(Program::start("nginx", command, self.folder.path()).with_farewell(Signal::TERM));
    }

    /// Tells a part to end, starts it again and waits until it serves.
    pub(crate) fn restart(&mut self, part: Part) {
        let program = match part {
            Part::Server(index) => &mut self.servers[index],
            Part::Gateway(index) => &mut self.gateways[index],
        };
        program.signal(Signal::TERM);
        assert_eq!(program.wait(LONG).code(), Some(0), "{}", program.log());
        match part {
            Part::Server(index) => {
                self.launch_server(index);
                self.wait_server(index);
            }
            Part::Gateway(index) => {
                self.launch_gateway(index);
                self.wait_gateway(index);
            }
        }
    }

    /// Starts both gateways again: they remember for a minute how slow a server was, and would spare it the next fault.
    pub(crate) fn renew_gateways(&mut self, load: &Load) {
        for index in 0..2 {
            self.gateways[index].signal(Signal::TERM);
            self.gateways[index].wait(START);
            self.launch_gateway(index);
            self.wait_gateway(index);
        }
        load.more(MANY);
        let _between = load.take();
    }

    /// Waits until a server serves.
    pub(crate) fn wait_server(&mut self, index: usize) {
        let address = self.thrift[index].to_string();
        wait_until("a server to serve", START, || {
            let ended = self.servers[index].ended();
            assert!(ended.is_none(), "{ended:?}: {}", self.servers[index].log());
            let probe = Command::new(target_folder().join("outboard")).args(["probe", &address]).output();
            probe.expect("outboard runs").status.success().then_some(())
        });
    }

    /// Waits until a gateway answers.
    pub(crate) fn wait_gateway(&mut self, index: usize) {
        let http = Http::new(&format!("127.0.0.1:{}", self.ports[4 + index]));
        wait_until("a gateway to be ready", START, || {
            let ended = self.gateways[index].ended();
            assert!(ended.is_none(), "{ended:?}: {}", self.gateways[index].log());
            http.try_get("/health/ready").is_ok_and(|answer| answer.status == 200).then_some(())
        });
    }
}

fn put(programs: &mut Vec<Program>, index: usize, program: Program) {
    match programs.get_mut(index) {
        Some(place) => *place = program,
        None => programs.push(program),
    }
}
