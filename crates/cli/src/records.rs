//! `outboard history`: the history's store, without a gateway.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use chassis::settings::{Sources, command_line, read_table};
use history::export::{CSV_HEAD, RecordBody, csv};
use history::{Day, Filter, Kind, Record, RecordId, Settings, StoreError, Stores, rfc_3339};
use serde::{Deserialize, Serialize};

use crate::args::history::{Format, History, Store, Which};
use crate::exit::{Failure, NO, UNREACHABLE, USAGE};
use crate::say::say;

/// Records of one question: few enough to be in memory, many enough to be quick.
const PAGE: usize = 200;

/// The part of the gateway's settings that counts here.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    history: Settings,
}

/// Runs one of its commands.
pub(crate) fn run(command: &History) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(NO, error.to_string()))?;
    runtime.block_on(async {
        match command {
            History::Migrate { store } => migrate(&open(store, Stores::open)?).await,
            History::List { limit, json, which } => {
                list(&open(&which.store, Stores::open_existing)?, which, *limit, *json).await
            }
            History::Export { format, output, pictures, which } => {
                let stores = open(&which.store, Stores::open_existing)?;
                export(&stores, which, *format, output.as_deref(), pictures.as_deref()).await
            }
        }
    })
}

/// The stores that are named, by one of the two ways to open them.
fn open(store: &Store, open: fn(&Settings) -> Result<Stores, String>) -> Result<Stores, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(USAGE, error.to_string());
    let below = |(key, value): (String, String)| (format!("history.{key}"), value);
    let flags = command_line(&[], &store.set).map_err(|error| wrong(&error))?;
    let sources = Sources {
        file: store.config.as_deref(),
        prefix: "OUTBOARD_GATEWAY",
        lists: &["history.cassandra.nodes"],
        flags: flags.into_iter().map(below).collect(),
    };
    let part: Part = read_table(&sources, "history").map_err(|error| wrong(&error))?;
    part.history.check().map_err(|error| wrong(&error))?;
    open(&part.history).map_err(|reason| Failure::new(NO, reason))
}

fn failed(error: StoreError) -> Failure {
    let status = if matches!(error, StoreError::Away { .. }) { UNREACHABLE } else { NO };
    Failure::new(status, error.to_string())
}

async fn migrate(stores: &Stores) -> Result<(), Failure> {
    let done = stores.records.migrate().await.map_err(failed)?;
    if done.from == done.to {
        say(format_args!("the history's tables have version {}: nothing to do", done.to));
    } else {
        say(format_args!("the history's tables are now of version {}, they were of {}", done.to, done.from));
    }
    Ok(())
}

impl Which {
    fn filter(&self) -> Result<Filter, Failure> {
        let day = self.day.as_deref().map(|text| {
            let bad = || Failure::new(USAGE, format!("--day is {text:?}, expected one such as 2026-11-21"));
            Day::parse(text).ok_or_else(bad)
        });
        Ok(Filter { model: self.model.clone(), label: self.label.clone(), day: day.transpose()? })
    }

    fn wants(&self, record: &Record) -> bool {
        !self.corrected || record.correction.is_some()
    }
}

/// Walks through the list, the newest first, until `each` has seen enough.
struct Walk<'a> {
    stores: &'a Stores,
    filter: Filter,
    before: Option<RecordId>,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn new(stores: &'a Stores, filter: Filter) -> Self {
        Self { stores, filter, before: None, ended: false }
    }

    /// The next records; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Record>>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let page = self.stores.records.page(&self.filter, self.before, PAGE).await.map_err(failed)?;
        (self.before, self.ended) = (page.next, page.next.is_none());
        Ok(Some(page.records))
    }
}

async fn list(stores: &Stores, which: &Which, limit: usize, json: bool) -> Result<(), Failure> {
    let mut walk = Walk::new(stores, which.filter()?);
    let mut left = limit;
    if !json {
        say(format_args!("{:<24} {:<20} {:<24} {:>6}  {:<36} FILE", "TIME", "MODEL", "LABEL", "SCORE", "ID"));
    }
    while left > 0
        && let Some(records) = walk.next().await?
    {
        for record in records.iter().filter(|record| which.wants(record)).take(left) {
            left -= 1;
            if json {
                say(line(record));
            } else {
                say(row(record));
            }
        }
    }
    Ok(())
}

fn line(record: &Record) -> String {
    serde_json::to_string(&RecordBody::from(record)).expect("texts and numbers are always JSON")
}

fn row(record: &Record) -> String {
    let label = if record.outcome == "ok" { record.label() } else { &record.outcome };
    let really = record.correction.as_ref().map(|one| format!(" (really: {})", one.label)).unwrap_or_default();
    let score = record.labels.first().map(|one| format!("{:.3}", one.score)).unwrap_or_default();
    format!(
        "{:<24} {:<20} {:<24} {score:>6}  {:<36} {}",
        rfc_3339(record.id.millis()),
        record.model,
        format!("{label}{really}"),
        record.id,
        record.file_name
    )
}

async fn export(
    stores: &Stores,
    which: &Which,
    format: Format,
    output: Option<&Path>,
    pictures: Option<&Path>,
) -> Result<(), Failure> {
    let unwritten = |path: &Path, error: &std::io::Error| Failure::new(NO, format!("{}: {error}", path.display()));
    // Before anything is written over: a store that is away leaves the last export as it is.
    let mut walk = Walk::new(stores, which.filter()?);
    let mut next = walk.next().await?;
    let mut file = match output {
        Some(path) => Some((path, BufWriter::new(File::create(path).map_err(|error| unwritten(path, &error))?))),
        None => None,
    };
    if let Some(folder) = pictures {
        std::fs::create_dir_all(folder).map_err(|error| unwritten(folder, &error))?;
    }
    let mut write = |text: &str| match &mut file {
        Some((path, file)) => writeln!(file, "{text}").map_err(|error| unwritten(path, &error)),
        None => {
            say(text);
            Ok(())
        }
    };
    if format == Format::Csv {
        write(CSV_HEAD)?;
    }
    while let Some(records) = next {
        for record in records.iter().filter(|record| which.wants(record)) {
            match format {
                Format::Jsonl => write(&line(record))?,
                Format::Csv => write(&csv(record))?,
            }
            if let (Some(folder), Some(store)) = (pictures, &stores.pictures)
                && let Some(bytes) = store.get(record.id, Kind::Picture).await.map_err(failed)?
            {
                let path = folder.join(picture_name(record));
                std::fs::write(&path, &bytes).map_err(|error| unwritten(&path, &error))?;
            }
        }
        next = walk.next().await?;
    }
    if let Some((path, mut file)) = file {
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(|error| unwritten(path, &error))?;
    }
    Ok(())
}

/// By the id and by what the bytes are: what the sender called it is none of a file system's business.
fn picture_name(record: &Record) -> String {
    let plain = !record.format.is_empty() && record.format.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain { format!("{}.{}", record.id, record.format) } else { record.id.to_string() }
}
