//! A service and a raw client for this crate's tests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use thrift::protocol::{TFieldIdentifier, TInputProtocol, TOutputProtocol, TSerializable, TStructIdentifier, TType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use wire::{ApplicationErrorKind, Exception, FrameLimits, MessageKind, Method, Outgoing, Protocol, Request, Response};

use crate::{
    CallContext, CallFuture, Drain, DrainHandle, Instead, Refusal, Server, ServerLimits, ServerStats, Service,
};

/// Request, reply and exception of every test method: `1: i64 left_ms, 2: binary data, 3: optional Note inner`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) left_ms: i64,
    pub(crate) data: Bytes,
    pub(crate) inner: Option<Box<Note>>,
    /// `4: list<i64>`
    pub(crate) numbers: Vec<i64>,
}

impl Note {
    pub(crate) fn of(data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }
}

impl TSerializable for Note {
    fn read_from_in_protocol(input: &mut dyn TInputProtocol) -> thrift::Result<Self> {
        let mut note = Self::default();
        input.read_struct_begin()?;
        loop {
            let field = input.read_field_begin()?;
            match (field.field_type, field.id) {
                (TType::Stop, _) => break,
                (_, Some(1)) => note.left_ms = input.read_i64()?,
                (_, Some(2)) => note.data = wire::read_blob(input)?,
                (_, Some(3)) => note.inner = Some(Box::new(Self::read_from_in_protocol(input)?)),
                (_, Some(4)) => {
                    let list = input.read_list_begin()?;
                    for _ in 0..list.size {
                        note.numbers.push(input.read_i64()?);
                    }
                    input.read_list_end()?;
                }
                (kind, _) => input.skip(kind)?,
            }
            input.read_field_end()?;
        }
        input.read_struct_end()?;
        Ok(note)
    }

    fn write_to_out_protocol(&self, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        output.write_struct_begin(&TStructIdentifier::new(""))?;
        output.write_field_begin(&TFieldIdentifier::new("", TType::I64, 1))?;
        output.write_i64(self.left_ms)?;
        output.write_field_end()?;
        output.write_field_begin(&TFieldIdentifier::new("", TType::String, 2))?;
        wire::write_blob(output, &self.data)?;
        output.write_field_end()?;
        if let Some(inner) = &self.inner {
            output.write_field_begin(&TFieldIdentifier::new("", TType::Struct, 3))?;
            inner.write_to_out_protocol(output)?;
            output.write_field_end()?;
        }
        output.write_field_stop()?;
        output.write_struct_end()
    }
}

impl Exception for Note {
    fn turned_away(&self) -> bool {
        self.data == Refusal::Draining.name()
    }

    fn not_here(&self) -> bool {
        self.turned_away() || self.data == "loading"
    }

    fn failed(&self) -> bool {
        self.data == "failed"
    }
}

impl Outgoing for Note {
    fn stamp(&mut self, left: Duration) {
        self.left_ms = left.as_millis().max(1) as i64;
    }
}

pub(crate) const ECHO: Method<Note, Note, Note> = Method::new("echo", true);
pub(crate) const HOLD: Method<Note, Note, Note> = Method::new("hold", false);
pub(crate) const FAIL: Method<Note, Note, Note> = Method::new("fail", true);
pub(crate) const UNKNOWN: Method<Note, Note, Note> = Method::new("unknown", true);
pub(crate) const NOTED: Method<Note, Note, Note> = Method::oneway("noted");

/// What has happened in a service so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) started: usize,
    pub(crate) answered: usize,
    /// Calls whose future was dropped before it finished.
    pub(crate) cancelled: usize,
    /// Data of the oneway calls.
    pub(crate) noted: Vec<Bytes>,
}

/// `echo` answers at once, `more` as well and also in a drain, `hold` when [`Notes::open`] lets it, `swell` then, too, with as many bytes as `left_ms` says,
/// `fail` with the exception, `panic` and `panic_late` not at all, `noted` is oneway, `health` is answered in a drain.
pub(crate) struct Notes {
    happened: watch::Sender<Happened>,
    gates: Mutex<HashMap<Bytes, Arc<Notify>>>,
    /// When not zero, `hold` takes this long and waits for nobody.
    delay: Duration,
}

impl Default for Notes {
    fn default() -> Self {
        Self { happened: watch::Sender::default(), gates: Mutex::default(), delay: Duration::ZERO }
    }
}

impl Notes {
    /// A service whose `hold` opens by itself.
    pub(crate) fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// Lets the `hold` call with this data finish, now or when it comes.
    pub(crate) fn open(&self, data: &'static str) {
        self.gate(&Bytes::from_static(data.as_bytes())).notify_one();
    }

    fn gate(&self, data: &Bytes) -> Arc<Notify> {
        // Copied: a slice would keep the request's frame.
        Arc::clone(self.gates.lock().entry(Bytes::copy_from_slice(data)).or_default())
    }

    pub(crate) fn happened(&self) -> Happened {
        self.happened.borrow().clone()
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until(&self, condition: impl FnMut(&Happened) -> bool) {
        self.happened.subscribe().wait_for(condition).await.expect("the sender lives");
    }
}

/// Tells of a call that was dropped.
struct Watched {
    notes: watch::Sender<Happened>,
    finished: bool,
}

impl Watched {
    /// A method, so that futures own the whole value and not a copy of its field.
    fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let finished = self.finished;
        self.notes.send_modify(|happened| if finished { happened.answered += 1 } else { happened.cancelled += 1 });
    }
}

impl Service for Notes {
    fn call(&self, request: Request, _call: CallContext) -> CallFuture {
        self.happened.send_modify(|happened| happened.started += 1);
        let note: Note = match request.args() {
            Ok(note) => note,
            Err(error) => return Box::pin(async move { Some(request.undecodable(&error)) }),
        };
        let mut watched = Watched { notes: self.happened.clone(), finished: false };
        match request.method.as_str() {
            "echo" | "more" => Box::pin(async move {
                watched.finish();
                Some(request.reply(&note))
            }),
            "hold" | "swell" => {
                let swells = request.method.as_str() == "swell";
                let gate = self.gate(&note.data);
                let delay = self.delay;
                Box::pin(async move {
                    if delay.is_zero() {
                        gate.notified().await;
                    } else {
                        tokio::time::sleep(delay).await;
                    }
                    watched.finish();
                    let swollen = || Note::of(vec![b's'; note.left_ms as usize]);
                    Some(if swells { request.reply(&swollen()) } else { request.reply(&note) })
                })
            }
            "fail" => Box::pin(async move {
                watched.finish();
                Some(request.exception(&note))
            }),
            "panic" => panic!("asked to"),
            "panic_late" => Box::pin(async move {
                tokio::task::yield_now().await;
                panic!("asked to, later")
            }),
            "noted" => {
                self.happened.send_modify(|happened| happened.noted.push(Bytes::copy_from_slice(&note.data)));
                watched.finish();
                // A service that answers oneway calls all the same is not heard.
                Box::pin(async move { Some(request.reply(&note)) })
            }
            name => {
                let text = format!("no method {name}");
                let reply = request.application_error(ApplicationErrorKind::UnknownMethod, &text);
                watched.finish();
                Box::pin(async move { Some(reply) })
            }
        }
    }

    fn continues(&self, request: &Request) -> bool {
        request.method.as_str() == "more"
    }

    fn refuse(&self, request: &Request, why: Refusal) -> Instead {
        if request.method.as_str() == "health" && why == Refusal::Draining {
            return Instead::Answered(request.reply(&Note::of("alive")));
        }
        Instead::Refused(Some(request.exception(&Note::of(why.name()))))
    }
}

/// A server on a free port.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) notes: Arc<Notes>,
    pub(crate) stats: Arc<ServerStats>,
    pub(crate) drain: DrainHandle,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

pub(crate) async fn serve(limits: ServerLimits) -> Running {
    serve_at("127.0.0.1:0".parse().expect("an address"), limits, Notes::default()).await
}

pub(crate) async fn serve_at(address: SocketAddr, limits: ServerLimits, notes: Notes) -> Running {
    let (notes, stats) = (Arc::new(notes), Arc::new(ServerStats::default()));
    let (handle, drain) = Drain::new(Drain::LIMIT);
    let server = Server::bind(address, limits).await.expect("the port is free");
    let server = server.observed_by(Arc::clone(&stats) as _);
    let address = server.local_addr().expect("it is bound");
    let task = tokio::spawn(server.serve(Arc::clone(&notes), drain));
    Running { address, notes, stats, drain: handle, task }
}

/// A peer that sends what the test wants and reads frames.
pub(crate) struct Raw<IO> {
    pub(crate) io: IO,
    buffer: BytesMut,
}

impl Raw<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the server listens"))
    }
}

/// Bytes of a call.
pub(crate) fn call(protocol: Protocol, method: &str, seqid: i32, note: &Note) -> Bytes {
    let kind = if method == "noted" { MessageKind::Oneway } else { MessageKind::Call };
    wire::encode_call(protocol, method, seqid, kind, note).expect("it fits").to_bytes()
}

/// Bytes of a call with text as data, in binary.
pub(crate) fn text_call(method: &str, seqid: i32, text: &'static str) -> Bytes {
    call(Protocol::Binary, method, seqid, &Note::of(text))
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Raw<IO> {
    pub(crate) fn over(io: IO) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("the server reads");
        self.io.flush().await.expect("the server reads");
    }

    pub(crate) async fn call(&mut self, method: &str, seqid: i32, text: &'static str) {
        self.send(&text_call(method, seqid, text)).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = wire::split_frame(&mut self.buffer, &FrameLimits::default()).expect("a frame") {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn response(&mut self) -> Response {
        let frame = self.frame().await.expect("an answer, not the end");
        Response::parse(frame, &Default::default()).expect("an answer")
    }

    /// Number and text of the next answer, which is a result.
    pub(crate) async fn reply(&mut self) -> (i32, String) {
        let response = self.response().await;
        let note = response.result::<Note, Note>().expect("it decodes").expect("a result");
        (response.seqid, String::from_utf8_lossy(&note.data).into_owned())
    }

    /// Number and text of the next answer, which is the declared exception.
    pub(crate) async fn exception(&mut self) -> (i32, String) {
        let response = self.response().await;
        let note = response.result::<Note, Note>().expect("it decodes").expect_err("an exception");
        (response.seqid, String::from_utf8_lossy(&note.data).into_owned())
    }

    /// All bytes up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.buffer.to_vec();
        // A reset instead of an end is an end, too.
        let _ = self.io.read_to_end(&mut rest).await;
        rest
    }
}
