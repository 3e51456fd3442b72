//! Writes where fuzzing begins into `fuzz/corpus`: one well-formed thing of each kind, named `seed-...`.
//!
//! `cargo run --profile fast -p hostile --example seeds` after a change of the IDL or of a target.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use idl::base::{Base, Priority};
use idl::fault::{Fault, FaultCode};
use idl::{chat, health, inference};
use wire::{ApplicationErrorKind, DecodeLimits, MessageKind, Protocol, Request, TSerializable, encode_call};

const PROTOCOLS: [(Protocol, u8, &str); 2] = [(Protocol::Binary, 0, "binary"), (Protocol::Compact, 0x80, "compact")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder can be made");
    fs::write(folder.join(format!("seed-{name}")), bytes).expect("a file can be written");
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn base() -> Option<Base> {
    Some(Base {
        request_id: text("request-1"),
        caller: text("seeds"),
        call_id: Some(Bytes::from_static(&[7; 16])),
        timeout_ms: Some(1_000),
        traceparent: text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        priority: Some(Priority::INTERACTIVE),
        tracestate: text("rojo=00f067aa0ba902b7"),
        key: None,
    })
}

/// A call in every form in which targets take it. `number` is the method's in `hostile`'s list.
fn call<Q: TSerializable>(number: u8, name: &str, args: &Q) {
    for (protocol, flag, kind) in PROTOCOLS {
        let frame = encode_call(protocol, name, 7, MessageKind::Call, args).expect("it fits").to_bytes();
        let head = if protocol == Protocol::Binary { 12 + name.len() } else { 4 + name.len() };
        write("request", &format!("{name}-{kind}"), &[&[number | flag], &frame[4 + head..]].concat());
        write("envelope", &format!("{name}-{kind}"), &frame[4..]);
        if number.is_multiple_of(4) {
            write("frame", &format!("{name}-{kind}"), &[&[3], &frame[..], &frame[..]].concat());
        }
    }
}

fn reply<R: TSerializable>(number: u8, name: &str, value: &Result<R, Fault>) {
    for (protocol, flag, kind) in PROTOCOLS {
        let call = encode_call(protocol, "m", 7, MessageKind::Call, &health::CheckRequest::default()).expect("it fits");
        let call = Request::parse(call.to_bytes().slice(4..), &DecodeLimits::default()).expect("a call");
        let frame = match value {
            Ok(value) => call.reply(value),
            Err(fault) => call.exception(fault),
        };
        let head = if protocol == Protocol::Binary { 13 } else { 5 };
        write("reply", &format!("{name}-{kind}"), &[&[number | flag], &frame.to_bytes()[4 + head..]].concat());
        let error = call.application_error(ApplicationErrorKind::UnknownMethod, "no such method").to_bytes();
        write("reply", &format!("exception-{kind}"), &[&[0x40 | flag], &error[4 + head..]].concat());
        write("envelope", &format!("answer-{name}-{kind}"), &frame.to_bytes()[4..]);
    }
}

fn requests() {
    let tensor = inference::Tensor {
        name: text("image"),
        data_type: Some(inference::DataType::F32),
        shape: Some(vec![1, 2]),
        data: Some(Bytes::from_static(&[0; 8])),
        strings: None,
    };
    let words = inference::Tensor { data: None, strings: Some(vec!["é".to_owned()]), ..tensor.clone() };
    call(0, "models", &inference::ModelsRequest { base: base(), model: text("m"), with_labels: Some(true) });
    let infer = inference::InferRequest {
        base: base(),
        model: text("m"),
        version: text("1"),
        inputs: Some(vec![tensor.clone(), words]),
        outputs: Some(vec!["scores".to_owned()]),
    };
    call(1, "infer", &infer);
    let classify = inference::ClassifyRequest {
        base: base(),
        model: text("m"),
        images: Some(vec![Bytes::from_static(b"\xff\xd8\xff")]),
        top_k: Some(5),
        preview_px: Some(64),
        ..Default::default()
    };
    call(2, "classify", &classify);
    let embed = inference::EmbedRequest {
        model: text("m"),
        texts: Some(vec!["one".to_owned()]),
        tokens: Some(vec![inference::TokenIds { ids: Some(vec![1, 2, 3]) }]),
        normalise: Some(true),
        ..Default::default()
    };
    call(3, "embed", &embed);
    let sampling = chat::Sampling {
        temperature: Some(0.5.into()),
        logit_bias: Some([(3, 1.5.into())].into()),
        seed: Some(-1),
        ..Default::default()
    };
    let complete = chat::ChatRequest {
        base: base(),
        model: text("m"),
        messages: Some(vec![chat::Message { role: text("user"), content: text("Grüß dich"), name: None }]),
        sampling: Some(sampling),
        stop: Some(vec!["\n".to_owned()]),
        format: Some(chat::Format { kind: Some(chat::FormatKind::JSON_SCHEMA), schema: text("{}") }),
        ..Default::default()
    };
    call(4, "complete", &complete);
    let start = chat::StartRequest {
        stream_key: Some(Bytes::from_static(&[1; 16])),
        chat: Some(complete),
        bound: Some(true),
        ..Default::default()
    };
    call(5, "start", &start);
    let next = chat::NextRequest { stream_id: text("s"), from_piece: Some(3), wait_ms: Some(10), ..Default::default() };
    call(6, "next_pieces", &next);
    call(7, "stop", &chat::StopRequest { stream_id: text("s"), ..Default::default() });
    call(8, "check", &health::CheckRequest { base: base(), model: text("m") });
    call(9, "load", &idl::admin::LoadRequest { model: text("m"), version: text("2"), ..Default::default() });
    call(12, "cancel", &inference::CancelRequest { call_id: Some(Bytes::from_static(&[1; 16])), ..Default::default() });
    call(0, "Inference:models", &inference::ModelsRequest::default());
}

fn replies() {
    let health = health::CheckReply {
        status: Some(health::ServingStatus::SERVING),
        since_ms: Some(1),
        load: Some(0.5.into()),
        live: Some(true),
        models: Some(vec![health::ModelHealth { model: text("m"), waiting: Some(1), ..Default::default() }]),
        ..Default::default()
    };
    reply(8, "check", &Ok(health));
    let label = inference::Label { label: text("cat"), index: Some(1), score: Some(0.5.into()) };
    let picture = inference::Classification {
        labels: Some(vec![label]),
        format: text("png"),
        preview: Some(Bytes::from_static(b"x")),
        ..Default::default()
    };
    reply(2, "classify", &Ok(inference::ClassifyReply { results: Some(vec![picture]), ..Default::default() }));
    let info = inference::ModelInfo { name: text("m"), versions: Some(vec!["1".to_owned()]), ..Default::default() };
    reply(0, "models", &Ok(inference::ModelsReply { models: Some(vec![info]), request_id: text("r") }));
    let embed = inference::EmbedReply { vectors: Some(Bytes::from_static(&[0; 8])), ..Default::default() };
    reply(3, "embed", &Ok(embed));
    let token = chat::TokenLogprob {
        token: Some(1),
        text: text("a"),
        logprob: Some((-0.5).into()),
        top: Some(vec![Box::new(chat::AlternativeToken { token: Some(2), ..Default::default() })]),
        ..Default::default()
    };
    let piece = chat::Piece {
        number: Some(0),
        text: text("a"),
        logprobs: Some(vec![token]),
        error: Some(FaultCode::CANCELLED),
        ..Default::default()
    };
    reply(6, "next_pieces", &Ok(chat::NextReply { pieces: Some(vec![piece]), ended: Some(true), request_id: None }));
    let fault = Fault {
        code: Some(FaultCode::TOO_LARGE),
        message: text("too large"),
        retry_after_ms: Some(5),
        request_id: text("r"),
        param: text("image"),
        trace_id: text("0af7651916cd43dd8448eb211c80319c"),
    };
    reply::<inference::ModelsReply>(0, "fault", &Err(fault));
}

fn strangers() {
    let first: [(&str, &[u8]); 8] = [
        ("http", b"GET / HTTP/1.1\r\n\r\n"),
        ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01"),
        ("theader", b"\0\0\0\x23\x0f\xff\0\0\0\0\0\x01\0\x01"),
        ("json", b"\0\0\0\x2c[1,\"ping\",1,0,{}]"),
        ("unframed", b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x09"),
        ("old", b"\0\0\0\x19\0\0\0\x04ping\x01\0\0\0\x07"),
        ("large", b"\x01\0\0\0\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01"),
    ];
    for (name, bytes) in first {
        write("frame", name, &[&[5], bytes].concat());
    }
}

/// A call of Kitex, and one with every kind of block.
fn ttheaders() {
    let kitex = fs::read(root().join("crates/wire/tests/golden/kitex-check.ttheader")).expect("it is in the tree");
    write("envelope", "ttheader-kitex", &kitex[4..]);
    write("frame", "ttheader", &[&[9], &kitex[..], &kitex[..]].concat());
    let blocks = b"\0\0\x11\0\x02tk\x01\0\x01\0\x05logid\0\x01a\x10\0\x01\0\x0c\0\x029\x39\0\0\0\0";
    let words = (blocks.len() / 4) as u8;
    let head = [&b"\x10\0\0\x01\0\0\0\x07\0"[..], &[words], &blocks[..usize::from(words) * 4]].concat();
    write("envelope", "ttheader-blocks", &[&head, &b"\x82\x21\x07\x01m\0"[..]].concat());
}

fn forms() {
    let part = |head: &str, body: &str| format!("--X\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n");
    let file = "name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png";
    let forms = [
        ("empty", "--X--\r\n".to_owned()),
        ("one", part(file, "picture") + "--X--\r\n"),
        ("named", part("name=\"model\"", "mnist") + &part("name=\"top_k\"", "3") + &part(file, "p") + "--X--\r\n"),
        ("none-chosen", part(file, "") + "--X--\r\n"),
        ("cut", part(file, "picture")),
        ("boundary-inside", part(file, "\r\n--Y\r\n--\r\n--X") + "--X--"),
        ("large", part(file, &"a".repeat(600)) + "--X--\r\n"),
        ("five", part(file, "p").repeat(5) + "--X--\r\n"),
        ("no-name", part("filename=\"a\"", "p") + "--X--\r\n"),
        ("no-head", "--X\r\n\r\nbody\r\n--X--\r\n".to_owned()),
        ("preamble", format!("before\r\n{}--X--\r\nafter", part(file, "p"))),
    ];
    for (name, form) in forms {
        write("multipart", name, &[&[7], form.as_bytes()].concat());
    }
    write(
        "multipart",
        "not-utf8",
        b"\x02--X\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n\xff\xfe\r\n--X--\r\n",
    );
}

/// Files of the tree, when they are small.
fn files(target: &str, folder: &Path, endings: &[&str]) {
    for entry in fs::read_dir(folder).expect("it is in the tree") {
        let path = entry.expect("it is in the tree").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let bytes = if path.is_file() { fs::read(&path).expect("it is in the tree") } else { continue };
        if bytes.len() <= 1_200 && endings.iter().any(|ending| name.ends_with(ending)) {
            write(target, &name, &bytes);
        }
    }
}

fn settings() {
    for folder in fs::read_dir(root().join("models")).expect("it is in the tree") {
        let folder = folder.expect("it is in the tree").path();
        if let Ok(bytes) = fs::read(folder.join("model.toml")) {
            write("model_toml", &folder.file_name().expect("a name").to_string_lossy(), &bytes);
        }
    }
    let odd = [
        ("kind", "task = 7"),
        ("unknown", "no_such_key = 1"),
        ("range", "task = \"chat\"\n[chat]\nkv_bytes = -1"),
        ("huge", "intra_threads = 99999999999999999999"),
        ("batching", "task = \"tensor\"\n[batching]\nmax_rows = 4\nbuckets = [1, 4, 2]"),
        ("input", "task = \"classify\"\n[input]\nwidth = 0\nheight = 8\nmean = [0.5]\nstd = [0]"),
        ("provider", "device = \"cuda:99999\"\n[provider]\nx = \"y\""),
        ("embed", "task = \"embed\"\n[embed]\npooling = \"cls\"\nmax_tokens = 0"),
        ("nan", "task = \"chat\"\n[chat]\ntemperature = nan\ntop_p = inf"),
    ];
    for (name, text) in odd {
        write("model_toml", name, text.as_bytes());
    }
}

fn main() {
    requests();
    replies();
    strangers();
    ttheaders();
    forms();
    settings();
    let endings = ["jpg", "png", "gif", "webp", "bmp", "tiff", "tif", "ico", "heic", "avif"];
    files("picture", &root().join("crates/vision/testdata/odd-images"), &endings);
}
