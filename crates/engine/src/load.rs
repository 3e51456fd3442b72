//! A model from its file to its workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use model_store::Task;
use parking_lot::Mutex;
use runtime::{Blueprint, Device, DeviceWish, Dim, RunError, Runtime, Session, SessionOptions, Stop, TensorSpec};
use scheduler::{Curve, Limits};
use tracing::{info, warn};

use crate::buffers::Buffers;
use crate::chat;
use crate::embed;
use crate::lane::Lane;
use crate::model::{Model, Serving};
use crate::state::State;
use crate::warm_up::{self, Clock, Watch};
use crate::worker::{Crew, Rows, work};

/// A session with all cores is kept for single rows when it is at least this much quicker than one with one core. It runs only
/// when nothing else does, so that what it costs beyond that is nobody's.
const WIDE_PAYS: f64 = 1.05;
/// ... and a run takes at least this: below it, waking the other cores costs what they save.
const WIDE_FROM: Duration = Duration::from_millis(1);

/// Time for measuring all batch sizes of one model on a CPU ...
const MEASURE_CPU: Duration = Duration::from_millis(1500);
/// ... and on a GPU, where the large ones matter.
const MEASURE_GPU: Duration = Duration::from_secs(10);

/// Loads, warms up, starts the workers and says `Ready`, or says `Failed`.
pub(crate) fn load(model: &Arc<Model>, runtime: &'static Runtime, busy: &Arc<AtomicUsize>) {
    let begin = Instant::now();
    match try_load(model, runtime, busy) {
        Ok(()) => {
            let what = model.describe();
            let chosen = what.chosen.map(|chosen| (chosen.device.to_string(), chosen.why)).unwrap_or_default();
            let curve: Vec<String> = what.curve.iter().map(|(rows, time)| format!("{rows}: {time:.1?}")).collect();
            let placement: Vec<String> =
                what.placement.iter().map(|(name, nodes)| format!("{name}: {nodes}")).collect();
            info!(
                model = %model.name(), version = model.version(), device = chosen.0, why = chosen.1,
                workers = what.workers, placement = placement.join(", "), curve = curve.join(", "),
                load_ms = begin.elapsed().as_millis() as u64, "model is ready"
            );
            model.enter(State::Ready);
            // After it serves: reading gigabytes again takes seconds.
            match model.folder.newest().sha256() {
                Ok(sha256) => info!(model = %model.name(), version = model.version(), sha256, "model file"),
                Err(error) => warn!(model = %model.name(), %error, "the model file could not be read again"),
            }
        }
        Err(reason) => {
            warn!(model = %model.name(), version = model.version(), reason, "model failed to load");
            model.enter(State::Failed(reason));
        }
    }
}

fn try_load(model: &Arc<Model>, runtime: &'static Runtime, busy: &Arc<AtomicUsize>) -> Result<(), String> {
    let settings = &model.folder.settings;
    let wish = match model.settings().device {
        Some(wish) => wish,
        None => settings.device.parse::<DeviceWish>().map_err(|error| format!("`device`: {error}"))?,
    };
    let blueprint = Blueprint::open(runtime, &model.folder.newest().model).map_err(|error| error.to_string())?;
    let options = SessionOptions {
        wish,
        intra_threads: settings.intra_threads(),
        // Options for CUDA are no reason to refuse a model that is forced to the CPU.
        provider_options: match model.settings().device {
            Some(DeviceWish::Cpu) => BTreeMap::new(),
            _ => settings.provider.clone(),
        },
        max_output_bytes: model.settings().output_bytes,
        ..SessionOptions::default()
    };
    let mut first = blueprint.session(&options).map_err(|error| error.to_string())?;
    model.enter(State::Warming);
    let limit = Duration::from_millis(settings.limits.warm_up_ms);
    let watch = Watch::start(limit).map_err(|error| format!("a thread could not be started: {error}"))?;
    let failed = |error: RunError| match error {
        RunError::Stopped => {
            format!("the first runs did not end within {} ms (`limits.warm_up_ms`)", limit.as_millis())
        }
        error => format!("the first run failed: {error}"),
    };
    if model.task() == Task::Chat {
        let speaker = chat::load(model, first, &watch.stop).map_err(|failure| failure.sentence(failed))?;
        return model.speaker.set(Arc::new(speaker)).map_err(|_| "the model was loaded twice".to_owned());
    }
    let on_cpu = first.chosen().device == Device::Cpu;
    let budget = if on_cpu { MEASURE_CPU } else { MEASURE_GPU };
    let clock = if on_cpu && settings.intra_threads() == 1 { Clock::Thread } else { Clock::Wall };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = model.settings().instances.or(settings.instances).unwrap_or(if on_cpu { cores } else { 1 });
    if model.task() == Task::Embed {
        let loaded =
            embed::load(model, &mut first, budget, clock, &watch.stop).map_err(|failure| failure.sentence(failed))?;
        let embed::Loaded { embedder, form, curve, most_texts, most_pieces } = loaded;
        let shape = Shape {
            rows: None,
            joins: form.joins,
            max_rows: most_texts,
            run_rows: most_pieces,
            curve: Curve::new(curve),
            classes: None,
            wide: None,
            form_of_texts: Some(form),
        };
        model.embedder.set(embedder).map_err(|_| "the model was loaded twice".to_owned())?;
        return staff(model, &blueprint, &options, first, workers, shape, busy);
    }
    let form = form_of(model, &first)?;
    if settings.warm_up && form.is_none() {
        let hint = |reason| format!("{reason} (a model that cannot run on zeros needs `warm_up = false`)");
        warm_up::zeros(&mut first, &watch.stop).map_err(failed).map_err(hint)?;
    }
    let (joins, mut max_rows) = match &form {
        Some(form) => batching_of(model, &mut first, form, &watch.stop).map_err(failed)?,
        None => (false, 1),
    };
    let batching = settings.batching.clone().unwrap_or_default();
    let mut measured = None;
    if let (Some(form), true) = (&form, settings.warm_up) {
        let sizes = if joins { batching.sizes() } else { vec![1] };
        let result = warm_up::measure(&mut first, form, &sizes, budget, clock, &watch.stop).map_err(failed)?;
        // A size that was too slow to be run now would be too slow for a caller.
        max_rows = result.curve.last().map_or(1, |(rows, _)| *rows);
        measured = Some(result);
    }
    let declared = form.as_ref().and_then(|form| last_dimension(&first.outputs()[form.scores]));
    let classes = measured.as_ref().map(|measured| measured.classes).or(declared);
    let classes = classes.filter(|_| model.task() == Task::Classify);
    let labels = model.labels().len();
    if let Some(classes) = classes.filter(|classes| labels > 0 && *classes != labels) {
        return Err(format!("the model gives {classes} scores, there are {labels} labels"));
    }
    let curve = Curve::new(measured.iter().flat_map(|measured| measured.curve.iter().copied()));
    let wide = match &form {
        Some(form) if settings.intra_threads() == 1 && cores > 1 => {
            wide(&blueprint, &options, form, &mut first, curve.estimate(1), &watch.stop).map_err(failed)?
        }
        _ => None,
    };
    let shape = Shape { rows: form, joins, max_rows, run_rows: max_rows, curve, classes, wide, form_of_texts: None };
    staff(model, &blueprint, &options, first, workers, shape, busy)
}

/// What first runs have found out about a model that has a lane.
struct Shape {
    rows: Option<Rows>,
    joins: bool,
    /// Most rows of an answer's run, as callers count them.
    max_rows: usize,
    /// The same as the lane counts them.
    run_rows: usize,
    curve: Curve,
    classes: Option<usize>,
    wide: Option<Session>,
    form_of_texts: Option<embed::Form>,
}

/// Opens the lane and starts the workers.
fn staff(
    model: &Model,
    blueprint: &Blueprint,
    options: &SessionOptions,
    first: Session,
    workers: usize,
    shape: Shape,
    busy: &Arc<AtomicUsize>,
) -> Result<(), String> {
    let Shape { rows, joins, max_rows, run_rows, curve, classes, wide, form_of_texts } = shape;
    let settings = &model.folder.settings;
    let limits = Limits {
        queue_rows: settings.limits.queue_rows,
        max_rows: run_rows,
        max_wait: Duration::from_millis(settings.batching.as_ref().map_or(0, |batching| batching.max_wait_ms)),
        workers,
    };
    // As many as can be filled and run at the same time.
    let buffers = Arc::new(Buffers::new(2 * workers + model.settings().decode_threads));
    let unit = if form_of_texts.is_some() { embed::UNIT } else { "rows" };
    let lane = Arc::new(Lane::new(limits, curve, Arc::clone(model.observer()), unit));
    let serving = Serving {
        lane: Arc::clone(&lane),
        rows: rows.clone(),
        joins,
        max_rows,
        inputs: first.inputs().to_vec(),
        outputs: first.outputs().to_vec(),
        chosen: first.chosen().clone(),
        placement: first.placement(),
        workers,
        classes,
        buffers: Arc::clone(&buffers),
    };
    let crew = Arc::new(Crew {
        lane,
        rows,
        texts: form_of_texts,
        buffers,
        output_bytes: model.settings().output_bytes,
        wide: wide.map(Mutex::new),
        busy: Arc::clone(busy),
        decoders: Arc::clone(model.decoders()),
    });
    let mut sessions = vec![first];
    for _ in 1..workers {
        sessions.push(blueprint.session(options).map_err(|error| error.to_string())?);
    }
    for (number, session) in sessions.into_iter().enumerate() {
        let crew = Arc::clone(&crew);
        let name = format!("{}-{number}", model.name());
        let spawned = std::thread::Builder::new().name(name).spawn(move || work(&crew, session));
        spawned.map_err(|error| format!("a worker thread could not be started: {error}"))?;
    }
    model.serving.set(serving).map_err(|_| "the model was loaded twice".to_owned())
}

fn form_of(model: &Model, session: &Session) -> Result<Option<Rows>, String> {
    let output = model.folder.settings.output.scores.as_deref();
    let form = warm_up::rows(session, output);
    let Some(recipe) = model.recipe() else { return Ok(form) };
    if let Some(name) = &recipe.table().name
        && !session.inputs().iter().any(|spec| spec.name == *name)
    {
        let known: Vec<&str> = session.inputs().iter().map(|spec| spec.name.as_str()).collect();
        return Err(format!("`input.name` is `{name}`, the model's inputs are: {}", known.join(", ")));
    }
    let Some(form) = form else {
        return Err("a model that takes pictures needs one f32 input of a fixed row shape and float scores; \
                    `output.scores` must name one of its outputs"
            .to_owned());
    };
    if form.shape != recipe.row_shape() {
        return Err(format!("[input] makes rows of {:?}, the model takes {:?}", recipe.row_shape(), form.shape));
    }
    Ok(Some(form))
}

fn last_dimension(spec: &TensorSpec) -> Option<usize> {
    match spec.shape.as_deref()? {
        [_, .., Dim::Fixed(size)] => usize::try_from(*size).ok(),
        _ => None,
    }
}

/// Whether rows of different callers may share a run, and how many at most.
fn batching_of(model: &Model, session: &mut Session, form: &Rows, stop: &Stop) -> Result<(bool, usize), RunError> {
    let settings = &model.folder.settings;
    let free = session.inputs().iter().any(|spec| spec.name == form.input && spec.has_free_rows());
    // Nobody but its maker knows whether a plain tensor model mixes rows in some values only: it has to be said.
    let stated = settings.task != Task::Tensor || settings.batching.is_some();
    if !free || !stated || !settings.warm_up {
        return Ok((false, 1));
    }
    if warm_up::rows_are_independent(session, form, stop)? {
        return Ok((true, settings.batching.clone().unwrap_or_default().max_rows));
    }
    warn!(model = %model.name(), "a row gives another answer between others than alone: served one by one");
    Ok((false, 1))
}

fn wide(
    blueprint: &Blueprint,
    options: &SessionOptions,
    form: &Rows,
    narrow: &mut Session,
    costs: Duration,
    stop: &Stop,
) -> Result<Option<Session>, RunError> {
    if narrow.chosen().device != Device::Cpu || costs < WIDE_FROM {
        return Ok(None);
    }
    let options = SessionOptions { intra_threads: 0, ..options.clone() };
    let raced = blueprint
        .session(&options)
        .map_err(|error| RunError::Failed(error.to_string()))
        .and_then(|mut wide| Ok((warm_up::race([narrow, &mut wide], form, stop)?, wide)));
    let ([one_core, all_cores], wide) = match raced {
        Ok(raced) => raced,
        Err(RunError::Stopped) => return Err(RunError::Stopped),
        // It holds the weights a second time, which may be more than there is room for; the model serves without it.
        Err(error) => {
            warn!(model = %blueprint.path().display(), %error, "no session with all cores for single rows");
            return Ok(None);
        }
    };
    let pays = one_core.as_secs_f64() >= all_cores.as_secs_f64() * WIDE_PAYS;
    info!(model = %blueprint.path().display(), ?one_core, ?all_cores, pays, "a single row, with one core and with all");
    Ok(pays.then_some(wide))
}
