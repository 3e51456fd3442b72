//! Mutual TLS between the real programs, and with Apache's Python library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{Parts, Stand, python, repository, wait_until};
use tempfile::TempDir;

/// Long enough for any machine; nothing here takes a second.
const SOON: Duration = Duration::from_secs(60);

/// An authority and what it has issued, in files: all of it by the commands of OPERATIONS.md.
struct Authority {
    folder: TempDir,
    recipe: String,
}

impl Authority {
    fn new() -> Self {
        let manual = fs::read_to_string(repository().join("OPERATIONS.md")).expect("the manual");
        let from = manual.find("openssl ecparam").expect("an authority's key");
        let until = from + manual[from..].find("\nissue ").expect("what it is used for");
        let recipe = manual[from..until].to_owned();
        let (authority, issue) = recipe.split_once("issue()").expect("a function");
        let folder = TempDir::with_prefix("outboard-tls-").expect("a folder");
        bash(folder.path(), authority);
        Self { folder, recipe: format!("issue(){issue}") }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes `name.pem` and `name.key`.
    fn issue(&self, name: &str, purpose: &str, names: &str) {
        bash(self.folder.path(), &format!("{}\nissue {name} {purpose} '{names}'", self.recipe));
    }
}

fn bash(folder: &Path, script: &str) {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(folder).output();
    let output = output.expect("bash runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn generated(folder: &Path) -> PathBuf {
    let generated = folder.join("gen");
    fs::create_dir(&generated).expect("a fresh folder");
    for file in ["base", "fault", "health", "inference"] {
        let idl = repository().join(format!("idl/{file}.thrift"));
        let made = Command::new("thrift").args(["--gen", "py", "-out"]).arg(&generated).arg(idl).status();
        assert!(made.expect("the Thrift compiler runs").success());
    }
    generated
}

#[test]
fn server_gateway_probe_and_python_know_each_other_by_certificates() {
    let authority = Authority::new();
    authority.issue("server", "serverAuth", "DNS:localhost,IP:127.0.0.1");
    authority.issue("gateway", "clientAuth", "URI:spiffe://example.org/gateway");
    authority.issue("operator", "clientAuth", "DNS:operator.example.org");
    authority.issue("batch", "clientAuth", "DNS:batch.example.org");
    let parts = Parts {
        server: vec![
            format!("tls.certificate={}", authority.file("server.pem")),
            format!("tls.key={}", authority.file("server.key")),
            format!("tls.client_ca={}", authority.file("ca.pem")),
        ],
        gateway: vec![
            "channel.tls.enabled=true".to_owned(),
            format!("channel.tls.ca={}", authority.file("ca.pem")),
            format!("channel.tls.certificate={}", authority.file("gateway.pem")),
            format!("channel.tls.key={}", authority.file("gateway.key")),
        ],
        outboard: vec![
            ("OUTBOARD_TLS", "1".to_owned()),
            ("OUTBOARD_TLS_CA", authority.file("ca.pem")),
            ("OUTBOARD_TLS_CERT", authority.file("operator.pem")),
            ("OUTBOARD_TLS_KEY", authority.file("operator.key")),
        ],
        // It is told of a certificate that is none.
        errors: &["rpc::server"],
        ..Parts::default()
    };
    let stand = Stand::start(parts);
    let server_log = || stand.server.as_ref().expect("it runs").log();

    // The command line, by variables (the stand itself has used them) and by flags.
    let shoe = repository().join("models/testdata/shoe.png");
    let (thrift, shoe_path) = (stand.thrift(), shoe.display().to_string());
    let called = stand.outboard(&["call", "classify", &shoe_path, "--model", "fashion-mnist", "--server", &thrift]);
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    assert!(String::from_utf8_lossy(&called.stdout).contains("Ankle boot"));
    let wrong_name = stand.probe(&[&thrift, "--tls-server-name", "gpu-7.internal"]);
    let told = String::from_utf8_lossy(&wrong_name.stderr).into_owned();
    assert_eq!(wrong_name.status.code(), Some(3), "{told}");
    assert!(told.contains("its certificate is for") && told.contains("not for gpu-7.internal"), "{told}");

    // A person, through nginx and the gateway.
    let answer = stand.http().post(
        "/v1/classify?model=fashion-mnist",
        &[("content-type", "image/png")],
        &fs::read(&shoe).expect("a picture"),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());

    // Apache's library.
    let port = thrift.rsplit(':').next().expect("host:port");
    let python_by = |client: &str| {
        let [ca, certificate, key] = ["ca.pem".to_owned(), format!("{client}.pem"), format!("{client}.key")];
        let files = [ca, certificate, key].map(|name| authority.file(&name));
        let mut command = python("thrift_client.py");
        command.args(["localhost", port, "accelerated"]).arg(stand.folder().join("gen")).arg(&shoe).args(files);
        command.output().expect("python runs")
    };
    generated(stand.folder());
    let output = python_by("batch");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("\"Ankle boot\""), "{told}");

    // Each is known by its certificate, whatever it calls itself.
    let log = server_log();
    for caller in ["spiffe://example.org/gateway", "operator.example.org", "batch.example.org"] {
        assert!(log.contains(caller), "{caller} is not in the log");
    }
    assert!(!log.contains("anonymous@"), "somebody is not known");

    // Strangers: without a certificate, with a server's, and without TLS.
    let server_s = ["--tls-cert", &authority.file("server.pem"), "--tls-key", &authority.file("server.key")];
    for (shows, why) in [(&[][..], "it wants a client certificate"), (&server_s, "is for another purpose")] {
        let stranger = Command::new(e2e::target_folder().join("outboard"))
            .args(["probe", &thrift, "--tls", "--tls-ca", &authority.file("ca.pem"), "--timeout", "20s"])
            .args(shows)
            .output()
            .expect("it runs");
        let told = String::from_utf8_lossy(&stranger.stderr).into_owned();
        assert!(!stranger.status.success() && told.contains(why), "{told}");
    }
    let plain = Command::new(e2e::target_folder().join("outboard")).args(["probe", &thrift]).output().expect("it runs");
    let told = String::from_utf8_lossy(&plain.stderr).into_owned();
    assert!(!plain.status.success() && told.contains("this port speaks TLS"), "{told}");
    let failures =
        |name: &str| stand.server_metric(&format!("outboard_server_tls_handshake_failures_total{{name=\"{name}\"}}"));
    assert!(
        failures("no_certificate") > 0.0
            && failures("certificate") > 0.0
            && failures("plain") > 0.0
            && failures("refused") > 0.0
    );

    // A new certificate is in use without a restart, and a broken one changes nothing.
    let expiry = || stand.server_metric("outboard_server_tls_certificate_expiry_seconds");
    let errors = || stand.server_metric("outboard_server_tls_certificate_errors_total");
    assert!(expiry() > 0.0 && errors() == 0.0);
    authority.issue("server", "serverAuth", "DNS:renewed.example.org");
    wait_until("the new certificate", SOON, || {
        stand.probe(&[&thrift, "--tls-server-name", "renewed.example.org"]).status.success().then_some(())
    });
    fs::write(authority.file("server.pem"), "nonsense").expect("written");
    wait_until("the notice", SOON, || server_log().contains("server.pem: holds no certificate in PEM").then_some(()));
    assert!(errors() > 0.0);
    assert!(stand.probe(&[&thrift, "--tls-server-name", "renewed.example.org"]).status.success());
    // The gateway's connections from before go on.
    let answer = stand.http().post(
        "/v1/classify?model=fashion-mnist",
        &[("content-type", "image/png")],
        &fs::read(&shoe).expect("a picture"),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
}
