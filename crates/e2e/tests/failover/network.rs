//! A server's own network, whose link the test can cut.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

/// Addresses that are for measuring networks only, so that they hide nobody's.
const HERE: &str = "198.18.255.1/30";
const THERE: &str = "198.18.255.2";

/// A network namespace with one link to this machine's; gone when dropped.
pub(crate) struct Namespace(String);

impl Namespace {
    /// Makes one; `None` where that is not allowed or the tools are not there.
    pub(crate) fn make() -> Option<Self> {
        let name = format!("outboard-{}", std::process::id());
        // Names of links have 15 characters at most.
        let (here, there) = (format!("ob{}a", std::process::id()), format!("ob{}b", std::process::id()));
        if !run("ip", &["netns", "add", &name]) {
            return None;
        }
        let namespace = Self(name.clone());
        let made = run("ip", &["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name])
            && run("ip", &["addr", "add", HERE, "dev", &here])
            && run("ip", &["link", "set", &here, "up"])
            && run("ip", &["-n", &name, "addr", "add", &format!("{THERE}/30"), "dev", &there])
            && run("ip", &["-n", &name, "link", "set", &there, "up"])
            && run("ip", &["-n", &name, "link", "set", "lo", "up"])
            && run("ip", &["netns", "exec", &name, "iptables", "-L", "-n"]);
        made.then_some(namespace)
    }

    /// The address inside.
    pub(crate) fn address(&self) -> &'static str {
        THERE
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }

    /// From now on every packet is dropped, either way.
    pub(crate) fn cut(&self) {
        self.rules("-A");
    }

    /// Packets pass again.
    pub(crate) fn mend(&self) {
        self.rules("-D");
    }

    fn rules(&self, action: &str) {
        for chain in ["INPUT", "OUTPUT"] {
            assert!(run("ip", &["netns", "exec", &self.0, "iptables", action, chain, "-j", "DROP"]));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its end of the link goes with it, and with that the other.
        run("ip", &["netns", "del", &self.0]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Says that the case was left out.
pub(crate) fn skip() {
    let reason = "failover-links\tno network namespace with ip and iptables (root only)\n";
    print!("skipped: {reason}");
    if let Some(list) = std::env::var_os("OUTBOARD_SKIPS") {
        let mut list =
            OpenOptions::new().append(true).create(true).open(list).expect("the list of skips can be written");
        list.write_all(reason.as_bytes()).expect("the list of skips can be written");
    }
}
