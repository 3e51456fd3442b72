//! First runs: that a model answers at all, what each batch size costs, and whether rows of a batch are independent.

use std::time::{Duration, Instant};

use runtime::{DType, Data, Dim, RunError, Session, Stop, Tensor, TensorSpec};

use crate::worker::Rows;

/// Time for measuring one batch size; enough for a stable minimum of a quick model, three runs of a slow one.
const FOR_EACH_SIZE: Duration = Duration::from_millis(60);
/// Time for all batch sizes of one model.
const IN_ALL: Duration = Duration::from_millis(1500);
/// Rows alone and in a batch may differ by this much of their size: other kernels, another order of additions.
const SAME: f32 = 1e-3;

/// The batch sizes that are measured: powers of two up to the most.
pub(crate) fn sizes(max_rows: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = std::iter::successors(Some(1), |rows| Some(rows * 2)).take_while(|r| *r < max_rows).collect();
    sizes.push(max_rows);
    sizes
}

/// Runs once on zeros, each free axis having one element.
pub(crate) fn zeros(session: &mut Session) -> Result<(), RunError> {
    let inputs: Vec<(String, Tensor)> =
        session.inputs().iter().filter(|spec| !spec.optional).map(|spec| (spec.name.clone(), zero(spec))).collect();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    session.run(&inputs, &[], &Stop::new()).map(|_| ())
}

fn zero(spec: &TensorSpec) -> Tensor {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size as i64,
        Dim::Free(_) => 1,
    };
    let shape: Vec<i64> = spec.shape.as_deref().unwrap_or_default().iter().map(size).collect();
    let elements = shape.iter().product::<i64>().max(0) as usize;
    let data = match spec.dtype.byte_size() {
        Some(bytes) => Data::Bytes(vec![0; elements * bytes].into()),
        None => Data::Strings(vec![String::new(); elements]),
    };
    Tensor { dtype: spec.dtype, shape, data }
}

/// The model's form when it takes rows of floats through one input; `None` when it does not.
pub(crate) fn rows(session: &Session, scores: Option<&str>) -> Option<Rows> {
    let mut required = session.inputs().iter().filter(|spec| !spec.optional);
    let (spec, None) = (required.next()?, required.next()) else { return None };
    let dims = spec.shape.as_deref()?;
    let fixed = |dim: &Dim| match dim {
        Dim::Fixed(size) => usize::try_from(*size).ok(),
        Dim::Free(_) => None,
    };
    let shape: Vec<usize> = dims.get(1..)?.iter().map(fixed).collect::<Option<_>>()?;
    let scores = match scores {
        Some(name) => session.outputs().iter().position(|output| output.name == name)?,
        None => 0,
    };
    let elements = shape.iter().product();
    (spec.dtype == DType::F32 && elements > 0 && session.outputs().get(scores)?.dtype == DType::F32)
        .then(|| Rows { input: spec.name.clone(), shape, elements, scores })
}

/// What came of measuring.
pub(crate) struct Measured {
    pub(crate) curve: Vec<(usize, Duration)>,
    /// Values of one row of the score output.
    pub(crate) classes: usize,
}

/// Runs every batch size and takes its time; stops growing when the time is up.
pub(crate) fn measure(session: &mut Session, form: &Rows, max_rows: usize) -> Result<Measured, RunError> {
    let begin = Instant::now();
    let (mut curve, mut classes) = (Vec::new(), 0);
    let names: Vec<String> = session.outputs().iter().map(|output| output.name.clone()).collect();
    let scores = [names[form.scores].as_str()];
    for size in sizes(max_rows) {
        let data = noise(size * form.elements);
        let (from, mut best, mut runs) = (Instant::now(), Duration::MAX, 0);
        // The first run of a shape plans memory and, on a GPU, picks kernels: it is run and not counted.
        while runs < 3 || from.elapsed() < FOR_EACH_SIZE.min(IN_ALL.saturating_sub(begin.elapsed())) {
            let start = Instant::now();
            classes = session.run_rows(&form.input, size, &form.shape, &data, &scores, &Stop::new(), |outs| {
                outs[0].data.len() / size
            })?;
            if runs > 0 {
                best = best.min(start.elapsed());
            }
            runs += 1;
            if runs >= 2 && begin.elapsed() > IN_ALL {
                break;
            }
        }
        curve.push((size, best));
    }
    Ok(Measured { curve, classes })
}

/// Whether a row gives the same alone and between others, in every float output; a model that mixes rows must not be batched
/// with strangers.
pub(crate) fn rows_are_independent(session: &mut Session, form: &Rows) -> Result<bool, RunError> {
    let floats = session.outputs().iter().all(|output| output.dtype == DType::F32);
    if !floats {
        return Ok(false);
    }
    let data = noise(3 * form.elements);
    let mut run = |rows: usize, data: &[f32]| {
        session.run_rows(&form.input, rows, &form.shape, data, &[], &Stop::new(), |outs| {
            outs.iter().map(|out| (out.shape.first().copied(), out.data.to_vec())).collect::<Vec<_>>()
        })
    };
    let together = run(3, &data)?;
    let alone = run(1, &data[form.elements..2 * form.elements])?;
    Ok(together.iter().zip(&alone).all(|((rows, all), (row, one))| {
        let follows = *rows == Some(3) && *row == Some(1) && all.len() == 3 * one.len();
        let range = all.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
        follows && all[one.len()..].iter().zip(one).all(|(a, b)| (a - b).abs() <= SAME * range)
    }))
}

/// The same values at every start, so that nothing depends on chance: between 0 and 1, as most inputs are.
fn noise(count: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(0x0b0a_12d0);
    (0..count).map(|_| random.f32()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_and_the_most() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(8), [1, 2, 4, 8]);
        assert_eq!(sizes(10), [1, 2, 4, 8, 10]);
    }
}
