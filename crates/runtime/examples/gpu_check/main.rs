//! Checks and measures a device: does it compute what the CPU computes, did it take the nodes, how fast is it.
//!
//! Why: whether CUDA works is decided by a driver, a dozen libraries and a card, none of which a build machine has. This
//! runs on the host that has them; with `--device cpu` it runs anywhere, so that tests keep it working.
//!
//! ```text
//! gpu_check smoke   [options]            MatMul, Conv and GroupQueryAttention: one small model each, compared with the CPU
//! gpu_check compare [options] MODEL...   each model's answers compared with the CPU's
//! gpu_check measure [options] MODEL...   time by batch size, beside a bare ONNX Runtime session on the same device
//! gpu_check decode  [options] MODEL...   language models: 640 steps beside the CPU's, and tokens/s by answers at once
//! gpu_check refuse  [options]            succeeds if the device is refused at load, and prints the sentence
//! gpu_check bare    [options] MODEL...   the bare session of `measure`, which calls it
//!
//! options: --device cuda:0|cpu|auto   --library FILE|FOLDER   --batches 1,2,4   --seconds 1.0
//!          --reference FILE (decode: the CPU runs this, the f32 form of models in f16)
//! ```
//! Prints Markdown. Exit status: 0 all well, 1 a check failed, 2 wrong usage.
//!
//! Tolerances: f32 within 1e-3 of the greatest magnitude of the CPU's answer (TF32 is off; sums are ordered otherwise), f16
//! within 1e-2; the class of the greatest score is the same, unless the CPU's two greatest are closer than that. A language model's likeliest token is the
//! same in 0.995 of the steps in f32 and in 0.98 in f16.

mod compare;
mod decode;
mod measure;
mod smoke;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use runtime::{Blueprint, DeviceWish, LibraryChoice, Runtime, SessionOptions};

type Failure = Box<dyn std::error::Error>;

struct Options {
    device: DeviceWish,
    library: LibraryChoice,
    batches: Vec<usize>,
    window: Duration,
    models: Vec<PathBuf>,
    /// What the CPU runs beside models in f16: the same in f32.
    reference: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let options = match parse(words) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("gpu_check: {error}");
            return ExitCode::from(2);
        }
    };
    let done = match command.as_str() {
        "smoke" => smoke::smoke(&options),
        "compare" => compare::all(&options),
        "measure" => measure::measure(&options),
        "decode" => decode::all(&options),
        "refuse" => refuse(&options),
        "bare" => measure::bare(&options),
        _ => {
            eprintln!(
                "gpu_check: unknown command '{command}', expected smoke, compare, measure, decode, refuse or bare"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("**FAILED** {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options {
        device: DeviceWish::Cuda(0),
        library: LibraryChoice::Search,
        batches: vec![1, 2, 4, 8, 16, 32, 64, 128],
        window: Duration::from_secs(1),
        models: Vec::new(),
        reference: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "--device" => options.device = value()?.parse()?,
            "--library" => options.library = LibraryChoice::At(value()?.into()),
            "--batches" => options.batches = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--seconds" => options.window = Duration::try_from_secs_f64(value()?.parse()?)?,
            "--reference" => options.reference = Some(value()?.into()),
            _ if word.starts_with('-') => return Err(format!("unknown option {word}").into()),
            _ => options.models.push(word.into()),
        }
    }
    Ok(options)
}

fn on(device: DeviceWish) -> SessionOptions {
    SessionOptions { wish: device, ..SessionOptions::default() }
}

fn refuse(options: &Options) -> Result<(), Failure> {
    let library = match Runtime::load(&options.library) {
        Ok(library) => library,
        Err(error) => return told(&error.to_string()),
    };
    match Blueprint::open(library, models_folder().join("matmul.onnx"))?.session(&on(options.device)) {
        Err(error) => told(&error.to_string()),
        Ok(session) => {
            let device = session.chosen().device;
            Err(format!("{} was not refused, the session runs on {device}", options.device).into())
        }
    }
}

/// A refusal is good when it is one sentence that says what is missing or what to run.
fn told(sentence: &str) -> Result<(), Failure> {
    let helps = ["scripts/onnxruntime", "driver", "no CUDA device", "CUDA"].iter().any(|sign| sentence.contains(sign));
    if helps && !sentence.contains('\n') {
        println!("refused: {sentence}");
        Ok(())
    } else {
        Err(format!("refused, but without saying what is missing: {sentence}").into())
    }
}

/// Beside the program when it was carried to another host, else where it was built.
fn models_folder() -> PathBuf {
    let carried = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join("gpu-models")));
    carried
        .filter(|folder| folder.is_dir())
        .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/gpu")))
}

/// The same numbers from -1 to 1 on every machine.
fn noise(count: i64, seed: i64) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed.unsigned_abs() + 1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The upper 16 bits are the good ones of this generator.
        f32::from(u16::try_from(state >> 48).unwrap_or(0)) / 32767.5 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The last folders of a path: enough to tell models apart.
fn short(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(3).map(|part| part.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}
