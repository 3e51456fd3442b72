//! Tensors as they travel: raw little-endian bytes or strings, with a type and a shape.

use bytes::Bytes;

use crate::dtype::DType;

// Bytes go to and from ONNX Runtime as they are.
const _: () = assert!(cfg!(target_endian = "little"), "only little-endian machines are supported");

/// A tensor's type, shape and elements. Nothing is checked before a session runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Type of the elements.
    pub dtype: DType,
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<i64>,
    /// The elements, last dimension fastest.
    pub data: Data,
}

/// The elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Elements of a fixed size, little-endian, without gaps.
    Bytes(Bytes),
    /// The elements of a [`DType::String`] tensor.
    Strings(Vec<String>),
}

impl Tensor {
    /// A tensor of raw bytes.
    #[must_use]
    pub fn from_bytes(dtype: DType, shape: &[i64], bytes: impl Into<Bytes>) -> Self {
        Self { dtype, shape: shape.to_vec(), data: Data::Bytes(bytes.into()) }
    }

    /// A tensor of strings.
    #[must_use]
    pub fn from_strings(shape: &[i64], strings: Vec<String>) -> Self {
        Self { dtype: DType::String, shape: shape.to_vec(), data: Data::Strings(strings) }
    }

    /// Copies floats into a tensor.
    #[must_use]
    pub fn from_f32(shape: &[i64], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::from_bytes(DType::F32, shape, bytes)
    }

    /// Copies integers into a tensor.
    #[must_use]
    pub fn from_i64(shape: &[i64], values: &[i64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::from_bytes(DType::I64, shape, bytes)
    }

    /// Copies the elements out; `None` unless they are [`DType::F32`].
    #[must_use]
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let Data::Bytes(bytes) = &self.data else { return None };
        (self.dtype == DType::F32).then(|| bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
    }

    /// Copies the elements out; `None` unless they are [`DType::I64`].
    #[must_use]
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let Data::Bytes(bytes) = &self.data else { return None };
        (self.dtype == DType::I64).then(|| bytes.as_chunks().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect())
    }

    /// The strings; `None` unless they are [`DType::String`].
    #[must_use]
    pub fn strings(&self) -> Option<&[String]> {
        match &self.data {
            Data::Strings(strings) => Some(strings),
            Data::Bytes(_) => None,
        }
    }

    /// Bytes of the elements, for limits: those of the text where the elements are strings.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        match &self.data {
            Data::Bytes(bytes) => bytes.len(),
            Data::Strings(strings) => strings.iter().map(String::len).sum(),
        }
    }
}
