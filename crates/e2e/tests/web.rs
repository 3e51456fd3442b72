//! The HTTP API through the real nginx.

use e2e::{Answer, Http, Parts, Stand, repository};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(repository().join("models/testdata").join(name)).expect("in the tree")
}

/// Base64 with padding: enough for a test, so that no encoder is tested against itself.
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().chain([0, 0].iter()).take(3).fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        for place in 0..4 {
            let sign = SIGNS[(word >> (18 - 6 * place) & 63) as usize] as char;
            text.push(if place <= group.len() { sign } else { '=' });
        }
    }
    text
}

fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend_from_slice(b"--XyZ\r\n");
        body.extend_from_slice(format!("Content-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XyZ--\r\n");
    ("multipart/form-data; boundary=XyZ".to_owned(), body)
}

fn expect_boot(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["model"], "fashion-mnist");
    assert_eq!(body["results"][0]["label"], "Ankle boot");
    assert_eq!(body["results"][0]["index"], 9);
    assert!(body["results"][0]["score"].as_f64().is_some_and(|score| (0.5..=1.0).contains(&score)));
    assert_eq!(body["results"].as_array().map(Vec::len), Some(5));
    assert!(body["timing"].is_object());
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    assert!(answer.header("server-timing").is_some());
}

#[test]
fn the_three_forms_of_classify_give_the_same_answer() {
    let stand = Stand::start(Parts::default());
    let (http, shoe) = (stand.http(), data("shoe.png"));
    expect_boot(&http.post("/v1/classify?model=fashion-mnist", &[("content-type", "image/png")], &shoe));
    let (kind, body) = multipart(&[("model", None, b"fashion-mnist"), ("image", Some("shoe.png"), &shoe)]);
    expect_boot(&http.post("/v1/classify", &[("content-type", &kind)], &body));
    for image in [base64(&shoe), format!("data:image/png;base64,{}", base64(&shoe))] {
        let json = serde_json::json!({"model": "fashion-mnist", "image": image}).to_string();
        expect_boot(&http.post("/v1/classify", &[("content-type", "application/json")], json.as_bytes()));
    }
    let json = serde_json::json!({"model": "fashion-mnist", "images": [base64(&shoe), base64(&shoe)], "top_k": 2});
    let answer = http.post("/v1/classify", &[("content-type", "application/json")], json.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pictures = answer.json()["pictures"].clone();
    assert_eq!(pictures.as_array().map(Vec::len), Some(2), "{}", answer.text());
    assert_eq!(pictures[1]["results"][0]["label"], "Ankle boot");
    assert_eq!(pictures[1]["results"].as_array().map(Vec::len), Some(2));
}

#[test]
fn every_bad_request_has_an_error_of_its_own() {
    let stand = Stand::start(Parts::default());
    let (http, shoe) = (stand.http(), data("shoe.png"));
    let png = [("content-type", "image/png")];
    let json = [("content-type", "application/json")];
    let classify = "/v1/classify?model=mnist";
    let mut truncated = data("coffee.jpg");
    truncated.truncate(5_000);
    // The header of a PNG of 50,000 x 50,000 px.
    let mut huge = shoe.clone();
    huge[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let odd = repository().join("crates/vision/testdata/odd-images");
    huge = std::fs::read(odd.join("huge-header.png")).unwrap_or(huge);
    let heic = std::fs::read(odd.join("phone.heic")).expect("in the tree");
    let (form, no_picture) = multipart(&[("model", None, b"mnist")]);
    let cases: Vec<(&str, Answer, u16, &str)> = vec![
        ("empty body", http.post(classify, &png, b""), 400, "invalid_input"),
        ("text named png", http.post(classify, &png, b"this is plain text"), 415, "unsupported_media"),
        ("wrong type", http.post(classify, &[("content-type", "text/csv")], b"a,b"), 415, "unsupported_media"),
        ("heic", http.post(classify, &[("content-type", "image/heic")], &heic), 415, "unsupported_media"),
        ("truncated jpeg", http.post(classify, &[("content-type", "image/jpeg")], &truncated), 400, "invalid_input"),
        ("huge header", http.post(classify, &png, &huge), 413, "too_large"),
        ("unknown model", http.post("/v1/classify?model=nope", &png, &shoe), 404, "model_not_found"),
        ("bad model name", http.post("/v1/classify?model=../etc", &png, &shoe), 404, "model_not_found"),
        ("top_k of 0", http.post("/v1/classify?model=mnist&top_k=0", &png, &shoe), 400, "invalid_input"),
        ("top_k of 101", http.post("/v1/classify?model=mnist&top_k=101", &png, &shoe), 400, "invalid_input"),
        ("top_k of x", http.post("/v1/classify?model=mnist&top_k=x", &png, &shoe), 400, "invalid_input"),
        ("broken base64", http.post(classify, &json, br#"{"model":"mnist","image":"@@@@"}"#), 400, "invalid_input"),
        ("broken json", http.post(classify, &json, br#"{"model":"#), 400, "invalid_input"),
        ("no picture in the form", http.post(classify, &[("content-type", &form)], &no_picture), 400, "invalid_input"),
        ("no such page", http.get("/v1/nothing"), 404, "not_found"),
        ("wrong method", http.get("/v1/classify"), 405, "method_not_allowed"),
        ("16 MiB", http.post(classify, &png, &vec![0; 16 << 20]), 413, "too_large"),
    ];
    for (name, answer, status, code) in cases {
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{name}: {}", answer.text());
    }
    // A file name that tries things is never used for anything.
    for name in ["../../etc/passwd", "", "a\u{202e}gnp.exe", &"x".repeat(300)] {
        let (kind, body) = multipart(&[("model", None, b"fashion-mnist"), ("image", Some(name), &shoe)]);
        expect_boot(&http.post("/v1/classify", &[("content-type", &kind)], &body));
    }
    assert_eq!(stand.http().get("/health/ready").status, 200);
}

#[test]
fn a_sane_request_id_is_kept_and_a_bad_one_replaced() {
    let stand = Stand::start(Parts { only: vec!["mnist".into()], ..Parts::default() });
    let http = stand.http();
    let send = |id: &str| {
        http.post("/v1/classify?model=mnist", &[("content-type", "image/png"), ("x-request-id", id)], &data("shoe.png"))
    };
    assert_eq!(send("my-own-id.42").header("x-request-id"), Some("my-own-id.42"));
    let replaced = send("no spaces please").header("x-request-id").map(str::to_owned).expect("every answer has one");
    assert_ne!(replaced, "no spaces please");
    // The same id stands in the logs of both processes.
    let (gateway, server) = (stand.gateway.as_ref().expect("started"), stand.server.as_ref().expect("started"));
    e2e::wait_until("the id in both logs", Duration::from_secs(20), || {
        (gateway.log().contains("my-own-id.42") && server.log().contains("my-own-id.42")).then_some(())
    });
}

#[test]
fn a_budget_reaches_the_server_and_comes_back_as_a_deadline_exceeded() {
    let stand = Stand::start(Parts { only: vec!["mnist".into()], ..Parts::default() });
    let send = |budget: &str, picture: &[u8]| {
        let headers = [("content-type", "image/png"), ("x-request-timeout-ms", budget)];
        stand.http().post("/v1/classify?model=mnist", &headers, picture)
    };
    let answer = send("abc", &data("shoe.png"));
    assert_eq!((answer.status, answer.error_code().as_str()), (400, "invalid_input"), "{}", answer.text());
    // Nine million pixels take many times as long to decode as there is.
    let mut large = std::io::Cursor::new(Vec::new());
    let picture = image::GrayImage::from_fn(3000, 3000, |x, y| image::Luma([(x ^ y) as u8]));
    picture.write_to(&mut large, image::ImageFormat::Png).expect("is encoded");
    let answer = send("1", large.get_ref());
    assert_eq!((answer.status, answer.error_code().as_str()), (504, "deadline_exceeded"), "{}", answer.text());
    assert_eq!(send("60000", &data("shoe.png")).status, 200, "and nothing is left of it");
}

#[test]
fn pages_and_descriptions_are_served() {
    let stand = Stand::start(Parts::default());
    let http = stand.http();
    let home = http.get("/");
    assert!((301..=308).contains(&home.status) && home.header("location").is_some_and(|to| to.ends_with("/upload")));
    let upload = http.get("/upload");
    assert_eq!(upload.status, 200);
    let policy = upload.header("content-security-policy").expect("pages state a policy").to_owned();
    assert!(!policy.contains("unsafe"), "{policy}");
    for word in ["<form", "fashion-mnist", "mnist"] {
        assert!(upload.text().contains(word), "{word}");
    }
    let described = http.get("/openapi.json").json();
    assert!(described["paths"]["/v1/classify"]["post"].is_object());
    assert_eq!(http.get("/docs").status, 200);
    let models = http.get("/v1/models").json();
    let names: Vec<&str> = models["data"].as_array().expect("a list").iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(names, ["fashion-mnist", "mnist"]);
    assert_eq!(http.get("/health/live").status, 200);
    // Counters are for the operator, not for the street.
    assert_eq!(http.get("/metrics").status, 404);
    assert!(stand.gateway_admin().get("/metrics").text().contains("outboard_"));
    // Without JavaScript the form posts and gets a page.
    let (kind, body) = multipart(&[("model", None, b"fashion-mnist"), ("image", Some("shoe.png"), &data("shoe.png"))]);
    let page = http.post("/upload", &[("content-type", &kind)], &body);
    assert_eq!(page.status, 200);
    for word in ["Ankle boot", "data:image/jpeg;base64,", "Sneaker"] {
        assert!(page.text().contains(word), "{word}");
    }
}

#[test]
fn a_slow_client_does_not_hold_others_up() {
    let stand = Stand::start(Parts { only: vec!["fashion-mnist".into()], ..Parts::default() });
    let mut slow = TcpStream::connect(stand.web_address()).expect("nginx listens");
    slow.write_all(b"POST /v1/classify?model=fashion-mnist HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 500\r\n\r\nab")
        .expect("nginx reads");
    expect_boot(&stand.http().post(
        "/v1/classify?model=fashion-mnist",
        &[("content-type", "image/png")],
        &data("shoe.png"),
    ));
    drop(slow);
}

#[test]
fn the_rate_limit_spares_loopback_and_answers_in_json() {
    let stand = Stand::start(Parts { only: vec!["mnist".into()], ..Parts::default() });
    // nginx sees 127.0.0.3 as a stranger: only 127.0.0.1 is exempt.
    let url = format!("{}/v1/models", stand.http().base());
    let mut limited = None;
    for _ in 0..400 {
        let output = std::process::Command::new("curl")
            .args(["-s", "-i", "--interface", "127.0.0.3", "-w", "\n%{http_code}", &url])
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.ends_with("429") {
            limited = Some(text);
            break;
        }
        assert!(text.ends_with("200"), "{text}");
    }
    let limited = limited.expect("a stranger is limited at last");
    assert!(limited.to_lowercase().contains("retry-after:") && limited.contains("\"rate_limited\""), "{limited}");
    let http: Http = stand.http();
    for _ in 0..400 {
        assert_eq!(http.get("/v1/models").status, 200);
    }
}

#[test]
fn a_keep_alive_connection_carries_many_requests() {
    let stand = Stand::start(Parts { only: vec!["mnist".into()], ..Parts::default() });
    let mut stream = TcpStream::connect(stand.web_address()).expect("nginx listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a timeout");
    for _ in 0..5 {
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").expect("open");
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).expect("an answer");
        assert!(buffer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..length]));
    }
}

/// The names of metrics in the tables of OPERATIONS.md, without labels and the ends that a type adds. `..._name` stands for the
/// beginning of the first name of its row, cut at any underscore, and `_name`.
fn documented(row: &str) -> Vec<String> {
    let quoted = row.split('`').skip(1).step_by(2).map(|text| text.split('{').next().unwrap_or(text).to_owned());
    let names: Vec<String> =
        quoted.map(|name| name.trim_end_matches("_total").trim_end_matches("_info").to_owned()).collect();
    let Some(first) = names.iter().find(|name| name.starts_with("outboard_")) else { return Vec::new() };
    let cuts: Vec<&str> = first.match_indices('_').map(|(at, _)| &first[..at]).collect();
    let rest = names.iter().filter_map(|name| name.strip_prefix("..."));
    let expanded = rest.flat_map(|rest| cuts.iter().map(move |cut| format!("{cut}{rest}")));
    expanded.chain(names.iter().cloned()).collect()
}

#[test]
fn operators_can_look_up_every_metric() {
    let nobody = vec!["traces.endpoint=http://127.0.0.1:9".to_owned()];
    let stand =
        Stand::start(Parts { only: vec!["mnist".into()], server: nobody.clone(), gateway: nobody, ..Parts::default() });
    let book = std::fs::read_to_string(repository().join("OPERATIONS.md")).expect("in the tree");
    let known: Vec<String> =
        book.lines().filter(|line| line.starts_with("| `outboard_")).flat_map(documented).collect();
    let (mut seen, mut missing) = (0, Vec::new());
    for page in [stand.server_admin(), stand.gateway_admin()].map(|admin| admin.get("/metrics").text()) {
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap_or_default();
            seen += 1;
            if !known.iter().any(|known| known == name) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(seen > 40, "{seen} metrics on both pages");
    assert!(missing.is_empty(), "OPERATIONS.md says nothing of {missing:?}");
}
