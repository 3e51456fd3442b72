//! This crate knows how to go on with a text: which token comes next, and what of it may leave.
//!
//! Promises: the tokens of an answer depend on its own logits, seed and place alone; text leaves in whole characters, and
//! nothing of a stop text ever leaves.
//! Not here: the network (`runtime`), who may ask (`server`), HTTP (`gateway`).

mod sampling;
mod text;

pub use sampling::{Chosen, Sampler, Sampling};
pub use text::{Text, Told};
