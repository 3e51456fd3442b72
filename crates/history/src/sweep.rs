//! Lets the oldest go: by age, and when there is too much.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::day::Day;
use crate::metrics::{Counts, Outcome};
use crate::record::RecordId;
use crate::store::{Filter, StoreError, Usage};
use crate::stores::Stores;

/// Records that go in one step.
const STEP: usize = 200;
/// Steps after which it is asked once more how much there is: other gateways make room as well.
const STEPS: usize = 10;

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
    let mut calendar = None;
    loop {
        if let Err(error) = look(&stores, &counts, retention, &mut calendar).await {
            // What must go goes when the stores are back.
            warn!(%error, "the history could not be swept");
        }
        tokio::time::sleep(every).await;
    }
}

async fn look(
    stores: &Stores,
    counts: &Counts,
    retention: Retention,
    calendar: &mut Option<Calendar>,
) -> Result<(), StoreError> {
    let calendar = match calendar {
        Some(calendar) => calendar,
        none => none.insert(Calendar::of(stores).await?),
    };
    once(stores, counts, retention, calendar.today(Day::today(), Instant::now())).await
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
    /// At the start the newest record is all that is known: a machine may begin with a clock that is years ahead.
    async fn of(stores: &Stores) -> Result<Self, StoreError> {
        let newest =
            stores.records.page(&Filter::default(), None, 1).await?.records.first().map(|record| record.id.day());
        Ok(Self::new(newest.unwrap_or_else(Day::today), Instant::now()))
    }

    fn new(day: Day, at: Instant) -> Self {
        Self { day, at, doubted: None }
    }

    /// The day that the clock says; the one that it is at least by the time that has passed, while it says what cannot be.
    fn today(&mut self, said: Day, now: Instant) -> Day {
        let passed = now.duration_since(self.at).as_secs() / DAY.as_secs();
        let least = self.day.ahead(u32::try_from(passed).unwrap_or(u32::MAX));
        // For the midnight between.
        let latest = least.ahead(1);
        let doubted = *self.doubted.get_or_insert(now);
        if said <= latest || now.duration_since(doubted) >= DOUBT {
            *self = Self::new(said, now);
            return said;
        }
        if doubted == now {
            let last = self.day;
            warn!(%said, %last, "the clock is days ahead of the last day that is known: nothing of the history goes by its age for a day");
        }
        least
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
    let excess = |usage: &Usage| if retention.bytes > 0 { usage.bytes.saturating_sub(retention.bytes) } else { 0 };
    let (mut too_much, mut gone) = (excess(&usage), 0);
    for step in 1.. {
        if too_much == 0 {
            break;
        }
        let (ids, freed) = make_room(stores, too_much).await?;
        if ids == 0 {
            break;
        }
        gone += ids;
        too_much = too_much.saturating_sub(freed);
        if step % STEPS == 0 {
            too_much = too_much.min(excess(&stores.records.usage().await?));
        }
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

/// One step of the oldest that are too much; how many went, and the bytes that they had.
async fn make_room(stores: &Stores, too_much: u64) -> Result<(usize, u64), StoreError> {
    let oldest = stores.records.oldest(STEP).await?;
    let mut freed = 0;
    let going = oldest.iter().take_while(|(_, weight)| {
        let wanted = freed < too_much;
        freed += if wanted { *weight } else { 0 };
        wanted
    });
    let ids: Vec<RecordId> = going.map(|(id, _)| *id).collect();
    if let Some(pictures) = &stores.pictures {
        for id in &ids {
            pictures.delete(*id).await?;
        }
    }
    if !ids.is_empty() {
        stores.records.delete(&ids).await?;
    }
    Ok((ids.len(), freed))
}

#[cfg(test)]
mod tests;
