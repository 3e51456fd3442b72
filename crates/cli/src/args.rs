//! What can be typed.

pub(crate) mod history;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use keys::Scope;

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
                      outboard probe gpu-1.internal:9090 --tls --tls-ca ca.pem\n  \
                      outboard probe http://127.0.0.1:8080"
    )]
    Probe(Probe),
    /// Calls a server straight over Thrift.
    #[command(subcommand)]
    Call(Call),
    /// Looks after model folders.
    #[command(subcommand)]
    Models(Models),
    /// Makes and revokes the API keys that a gateway asks for.
    #[command(
        subcommand,
        after_help = "The gateway's setting `keys` names the same file; it looks at it each second. The file holds hashes: a key is \
                      told once, when it is made.\n\nExit status: 0; 1 when the file cannot be used, or there is such a key \
                      or none.\n\nExamples:\n  outboard keys new photo-team --file keys.toml --expires 90d\n  \
                      outboard keys new ann --file keys.toml --scope infer --scope history.read\n  \
                      outboard keys list --file keys.toml\n  outboard keys revoke photo-team --file keys.toml"
    )]
    Keys(Keys),
    /// Looks after the history that gateways keep, without a gateway.
    #[command(
        subcommand,
        after_help = "Exit status: 0; 1 when the store refuses; 2 for wrong settings; 3 when it cannot be reached.\n\nExamples:\n  \
                      outboard history migrate --config gateway.toml\n  outboard history list --label 'Ankle boot'\n  \
                      outboard history export --format csv --corrected --output corrected.csv --pictures pictures"
    )]
    History(history::History),
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
    /// Only --deep needs one.
    #[command(flatten)]
    pub(crate) key: OwnKey,
    #[command(flatten)]
    pub(crate) tls: OwnTls,
}

/// The caller's own key, where a server asks for one. There is no flag for the key itself: others on the machine can see what
/// processes were started with.
#[derive(Args, Clone)]
pub(crate) struct OwnKey {
    /// A file that holds the API key [default: the key itself in the variable OUTBOARD_KEY].
    #[arg(long, env = "OUTBOARD_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

/// How a server's TLS is used, if it is.
#[derive(Args, Clone)]
pub(crate) struct OwnTls {
    /// Connect by TLS.
    #[arg(long, env = "OUTBOARD_TLS", value_parser = FalseyValueParser::new())]
    pub(crate) tls: bool,
    /// Certificates in PEM, one of which must have issued the server's [default: the system's].
    #[arg(long, env = "OUTBOARD_TLS_CA", value_name = "FILE", requires = "tls")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// This side's certificate in PEM, where the server asks for one.
    #[arg(long, env = "OUTBOARD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key in PEM.
    #[arg(long, env = "OUTBOARD_TLS_KEY", value_name = "FILE", requires_all = ["tls", "tls_cert"])]
    pub(crate) tls_key: Option<PathBuf>,
    /// Whom the server's certificate must be for [default: the host that is connected to].
    #[arg(long, env = "OUTBOARD_TLS_SERVER_NAME", value_name = "NAME", requires = "tls")]
    pub(crate) tls_server_name: Option<String>,
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
    #[command(flatten)]
    pub(crate) key: OwnKey,
    #[command(flatten)]
    pub(crate) tls: OwnTls,
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
    /// Makes vectors of texts, and says how alike each is to the first one.
    #[command(
        after_help = "Example:\n  outboard call embed 'A cat sleeps.' 'The kitten naps.' 'Shares fell on Monday.'"
    )]
    Embed {
        /// The texts, each one argument.
        #[arg(required = true)]
        texts: Vec<String>,
        /// The model.
        #[arg(long, default_value = "all-minilm-l6-v2")]
        model: String,
        /// Cut a text that is too long instead of refusing it.
        #[arg(long)]
        truncate: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Talks with a language model: the answer appears as it is made.
    #[command(
        after_help = "Without a prompt the prompt is read from standard input; at a terminal that is a conversation, in which \
                      Ctrl-C stops the answer, /new begins anew and Ctrl-D ends. Ctrl-C in a single answer ends with \
                      status 130.\n\nExamples:\n  outboard call chat\n  outboard call chat 'Name three rivers.' \
                      --temperature 0\n  outboard call chat --system 'Answer in one word.' --json < question.txt"
    )]
    Chat(Chat),
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

/// What is said, to whom, and how it may answer.
#[derive(Args)]
pub(crate) struct Chat {
    /// What to say; several words are one text.
    pub(crate) prompt: Vec<String>,
    /// The model [default: the first language model of the server that is ready].
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// What the model is told before everything else.
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// 0 to 2; 0 always takes the likeliest word [default: the model's].
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    /// Same number, same answer, but for models with 8-bit weights, which can come to another one [default: a new number each
    /// time].
    #[arg(long)]
    pub(crate) seed: Option<i64>,
    /// Most tokens of an answer [default: what fits].
    #[arg(long)]
    pub(crate) max_tokens: Option<i32>,
    /// Hold a conversation, even where standard input is no terminal: each line is a turn.
    #[arg(long, short, conflicts_with_all = ["prompt", "json"])]
    pub(crate) interactive: bool,
    /// Print one JSON object when the answer is whole.
    #[arg(long)]
    pub(crate) json: bool,
    /// HOST:PORT of the server.
    #[arg(long, default_value = "127.0.0.1:9090")]
    pub(crate) server: String,
    /// How long one answer may take.
    #[arg(long, default_value = "2min", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) key: OwnKey,
    #[command(flatten)]
    pub(crate) tls: OwnTls,
}

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Makes a key and prints it.
    New {
        /// Who gets it: it stands in the logs of every process.
        name: String,
        /// What it opens: infer, history.read, history.delete or admin; may be repeated [default: infer].
        #[arg(long, value_parser = str::parse::<Scope>)]
        scope: Vec<Scope>,
        /// When it ends: after so long, such as 90d, or at a time, such as 2027-01-31T00:00:00Z [default: never].
        #[arg(long, value_parser = expiry)]
        expires: Option<SystemTime>,
        #[command(flatten)]
        kept: KeyFile,
    },
    /// Shows whose keys there are.
    List {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        kept: KeyFile,
    },
    /// Takes keys away; gateways refuse them within a second.
    Revoke {
        /// Whose.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        kept: KeyFile,
    },
}

/// Where keys are kept.
#[derive(Args)]
pub(crate) struct KeyFile {
    /// The file of keys; `new` makes it.
    #[arg(long, env = "OUTBOARD_KEYS")]
    pub(crate) file: PathBuf,
}

/// A time from now, or a point in time.
fn expiry(text: &str) -> Result<SystemTime, String> {
    if let Ok(at) = humantime::parse_rfc3339_weak(text) {
        return Ok(at);
    }
    let after =
        humantime::parse_duration(text).map_err(|error| format!("{error}; or a time as 2027-01-31T00:00:00Z"))?;
    SystemTime::now().checked_add(after).ok_or_else(|| "that is too far away".to_owned())
}

#[derive(Subcommand)]
pub(crate) enum Models {
    /// Fetches a model from a hub, as a folder that a server serves.
    #[command(
        after_help = "What was fetched before an interruption is not fetched again; every file is checked against the sum \
                      that the hub lists. The hub is HF_ENDPOINT, the token for repositories that are not public \
                      HF_TOKEN.\n\nExit status: 0; 1 when it cannot be had, and why; 3 when the hub cannot be \
                      reached.\n\nExamples:\n  outboard models pull onnx-community/SmolLM2-360M-Instruct-ONNX \
                      --variant q4\n  outboard models pull Xenova/all-MiniLM-L6-v2 --into my-models --name minilm"
    )]
    Pull {
        /// OWNER/NAME.
        repository: String,
        /// Which of its graphs, such as fp16, q4 or int8 [default: the plain one].
        #[arg(long)]
        variant: Option<String>,
        /// The branch, tag or commit.
        #[arg(long, default_value = "main")]
        revision: String,
        /// The folder of models that gets it [default: models in $OUTBOARD_CACHE or ~/.cache/outboard, which scripts/up
        /// serves].
        #[arg(long)]
        into: Option<PathBuf>,
        /// The model's name here [default: NAME in small letters].
        #[arg(long)]
        name: Option<String>,
    },
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
