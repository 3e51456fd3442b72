//! Standard output, and what is said beside it.
//!
//! Why not `println!`: it panics when nobody reads any more, as in `outboard call models | head -1`.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _, stderr, stdout};

use crate::exit::NO;

/// Prints a line. Ends the process, quietly, when the reader has left; with status 1 when the text cannot be written.
pub(crate) fn say(line: impl Display) {
    check(writeln!(stdout(), "{line}"));
}

/// Prints a line for people beside what programs read. Nobody may be there to read it.
pub(crate) fn say_aside(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Prints a part of a line, at once.
pub(crate) fn say_part(text: &str) {
    check(stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()));
}

fn check(written: std::io::Result<()>) {
    if let Err(error) = written {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("cannot write to standard output: {error}");
        std::process::exit(NO.into());
    }
}
