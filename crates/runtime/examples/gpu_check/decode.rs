//! Whether a language model goes on as on the CPU, and how fast.

use std::time::Instant;

use runtime::{Blueprint, DType, Decoder, DeviceWish, Next, Runtime, Stop};

use crate::{Failure, Options, noise, on, short};

const PROMPTS: usize = 10;
/// Tokens of a prompt, and steps after it.
const PROMPT: usize = 24;
const STEPS: usize = 64;

/// What came of one model.
#[derive(Default)]
struct Agreement {
    steps: usize,
    /// Steps with the same likeliest token.
    same: usize,
    /// Greatest difference of a logit by the greatest magnitude of the CPU's.
    difference: f64,
}

pub(crate) fn all(options: &Options) -> Result<(), Failure> {
    let library = Runtime::load(&options.library)?;
    let mut failed = Vec::new();
    for path in &options.models {
        let model = Blueprint::open(library, path)?;
        let slots = options.batches.iter().copied().max().unwrap_or(1).max(2);
        let session = model.session(&on(options.device))?;
        println!("`{}` on {} ({})\n", short(path), session.chosen().device, session.chosen().why);
        let mut ours = Decoder::new(session, slots, PROMPT + STEPS)?;
        let other = options.reference.as_ref().map(|path| Blueprint::open(library, path)).transpose()?;
        let beside = other.as_ref().unwrap_or(&model).session(&on(DeviceWish::Cpu))?;
        let mut cpu = Decoder::new(beside, 2, PROMPT + STEPS)?;
        let mut found = Agreement::default();
        for prompt in 0..PROMPTS {
            go_on(&mut ours, &mut cpu, prompt, &mut found)?;
        }
        let half = options.reference.is_some() || ours.spec().cache == DType::F16;
        let allowed = if half { 0.98 } else { 0.995 };
        let share = found.same as f64 / found.steps as f64;
        println!("| steps | same likeliest token | allowed | greatest difference |\n| --- | --- | --- | --- |");
        println!("| {} | {share:.4} | {allowed} | {:.1e} |\n", found.steps, found.difference);
        if share < allowed || !found.difference.is_finite() {
            failed.push(format!("{} agrees in {share:.4} of the steps, allowed is {allowed}", short(path)));
        }
        println!("| answers at once | a step | tokens/s |\n| --- | --- | --- |");
        for batch in &options.batches {
            let seconds = step_time(&mut ours, *batch, options)?;
            println!("| {batch} | {:.2} ms | {:.0} |", seconds * 1e3, *batch as f64 / seconds);
        }
        println!();
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

/// The CPU's own greedy answer is put into both. Every second prompt goes on in a slot that it was copied to.
fn go_on(ours: &mut Decoder, cpu: &mut Decoder, prompt: usize, found: &mut Agreement) -> Result<(), Failure> {
    let (stop, vocabulary) = (Stop::new(), ours.spec().vocabulary as f32);
    let noise = noise(PROMPT as i64, prompt as i64);
    let tokens: Vec<u32> = noise.iter().map(|one| ((one + 1.0) / 2.0 * (vocabulary - 1.0)) as u32).collect();
    let slot = prompt % 2;
    let mut left = ours.prefill(0, 0, &tokens, 1, &stop, |logits| logits.row(0).to_vec())?;
    let mut right = cpu.prefill(0, 0, &tokens, 1, &stop, |logits| logits.row(0).to_vec())?;
    if slot != 0 {
        ours.copy(0, slot, PROMPT)?;
    }
    for step in 0..STEPS {
        let (token, mine) = (likeliest(&right), likeliest(&left));
        let scale = right.iter().fold(1e-6_f64, |most, value| most.max(value.abs().into()));
        let differences = left.iter().zip(&right).map(|(left, right)| (f64::from(*left) - f64::from(*right)).abs());
        // Not `max`, which passes over what is no number.
        let most = differences.fold(0.0, |most, one| if one <= most { most } else { one });
        found.difference = if most / scale <= found.difference { found.difference } else { most / scale };
        found.steps += 1;
        found.same += usize::from(token == mine);
        let next = [Next { token, past: PROMPT + step }];
        left = ours.step(slot, &next, &stop, |logits| logits.row(0).to_vec())?;
        right = cpu.step(0, &next, &stop, |logits| logits.row(0).to_vec())?;
    }
    Ok(())
}

fn likeliest(row: &[f32]) -> u32 {
    let best = (0..row.len()).max_by(|left, right| row[*left].total_cmp(&row[*right]).then(right.cmp(left)));
    best.unwrap_or_default() as u32
}

/// Seconds of one step of so many answers, each in the middle of its slot.
fn step_time(decoder: &mut Decoder, batch: usize, options: &Options) -> Result<f64, Failure> {
    let next = vec![Next { token: 1, past: PROMPT + STEPS / 2 }; batch];
    let mut once = || decoder.step(0, &next, &Stop::new(), |logits| std::hint::black_box(logits.rows()));
    once()?;
    let (begin, mut count) = (Instant::now(), 0_u32);
    while count < 2 || begin.elapsed() < options.window {
        once()?;
        count += 1;
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(count))
}
