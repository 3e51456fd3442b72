//! This crate knows how to check the small values that travel everywhere, once, where they come in.
//!
//! Promises: a value of one of these types has been checked; nobody below checks it again.

mod deadline;
mod id;
mod name;
mod trace;

pub use deadline::{Deadline, LONGEST};
pub use id::{CallId, CallerId, IdError, RequestId};
pub use name::{ModelName, NameError};
pub use trace::{TraceId, TraceParent, TraceState};
