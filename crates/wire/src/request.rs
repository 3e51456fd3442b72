//! A call as the server sees it, and the answers to it.

use bytes::Bytes;
use thrift::protocol::{TInputProtocol, TSerializable, TType};
use thrift::{ApplicationError, ApplicationErrorKind};

use crate::envelope::{self, Head, MessageKind, MethodName, Protocol};
use crate::ttheader::{self, Opened};
use crate::{Carried, DecodeLimits, Frame, WireError};

/// Name, its length, number: a head without a TTHeader is complete within these bytes or it never will be.
const MOST_HEAD: usize = 508;

/// An encoded answer.
pub type Reply = Frame;

/// A call whose arguments have not been decoded yet.
///
/// Arguments follow this project's rule for methods: one struct, field 1.
#[derive(Clone, Debug)]
pub struct Request {
    /// How the call is written, and so its answer.
    pub protocol: Protocol,
    /// [`MessageKind::Call`] or [`MessageKind::Oneway`].
    pub kind: MessageKind,
    /// Sequence number; some clients send 0 always.
    pub seqid: i32,
    /// Method name, without the service name of `TMultiplexedProtocol`.
    pub method: MethodName,
    /// The service name that stood before the method's, when one did.
    pub service: Option<MethodName>,
    /// What a TTHeader around the call said, and its number.
    outer: Option<Box<(Carried, i32)>>,
    frame_bytes: usize,
    /// The frame's payload: a slice of it for the arguments alone would be one more count to keep.
    payload: Bytes,
    /// Where in it the arguments begin.
    body: usize,
    limits: DecodeLimits,
}

impl Request {
    /// Reads the head of a frame's payload.
    ///
    /// # Errors
    /// When it is not the head of a call. The connection is then to be closed: there is no number to answer to.
    pub fn parse(frame: Bytes, limits: &DecodeLimits) -> Result<Self, WireError> {
        let frame_bytes = frame.len();
        let (frame, outer) = match ttheader::open(&frame)? {
            Some(Opened { number, carried, message }) => (message, Some(Box::new((carried, number)))),
            None => (frame, None),
        };
        let head = Head::read(&frame)?;
        if !matches!(head.kind, MessageKind::Call | MessageKind::Oneway) {
            return Err(WireError::Direction(head.kind));
        }
        let name = head.name(&frame, limits)?;
        let (service, method) = name.split_service();
        Ok(Self {
            protocol: head.protocol,
            kind: head.kind,
            seqid: head.seqid,
            method,
            service,
            outer,
            frame_bytes,
            body: head.body,
            payload: frame,
            limits: *limits,
        })
    }

    /// Whether [`Request::parse`] may succeed only once more of the payload has come: no head has more bytes than a few hundred
    /// and what the length of a TTHeader says.
    #[must_use]
    pub fn lacks_head(payload: &[u8]) -> bool {
        match payload {
            [] | [0x80] | [0x82] | [0x10] => true,
            [0x80, 0x01, ..] => payload.len() < MOST_HEAD,
            [0x82, kind, ..] if kind & 0x1f == 1 => payload.len() < MOST_HEAD,
            [0x10, 0x00, ..] => payload.len() < ttheader::most_bytes(payload) + MOST_HEAD,
            _ => false,
        }
    }

    /// Bytes of the frame's payload.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// What the TTHeader around the call said about it, when it came in one.
    #[must_use]
    pub fn carried(&self) -> Option<&Carried> {
        self.outer.as_deref().map(|(carried, _)| carried)
    }

    /// The same call without its arguments, so that it no longer keeps the frame alive beyond its name.
    ///
    /// The name is a slice of the frame, too; it is copied out.
    #[must_use]
    pub fn without_body(self) -> Self {
        let service = self.service.map(MethodName::into_own);
        Self { method: self.method.into_own(), service, payload: Bytes::new(), body: 0, ..self }
    }

    /// Decodes the arguments. `binary` fields are slices of the frame.
    ///
    /// # Errors
    /// When they do not decode; the frame's end is known, so the connection can go on after
    /// [`Request::undecodable`].
    pub fn args<T: TSerializable>(&self) -> Result<T, WireError> {
        let body = self.payload.slice(self.body..);
        let args = envelope::decode(self.protocol, body, &self.limits, |input| read_args(input))?;
        args.ok_or(WireError::Missing { field: 1 })
    }

    /// The answer with a result.
    #[must_use]
    pub fn reply<R: TSerializable>(&self, value: &R) -> Reply {
        self.answer(0, value)
    }

    /// The answer with the declared exception.
    #[must_use]
    pub fn exception<E: TSerializable>(&self, value: &E) -> Reply {
        self.answer(1, value)
    }

    /// The answer when the protocol itself has something to say: a `TApplicationException`.
    #[must_use]
    pub fn application_error(&self, kind: ApplicationErrorKind, text: &str) -> Reply {
        self.in_kind(application_error(self.protocol, self.method.as_bytes(), self.seqid, kind, text))
    }

    /// The answer to arguments that [`Request::args`] refused.
    #[must_use]
    pub fn undecodable(&self, error: &WireError) -> Reply {
        let text = format!("arguments of {}: {error}", self.method);
        self.application_error(ApplicationErrorKind::ProtocolError, &text).over(error.exceeded())
    }

    fn answer(&self, field: i16, value: &impl TSerializable) -> Reply {
        let name = self.method.as_bytes();
        let encoded = Frame::encode(self.protocol, MessageKind::Reply, name, self.seqid, |output| {
            envelope::write_field(output, field, value)
        });
        match encoded {
            Ok(frame) => self.in_kind(frame),
            Err(error) => self
                .application_error(ApplicationErrorKind::InternalError, &format!("reply of {}: {error}", self.method)),
        }
    }

    /// In a TTHeader when the call came in one.
    fn in_kind(&self, mut frame: Frame) -> Frame {
        if let Some(outer) = &self.outer {
            frame.answer_ttheader(outer.1);
        }
        frame
    }
}

fn read_args<T: TSerializable>(input: &mut dyn TInputProtocol) -> thrift::Result<Option<T>> {
    let mut args = None;
    input.read_struct_begin()?;
    loop {
        let field = input.read_field_begin()?;
        match (field.field_type, field.id) {
            (TType::Stop, _) => break,
            (TType::Struct, Some(1)) => args = Some(T::read_from_in_protocol(input)?),
            (kind, _) => input.skip(kind)?,
        }
        input.read_field_end()?;
    }
    input.read_struct_end()?;
    Ok(args)
}

pub(crate) fn application_error(
    protocol: Protocol,
    name: &[u8],
    seqid: i32,
    kind: ApplicationErrorKind,
    text: &str,
) -> Frame {
    let error = ApplicationError { kind, message: text.to_owned() };
    Frame::encode(protocol, MessageKind::Exception, name, seqid, |output| {
        thrift::Error::write_application_error_to_out_protocol(&error, output)
    })
    .expect("one sentence fits a frame")
}
