//! What the engine adds to a bare run: CPU time of a request through [`engine::Model::classify`], of decoding its picture,
//! and of the session alone, in one process and one after the other.
//!
//! ```text
//! cargo run --release -p engine --example overhead -- models/mnist PICTURE [SECONDS]
//! ```

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{CallScope, ClassifyOptions, Engine, Settings, Silent, State};
use runtime::{Blueprint, DeviceWish, LibraryChoice, Runtime, SessionOptions, Stop};
use units::{Deadline, ModelName};

// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: overhead MODEL_FOLDER PICTURE [SECONDS]";
    let folder = PathBuf::from(args.next().ok_or(usage)?);
    let picture = Bytes::from(fs::read(args.next().ok_or(usage)?)?);
    let time = Duration::from_secs(args.next().map_or(Ok(3), |text| text.parse())?);
    let library = Runtime::load(&LibraryChoice::Search)?;
    let model = model_store::read(&folder)?.ok_or("the folder has no model")?;
    let recipe = model.settings.input.clone().ok_or("the model takes no pictures")?;

    let options = SessionOptions { wish: DeviceWish::Cpu, ..SessionOptions::default() };
    let mut session = Blueprint::open(library, &model.newest().model)?.session(&options)?;
    let input = session.inputs()[0].name.clone();
    let mut scratch = vision::Scratch::new();
    let mut row = vec![0.0; recipe.row_elements()];
    let limits = vision::Limits::default();
    let mut decode = |row: &mut Vec<f32>| -> Result<(), Error> {
        let header = vision::inspect(&picture, &limits)?;
        let pixels = vision::decode(&picture, &header, &recipe.wanted(&header), recipe.background())?;
        Ok(recipe.write_row(&pixels, &mut scratch, row)?)
    };
    let decoding = measure(time, || decode(&mut row))?;
    let bare = measure(time, || {
        let shape = recipe.row_shape();
        session.run_rows(&input, 1, &shape, &row, &[], &Stop::new(), |_| ())?;
        Ok(())
    })?;
    drop(session);
    println!("decode alone   {:9.1} us CPU", decoding * 1e6);
    println!("session alone  {:9.1} us CPU", bare * 1e6);

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let blueprint = Blueprint::open(library, &model.newest().model)?;
    let both = crowd(threads, time, &blueprint, &options, &recipe, &picture)?;
    println!("both, {threads:2} threads {:8.1} us CPU  (what the machine can do without an engine)", both * 1e6);

    let root = folder.parent().ok_or("the folder has no parent")?.to_owned();
    let only = vec![ModelName::parse(model.name.as_str())?];
    let settings = Settings { folders: vec![root], only, device: Some(DeviceWish::Cpu), ..Settings::default() };
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    tokio.block_on(async {
        let engine = Engine::start(settings, library, |_| Arc::new(Silent))?;
        let model = Arc::clone(engine.model(model.name.as_str(), None)?);
        let state = model.settled().await;
        if state != State::Ready {
            return Err(Error::from(state.to_string()));
        }
        let what = model.describe();
        println!("curve          {:?}", what.curve);
        for callers in [1, 2, 8, 32] {
            let (begin, spent) = (Instant::now(), cpu());
            let tasks = (0..callers).map(|_| {
                let (model, picture) = (Arc::clone(&model), picture.clone());
                tokio::spawn(async move {
                    let (mut count, mut rows) = (0_u64, 0);
                    while begin.elapsed() < time {
                        let now = Instant::now();
                        let call = CallScope {
                            received: now,
                            deadline: Deadline::after(now, Duration::from_secs(60)),
                            trace: None,
                        };
                        let options = ClassifyOptions { top_k: 5, preview_px: 0 };
                        let done = model.classify(vec![picture.clone()], options, call).await?;
                        count += 1;
                        rows += done.timing.batch_rows;
                    }
                    Ok::<_, fault::Fault>((count, rows))
                })
            });
            let tasks: Vec<_> = tasks.collect();
            let (mut count, mut rows) = (0, 0);
            for task in tasks {
                let done = task.await??;
                count += done.0;
                rows += done.1;
            }
            let (took, used) = (begin.elapsed().as_secs_f64(), cpu() - spent);
            println!(
                "{callers:3} callers    {:9.1} us CPU  {:9.0} requests/s  {:7.1} us each  {:5.1} rows a run",
                used / count as f64 * 1e6,
                count as f64 / took,
                took / count as f64 * 1e6 * f64::from(callers),
                rows as f64 / count as f64
            );
        }
        Ok(())
    })
}

/// CPU seconds of decoding and running, in as many threads as there are cores, as a loop without queue or callers would.
fn crowd(
    threads: usize,
    time: Duration,
    blueprint: &Blueprint,
    options: &SessionOptions,
    recipe: &vision::Recipe,
    picture: &Bytes,
) -> Result<f64, Error> {
    let sessions = (0..threads).map(|_| blueprint.session(options)).collect::<Result<Vec<_>, _>>()?;
    let (begin, spent) = (Instant::now(), cpu());
    let work = &|mut session: runtime::Session| {
        let (input, shape, limits) = (session.inputs()[0].name.clone(), recipe.row_shape(), vision::Limits::default());
        let (mut scratch, mut row, mut count) = (vision::Scratch::new(), vec![0.0; recipe.row_elements()], 0);
        while begin.elapsed() < time {
            let header = vision::inspect(picture, &limits).expect("was read before");
            let pixels = vision::decode(picture, &header, &recipe.wanted(&header), recipe.background());
            recipe.write_row(&pixels.expect("was read before"), &mut scratch, &mut row).expect("it fits");
            let ran = session.run_rows(&input, 1, &shape, &row, &[], &Stop::new(), |_| ());
            ran.expect("it ran before");
            count += 1;
        }
        count
    };
    let count: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = sessions.into_iter().map(|session| scope.spawn(move || work(session))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
    });
    Ok((cpu() - spent) / count.max(1) as f64)
}

/// CPU seconds of one call, the mean over `time`.
fn measure(time: Duration, mut once: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    once()?;
    let (begin, spent, mut count) = (Instant::now(), cpu(), 0);
    while begin.elapsed() < time {
        once()?;
        count += 1;
    }
    Ok((cpu() - spent) / f64::from(count))
}

/// CPU seconds of all threads of this process.
fn cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}
