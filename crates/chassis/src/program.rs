//! How a program begins and ends: its settings are shown, its reason to end becomes an exit status.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use serde::Serialize;

use crate::settings;

/// Exit status when the settings, or what they name, cannot be used.
const UNUSABLE: u8 = 2;

/// The exit status of a program that has ended; a reason goes to standard error.
#[must_use]
pub fn ended(program: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Not `eprintln`: that panics when nobody reads standard error any more, and the status would say so instead.
            let _ = writeln!(std::io::stderr(), "{program}: {reason}");
            ExitCode::from(UNUSABLE)
        }
    }
}

/// Shows the settings in force on standard output, for `--print-config`.
///
/// # Errors
/// One sentence when they cannot be written; a reader that has seen enough, such as `head`, is no error.
pub fn show<S: Serialize>(settings: &S) -> Result<(), String> {
    let text = settings::print(settings).map_err(|error| error.to_string())?;
    // Not `print`, for the same reason.
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write the settings: {error}")),
        _ => Ok(()),
    }
}
