//! One HTTP caller on one kept connection, for latency; many callers are wrk's job.
//!
//! http_load ADDRESS PATH CONTENT_TYPE FILE REQUESTS
//!
//! Prints one line of JSON: requests, seconds, per_second, median_us, p99_us.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, kind, file, requests] = words.as_slice() else {
        eprintln!("http_load ADDRESS PATH CONTENT_TYPE FILE REQUESTS");
        std::process::exit(2);
    };
    let body = std::fs::read(file).expect("the file can be read");
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    let mut stream = TcpStream::connect(address).expect("something listens there");
    stream.set_nodelay(true).expect("a socket takes the option");
    let mut buffer = vec![0; 1 << 20];
    let mut micros: Vec<u32> = Vec::new();
    let begin = Instant::now();
    for _ in 0..requests.parse::<usize>().expect("a count is a number") {
        let sent = Instant::now();
        stream.write_all(&request).expect("the request is read");
        let mut have = 0;
        loop {
            let length = stream.read(&mut buffer[have..]).expect("an answer");
            assert!(length > 0, "the connection was closed");
            have += length;
            if let Some(whole) = whole_answer(&buffer[..have]) {
                assert_eq!(whole, have, "one answer for one request");
                break;
            }
        }
        micros.push(sent.elapsed().as_micros() as u32);
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..have]));
    }
    let seconds = begin.elapsed().as_secs_f64();
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    println!(
        "{{\"requests\": {}, \"seconds\": {seconds:.4}, \"per_second\": {:.1}, \"median_us\": {}, \"p99_us\": {}}}",
        micros.len(),
        micros.len() as f64 / seconds,
        at(0.5),
        at(0.99)
    );
}

/// The length of the answer at the start of `bytes`, once it is there whole; it has to state a Content-Length.
fn whole_answer(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("an answer of known length");
    let whole = end + line.trim().parse::<usize>().expect("a length is a number");
    (bytes.len() >= whole).then_some(whole)
}
