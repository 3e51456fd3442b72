//! First runs: that a model answers at all, what each batch size costs, and whether rows of a batch are independent.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use runtime::{DType, Data, Dim, RunError, Session, Stop, Tensor, TensorSpec};
use rustix::time::{ClockId, clock_gettime};

use crate::worker::Rows;

/// Time for measuring one batch size; enough for a stable minimum of a quick model, three runs of a slow one.
const FOR_EACH_SIZE: Duration = Duration::from_millis(60);
/// Runs of one size, at least.
const COUNTED: usize = 3;
/// Rows alone and in a batch may differ by this much of their size: other kernels, another order of additions.
const SAME: f32 = 1e-3;

/// Runs once on zeros, each free axis having one element.
pub(crate) fn zeros(session: &mut Session, stop: &Stop) -> Result<(), RunError> {
    let inputs: Vec<(String, Tensor)> =
        session.inputs().iter().filter(|spec| !spec.optional).map(|spec| (spec.name.clone(), zero(spec))).collect();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    session.run(&inputs, &[], stop).map(|_| ())
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
    let outputs = session.outputs().iter().map(|output| output.name.clone()).collect();
    (spec.dtype == DType::F32 && elements > 0 && session.outputs().get(scores)?.dtype == DType::F32).then(|| Rows {
        input: spec.name.clone(),
        shape,
        elements,
        scores,
        outputs,
    })
}

/// What time is taken of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// CPU time of this thread: for runs that happen on it alone, whatever else the machine does meanwhile.
    Thread,
    /// For runs on a GPU or on several threads.
    Wall,
}

impl Clock {
    pub(crate) fn now(self) -> Duration {
        let id = match self {
            Self::Thread => ClockId::ThreadCPUTime,
            Self::Wall => ClockId::Monotonic,
        };
        let time = clock_gettime(id);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    }
}

/// What came of measuring.
pub(crate) struct Measured {
    pub(crate) curve: Vec<(usize, Duration)>,
    /// Values of one row of the score output.
    pub(crate) classes: usize,
}

/// Runs each of the batch sizes, ascending, and takes its time. Ends before a size that would take it far over `budget`, so
/// the largest size of the curve is the largest that was run.
pub(crate) fn measure(
    session: &mut Session,
    form: &Rows,
    sizes: &[usize],
    budget: Duration,
    clock: Clock,
    stop: &Stop,
) -> Result<Measured, RunError> {
    let begin = Instant::now();
    let mut curve: Vec<(usize, Duration)> = Vec::new();
    let mut classes = 0;
    let mut data = Vec::new();
    let mut once = |size: usize| {
        // Only as much as sizes take that are run: a row can have gigabytes.
        if data.len() < size * form.elements {
            data = noise(size * form.elements);
        }
        let (start, rows) = (clock.now(), &data[..size * form.elements]);
        let scores = [form.outputs[form.scores].as_str()];
        let values = session.run_rows(&form.input, size, &form.shape, rows, &scores, stop, |outs| outs[0].data.len());
        values.map(|values| (values / size, clock.now().saturating_sub(start)))
    };
    for &size in sizes {
        if let Some((rows, time)) = curve.last()
            && begin.elapsed() + time.mul_f64((COUNTED * size) as f64 / *rows as f64) > budget
        {
            break;
        }
        // The first run of a shape plans memory and, on a GPU, picks kernels: it is run and not counted.
        match once(size).and_then(|(values, _)| Ok((values, once(size)?.1))) {
            Ok((values, time)) => {
                classes = values;
                curve.push((size, time));
            }
            // What has no room now would have none for a caller either; smaller batches do.
            Err(RunError::OutOfMemory { .. }) if !curve.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    // Round after round and not size after size: what else the machine does comes and goes, and must not be taken for the
    // cost of one size. The shortest time counts.
    let enough = FOR_EACH_SIZE * curve.len() as u32;
    for round in 1.. {
        if begin.elapsed() >= budget || (round >= COUNTED && begin.elapsed() >= enough) {
            break;
        }
        for (size, best) in &mut curve {
            *best = once(*size)?.1.min(*best);
        }
    }
    Ok(Measured { curve, classes })
}

/// Time for a [`race`]: some dozens of runs of a network that takes a few milliseconds.
const FOR_A_RACE: Duration = Duration::from_millis(400);

/// ... and for one of a network that takes seconds.
const LONGEST_RACE: Duration = Duration::from_secs(2);

/// The shortest times of two sessions for one row, by the wall's clock, which is what a caller waits for.
///
/// In turn, because another tenant of the machine who takes a core for some tens of milliseconds would decide it otherwise.
pub(crate) fn race(mut sessions: [&mut Session; 2], form: &Rows, stop: &Stop) -> Result<[Duration; 2], RunError> {
    let row = noise(form.elements);
    let scores = [form.outputs[form.scores].as_str()];
    let mut best = [Duration::MAX; 2];
    let begin = Instant::now();
    for round in 0.. {
        for (session, best) in sessions.iter_mut().zip(&mut best) {
            let start = Instant::now();
            session.run_rows(&form.input, 1, &form.shape, &row, &scores, stop, |_| ())?;
            // The first round plans memory.
            if round > 0 {
                *best = start.elapsed().min(*best);
            }
        }
        let took = begin.elapsed();
        if (round >= COUNTED && took >= FOR_A_RACE) || (round >= 1 && took >= LONGEST_RACE) {
            break;
        }
    }
    Ok(best)
}

/// Whether a row gives the same alone and between others, in every float output; a model that mixes rows must not be batched
/// with strangers.
pub(crate) fn rows_are_independent(session: &mut Session, form: &Rows, stop: &Stop) -> Result<bool, RunError> {
    let floats = session.outputs().iter().all(|output| output.dtype == DType::F32);
    if !floats {
        return Ok(false);
    }
    let data = noise(3 * form.elements);
    let mut run = |rows: usize, data: &[f32]| {
        session.run_rows(&form.input, rows, &form.shape, data, &[], stop, |outs| {
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

/// Stops first runs that do not end by themselves, so that one endless model does not keep the others from loading.
pub(crate) struct Watch {
    pub(crate) stop: Stop,
    /// Dropped when the runs have ended, which ends the thread that waits for it.
    _done: mpsc::Sender<()>,
}

impl Watch {
    /// Begins to count; `Err` when there is no thread for it.
    pub(crate) fn start(limit: Duration) -> std::io::Result<Self> {
        let (stop, (done, waited)) = (Stop::new(), mpsc::channel());
        let late = stop.clone();
        std::thread::Builder::new().name("warm-up-watch".to_owned()).spawn(move || {
            if waited.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                late.stop();
            }
        })?;
        Ok(Self { stop, _done: done })
    }
}
