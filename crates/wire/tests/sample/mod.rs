//! A struct with a field of every kind, read and written the way generated code does it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use thrift::protocol::{
    TInputProtocol, TListIdentifier, TMapIdentifier, TOutputProtocol, TSerializable, TSetIdentifier, TType,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) flag: Option<bool>,
    pub(crate) byte: Option<i8>,
    pub(crate) short: Option<i16>,
    pub(crate) int: Option<i32>,
    pub(crate) long: Option<i64>,
    pub(crate) double: Option<f64>,
    pub(crate) text: Option<String>,
    pub(crate) blob: Option<Bytes>,
    pub(crate) flags: Option<Vec<bool>>,
    pub(crate) blobs: Option<Vec<Bytes>>,
    pub(crate) set: Option<Vec<i64>>,
    pub(crate) map: Option<BTreeMap<String, f64>>,
    pub(crate) nested: Option<Vec<Sample>>,
    pub(crate) far: Option<bool>,
}

impl TSerializable for Sample {
    fn read_from_in_protocol(i: &mut dyn TInputProtocol) -> thrift::Result<Self> {
        let mut sample = Self::default();
        i.read_struct_begin()?;
        loop {
            let field = i.read_field_begin()?;
            if field.field_type == TType::Stop {
                break;
            }
            match thrift::protocol::field_id(&field)? {
                1 => sample.flag = Some(i.read_bool()?),
                2 => sample.byte = Some(i.read_i8()?),
                3 => sample.short = Some(i.read_i16()?),
                4 => sample.int = Some(i.read_i32()?),
                5 => sample.long = Some(i.read_i64()?),
                6 => sample.double = Some(i.read_double()?),
                7 => sample.text = Some(i.read_string()?),
                8 => sample.blob = Some(wire::read_blob(i)?),
                9 => {
                    let list = i.read_list_begin()?;
                    let mut flags = Vec::with_capacity(thrift::protocol::prealloc_size(list.size));
                    for _ in 0..list.size {
                        flags.push(i.read_bool()?);
                    }
                    sample.flags = Some(flags);
                }
                10 => {
                    let list = i.read_list_begin()?;
                    let mut blobs = Vec::with_capacity(thrift::protocol::prealloc_size(list.size));
                    for _ in 0..list.size {
                        blobs.push(wire::read_blob(i)?);
                    }
                    sample.blobs = Some(blobs);
                }
                11 => {
                    let set = i.read_set_begin()?;
                    let mut values = Vec::with_capacity(thrift::protocol::prealloc_size(set.size));
                    for _ in 0..set.size {
                        values.push(i.read_i64()?);
                    }
                    sample.set = Some(values);
                }
                12 => {
                    let map = i.read_map_begin()?;
                    let mut entries = BTreeMap::new();
                    for _ in 0..map.size {
                        let key = i.read_string()?;
                        entries.insert(key, i.read_double()?);
                    }
                    sample.map = Some(entries);
                }
                13 => {
                    let list = i.read_list_begin()?;
                    let mut nested = Vec::with_capacity(thrift::protocol::prealloc_size(list.size));
                    for _ in 0..list.size {
                        nested.push(Self::read_from_in_protocol(i)?);
                    }
                    sample.nested = Some(nested);
                }
                3000 => sample.far = Some(i.read_bool()?),
                _ => i.skip(field.field_type)?,
            }
            i.read_field_end()?;
        }
        i.read_struct_end()?;
        Ok(sample)
    }

    fn write_to_out_protocol(&self, o: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        o.write_struct_begin(&wire::structure())?;
        if let Some(value) = self.flag {
            o.write_field_begin(&wire::field(TType::Bool, 1))?;
            o.write_bool(value)?;
        }
        if let Some(value) = self.byte {
            o.write_field_begin(&wire::field(TType::I08, 2))?;
            o.write_i8(value)?;
        }
        if let Some(value) = self.short {
            o.write_field_begin(&wire::field(TType::I16, 3))?;
            o.write_i16(value)?;
        }
        if let Some(value) = self.int {
            o.write_field_begin(&wire::field(TType::I32, 4))?;
            o.write_i32(value)?;
        }
        if let Some(value) = self.long {
            o.write_field_begin(&wire::field(TType::I64, 5))?;
            o.write_i64(value)?;
        }
        if let Some(value) = self.double {
            o.write_field_begin(&wire::field(TType::Double, 6))?;
            o.write_double(value)?;
        }
        if let Some(value) = &self.text {
            o.write_field_begin(&wire::field(TType::String, 7))?;
            o.write_string(value)?;
        }
        if let Some(value) = &self.blob {
            o.write_field_begin(&wire::field(TType::String, 8))?;
            wire::write_blob(o, value)?;
        }
        if let Some(values) = &self.flags {
            o.write_field_begin(&wire::field(TType::List, 9))?;
            o.write_list_begin(&TListIdentifier { element_type: TType::Bool, size: values.len() as i32 })?;
            for value in values {
                o.write_bool(*value)?;
            }
        }
        if let Some(values) = &self.blobs {
            o.write_field_begin(&wire::field(TType::List, 10))?;
            o.write_list_begin(&TListIdentifier { element_type: TType::String, size: values.len() as i32 })?;
            for value in values {
                wire::write_blob(o, value)?;
            }
        }
        if let Some(values) = &self.set {
            o.write_field_begin(&wire::field(TType::Set, 11))?;
            o.write_set_begin(&TSetIdentifier { element_type: TType::I64, size: values.len() as i32 })?;
            for value in values {
                o.write_i64(*value)?;
            }
        }
        if let Some(entries) = &self.map {
            o.write_field_begin(&wire::field(TType::Map, 12))?;
            o.write_map_begin(&TMapIdentifier::new(TType::String, TType::Double, entries.len() as i32))?;
            for (key, value) in entries {
                o.write_string(key)?;
                o.write_double(*value)?;
            }
        }
        if let Some(values) = &self.nested {
            o.write_field_begin(&wire::field(TType::List, 13))?;
            o.write_list_begin(&TListIdentifier { element_type: TType::Struct, size: values.len() as i32 })?;
            for value in values {
                value.write_to_out_protocol(o)?;
            }
        }
        if let Some(value) = self.far {
            o.write_field_begin(&wire::field(TType::Bool, 3000))?;
            o.write_bool(value)?;
        }
        o.write_field_stop()?;
        o.write_struct_end()
    }
}

/// Any sample; blobs on both sides of the length from which they go by reference.
pub(crate) fn any_sample() -> impl Strategy<Value = Sample> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        (leaf(), prop::option::of(prop::collection::vec(inner, 0..3)))
            .prop_map(|(sample, nested)| Sample { nested, ..sample })
    })
}

fn leaf() -> impl Strategy<Value = Sample> {
    let numbers =
        (any::<Option<bool>>(), any::<Option<i8>>(), any::<Option<i16>>(), any::<Option<i32>>(), any::<Option<i64>>());
    let double = prop::option::of(prop::num::f64::NORMAL | prop::num::f64::ZERO);
    let texts = (prop::option::of(".{0,20}"), prop::option::of(any_blob()));
    let lists = (
        prop::option::of(prop::collection::vec(any::<bool>(), 0..20)),
        prop::option::of(prop::collection::vec(any_blob(), 0..4)),
        prop::option::of(prop::collection::vec(any::<i64>(), 0..20)),
        prop::option::of(prop::collection::btree_map(".{0,8}", prop::num::f64::NORMAL, 0..4)),
    );
    (numbers, double, texts, lists, any::<Option<bool>>()).prop_map(
        |((flag, byte, short, int, long), double, (text, blob), (flags, blobs, set, map), far)| Sample {
            flag,
            byte,
            short,
            int,
            long,
            double,
            text,
            blob,
            flags,
            blobs,
            set,
            map,
            nested: None,
            far,
        },
    )
}

fn any_blob() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        1 => (wire::BY_REFERENCE - 2..wire::BY_REFERENCE + 3, any::<u8>()).prop_map(|(n, byte)| Bytes::from(vec![byte; n])),
    ]
}
