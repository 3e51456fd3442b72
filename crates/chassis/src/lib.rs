//! This crate knows how to run a process in production: settings, logs, metrics, signals, the exit status.
//!
//! Both programs need the same things around their own work, and operators need them to look the same.
//! Not here: what the programs do (`server`, `gateway`).

pub mod admin;
pub mod exposure;
pub mod files;
pub mod followed;
mod gathered;
mod json_line;
pub mod keyring;
pub mod logs;
pub mod metrics;
pub mod program;
pub mod settings;
pub mod signals;
pub mod silence;
mod size;
pub mod traces;

pub use size::Size;
