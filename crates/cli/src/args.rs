//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Talks to Outboard's servers and looks after models.
#[derive(Parser)]
#[command(
    name = "outboard",
    version,
    after_help = "Examples:\n  outboard probe 127.0.0.1:9090\n  outboard call classify shoe.png --model fashion-mnist\n  \
                  outboard models check models/mnist"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Tells whether a server answers: for docker, k8s and people.
    #[command(
        after_help = "Exit status:\n  0  serving (with --live: alive)\n  1  not serving; the reason is printed\n  \
                      2  wrong usage\n  3  cannot connect\n  4  no answer in time\n\nExamples:\n  \
                      outboard probe 127.0.0.1:9090\n  outboard probe 127.0.0.1:9090 --model mnist --deep\n  \
                      outboard probe http://127.0.0.1:8080"
    )]
    Probe(Probe),
    /// Calls a server straight over Thrift.
    #[command(subcommand)]
    Call(Call),
    /// Looks after model folders.
    #[command(subcommand)]
    Models(Models),
    /// Prints a completion script for a shell.
    Completions {
        /// bash, elvish, fish, powershell or zsh.
        shell: Shell,
    },
}

#[derive(Args)]
pub(crate) struct Probe {
    /// HOST:PORT of a server's Thrift listener, or an http:// address of a gateway.
    pub(crate) address: String,
    /// Ask about this model only.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// How long all of it may take, such as 500ms; with --deep that is every model's run together.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Only whether the process is alive: loading and draining are, a hanging worker is not.
    #[arg(long)]
    pub(crate) live: bool,
    /// Run one real inference on every model as well.
    #[arg(long, conflicts_with = "live")]
    pub(crate) deep: bool,
}

/// Where a call goes and how long it may take.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// HOST:PORT of the server.
    #[arg(long, default_value = "127.0.0.1:9090")]
    pub(crate) server: String,
    /// How long the answer is of use.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
#[command(
    after_help = "Exit status: 0; 10 + the code of the fault that the server answered; 3 when it cannot be reached."
)]
pub(crate) enum Call {
    /// Lists what a server serves.
    Models {
        /// HOST:PORT, instead of --server.
        address: Option<String>,
        /// Only this model, with its labels.
        #[arg(long)]
        model: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Says what pictures show.
    #[command(after_help = "Examples:\n  outboard call classify shoe.png --model fashion-mnist\n  \
                            outboard call classify *.jpg --model efficientnet-lite0 --top-k 3 --json")]
    Classify {
        /// Picture files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The model.
        #[arg(long)]
        model: String,
        /// How many labels.
        #[arg(long, default_value_t = 5)]
        top_k: i32,
        #[command(flatten)]
        target: Target,
    },
    /// Runs a model on named tensors.
    #[command(
        after_help = "Inputs are NAME=TYPE:[SHAPE]:VALUES, VALUES being a JSON list or @FILE with raw little-endian \
                      bytes:\n  --input 'x=f32:[2]:[1.0, 2.5]'   --input image=f32:[1,3,224,224]:@image.bin"
    )]
    Infer {
        /// The model.
        #[arg(long)]
        model: String,
        /// NAME=TYPE:[SHAPE]:VALUES; may be repeated.
        #[arg(long, required = true)]
        input: Vec<String>,
        /// Only these outputs; may be repeated.
        #[arg(long)]
        output: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Subcommand)]
pub(crate) enum Models {
    /// Loads the models in these folders and says what would be served.
    #[command(after_help = "Exit status: 0 when every model can be served, else 1.\n\nExamples:\n  \
                            outboard models check models\n  outboard models check models/mnist")]
    Check {
        /// Model folders, or folders of them.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
        /// ONNX Runtime's library or its folder [default: where scripts/onnxruntime puts it].
        #[arg(long)]
        onnxruntime: Option<PathBuf>,
    },
}
