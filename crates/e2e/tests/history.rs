//! What was answered is kept, shown, corrected, exported and deleted; and whatever dies, what was acknowledged is there once.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{Answer, Http, Parts, Stand, browse_with_pictures, model_cache, repository, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn data(name: &str) -> Vec<u8> {
    std::fs::read(repository().join("models/testdata").join(name)).expect("in the tree")
}

fn only_fashion() -> Parts {
    Parts { only: vec!["fashion-mnist".into()], ..Parts::default() }
}

fn keep(http: &Http) -> Answer {
    let headers = [("content-type", "image/png")];
    http.post("/v1/classify?model=fashion-mnist&keep=true", &headers, &data("shoe.png"))
}

/// The ids of an answer that promises that they are kept.
fn acknowledged(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let kept = &answer.json()["kept"];
    assert_eq!(kept["acknowledged"], true, "{}", answer.text());
    kept["ids"].as_array().expect("a list").iter().map(|id| id.as_str().expect("a text").to_owned()).collect()
}

/// Everything in the list, by pages.
fn all(http: &Http) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/v1/history?limit=200&cursor={cursor}"));
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        found.extend(page["data"].as_array().expect("a list").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return found,
        }
    }
}

fn ids(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["id"].as_str().expect("an id").to_owned()).collect()
}

/// The list, once it has so many records.
fn when_there(http: &Http, count: usize) -> Vec<Value> {
    wait_until("the records in the list", LIMIT, || Some(all(http)).filter(|records| records.len() >= count))
}

fn form(file_name: &str, picture: &[u8]) -> (String, Vec<u8>) {
    let mut body =
        b"--XyZ\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nfashion-mnist\r\n--XyZ\r\n".to_vec();
    let head = format!("Content-Disposition: form-data; name=\"image\"; filename=\"{file_name}\"\r\n\r\n");
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(picture);
    body.extend_from_slice(b"\r\n--XyZ--\r\n");
    ("multipart/form-data; boundary=XyZ".to_owned(), body)
}

#[test]
fn a_picture_is_kept_listed_corrected_exported_and_deleted() {
    let stand = Stand::start(only_fashion());
    let (http, shoe) = (stand.http(), data("shoe.png"));
    let plain = http.post("/v1/classify?model=fashion-mnist", &[("content-type", "image/png")], &shoe);
    assert!(plain.json().get("kept").is_none(), "the API keeps what it is asked to keep: {}", plain.text());
    let refused = http.post("/v1/classify?model=fashion-mnist&keep=maybe", &[("content-type", "image/png")], &shoe);
    assert_eq!((refused.status, refused.error_code().as_str()), (400, "invalid_input"));
    let by_api = acknowledged(&keep(&http)).remove(0);
    // The page, with names that try things.
    let names = ["../../etc/passwd", "", "a\u{202e}gnp.exe", &"x".repeat(300)];
    for name in names {
        let (kind, body) = form(name, &shoe);
        assert_eq!(http.post("/upload", &[("content-type", &kind)], &body).status, 200, "{name:?}");
    }
    let text = http.post(
        "/upload",
        &[("content-type", &form("notes.png", b"only text").0)],
        &form("notes.png", b"only text").1,
    );
    assert_eq!(text.status, 415);

    let records = when_there(&http, 6);
    assert_eq!(records.len(), 6);
    let told: Vec<&str> = records.iter().rev().filter_map(|record| record["file_name"].as_str()).collect();
    assert_eq!(told[..5], ["", "passwd", "", "agnp.exe", &"x".repeat(120)]);
    let failed = &records[0];
    assert_eq!((&failed["outcome"], &failed["picture"]), (&json!("unsupported_media"), &Value::Null), "{failed}");
    let record = http.get(&format!("/v1/history/{by_api}")).json();
    assert_eq!(&record, records.last().expect("six"), "alone as in the list");
    assert_eq!(record["results"][0]["label"], "Ankle boot");
    assert_eq!(
        (&record["source"], &record["model"], &record["format"]),
        (&json!("api"), &json!("fashion-mnist"), &json!("png"))
    );
    assert_eq!(record["bytes"], shoe.len());
    assert_eq!(record["sha256"].as_str().map(str::len), Some(64));
    let picture = http.get(record["picture"].as_str().expect("kept"));
    assert_eq!((picture.header("content-type"), &picture.body), (Some("image/png"), &shoe));
    assert_eq!(picture.header("x-content-type-options"), Some("nosniff"));
    assert!(picture.header("content-security-policy").is_some_and(|policy| policy.contains("sandbox")));
    let preview = http.get(record["preview"].as_str().expect("kept"));
    assert!(preview.body.starts_with(&[0xff, 0xd8]), "a JPEG");

    // Parts of the list.
    let first = http.get("/v1/history?limit=4").json();
    let second =
        http.get(&format!("/v1/history?limit=4&cursor={}", first["next_cursor"].as_str().expect("more"))).json();
    assert_eq!((second["data"].as_array().map(Vec::len), &second["next_cursor"]), (Some(2), &Value::Null));
    assert_eq!(http.get("/v1/history?label=Ankle+boot").json()["data"].as_array().map(Vec::len), Some(5));
    assert_eq!(http.get("/v1/history?model=mnist").json()["data"], json!([]));
    let day = record["time"].as_str().expect("a time")[..10].to_owned();
    assert!(!http.get(&format!("/v1/history?day={day}")).json()["data"].as_array().expect("a list").is_empty());
    assert_eq!(http.get("/v1/history?day=1999-12-31").json()["data"], json!([]));
    for bad in ["day=yesterday", "cursor=x", "limit=0", "limit=201", "models=x"] {
        assert_eq!(http.get(&format!("/v1/history?{bad}")).status, 400, "{bad}");
    }
    assert_eq!(http.get("/v1/history/not-an-id").status, 400);
    assert_eq!(http.get("/v1/history/01931b6e-1c1a-7c3e-9f0a-0123456789ab").status, 404);

    // Corrections, and the command line.
    let address = format!("/v1/history/{by_api}/correction");
    assert_eq!(http.put_json(&address, &json!({"label": "Sandal"})).status, 204);
    assert_eq!(http.put_json(&address, &json!({"label": " "})).status, 400);
    assert_eq!(http.get(&format!("/v1/history/{by_api}")).json()["correction"]["label"], "Sandal");
    let store = format!("folder={}", stand.folder().join("history").display());
    let run = |arguments: &[&str]| {
        let output = stand.outboard(&[arguments, &["--set", &store]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(run(&["history", "migrate"]).contains("nothing to do"));
    assert!(run(&["history", "list"]).contains("Ankle boot (really: Sandal)"));
    let lines = run(&["history", "export"]);
    let exported: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(exported, all(&http), "the export says what the API says");
    let folder = stand.folder().join("training");
    let csv =
        run(&["history", "export", "--format", "csv", "--corrected", "--pictures", folder.to_str().expect("text")]);
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.contains(",Ankle boot,") && csv.contains(",Sandal,"), "{csv}");
    assert_eq!(std::fs::read(folder.join(format!("{by_api}.png"))).expect("the picture"), shoe);
    assert_eq!(http.delete(&address).status, 204);
    assert_eq!(http.get(&format!("/v1/history/{by_api}")).json()["correction"], Value::Null);

    // Gone is gone.
    assert_eq!(http.delete(&format!("/v1/history/{by_api}")).status, 204);
    assert_eq!(http.delete(&format!("/v1/history/{by_api}")).status, 404);
    assert_eq!(http.get(&format!("/v1/history/{by_api}/picture")).status, 404);
    assert_eq!(all(&http).len(), 5);
    // Another site's form changes nothing.
    let other = ids(&all(&http)).remove(0);
    let foreign = [("origin", "http://evil.example"), ("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(http.post(&format!("/history/{other}/delete"), &foreign, b"").status, 403);
    assert_eq!(http.post(&format!("/history/{other}/correct"), &foreign, b"label=x").status, 403);
    assert_eq!(all(&http).len(), 5);
    let metrics = stand.gateway_admin().get("/metrics").text();
    assert!(metrics.contains("outboard_history_records_total{outcome=\"stored\"} 6"), "{metrics}");
}

#[test]
fn a_person_looks_at_the_history_corrects_and_deletes() {
    let only = ["fashion-mnist", "efficientnet-lite0"].map(str::to_owned).to_vec();
    let stand =
        Stand::start(Parts { models: vec![repository().join("models"), model_cache()], only, ..Parts::default() });
    let seen = browse_with_pictures("history.mjs", stand.http().base());
    for way in ["script", "plain"] {
        let run = &seen[way];
        assert_eq!(run["answers"], json!(["espresso", "Ankle boot"]), "{way}: {seen}");
        assert_eq!(run["drawn"], json!([true, true]), "{way}");
        assert_eq!(run["filtered"], json!(["Ankle boot"]), "{way}");
        assert_eq!(run["labels"], 5, "{way}");
        assert_eq!(run["original"], json!([200, "image/png", data("shoe.png").len()]), "{way}");
        assert_eq!(run["right"], "really: Sandal <b>", "{way}");
        assert_eq!(run["listed"], json!(["really: Sandal <b>"]), "{way}");
        assert_eq!(run["asked"], "Delete this for good?", "{way}");
        assert_eq!(run["landed"], "/history", "{way}");
        assert_eq!(run["empty"], "Nothing was kept yet. Upload a picture.", "{way}");
    }
    assert_eq!(seen["overflow"], 0, "no sideways scrolling on a phone");
}

#[test]
fn a_gateway_killed_at_any_moment_loses_nothing_that_it_has_acknowledged() {
    let mut stand = Stand::start(only_fashion());
    let mut promised = BTreeSet::new();
    for round in 0..3 {
        let address = stand.http().base().trim_start_matches("http://").to_owned();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let http = Http::new(&address);
                std::thread::spawn(move || {
                    let mut promised = Vec::new();
                    for _ in 0..500 {
                        let headers = [("content-type", "image/png")];
                        let path = "/v1/classify?model=fashion-mnist&keep=true";
                        // Once it is killed, nginx says so.
                        match http.try_post(path, &headers, &data("shoe.png")) {
                            Ok(answer) if answer.status == 200 => promised.extend(acknowledged(&answer)),
                            _ => break,
                        }
                    }
                    promised
                })
            })
            .collect();
        let gateway = stand.gateway_http();
        let enough = 10 * (round + 1);
        wait_until("some answers", LIMIT, || (all(&gateway).len() >= promised.len() + enough).then_some(()));
        stand.gateway.as_mut().expect("started").kill();
        for sender in senders {
            promised.extend(sender.join().expect("no sender fails"));
        }
        stand.launch_gateway();
        stand.wait_ready();
    }
    let gateway = stand.gateway_http();
    let found = wait_until("everything that was promised", LIMIT, || {
        let found = ids(&all(&gateway));
        promised.iter().all(|id| found.contains(id)).then_some(found)
    });
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "each of them once");
}

#[test]
fn a_gateway_whose_database_is_away_starts_answers_and_brings_everything_later() {
    // A port of a service that nobody has any more.
    let away = ["history.store=cassandra".to_owned(), "history.cassandra.nodes=127.0.0.1:1".to_owned()];
    let mut stand = Stand::start(Parts { gateway: away.to_vec(), errors: &["scylla"], ..only_fashion() });
    let http = stand.http();
    let mut promised: Vec<String> = (0..5).flat_map(|_| acknowledged(&keep(&http))).collect();
    let told = wait_until("the gateway to notice", LIMIT, || {
        let told = http.get("/health/ready");
        assert_eq!(told.status, 200, "requests are answered: {}", told.text());
        told.json()["degraded"].as_str().map(str::to_owned)
    });
    assert!(told.contains("history"), "{told}");
    let list = http.get("/v1/history");
    assert_eq!((list.status, list.error_code().as_str()), (503, "unavailable"));
    let page = http.get("/history");
    assert_eq!(page.status, 503);
    assert!(page.text().contains("wait for the store"), "{}", page.text());
    assert!(stand.gateway_admin().get("/metrics").text().contains("outboard_history_store_up 0"));

    // The same spool before a store that is there.
    stand.gateway.as_ref().expect("started").signal(rustix::process::Signal::TERM);
    let status = stand.gateway.as_mut().expect("started").wait(LIMIT);
    assert!(status.success(), "it leaves in order: {status}");
    stand.launch_gateway_with(&[]);
    stand.wait_ready();
    let mut found = ids(&when_there(&stand.http(), promised.len()));
    promised.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, promised);
    assert_eq!(stand.http().get("/health/ready").json().get("degraded"), None);
}
