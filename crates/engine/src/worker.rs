//! A thread that owns a session, takes batches and sends answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use runtime::{DType, RowsOut, RunError, Session, Stop, Tensor};
use scheduler::Entry;
use units::TraceParent;

use crate::buffers::Buffers;
use crate::decoding::Decoders;
use crate::embed::Form;
use crate::job::{Answer, Floats, Job, Outcome, Want, Work};
use crate::lane::{Batch, Lane};
use crate::observe::Ran;
use crate::scores;

/// The shape of a model's one float input, for batches.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) input: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: usize,
    /// The output with the scores, by position.
    pub(crate) scores: usize,
    /// Names of all outputs.
    pub(crate) outputs: Vec<String>,
}

/// What all workers of a model share.
pub(crate) struct Crew {
    pub(crate) lane: Arc<Lane>,
    /// Present when the model takes rows of floats.
    pub(crate) rows: Option<Rows>,
    /// Present when it takes texts.
    pub(crate) texts: Option<Form>,
    pub(crate) buffers: Arc<Buffers>,
    /// Most bytes of the outputs of one answer.
    pub(crate) output_bytes: u64,
    /// One session with all cores for a single row, where that was measured to be quicker.
    pub(crate) wide: Option<Mutex<Session>>,
    /// Workers of all models that are in a run.
    pub(crate) busy: Arc<AtomicUsize>,
    /// They need cores, too.
    pub(crate) decoders: Arc<Decoders>,
}

/// Runs batches until the lane is closed and empty.
pub(crate) fn work(crew: &Crew, mut session: Session) {
    let _guard = Guard(&crew.lane);
    // Reused from batch to batch: grows to the largest batch and stays.
    let mut gathered = Vec::new();
    while let Some(batch) = crew.lane.take() {
        let others = crew.busy.fetch_add(1, Ordering::AcqRel);
        run(crew, &mut session, batch, others == 0, &mut gathered);
        crew.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Tells when a worker dies of a panic outside a run.
struct Guard<'a>(&'a Lane);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lose_worker();
        }
    }
}

fn run(crew: &Crew, session: &mut Session, batch: Batch, alone: bool, gathered: &mut Vec<f32>) {
    let Batch { entries, running, rows, alone: queue_empty } = batch;
    let begin = Instant::now();
    for entry in &entries {
        crew.lane.waited(begin - entry.since);
    }
    let mut wide = None;
    if rows == 1 && alone && queue_empty && crew.decoders.are_idle() {
        wide = crew.wide.as_ref().and_then(Mutex::try_lock);
    }
    let narrow = wide.is_none();
    let chosen = wide.as_deref_mut().unwrap_or(session);
    // A panic in a run is a defect, but one request must not take the worker with it.
    let ran = catch_unwind(AssertUnwindSafe(|| match &entries[0].payload.work {
        Work::Tensors { inputs, outputs } => {
            run_tensors(chosen, inputs, outputs, &running.stop).map(|one| vec![Ok(one)])
        }
        Work::Texts { .. } => match &crew.texts {
            Some(form) => run_texts(chosen, form, &entries, &running.stop),
            None => Err(RunError::Failed("the model takes no texts".to_owned())),
        },
        Work::Rows { .. } => match &crew.rows {
            Some(form) => run_rows(chosen, form, crew.output_bytes, &entries, rows, gathered, &running.stop),
            None => Err(RunError::Failed("the model takes no rows".to_owned())),
        },
    }));
    let ended = Instant::now();
    let took = ended - begin;
    let ran = ran.unwrap_or_else(|_| Err(RunError::Failed("the run panicked".to_owned())));
    let tickets: Vec<_> = entries.iter().map(|entry| entry.ticket).collect();
    // The curve is that of rows in the narrow session; tensors of any size count as one row and say nothing about it.
    let of_rows = !matches!(entries[0].payload.work, Work::Tensors { .. });
    let items = entries.iter().map(|entry| entry.payload.work.items(entry.rows)).sum();
    // Before the answers leave: whoever has one must find the books in order.
    crew.lane.done(&tickets, rows, items, took, ran.is_ok() && narrow && of_rows);
    let batch = traced(crew, &entries, begin, ended, items);
    let lonely = alone && entries.len() == 1;
    let mut outcomes = match ran {
        Ok(outcomes) => outcomes,
        Err(error) => entries.iter().map(|_| Err(error.clone())).collect(),
    }
    .into_iter();
    for entry in entries {
        let outcome = outcomes.next().unwrap_or_else(|| Err(RunError::Failed("an answer is missing".to_owned())));
        let answer =
            Answer { outcome, queue: begin - entry.since, run: took, batch_rows: items, began: begin, batch, lonely };
        let Job { work, reply, .. } = entry.payload;
        if let Work::Rows { data: Floats::Made(data), .. } = work {
            crew.buffers.give(data);
        }
        // An error here means that the caller has gone.
        let _ = reply.send(answer);
    }
}

/// Tells of a run in which calls of traces took part; it has a span of its own then.
fn traced(crew: &Crew, entries: &[Entry<Job>], began: Instant, ended: Instant, rows: usize) -> Option<TraceParent> {
    let traced = || entries.iter().filter_map(|entry| entry.payload.trace);
    let own = traced().next()?.child();
    let calls: Vec<TraceParent> = traced().collect();
    crew.lane.traced(Ran { own, calls: &calls, began, ended, rows });
    Some(own)
}

fn run_tensors(
    session: &mut Session,
    inputs: &[(String, Tensor)],
    outputs: &[String],
    stop: &Stop,
) -> Result<Outcome, RunError> {
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    session.run(&inputs, &outputs, stop).map(Outcome::Tensors)
}

/// Runs the texts of all entries. The errors are as in [`run_rows`].
fn run_texts(
    session: &mut Session,
    form: &Form,
    entries: &[Entry<Job>],
    stop: &Stop,
) -> Result<Vec<Result<Outcome, RunError>>, RunError> {
    let parts = entries.iter().filter_map(|entry| match &entry.payload.work {
        Work::Texts { texts, finish } => Some((texts, finish)),
        Work::Rows { .. } | Work::Tensors { .. } => None,
    });
    let all: Vec<&[u32]> = parts.clone().flat_map(|(texts, _)| texts.iter().map(Vec::as_slice)).collect();
    let mut vectors = form.run(session, &all, stop)?.into_iter();
    let finished = parts.map(|(texts, finish)| {
        let mut own: Vec<Vec<f32>> = vectors.by_ref().take(texts.len()).collect();
        let numbers = own.iter_mut().all(|vector| finish.apply(vector).is_some());
        let failed = || RunError::Failed("gave vectors that are no numbers".to_owned());
        if numbers { Ok(Outcome::Vectors(own)) } else { Err(failed()) }
    });
    Ok(finished.collect())
}

/// Runs the rows of all entries at once. The outer error is the run's, which is everybody's; the inner ones are a caller's own.
fn run_rows(
    session: &mut Session,
    form: &Rows,
    output_bytes: u64,
    entries: &[Entry<Job>],
    rows: usize,
    gathered: &mut Vec<f32>,
    stop: &Stop,
) -> Result<Vec<Result<Outcome, RunError>>, RunError> {
    let parts = entries.iter().filter_map(|entry| match &entry.payload.work {
        Work::Rows { data, want, .. } => Some((data, want, entry.rows)),
        Work::Tensors { .. } | Work::Texts { .. } => None,
    });
    // A single request runs from where it lies, if that is possible.
    let in_place = match entries {
        [Entry { payload: Job { work: Work::Rows { data, .. }, .. }, .. }] => data.in_place(),
        _ => None,
    };
    let data = in_place.unwrap_or_else(|| {
        gathered.clear();
        parts.clone().for_each(|(data, ..)| data.append(gathered));
        gathered
    });
    let mut needed: Vec<usize> = parts
        .clone()
        .flat_map(|(_, want, _)| match want {
            Want::Best { .. } => vec![form.scores],
            Want::Outputs(outputs) => outputs.clone(),
        })
        .collect();
    needed.sort_unstable();
    needed.dedup();
    let wanted: Vec<&str> = needed.iter().map(|at| form.outputs[*at].as_str()).collect();
    session.run_rows(&form.input, rows, &form.shape, data, &wanted, stop, |outs| {
        // Checked at warm-up, but the number of rows that come out may depend on the values.
        if let Some(out) = outs.iter().find(|out| out.shape.first() != Some(&(rows as i64))) {
            let came = out.shape.first().copied().unwrap_or(1);
            let reason =
                format!("an output has {came} rows for {rows} rows of input: such a model must not have `[batching]`");
            return entries.iter().map(|_| Err(RunError::Failed(reason.clone()))).collect();
        }
        let mut from = 0;
        parts
            .map(|(_, want, count)| {
                let of = |output: usize| {
                    let at = needed.binary_search(&output).expect("every output that is wanted is in the list");
                    rows_of(&outs[at], rows, from, count)
                };
                let bytes = |outputs: &[usize]| outputs.iter().map(|output| 4 * of(*output).len() as u64).sum::<u64>();
                let outcome = match want {
                    Want::Outputs(outputs) if bytes(outputs) > output_bytes => {
                        Err(RunError::OutputTooLarge { bytes: bytes(outputs), limit: output_bytes })
                    }
                    Want::Best { top_k, activation } => {
                        let values = of(form.scores);
                        let classes = (values.len() / count).max(1);
                        let rows = values.chunks_exact(classes);
                        Ok(Outcome::Best(rows.map(|row| scores::best(row, *activation, *top_k)).collect()))
                    }
                    Want::Outputs(outputs) => Ok(Outcome::Tensors(
                        outputs
                            .iter()
                            .map(|output| {
                                let at = needed.binary_search(output).expect("as above");
                                let mut shape = outs[at].shape.to_vec();
                                if let Some(first) = shape.first_mut() {
                                    *first = count as i64;
                                }
                                (form.outputs[*output].clone(), float_tensor(shape, of(*output)))
                            })
                            .collect(),
                    )),
                };
                from += count;
                outcome
            })
            .collect()
    })
}

fn rows_of<'a>(out: &RowsOut<'a>, rows: usize, from: usize, count: usize) -> &'a [f32] {
    let each = out.data.len() / rows.max(1);
    &out.data[from * each..(from + count) * each]
}

fn float_tensor(shape: Vec<i64>, values: &[f32]) -> Tensor {
    let mut bytes = Vec::with_capacity(values.len() * 4);
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    Tensor { dtype: DType::F32, shape, data: runtime::Data::Bytes(Bytes::from(bytes)) }
}
