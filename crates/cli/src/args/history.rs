//! What can be typed about the history.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Which store is meant, as the gateway is told it.
#[derive(Args)]
pub(crate) struct Store {
    /// The gateway's settings file: its table [history] counts. OUTBOARD_GATEWAY__HISTORY__... variables do, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A setting of it, such as folder=/var/lib/outboard/history or cassandra.nodes=10.0.0.1:9042; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Which records.
#[derive(Args)]
pub(crate) struct Which {
    /// Only answers of this model.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Only those with this best label.
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// Only those of this day by UTC, such as 2026-11-21.
    #[arg(long)]
    pub(crate) day: Option<String>,
    /// Only those that somebody has corrected.
    #[arg(long)]
    pub(crate) corrected: bool,
    #[command(flatten)]
    pub(crate) store: Store,
}

#[derive(Subcommand)]
pub(crate) enum History {
    /// Makes the tables, or brings them to this program's version. Again does no harm.
    Migrate {
        #[command(flatten)]
        store: Store,
    },
    /// Shows the newest records.
    List {
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print an object of JSON for each instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Writes records, the newest first, with their corrections: what the next model is trained with.
    Export {
        /// How.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// Where to [default: standard output].
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write the pictures into this folder as well, each named by its record's id.
        #[arg(long, value_name = "FOLDER")]
        pictures: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
    },
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// An object of JSON a line, with everything that is known.
    Jsonl,
    /// Comma-separated values with a head; the best label alone.
    Csv,
}
