//! HTTP by hand: tests must see headers, closed connections and single chunks, which clients hide.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longer than anything that these tests wait for; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The error object, after checking that it has the whole form and the id of the header.
    pub(crate) fn error(&self) -> serde_json::Value {
        let error = self.json()["error"].clone();
        for field in ["message", "type", "code", "request_id"] {
            assert!(error[field].is_string(), "error without `{field}`: {}", self.text());
        }
        assert!(error.get("param").is_some(), "error without `param`: {}", self.text());
        assert_eq!(error["request_id"].as_str(), self.header("x-request-id"), "{}", self.text());
        error
    }

    pub(crate) fn code(&self) -> String {
        self.error()["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream
}

/// A request's head and body. The connection is kept unless a header says otherwise.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One request on a connection of its own.
pub(crate) fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = connect(address);
    // A server that has seen enough may close before it has read everything; its answer counts all the same.
    let _ = stream.write_all(&request(method, path, headers, body));
    read(&mut stream)
}

pub(crate) fn get(address: &str, path: &str) -> Answer {
    ask(address, "GET", path, &[], b"")
}

/// Sends a picture to be classified.
pub(crate) fn classify(address: &str, model: &str, picture: &[u8]) -> Answer {
    ask(address, "POST", &format!("/v1/classify?model={model}"), &[("content-type", "image/png")], picture)
}

/// Reads the head of an answer.
pub(crate) fn read_head(stream: &mut TcpStream) -> Answer {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        let read =
            stream.read(&mut byte).unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head)));
        assert!(read == 1, "closed after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("heads are ASCII");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Answer { status, headers, body: Vec::new() }
}

/// Reads one answer.
pub(crate) fn read(stream: &mut TcpStream) -> Answer {
    let mut answer = read_head(stream);
    if answer.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(stream) {
            answer.body.extend_from_slice(&chunk);
        }
    } else {
        let length = answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        answer.body = vec![0; length];
        stream.read_exact(&mut answer.body).expect("a whole body");
    }
    answer
}

/// The next chunk of a chunked body, `None` after the last one.
pub(crate) fn read_chunk(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).expect("a chunk's length");
        line.push(byte[0]);
    }
    let length = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a chunk's length");
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk).expect("a chunk");
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

/// A body of `multipart/form-data` with its content type.
pub(crate) fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend_from_slice(
            format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XyZ--\r\n");
    ("multipart/form-data; boundary=XyZ".to_owned(), body)
}

/// Waits until `look` gives something.
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        // The pause between two looks, not the wait itself.
        std::thread::sleep(Duration::from_millis(5));
    }
}
