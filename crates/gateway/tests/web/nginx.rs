//! The real nginx, configured by `nginx/configure`, in front of gateways or of an upstream that the test plays.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::client::{ask, classify, connect, get, read, read_chunk, request, wait_until};
use crate::gateway::Gateway;
use crate::openai::{Stream, one_by_one};
use crate::server::FakeServer;
use crate::talker::piece;

struct Nginx {
    child: Child,
    folder: TempDir,
    /// `host:port` without TLS.
    address: String,
}

impl Nginx {
    fn start(gateways: &str, options: &[&str]) -> Self {
        // As a checkout of root's often is: nginx's workers must be able to enter it, whoever started them.
        let mine = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(mine).tempdir().expect("a temporary folder");
        let address = free_address();
        let configured = Self::configure(folder.path(), &address, gateways, options);
        assert!(configured.status.success(), "{configured:?}");
        Self::run(folder, address)
    }

    /// With a configuration that lies in the folder already.
    fn run(folder: TempDir, address: String) -> Self {
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).args([
            "-c",
            "conf/nginx.conf",
            "-e",
            "logs/error.log",
            "-g",
            "daemon off;",
        ]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let mut this = Self { child, folder, address };
        wait_until("nginx to listen", || {
            let ended = this.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "{}", this.log("error.log"));
            TcpStream::connect(&this.address).ok()
        });
        this
    }

    fn configure(folder: &Path, listen: &str, gateways: &str, options: &[&str]) -> Output {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nginx/configure");
        let mut command = Command::new(script);
        command.arg("--prefix").arg(folder).args(["--listen", listen, "--gateway", gateways]).args(options);
        command.output().expect("nginx/configure runs")
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("logs").join(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its workers with it only when it is asked; an error means that it has ended already.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- nginx's errors\n{}", self.log("error.log"));
        }
    }
}

/// An address that nobody has, never the same. It lies below those that the system gives to outgoing connections.
fn free_address() -> String {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(10_000 + (std::process::id() % 20_000) as u16));
    loop {
        let address = format!("127.0.0.1:{}", NEXT.fetch_add(1, Ordering::Relaxed));
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// curl, for what a plain socket cannot do: TLS, and another source address.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-s", "-i", "--max-time", "30"])
        .args(arguments)
        .output()
        .expect("curl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ids_are_kept_or_made_and_reach_the_model_server() {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let nginx = Nginx::start(&gateway.address, &[]);
    let send = |id: &str| {
        let headers = [("content-type", "image/png"), ("x-request-id", id)];
        let answer = ask(&nginx.address, "POST", "/v1/classify?model=good", &headers, b"hello");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let ids: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "x-request-id").collect();
        assert_eq!(ids.len(), 1, "one id in the answer: {ids:?}");
        answer.header("x-request-id").expect("counted").to_owned()
    };
    assert_eq!(send("my-own-id.42"), "my-own-id.42");
    let made = send("bad id");
    assert_eq!(made.len(), 32, "{made}");
    let arrived: Vec<String> = server.arrived().into_iter().map(|one| one.request_id).collect();
    assert_eq!(arrived, ["my-own-id.42".to_owned(), made.clone()]);
    let line = wait_until("the line in nginx's log", || {
        let log = nginx.log("access.log");
        log.lines().find(|line| line.contains(&made)).map(str::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!((&line["path"], &line["status"]), (&"/v1/classify".into(), &200.into()));
}

#[test]
fn nginxs_own_errors_look_like_all_others() {
    let server = FakeServer::start();
    let mut gateway = Gateway::start(&server.address.to_string(), &[]);
    let nginx = Nginx::start(&gateway.address, &[]);
    let too_large = ask(&nginx.address, "POST", "/v1/classify", &[("content-length", "99999999")], b"");
    // Two lengths are no HTTP: the first case that nginx answers by itself.
    assert_eq!((too_large.status, too_large.code().as_str()), (400, "bad_request"));
    let mut stream = connect(&nginx.address);
    stream
        .write_all(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        .expect("nginx reads");
    let answer = read(&mut stream);
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert!(answer.text().contains("22 MiB"), "{}", answer.text());
    // Between the gateway's limit and nginx's it is the gateway that says more.
    let answer = classify(&nginx.address, "good", &vec![0; 16 << 20]);
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert!(answer.text().contains("15728640"), "{}", answer.text());
    let big = "x".repeat(40_000);
    let answer = ask(&nginx.address, "GET", "/v1/models", &[("x-big", &big)], b"");
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
    let page = get(&nginx.address, "/upload").text();
    let style = page.split('"').find(|part| part.ends_with("style.css")).expect("a page has a style").to_owned();
    assert_eq!(get(&nginx.address, &style).status, 200);

    gateway.kill();
    let answer = get(&nginx.address, "/v1/models");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unavailable"));
    assert!(answer.header("retry-after").is_some());
    assert!(answer.text().contains("\"trace_id\":null}"), "{}", answer.text());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = ask(&nginx.address, "GET", "/v1/models", &[("traceparent", parent)], b"");
    assert!(answer.text().contains("\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}"), "{}", answer.text());
    let answer = ask(&nginx.address, "GET", "/v1/models", &[("traceparent", &parent.replace("0af", "\"} "))], b"");
    assert!(answer.text().contains("\"trace_id\":null}"), "{}", answer.text());
    let answer = ask(&nginx.address, "GET", "/upload", &[("accept", "text/html,*/*")], b"");
    assert_eq!(answer.status, 502);
    assert!(
        answer.text().contains("role=\"alert\"")
            && answer.text().contains(answer.header("x-request-id").expect("an id"))
    );
    assert_eq!(get(&nginx.address, &style).status, 200, "assets come from nginx's disk");
}

#[test]
fn a_picture_that_waits_in_a_file_arrives_whole() {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let nginx = Nginx::start(&gateway.address, &[]);
    // More than client_body_buffer_size and the quarter that nginx adds to it.
    let picture: Vec<u8> = (0..=255).cycle().take(400 << 10).collect();
    let answer = classify(&nginx.address, "good", &picture);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.arrived().last().map(|last| last.images.clone()), Some(vec![picture]));
}

#[test]
fn every_error_that_a_client_can_get_stands_in_the_documentation() {
    let text = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        std::fs::read_to_string(path).expect("in the tree")
    };
    let (site, page) = (text("nginx/outboard.conf"), text("docs/http.md"));
    let map = site.split("map $status $outboard_code {").nth(1).and_then(|rest| rest.split('}').next());
    let of_nginx = map.expect("the site has codes").lines().filter_map(|line| {
        let (status, code) = line.trim().trim_end_matches(';').split_once(' ')?;
        Some((if status == "default" { "400" } else { status }.to_owned(), code.to_owned()))
    });
    let of_nginx: Vec<_> = of_nginx.collect();
    assert!(of_nginx.len() > 10, "{of_nginx:?}");
    // Nobody asks for a key yet.
    let kinds = fault::Kind::ALL.into_iter().filter(|kind| *kind != fault::Kind::Unauthenticated);
    let of_gateway = kinds.map(|kind| (kind.row().http.to_string(), kind.row().code.to_owned()));
    let rows: Vec<Vec<&str>> = page.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    for (status, code) in of_nginx.into_iter().chain(of_gateway) {
        let there = rows.iter().any(|row| {
            row.len() > 3 && row[1].split(", ").any(|one| one == status) && row[2].contains(&format!("`{code}`"))
        });
        assert!(there, "docs/http.md has no row for {status} {code}");
    }
}

#[test]
fn strangers_are_limited_and_this_machine_is_not() {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let nginx = Nginx::start(&gateway.address, &["--rate", "1"]);
    for _ in 0..20 {
        assert_eq!(get(&nginx.address, "/v1/models").status, 200);
    }
    let stranger = |path: &str| curl(&["--interface", "127.0.0.3", &format!("http://{}{path}", nginx.address)]);
    // The burst is four; a slow machine may earn some more in between.
    let limited = (0..50).map(|_| stranger("/v1/models")).find(|answer| answer.starts_with("HTTP/1.1 429"));
    let limited = limited.expect("a stranger is limited").to_lowercase();
    assert!(limited.contains("retry-after: 1") && limited.contains("\"code\":\"rate_limited\""), "{limited}");
    for _ in 0..10 {
        assert!(stranger("/health/ready").starts_with("HTTP/1.1 200"), "probes are never limited");
    }
}

#[test]
fn a_gateway_that_ends_is_passed_over() {
    let server = FakeServer::start();
    let start = || Gateway::start(&server.address.to_string(), &[]);
    let (mut first, second) = (start(), start());
    let nginx = Nginx::start(&format!("{},{}", first.address, second.address), &[]);
    for number in 0..40 {
        if number == 10 {
            first.terminate();
        }
        let answer = classify(&nginx.address, "good", b"hello");
        assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
    }
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(classify(&nginx.address, "good", b"hello").status, 200);
    assert_eq!(server.arrived().len(), 41, "no picture was classified twice");
}

#[test]
fn a_post_that_was_sent_is_never_sent_again() {
    let upstreams =
        [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")].map(|bound| bound.expect("a free port"));
    let addresses: Vec<String> = upstreams.iter().map(|one| one.local_addr().expect("bound").to_string()).collect();
    let nginx = Nginx::start(&addresses.join(","), &[]);
    let counters: Vec<_> = upstreams
        .into_iter()
        .map(|upstream| {
            std::thread::spawn(move || {
                upstream.set_nonblocking(false).expect("a socket can block");
                // Reads the request and dies of it; ends when the test connects to say so.
                let mut requests = 0;
                loop {
                    let (mut stream, _) = upstream.accept().expect("open");
                    let mut buffer = [0; 4096];
                    let length = stream.read(&mut buffer).unwrap_or(0);
                    if buffer[..length].starts_with(b"end") {
                        return requests;
                    }
                    requests += usize::from(length > 0);
                }
            })
        })
        .collect();
    let answer = classify(&nginx.address, "good", b"hello");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unavailable"));
    for address in &addresses {
        connect(address).write_all(b"end").expect("open");
    }
    let requests: usize = counters.into_iter().map(|counter| counter.join().expect("no panic")).sum();
    assert_eq!(requests, 1);
}

#[test]
fn pieces_of_a_stream_arrive_one_by_one() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nginx = Nginx::start(&upstream.local_addr().expect("bound").to_string(), &[]);
    let mut client = connect(&nginx.address);
    client
        .write_all(&request("POST", "/v1/chat/completions", &[("accept-encoding", "gzip")], b"{}"))
        .expect("nginx reads");
    let (mut stream, _) = upstream.accept().expect("nginx connects");
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).expect("the request");
    assert!(buffer[..length].starts_with(b"POST /v1/chat/completions"));
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n",
        )
        .expect("nginx reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("the head");
        head.push(byte[0]);
    }
    // The second piece is not sent before the first has arrived: buffering would wait for ever.
    assert_eq!(read_chunk(&mut client).as_deref(), Some(b"data: 1".as_slice()));
    stream.write_all(b"7\r\ndata: 2\r\n0\r\n\r\n").expect("nginx reads");
    assert_eq!(read_chunk(&mut client).as_deref(), Some(b"data: 2".as_slice()));
    assert_eq!(read_chunk(&mut client), None);
}

#[test]
fn words_of_a_chat_pass_nginx_one_by_one() {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let nginx = Nginx::start(&gateway.address, &[]);
    one_by_one(&server, &nginx.address);
}

#[test]
fn a_reader_who_leaves_nginx_stops_the_stream() {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let nginx = Nginx::start(&gateway.address, &[]);
    std::thread::scope(|scope| {
        let open = scope.spawn(|| Stream::open(&nginx.address, &[], "told"));
        wait_until("the stream to begin", || (server.talker.streams().len() == 1).then_some(()));
        server.talker.say(piece("one"));
        let mut stream = open.join().expect("it opens");
        assert_eq!(stream.text(), "one");
    });
    // The reader was dropped with its thread's scope.
    wait_until("the stream to be stopped", || server.talker.streams()[0].stopped.then_some(()));
}

#[test]
fn a_client_that_leaves_nginx_leaves_the_model_server() {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let nginx = Nginx::start(&gateway.address, &[]);
    let mut stream = connect(&nginx.address);
    stream
        .write_all(&request("POST", "/v1/classify?model=held", &[("content-type", "image/png")], b"hello"))
        .expect("open");
    wait_until("the call to begin", || (server.arrived().len() == 1).then_some(()));
    drop(stream);
    wait_until("the server to stop the work", || (server.stopped() == 1).then_some(()));
}

#[test]
fn tls_and_http_2_are_served_besides() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let (certificate, key) = (path("c.pem"), path("k.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let tls = free_address();
    let text = |path: &Path| path.to_str().expect("temporary folders have plain names").to_owned();
    let (certificate, key) = (text(&certificate), text(&key));
    let nginx = Nginx::start(&gateway.address, &["--tls-listen", &tls, "--certificate", &certificate, "--key", &key]);
    let (_, port) = tls.rsplit_once(':').expect("host:port");
    let url = format!("https://localhost:{port}");
    let answer = curl(&["--http2", "--cacert", &certificate, &format!("{url}/v1/models")]);
    assert!(answer.starts_with("HTTP/2 200") && answer.contains("\"good\""), "{answer}");
    let answer = curl(&[
        "--cacert",
        &certificate,
        "-H",
        "content-type: image/png",
        "--data-binary",
        "hello",
        &format!("{url}/v1/classify?model=good"),
    ]);
    assert!(answer.contains("label <0>"), "{answer}");
    let plain = get(&tls, "/v1/models");
    assert_eq!((plain.status, plain.code().as_str()), (400, "bad_request"), "plain HTTP on the TLS port");
    assert_eq!(get(&nginx.address, "/v1/models").status, 200);
}

#[test]
fn as_one_site_of_many_it_answers_to_its_own_name() {
    let (server, folder, address) =
        (FakeServer::start(), tempfile::tempdir().expect("a temporary folder"), free_address());
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    let place = |name: &str| folder.path().join(name).display().to_string();
    for name in ["conf/conf.d", "logs", "tmp"] {
        std::fs::create_dir_all(place(name)).expect("a folder");
    }
    // A system's nginx with a default server of its own on the same port.
    let system = format!(
        "pid logs/nginx.pid;\nevents {{}}\nhttp {{\n  client_body_temp_path tmp/body;\n  proxy_temp_path tmp/proxy;\n  \
         fastcgi_temp_path tmp/fastcgi;\n  uwsgi_temp_path tmp/uwsgi;\n  scgi_temp_path tmp/scgi;\n  \
         include conf.d/*.conf;\n  server {{ listen {address} default_server; return 418; }}\n}}\n"
    );
    std::fs::write(place("conf/nginx.conf"), system).expect("a file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nginx/configure");
    let site = place("conf/conf.d/outboard.conf");
    let configure = |more: &[&str]| {
        let mut command = Command::new(script);
        command.args(["--site", &site, "--listen", &address, "--gateway", &gateway.address]);
        command.args(["--cache", &place("tmp/assets"), "--logs", &place("logs")]).args(more);
        command.output().expect("nginx/configure runs")
    };
    let unnamed = configure(&[]);
    assert_eq!(unnamed.status.code(), Some(2), "a site without a name would never be asked");
    assert!(String::from_utf8_lossy(&unnamed.stderr).contains("--server-name"), "{unnamed:?}");
    assert!(configure(&["--server-name", "outboard.example,www.outboard.example"]).status.success());
    let nginx = Nginx::run(folder, address);
    let asked = |host: &str| {
        let head = format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = connect(&nginx.address);
        stream.write_all(head.as_bytes()).expect("is sent");
        read(&mut stream).status
    };
    assert_eq!(asked("outboard.example"), 200);
    assert_eq!(asked("www.outboard.example"), 200);
    assert_eq!(asked("another.example"), 418);
}

#[test]
fn what_could_change_the_files_meaning_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (listen, gateway, options) in [
        ("127.0.0.1:1; return 200", "127.0.0.1:2", &[][..]),
        ("127.0.0.1", "127.0.0.1:2", &[]),
        ("127.0.0.1:1", "a b:2", &[]),
        ("127.0.0.1:1", "127.0.0.1:2", &["--rate", "0"]),
        ("127.0.0.1:1", "127.0.0.1:2", &["--tls-listen", "127.0.0.1:3"]),
        ("127.0.0.1:1", "127.0.0.1:2", &["--nonsense", "1"]),
        ("127.0.0.1:1", "127.0.0.1:2", &["--server-name", "a.example"]),
    ] {
        let output = Nginx::configure(folder.path(), listen, gateway, options);
        assert_eq!(output.status.code(), Some(2), "{listen} {gateway} {options:?}: {output:?}");
    }
}
