//! Prints what the one event of a request costs the thread that serves it: processor time for each event.
//!
//! `cargo run --release -p chassis --example log_cost [json|text] 2>/dev/null`

use std::time::{Duration, Instant};

use chassis::logs::{Format, Requests, Settings};

/// Below what may wait for the writer, so that no line is dropped.
const EVENTS: u32 = 8_000;

/// The cheapest of many rounds is the one that was disturbed least.
const ROUNDS: u32 = 20;

fn own_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn main() -> Result<(), String> {
    let format = if std::env::args().nth(1).as_deref() == Some("text") { Format::Text } else { Format::Json };
    let settings = Settings { filter: "info".to_owned(), format, requests: Requests::All };
    let logs = chassis::logs::start(&settings)?;
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let begin = own_time();
        for n in 0..EVENTS {
            tracing::info!(
                request_id = "01a1fd65e6e673bbbc3eed40b7fa5029",
                caller = %std::net::Ipv4Addr::LOCALHOST,
                kind = "classify",
                model = "fashion-mnist",
                outcome = "ok",
                reason = Option::<&str>::None,
                decode_ms = 0.119,
                queue_ms = 0.194,
                device_ms = 0.248,
                total_ms = f64::from(n) / 1e3,
                rows = 1,
                batch_size = 1,
                bytes_in = 451,
                "call"
            );
        }
        best = best.min((own_time() - begin) / EVENTS);
        // The writer catches up, so that the next round finds room.
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            std::thread::yield_now();
        }
    }
    drop(logs);
    println!("{format:?}: {:.2} us an event", best.as_secs_f64() * 1e6);
    Ok(())
}
