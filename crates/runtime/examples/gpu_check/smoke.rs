//! One small model for each kind of operator that CUDA runs by other code.

use std::path::Path;

use runtime::{Blueprint, DType, DeviceWish, Runtime, Stop, Tensor};

use crate::compare::{Compared, Difference, compare, half_bytes, note};
use crate::{Failure, Options, models_folder, noise, on};

pub(crate) fn smoke(options: &Options) -> Result<(), Failure> {
    let library = Runtime::load(&options.library)?;
    println!("Library: `{}`, {}\n", library.path().display(), library.version());
    println!("| operator | device | nodes | greatest difference | allowed |\n| --- | --- | --- | --- | --- |");
    let folder = models_folder();
    let mut failed = Vec::new();
    for name in ["matmul", "conv"] {
        let path = folder.join(format!("{name}.onnx"));
        note(&mut failed, name, compare(library, &path, options.device, 4));
    }
    note(&mut failed, "attention_f16", attention(library, &folder.join("attention_f16.onnx"), options.device));
    println!();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

/// Prefills five positions, then decodes one on the cache that came out.
fn attention(library: &'static Runtime, path: &Path, device: DeviceWish) -> Result<Compared, Failure> {
    let model = Blueprint::open(library, path)?;
    let mut ours = model.session(&on(device))?;
    let mut cpu = model.session(&on(DeviceWish::Cpu))?;
    let mut worst = Difference::default();
    let mut past: Option<(Tensor, Tensor)> = None;
    for (length, total) in [(5_i64, 5_i64), (1, 6)] {
        let empty = || Tensor::from_bytes(DType::F16, &[1, 2, 0, 16], vec![]);
        let (key, value) = past.take().unwrap_or_else(|| (empty(), empty()));
        let noise = |width: i64, seed| {
            Tensor::from_bytes(DType::F16, &[1, length, width], half_bytes(&noise(length * width, seed)))
        };
        let whole = |value: i64| i32::try_from(value).unwrap_or(i32::MAX).to_le_bytes().to_vec();
        let inputs = [
            ("query", noise(64, total)),
            ("key", noise(32, total + 10)),
            ("value", noise(32, total + 20)),
            ("past_key", key),
            ("past_value", value),
            ("seqlens_k", Tensor::from_bytes(DType::I32, &[1], whole(total - 1))),
            ("total", Tensor::from_bytes(DType::I32, &[], whole(total))),
        ];
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let (left, right) = (ours.run(&inputs, &[], &Stop::new())?, cpu.run(&inputs, &[], &Stop::new())?);
        for ((name, left), (_, right)) in left.iter().zip(&right) {
            worst.add(name, left, right)?;
        }
        // Both go on from the CPU's cache, so that the second step is compared on the same values.
        past = Some((right[1].1.clone(), right[2].1.clone()));
    }
    Ok(worst.against(&ours, 1e-2))
}
