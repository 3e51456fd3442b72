//! Time by batch size, beside a bare session.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use runtime::{Blueprint, Device, DeviceWish, Dim, LibraryChoice, Runtime, Session, Stop};

use crate::compare::float_input;
use crate::{Failure, Options, noise, on, short};

/// Rounds, ours and the bare session in turn; the median counts.
const ROUNDS: usize = 3;

pub(crate) fn measure(options: &Options) -> Result<(), Failure> {
    let library = Runtime::load(&options.library)?;
    for path in &options.models {
        let model = Blueprint::open(library, path)?;
        let mut session = model.session(&on(options.device))?;
        let device = session.chosen().device;
        let nodes: Vec<String> = session.placement().iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("`{}` on {device} ({}); nodes: {}\n", short(path), session.chosen().why, nodes.join(", "));
        println!("| batch | ours, a run | bare, a run | ours, rows/s | bare, rows/s | ours by bare |");
        println!("| --- | --- | --- | --- | --- | --- |");
        for batch in batches(&session, &options.batches) {
            let (mut ours, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(time_rows(&mut session, batch, options.window)?);
                bare.push(time_bare(options, library.path(), device, path, batch)?);
            }
            let (ours, bare) = (median(ours), median(bare));
            let rate = |seconds: f64| f64::from(u32::try_from(batch).unwrap_or(u32::MAX)) / seconds;
            let (left, right) = (rate(ours), rate(bare));
            let (ours_us, bare_us, ratio) = (ours * 1e6, bare * 1e6, ours / bare);
            println!("| {batch} | {ours_us:.1} us | {bare_us:.1} us | {left:.0} | {right:.0} | {ratio:.3} |");
        }
        println!();
    }
    Ok(())
}

/// A model of a fixed batch is measured at that alone.
fn batches(session: &Session, wished: &[usize]) -> Vec<usize> {
    match session.inputs().first().and_then(|spec| spec.shape.as_deref()?.first()) {
        Some(Dim::Fixed(size)) => vec![usize::try_from(*size).unwrap_or(1)],
        _ => wished.to_vec(),
    }
}

/// Median seconds of one run.
fn time_rows(session: &mut Session, batch: usize, window: Duration) -> Result<f64, Failure> {
    let (name, shape) = float_input(session, batch)?;
    let row: Vec<usize> = shape[1..].iter().map(|size| usize::try_from(*size)).collect::<Result<_, _>>()?;
    let data = noise(shape.iter().product(), 1);
    let stop = Stop::new();
    time(window, || {
        session.run_rows(&name, batch, &row, &data, &[], &stop, |outputs| {
            std::hint::black_box(outputs);
        })?;
        Ok(())
    })
}

/// Runs `once` for a fifth of the window to warm up, then for the window; at least twice each.
fn time(window: Duration, mut once: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut taken = Vec::new();
    for window in [window / 5, window] {
        taken.clear();
        let begin = Instant::now();
        while taken.len() < 2 || begin.elapsed() < window {
            let at = Instant::now();
            once()?;
            taken.push(at.elapsed().as_secs_f64());
        }
    }
    Ok(median(taken))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The bare session has a process of its own: a process has one ONNX Runtime environment, and ours has our settings.
fn time_bare(options: &Options, library: &Path, device: Device, model: &Path, batch: usize) -> Result<f64, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .arg("bare")
        .arg("--library")
        .arg(library)
        .args(["--device", &device.to_string(), "--batches", &batch.to_string()])
        .args(["--seconds", &options.window.as_secs_f64().to_string()])
        .arg(model)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("the bare session failed: {}", text.trim()).into());
    }
    Ok(text.trim().parse()?)
}

pub(crate) fn bare(options: &Options) -> Result<(), Failure> {
    use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
    use ort::session::Session as Bare;

    let LibraryChoice::At(library) = &options.library else { return Err("bare wants --library FILE".into()) };
    let environment = ort::init_from(library)?.with_telemetry(false).build()?;
    let ([path], [batch]) = (&options.models[..], &options.batches[..]) else {
        return Err("bare wants one model, one batch".into());
    };
    let mut builder = Bare::builder(&environment)?.with_intra_threads(1)?.with_intra_op_spinning(false)?;
    if let DeviceWish::Cuda(number) = options.device {
        // As our own sessions find them.
        runtime::preload_cuda_libraries(library);
        let cuda = ort::ep::CUDA::default()
            .with_device_id(i32::try_from(number)?)
            .with_conv_algorithm_search(ort::ep::cuda::ConvAlgorithmSearch::Heuristic)
            .with_tf32(false);
        builder = builder.with_execution_providers([cuda.build().error_on_failure()])?;
    }
    let mut session = builder.commit_from_file(path)?;
    let outlet = session.inputs().first().ok_or("no input")?;
    let name = outlet.name().to_owned();
    let shape = outlet.dtype().tensor_shape().ok_or("not a tensor")?;
    let shape: Vec<i64> = shape.iter().enumerate().map(|(at, size)| bare_size(at, *size, *batch)).collect();
    let input = ort::value::Tensor::from_array((shape.clone(), noise(shape.iter().product(), 1)))?;
    let mut binding = session.create_binding()?;
    binding.bind_input(name, &input)?;
    let names: Vec<String> = session.outputs().iter().map(|outlet| outlet.name().to_owned()).collect();
    for name in names {
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        binding.bind_output_to_device(name, &memory)?;
    }
    let seconds = time(options.window, || {
        // CUDA copies a bound input to the card when it is bound, so this is part of a run.
        if matches!(options.device, DeviceWish::Cuda(_)) {
            let name = session.inputs().first().map(|outlet| outlet.name().to_owned()).unwrap_or_default();
            binding.bind_input(name, &input)?;
        }
        std::hint::black_box(session.run_binding(&binding)?);
        Ok(())
    })?;
    println!("{seconds}");
    Ok(())
}

fn bare_size(at: usize, size: i64, batch: usize) -> i64 {
    match (size, at) {
        (-1, 0) => i64::try_from(batch).unwrap_or(i64::MAX),
        (-1, _) => 64,
        _ => size,
    }
}
