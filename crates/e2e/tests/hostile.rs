//! What strangers send to the Thrift port. Each is answered as designed, memory stays flat, the server goes on serving.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use e2e::{Parts, Stand, repository, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn stand(settings: &[&str]) -> Stand {
    let server = settings.iter().map(|text| (*text).to_owned()).collect();
    Stand::start(Parts { web: false, only: vec!["fashion-mnist".into()], server, ..Parts::default() })
}

/// Sends `bytes`, then reads until the server closes.
fn exchange(stand: &Stand, bytes: &[u8]) -> Vec<u8> {
    let mut stream = stand.connect_thrift();
    stream.write_all(bytes).expect("the server reads");
    read_to_close(&mut stream)
}

fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the server neither answered nor closed: {error} after {} bytes", answer.len()),
    }
}

/// A strict binary call of `method` whose argument struct is `arguments`, framed.
fn call(method: &str, arguments: &[u8]) -> Vec<u8> {
    let mut message = vec![0x80, 0x01, 0x00, 0x01];
    message.extend_from_slice(&(method.len() as u32).to_be_bytes());
    message.extend_from_slice(method.as_bytes());
    message.extend_from_slice(&[0, 0, 0, 7]);
    message.extend_from_slice(arguments);
    let mut frame = (message.len() as u32).to_be_bytes().to_vec();
    frame.append(&mut message);
    frame
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).expect("the whole answer");
    frame
}

/// The message type of a strict binary frame: 2 reply, 3 exception.
fn message_type(frame: &[u8]) -> u8 {
    frame[3]
}

/// `check` with an empty request struct: field 1, a struct that ends at once, end of the arguments.
const CHECK: &[u8] = &[12, 0, 1, 0, 0];

fn expect_serving(stand: &Stand) {
    let mut stream = stand.connect_thrift();
    stream.write_all(&call("check", CHECK)).expect("the server reads");
    assert_eq!(message_type(&read_frame(&mut stream)), 2);
    assert_eq!(stand.probe(&[&stand.thrift(), "--deep"]).status.code(), Some(0));
}

#[test]
fn other_protocols_are_told_what_this_port_speaks() {
    let stand = stand(&[]);
    let http = String::from_utf8(exchange(&stand, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).expect("text");
    assert!(http.starts_with("HTTP/1.1 400 ") && http.contains("framed Thrift"), "{http}");
    // An unframed strict binary call gets an unframed exception that names the cure.
    let unframed = exchange(&stand, &call("check", CHECK)[4..]);
    assert_eq!(unframed[..4], [0x80, 0x01, 0x00, 0x03], "{unframed:02x?}");
    assert!(String::from_utf8_lossy(&unframed).to_lowercase().contains("framed"), "{unframed:02x?}");
    let unframed = exchange(&stand, b"\x82\x21\x00\x05check\x00");
    assert_eq!(unframed[0], 0x82, "{unframed:02x?}");
    assert!(String::from_utf8_lossy(&unframed).to_lowercase().contains("framed"), "{unframed:02x?}");
    // A TLS client sees a handshake alert instead of a silence.
    let tls = exchange(&stand, b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03 and so on");
    assert_eq!(tls, [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28]);
    for bytes in [&b"\x00\x00\x00\x05hello"[..], b"[1,\"check\",1,0,{}]", b"\xff\xff\xff\xff\xff\xff\xff\xff"] {
        let mut stream = stand.connect_thrift();
        stream.write_all(bytes).expect("the server reads");
        let _ = stream.shutdown(Shutdown::Write);
        read_to_close(&mut stream);
    }
    // The log tells once for each address, the metrics count them all.
    wait_until("the log to tell of the first", Duration::from_secs(20), || {
        stand.server.as_ref().expect("started").log().contains("http request on the thrift port").then_some(())
    });
    for (kind, count) in [("http", 1.0), ("tls", 1.0), ("unframed_thrift", 4.0)] {
        let prefix = format!("outboard_server_strangers_total{{name=\"{kind}\"}}");
        assert_eq!(stand.server_metric(&prefix), count, "{kind}");
    }
    expect_serving(&stand);
}

#[test]
fn lying_sizes_cost_nothing() {
    let mut stand = stand(&[]);
    expect_serving(&stand);
    let before = stand.server.as_ref().expect("started").resident_bytes();
    // A frame of 2 GiB, and one just over the limit: refused before anything is kept.
    for length in [0x7fff_ffff_u32, 16_384_001] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0x80, 0x01, 0x00, 0x01]);
        exchange(&stand, &bytes);
    }
    // Calls whose contents lie: each is answered with an exception and the connection lives on.
    let list_of_2_to_31 = [&[12, 0, 1, 15, 0, 4, 11][..], &[0x7f, 0xff, 0xff, 0xff]].concat();
    let list_of_structs = [&[12, 0, 1, 15, 0, 4, 12][..], &[0x05, 0xf5, 0xe1, 0x00]].concat();
    let binary_of_1_gib = [&[12, 0, 1, 11, 0, 2][..], &[0x40, 0, 0, 0], b"abc"].concat();
    let negative = [&[12, 0, 1, 11, 0, 2][..], &[0xff, 0xff, 0xff, 0xff]].concat();
    let deep = [12, 0, 1].repeat(10_000);
    let mut stream = stand.connect_thrift();
    for arguments in [list_of_2_to_31, list_of_structs, binary_of_1_gib, negative, deep] {
        stream.write_all(&call("classify", &arguments)).expect("the connection lives");
        assert_eq!(message_type(&read_frame(&mut stream)), 3);
    }
    stream.write_all(&call("check", CHECK)).expect("the connection lives");
    assert_eq!(message_type(&read_frame(&mut stream)), 2);
    // 64 peers that announce 16 MB each and send nothing more.
    let silent: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = stand.connect_thrift();
            stream.write_all(&16_000_000_u32.to_be_bytes()).expect("the server reads");
            stream.write_all(&[0x80, 0x01, 0x00, 0x01]).expect("the server reads");
            stream
        })
        .collect();
    expect_serving(&stand);
    let after = stand.server.as_ref().expect("started").resident_bytes();
    assert!(after < before + (64 << 20), "{} MiB grew to {} MiB", before >> 20, after >> 20);
    drop(silent);
    assert!(stand.server.as_mut().expect("started").ended().is_none());
}

#[test]
fn half_a_frame_and_silence_ends_the_connection() {
    let stand = stand(&["limits.frame_time=300ms"]);
    let mut stream = stand.connect_thrift();
    stream.write_all(&call("check", CHECK)[..10]).expect("the server reads");
    assert_eq!(read_to_close(&mut stream), b"");
    expect_serving(&stand);
}

#[test]
fn ten_thousand_idle_connections_are_cheap() {
    const IDLE: u64 = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|most| most > IDLE + 500);
    assert!(enough, "the hard limit on open files is {:?}: this test needs {}", limit.maximum, IDLE + 500);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
    let stand = stand(&[]);
    expect_serving(&stand);
    let server = stand.server.as_ref().expect("started");
    let before = server.resident_bytes();
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| stand.connect_thrift()).collect();
    expect_serving(&stand);
    let each = server.resident_bytes().saturating_sub(before) / IDLE;
    println!("{each} bytes of memory for an idle connection");
    assert!(each < 8 << 10, "{each} bytes of memory for an idle connection");
    drop(idle);
    expect_serving(&stand);
}

#[test]
fn a_caller_that_leaves_stops_its_work_and_the_next_one_is_served() {
    // A model that never ends by itself: only a stop frees the worker.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let version = folder.path().join("endless/1");
    std::fs::create_dir_all(&version).expect("a fresh folder");
    std::fs::copy(repository().join("crates/runtime/testdata/endless.onnx"), version.join("model.onnx"))
        .expect("in the tree");
    let toml = "task = \"tensor\"\ninstances = 1\nwarm_up = false\n";
    std::fs::write(folder.path().join("endless/model.toml"), toml).expect("a fresh file");
    let mut stand = Stand::start(Parts {
        models: vec![folder.path().to_owned()],
        only: vec!["endless".into()],
        web: false,
        ..Parts::default()
    });
    for round in 0..3 {
        let mut command = std::process::Command::new(e2e::target_folder().join("outboard"));
        command.args(["call", "infer", "--server", &stand.thrift(), "--model", "endless", "--timeout", "60s"]);
        command.args(["--input", r#"x=f32:[1]:[1.0]"#]);
        let mut caller = e2e::Program::start("caller", command, stand.folder());
        wait_until("the run to begin", Duration::from_secs(30), || {
            (stand.server_metric("outboard_engine_running_rows") >= 1.0).then_some(())
        });
        caller.kill();
        wait_until("the run to end", Duration::from_secs(30), || {
            (stand.server_metric("outboard_engine_running_rows") == 0.0).then_some(())
        });
        assert_eq!(stand.server.as_mut().expect("started").ended(), None, "round {round}");
    }
    // A deadline ends it as well, and the caller learns so.
    let output = stand.outboard(&[
        "call",
        "infer",
        "--server",
        &stand.thrift(),
        "--model",
        "endless",
        "--timeout",
        "300ms",
        "--input",
        r#"x=f32:[1]:[1.0]"#,
    ]);
    assert_eq!(output.status.code(), Some(18), "{output:?}");
}
