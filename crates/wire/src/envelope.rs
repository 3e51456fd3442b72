//! The head of a message (protocol, kind, sequence number, method name) and the struct around its one value.

use std::fmt;
use std::ops::{Deref, Range};
use std::str;

use bytes::{BufMut, Bytes, BytesMut};
use thrift::protocol::{TInputProtocol, TOutputProtocol, TSerializable, TType};

use crate::{CompactIn, DecodeLimits, SliceIn, WireError};

/// How a message is written; told by its first byte, so one connection may mix them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `TBinaryProtocol`, strict.
    Binary,
    /// `TCompactProtocol`.
    Compact,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// A call that is answered.
    Call = 1,
    /// An answer: result or declared exception.
    Reply = 2,
    /// A `TApplicationException`.
    Exception = 3,
    /// A call that is never answered.
    Oneway = 4,
}

impl MessageKind {
    fn from_code(code: u8) -> Result<Self, WireError> {
        match code {
            1 => Ok(Self::Call),
            2 => Ok(Self::Reply),
            3 => Ok(Self::Exception),
            4 => Ok(Self::Oneway),
            _ => Err(WireError::Head("kind is none of call, reply, exception, oneway")),
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "call",
            Self::Reply => "reply",
            Self::Exception => "exception",
            Self::Oneway => "oneway call",
        })
    }
}

/// A name as it stands in the frame: derefs to `str`, no copy.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct MethodName(Bytes);

impl MethodName {
    /// # Errors
    /// When it is not UTF-8.
    fn new(bytes: Bytes) -> Result<Self, WireError> {
        match str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(WireError::Head("method name is not utf-8")),
        }
    }

    /// The same name in memory of its own.
    pub(crate) fn into_own(self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The service name before the last colon, if any, and the method name after it.
    pub(crate) fn split_service(self) -> (Option<Self>, Self) {
        // Both parts of UTF-8 text around an ASCII colon are UTF-8.
        match self.0.iter().rposition(|byte| *byte == b':') {
            Some(colon) => (Some(Self(self.0.slice(..colon))), Self(self.0.slice(colon + 1..))),
            None => (None, self),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked by the constructor; asking again is cheaper than the unsafe that would avoid it.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Deref for MethodName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The head of a message, read without touching its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// How the message is written.
    pub protocol: Protocol,
    /// What it is.
    pub kind: MessageKind,
    /// Its sequence number, chosen by the caller.
    pub seqid: i32,
    pub(crate) name: Range<usize>,
    pub(crate) body: usize,
}

impl Head {
    /// Reads the head of a frame's payload; more bytes may follow, and fewer than the whole frame may be there.
    ///
    /// # Errors
    /// [`WireError::Protocol`] when it is neither strict binary nor compact, [`WireError::Head`] when it is cut off.
    pub fn read(payload: &[u8]) -> Result<Self, WireError> {
        match payload {
            [0x80, 0x01, _, kind, ..] => Self::read_binary(payload, *kind),
            [0x82, kind, ..] if kind & 0x1f == 1 => Self::read_compact(payload, kind >> 5),
            _ => Err(WireError::Protocol { first: payload.iter().take(4).copied().collect() }),
        }
    }

    fn read_binary(payload: &[u8], kind: u8) -> Result<Self, WireError> {
        let kind = MessageKind::from_code(kind)?;
        let name_bytes = u32_at(payload, 4).ok_or(CUT)? as usize;
        let body = name_bytes.checked_add(12).ok_or(CUT)?;
        let seqid = u32_at(payload, body - 4).ok_or(CUT)?;
        Ok(Self { protocol: Protocol::Binary, kind, seqid: seqid as i32, name: 8..body - 4, body })
    }

    fn read_compact(payload: &[u8], kind: u8) -> Result<Self, WireError> {
        let kind = MessageKind::from_code(kind)?;
        let (seqid, at) = varint_at(payload, 2).ok_or(CUT)?;
        let (name_bytes, at) = varint_at(payload, at).ok_or(CUT)?;
        let body = at.checked_add(name_bytes as usize).filter(|end| *end <= payload.len()).ok_or(CUT)?;
        Ok(Self { protocol: Protocol::Compact, kind, seqid: seqid as i32, name: at..body, body })
    }

    /// The name in the message, checked for length and encoding.
    pub(crate) fn name(&self, payload: &Bytes, limits: &DecodeLimits) -> Result<MethodName, WireError> {
        if self.name.len() > limits.method_bytes {
            return Err(WireError::Head("method name is longer than the limit"));
        }
        MethodName::new(payload.slice(self.name.clone()))
    }
}

const CUT: WireError = WireError::Head("ends before the sequence number and the method name");

pub(crate) fn u32_at(payload: &[u8], at: usize) -> Option<u32> {
    let bytes = payload.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The number at `at`, and the place after it. Bits above the 32nd are dropped, as other implementations do.
pub(crate) fn varint_at(payload: &[u8], at: usize) -> Option<(u32, usize)> {
    let mut value = 0;
    for (place, byte) in payload.get(at..)?.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, at + place + 1));
        }
    }
    None
}

/// Prefix, `82`, kind and the longest sequence number: the compact name's length starts here.
const COMPACT_HEAD: usize = 4 + 2 + 5;

/// Makes room for the head, and writes the name and its length.
pub(crate) fn put_head(buffer: &mut BytesMut, protocol: Protocol, name: &[u8]) {
    match protocol {
        Protocol::Binary => {
            buffer.put_bytes(0, 8);
            buffer.put_u32(name.len() as u32);
            buffer.put_slice(name);
            buffer.put_u32(0);
        }
        Protocol::Compact => {
            buffer.put_bytes(0, COMPACT_HEAD);
            put_varint(buffer, name.len() as u32);
            buffer.put_slice(name);
        }
    }
}

/// Where a head with this sequence number begins in the room made by [`put_head`].
pub(crate) fn head_start(protocol: Protocol, seqid: i32) -> usize {
    match protocol {
        Protocol::Binary => 0,
        Protocol::Compact => COMPACT_HEAD - 6 - varint_bytes(seqid as u32),
    }
}

/// Fills in the head; `head` begins at [`head_start`].
pub(crate) fn fill_head(
    head: &mut [u8],
    protocol: Protocol,
    kind: MessageKind,
    seqid: i32,
    name_bytes: usize,
    payload: u32,
) {
    head[..4].copy_from_slice(&payload.to_be_bytes());
    match protocol {
        Protocol::Binary => {
            head[4..8].copy_from_slice(&[0x80, 0x01, 0, kind as u8]);
            head[12 + name_bytes..16 + name_bytes].copy_from_slice(&seqid.to_be_bytes());
        }
        Protocol::Compact => {
            head[4..6].copy_from_slice(&[0x82, (kind as u8) << 5 | 1]);
            put_varint(&mut &mut head[6..], seqid as u32);
        }
    }
}

fn varint_bytes(value: u32) -> usize {
    (32 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Runs `read` on the contents of a message with the protocol that its head named.
pub(crate) fn decode<T>(
    protocol: Protocol,
    body: Bytes,
    limits: &DecodeLimits,
    read: impl FnOnce(&mut dyn TInputProtocol) -> thrift::Result<T>,
) -> Result<T, WireError> {
    let result = match protocol {
        Protocol::Binary => read(&mut SliceIn::new(body, limits)),
        Protocol::Compact => read(&mut CompactIn::new(body, limits)),
    };
    result.map_err(WireError::from)
}

/// Writes the struct whose one field is `value`: a call's arguments (field 1), a result (0), an exception (1).
pub(crate) fn write_field(output: &mut dyn TOutputProtocol, id: i16, value: &impl TSerializable) -> thrift::Result<()> {
    output.write_struct_begin(&crate::structure())?;
    output.write_field_begin(&crate::field(TType::Struct, id))?;
    value.write_to_out_protocol(output)?;
    output.write_field_end()?;
    output.write_field_stop()?;
    output.write_struct_end()
}
