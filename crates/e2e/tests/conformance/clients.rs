//! How each language's client is started.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use e2e::{repository, wait_until};
use serde_json::Value;

/// All cases of one client; a client that hangs ends here. C++ and Go need a few seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `scripts/conformance` has built.
fn built() -> PathBuf {
    repository().join("target/conformance")
}

fn command(client: &str) -> Command {
    let sources = repository().join("crates/e2e/conformance");
    let python = |script: &str| {
        let mut command = Command::new(repository().join(".venv/bin/python"));
        command.arg(sources.join("python").join(script)).env("PYTHONPATH", built().join("gen-py"));
        command
    };
    match client {
        "python-thrift" => python("thrift_client.py"),
        "python-thriftpy2" => python("thriftpy2_client.py"),
        "go" => Command::new(built().join("go/client")),
        "cpp" => Command::new(built().join("cpp/client")),
        "java" => {
            let mut command = Command::new("java");
            let path = format!("{}:{}/*", built().join("java/classes").display(), built().join("java/lib").display());
            command.args(["-cp", &path, "dev.outboard.conformance.Client"]);
            command
        }
        "node" => {
            let mut command = Command::new("node");
            command.arg(sources.join("node/client.js")).env("GENERATED", built().join("gen-nodejs"));
            command
        }
        other => panic!("cases.json names a client {other} that is not known here"),
    }
}

/// Clients with an example in `docs/clients`.
pub(crate) const EXAMPLES: [&str; 5] = ["python-thrift", "go", "java", "node", "cpp"];

/// Runs the example for a client: how it ended, what it said, what it told besides.
pub(crate) fn example(client: &str, server: &str, model: &str) -> (ExitStatus, String, String) {
    let (built, sources) = (built(), repository().join("docs/clients"));
    let mut command = match client {
        "go" | "cpp" => Command::new(built.join("examples").join(client).join("chat")),
        "java" => {
            let (examples, java) = (built.join("examples/java"), built.join("java"));
            let path =
                format!("{}:{}:{}/*", examples.display(), java.join("classes").display(), java.join("lib").display());
            let mut command = Command::new("java");
            command.args(["-cp", &path, "Chat"]);
            command
        }
        "node" => {
            let mut command = Command::new("node");
            command.arg(sources.join("chat.js")).env("GENERATED", built.join("gen-nodejs"));
            command
        }
        _ => {
            let mut command = Command::new(repository().join(".venv/bin/python"));
            command.arg(sources.join("chat.py")).env("PYTHONPATH", built.join("gen-py"));
            command.env("PYTHONIOENCODING", "utf-8");
            command
        }
    };
    let output = command.args([server, model, "Hello"]).output();
    let output = output.unwrap_or_else(|error| panic!("the example for {client} does not start: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status, text(output.stdout), text(output.stderr))
}

/// What the client saw, a line for each case.
///
/// # Panics
/// When it does not end well.
pub(crate) fn run(client: &str, server: &str) -> Vec<Value> {
    let folder = built().join("seen");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let (seen, told) = (folder.join(format!("{client}.jsonl")), folder.join(format!("{client}.err")));
    let mut child = command(client)
        .arg(repository().join("crates/e2e/conformance/cases.json"))
        .arg(server)
        .current_dir(repository())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&seen).expect("a file can be made"))
        .stderr(std::fs::File::create(&told).expect("a file can be made"))
        .spawn()
        .unwrap_or_else(|error| panic!("{client} does not start, scripts/conformance builds it: {error}"));
    let status =
        wait_until(&format!("the end of {client}"), PATIENCE, || child.try_wait().expect("a child can be asked"));
    assert!(status.success(), "{client}: {status}\n{}", text(&told));
    let lines = text(&seen);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{client}: {error}: {line}")))
        .collect()
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("a file that was made")).into_owned()
}
