//! How much there is, without counting everything each time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use parking_lot::Mutex;

use super::shelf::Shelf;
use super::{Cassandra, SHARDS};
use crate::day::Day;
use crate::store::{StoreError, Usage};

/// A day that this process has not changed is counted again after so long: other gateways change it, too.
const BELIEVED: Duration = Duration::from_secs(6 * 60 * 60);

/// What was counted, day by day.
#[derive(Default)]
pub(super) struct Counted(Mutex<HashMap<Day, (Instant, Usage)>>);

impl Counted {
    /// The day must be counted again.
    pub(super) fn changed(&self, day: Day) {
        self.0.lock().remove(&day);
    }
}

/// Counts each day's shards, one after the other: a history of a year is no burst.
pub(super) async fn count(store: &Cassandra) -> Result<Usage, StoreError> {
    let days = store.days(&Shelf::Everything, Day(i32::MAX as u32)).await?;
    let (mut all, today) = (Usage::default(), Day::today());
    store.0.counted.0.lock().retain(|day, _| days.contains(day));
    for day in days {
        let known = store.0.counted.0.lock().get(&day).copied();
        let usage = match known {
            // Today and yesterday are being written.
            Some((at, usage)) if day < today.back(1) && at.elapsed() < BELIEVED => usage,
            _ => {
                let usage = count_day(store, day).await?;
                store.0.counted.0.lock().insert(day, (Instant::now(), usage));
                usage
            }
        };
        all = Usage { records: all.records + usage.records, bytes: all.bytes + usage.bytes };
    }
    Ok(all)
}

async fn count_day(store: &Cassandra, day: Day) -> Result<Usage, StoreError> {
    let parts = (0..SHARDS as i8).map(|shard| async move {
        // Of `bytes`, which a row has that is a record.
        let text = "SELECT COUNT(bytes), SUM(bytes) FROM KS.records WHERE day = ? AND shard = ?";
        store.rows::<(i64, Option<i64>)>(text, &(day.0 as i32, shard)).await
    });
    let rows = try_join_all(parts).await?.into_iter().flatten();
    Ok(rows.fold(Usage::default(), |all, (records, bytes)| Usage {
        records: all.records + records.max(0).unsigned_abs(),
        bytes: all.bytes + bytes.unwrap_or(0).max(0).unsigned_abs(),
    }))
}
