//! This crate knows how to feed any bytes to each decoder of bytes from outside.
//!
//! Why: the same code is driven twice. `fuzz/` lets libFuzzer look for bytes that break it; `tests/corpus.rs` gives it what was
//! found that way, and what is known to be odd, at every ordinary run of the tests (`fuzz/corpus`, one folder for each name
//! in [`TARGETS`]).
//! Promises: a target panics exactly when a decoder breaks its word: a panic of its own, or an answer that contradicts another.

mod form;
mod frames;
mod messages;
mod pictures;
mod settings;

/// A decoder under attack.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 7] = [
    ("frame", frames::frame),
    ("envelope", messages::envelope),
    ("request", messages::request),
    ("reply", messages::reply),
    ("picture", pictures::picture),
    ("multipart", form::multipart),
    ("model_toml", settings::model_toml),
];

/// Runs the target with this name.
///
/// # Panics
/// When there is none, or when the decoder breaks its word.
pub fn attack(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("no target is called {name}")).1(bytes);
}

/// Splits off the first byte, by which a target chooses among its ways.
fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}
