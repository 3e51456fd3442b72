//! Lets the oldest go: by age, and when there is too much.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::day::Day;
use crate::metrics::{Counts, Outcome};
use crate::record::RecordId;
use crate::store::StoreError;
use crate::stores::Stores;

/// Records that go in one step.
const STEP: usize = 200;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a clock that has jumped ahead is not believed. A machine that has slept is as far ahead, and only waits a day longer.
const DOUBT: Duration = DAY;

/// What may stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Whole days; 0 is for ever.
    pub(crate) days: u32,
    /// 0 is no limit.
    pub(crate) bytes: u64,
}

/// Looks again and again.
pub(crate) async fn run(stores: Stores, counts: Counts, retention: Retention, every: Duration) {
    let mut calendar = Calendar::new(Day::today(), Instant::now());
    loop {
        let today = calendar.today(Day::today(), Instant::now());
        if let Err(error) = once(&stores, &counts, retention, today).await {
            // What must go goes when the stores are back.
            warn!(%error, "the history could not be swept");
        }
        tokio::time::sleep(every).await;
    }
}

/// Which day it is, for what cannot be undone: by a clock that jumps months ahead everything would be old.
struct Calendar {
    /// What was believed last, and when.
    day: Day,
    at: Instant,
    /// Since when the clock says what cannot be.
    doubted: Option<Instant>,
}

impl Calendar {
    fn new(day: Day, at: Instant) -> Self {
        Self { day, at, doubted: None }
    }

    /// The day that the clock says; the one that can be by the time that has passed, while it says a later one.
    fn today(&mut self, said: Day, now: Instant) -> Day {
        let passed = now.duration_since(self.at).as_secs() / DAY.as_secs();
        // One more, for the midnight between.
        let latest = self.day.ahead(u32::try_from(passed).unwrap_or(u32::MAX).saturating_add(1));
        let doubted = *self.doubted.get_or_insert(now);
        if said <= latest || now.duration_since(doubted) >= DOUBT {
            *self = Self::new(said, now);
            return said;
        }
        if doubted == now {
            warn!(%said, %latest, "the clock has jumped ahead: nothing of the history goes by its age for a day");
        }
        latest
    }
}

/// Lets go what must go now.
///
/// # Errors
/// Those of the stores; what was done is done.
pub(crate) async fn once(stores: &Stores, counts: &Counts, retention: Retention, today: Day) -> Result<(), StoreError> {
    if retention.days > 0 {
        // A record of the last moment of a day stays for `days` whole days.
        let before = today.back(retention.days);
        // Pictures first: what the list shows without a picture says so, a picture without a record would stay for ever.
        if let Some(pictures) = &stores.pictures {
            pictures.expire(before).await?;
        }
        while stores.records.expire(before).await? {}
    }
    let mut usage = stores.records.usage().await?;
    let mut too_much = if retention.bytes > 0 { usage.bytes.saturating_sub(retention.bytes) } else { 0 };
    let mut gone = 0;
    while too_much > 0 {
        let oldest = stores.records.oldest(STEP).await?;
        let mut freed = 0;
        let going = oldest.iter().take_while(|(_, weight)| {
            let wanted = freed < too_much;
            freed += if wanted { *weight } else { 0 };
            wanted
        });
        let ids: Vec<RecordId> = going.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            break;
        }
        if let Some(pictures) = &stores.pictures {
            for id in &ids {
                pictures.delete(*id).await?;
            }
        }
        stores.records.delete(&ids).await?;
        gone += ids.len();
        too_much = too_much.saturating_sub(freed);
    }
    if gone > 0 {
        info!(records = gone, limit = retention.bytes, "the oldest records of the history went for room");
        counts.records(Outcome::Expired, gone as u64);
        usage = stores.records.usage().await?;
    }
    counts.kept_records.set(usage.records as i64);
    counts.kept_bytes.set(usage.bytes as i64);
    Ok(())
}

#[cfg(test)]
mod tests;
