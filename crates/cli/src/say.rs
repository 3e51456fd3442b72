//! Standard output.
//!
//! Why not `println!`: it panics when nobody reads any more, as in `outboard call models | head -1`.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _, stdout};

use crate::exit::NO;

/// Prints a line. Ends the process, quietly, when the reader has left; with status 1 when the text cannot be written.
pub(crate) fn say(line: impl Display) {
    if let Err(error) = writeln!(stdout(), "{line}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("cannot write to standard output: {error}");
        std::process::exit(NO.into());
    }
}
