//! `outboard`: the command line.

mod args;
mod call;
mod check;
mod client;
mod exit;
mod key_file;
mod probe;
mod pull;
mod records;
mod say;
mod tensor_text;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Arguments, Command, Models};
use crate::say::say;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Probe(probe) => probe::run(probe),
        Command::Call(call) => call::run(call),
        Command::Keys(command) => key_file::run(command),
        Command::History(command) => records::run(command),
        Command::Models(Models::Check { folders, onnxruntime }) => check::run(folders, onnxruntime.as_deref()),
        Command::Models(Models::Pull { repository, variant, revision, into, name }) => {
            let (variant, name) = (variant.as_deref(), name.as_deref());
            pull::run(&pull::Wanted { repository, variant, revision, into: into.as_deref(), name })
        }
        Command::Completions { shell } => {
            // Into memory first: it panics when it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "outboard", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Not `eprintln`: that panics when nobody reads standard error, and the status would be lost.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(&failure)
        }
    }
}
