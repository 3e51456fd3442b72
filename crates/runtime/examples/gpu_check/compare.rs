//! Whether a device answers what the CPU answers.

use std::path::Path;

use half::f16;
use runtime::{Blueprint, DType, Data, Device, DeviceWish, Dim, Runtime, Session, Stop, Tensor, TensorSpec};

use crate::{Failure, Options, noise, on, short};

/// One row of the table; a failed one goes on to the next model, so that one run shows all that is wrong.
pub(crate) fn note(failed: &mut Vec<String>, name: &str, result: Result<Compared, Failure>) {
    match result {
        Ok(Compared { device, nodes, difference, allowed, agrees }) => {
            println!("| {name} | {device} | {nodes} | {difference:.1e} | {allowed:.1e} |");
            if !agrees {
                failed.push(format!("{name} differs by {difference:.1e}, allowed is {allowed:.1e}"));
            }
        }
        Err(error) if error.is::<NotChecked>() => println!("| {name} | not checked: {error} | - | - | - |"),
        Err(error) => {
            println!("| {name} | - | - | - | - |");
            failed.push(format!("{name}: {error}"));
        }
    }
}

pub(crate) struct Compared {
    device: Device,
    nodes: String,
    difference: f64,
    allowed: f64,
    agrees: bool,
}

/// A model of a form that this program makes no input for; it is told and is no failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotChecked(String);

pub(crate) fn all(options: &Options) -> Result<(), Failure> {
    let library = Runtime::load(&options.library)?;
    println!("| model | device | nodes | greatest difference | allowed |\n| --- | --- | --- | --- | --- |");
    let mut failed = Vec::new();
    for path in &options.models {
        note(&mut failed, &short(path), compare(library, path, options.device, 4));
    }
    println!();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

pub(crate) fn compare(
    library: &'static Runtime,
    path: &Path,
    device: DeviceWish,
    batch: usize,
) -> Result<Compared, Failure> {
    let model = Blueprint::open(library, path)?;
    let mut ours = model.session(&on(device))?;
    let mut cpu = model.session(&on(DeviceWish::Cpu))?;
    let (name, shape) = float_input(&ours, batch)?;
    let count = shape.iter().product::<i64>();
    let values: Vec<f32> = noise(count, 1).iter().map(|value| (value + 1.0) / 2.0).collect();
    let x = Tensor::from_f32(&shape, &values);
    let inputs = [(name.as_str(), &x)];
    let (left, right) = (ours.run(&inputs, &[], &Stop::new())?, cpu.run(&inputs, &[], &Stop::new())?);
    let mut worst = Difference::default();
    for ((name, left), (_, right)) in left.iter().zip(&right) {
        worst.add(name, left, right)?;
    }
    Ok(worst.against(&ours, 1e-3))
}

/// The name and a shape of a model's only input, which must be floats. A free first dimension becomes the batch, other
/// free ones 64.
pub(crate) fn float_input(session: &Session, batch: usize) -> Result<(String, Vec<i64>), Failure> {
    let required: Vec<&TensorSpec> = session.inputs().iter().filter(|spec| !spec.optional).collect();
    let [spec] = required[..] else {
        return Err(NotChecked(format!("has {} inputs, only models of one are", required.len())).into());
    };
    let dims = spec.shape.as_deref().filter(|_| spec.dtype == DType::F32);
    let dims = dims.ok_or_else(|| NotChecked(format!("input {} is {spec}, only f32 of a known rank is", spec.name)))?;
    let sizes = dims.iter().enumerate().map(|(at, dim)| match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        Dim::Free(_) if at == 0 => i64::try_from(batch).unwrap_or(i64::MAX),
        Dim::Free(_) => 64,
    });
    Ok((spec.name.clone(), sizes.collect()))
}

/// The greatest difference over all outputs, each by the greatest magnitude of the reference.
#[derive(Default)]
pub(crate) struct Difference {
    relative: f64,
    /// Rows whose greatest score is another, with the distance of the reference's two greatest.
    flips: Vec<f64>,
}

impl Difference {
    pub(crate) fn add(&mut self, name: &str, ours: &Tensor, reference: &Tensor) -> Result<(), Failure> {
        if ours.shape != reference.shape || ours.dtype != reference.dtype {
            let message = format!(
                "output {name} is {}{:?}, the CPU's is {}{:?}",
                ours.dtype, ours.shape, reference.dtype, reference.shape
            );
            return Err(message.into());
        }
        let (Some(left), Some(right)) = (floats(ours), floats(reference)) else {
            return if ours == reference { Ok(()) } else { Err(format!("output {name} differs").into()) };
        };
        if left.iter().any(|value| !value.is_finite()) {
            return Err(format!("output {name} has values that are no numbers").into());
        }
        let scale = right.iter().fold(1e-6_f64, |most, value| most.max(value.abs().into()));
        for (left, right) in left.iter().zip(&right) {
            self.relative = self.relative.max((f64::from(*left) - f64::from(*right)).abs() / scale);
        }
        let width = reference.shape.last().and_then(|width| usize::try_from(*width).ok()).unwrap_or(0);
        if reference.shape.len() == 2 && width > 1 {
            for (left, right) in left.chunks(width).zip(right.chunks(width)) {
                if greatest(left) != greatest(right) {
                    let mut sorted = right.to_vec();
                    sorted.sort_by(f32::total_cmp);
                    self.flips.push(f64::from(sorted[width - 1] - sorted[width - 2]) / scale);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn against(&self, session: &Session, allowed: f64) -> Compared {
        let nodes: Vec<String> =
            session.placement().iter().map(|(provider, count)| format!("{provider} {count}")).collect();
        let agrees = self.relative <= allowed && self.flips.iter().all(|distance| *distance <= allowed);
        Compared {
            device: session.chosen().device,
            nodes: nodes.join(", "),
            difference: self.relative,
            allowed,
            agrees,
        }
    }
}

fn greatest(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|left, right| row[*left].total_cmp(&row[*right]))
}

fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    let Data::Bytes(bytes) = &tensor.data else { return None };
    match tensor.dtype {
        DType::F32 => tensor.to_f32(),
        DType::F16 => Some(bytes.as_chunks().0.iter().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect()),
        _ => None,
    }
}

pub(crate) fn half_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}
