//! The strict binary protocol over one frame: fixed-width big-endian numbers, four-byte lengths.

use bytes::{BufMut, Bytes};
use thrift::protocol::{
    TFieldIdentifier, TInputProtocol, TListIdentifier, TMapIdentifier, TMessageIdentifier, TMessageType,
    TOutputProtocol, TSetIdentifier, TStructIdentifier, TType,
};

use crate::DecodeLimits;
use crate::cursor::{Cursor, invalid};
use crate::segments::Segments;

/// Reads the strict binary protocol from the bytes after a message's head.
pub struct SliceIn {
    cursor: Cursor,
}

impl SliceIn {
    /// A reader of `body`, which must have arrived whole.
    #[must_use]
    pub fn new(body: Bytes, limits: &DecodeLimits) -> Self {
        Self { cursor: Cursor::new(body, limits) }
    }

    fn length(&mut self) -> thrift::Result<u32> {
        self.cursor.array().map(u32::from_be_bytes)
    }

    fn elements(&mut self) -> thrift::Result<(TType, i32)> {
        let code = self.cursor.byte()?;
        let claimed = self.length()?;
        if claimed == 0 {
            // Some writers leave the type of an empty container unset.
            self.cursor.announce_nothing();
            return Ok((kind_of(code).unwrap_or(TType::Stop), 0));
        }
        let kind = kind_of(code)?;
        let count = self.cursor.count(claimed, least(kind))?;
        self.cursor.announce_elements(count, kind, None);
        Ok((kind, count))
    }
}

impl TInputProtocol for SliceIn {
    fn read_message_begin(&mut self) -> thrift::Result<TMessageIdentifier> {
        Err(invalid("message heads are read by the envelope"))
    }

    fn read_message_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn read_struct_begin(&mut self) -> thrift::Result<Option<TStructIdentifier>> {
        self.cursor.enter_struct().map(|()| None)
    }

    fn read_struct_end(&mut self) -> thrift::Result<()> {
        self.cursor.leave_struct();
        Ok(())
    }

    fn read_field_begin(&mut self) -> thrift::Result<TFieldIdentifier> {
        let kind = kind_of(self.cursor.byte()?)?;
        if kind == TType::Stop {
            self.cursor.announce_nothing();
            return Ok(TFieldIdentifier { name: None, field_type: kind, id: None });
        }
        let id = self.cursor.array().map(i16::from_be_bytes)?;
        self.cursor.announce_field(id, kind);
        Ok(crate::field(kind, id))
    }

    fn read_field_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn read_bool(&mut self) -> thrift::Result<bool> {
        self.cursor.expect(TType::Bool)?;
        Ok(self.cursor.byte()? != 0)
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
        self.cursor.array().map(i16::from_be_bytes)
    }

    fn read_i32(&mut self) -> thrift::Result<i32> {
        self.cursor.expect(TType::I32)?;
        self.cursor.array().map(i32::from_be_bytes)
    }

    fn read_i64(&mut self) -> thrift::Result<i64> {
        self.cursor.expect(TType::I64)?;
        self.cursor.array().map(i64::from_be_bytes)
    }

    fn read_double(&mut self) -> thrift::Result<f64> {
        self.cursor.expect(TType::Double)?;
        self.cursor.array().map(f64::from_be_bytes)
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
        let [key, value] = self.cursor.array()?;
        let claimed = self.length()?;
        if claimed == 0 {
            self.cursor.announce_nothing();
            return Ok(TMapIdentifier { key_type: None, value_type: None, size: 0 });
        }
        let (key, value) = (kind_of(key)?, kind_of(value)?);
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

/// Writes the strict binary protocol into a frame.
pub struct SegOut<'a> {
    segments: &'a mut Segments,
}

impl<'a> SegOut<'a> {
    pub(crate) fn new(segments: &'a mut Segments) -> Self {
        Self { segments }
    }

    fn count(&mut self, size: i32) {
        self.segments.inline.put_i32(size);
    }
}

impl TOutputProtocol for SegOut<'_> {
    fn write_message_begin(&mut self, identifier: &TMessageIdentifier) -> thrift::Result<()> {
        let kind: TMessageType = identifier.message_type;
        self.segments.inline.put_u32(0x8001_0000 | u32::from(u8::from(kind)));
        self.write_string(&identifier.name)?;
        self.write_i32(identifier.sequence_number)
    }

    fn write_message_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_struct_begin(&mut self, _: &TStructIdentifier) -> thrift::Result<()> {
        Ok(())
    }

    fn write_struct_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_field_begin(&mut self, identifier: &TFieldIdentifier) -> thrift::Result<()> {
        self.segments.inline.put_u8(code_of(identifier.field_type));
        self.segments.inline.put_i16(identifier.id.unwrap_or_default());
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
        self.segments.inline.put_u8(u8::from(value));
        Ok(())
    }

    fn write_bytes(&mut self, value: &[u8]) -> thrift::Result<()> {
        let length = i32::try_from(value.len()).map_err(|_| invalid(format!("binary of {} bytes", value.len())))?;
        self.segments.inline.put_i32(length);
        self.segments.put_bytes(value);
        Ok(())
    }

    fn write_i8(&mut self, value: i8) -> thrift::Result<()> {
        self.segments.inline.put_i8(value);
        Ok(())
    }

    fn write_i16(&mut self, value: i16) -> thrift::Result<()> {
        self.segments.inline.put_i16(value);
        Ok(())
    }

    fn write_i32(&mut self, value: i32) -> thrift::Result<()> {
        self.segments.inline.put_i32(value);
        Ok(())
    }

    fn write_i64(&mut self, value: i64) -> thrift::Result<()> {
        self.segments.inline.put_i64(value);
        Ok(())
    }

    fn write_double(&mut self, value: f64) -> thrift::Result<()> {
        self.segments.inline.put_f64(value);
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
        self.segments.inline.put_u8(code_of(identifier.element_type));
        self.count(identifier.size);
        Ok(())
    }

    fn write_list_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_set_begin(&mut self, identifier: &TSetIdentifier) -> thrift::Result<()> {
        self.segments.inline.put_u8(code_of(identifier.element_type));
        self.count(identifier.size);
        Ok(())
    }

    fn write_set_end(&mut self) -> thrift::Result<()> {
        Ok(())
    }

    fn write_map_begin(&mut self, identifier: &TMapIdentifier) -> thrift::Result<()> {
        self.segments.inline.put_u8(identifier.key_type.map_or(0, code_of));
        self.segments.inline.put_u8(identifier.value_type.map_or(0, code_of));
        self.count(identifier.size);
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
        2 => TType::Bool,
        3 => TType::I08,
        4 => TType::Double,
        6 => TType::I16,
        8 => TType::I32,
        10 => TType::I64,
        11 => TType::String,
        12 => TType::Struct,
        13 => TType::Map,
        14 => TType::Set,
        15 => TType::List,
        16 => TType::Uuid,
        other => return Err(invalid(format!("type code {other} is not one of the binary protocol"))),
    })
}

fn code_of(kind: TType) -> u8 {
    match kind {
        TType::Stop => 0,
        TType::Void => 1,
        TType::Bool => 2,
        TType::I08 => 3,
        TType::Double => 4,
        TType::I16 => 6,
        TType::I32 => 8,
        TType::I64 => 10,
        TType::String | TType::Utf7 => 11,
        TType::Struct => 12,
        TType::Map => 13,
        TType::Set => 14,
        TType::List => 15,
        TType::Uuid => 16,
    }
}

/// The least number of bytes that a value takes.
fn least(kind: TType) -> usize {
    match kind {
        TType::Stop | TType::Void | TType::Bool | TType::I08 | TType::Struct | TType::Utf7 => 1,
        TType::I16 => 2,
        TType::I32 | TType::String => 4,
        TType::I64 | TType::Double => 8,
        TType::List | TType::Set => 5,
        TType::Map => 6,
        TType::Uuid => 16,
    }
}
