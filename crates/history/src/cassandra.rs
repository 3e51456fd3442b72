//! Records in Cassandra, for gateways of many hosts.
//!
//! How records lie: a partition is a day's share, one of [`SHARDS`], chosen by random bits of the id. So no partition grows with
//! the history's age, one day's writes go to many nodes, and the newest records are the first rows of a few known partitions.
//! At 1.6 million records a day a partition has 100,000 rows of about 1 kB, which is where Cassandra is at ease; ten times
//! that still works. Lists by model or label are tables of ids, partitioned by value, day and shard; `days` tells on which days
//! a value occurs, so that a rare label is found without walking through all days.
//! Why again is once: a record is written with its own moment as the timestamp, a delete and a correction with a later one, so
//! Cassandra itself lets the later one win, whatever comes again and in which order.
//! Promises: what `put` has acknowledged is on a quorum of the copies. Age is Cassandra's own work (TTL, time windows).
//! Not here: pictures (`s3`, `folder`).

pub(crate) mod expiry;
mod schema;
mod shelf;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use scylla::client::PoolSize;
use scylla::client::caching_session::CachingSession;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;
use tokio::sync::OnceCell;
use uuid::Uuid;

use self::shelf::Shelf;
use crate::day::{Day, millis_now};
use crate::record::{Correction, Record, RecordId};
use crate::settings::Cassandra as Settings;
use crate::store::{Answer, Filter, LARGEST_PAGE, Migration, Page, Records, StoreError, Usage};

/// Parts of a day. Part of the tables' form: another number needs another version of them.
const SHARDS: u8 = 16;
/// Rows on their way at the same time.
const AT_ONCE: usize = 32;
/// How often a statement is sent that Cassandra has forgotten, and the pause before the second time; it doubles each time.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(10);
/// Days that are remembered to be known.
const KNOWN: usize = 4_096;

/// Records in Cassandra.
#[derive(Clone)]
pub struct Cassandra(Arc<Shared>);

struct Shared {
    settings: Settings,
    /// After so many whole days records go; 0 is never.
    keep_days: u32,
    timeout: Duration,
    session: OnceCell<CachingSession>,
    /// Rows of `days` that this process has written.
    known: Mutex<std::collections::HashSet<(Shelf, Day)>>,
    counted: usage::Counted,
}

fn away(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Away { store: "database", reason: error.to_string() }
}

fn broken(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Broken { store: "database", reason: error.to_string() }
}

fn failed(error: ExecutionError) -> StoreError {
    let attempt = match &error {
        ExecutionError::LastAttemptError(attempt) => attempt,
        ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => first_attempt,
        ExecutionError::BadQuery(_) => return broken(&error),
        _ => return away(&error),
    };
    match attempt {
        RequestAttemptError::DbError(DbError::Invalid, said)
            if said.contains("unconfigured table") || said.contains("does not exist") =>
        {
            schema::none()
        }
        RequestAttemptError::DbError(DbError::Invalid | DbError::SyntaxError, _)
        | RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_) => broken(&error),
        _ => away(&error),
    }
}

fn is_forgotten(error: &ExecutionError) -> bool {
    matches!(error, ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Unprepared { .. }, _)))
}

impl Cassandra {
    /// Does not connect yet: the database may come later.
    #[must_use]
    pub fn new(settings: &Settings, keep_days: u32, timeout: Duration) -> Self {
        Self(Arc::new(Shared {
            settings: settings.clone(),
            keep_days,
            timeout,
            session: OnceCell::new(),
            known: Mutex::default(),
            counted: usage::Counted::default(),
        }))
    }

    async fn session(&self) -> Result<&CachingSession, StoreError> {
        let settings = &self.0.settings;
        let connect = || async {
            let mut builder = SessionBuilder::new()
                .known_nodes(&settings.nodes)
                .connection_timeout(self.0.timeout)
                // One connection carries thousands of requests at once.
                .pool_size(PoolSize::PerHost(std::num::NonZeroUsize::MIN))
                .disallow_shard_aware_port(true);
            if !settings.user.is_empty() {
                builder = builder.user(&settings.user, &settings.password);
            }
            let session = builder.build().await.map_err(|error| away(&error))?;
            Ok(CachingSession::from(session, 128))
        };
        self.0.session.get_or_try_init(connect).await
    }

    /// Runs a statement in which `KS` stands for the keyspace.
    async fn run(&self, text: &str, values: &(dyn SerializeRow + Sync)) -> Result<QueryResult, StoreError> {
        let text = text.replace("KS.", &format!("{}.", self.0.settings.keyspace));
        let mut statement = Statement::new(text);
        // All of them are: see above.
        statement.set_is_idempotent(true);
        statement.set_request_timeout(Some(self.0.timeout));
        let session = self.session().await?;
        for tried in 0..TRIES {
            match session.execute_unpaged(statement.clone(), values).await {
                // Cassandra 5 forgets a statement for a moment when two connections prepare it at the same time; the driver
                // prepares it again, once, at the same time as its neighbours do.
                Err(error) if is_forgotten(&error) => {
                    let pause = PAUSE * 2_u32.pow(tried);
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                }
                done => return done.map_err(failed),
            }
        }
        session.execute_unpaged(statement, values).await.map_err(failed)
    }

    async fn rows<R>(&self, text: &str, values: &(dyn SerializeRow + Sync)) -> Result<Vec<R>, StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let result = self.run(text, values).await?;
        let rows = result.into_rows_result().map_err(|error| broken(&error))?;
        let rows = rows.rows::<R>().map_err(|error| broken(&error))?;
        rows.collect::<Result<_, _>>().map_err(|error| broken(&error))
    }

    /// Seconds that a record has left; 0 is for ever, none is that its time is over.
    fn ttl(&self, id: RecordId) -> Option<i32> {
        expiry::ttl(id.day(), self.0.keep_days, (millis_now() / 1_000) as i64)
    }

    /// Lists first, then the record: what a list names and is not there yet is passed over.
    async fn put_one(&self, record: &Record) -> Result<(), StoreError> {
        let id = record.id;
        // Its time was over before it came.
        let Some(ttl) = self.ttl(id) else { return Ok(()) };
        let (day, shard, moment) = place(id);
        let lists = Shelf::all_of(record).into_iter().map(|shelf| async move {
            self.note_day(&shelf, id, ttl).await?;
            if shelf.is_everything() {
                return Ok(());
            }
            self.run(
                "INSERT INTO KS.lists (kind, value, day, shard, id) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?",
                &(shelf.kind(), shelf.value(), day, shard, id.uuid(), moment, ttl),
            )
            .await
            .map(drop)
        });
        try_join_all(lists).await?;
        let plain = Record { correction: None, ..record.clone() };
        let body = serde_json::to_string(&plain).expect("texts and numbers are always JSON");
        let weight = i64::try_from(record.kept_bytes + body.len() as u64).unwrap_or(i64::MAX);
        self.run(
            "INSERT INTO KS.records (day, shard, id, body, bytes) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?",
            &(day, shard, id.uuid(), body, weight, moment, ttl),
        )
        .await?;
        self.0.counted.changed(id.day());
        Ok(())
    }

    async fn note_day(&self, shelf: &Shelf, id: RecordId, ttl: i32) -> Result<(), StoreError> {
        let key = (shelf.clone(), id.day());
        if self.0.known.lock().contains(&key) {
            return Ok(());
        }
        self.run(
            "INSERT INTO KS.days (kind, value, day) VALUES (?, ?, ?) USING TTL ?",
            &(shelf.kind(), shelf.value(), place(id).0, ttl),
        )
        .await?;
        let mut known = self.0.known.lock();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(key);
        Ok(())
    }

    /// Days of a shelf, the newest first, from this one on.
    async fn days(&self, shelf: &Shelf, from: Day) -> Result<Vec<Day>, StoreError> {
        let rows: Vec<(i32,)> = self
            .rows(
                "SELECT day FROM KS.days WHERE kind = ? AND value = ? AND day <= ?",
                &(shelf.kind(), shelf.value(), from.0 as i32),
            )
            .await?;
        Ok(rows.into_iter().map(|(day,)| Day(day.max(0).unsigned_abs())).collect())
    }

    /// The newest ids of a shelf's day before `end`, at most `most`.
    async fn newest(&self, shelf: &Shelf, day: Day, end: RecordId, most: usize) -> Result<Vec<RecordId>, StoreError> {
        let number = day.0 as i32;
        let limit = most as i32;
        let parts = (0..SHARDS as i8).map(|shard| async move {
            let rows: Vec<(Uuid,)> = if shelf.is_everything() {
                let text = "SELECT id FROM KS.records WHERE day = ? AND shard = ? AND id < ? LIMIT ?";
                self.rows(text, &(number, shard, end.uuid(), limit)).await?
            } else {
                let text =
                    "SELECT id FROM KS.lists WHERE kind = ? AND value = ? AND day = ? AND shard = ? AND id < ? LIMIT ?";
                self.rows(text, &(shelf.kind(), shelf.value(), number, shard, end.uuid(), limit)).await?
            };
            Ok::<_, StoreError>(rows)
        });
        let parts = try_join_all(parts).await?;
        let mut ids: Vec<RecordId> = parts.into_iter().flatten().filter_map(|(id,)| RecordId::from_uuid(id)).collect();
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids.truncate(most);
        Ok(ids)
    }

    async fn record(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let (day, shard, _) = place(id);
        let rows: Vec<(Option<String>, Option<String>)> = self
            .rows(
                "SELECT body, correction FROM KS.records WHERE day = ? AND shard = ? AND id = ?",
                &(day, shard, id.uuid()),
            )
            .await?;
        // A correction that came after a delete is no record.
        let Some((Some(body), correction)) = rows.into_iter().next() else { return Ok(None) };
        let mut record: Record = serde_json::from_str(&body).map_err(|error| broken(&error))?;
        record.correction =
            correction.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| broken(&error))?;
        Ok(Some(record))
    }

    async fn delete_one(&self, id: RecordId) -> Result<(), StoreError> {
        let (day, shard, _) = place(id);
        let later = later(id);
        let found = self.record(id).await?;
        self.run("INSERT INTO KS.deleted (id) VALUES (?)", &(id.uuid(),)).await?;
        self.run(
            "DELETE FROM KS.records USING TIMESTAMP ? WHERE day = ? AND shard = ? AND id = ?",
            &(later, day, shard, id.uuid()),
        )
        .await?;
        let shelves = found.iter().flat_map(Shelf::all_of).filter(|shelf| !shelf.is_everything());
        let lists = shelves.map(|shelf| async move {
            self.run(
                "DELETE FROM KS.lists USING TIMESTAMP ? WHERE kind = ? AND value = ? AND day = ? AND shard = ? AND id = ?",
                &(later, shelf.kind(), shelf.value(), day, shard, id.uuid()),
            )
            .await
        });
        try_join_all(lists).await?;
        self.0.counted.changed(id.day());
        Ok(())
    }
}

/// Day, shard, and the moment as Cassandra's timestamp, in microseconds.
fn place(id: RecordId) -> (i32, i8, i64) {
    (id.day().0 as i32, id.shard(SHARDS) as i8, id.millis() as i64 * 1_000)
}

/// A timestamp after the record's own, whatever the clocks of two hosts say.
fn later(id: RecordId) -> i64 {
    let now = millis_now() as i64 * 1_000;
    now.max(id.millis() as i64 * 1_000 + 1)
}

impl Records for Cassandra {
    fn migrate(&self) -> Answer<'_, Migration> {
        Box::pin(schema::migrate(self))
    }

    fn put<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()> {
        Box::pin(async move {
            let puts: Vec<_> = records.iter().map(|record| self.put_one(record)).collect();
            stream::iter(puts).buffer_unordered(AT_ONCE).try_collect().await
        })
    }

    fn deleted<'a>(&'a self, ids: &'a [RecordId]) -> Answer<'a, Vec<RecordId>> {
        Box::pin(async move {
            let asks: Vec<_> = ids
                .iter()
                .map(|id| async move {
                    let rows: Vec<(Uuid,)> = self.rows("SELECT id FROM KS.deleted WHERE id = ?", &(id.uuid(),)).await?;
                    Ok::<_, StoreError>((!rows.is_empty()).then_some(*id))
                })
                .collect();
            let found: Vec<Option<RecordId>> = stream::iter(asks).buffered(AT_ONCE).try_collect().await?;
            Ok(found.into_iter().flatten().collect())
        })
    }

    fn page<'a>(&'a self, filter: &'a Filter, before: Option<RecordId>, limit: usize) -> Answer<'a, Page> {
        Box::pin(async move {
            let shelf = Shelf::of_filter(filter);
            // One more tells whether there are more.
            let wanted = limit.min(LARGEST_PAGE) + 1;
            let from = before.map_or(Day(i32::MAX as u32), RecordId::day);
            let days = match filter.day {
                Some(day) => vec![day],
                None => self.days(&shelf, from).await?,
            };
            let mut records = Vec::new();
            for day in days {
                let mut end = before.map_or(day.end_id(), |before| before.min(day.end_id()));
                while records.len() < wanted {
                    let most = wanted - records.len();
                    let ids = self.newest(&shelf, day, end, most).await?;
                    let asks: Vec<_> = ids.iter().map(|id| self.record(*id)).collect();
                    let found: Vec<Option<Record>> = stream::iter(asks).buffered(AT_ONCE).try_collect().await?;
                    records.extend(found.into_iter().flatten());
                    match ids.last() {
                        Some(last) if ids.len() == most => end = *last,
                        _ => break,
                    }
                }
            }
            let more = records.len() == wanted;
            records.truncate(wanted - 1);
            let next = records.last().map(|last: &Record| last.id).filter(|_| more);
            Ok(Page { records, next })
        })
    }

    fn get(&self, id: RecordId) -> Answer<'_, Option<Record>> {
        Box::pin(self.record(id))
    }

    fn correct(&self, id: RecordId, correction: Option<Correction>) -> Answer<'_, bool> {
        Box::pin(async move {
            let Some(ttl) = self.ttl(id) else { return Ok(false) };
            if self.record(id).await?.is_none() {
                return Ok(false);
            }
            let text = correction.map(|one| serde_json::to_string(&one).expect("texts are always JSON"));
            let (day, shard, _) = place(id);
            self.run(
                "UPDATE KS.records USING TIMESTAMP ? AND TTL ? SET correction = ? WHERE day = ? AND shard = ? AND id = ?",
                &(later(id), ttl, text, day, shard, id.uuid()),
            )
            .await?;
            Ok(true)
        })
    }

    fn delete<'a>(&'a self, ids: &'a [RecordId]) -> Answer<'a, ()> {
        Box::pin(async move {
            let deletes: Vec<_> = ids.iter().map(|id| self.delete_one(*id)).collect();
            stream::iter(deletes).buffer_unordered(AT_ONCE).try_collect().await
        })
    }

    fn oldest(&self, limit: usize) -> Answer<'_, Vec<(RecordId, u64)>> {
        Box::pin(async move {
            let mut days = self.days(&Shelf::Everything, Day(i32::MAX as u32)).await?;
            days.reverse();
            let mut found = Vec::new();
            for day in days {
                let parts = (0..SHARDS as i8).map(|shard| async move {
                    let text = "SELECT id, bytes FROM KS.records WHERE day = ? AND shard = ? ORDER BY id ASC LIMIT ?";
                    self.rows::<(Uuid, Option<i64>)>(text, &(day.0 as i32, shard, limit as i32)).await
                });
                let rows = try_join_all(parts).await?.into_iter().flatten();
                let mut oldest: Vec<(RecordId, u64)> = rows
                    .filter_map(|(id, bytes)| Some((RecordId::from_uuid(id)?, bytes?.max(0).unsigned_abs())))
                    .collect();
                oldest.sort_unstable();
                found.extend(oldest);
                if found.len() >= limit {
                    break;
                }
            }
            found.truncate(limit);
            Ok(found)
        })
    }

    fn expire(&self, _: Day) -> Answer<'_, bool> {
        // By the TTL that each row was written with.
        Box::pin(async { Ok(false) })
    }

    fn usage(&self) -> Answer<'_, Usage> {
        Box::pin(usage::count(self))
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move { schema::expect(schema::version(self).await?) })
    }
}
