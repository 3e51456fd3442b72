//! This crate knows how to go on with a text: which token comes next, and what of it may leave.
//!
//! Promises: the tokens of an answer depend on its own logits, seed and place alone; text leaves in whole characters, and
//! nothing of a stop text ever leaves.
//! Not here: the network (`runtime`), who may ask (`server`), HTTP (`gateway`).

mod answer;
mod beat;
mod format;
mod generator;
mod multiples;
mod pace;
mod request;
mod sampling;
mod slots;
mod template;
mod text;
mod turns;
mod vocabulary;
mod waiting;

pub use format::{Format, SCHEMA_BYTES};
pub use generator::{Generator, Limits, Load, Ticket, Tokens};
pub use request::{Event, Failure, Finish, Refusal, Request, Sink, Timing, Usage};
pub use sampling::{Chosen, NoChoice, Sampler, Sampling};
pub use slots::{Move, Owner, Place, Slots};
pub use template::{Message, Template};
pub use text::{Text, Told};
pub use vocabulary::{FolderError, Vocabulary};
