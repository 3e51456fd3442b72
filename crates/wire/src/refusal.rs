//! Answers to what this port does not speak, in the words of whoever asked.
//!
//! Promises: every answer is a few hundred bytes, made of the bytes that came only where a client checks them (method
//! name, sequence number).

use bytes::{BufMut, Bytes};
use thrift::ApplicationErrorKind;

use crate::DecodeLimits;
use crate::envelope::{Head, Protocol};
use crate::request::{Request, application_error};
use crate::sniff::Sniffed;

/// The answer to something that is not framed Thrift; the connection is closed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to send, possibly nothing.
    pub bytes: Vec<u8>,
    /// What to write into the log, once for a peer.
    pub log: &'static str,
}

/// The head of a call is here, or nowhere.
const MOST_LOOKED_AT: usize = 4 * 1024;

const SPEAKS: &str = "this port speaks framed Thrift (TFramedTransport with TBinaryProtocol or TCompactProtocol)";

impl Sniffed {
    /// What to answer before closing; `None` for what is served and for what is not decided yet. `received` is all that
    /// came so far: the method's name and number are echoed when they are in it.
    #[must_use]
    pub fn refusal(&self, received: &[u8]) -> Option<Refusal> {
        let (bytes, log) = match self {
            Self::FramedBinary | Self::FramedCompact | Self::TTHeader | Self::NeedMore => return None,
            Self::FramedOldBinary => {
                (framed(old_binary(skip(received, 4))), "framed binary without the version (strict write is off)")
            }
            Self::FramedJson => (framed(json()), "framed json protocol"),
            Self::THeader => (thrift_answer(Protocol::Binary, &[], true), "theader transport"),
            Self::UnframedBinary => (thrift_answer(Protocol::Binary, received, false), "unframed binary protocol"),
            Self::UnframedCompact => (thrift_answer(Protocol::Compact, received, false), "unframed compact protocol"),
            Self::UnframedOldBinary => (old_binary(received), "unframed binary without the version"),
            Self::UnframedJson => (json(), "unframed json protocol"),
            Self::Http => (http(), "http request on the thrift port"),
            Self::Http2 => (http2(), "http/2 or grpc on the thrift port"),
            // Alert record, TLS 1.0, two bytes: fatal, handshake_failure.
            Self::Tls => (vec![0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28], "tls hello on a listener without tls"),
            Self::TooLargeFrame(_) => (Vec::new(), "first frame is over the limit"),
            Self::Unknown => (Vec::new(), "first bytes are no known protocol"),
        };
        Some(Refusal { bytes, log })
    }
}

/// The answer to a frame over the limit: a `TApplicationException` that names both numbers. `received` is the buffer
/// from the frame's prefix on; `None` when the call's head is not in it.
#[must_use]
pub fn too_large(received: &[u8], limit: usize) -> Option<Vec<u8>> {
    let bytes = u32::from_be_bytes(*received.first_chunk::<4>()?);
    let beginning = Bytes::copy_from_slice(&received[4..received.len().min(MOST_LOOKED_AT)]);
    let request = Request::parse(beginning, &DecodeLimits::default()).ok()?;
    let text = format!("frame of {bytes} bytes is over the limit of {limit} bytes");
    Some(request.application_error(ApplicationErrorKind::ProtocolError, &text).to_bytes().to_vec())
}

fn skip(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(count..).unwrap_or_default()
}

/// The method's bare name; nothing when it is too long to be one.
fn name_of<'a>(head: &Head, payload: &'a [u8]) -> &'a [u8] {
    let name = payload.get(head.name.clone()).filter(|name| name.len() <= 256).unwrap_or_default();
    name.rsplit(|byte| *byte == b':').next().unwrap_or_default()
}

fn thrift_answer(protocol: Protocol, payload: &[u8], framed: bool) -> Vec<u8> {
    let (name, seqid) = match Head::read(payload) {
        Ok(head) => (name_of(&head, payload), head.seqid),
        Err(_) => (&[][..], 0),
    };
    let kind = ApplicationErrorKind::UnsupportedClientType;
    let frame = application_error(protocol, name, seqid, kind, SPEAKS).to_bytes();
    frame[if framed { 0 } else { 4 }..].to_vec()
}

fn framed(payload: Vec<u8>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(4 + payload.len());
    frame.put_u32(payload.len() as u32);
    frame.put_slice(&payload);
    frame
}

/// `call` is a message without version: name length, name, kind, number.
fn old_binary(call: &[u8]) -> Vec<u8> {
    let name_bytes = call.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let name = skip(call, 4).get(..name_bytes).filter(|name| name.len() <= 256).unwrap_or_default();
    let seqid = skip(call, 5 + name.len()).first_chunk::<4>().map_or(0, |number| u32::from_be_bytes(*number));
    let mut answer = Vec::new();
    answer.put_u32(name.len() as u32);
    answer.put_slice(name);
    answer.put_u8(3);
    answer.put_u32(seqid);
    // The exception's struct is the same in both forms of the protocol: it follows a head with an empty name.
    answer.put_slice(skip(&thrift_answer(Protocol::Binary, &[], false), 12));
    answer
}

fn json() -> Vec<u8> {
    let kind = ApplicationErrorKind::InvalidProtocol as i32;
    format!("[1,\"\",3,0,{{\"1\":{{\"str\":\"{SPEAKS}\"}},\"2\":{{\"i32\":{kind}}}}}]").into_bytes()
}

fn http() -> Vec<u8> {
    let body = format!("{SPEAKS}, not http\n");
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Empty settings, then a goodbye with HTTP_1_1_REQUIRED (13) and the sentence as debug data, which clients print.
fn http2() -> Vec<u8> {
    let mut answer = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    answer.put_uint(8 + SPEAKS.len() as u64, 3);
    answer.put_slice(&[7, 0, 0, 0, 0, 0]);
    answer.put_u32(0);
    answer.put_u32(13);
    answer.put_slice(SPEAKS.as_bytes());
    answer
}
