//! This crate knows how to turn Thrift messages into bytes and back.
//!
//! Why: the Apache crate reads from blocking streams, copies every `binary` field twice and believes claimed sizes. Here
//! a frame is one [`Bytes`](bytes::Bytes) that has arrived whole: `binary` fields are slices of it, and nothing is
//! allocated for a size that the frame's own bytes do not back.
//! The types that travel implement the Apache crate's [`TSerializable`]; this crate supplies the protocols below them
//! (strict binary and compact), the envelope above them, frames, and the recognition of whatever else connects.
//!
//! A server goes through [`sniff`], [`split_frame`], [`Request::parse`], [`Request::args`], [`Request::reply`] and
//! [`Batch`]; a client through [`encode_call`], [`split_frame`], [`Response::peek`] and [`Response::result`].
//!
//! Promises: no input panics, recurses without bound, or reserves memory out of proportion to its own length.
//! Not here: sockets, time, who may call what (`rpc`), the methods (`idl`).

mod batch;
mod binary;
mod blob;
mod compact;
mod cursor;
mod envelope;
mod error;
mod frame;
mod limits;
mod placement;
mod refusal;
mod request;
mod response;
mod segments;
mod sniff;
mod ttheader;

pub use batch::Batch;
pub use binary::{SegOut, SliceIn};
pub use blob::{BY_REFERENCE, read_blob, unknown_variant, write_blob};
pub use compact::{CompactIn, CompactOut};
pub use envelope::{Head, MessageKind, MethodName, Protocol};
pub use error::{Exceeded, FrameError, ResponseError, WireError};
pub use frame::{claimed, needed, reserve, split_frame};
pub use limits::{DecodeLimits, FrameLimits};
pub use placement::large_field;
pub use refusal::{Refusal, too_large};
pub use request::{Reply, Request};
pub use response::{Exception, Method, Outgoing, Response, encode_call};
pub use segments::Frame;
pub use sniff::{SNIFF_BYTES, Sniffed, sniff};
pub use thrift::ApplicationErrorKind;
pub use thrift::protocol::TSerializable;
pub use ttheader::Carried;

/// What generated code calls to name a field: the name never reaches the wire, so no `String` is made of it.
#[doc(hidden)]
#[must_use]
pub fn field(kind: thrift::protocol::TType, id: i16) -> thrift::protocol::TFieldIdentifier {
    thrift::protocol::TFieldIdentifier { name: None, field_type: kind, id: Some(id) }
}

/// What generated code calls to name a struct; see [`field`].
#[doc(hidden)]
#[must_use]
pub fn structure() -> thrift::protocol::TStructIdentifier {
    thrift::protocol::TStructIdentifier { name: String::new() }
}
