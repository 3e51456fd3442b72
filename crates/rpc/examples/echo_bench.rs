//! What carrying a call costs a server, next to the least and the usual that it could cost.
//!
//! Three servers echo one `binary` field: `ours` (this crate), `bare` (tokio echoing whole length-prefixed frames, one
//! vectored write for each read, no Thrift), `apache` (the `thrift` crate's threaded `TServer`, framed). Each runs in a
//! process of its own; the client sends frames that were encoded once, over one connection, and has one thread or two,
//! whichever the server is quicker with. Rounds are interleaved, and
//! medians of CPU time per call (from the scheduler, all threads of the server) are compared: unlike calls per second
//! they hardly depend on what else the machine does.
//!
//! The last lines are this crate's `Channel` against `ours`: what a caller waits for, in microseconds.
//!
//! `cargo run --release -p rpc --example echo_bench [-- ROUNDS [MILLISECONDS]]` prints a line of JSON for each
//! measurement, then one for each comparison.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use rpc::{
    CallContext, CallFuture, CallOptions, Channel, ChannelConfig, Drain, Instead, Refusal, Server, ServerLimits,
    Service,
};
use thrift::protocol::{
    TBinaryInputProtocolFactory, TBinaryOutputProtocolFactory, TFieldIdentifier, TInputProtocol, TMessageIdentifier,
    TMessageType, TOutputProtocol, TSerializable, TStructIdentifier, TType,
};
use thrift::server::{TProcessor, TServer};
use thrift::transport::{TFramedReadTransportFactory, TFramedWriteTransportFactory};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use units::Deadline;
use wire::{ApplicationErrorKind, Batch, Exception, MessageKind, Method, Outgoing, Protocol, Request};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const SERVERS: [&str; 3] = ["ours", "bare", "apache"];

/// Data bytes and calls in flight.
const CASES: [(usize, usize); 6] = [(784, 1), (784, 4), (784, 64), (1 << 20, 1), (1 << 20, 4), (1 << 20, 64)];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", "ours"] => serve_ours(),
        ["serve", "bare"] => serve_bare(),
        ["serve", "apache"] => serve_apache(),
        [] => compare(5, Duration::from_millis(500)),
        [rounds] => compare(rounds.parse()?, Duration::from_millis(500)),
        [rounds, millis] => compare(rounds.parse()?, Duration::from_millis(millis.parse()?)),
        _ => Err("usage: echo_bench [ROUNDS [MILLISECONDS]]".into()),
    }
}

// The message: arguments {1: {1: binary}}, result {0: {1: binary}}

struct Blob(Bytes);

impl TSerializable for Blob {
    fn read_from_in_protocol(input: &mut dyn TInputProtocol) -> thrift::Result<Self> {
        let mut data = Bytes::new();
        input.read_struct_begin()?;
        loop {
            let field = input.read_field_begin()?;
            match (field.field_type, field.id) {
                (TType::Stop, _) => break,
                (TType::String, Some(1)) => data = wire::read_blob(input)?,
                (kind, _) => input.skip(kind)?,
            }
            input.read_field_end()?;
        }
        input.read_struct_end()?;
        Ok(Self(data))
    }

    fn write_to_out_protocol(&self, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        output.write_struct_begin(&wire::structure())?;
        output.write_field_begin(&wire::field(TType::String, 1))?;
        wire::write_blob(output, &self.0)?;
        output.write_field_end()?;
        output.write_field_stop()?;
        output.write_struct_end()
    }
}

impl Exception for Blob {}

impl Outgoing for Blob {
    fn stamp(&mut self, _left: Duration) {}
}

// Servers

/// Tells the parent where, and ends the process when the parent has gone.
fn announce(address: SocketAddr) {
    println!("{address}");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

struct Echo;

impl Service for Echo {
    fn call(&self, request: Request, _call: CallContext) -> CallFuture {
        Box::pin(async move {
            Some(match request.args::<Blob>() {
                Ok(blob) => request.reply(&blob),
                Err(error) => request.undecodable(&error),
            })
        })
    }

    fn refuse(&self, request: &Request, why: Refusal) -> Instead {
        Instead::Refused(Some(request.application_error(ApplicationErrorKind::InternalError, why.name())))
    }
}

fn serve_ours() -> Outcome<()> {
    runtime()?.block_on(async {
        let server = Server::bind(([127, 0, 0, 1], 0).into(), ServerLimits::default()).await?;
        announce(server.local_addr()?);
        let (_handle, drain) = Drain::new(Drain::LIMIT);
        server.serve(Arc::new(Echo), drain).await;
        Ok(())
    })
}

fn serve_bare() -> Outcome<()> {
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo_frames(stream));
        }
    })
}

async fn echo_frames(mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    let mut out = Batch::new();
    loop {
        let lacking = wire::needed(&buffer);
        if buffer.capacity() - buffer.len() < lacking.max(16 << 10) {
            buffer.reserve(lacking.max(64 << 10));
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        // All complete frames of this read are one slice, as they came.
        let mut complete = 0;
        while let Some(prefix) = buffer[complete..].first_chunk::<4>() {
            let next = complete + 4 + u32::from_be_bytes(*prefix) as usize;
            if next > buffer.len() {
                break;
            }
            complete = next;
        }
        out.push_bytes(buffer.split_to(complete).freeze());
        while out.has_remaining() {
            stream.write_buf(&mut out).await?;
        }
    }
}

struct EchoProcessor;

impl TProcessor for EchoProcessor {
    fn process(&self, input: &mut dyn TInputProtocol, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        let call = input.read_message_begin()?;
        input.read_struct_begin()?;
        input.read_field_begin()?;
        input.read_struct_begin()?;
        input.read_field_begin()?;
        let data = input.read_bytes()?;
        for _ in 0..2 {
            input.read_field_end()?;
            input.read_field_begin()?;
            input.read_struct_end()?;
        }
        input.read_message_end()?;

        output.write_message_begin(&TMessageIdentifier::new(call.name, TMessageType::Reply, call.sequence_number))?;
        for (name, kind, id) in [("success", TType::Struct, 0), ("data", TType::String, 1)] {
            output.write_struct_begin(&TStructIdentifier::new(""))?;
            output.write_field_begin(&TFieldIdentifier::new(name, kind, id))?;
        }
        output.write_bytes(&data)?;
        for _ in 0..2 {
            output.write_field_end()?;
            output.write_field_stop()?;
            output.write_struct_end()?;
        }
        output.write_message_end()?;
        output.flush()
    }
}

fn serve_apache() -> Outcome<()> {
    // It cannot be asked for its port, so a free one is looked for.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut server = TServer::new(
        TFramedReadTransportFactory::new(),
        TBinaryInputProtocolFactory::new(),
        TFramedWriteTransportFactory::new(),
        TBinaryOutputProtocolFactory::new(),
        EchoProcessor,
        4,
    );
    announce(address);
    Ok(server.listen(address)?)
}

// Client

struct Measured {
    calls_per_second: f64,
    cpu_micros: f64,
}

fn compare(rounds: usize, time: Duration) -> Outcome<()> {
    let mut cpu: BTreeMap<(usize, usize, &str), Vec<f64>> = BTreeMap::new();
    let mut rate = cpu.clone();
    for round in 0..rounds {
        for (bytes, in_flight) in CASES {
            for server in SERVERS {
                let Measured { calls_per_second, cpu_micros } = best(server, bytes, in_flight, time)?;
                println!(
                    r#"{{"round":{round},"server":"{server}","bytes":{bytes},"in_flight":{in_flight},"calls_per_s":{calls_per_second:.0},"server_cpu_us_per_call":{cpu_micros:.3}}}"#
                );
                cpu.entry((bytes, in_flight, server)).or_default().push(cpu_micros);
                rate.entry((bytes, in_flight, server)).or_default().push(calls_per_second);
            }
        }
    }
    for (bytes, in_flight) in CASES {
        let ratio = |of: &BTreeMap<(usize, usize, &str), Vec<f64>>, above, below| {
            let (above, below) = (&of[&(bytes, in_flight, above)], &of[&(bytes, in_flight, below)]);
            median(above.iter().zip(below).map(|(above, below)| above / below).collect())
        };
        println!(
            r#"{{"bytes":{bytes},"in_flight":{in_flight},"cpu_bare_to_ours":{:.2},"cpu_apache_to_ours":{:.2},"calls_ours_to_bare":{:.2},"calls_ours_to_apache":{:.2}}}"#,
            ratio(&cpu, "bare", "ours"),
            ratio(&cpu, "apache", "ours"),
            ratio(&rate, "ours", "bare"),
            ratio(&rate, "ours", "apache"),
        );
    }
    for (bytes, callers) in [(784, 1), (784, 64), (1 << 20, 1), (1 << 20, 4)] {
        let mut waits = through_channel(bytes, callers, time)?;
        waits.sort_unstable();
        let at = |part: usize| waits[(waits.len() - 1) * part / 100].as_nanos() as f64 / 1e3;
        println!(
            r#"{{"client":"channel","bytes":{bytes},"callers":{callers},"calls_per_s":{:.0},"p50_us":{:.0},"p99_us":{:.0}}}"#,
            waits.len() as f64 / time.as_secs_f64(),
            at(50),
            at(99),
        );
    }
    Ok(())
}

/// How long each call took through a channel on one thread, as in a gateway's worker.
fn through_channel(bytes: usize, callers: usize, time: Duration) -> Outcome<Vec<Duration>> {
    const ECHO: Method<Blob, Blob, Blob> = Method::new("echo", true);
    let (_process, address) = start("ours")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Channel::new(vec![address.into()], ChannelConfig::default());
        let until = Instant::now() + time;
        let calls = (0..callers).map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let mut blob = Blob(Bytes::from(vec![0x5a; bytes]));
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let began = Instant::now();
                    let deadline = Deadline::after(began, Duration::from_secs(10));
                    channel.call(&ECHO, &mut blob, CallOptions::new(deadline)).await?.map_err(|_| "an exception")?;
                    waits.push(began.elapsed());
                }
                Outcome::Ok(waits)
            })
        });
        let mut all = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            all.extend(call.await??);
        }
        Ok(all)
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(server: &str) -> Outcome<(ServerProcess, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", server])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the server has no output")?;
    let process = ServerProcess(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((process, line.trim().parse()?))
}

/// How the client is built.
#[derive(Clone, Copy)]
enum Threads {
    /// It costs the least, and answers that come one by one make it send one by one.
    One,
    /// One writes while the other reads: needed for calls that fill the socket's buffers.
    Two,
}

/// What fits into a socket's buffers whether the other side reads or not.
const AT_ONCE: usize = 64 << 10;

/// Each server with the client that it is quicker with.
fn best(server: &str, bytes: usize, in_flight: usize, time: Duration) -> Outcome<Measured> {
    let two = measure(server, bytes, in_flight, Threads::Two, time)?;
    if bytes * in_flight > AT_ONCE {
        return Ok(two);
    }
    let one = measure(server, bytes, in_flight, Threads::One, time)?;
    Ok(if one.calls_per_second > two.calls_per_second { one } else { two })
}

fn measure(server: &str, bytes: usize, in_flight: usize, threads: Threads, time: Duration) -> Outcome<Measured> {
    let (process, address) = start(server)?;
    let stream = connect(address)?;
    stream.set_nodelay(true)?;

    run(&stream, bytes, in_flight, threads, time / 5)?;
    let cpu = cpu_nanos(process.0.id())?;
    let began = Instant::now();
    let calls = run(&stream, bytes, in_flight, threads, time)? as f64;
    let took = began.elapsed().as_secs_f64();
    let used = cpu_nanos(process.0.id())? - cpu;
    Ok(Measured { calls_per_second: calls / took, cpu_micros: used as f64 / 1e3 / calls })
}

/// The Apache server listens a moment after it said where.
fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// CPU time of all threads of a process.
fn cpu_nanos(process: u32) -> Outcome<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().ok_or("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Keeps `in_flight` calls on their way for `time`; the number of answers.
fn run(stream: &TcpStream, bytes: usize, in_flight: usize, threads: Threads, time: Duration) -> Outcome<usize> {
    let blob = Blob(Bytes::from(vec![0x5a; bytes]));
    let mut frames = Vec::new();
    for seqid in 1..=in_flight as i32 {
        frames.extend_from_slice(
            &wire::encode_call(Protocol::Binary, "echo", seqid, MessageKind::Call, &blob)?.to_bytes(),
        );
    }
    let frame_bytes = frames.len() / in_flight;
    let until = Instant::now() + time;
    if let Threads::One = threads {
        return in_turns(stream, &frames, frame_bytes, in_flight, until);
    }
    let (credits, grants) = mpsc::channel::<usize>();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_answers(stream, in_flight, until, &credits));
        write_calls(stream, &frames, frame_bytes, in_flight, &grants)?;
        reader.join().map_err(|_| "the reader panicked")?
    })
}

/// Writes as many calls as answers came. Only for calls that fit into a socket's buffers whether they are read or not.
fn in_turns(
    mut stream: &TcpStream,
    frames: &[u8],
    frame_bytes: usize,
    in_flight: usize,
    until: Instant,
) -> Outcome<usize> {
    stream.write_all(frames)?;
    let mut piece = vec![0; 64 << 10];
    let mut answers = Answers::default();
    let (mut calls, mut next) = (in_flight, 0);
    while answers.complete < calls {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        let before = answers.complete;
        answers.see(&piece[..read]);
        let mut new = answers.complete - before;
        if new > 0 && Instant::now() < until {
            calls += new;
            while new > 0 {
                let run = new.min(in_flight - next);
                stream.write_all(&frames[next * frame_bytes..(next + run) * frame_bytes])?;
                next = (next + run) % in_flight;
                new -= run;
            }
        }
    }
    Ok(answers.complete)
}

fn write_calls(
    mut stream: &TcpStream,
    frames: &[u8],
    frame_bytes: usize,
    in_flight: usize,
    grants: &mpsc::Receiver<usize>,
) -> Outcome<()> {
    stream.write_all(frames)?;
    let mut next = 0;
    while let Ok(first) = grants.recv() {
        let mut granted = first + grants.try_iter().sum::<usize>();
        while granted > 0 {
            let run = granted.min(in_flight - next);
            stream.write_all(&frames[next * frame_bytes..(next + run) * frame_bytes])?;
            next = (next + run) % in_flight;
            granted -= run;
        }
    }
    Ok(())
}

/// Counts answers and grants as many new calls, until the time is over and every call is answered.
fn read_answers(
    mut stream: &TcpStream,
    in_flight: usize,
    until: Instant,
    credits: &mpsc::Sender<usize>,
) -> Outcome<usize> {
    let mut piece = vec![0; 256 << 10];
    let mut answers = Answers::default();
    let mut calls = in_flight;
    while answers.complete < calls {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        let before = answers.complete;
        answers.see(&piece[..read]);
        let new = answers.complete - before;
        if new > 0 && Instant::now() < until {
            calls += new;
            credits.send(new)?;
        }
    }
    Ok(answers.complete)
}

/// Counts frames without keeping them: the client should cost little.
#[derive(Default)]
struct Answers {
    complete: usize,
    prefix: Vec<u8>,
    lacking: usize,
}

impl Answers {
    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.lacking == 0 {
                let (prefix, rest) = bytes.split_at(bytes.len().min(4 - self.prefix.len()));
                self.prefix.extend_from_slice(prefix);
                bytes = rest;
                let Some(prefix) = self.prefix.first_chunk::<4>() else { return };
                self.lacking = u32::from_be_bytes(*prefix) as usize;
                self.prefix.clear();
            }
            let taken = bytes.len().min(self.lacking);
            bytes = &bytes[taken..];
            self.lacking -= taken;
            self.complete += usize::from(self.lacking == 0 && taken > 0);
        }
    }
}
