//! Starting, stopping and leaving, as seen from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::{Parts, Stand, repository, wait_until};
use rustix::process::Signal;

/// What the health page promises: a server that is gone is noticed within this, one that is back as well.
const NOTICED: Duration = Duration::from_secs(2);

fn shoe() -> Vec<u8> {
    std::fs::read(repository().join("models/testdata/shoe.png")).expect("in the tree")
}

#[test]
fn a_stopped_server_is_seen_by_readiness_and_probe_and_so_is_its_return() {
    let mut stand = Stand::start(Parts::default());
    let http = stand.http();
    assert_eq!(stand.probe(&[&stand.thrift()]).status.code(), Some(0));
    assert_eq!(stand.probe(&[&stand.thrift(), "--deep"]).status.code(), Some(0));
    assert_eq!(stand.probe(&[http.base()]).status.code(), Some(0));
    assert_eq!(stand.probe(&[&stand.thrift(), "--model", "nope"]).status.code(), Some(1));

    stand.server.as_mut().expect("started").kill();
    let begin = Instant::now();
    let unready = wait_until("503 from /health/ready", Duration::from_secs(20), || {
        Some(http.get("/health/ready")).filter(|answer| answer.status == 503)
    });
    assert!(begin.elapsed() < NOTICED, "noticed after {:?}", begin.elapsed());
    assert!(unready.text().contains("127.0.0.1"), "the reason names the server: {}", unready.text());
    assert_eq!(http.get("/health/ready?scope=self").status, 200);
    assert_eq!(stand.probe(&[&stand.thrift()]).status.code(), Some(3));
    assert_eq!(stand.probe(&[http.base()]).status.code(), Some(1));
    let answer = http.post("/v1/classify?model=mnist", &[("content-type", "image/png")], &shoe());
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "unavailable"));
    assert!(answer.header("retry-after").is_some());

    stand.launch_server();
    stand.wait_ready();
    let answer = http.post("/v1/classify?model=fashion-mnist", &[("content-type", "image/png")], &shoe());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_dead_gateway_is_nginxs_own_json_error() {
    let mut stand = Stand::start(Parts::default());
    stand.gateway.as_mut().expect("started").kill();
    let answer = stand.http().get("/v1/models");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.error_code(), "upstream_unavailable");
}

#[test]
fn sigterm_under_load_loses_nothing() {
    for part in ["server", "gateway"] {
        let mut stand = Stand::start(Parts { only: vec!["fashion-mnist".into()], ..Parts::default() });
        // Past nginx, so that what is seen is the process's own doing.
        let address = stand.gateway_http().base().trim_start_matches("http://").to_owned();
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), address.clone());
                std::thread::spawn(move || {
                    let (http, shoe) = (e2e::Http::new(&address), shoe());
                    let mut wrong = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let path = "/v1/classify?model=fashion-mnist";
                        match http.try_post(path, &[("content-type", "image/png")], &shoe) {
                            Ok(answer) if answer.status == 200 => {
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            // Told to go elsewhere: nothing of this request was begun.
                            Ok(answer) if answer.status == 503 => break,
                            // A listener that is closed, before anything was sent.
                            Err(ureq::Error::ConnectionFailed) => break,
                            Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                                break;
                            }
                            other => {
                                wrong.push(format!("{other:?}"));
                                break;
                            }
                        }
                    }
                    wrong
                })
            })
            .collect();
        wait_until("a hundred answers", Duration::from_secs(60), || {
            (answered.load(Ordering::Relaxed) >= 100).then_some(())
        });
        let program = if part == "server" { stand.server.as_mut() } else { stand.gateway.as_mut() }.expect("started");
        program.signal(Signal::TERM);
        let status = program.wait(Duration::from_secs(60));
        assert_eq!(status.code(), Some(0), "{part}: {}", program.log());
        stop.store(true, Ordering::Relaxed);
        let wrong: Vec<String> = callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect();
        assert!(wrong.is_empty(), "{part}: {wrong:?}");
    }
}

/// The processes whose parent is `id`.
fn children(id: u32) -> Vec<u32> {
    let parent = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name before it, in brackets, may hold anything; then come the state and the parent.
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok())
    };
    let all = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    let processes = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|process| parent(process) == Some(id)).collect()
}

#[test]
fn nothing_of_a_stand_is_left_when_it_goes() {
    let stand = Stand::start(Parts { only: vec!["mnist".into()], ..Parts::default() });
    let all = [&stand.server, &stand.gateway, &stand.nginx].map(|program| program.as_ref().expect("started").id());
    let workers = children(all[2]);
    assert!(!workers.is_empty(), "nginx has workers");
    let folder = stand.folder().to_owned();
    drop(stand);
    for process in all.into_iter().chain(workers) {
        assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "process {process} is left");
    }
    assert!(!folder.exists());
}
