//! TLS of both sides.

use std::io;

use crate::link::CLOSED;

/// What ended a connection, in one sentence.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CLOSED.to_owned(),
        _ => error.to_string(),
    }
}
