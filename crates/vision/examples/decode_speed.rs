//! Prints microseconds for each phase of each file: `decode_speed WIDTH COLOR FIT FILE...`, for example
//! `decode_speed 224 rgb crop testdata/photos/cat.jpg`.

use std::time::{Duration, Instant};
use vision::{Limits, Recipe, Scratch};

/// Each phase is measured for this long; the median counts.
const EACH: Duration = Duration::from_millis(300);

fn median_us(mut phase: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < EACH || times.len() < 5 {
        let before = Instant::now();
        phase();
        times.push(before.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [edge, color, fit, files @ ..] = arguments.as_slice() else {
        return Err("usage: decode_speed WIDTH COLOR FIT FILE...".into());
    };
    let recipe: Recipe = toml::from_str(&format!("width = {edge}\nheight = {edge}\ncolor = '{color}'\nfit = '{fit}'"))?;
    println!("{:>10} {:>10} {:>10} {:>10}  file", "inspect us", "decode us", "row us", "all us");
    for file in files {
        let encoded = std::fs::read(file)?;
        let limits = Limits::default();
        let header = vision::inspect(&encoded, &limits)?;
        let wanted = recipe.wanted(&header);
        let background = recipe.background();
        let picture = vision::decode(&encoded, &header, &wanted, background)?;
        let mut scratch = Scratch::new();
        let mut row = vec![0.0; recipe.row_elements()];
        let inspect = median_us(|| drop(std::hint::black_box(vision::inspect(&encoded, &limits))));
        let decode = median_us(|| drop(std::hint::black_box(vision::decode(&encoded, &header, &wanted, background))));
        let fill = median_us(|| drop(std::hint::black_box(recipe.write_row(&picture, &mut scratch, &mut row))));
        let all = inspect + decode + fill;
        println!("{inspect:>10.2} {decode:>10.2} {fill:>10.2} {all:>10.2}  {file}");
    }
    Ok(())
}
