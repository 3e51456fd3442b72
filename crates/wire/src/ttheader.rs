//! TTHeader, the transport of Kitex and Volo: a frame that begins with words about the call, and then has the message.
//!
//! ```text
//! u16 magic 1000 | u16 flags | u32 number | u16 words | u8 protocol | u8 transforms ... | blocks | message
//! ```
//! `words` counts the header from the protocol on, in 4 bytes. A block begins with its kind: `00` padding, `01` texts by text,
//! `10` texts by number, `11` a token. The message may have a frame's length in front once more, as Kitex sends it.
//! Promises: every length is compared with the bytes that are left of what holds it; nothing is copied but the few texts that
//! are of use here, and of those none that is longer than [`LONGEST`], or [`LONGEST_STATE`].
//! Not here: what the texts mean for a request (`idl`).

use bytes::Bytes;

use crate::WireError;

/// The first two bytes of a payload.
const MAGIC: [u8; 2] = [0x10, 0x00];
/// Magic, flags, number, words.
const FIXED: usize = 10;
/// As Kitex has it; no header in use comes near it.
const MOST_HEADER: usize = 64 * 1024;
/// Flags that change what follows: streaming, duplex, SASL.
const OTHER_TALK: u16 = 0b1_1010;
/// A longer text is none that is taken from here.
const LONGEST: usize = 256;
/// A `tracestate` can be longer, and is cut to 512 bytes by whoever reads it.
const LONGEST_STATE: usize = 4_096;

/// What the header says about the call, as far as it is of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Milliseconds that the caller waits.
    pub timeout_ms: Option<i32>,
    /// Names the request in logs.
    pub log_id: Option<String>,
    /// What the calling service calls itself.
    pub caller: Option<String>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// W3C Trace Context.
    pub tracestate: Option<String>,
    /// The API key: the token of the header, or the text `outboard-key`.
    pub key: Option<String>,
}

/// A header that was read.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Given back with the answer; clients look for it there, and not in the message.
    pub(crate) number: i32,
    pub(crate) carried: Carried,
    /// The message alone.
    pub(crate) message: Bytes,
}

/// Bytes in front of an answer's frame.
pub(crate) const ANSWER: usize = 18;

/// What goes in front of a frame of `frame` bytes (its own length included) to make it an answer to a call with `number`.
pub(crate) fn answer(number: i32, protocol: u8, frame: usize) -> [u8; ANSWER] {
    let mut head = [0; ANSWER];
    // A frame is shorter than 2 GiB, so the sum fits.
    head[..4].copy_from_slice(&((ANSWER - 4 + frame) as u32).to_be_bytes());
    head[4..6].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&number.to_be_bytes());
    head[13] = 1;
    head[14] = protocol;
    head
}

/// Reads the header of a frame's payload; `None` when it begins otherwise. Fewer bytes than the whole frame may be there, as long
/// as the header is.
pub(crate) fn open(payload: &Bytes) -> Result<Option<Opened>, WireError> {
    if !payload.starts_with(&MAGIC) {
        return Ok(None);
    }
    let mut fixed = Reader(payload);
    let (_, flags) = (fixed.u16()?, fixed.u16()?);
    let number = fixed.u32()? as i32;
    let header = usize::from(fixed.u16()?) * 4;
    if flags & OTHER_TALK != 0 {
        return Err(WireError::Head("ttheader flags ask for a stream or for sasl"));
    }
    if header > MOST_HEADER {
        return Err(WireError::Head("ttheader is longer than 64 KiB"));
    }
    let mut blocks = Reader(fixed.take(header)?);
    let carried = read_blocks(&mut blocks)?;
    let message = unframed(payload.slice(FIXED + header..))?;
    Ok(Some(Opened { number, carried, message }))
}

/// Within so many bytes of a payload that begins like this the message begins; 0 when it begins otherwise.
pub(crate) fn most_bytes(payload: &[u8]) -> usize {
    let Some(rest) = payload.strip_prefix(&MAGIC) else { return 0 };
    let words = rest.get(6..8).map_or(0, |words| usize::from(u16::from_be_bytes([words[0], words[1]])));
    FIXED + (words * 4).min(MOST_HEADER) + 4
}

/// The message without a length in front.
fn unframed(message: Bytes) -> Result<Bytes, WireError> {
    let Some(first) = message.first_chunk::<4>() else { return Err(CUT) };
    if matches!(first, [0x80, 0x01, ..] | [0x82, ..]) {
        return Ok(message);
    }
    let claimed = u32::from_be_bytes(*first) as usize;
    let message = message.slice(4..);
    // More than is there: the rest of the frame is still to come, or the message ends early, which shows when it is decoded.
    if claimed < message.len() {
        return Err(WireError::Head("ttheader is followed by more than one message"));
    }
    Ok(message)
}

fn read_blocks(blocks: &mut Reader<'_>) -> Result<Carried, WireError> {
    let (protocol, transforms) = (blocks.u8()?, blocks.u8()?);
    if !matches!(protocol, 0 | 2) {
        return Err(WireError::Head("ttheader names a protocol that is neither binary nor compact"));
    }
    if transforms != 0 {
        return Err(WireError::Head("ttheader asks for a transform"));
    }
    let mut carried = Carried::default();
    while !blocks.0.is_empty() {
        match blocks.u8()? {
            0x00 => {}
            0x01 => {
                for _ in 0..blocks.u16()? {
                    let (key, value) = (blocks.text()?, blocks.text()?);
                    carried.by_text(key, value);
                }
            }
            0x10 => {
                for _ in 0..blocks.u16()? {
                    let (key, value) = (blocks.u16()?, blocks.text()?);
                    carried.by_number(key, value);
                }
            }
            // Of whatever stands around the caller, maybe: a key that the caller itself wrote counts more.
            0x11 => {
                let token = kept(blocks.text()?);
                carried.key = carried.key.take().or(token);
            }
            _ => return Err(WireError::Head("ttheader has a block of an unknown kind")),
        }
    }
    Ok(carried)
}

impl Carried {
    fn by_number(&mut self, key: u16, value: &[u8]) {
        match key {
            2 => self.log_id = kept(value).or(self.log_id.take()),
            3 => self.caller = kept(value),
            12 => self.timeout_ms = kept(value).and_then(|text| text.parse().ok()).filter(|ms| *ms > 0),
            _ => {}
        }
    }

    /// Kitex hands on what its callers set as `RPC_TRANSIT_...` (one hop) and `RPC_PERSIST_...` (all of them).
    fn by_text(&mut self, key: &[u8], value: &[u8]) {
        let name = [&b"RPC_TRANSIT_"[..], b"RPC_PERSIST_"].iter().find_map(|prefix| key.strip_prefix(*prefix));
        let name = name.unwrap_or(key);
        if [&b"logid"[..], b"log_id", b"log-id"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            self.log_id = self.log_id.take().or_else(|| kept(value));
        } else if name.eq_ignore_ascii_case(b"traceparent") {
            self.traceparent = kept(value);
        } else if name.eq_ignore_ascii_case(b"tracestate") {
            self.tracestate = text(value, LONGEST_STATE);
        } else if name.eq_ignore_ascii_case(b"outboard-key") || name.eq_ignore_ascii_case(b"outboard_key") {
            self.key = kept(value).or(self.key.take());
        }
    }
}

fn kept(value: &[u8]) -> Option<String> {
    text(value, LONGEST)
}

fn text(value: &[u8], longest: usize) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    (!text.is_empty() && text.len() <= longest).then(|| text.to_owned())
}

const CUT: WireError = WireError::Head("ttheader ends early");

/// Bytes that are left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    fn text(&mut self) -> Result<&'a [u8], WireError> {
        let bytes = usize::from(self.u16()?);
        self.take(bytes)
    }
}
