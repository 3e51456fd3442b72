//! `outboard`: the command line.

mod args;
mod call;
mod check;
mod client;
mod exit;
mod probe;
mod tensor_text;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Arguments, Command, Models};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Probe(probe) => probe::run(probe),
        Command::Call(call) => call::run(call),
        Command::Models(Models::Check { folders, onnxruntime }) => check::run(folders, onnxruntime.as_deref()),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "outboard", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(&failure)
        }
    }
}
