//! The compact protocol over one frame: variable-length zigzag numbers, field ids as differences, booleans in the
//! field's own byte.

use bytes::{BufMut, Bytes};
use thrift::protocol::{
    TFieldIdentifier, TInputProtocol, TListIdentifier, TMapIdentifier, TMessageIdentifier, TOutputProtocol,
    TSetIdentifier, TStructIdentifier, TType,
};
use thrift::{ProtocolErrorKind, new_protocol_error};

use crate::DecodeLimits;
use crate::cursor::{Cursor, invalid};
use crate::segments::Segments;

const DEEPEST: usize = DecodeLimits::DEEPEST;

/// Reads the compact protocol from the bytes after a message's head.
pub struct CompactIn {
    cursor: Cursor,
    /// The id of the last field, and those of the structs around.
    last: i16,
    outer: [i16; DEEPEST],
    /// The value of a boolean field: it came with the field's type.
    held: Option<bool>,
}

impl CompactIn {
    /// A reader of `body`, which must have arrived whole.
    #[must_use]
    pub fn new(body: Bytes, limits: &DecodeLimits) -> Self {
        Self { cursor: Cursor::new(body, limits), last: 0, outer: [0; DEEPEST], held: None }
    }

    fn varint(&mut self, most_bytes: u32) -> thrift::Result<u64> {
        let mut value = 0;
        for place in 0..most_bytes {
            let byte = self.cursor.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(invalid(format!("number of variable length is over {most_bytes} bytes long")))
    }

    fn length(&mut self) -> thrift::Result<u32> {
        let value = self.varint(5)?;
        u32::try_from(value).map_err(|_| invalid(format!("length {value} does not fit 32 bits")))
    }

    fn zigzag(&mut self, most_bytes: u32) -> thrift::Result<i64> {
        let value = self.varint(most_bytes)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn elements(&mut self) -> thrift::Result<(TType, i32)> {
        let header = self.cursor.byte()?;
        let claimed = match header >> 4 {
            15 => self.length()?,
            short => u32::from(short),
        };
        if claimed == 0 {
            self.cursor.announce_nothing();
            return Ok((kind_of(header & 0x0f).unwrap_or(TType::Stop), 0));
        }
        let kind = kind_of(header & 0x0f)?;
        let count = self.cursor.count(claimed, least(kind))?;
        self.cursor.announce_elements(count, kind, None);
        Ok((kind, count))
    }
}

impl TInputProtocol for CompactIn {
    fn read_message_begin(&mut self) -> thrift::Result<TMessageIdentifier> {
        Err(invalid("message heads are read by the envelope"))
    }

    fn read_message_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn read_struct_begin(&mut self) -> thrift::Result<Option<TStructIdentifier>> {
        self.cursor.enter_struct()?;
        self.outer[self.cursor.depth() - 1] = std::mem::take(&mut self.last);
        Ok(None)
    }

    fn read_struct_end(&mut self) -> thrift::Result<()> {
        self.cursor.leave_struct();
        self.last = self.outer[self.cursor.depth()];
        Ok(())
    }

    fn read_field_begin(&mut self) -> thrift::Result<TFieldIdentifier> {
        let header = self.cursor.byte()?;
        let (step, code) = (header >> 4, header & 0x0f);
        self.held = match code {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        };
        let kind = kind_of(code)?;
        if kind == TType::Stop {
            self.cursor.announce_nothing();
            return Ok(TFieldIdentifier { name: None, field_type: kind, id: None });
        }
        let id = match step {
            0 => i16::try_from(self.zigzag(3)?).ok(),
            step => self.last.checked_add(i16::from(step)),
        };
        self.last = id.ok_or_else(|| invalid(format!("field id after {} does not fit 16 bits", self.last)))?;
        self.cursor.announce_field(self.last, kind);
        Ok(crate::field(kind, self.last))
    }

    fn read_field_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn read_bool(&mut self) -> thrift::Result<bool> {
        self.cursor.expect(TType::Bool)?;
        match self.held.take() {
            Some(value) => Ok(value),
            // Inside containers: 1 and 2 in the specification of today, 1 and 0 in that of old.
            None => Ok(self.cursor.byte()? == 1),
        }
    }

    fn read_bytes(&mut self) -> thrift::Result<Vec<u8>> {
        self.cursor.expect(TType::String)?;
        let claimed = self.length()?;
        self.cursor.bytes(claimed)
    }

    fn skip_binary(&mut self) -> thrift::Result<()> {
        self.cursor.expect(TType::String)?;
        let claimed = self.length()?;
        self.cursor.pass(claimed)
    }

    fn read_i8(&mut self) -> thrift::Result<i8> {
        self.cursor.expect(TType::I08)?;
        self.cursor.array().map(i8::from_be_bytes)
    }

    fn read_i16(&mut self) -> thrift::Result<i16> {
        self.cursor.expect(TType::I16)?;
        let value = self.zigzag(3)?;
        i16::try_from(value).map_err(|_| invalid(format!("number {value} does not fit 16 bits")))
    }

    fn read_i32(&mut self) -> thrift::Result<i32> {
        self.cursor.expect(TType::I32)?;
        let value = self.zigzag(5)?;
        i32::try_from(value).map_err(|_| invalid(format!("number {value} does not fit 32 bits")))
    }

    fn read_i64(&mut self) -> thrift::Result<i64> {
        self.cursor.expect(TType::I64)?;
        self.zigzag(10)
    }

    fn read_double(&mut self) -> thrift::Result<f64> {
        self.cursor.expect(TType::Double)?;
        self.cursor.array().map(f64::from_le_bytes)
    }

    fn read_uuid(&mut self) -> thrift::Result<uuid::Uuid> {
        self.cursor.expect(TType::Uuid)?;
        self.cursor.array().map(uuid::Uuid::from_bytes)
    }

    fn read_string(&mut self) -> thrift::Result<String> {
        self.cursor.expect(TType::String)?;
        let claimed = self.length()?;
        self.cursor.string(claimed)
    }

    fn read_list_begin(&mut self) -> thrift::Result<TListIdentifier> {
        self.cursor.expect(TType::List)?;
        self.elements().map(|(element_type, size)| TListIdentifier { element_type, size })
    }

    fn read_list_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn read_set_begin(&mut self) -> thrift::Result<TSetIdentifier> {
        self.cursor.expect(TType::Set)?;
        self.elements().map(|(element_type, size)| TSetIdentifier { element_type, size })
    }

    fn read_set_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn read_map_begin(&mut self) -> thrift::Result<TMapIdentifier> {
        self.cursor.expect(TType::Map)?;
        let claimed = self.length()?;
        if claimed == 0 {
            self.cursor.announce_nothing();
            return Ok(TMapIdentifier { key_type: None, value_type: None, size: 0 });
        }
        let header = self.cursor.byte()?;
        let (key, value) = (kind_of(header >> 4)?, kind_of(header & 0x0f)?);
        let size = self.cursor.count(claimed, least(key) + least(value))?;
        self.cursor.announce_elements(size, key, Some(value));
        Ok(TMapIdentifier { key_type: Some(key), value_type: Some(value), size })
    }

    fn read_map_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn read_byte(&mut self) -> thrift::Result<u8> {
        self.cursor.byte()
    }

    fn min_serialized_size(&self, kind: TType) -> usize {
        least(kind)
    }
}

/// Writes the compact protocol into a frame.
pub struct CompactOut<'a> {
    segments: &'a mut Segments,
    last: i16,
    outer: [i16; DEEPEST],
    depth: usize,
    /// The id of a boolean field whose value is to come.
    held: Option<i16>,
}

impl<'a> CompactOut<'a> {
    pub(crate) fn new(segments: &'a mut Segments) -> Self {
        Self { segments, last: 0, outer: [0; DEEPEST], depth: 0, held: None }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.segments.inline.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.segments.inline.put_u8(value as u8);
    }

    fn zigzag(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn field(&mut self, id: i16, code: u8) {
        match i32::from(id) - i32::from(self.last) {
            step @ 1..=15 => self.segments.inline.put_u8((step as u8) << 4 | code),
            _ => {
                self.segments.inline.put_u8(code);
                self.zigzag(i64::from(id));
            }
        }
        self.last = id;
    }

    fn elements(&mut self, kind: TType, size: i32) {
        if (0..=14).contains(&size) {
            self.segments.inline.put_u8((size as u8) << 4 | code_of(kind));
        } else {
            self.segments.inline.put_u8(0xf0 | code_of(kind));
            self.varint(u64::from(size as u32));
        }
    }
}

impl TOutputProtocol for CompactOut<'_> {
    fn write_message_begin(&mut self, identifier: &TMessageIdentifier) -> thrift::Result<()> {
        self.segments.inline.put_u8(0x82);
        self.segments.inline.put_u8(u8::from(identifier.message_type) << 5 | 1);
        self.varint(u64::from(identifier.sequence_number as u32));
        self.write_string(&identifier.name)
    }

    fn write_message_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_struct_begin(&mut self, _: &TStructIdentifier) -> thrift::Result<()> {
        let Some(place) = self.outer.get_mut(self.depth) else {
            let text = format!("structs are nested deeper than {DEEPEST}");
            return Err(new_protocol_error(ProtocolErrorKind::DepthLimit, text));
        };
        *place = std::mem::take(&mut self.last);
        self.depth += 1;
        Ok(())
    }

    fn write_struct_end(&mut self) -> thrift::Result<()> {
        self.depth = self.depth.saturating_sub(1);
        self.last = self.outer[self.depth];
        Ok(())
    }

    fn write_field_begin(&mut self, identifier: &TFieldIdentifier) -> thrift::Result<()> {
        let id = identifier.id.unwrap_or_default();
        match identifier.field_type {
            TType::Bool => self.held = Some(id),
            kind => self.field(id, code_of(kind)),
        }
        Ok(())
    }

    fn write_field_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_field_stop(&mut self) -> thrift::Result<()> {
        self.segments.inline.put_u8(0);
        Ok(())
    }

    fn write_bool(&mut self, value: bool) -> thrift::Result<()> {
        let code = if value { 1 } else { 2 };
        match self.held.take() {
            Some(id) => self.field(id, code),
            None => self.segments.inline.put_u8(code),
        }
        Ok(())
    }

    fn write_bytes(&mut self, value: &[u8]) -> thrift::Result<()> {
        let length = i32::try_from(value.len()).map_err(|_| invalid(format!("binary of {} bytes", value.len())))?;
        self.varint(u64::from(length as u32));
        self.segments.put_bytes(value);
        Ok(())
    }

    fn write_i8(&mut self, value: i8) -> thrift::Result<()> {
        self.segments.inline.put_i8(value);
        Ok(())
    }

    fn write_i16(&mut self, value: i16) -> thrift::Result<()> {
        self.zigzag(i64::from(value));
        Ok(())
    }

    fn write_i32(&mut self, value: i32) -> thrift::Result<()> {
        self.zigzag(i64::from(value));
        Ok(())
    }

    fn write_i64(&mut self, value: i64) -> thrift::Result<()> {
        self.zigzag(value);
        Ok(())
    }

    fn write_double(&mut self, value: f64) -> thrift::Result<()> {
        self.segments.inline.put_f64_le(value);
        Ok(())
    }

    fn write_uuid(&mut self, value: &uuid::Uuid) -> thrift::Result<()> {
        self.segments.inline.put_slice(value.as_bytes());
        Ok(())
    }

    fn write_string(&mut self, value: &str) -> thrift::Result<()> {
        self.write_bytes(value.as_bytes())
    }

    fn write_list_begin(&mut self, identifier: &TListIdentifier) -> thrift::Result<()> {
        self.elements(identifier.element_type, identifier.size);
        Ok(())
    }

    fn write_list_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_set_begin(&mut self, identifier: &TSetIdentifier) -> thrift::Result<()> {
        self.elements(identifier.element_type, identifier.size);
        Ok(())
    }

    fn write_set_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_map_begin(&mut self, identifier: &TMapIdentifier) -> thrift::Result<()> {
        self.varint(u64::from(identifier.size as u32));
        if identifier.size > 0 {
            let key = identifier.key_type.map_or(0, code_of);
            let value = identifier.value_type.map_or(0, code_of);
            self.segments.inline.put_u8(key << 4 | value);
        }
        Ok(())
    }

    fn write_map_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_byte(&mut self, value: u8) -> thrift::Result<()> {
        self.segments.inline.put_u8(value);
        Ok(())
    }
}

fn kind_of(code: u8) -> thrift::Result<TType> {
    Ok(match code {
        0 => TType::Stop,
        1 | 2 => TType::Bool,
        3 => TType::I08,
        4 => TType::I16,
        5 => TType::I32,
        6 => TType::I64,
        7 => TType::Double,
        8 => TType::String,
        9 => TType::List,
        10 => TType::Set,
        11 => TType::Map,
        12 => TType::Struct,
        13 => TType::Uuid,
        other => return Err(invalid(format!("type code {other} is not one of the compact protocol"))),
    })
}

fn code_of(kind: TType) -> u8 {
    match kind {
        TType::Stop | TType::Void => 0,
        TType::Bool => 1,
        TType::I08 => 3,
        TType::I16 => 4,
        TType::I32 => 5,
        TType::I64 => 6,
        TType::Double => 7,
        TType::String | TType::Utf7 => 8,
        TType::List => 9,
        TType::Set => 10,
        TType::Map => 11,
        TType::Struct => 12,
        TType::Uuid => 13,
    }
}

/// The least number of bytes that a value takes.
fn least(kind: TType) -> usize {
    match kind {
        TType::Double => 8,
        TType::Uuid => 16,
        _ => 1,
    }
}
