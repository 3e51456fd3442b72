//! A load generator that costs little: requests are encoded once, sent over a few connections with several calls in
//! flight on each, and replies are counted without being decoded (the first one is decoded and checked).
//!
//! thrift_load ADDRESS MODEL classify FILE | infer INPUT:DIMxDIMx...   IN_FLIGHT CONNECTIONS REQUESTS
//!
//! Prints one line of JSON: requests, seconds, per_second, median_us, p99_us, faults.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use idl::inference::{ClassifyReply, ClassifyRequest, DataType, InferReply, InferRequest, Tensor};
use wire::{DecodeLimits, FrameLimits, MessageKind, Protocol, Response, encode_call, split_frame};

struct Load {
    frame: Vec<u8>,
    address: String,
    classify: bool,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, model, method, what, in_flight, connections, requests] = words.as_slice() else {
        eprintln!("thrift_load ADDRESS MODEL classify FILE|infer INPUT:DIMxDIM IN_FLIGHT CONNECTIONS REQUESTS");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a count is a number");
    let (in_flight, connections, requests) = (number(in_flight), number(connections), number(requests));
    let load = Load { frame: encode(model, method, what), address: address.clone(), classify: method == "classify" };
    let begin = Instant::now();
    let results: Vec<(Vec<u32>, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| run(&load, (in_flight / connections).max(1), requests / connections)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a connection's thread lives")).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let faults: u64 = results.iter().map(|(_, faults)| faults).sum();
    let mut micros: Vec<u32> = results.into_iter().flat_map(|(micros, _)| micros).collect();
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    println!(
        "{{\"requests\": {}, \"seconds\": {seconds:.4}, \"per_second\": {:.1}, \"median_us\": {}, \"p99_us\": {}, \"faults\": {faults}}}",
        micros.len(),
        micros.len() as f64 / seconds,
        at(0.5),
        at(0.99)
    );
}

fn encode(model: &str, method: &str, what: &str) -> Vec<u8> {
    let frame = if method == "classify" {
        let picture = Bytes::from(std::fs::read(what).expect("the picture can be read"));
        let request = ClassifyRequest {
            base: None,
            model: Some(model.to_owned()),
            version: None,
            images: Some(vec![picture]),
            top_k: Some(5),
            preview_px: None,
        };
        encode_call(Protocol::Binary, "classify", 0, MessageKind::Call, &request)
    } else {
        let (name, dims) = what.split_once(':').expect("INPUT:DIMxDIM");
        let shape: Vec<i64> = dims.split('x').map(|dim| dim.parse().expect("a size is a number")).collect();
        let elements = shape.iter().product::<i64>() as usize;
        let data: Vec<u8> = (0..elements).flat_map(|i| ((i % 255) as f32 / 255.0).to_le_bytes()).collect();
        let tensor = Tensor {
            name: Some(name.to_owned()),
            data_type: Some(DataType::F32),
            shape: Some(shape),
            data: Some(Bytes::from(data)),
            strings: None,
        };
        let request = InferRequest {
            base: None,
            model: Some(model.to_owned()),
            version: None,
            inputs: Some(vec![tensor]),
            outputs: None,
        };
        encode_call(Protocol::Binary, "infer", 0, MessageKind::Call, &request)
    };
    let frame = frame.expect("the request fits a frame");
    frame.to_bytes().to_vec()
}

/// Keeps `in_flight` calls going on one connection until `requests` are answered.
fn run(load: &Load, in_flight: usize, requests: usize) -> (Vec<u32>, u64) {
    let mut stream = TcpStream::connect(&load.address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket takes the option");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket takes a timeout");
    // The sequence number stands behind the length, the version word and the method's name.
    let name = u32::from_be_bytes(load.frame[8..12].try_into().expect("four bytes")) as usize;
    let seqid_at = 12 + name;
    let mut sent: HashMap<i32, Instant> = HashMap::with_capacity(in_flight);
    let (mut micros, mut faults) = (Vec::with_capacity(requests), 0);
    let mut outgoing = Vec::with_capacity(load.frame.len() * in_flight);
    let mut next = 0_i32;
    let mut send = |count: usize, next: &mut i32, sent: &mut HashMap<i32, Instant>, stream: &mut TcpStream| {
        outgoing.clear();
        for _ in 0..count {
            *next += 1;
            let from = outgoing.len();
            outgoing.extend_from_slice(&load.frame);
            outgoing[from + seqid_at..from + seqid_at + 4].copy_from_slice(&next.to_be_bytes());
            sent.insert(*next, Instant::now());
        }
        stream.write_all(&outgoing).expect("the server reads");
    };
    send(in_flight.min(requests), &mut next, &mut sent, &mut stream);
    let limits = FrameLimits::default();
    let (mut buffer, mut chunk) = (BytesMut::new(), vec![0; 256 << 10]);
    while micros.len() < requests {
        let length = stream.read(&mut chunk).expect("the server answers");
        assert!(length > 0, "the server closed the connection");
        buffer.extend_from_slice(&chunk[..length]);
        let mut answered = 0;
        while let Some(frame) = split_frame(&mut buffer, &limits).expect("a sane length") {
            let head = Response::peek(&frame).expect("a Thrift message");
            let begin = sent.remove(&head.seqid).expect("an answer to a call of ours");
            if micros.is_empty() {
                check(load.classify, frame.clone());
            }
            faults += u64::from(!is_success(&frame));
            micros.push(begin.elapsed().as_micros() as u32);
            answered += 1;
        }
        let left = requests - micros.len();
        let open = sent.len();
        send(answered.min(left.saturating_sub(open)), &mut next, &mut sent, &mut stream);
    }
    (micros, faults)
}

/// The result struct begins with field 0 when it is a reply and with field 1 when it is a fault.
fn is_success(frame: &Bytes) -> bool {
    let mut rest = frame.clone();
    if frame[3] != 2 {
        return false;
    }
    rest.advance(4);
    let name = rest.get_u32() as usize;
    rest.advance(name + 4 + 1);
    rest.get_u16() == 0
}

fn check(classify: bool, frame: Bytes) {
    let response = Response::parse(frame, &DecodeLimits::default()).expect("a Thrift message");
    if classify {
        let reply = response.result::<ClassifyReply, idl::fault::Fault>().expect("a reply").expect("no fault");
        let results = reply.results.unwrap_or_default();
        assert!(results[0].labels.as_ref().is_some_and(|labels| !labels.is_empty()));
    } else {
        let reply = response.result::<InferReply, idl::fault::Fault>().expect("a reply").expect("no fault");
        let outputs = reply.outputs.unwrap_or_default();
        assert!(outputs[0].data.as_ref().is_some_and(|data| !data.is_empty()));
    }
}
