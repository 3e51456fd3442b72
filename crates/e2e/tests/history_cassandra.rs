//! The history in a real Cassandra and a real S3-compatible store, which die while pictures come in.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::{Http, Parts, Stand, repository, wait_until};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(180);

/// A server that a script of ours starts; stopped when dropped.
struct Service {
    script: &'static str,
    folder: TempDir,
    port: u16,
}

impl Service {
    fn start(script: &'static str) -> Self {
        // Its neighbour, a thousand above, is used as well.
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let port = (20_000..30_000).step_by(7).find(|port| free(*port) && free(*port + 1_000)).expect("free ports");
        let this = Self { script, folder: TempDir::with_prefix("outboard-e2e-").expect("a folder"), port };
        this.run("start");
        this
    }

    fn run(&self, action: &str) {
        let status = Command::new(repository().join("scripts").join(self.script))
            .arg(action)
            .arg(self.folder.path())
            .arg(self.port.to_string())
            .status()
            .expect("the script runs");
        assert!(status.success(), "scripts/{} {action}: {status}", self.script);
    }

    /// As a power cut would.
    fn kill(&self) {
        let recorded = std::fs::read_to_string(self.folder.path().join("pid")).expect("it runs");
        let id = recorded.split_whitespace().next().and_then(|id| id.parse().ok()).expect("an id");
        let id = rustix::process::Pid::from_raw(id).expect("no process has the id 0");
        rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("it runs");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.run("stop");
    }
}

fn settings(cassandra: &Service, s3: &Service) -> Vec<String> {
    [
        "history.store=cassandra".to_owned(),
        format!("history.cassandra.nodes=127.0.0.1:{}", cassandra.port),
        "history.pictures=s3".to_owned(),
        format!("history.s3.endpoint=http://127.0.0.1:{}", s3.port),
        "history.s3.access_key=outboard".to_owned(),
        "history.s3.secret_key=outboard-secret".to_owned(),
    ]
    .to_vec()
}

fn all(http: &Http) -> Option<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/v1/history?limit=200&cursor={cursor}"));
        if page.status != 200 {
            return None;
        }
        let page = page.json();
        found.extend(page["data"].as_array().expect("a list").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return Some(found),
        }
    }
}

#[test]
#[ignore = "scripts/test cassandra runs it"]
fn a_thousand_pictures_are_answered_and_kept_once_though_cassandra_is_killed_meanwhile() {
    let (cassandra, s3) = (Service::start("cassandra"), Service::start("s3"));
    let gateway = settings(&cassandra, &s3);
    let stand = Stand::start(Parts {
        only: vec!["fashion-mnist".into()],
        gateway: gateway.clone(),
        errors: &["scylla"],
        ..Parts::default()
    });
    // The gateway is up before there are tables.
    let below = |setting: &String| setting.trim_start_matches("history.").to_owned();
    let flags: Vec<String> = gateway.iter().flat_map(|setting| ["--set".to_owned(), below(setting)]).collect();
    let outboard = |arguments: &[&str]| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let output = stand.outboard(&[arguments, &flags].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(outboard(&["history", "migrate"]).contains("they were of 0"));
    assert!(outboard(&["history", "migrate"]).contains("nothing to do"));

    let shoe = std::fs::read(repository().join("models/testdata/shoe.png")).expect("in the tree");
    let answered = AtomicUsize::new(0);
    let address = stand.http().base().trim_start_matches("http://").to_owned();
    let promised: BTreeSet<String> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let http = Http::new(&address);
                    let mut promised = Vec::new();
                    for _ in 0..250 {
                        let headers = [("content-type", "image/png")];
                        let answer = http.post("/v1/classify?model=fashion-mnist&keep=true", &headers, &shoe);
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        let kept = answer.json()["kept"].clone();
                        promised.push(kept["ids"][0].as_str().expect("an id").to_owned());
                        answered.fetch_add(1, Ordering::AcqRel);
                    }
                    promised
                })
            })
            .collect();
        for (count, action) in [(200, "kill"), (600, "start")] {
            wait_until("some answers", LIMIT, || (answered.load(Ordering::Acquire) >= count).then_some(()));
            if action == "kill" { cassandra.kill() } else { cassandra.run("start") }
        }
        senders.into_iter().flat_map(|sender| sender.join().expect("all are answered")).collect()
    });
    assert_eq!(promised.len(), 1_000);
    let http = stand.http();
    let found =
        wait_until("all of them in the list", LIMIT, || all(&http).filter(|found| found.len() >= promised.len()));
    let ids: BTreeSet<String> = found.iter().filter_map(|record| record["id"].as_str().map(str::to_owned)).collect();
    assert_eq!((found.len(), &ids), (1_000, &promised), "each of them once");
    let picture = http.get(found[0]["picture"].as_str().expect("kept"));
    assert_eq!(picture.body, shoe, "from the bucket");

    // Others see them, too, and agree on the number.
    assert_eq!(outboard(&["history", "export"]).lines().count(), 1_000);
    if let Some(cqlsh) = std::env::var_os("OUTBOARD_TEST_CQLSH") {
        let query = "SELECT COUNT(*) FROM outboard.records";
        let output = Command::new(cqlsh)
            .args(["127.0.0.1", &cassandra.port.to_string(), "--request-timeout=60", "-e", query])
            .output()
            .expect("cqlsh runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.lines().any(|line| line.trim() == "1000"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
#[ignore = "scripts/test cassandra runs it"]
fn pictures_wait_for_a_store_of_pictures_that_was_killed() {
    let (cassandra, s3) = (Service::start("cassandra"), Service::start("s3"));
    let gateway = settings(&cassandra, &s3);
    let stand = Stand::start(Parts {
        only: vec!["fashion-mnist".into()],
        gateway: gateway.clone(),
        errors: &["scylla"],
        ..Parts::default()
    });
    let flags: Vec<&str> =
        gateway.iter().flat_map(|setting| ["--set", setting.trim_start_matches("history.")]).collect();
    assert!(stand.outboard(&[&["history", "migrate"], flags.as_slice()].concat()).status.success());
    let shoe = std::fs::read(repository().join("models/testdata/shoe.png")).expect("in the tree");
    let http = stand.http();
    let keep = || {
        let headers = [("content-type", "image/png")];
        let answer = http.post("/v1/classify?model=fashion-mnist&keep=true", &headers, &shoe);
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    keep();
    wait_until("the first record", LIMIT, || all(&http).filter(|found| found.len() == 1));
    s3.kill();
    (0..20).for_each(|_| keep());
    wait_until("the gateway to notice", LIMIT, || {
        http.get("/health/ready").json()["degraded"].is_string().then_some(())
    });
    assert_eq!(all(&http).map(|found| found.len()), Some(1), "no record is shown before its picture is there");
    s3.run("start");
    let found = wait_until("all of them", LIMIT, || all(&http).filter(|found| found.len() == 21));
    for record in found {
        assert_eq!(http.get(record["picture"].as_str().expect("kept")).body, shoe);
    }
}
