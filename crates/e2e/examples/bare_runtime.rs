//! ONNX Runtime alone: the floor that everything else is measured against.
//!
//! bare_runtime LIBRARY MODEL.onnx INPUT:DIMxDIMx... SESSIONS THREADS BATCH SECONDS [awake]
//!
//! SESSIONS threads run a session each, with THREADS intra-op threads and BATCH rows a run (the first dimension is
//! replaced by BATCH). The threads sleep between a run's nodes, or wait awake until the run has ended. Prints one line of JSON: rows, seconds, per_second, cpu_us_per_row, median_us.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;
use rustix::time::{ClockId, clock_gettime};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (awake, words) =
        words.split_last().filter(|(last, _)| *last == "awake").map_or((false, &words[..]), |(_, words)| (true, words));
    let [library, model, input, sessions, threads, batch, seconds] = words else {
        eprintln!("bare_runtime LIBRARY MODEL.onnx INPUT:DIMxDIM SESSIONS THREADS BATCH SECONDS [awake]");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a count is a number");
    let environment =
        ort::init_from(library).expect("the library is there").with_telemetry(false).build().expect("once");
    let (name, dims) = input.split_once(':').expect("INPUT:DIMxDIM");
    let mut shape: Vec<usize> = dims.split('x').map(|dim| dim.parse().expect("a size is a number")).collect();
    shape[0] = number(batch);
    let limit = Duration::from_secs_f64(seconds.parse().expect("seconds are a number"));
    let mut opened: Vec<Session> = (0..number(sessions))
        .map(|_| {
            let builder = Session::builder(&environment).expect("a builder");
            let builder = builder.with_intra_threads(number(threads)).expect("threads");
            let builder = builder.with_intra_op_spinning(awake).expect("spinning or not");
            let builder = builder.with_config_entry("session.force_spinning_stop", "1").expect("an entry");
            let mut builder = builder.with_flush_to_zero().expect("denormals");
            builder.commit_from_file(model).expect("the model loads")
        })
        .collect();
    let data: Vec<f32> = (0..shape.iter().product()).map(|i| (i % 255) as f32 / 255.0).collect();
    for session in &mut opened {
        run(session, name, &shape, &data, Duration::from_millis(200));
    }
    let (cpu, begin) = (cpu_time(), Instant::now());
    let mut micros: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            opened.iter_mut().map(|session| scope.spawn(|| run(session, name, &shape, &data, limit))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a run's thread lives")).collect()
    });
    let (cpu, wall) = (cpu_time() - cpu, begin.elapsed().as_secs_f64());
    micros.sort_unstable();
    let rows = micros.len() * shape[0];
    println!(
        "{{\"rows\": {rows}, \"seconds\": {wall:.3}, \"per_second\": {:.1}, \"cpu_us_per_row\": {:.2}, \"median_us\": {}}}",
        rows as f64 / wall,
        cpu * 1e6 / rows as f64,
        micros[micros.len() / 2]
    );
}

fn run(session: &mut Session, name: &str, shape: &[usize], data: &[f32], limit: Duration) -> Vec<u32> {
    let (mut micros, begin) = (Vec::new(), Instant::now());
    while begin.elapsed() < limit {
        let sent = Instant::now();
        let tensor = TensorRef::from_array_view((shape.to_vec(), data)).expect("the data fits the shape");
        let inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![(Cow::from(name), tensor.into())];
        session.run(inputs).expect("the model runs");
        micros.push(sent.elapsed().as_micros() as u32);
    }
    micros
}

/// User and system seconds of this process so far, threads that have ended included.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
