//! What can be wrong with bytes from outside.

use thrift::{ApplicationErrorKind, ProtocolErrorKind};

use crate::MessageKind;

/// Why the bytes of a connection are not frames. The connection cannot go on after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length prefix is above the limit.
    #[error("frame of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Claimed payload length.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// A frame without payload, which no protocol sends.
    #[error("frame is empty")]
    Empty,
}

/// Why a frame is not a message that can be worked with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame holds neither the strict binary protocol nor the compact one.
    #[error("frame starts with {first:02x?}, neither strict binary (80 01) nor compact (82)")]
    Protocol {
        /// Up to four first bytes.
        first: Vec<u8>,
    },
    /// The message's head is cut off or wrong: kind, name or sequence number.
    #[error("message head: {0}")]
    Head(&'static str),
    /// A call where a reply was expected, or the other way round.
    #[error("message is a {0}, which only the other side sends")]
    Direction(MessageKind),
    /// The contents do not decode.
    #[error("{message}")]
    Decode {
        /// Which rule was broken.
        kind: ProtocolErrorKind,
        /// What was found, and the limit.
        message: String,
    },
    /// A call without its request struct, or a reply without its result.
    #[error("message has no field {field} of type struct")]
    Missing {
        /// The field's id.
        field: i16,
    },
    /// The value to be sent does not fit a frame.
    #[error("message of {bytes} bytes does not fit a frame")]
    TooLarge {
        /// Length of the message.
        bytes: usize,
    },
}

/// A limit on what a message may hold; see [`DecodeLimits`](crate::DecodeLimits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Nesting of structs.
    Depth,
    /// Elements of all containers, or structs.
    Container,
}

impl WireError {
    /// The limit that the contents are over, when it is that.
    #[must_use]
    pub fn exceeded(&self) -> Option<Exceeded> {
        match self {
            Self::Decode { kind: ProtocolErrorKind::DepthLimit, .. } => Some(Exceeded::Depth),
            Self::Decode { kind: ProtocolErrorKind::SizeLimit, .. } => Some(Exceeded::Container),
            _ => None,
        }
    }
}

impl From<thrift::Error> for WireError {
    fn from(error: thrift::Error) -> Self {
        // The crate's Display leaves the message out, so it is taken from inside.
        let (kind, message) = match error {
            thrift::Error::Protocol(inner) => (inner.kind, inner.message),
            thrift::Error::Transport(inner) => (ProtocolErrorKind::Unknown, inner.message),
            thrift::Error::Application(inner) => (ProtocolErrorKind::Unknown, inner.message),
            thrift::Error::User(inner) => (ProtocolErrorKind::Unknown, inner.to_string()),
        };
        Self::Decode { kind, message }
    }
}

/// Why a reply holds neither the result nor the declared exception.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The other side answered with a `TApplicationException`.
    #[error("{message}")]
    Application {
        /// Its type; an unknown number is [`ApplicationErrorKind::Unknown`].
        kind: ApplicationErrorKind,
        /// Its text.
        message: String,
    },
    /// The reply does not decode.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The reply has neither a result nor an exception.
    #[error("reply has neither a result nor a declared exception")]
    Missing,
}
