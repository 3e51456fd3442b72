//! What a model takes and gives, and whether a tensor fits it.
//!
//! Why: ONNX Runtime's own refusals often do not name the input, and a missing one surfaces inside a node.
//! Promises: every mismatch of type, rank, fixed dimension or byte count is found here, named, before the library runs.

use std::fmt;

use crate::dtype::DType;
use crate::tensor::{Data, Tensor};

/// Most dimensions of a tensor whose model declares no rank; more than any operator takes.
const MAX_RANK: usize = 16;

/// One dimension of a declared shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Always this size.
    Fixed(u64),
    /// Any size, zero included, with the model's own name for it if it has one.
    Free(Option<String>),
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// The model's name for it, exactly.
    pub name: String,
    /// Type of the elements.
    pub dtype: DType,
    /// Declared dimensions; `None` where the model declares none, so any rank goes.
    pub shape: Option<Vec<Dim>>,
    /// An input that the model has a value of its own for, so that it may be left out.
    pub optional: bool,
}

impl TensorSpec {
    /// Whether the first dimension is free, so that rows of several requests can be joined.
    #[must_use]
    pub fn has_free_rows(&self) -> bool {
        matches!(self.shape.as_deref(), Some([Dim::Free(_), ..]))
    }

    /// Says what is wrong with `tensor` as this input.
    pub fn check(&self, tensor: &Tensor) -> Result<(), String> {
        if tensor.dtype != self.dtype {
            return Err(format!("element type is {}, the model takes {}", tensor.dtype, self.dtype));
        }
        self.check_shape(&tensor.shape)?;
        let elements = elements(&tensor.shape)?;
        match (&tensor.data, self.dtype.byte_size()) {
            (Data::Bytes(bytes), Some(size)) => {
                let wanted = elements.checked_mul(size).ok_or_else(|| too_big(&tensor.shape))?;
                if bytes.len() != wanted {
                    let shape = Shape(&tensor.shape);
                    return Err(format!("has {} bytes, shape {shape} of {} takes {wanted}", bytes.len(), self.dtype));
                }
                if self.dtype == DType::Bool
                    && let Some(at) = bytes.iter().position(|byte| *byte > 1)
                {
                    return Err(format!("element {at} is {}, a bool is 0 or 1", bytes[at]));
                }
            }
            (Data::Strings(strings), None) => {
                if strings.len() != elements {
                    let shape = Shape(&tensor.shape);
                    return Err(format!("has {} strings, shape {shape} takes {elements}", strings.len()));
                }
                if let Some(at) = strings.iter().position(|text| text.contains('\0')) {
                    return Err(format!("string {at} contains a zero byte"));
                }
            }
            (Data::Bytes(_), None) => return Err("string elements were sent as raw bytes".to_owned()),
            (Data::Strings(_), Some(_)) => return Err(format!("{} elements were sent as strings", self.dtype)),
        }
        Ok(())
    }

    /// Says what is wrong with a shape as this input's.
    pub(crate) fn check_shape(&self, shape: &[i64]) -> Result<(), String> {
        if let Some(at) = shape.iter().position(|size| *size < 0) {
            return Err(format!("dimension {at} is {}, a size cannot be negative", shape[at]));
        }
        let Some(declared) = &self.shape else {
            return if shape.len() > MAX_RANK {
                Err(format!("has {} dimensions, the limit is {MAX_RANK}", shape.len()))
            } else {
                Ok(())
            };
        };
        if declared.len() != shape.len() {
            let (shape, got, rank) = (Shape(shape), shape.len(), declared.len());
            return Err(format!("shape {shape} has {got} dimensions, the model takes {rank}: {self}"));
        }
        for (at, (dim, size)) in declared.iter().zip(shape).enumerate() {
            if let Dim::Fixed(fixed) = dim
                && u64::try_from(*size) != Ok(*fixed)
            {
                return Err(format!("dimension {at} is {size}, the model takes {fixed}: {self}"));
            }
        }
        Ok(())
    }
}

/// `f32[batch, 3, ?]`; the name is not part of it.
impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dims) = &self.shape else { return write!(f, "{}[...]", self.dtype) };
        write!(f, "{}[", self.dtype)?;
        for (at, dim) in dims.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            match dim {
                Dim::Fixed(size) => write!(f, "{size}")?,
                Dim::Free(Some(name)) => f.write_str(name)?,
                Dim::Free(None) => f.write_str("?")?,
            }
        }
        f.write_str("]")
    }
}

/// Number of elements of a shape without negative sizes.
pub(crate) fn elements(shape: &[i64]) -> Result<usize, String> {
    // A zero anywhere makes the whole empty, however big the others are.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(usize::try_from(*size).ok()?))
        .filter(|product| *product <= isize::MAX as usize)
        .ok_or_else(|| too_big(shape))
}

fn too_big(shape: &[i64]) -> String {
    format!("shape {} has more elements than memory has addresses", Shape(shape))
}

/// Prints `[1, 2]`.
pub(crate) struct Shape<'a>(pub(crate) &'a [i64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: DType, shape: Option<Vec<Dim>>) -> TensorSpec {
        TensorSpec { name: "x".to_owned(), dtype, shape, optional: false }
    }

    fn rows_of_three() -> TensorSpec {
        spec(DType::F32, Some(vec![Dim::Free(Some("N".to_owned())), Dim::Fixed(3)]))
    }

    #[test]
    fn every_mismatch_is_named_with_the_value_and_what_is_taken() {
        let cases = [
            (Tensor::from_i64(&[1, 3], &[1, 2, 3]), "element type is i64, the model takes f32"),
            (Tensor::from_f32(&[3], &[0.0; 3]), "shape [3] has 1 dimensions, the model takes 2: f32[N, 3]"),
            (Tensor::from_f32(&[1, 4], &[0.0; 4]), "dimension 1 is 4, the model takes 3: f32[N, 3]"),
            (Tensor::from_f32(&[-1, 3], &[0.0; 3]), "dimension 0 is -1, a size cannot be negative"),
            (Tensor::from_f32(&[2, 3], &[0.0; 5]), "has 20 bytes, shape [2, 3] of f32 takes 24"),
        ];
        for (tensor, expected) in cases {
            assert_eq!(rows_of_three().check(&tensor), Err(expected.to_owned()));
        }
        assert_eq!(rows_of_three().check(&Tensor::from_f32(&[0, 3], &[])), Ok(()));
    }

    #[test]
    fn a_declared_size_that_overflows_is_an_error_and_not_a_panic() {
        let any = spec(DType::F64, None);
        for shape in [vec![i64::MAX, i64::MAX], vec![i64::MAX], vec![1 << 31, 1 << 31, 1 << 31]] {
            let error = any.check(&Tensor::from_bytes(DType::F64, &shape, vec![])).expect_err("far too big");
            assert!(error.contains("more elements than memory") || error.contains("has 0 bytes"), "{error}");
        }
        assert_eq!(any.check(&Tensor::from_bytes(DType::F64, &[i64::MAX, 0, i64::MAX], vec![])), Ok(()));
    }

    #[test]
    fn a_tensor_of_too_many_dimensions_is_refused_where_the_model_declares_no_rank() {
        let error = spec(DType::U8, None).check(&Tensor::from_bytes(DType::U8, &[1; 17], vec![0]));
        assert_eq!(error, Err("has 17 dimensions, the limit is 16".to_owned()));
    }

    #[test]
    fn a_bool_other_than_zero_and_one_is_refused() {
        let error = spec(DType::Bool, None).check(&Tensor::from_bytes(DType::Bool, &[3], vec![0, 1, 2]));
        assert_eq!(error, Err("element 2 is 2, a bool is 0 or 1".to_owned()));
    }

    #[test]
    fn strings_and_bytes_are_not_taken_for_each_other() {
        let text = Tensor::from_strings(&[1], vec!["a".to_owned()]);
        assert!(spec(DType::String, None).check(&text).is_ok());
        let raw = Tensor { dtype: DType::String, shape: vec![1], data: Data::Bytes(vec![97].into()) };
        assert_eq!(spec(DType::String, None).check(&raw), Err("string elements were sent as raw bytes".to_owned()));
        let zero = Tensor::from_strings(&[1], vec!["a\0b".to_owned()]);
        assert_eq!(spec(DType::String, None).check(&zero), Err("string 0 contains a zero byte".to_owned()));
    }

    #[test]
    fn an_unknown_rank_does_not_print_as_a_scalar() {
        assert_eq!(spec(DType::F32, None).to_string(), "f32[...]");
        assert_eq!(spec(DType::F32, Some(vec![])).to_string(), "f32[]");
        assert_eq!(rows_of_three().to_string(), "f32[N, 3]");
    }
}
