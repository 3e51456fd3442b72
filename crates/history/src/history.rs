//! The history as a gateway has it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tracing::warn;

use crate::cassandra::expiry;
use crate::day::Day;
use crate::delivery::{Delivery, Trouble, in_time};
use crate::metrics::Counts;
use crate::record::{Correction, Record, RecordId};
use crate::settings::{Settings, StoreKind};
use crate::spool::{Entry, Limits, Spool};
use crate::store::{Answer, Filter, Kind, Page, StoreError};
use crate::stores::{Stores, make};
use crate::sweep::{self, Retention};

/// How often it is looked for what other processes have left.
const ADOPT: Duration = Duration::from_secs(30);

/// Takes records, brings them into the stores, and shows them.
///
/// It has threads of its own: whatever the stores do, the threads that answer requests do not wait for them.
pub struct History {
    stores: Stores,
    spool: Spool,
    counts: Counts,
    trouble: Trouble,
    timeout: Duration,
    /// None once it is closed.
    runtime: Mutex<Option<Runtime>>,
    handle: tokio::runtime::Handle,
}

/// How it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Bytes of this process that wait for the stores.
    pub waiting_bytes: u64,
    /// Why they wait; none while the stores take them.
    pub trouble: Option<String>,
}

impl History {
    /// Starts it; none when the settings say that nothing is kept.
    ///
    /// # Errors
    /// A sentence that names the setting. A database that is away is none.
    pub fn start(settings: &Settings) -> Result<Option<Self>, String> {
        if settings.store == StoreKind::None {
            return Ok(None);
        }
        let place = settings.place().map_err(|error| error.to_string())?;
        make(&place)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            // Readers, a writer and pictures; each waits for a disk most of the time.
            .max_blocking_threads(16)
            .thread_name("history")
            .enable_all()
            .build()
            .map_err(|error| format!("the history's threads cannot be started: {error}"))?;
        let stores = {
            let _entered = runtime.enter();
            Stores::open(settings)?
        };
        if settings.store == StoreKind::Cassandra && expiry::is_cut(Day::today(), settings.days) {
            warn!(
                days = settings.days,
                "records go before `history.days` are over: rows in Cassandra expire on 2038-01-18 at the latest"
            );
        }
        let counts = Counts::new();
        let limits = Limits {
            queue_bytes: settings.queue.as_u64() as usize,
            disk_bytes: settings.spool.as_u64(),
            pictures: stores.pictures.is_some(),
        };
        let spool_folder = place.join("spool");
        let spool = Spool::open(&spool_folder, limits, counts.clone())
            .map_err(|error| format!("the history's spool {}: {error}", spool_folder.display()))?;
        let trouble = Trouble::default();
        let delivery = Delivery {
            spool: spool.clone(),
            stores: stores.clone(),
            counts: counts.clone(),
            trouble: Arc::clone(&trouble),
            timeout: settings.timeout,
        };
        runtime.spawn(delivery.run());
        let retention = Retention { days: settings.days, bytes: settings.bytes.as_u64() };
        runtime.spawn(sweep::run(stores.clone(), counts.clone(), retention, settings.sweep));
        runtime.spawn(adopt(spool.clone()));
        let handle = runtime.handle().clone();
        let timeout = settings.timeout;
        Ok(Some(Self { stores, spool, counts, trouble, timeout, runtime: Mutex::new(Some(runtime)), handle }))
    }

    /// Adds what is counted to the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.counts.register(registry);
    }

    /// Takes a record, without waiting for anything. The receipt says whether it can no longer be lost; it need not be
    /// waited for.
    pub fn keep(&self, entry: Entry) -> oneshot::Receiver<bool> {
        self.spool.keep(entry)
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> State {
        State { waiting_bytes: self.spool.waiting_bytes(), trouble: self.trouble.lock().clone() }
    }

    /// A part of the list.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn page(&self, filter: Filter, before: Option<RecordId>, limit: usize) -> Result<Page, StoreError> {
        let stores = self.stores.clone();
        let limit_of = self.timeout;
        self.on("page", async move { in_time(limit_of, stores.records.page(&filter, before, limit)).await }).await
    }

    /// One record.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let (stores, limit) = (self.stores.clone(), self.timeout);
        self.on("get", async move { in_time(limit, stores.records.get(id)).await }).await
    }

    /// A picture, when it is there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn picture(&self, id: RecordId, kind: Kind) -> Result<Option<Bytes>, StoreError> {
        let (stores, limit) = (self.stores.clone(), self.timeout);
        let work = async move {
            match &stores.pictures {
                Some(pictures) => in_time(limit, pictures.get(id, kind)).await,
                None => Ok(None),
            }
        };
        self.on("picture", work).await
    }

    /// Sets or takes back what a person says of it. Whether there is such a record.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn correct(&self, id: RecordId, correction: Option<Correction>) -> Result<bool, StoreError> {
        let (stores, limit) = (self.stores.clone(), self.timeout);
        self.on("correct", async move { in_time(limit, stores.records.correct(id, correction)).await }).await
    }

    /// Deletes a record and its pictures. Whether there was one.
    ///
    /// # Errors
    /// Those of the stores; then it may be done again.
    pub async fn delete(&self, id: RecordId) -> Result<bool, StoreError> {
        let (stores, limit) = (self.stores.clone(), self.timeout);
        let work = async move {
            if in_time(limit, stores.records.get(id)).await?.is_none() {
                return Ok(false);
            }
            // Pictures first: as long as the record is there, it can be deleted once more.
            if let Some(pictures) = &stores.pictures {
                in_time(limit, pictures.delete(id)).await?;
            }
            let ids = [id];
            let deleting: Answer<'_, ()> = stores.records.delete(&ids);
            in_time(limit, deleting).await.map(|()| true)
        };
        self.on("delete", work).await
    }

    /// Runs on the history's own threads, also when the caller leaves meanwhile.
    async fn on<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begin = Instant::now();
        let done = self.handle.spawn(work).await;
        self.counts.took(operation, begin.elapsed().as_secs_f64());
        done.unwrap_or_else(|_| Err(StoreError::Away { store: "store", reason: "the gateway stops".to_owned() }))
    }

    /// Writes what is in line to the disk, and gives the stores up to `limit` for what waits; the rest follows at the next start.
    /// Blocks.
    pub fn close(&self, limit: Duration) {
        self.spool.close();
        let end = Instant::now() + limit;
        while self.spool.waiting_bytes() > 0 && self.trouble.lock().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = self.spool.waiting_bytes();
        if left > 0 {
            warn!(bytes = left, "records of the history wait in the spool for the next start");
        }
        self.end();
    }

    fn end(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        // A runtime must not be dropped where asynchronous code runs, and this may be there.
        self.end();
    }
}

/// Takes over what other gateways of this folder have left when they went for good.
async fn adopt(spool: Spool) {
    loop {
        tokio::time::sleep(ADOPT).await;
        let taking = spool.clone();
        match tokio::task::spawn_blocking(move || taking.adopt()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => warn!(%error, "the spools of other processes cannot be taken over"),
        }
    }
}
