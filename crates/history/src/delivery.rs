//! Brings what the spool has into the stores, again and again until they have it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::metrics::{Counts, Outcome};
use crate::record::Record;
use crate::spool::{Batch, Entry, Spool};
use crate::store::{Answer, Kind, StoreError};
use crate::stores::Stores;

/// Entries that go into the stores together: one transaction.
const MOST: usize = 64;
/// Memory of these, about.
const BYTES: usize = 32 << 20;
/// Pictures on their way at the same time: a disk and a network both like company.
const PICTURES: usize = 8;
/// Between attempts: at first, and at most. A store that came back is noticed within the latter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// After so long without anything new, the open file of the spool is ended.
const QUIET: Duration = Duration::from_secs(1);
/// How often an entry is offered that the stores refuse, while they answer otherwise.
const OFFERS: u32 = 5;

/// What stands in the way; none while records go through.
pub(crate) type Trouble = Arc<Mutex<Option<String>>>;

/// The task that carries.
pub(crate) struct Delivery {
    pub(crate) spool: Spool,
    pub(crate) stores: Stores,
    pub(crate) counts: Counts,
    pub(crate) trouble: Trouble,
    pub(crate) timeout: Duration,
}

impl Delivery {
    /// Carries for ever.
    pub(crate) async fn run(self) {
        // The first entry is not the first to learn that the store is away.
        self.note(in_time(self.timeout, self.stores.check()).await.err());
        loop {
            let spool = self.spool.clone();
            let read = tokio::task::spawn_blocking(move || spool.batch(MOST, BYTES)).await;
            match read {
                Ok(Ok(Some(batch))) => self.carry(batch).await,
                Ok(Ok(None)) => self.wait().await,
                Ok(Err(error)) => {
                    error!(%error, "the history's spool cannot be read");
                    *self.trouble.lock() = Some(format!("the spool cannot be read: {error}"));
                    tokio::time::sleep(BACKOFF.1).await;
                }
                Err(error) => {
                    error!(%error, "the history's spool could not be read");
                    tokio::time::sleep(BACKOFF.1).await;
                }
            }
        }
    }

    async fn wait(&self) {
        if tokio::time::timeout(QUIET, self.spool.grown()).await.is_ok() {
            return;
        }
        self.spool.seal();
        let looking = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                self.note(in_time(self.timeout, self.stores.check()).await.err());
            }
        };
        tokio::select! {
            () = self.spool.grown() => {}
            () = looking => {}
        }
    }

    /// Comes back when the batch is in the stores, or when nothing of it will be as things are: then it is handed out again.
    async fn carry(&self, mut batch: Batch) {
        let (mut pause, mut attempt) = (BACKOFF.0, 0);
        loop {
            attempt += 1;
            let done = self.offer(&batch.entries, batch.maybe_again).await;
            self.note(done.as_ref().err().cloned());
            match done {
                Ok(_) => {
                    self.counts.records(Outcome::Stored, batch.entries.len() as u64);
                    return self.spool.stored(&batch);
                }
                // One of them may keep the others from being stored.
                Err(StoreError::Broken { .. }) if attempt >= OFFERS && self.answer().await => {
                    if self.one_by_one(&batch).await {
                        self.note(None);
                        return self.spool.stored(&batch);
                    }
                    // With what has come meanwhile, which tells whether it is the entries or the store.
                    self.spool.again(&batch);
                    return tokio::time::sleep(BACKOFF.1).await;
                }
                Err(_) => {}
            }
            // Some of it may have arrived.
            batch.maybe_again = true;
            tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * jitter())).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Whether the stores answer at all.
    async fn answer(&self) -> bool {
        in_time(self.timeout, self.stores.check()).await.is_ok()
    }

    /// Stores those that can be, and sets the others aside. False, and nothing is set aside, when the stores took none of them: then it
    /// is not the entries, and they wait.
    async fn one_by_one(&self, batch: &Batch) -> bool {
        let (mut refused, mut taken) = (Vec::new(), 0);
        for entry in &batch.entries {
            match self.offered(entry).await {
                Ok(count) => taken += count,
                Err(_) => refused.push(entry),
            }
        }
        if taken == 0 && !refused.is_empty() {
            return false;
        }
        self.counts.records(Outcome::Stored, (batch.entries.len() - refused.len()) as u64);
        for entry in refused {
            self.to_the_last(entry).await;
        }
        true
    }

    /// How many records came of it, or why it is refused by stores that answer.
    async fn offered(&self, entry: &Entry) -> Result<usize, String> {
        let mut pause = BACKOFF.0;
        loop {
            match self.offer(std::slice::from_ref(entry), true).await {
                Ok(count) => return Ok(count),
                Err(StoreError::Broken { reason, .. }) if self.answer().await => return Err(reason),
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Offers an entry some times more.
    async fn to_the_last(&self, entry: &Entry) {
        let (mut pause, mut refused) = (BACKOFF.0, 1);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
            match self.offered(entry).await {
                Ok(_) => return self.counts.records(Outcome::Stored, 1),
                Err(reason) => {
                    refused += 1;
                    if refused >= OFFERS && self.set_aside(entry, &reason).await {
                        return;
                    }
                }
            }
        }
    }

    async fn set_aside(&self, entry: &Entry, reason: &str) -> bool {
        error!(id = %entry.record.id, reason, "the history's store refuses a record: it is kept beside the spool");
        let (spool, copy) = (self.spool.clone(), entry.clone());
        let kept = tokio::task::spawn_blocking(move || spool.set_aside(&copy)).await;
        let done = matches!(kept, Ok(Ok(())));
        if done {
            self.counts.records(Outcome::SetAside, 1);
        }
        done
    }

    /// Pictures first: what the list shows is there. How many records were put: those that were deleted are not.
    async fn offer(&self, entries: &[Entry], maybe_again: bool) -> Result<usize, StoreError> {
        let begin = Instant::now();
        let gone = if maybe_again {
            let ids: Vec<_> = entries.iter().map(|entry| entry.record.id).collect();
            in_time(self.timeout, self.stores.records.deleted(&ids)).await?
        } else {
            Vec::new()
        };
        let wanted: Vec<&Entry> = entries.iter().filter(|entry| !gone.contains(&entry.record.id)).collect();
        if let Some(pictures) = &self.stores.pictures {
            let parts = wanted.iter().flat_map(|entry| {
                let id = entry.record.id;
                [(id, Kind::Picture, &entry.picture), (id, Kind::Preview, &entry.preview)]
            });
            let puts = parts.filter_map(|(id, kind, bytes)| bytes.clone().map(|bytes| (id, kind, bytes)));
            let puts = puts.map(|(id, kind, bytes)| in_time(self.timeout, pictures.put(id, kind, bytes)));
            let puts: Vec<_> = puts.collect();
            stream::iter(puts).buffer_unordered(PICTURES).try_collect::<()>().await?;
        }
        let records: Vec<Record> = wanted.iter().map(|entry| entry.record.clone()).collect();
        if !records.is_empty() {
            in_time(self.timeout, self.stores.records.put(&records)).await?;
        }
        if maybe_again {
            self.without_pictures_of_the_deleted(&records).await?;
        }
        self.counts.took("put", begin.elapsed().as_secs_f64());
        Ok(records.len())
    }

    /// What was in the stores already may have been deleted while it was put once more: no picture of it must stay.
    async fn without_pictures_of_the_deleted(&self, records: &[Record]) -> Result<(), StoreError> {
        let Some(pictures) = &self.stores.pictures else { return Ok(()) };
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        for id in in_time(self.timeout, self.stores.records.deleted(&ids)).await? {
            in_time(self.timeout, pictures.delete(id)).await?;
        }
        Ok(())
    }

    /// Says what changed, once.
    fn note(&self, trouble: Option<StoreError>) {
        self.counts.store_up.set(i64::from(trouble.is_none()));
        let now = trouble.map(|error| error.to_string());
        let mut before = self.trouble.lock();
        match (&*before, &now) {
            (None, Some(reason)) => warn!(reason, "the history's records wait in the spool"),
            (Some(_), None) => info!("the history's stores take records again"),
            _ => {}
        }
        *before = now;
    }
}

/// 0 to 1: gateways that lost the same store do not all come back in the same moment.
fn jitter() -> f64 {
    f64::from(crate::record::RecordId::generate().bytes()[15]) / 255.0
}

/// What comes of it within `limit`.
pub(crate) async fn in_time<T>(limit: Duration, work: Answer<'_, T>) -> Result<T, StoreError> {
    let late = || StoreError::Away { store: "store", reason: format!("no answer within {limit:?}") };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests;
