//! A call as the client sees it: what to send, and what the answer says.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use thrift::ApplicationError;
use thrift::protocol::{TInputProtocol, TSerializable, TType};

use crate::envelope::{self, Head, MessageKind, MethodName, Protocol};
use crate::{DecodeLimits, Frame, ResponseError, WireError};

/// A method of a service: request `Q`, reply `R`, declared exception `E`.
pub struct Method<Q, R, E> {
    /// Its name on the wire.
    pub name: &'static str,
    /// Whether calling it twice is as good as once, so that a lost call may be sent again.
    pub idempotent: bool,
    /// Whether no answer comes.
    pub oneway: bool,
    types: PhantomData<fn(Q) -> (R, E)>,
}

impl<Q, R, E> Method<Q, R, E> {
    /// A method that is answered.
    #[must_use]
    pub const fn new(name: &'static str, idempotent: bool) -> Self {
        Self { name, idempotent, oneway: false, types: PhantomData }
    }

    /// A method that is not.
    #[must_use]
    pub const fn oneway(name: &'static str) -> Self {
        Self { name, idempotent: false, oneway: true, types: PhantomData }
    }

    /// The kind of message that calls it.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        if self.oneway { MessageKind::Oneway } else { MessageKind::Call }
    }
}

impl<Q, R, E> Clone for Method<Q, R, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, R, E> Copy for Method<Q, R, E> {}

impl<Q, R, E> std::fmt::Debug for Method<Q, R, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Method({})", self.name)
    }
}

/// A request struct that tells the other side how much time is left.
pub trait Outgoing: TSerializable {
    /// Writes what is left of the deadline into `base.timeout_ms`, whole milliseconds, at least 1.
    fn stamp(&mut self, left: Duration);
}

/// The exception that a method declares.
pub trait Exception: TSerializable {
    /// Whether the server as a whole turned the call away before it began, as while it drains: another one may take it.
    fn turned_away(&self) -> bool {
        false
    }

    /// Whether the call did not begin for a reason that another server may not have, as while this one loads the model.
    fn not_here(&self) -> bool {
        self.turned_away()
    }

    /// Whether the server failed at what it should have been able to do.
    fn failed(&self) -> bool {
        false
    }
}

/// Encodes a call. The number can be given later, by [`Frame::set_seqid`].
///
/// # Errors
/// [`WireError::TooLarge`] when the arguments are over 2 GiB. The peer's frame limit is the caller's to check, with
/// [`Frame::payload_len`].
pub fn encode_call<Q: TSerializable>(
    protocol: Protocol,
    name: &str,
    seqid: i32,
    kind: MessageKind,
    args: &Q,
) -> Result<Frame, WireError> {
    Frame::encode(protocol, kind, name.as_bytes(), seqid, |output| envelope::write_field(output, 1, args))
}

/// An answer whose contents have not been decoded yet.
#[derive(Clone, Debug)]
pub struct Response {
    /// How it is written.
    pub protocol: Protocol,
    /// [`MessageKind::Reply`] or [`MessageKind::Exception`].
    pub kind: MessageKind,
    /// The number of the call that it answers.
    pub seqid: i32,
    /// The name that the server put there.
    pub method: MethodName,
    body: Bytes,
    limits: DecodeLimits,
}

impl Response {
    /// Reads the head alone, to find out which call is answered.
    ///
    /// # Errors
    /// When there is no head. The connection cannot be used any more.
    pub fn peek(frame: &Bytes) -> Result<Head, WireError> {
        Head::read(frame)
    }

    /// Reads the head and keeps the contents.
    ///
    /// # Errors
    /// When it is not the head of an answer.
    pub fn parse(frame: Bytes, limits: &DecodeLimits) -> Result<Self, WireError> {
        let head = Head::read(&frame)?;
        if !matches!(head.kind, MessageKind::Reply | MessageKind::Exception) {
            return Err(WireError::Direction(head.kind));
        }
        Ok(Self {
            protocol: head.protocol,
            kind: head.kind,
            seqid: head.seqid,
            method: head.name(&frame, limits)?,
            body: frame.slice(head.body..),
            limits: *limits,
        })
    }

    /// Decodes the result or the declared exception. `binary` fields are slices of the frame.
    ///
    /// # Errors
    /// [`ResponseError`] when it is neither.
    pub fn result<R: TSerializable, E: TSerializable>(&self) -> Result<Result<R, E>, ResponseError> {
        if self.kind == MessageKind::Exception {
            let ApplicationError { kind, message } =
                envelope::decode(self.protocol, self.body.clone(), &self.limits, read_application_error)?;
            return Err(ResponseError::Application { kind, message });
        }
        let result = envelope::decode(self.protocol, self.body.clone(), &self.limits, |input| read_result(input))?;
        result.ok_or(ResponseError::Missing)
    }
}

fn read_application_error(input: &mut dyn TInputProtocol) -> thrift::Result<ApplicationError> {
    thrift::Error::read_application_error_from_in_protocol(input)
}

fn read_result<R: TSerializable, E: TSerializable>(
    input: &mut dyn TInputProtocol,
) -> thrift::Result<Option<Result<R, E>>> {
    let mut result = None;
    input.read_struct_begin()?;
    loop {
        let field = input.read_field_begin()?;
        match (field.field_type, field.id) {
            (TType::Stop, _) => break,
            (TType::Struct, Some(0)) => result = Some(Ok(R::read_from_in_protocol(input)?)),
            (TType::Struct, Some(1)) => result = Some(Err(E::read_from_in_protocol(input)?)),
            (kind, _) => input.skip(kind)?,
        }
        input.read_field_end()?;
    }
    input.read_struct_end()?;
    Ok(result)
}
