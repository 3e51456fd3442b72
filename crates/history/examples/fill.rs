//! Fills a store and times it: `fill sqlite FOLDER COUNT` or `fill cassandra HOST:PORT COUNT`.
//!
//! Prints one JSON object: records a second as they go in, milliseconds of pages at the end, and the process's memory on the way.
//! `scripts/bench history` runs it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use history::cassandra::Cassandra;
use history::sqlite::Sqlite;
use history::store::Records;
use history::{Day, Filter, Record, RecordId, Score, Source, StoreError, Timing};

/// Records that go in together, as the gateway's delivery does it.
const GROUP: usize = 64;
/// Groups at a time: Cassandra has company, SQLite one writer.
const AT_ONCE: usize = 4;
/// Days on which the records lie.
const DAYS: u32 = 30;
const LABELS: [&str; 10] =
    ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

fn record(number: usize, count: usize) -> Record {
    let begin = Day::today().back(DAYS - 1).first_id().millis();
    let now = RecordId::generate().millis();
    // Spread over the days, the oldest first, with random bits of their own.
    let millis = begin + (now - begin) * number as u64 / count as u64;
    let id = RecordId::of(millis);
    let rare = number.is_multiple_of(10_007);
    Record {
        id,
        request_id: format!("0190{number:028x}"),
        caller: "anonymous@127.0.0.1".to_owned(),
        source: Source::Api,
        model: if number.is_multiple_of(5) { "mnist" } else { "fashion-mnist" }.to_owned(),
        version: "1".to_owned(),
        file_name: format!("picture-{number}.png"),
        format: "png".to_owned(),
        bytes: 400,
        sha256: "0".repeat(64),
        width: 28,
        height: 28,
        labels: (0..5)
            .map(|place| Score {
                label: if rare && place == 0 { "rare".to_owned() } else { LABELS[(number + place) % 10].to_owned() },
                index: place as i32,
                score: 0.5 / (place + 1) as f64,
            })
            .collect(),
        timing: Timing { decode_us: 100, queue_us: 100, run_us: 300, total_us: 1_000 },
        outcome: "ok".to_owned(),
        kept_bytes: 400,
        has_preview: false,
        correction: None,
    }
}

/// Megabytes of this process.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The median of eleven, in milliseconds.
async fn page(store: &dyn Records, filter: Filter, before: Option<RecordId>) -> Result<f64, StoreError> {
    let mut times = Vec::new();
    for _ in 0..11 {
        let begin = Instant::now();
        let page = store.page(&filter, before, 24).await?;
        assert!(!page.records.is_empty(), "the page has records");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[5])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, place, count] = words.as_slice() else { return Err("usage: fill sqlite|cassandra PLACE COUNT".into()) };
    let count: usize = count.parse()?;
    let store: Arc<dyn Records> = match kind.as_str() {
        "sqlite" => Arc::new(Sqlite::open(&Path::new(place).join("history.sqlite3"))?),
        "cassandra" => {
            let settings =
                history::settings::Cassandra { nodes: vec![place.clone()], ..history::Settings::default().cassandra };
            Arc::new(Cassandra::new(&settings, 90, Duration::from_secs(60)))
        }
        other => return Err(format!("{other} is no store").into()),
    };
    store.migrate().await?;
    let at_once = if kind == "sqlite" { 1 } else { AT_ONCE };
    let (begin, mut stored, mut memories) = (Instant::now(), 0, vec![memory()]);
    while stored < count {
        let groups: Vec<Vec<Record>> = (0..at_once)
            .map(|place| {
                let first = stored + place * GROUP;
                (first..(first + GROUP).min(count)).map(|number| record(number, count)).collect()
            })
            .collect();
        futures_util::future::try_join_all(groups.iter().map(|group| store.put(group))).await?;
        let before = stored;
        stored = (stored + at_once * GROUP).min(count);
        if stored * 10 / count > before * 10 / count {
            memories.push(memory());
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let store = store.as_ref();
    let usage = store.usage().await?;
    let some = |text: &str| Some(text.to_owned());
    let deep = Some(Day::today().back(DAYS - 2).first_id());
    let day = Some(Day::today().back(DAYS / 2));
    let pages = [
        ("newest", page(store, Filter::default(), None).await?),
        ("oldest days", page(store, Filter::default(), deep).await?),
        ("of a model", page(store, Filter { model: some("mnist"), ..Filter::default() }, None).await?),
        ("of a rare label", page(store, Filter { label: some("rare"), ..Filter::default() }, None).await?),
        (
            "of a model, label and day",
            page(store, Filter { model: some("mnist"), label: some("Sandal"), day }, None).await?,
        ),
    ];
    memories.push(memory());
    let pages: Vec<String> = pages.iter().map(|(name, millis)| format!("\"{name}\": {millis:.2}")).collect();
    println!(
        "{{\"records\": {}, \"per_second\": {:.0}, \"pages\": {{{}}}, \"memory_mb\": {memories:?}}}",
        usage.records,
        count as f64 / seconds,
        pages.join(", ")
    );
    Ok(())
}
