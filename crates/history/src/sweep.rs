//! Lets the oldest go: by age, and when there is too much.

use std::time::Duration;

use tracing::{info, warn};

use crate::day::Day;
use crate::metrics::{Counts, Outcome};
use crate::record::RecordId;
use crate::store::StoreError;
use crate::stores::Stores;

/// Records that go in one step.
const STEP: usize = 200;

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
    loop {
        if let Err(error) = once(&stores, &counts, retention).await {
            // What must go goes when the stores are back.
            warn!(%error, "the history could not be swept");
        }
        tokio::time::sleep(every).await;
    }
}

/// Lets go what must go now.
///
/// # Errors
/// Those of the stores; what was done is done.
pub(crate) async fn once(stores: &Stores, counts: &Counts, retention: Retention) -> Result<(), StoreError> {
    if retention.days > 0 {
        // A record of the last moment of a day stays for `days` whole days.
        let before = Day::today().back(retention.days);
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
