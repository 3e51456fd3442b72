//! What the first bytes of a connection are.
//!
//! Why: a wrong transport or a browser on the Thrift port otherwise ends in a silent close or a hang on the other side,
//! which costs its owner an afternoon. A frame's length is at most [`FrameLimits::MOST`](crate::FrameLimits::MOST), so
//! first bytes above `0f` can only be something else.

use crate::FrameLimits;

/// So many bytes always suffice to decide.
pub const SNIFF_BYTES: usize = 8;

/// What talks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// Framed strict binary: served.
    FramedBinary,
    /// Framed compact: served.
    FramedCompact,
    /// Framed binary without version number.
    FramedOldBinary,
    /// Framed JSON.
    FramedJson,
    /// `THeaderTransport`.
    THeader,
    /// TTHeader (Kitex, Volo): served.
    TTHeader,
    /// Strict binary without frames.
    UnframedBinary,
    /// Compact without frames.
    UnframedCompact,
    /// Binary without version number and frames.
    UnframedOldBinary,
    /// JSON without frames.
    UnframedJson,
    /// An HTTP/1 request.
    Http,
    /// HTTP/2 without upgrade, as gRPC clients speak.
    Http2,
    /// A TLS hello.
    Tls,
    /// Too few bytes to tell.
    NeedMore,
    /// A frame of this many bytes, over the limit.
    TooLargeFrame(u32),
    /// None of these.
    Unknown,
}

impl Sniffed {
    /// Whether frames can be read from this connection.
    #[must_use]
    pub fn is_served(self) -> bool {
        matches!(self, Self::FramedBinary | Self::FramedCompact | Self::TTHeader)
    }
}

/// Tells what a connection carries from its first bytes (all that came, up to [`SNIFF_BYTES`] are looked at).
#[must_use]
pub fn sniff(first: &[u8], frame_limit: usize) -> Sniffed {
    let Some((prefix, rest)) = first.split_first_chunk::<4>() else { return Sniffed::NeedMore };
    let length = u32::from_be_bytes(*prefix);
    if length as usize <= frame_limit.min(FrameLimits::MOST) {
        return framed(length as usize, rest);
    }
    match prefix {
        [0x80, 0x01, ..] => Sniffed::UnframedBinary,
        [0x82, kind, ..] if kind & 0x1f == 1 => Sniffed::UnframedCompact,
        [b'[', b'1', b',', ..] => Sniffed::UnframedJson,
        [0x16, 0x03, ..] => Sniffed::Tls,
        b"PRI " => Sniffed::Http2,
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"DELE" | b"OPTI" | b"PATC" | b"CONN" | b"TRAC" => Sniffed::Http,
        [high, ..] if *high <= 0x0f => Sniffed::TooLargeFrame(length),
        _ => Sniffed::Unknown,
    }
}

fn framed(length: usize, payload: &[u8]) -> Sniffed {
    let payload = &payload[..payload.len().min(length)];
    match payload {
        [0x80, 0x01, ..] => Sniffed::FramedBinary,
        [0x82, kind, ..] if kind & 0x1f == 1 => Sniffed::FramedCompact,
        [0x0f, 0xff, ..] => Sniffed::THeader,
        [0x10, 0x00, ..] => Sniffed::TTHeader,
        [b'[', b'1', ..] => Sniffed::FramedJson,
        // Looks like a frame as long as a name, and holds the name: it is the name's length.
        [_, ..] if length >= 1 && payload.len() >= length.min(4) && length <= 256 && payload.iter().all(is_name) => {
            Sniffed::UnframedOldBinary
        }
        // A name's length where a version would be, and room for the name, a type and a number behind it.
        [0, 0, high, low, ..] => match usize::from(u16::from_be_bytes([*high, *low])) {
            name @ 1..=256 if name + 9 <= length => Sniffed::FramedOldBinary,
            _ => Sniffed::Unknown,
        },
        _ if payload.len() < length.min(4) => Sniffed::NeedMore,
        _ => Sniffed::Unknown,
    }
}

fn is_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.')
}
