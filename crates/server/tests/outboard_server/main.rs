//! The real `outboard-server`, with a model from the tree: what is counted, what is logged, and how it ends.

#![allow(clippy::unwrap_used)]

mod calls;
mod chat;
mod embed;
mod keys;
mod program;
mod settings;
