//! Tensors as they are typed: `NAME=TYPE:[SHAPE]:VALUES`.

use bytes::Bytes;
use half::{bf16, f16};
use idl::inference::{DataType, Tensor};
use serde_json::{Value, json};

type Kind = (&'static str, DataType, usize);

/// Name, number and bytes of an element; strings have no fixed size.
const KINDS: [Kind; 14] = [
    ("f32", DataType::F32, 4),
    ("f64", DataType::F64, 8),
    ("f16", DataType::F16, 2),
    ("bf16", DataType::BF16, 2),
    ("i8", DataType::I8, 1),
    ("i16", DataType::I16, 2),
    ("i32", DataType::I32, 4),
    ("i64", DataType::I64, 8),
    ("u8", DataType::U8, 1),
    ("u16", DataType::U16, 2),
    ("u32", DataType::U32, 4),
    ("u64", DataType::U64, 8),
    ("bool", DataType::BOOL, 1),
    ("string", DataType::STRING, 0),
];

/// The name of an element type.
pub(crate) fn name_of(kind: DataType) -> Option<&'static str> {
    KINDS.iter().find(|known| known.1 == kind).map(|known| known.0)
}

/// Bytes of one element; 0 for strings and unknown types.
pub(crate) fn bytes_of(kind: DataType) -> usize {
    KINDS.iter().find(|known| known.1 == kind).map_or(0, |known| known.2)
}

/// Reads one tensor.
///
/// # Errors
/// One sentence that says what is wrong and what is expected.
pub(crate) fn parse(text: &str) -> Result<Tensor, String> {
    let form = || format!("{text:?} is not NAME=TYPE:[SHAPE]:VALUES");
    let (name, rest) = text.split_once('=').ok_or_else(form)?;
    let (kind, rest) = rest.split_once(':').ok_or_else(form)?;
    let (shape, values) = rest.split_once("]:").ok_or_else(form)?;
    let known = KINDS.iter().find(|known| known.0 == kind.trim()).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|known| known.0).collect();
        format!("type of {name} is {kind:?}, allowed are {}", names.join(", "))
    })?;
    let shape: Vec<i64> =
        serde_json::from_str(&format!("{}]", shape.trim())).map_err(|error| format!("shape of {name}: {error}"))?;
    let (mut data, mut strings) = (None, None);
    if let Some(path) = values.trim().strip_prefix('@') {
        data = Some(Bytes::from(std::fs::read(path).map_err(|error| format!("{path}: {error}"))?));
    } else {
        let value: Value = serde_json::from_str(values).map_err(|error| format!("values of {name}: {error}"))?;
        let mut flat = Vec::new();
        flatten(&value, &mut flat);
        if known.0 == "string" {
            let texts = flat.iter().map(|one| one.as_str().map(str::to_owned));
            strings =
                Some(texts.collect::<Option<Vec<_>>>().ok_or_else(|| format!("values of {name} are not all texts"))?);
        } else {
            let mut bytes = Vec::with_capacity(flat.len() * known.2);
            for one in flat {
                write(known.0, one, &mut bytes).ok_or_else(|| format!("{one} in {name} is no {}", known.0))?;
            }
            data = Some(Bytes::from(bytes));
        }
    }
    Ok(Tensor { name: Some(name.trim().to_owned()), data_type: Some(known.1), shape: Some(shape), data, strings })
}

fn flatten<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, out)),
        one => out.push(one),
    }
}

fn write(kind: &str, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    macro_rules! whole {
        ($type:ty) => {
            out.extend_from_slice(
                &<$type>::try_from(value.as_i64().map(i128::from).or(value.as_u64().map(i128::from))?)
                    .ok()?
                    .to_le_bytes(),
            )
        };
    }
    match kind {
        "f32" => out.extend_from_slice(&(value.as_f64()? as f32).to_le_bytes()),
        "f64" => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
        "f16" => out.extend_from_slice(&f16::from_f64(value.as_f64()?).to_le_bytes()),
        "bf16" => out.extend_from_slice(&bf16::from_f64(value.as_f64()?).to_le_bytes()),
        "i8" => whole!(i8),
        "i16" => whole!(i16),
        "i32" => whole!(i32),
        "i64" => whole!(i64),
        "u8" => whole!(u8),
        "u16" => whole!(u16),
        "u32" => whole!(u32),
        "u64" => whole!(u64),
        "bool" => out.push(u8::from(value.as_bool()?)),
        _ => return None,
    }
    Some(())
}

/// A tensor as JSON; elements that are no JSON numbers (NaN, infinities) become texts, unknown types stay raw bytes.
pub(crate) fn to_json(tensor: &Tensor) -> Value {
    let kind = tensor.data_type.and_then(name_of).unwrap_or("unknown");
    let values: Vec<Value> = match (&tensor.strings, &tensor.data) {
        (Some(strings), _) => strings.iter().map(|text| json!(text)).collect(),
        (None, Some(data)) => read(kind, data),
        (None, None) => Vec::new(),
    };
    json!({"name": tensor.name, "type": kind, "shape": tensor.shape, "values": values})
}

fn read(kind: &str, data: &[u8]) -> Vec<Value> {
    fn float(value: f64) -> Value {
        if value.is_finite() { json!(value) } else { json!(value.to_string()) }
    }
    macro_rules! each {
        ($type:ty, $make:expr) => {
            data.chunks_exact(size_of::<$type>())
                .filter_map(|bytes| bytes.try_into().ok())
                .map(|bytes| $make(<$type>::from_le_bytes(bytes)))
                .collect()
        };
    }
    match kind {
        "f32" => each!(f32, |value: f32| if value.is_finite() { json!(value) } else { json!(value.to_string()) }),
        "f64" => each!(f64, float),
        "f16" => each!(f16, |value: f16| float(value.to_f64())),
        "bf16" => each!(bf16, |value: bf16| float(value.to_f64())),
        "i8" => each!(i8, |value| json!(value)),
        "i16" => each!(i16, |value| json!(value)),
        "i32" => each!(i32, |value| json!(value)),
        "i64" => each!(i64, |value| json!(value)),
        "u16" => each!(u16, |value| json!(value)),
        "u32" => each!(u32, |value| json!(value)),
        "u64" => each!(u64, |value| json!(value)),
        "bool" => data.iter().map(|byte| json!(*byte != 0)).collect(),
        _ => data.iter().map(|byte| json!(byte)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_truths_are_read_and_printed_back() {
        for (text, values) in [
            ("x=f32:[1]:[1.0]", json!([1.0])),
            ("x=f32:[2,2]:[[1, 2], [3, 4.5]]", json!([1.0, 2.0, 3.0, 4.5])),
            ("x=i64:[2]:[-1, 9223372036854775807]", json!([-1, 9_223_372_036_854_775_807_i64])),
            ("x=u8:[1]:[255]", json!([255])),
            ("x=bf16:[1]:[1.5]", json!([1.5])),
            ("x=f16:[2]:[0.1, 1e9]", json!([0.0999755859375, "inf"])),
            ("x=bool:[2]:[true, false]", json!([true, false])),
            ("x=string:[2]:[\"é\", \"\"]", json!(["é", ""])),
            ("x=f32:[]:7", json!([7.0])),
        ] {
            let tensor = parse(text).expect(text);
            assert_eq!(to_json(&tensor)["values"], values, "{text}");
            assert_eq!(tensor.name.as_deref(), Some("x"));
        }
        assert_eq!(parse("a:b=f32:[2,3]:[0,0,0,0,0,0]").expect("odd names").shape, Some(vec![2, 3]));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, says) in [
            ("x", "NAME=TYPE"),
            ("x=f33:[1]:[1]", "f33"),
            ("x=u8:[1]:[256]", "256 in x is no u8"),
            ("x=i32:[1]:[1.5]", "1.5 in x is no i32"),
            ("x=f32:[a]:[1]", "shape of x"),
            ("x=f32:[1]:@/no/such/file", "/no/such/file"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
