//! The place in a frame that both protocols read from, with every guard against lying bytes.
//!
//! Promises: nothing past the end is read; a length or a count is compared with the bytes left before anything is
//! reserved for it; nesting, elements and structs are bounded; a field whose type on the wire is not the one that the
//! reader asks for is an error (generated readers look at ids only, and would take a number for a length).

use std::str;

use bytes::Bytes;
use thrift::protocol::TType;
use thrift::{ProtocolErrorKind, new_protocol_error};

use crate::{DecodeLimits, blob};

pub(crate) struct Cursor {
    frame: Bytes,
    at: usize,
    depth: usize,
    deepest: usize,
    elements_left: usize,
    structs: usize,
    structs_left: usize,
    most_elements: usize,
    /// Type of the value that comes next and of the one after it (a map's first value), where the wire has told.
    announced: [Option<TType>; 2],
    field: i16,
}

impl Cursor {
    pub(crate) fn new(frame: Bytes, limits: &DecodeLimits) -> Self {
        let structs = limits.structs.min(256 + frame.len() / 8);
        Self {
            frame,
            at: 0,
            depth: 0,
            deepest: limits.depth.min(DecodeLimits::DEEPEST),
            elements_left: limits.container,
            structs,
            structs_left: structs,
            most_elements: limits.container,
            announced: [None, None],
            field: 0,
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    fn left(&self) -> usize {
        self.frame.len() - self.at
    }

    fn advance(&mut self, bytes: usize) -> thrift::Result<usize> {
        if bytes > self.left() {
            return Err(invalid(format!("message ends {} bytes early", bytes - self.left())));
        }
        let start = self.at;
        self.at += bytes;
        Ok(start)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> thrift::Result<[u8; N]> {
        let start = self.advance(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.frame[start..start + N]);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> thrift::Result<u8> {
        let start = self.advance(1)?;
        Ok(self.frame[start])
    }

    /// Notes the type that the wire gives to the field's value.
    pub(crate) fn announce_field(&mut self, id: i16, kind: TType) {
        self.field = id;
        self.announced = [Some(kind), None];
    }

    pub(crate) fn announce_nothing(&mut self) {
        self.announced = [None, None];
    }

    /// Refuses to read a value as `asked` when the wire has announced another type.
    pub(crate) fn expect(&mut self, asked: TType) -> thrift::Result<()> {
        let [next, after] = self.announced;
        self.announced = [after, None];
        match next {
            Some(found) if found != asked => {
                Err(invalid(format!("field {} is {found} on the wire, {asked} was expected", self.field)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn enter_struct(&mut self) -> thrift::Result<()> {
        self.expect(TType::Struct)?;
        if self.depth >= self.deepest {
            let text = format!("structs are nested deeper than {}", self.deepest);
            return Err(new_protocol_error(ProtocolErrorKind::DepthLimit, text));
        }
        if self.structs_left == 0 {
            return Err(too_much(format!("message has more than {} structs", self.structs)));
        }
        self.depth += 1;
        self.structs_left -= 1;
        Ok(())
    }

    pub(crate) fn leave_struct(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.announce_nothing();
    }

    /// Checks a container's count: `least` bytes is the least that one element takes on the wire.
    pub(crate) fn count(&mut self, claimed: u32, least: usize) -> thrift::Result<i32> {
        let Ok(count) = i32::try_from(claimed) else {
            return Err(new_protocol_error(ProtocolErrorKind::NegativeSize, format!("count of {claimed} elements")));
        };
        let elements = claimed as usize;
        if elements.saturating_mul(least) > self.left() {
            return Err(invalid(format!("count of {claimed} elements, {} bytes are left", self.left())));
        }
        if elements > self.elements_left {
            return Err(too_much(format!("message has more than {} elements", self.most_elements)));
        }
        self.elements_left -= elements;
        Ok(count)
    }

    pub(crate) fn announce_elements(&mut self, count: i32, first: TType, second: Option<TType>) {
        if count == 0 {
            return self.announce_nothing();
        }
        // After a key that holds values of its own the place for the first value's type would be overwritten.
        let plain = !matches!(first, TType::Struct | TType::List | TType::Set | TType::Map);
        self.announced = [Some(first), second.filter(|_| plain)];
    }

    /// The next `claimed` bytes as a value of type string.
    fn text(&mut self, claimed: u32) -> thrift::Result<std::ops::Range<usize>> {
        let bytes = claimed as usize;
        if bytes > self.left() {
            return Err(invalid(format!("string of {claimed} bytes, {} bytes are left", self.left())));
        }
        let start = self.advance(bytes)?;
        Ok(start..start + bytes)
    }

    pub(crate) fn bytes(&mut self, claimed: u32) -> thrift::Result<Vec<u8>> {
        let range = self.text(claimed)?;
        if blob::is_wanted() {
            blob::put_read(self.frame.slice(range));
            return Ok(Vec::new());
        }
        Ok(self.frame[range].to_vec())
    }

    pub(crate) fn string(&mut self, claimed: u32) -> thrift::Result<String> {
        let range = self.text(claimed)?;
        match str::from_utf8(&self.frame[range]) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(invalid(format!("string in or after field {} is not utf-8", self.field))),
        }
    }

    pub(crate) fn pass(&mut self, claimed: u32) -> thrift::Result<()> {
        self.text(claimed).map(drop)
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> thrift::Error {
    new_protocol_error(ProtocolErrorKind::InvalidData, message)
}

/// A limit is reached; what claims more than it has is [`invalid`].
fn too_much(message: String) -> thrift::Error {
    new_protocol_error(ProtocolErrorKind::SizeLimit, message)
}
