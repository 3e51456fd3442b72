//! Records in SQLite: one file, no server, for the gateways of one host.
//!
//! Why it is quick however many records there are: an id begins with its moment, so every list is a range of an index that
//! ends with the id, read from its newest end.
//! Promises: what `put` has acknowledged survives a power cut (`synchronous=FULL`); several processes may use the file.
//! Not here: pictures (`folder`).

mod schema;
#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tracing::{info, warn};

use crate::day::{Day, millis_now};
use crate::record::{Correction, Record, RecordId};
use crate::store::{Answer, Filter, LARGEST_PAGE, Migration, Page, Records, StoreError, Usage};

/// For a lock that another process holds: longer than its largest transaction takes on a slow disk.
const BUSY: Duration = Duration::from_secs(5);
/// Connections that are kept for readers. More readers than these open their own: that takes a fraction of a millisecond.
const READERS: usize = 4;
/// Records that one step of `expire` forgets: some tens of milliseconds, in which nobody else writes.
const STEP: usize = 1_000;
/// How long it is remembered what was deleted: longer than a gateway stays away that has the record in its spool.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Records in a file.
#[derive(Clone)]
pub struct Sqlite(Arc<Shared>);

struct Shared {
    file: PathBuf,
    /// None until it could be opened.
    writer: Mutex<Option<Opened>>,
    readers: Mutex<Vec<Opened>>,
    /// What opening did; told once.
    opened: Mutex<Option<Migration>>,
}

/// A connection, and to which file: the path may be another one's by now, and what is written to a file without a name is lost.
struct Opened {
    connection: Connection,
    inode: Inode,
}

/// Device and number.
type Inode = (u64, u64);

impl Sqlite {
    /// Opens the file, or makes it, with its tables. One that is there and cannot be used now, because the disk is full or somebody has
    /// locked it or it is damaged, is tried again whenever it is asked, as a database over the network would be.
    ///
    /// # Errors
    /// When it cannot be made, or was made by a newer program.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let open = || {
            // So that it is made; others that make it at the same moment are waited for.
            drop(connect(file, OpenFlags::SQLITE_OPEN_CREATE)?);
            let mut writer = Opened::new(file)?;
            let done = schema::migrate(&mut writer.connection)?;
            Ok((writer, done))
        };
        match open() {
            Ok((writer, done)) => Ok(Self::with(file, Some(writer), Some(done))),
            Err(error @ StoreError::Away { .. }) if file.exists() => {
                warn!(file = %file.display(), %error, "the history's file cannot be used now: records wait in the spool");
                Ok(Self::with(file, None, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the file as it is.
    ///
    /// # Errors
    /// When there is none, or its tables are not those of this program.
    pub fn open_existing(file: &Path) -> Result<Self, StoreError> {
        let writer = Opened::new(file)?;
        schema::check(&writer.connection)?;
        Ok(Self::with(file, Some(writer), None))
    }

    fn with(file: &Path, writer: Option<Opened>, opened: Option<Migration>) -> Self {
        Self(Arc::new(Shared {
            file: file.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            opened: Mutex::new(opened),
        }))
    }

    /// Runs on a thread that may wait.
    fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&shared)).await;
            done.unwrap_or_else(|error| Err(StoreError::Broken { store: "database", reason: error.to_string() }))
        })
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        self.on_thread(|shared| {
            let inode = inode(&shared.file)?;
            let kept = shared.readers.lock().pop().filter(|kept| kept.inode == inode);
            let reader = kept.map_or_else(|| shared.reading(), Ok)?;
            let done = work(&reader.connection).map_err(failed);
            let mut readers = shared.readers.lock();
            if readers.len() < READERS {
                readers.push(reader);
            }
            done
        })
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        self.on_thread(|shared| {
            let mut writer = shared.writer.lock();
            let connection = shared.writing(&mut writer)?;
            // Immediate: a transaction that first reads and then finds the file locked could not wait for it.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            // A newer program may have changed them meanwhile.
            schema::check(&transaction)?;
            let done = work(&transaction).map_err(failed)?;
            transaction.commit().map_err(failed)?;
            Ok(done)
        })
    }
}

impl Shared {
    /// The connection that writes to the file that is there now.
    fn writing<'a>(&self, writer: &'a mut Option<Opened>) -> Result<&'a mut Connection, StoreError> {
        let inode = inode(&self.file)?;
        let same = writer.take().filter(|writer| writer.inode == inode);
        let opened = match same {
            Some(same) => same,
            None => {
                let mut new = Opened::new(&self.file)?;
                let Migration { from, to } = schema::migrate(&mut new.connection)?;
                info!(file = %self.file.display(), from, to, "the history's file is opened anew");
                new
            }
        };
        Ok(&mut writer.insert(opened).connection)
    }

    /// A connection that reads from the file that is there now. One that is empty has no tables until somebody writes, which may
    /// well wait for an answer from here.
    fn reading(&self) -> Result<Opened, StoreError> {
        let reader = Opened::new(&self.file)?;
        if schema::is_older(&reader.connection)? {
            self.writing(&mut self.writer.lock())?;
        }
        Ok(reader)
    }
}

impl Opened {
    /// Only what is there: a file that was taken away comes back, and one that is made in its place would be in the way.
    fn new(file: &Path) -> Result<Self, StoreError> {
        // Before it is opened: where it is replaced in between, the next look opens it once more.
        let inode = inode(file)?;
        Ok(Self { connection: connect(file, OpenFlags::empty())?, inode })
    }
}

fn inode(file: &Path) -> Result<Inode, StoreError> {
    let told = fs::metadata(file)
        .map_err(|error| StoreError::Away { store: "database", reason: format!("{}: {error}", file.display()) })?;
    Ok((told.dev(), told.ino()))
}

fn connect(file: &Path, more: OpenFlags) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        write_ahead(&connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(failed)
}

/// Writes go to a log of their own. A new file is turned over to it once, and whoever opens it at that moment is told that it
/// is busy: SQLite does not wait there, since two that wait for each other would do so for ever.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// What may pass, and what nobody mends by asking again. Damage and missing rights are a person's to mend, and then it goes on.
fn failed(error: rusqlite::Error) -> StoreError {
    use ErrorCode as Code;
    let passing = matches!(
        error.sqlite_error_code(),
        Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::DiskFull | Code::CannotOpen | Code::SystemIoFailure)
            | Some(Code::OutOfMemory | Code::ReadOnly | Code::PermissionDenied | Code::AuthorizationForStatementDenied)
            | Some(Code::DatabaseCorrupt | Code::NotADatabase | Code::FileLockingProtocolFailed | Code::SchemaChanged)
    );
    let reason = error.to_string();
    if passing {
        StoreError::Away { store: "database", reason }
    } else {
        StoreError::Broken { store: "database", reason }
    }
}

/// What a row says, as a record.
fn record(body: &str, correction: Option<String>) -> rusqlite::Result<Record> {
    let unreadable = |error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    };
    let mut record: Record = serde_json::from_str(body).map_err(unreadable)?;
    record.correction = correction.map(|text| serde_json::from_str(&text)).transpose().map_err(unreadable)?;
    Ok(record)
}

/// What counts against the limit of bytes.
fn weight(record: &Record, body: &str) -> i64 {
    i64::try_from(record.kept_bytes + body.len() as u64).unwrap_or(i64::MAX)
}

/// Deletes records and counts them off. `remember`: storing them again must not bring them back.
fn take_away(transaction: &Transaction<'_>, ids: &[RecordId], remember: bool) -> rusqlite::Result<()> {
    let mut take = transaction.prepare_cached("DELETE FROM records WHERE id = ?1 RETURNING bytes")?;
    let mut note = transaction.prepare_cached("INSERT OR REPLACE INTO deleted (id, at_ms) VALUES (?1, ?2)")?;
    let now = millis_now();
    let (mut records, mut bytes) = (0_i64, 0_i64);
    for id in ids {
        if let Some(weight) = take.query_row([id.bytes()], |row| row.get::<_, i64>(0)).optional()? {
            records += 1;
            bytes += weight;
        }
        if remember {
            note.execute(params![id.bytes(), now as i64])?;
        }
    }
    transaction.execute("UPDATE totals SET records = records - ?1, bytes = bytes - ?2", [records, bytes])?;
    // Some more than come, so that they become fewer, and not all at once.
    let forgotten = now.saturating_sub(REMEMBERED.as_millis() as u64);
    let forget = "DELETE FROM deleted WHERE id IN (SELECT id FROM deleted WHERE at_ms < ?1 LIMIT ?2)";
    transaction.prepare_cached(forget)?.execute([forgotten as i64, STEP as i64])?;
    Ok(())
}

fn ids_of(rows: &mut rusqlite::Rows<'_>) -> rusqlite::Result<Vec<RecordId>> {
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        ids.extend(RecordId::from_slice(row.get_ref(0)?.as_blob()?));
    }
    Ok(ids)
}

impl Records for Sqlite {
    fn migrate(&self) -> Answer<'_, Migration> {
        self.on_thread(|shared| {
            let done = schema::migrate(shared.writing(&mut shared.writer.lock())?)?;
            Ok(shared.opened.lock().take().unwrap_or(done))
        })
    }

    fn put<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()> {
        let rows: Vec<(Record, String)> = records
            .iter()
            .map(|record| {
                let plain = Record { correction: None, ..record.clone() };
                let body = serde_json::to_string(&plain).expect("texts and numbers are always JSON");
                (plain, body)
            })
            .collect();
        self.write(move |transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO records (id, model, label, bytes, body) SELECT ?1, ?2, ?3, ?4, ?5 \
                 WHERE NOT EXISTS (SELECT 1 FROM deleted WHERE id = ?1) ON CONFLICT (id) DO NOTHING",
            )?;
            let (mut count, mut bytes) = (0_i64, 0_i64);
            for (record, body) in &rows {
                let weight = weight(record, body);
                let new = insert.execute(params![record.id.bytes(), record.model, record.label(), weight, body])?;
                count += new as i64;
                bytes += weight * new as i64;
            }
            transaction.execute("UPDATE totals SET records = records + ?1, bytes = bytes + ?2", [count, bytes])?;
            Ok(())
        })
    }

    fn deleted<'a>(&'a self, ids: &'a [RecordId]) -> Answer<'a, Vec<RecordId>> {
        let ids = ids.to_vec();
        self.read(move |connection| {
            let mut find = connection.prepare_cached("SELECT 1 FROM deleted WHERE id = ?1")?;
            let mut found = Vec::new();
            for id in ids {
                if find.exists([id.bytes()])? {
                    found.push(id);
                }
            }
            Ok(found)
        })
    }

    fn page<'a>(&'a self, filter: &'a Filter, before: Option<RecordId>, limit: usize) -> Answer<'a, Page> {
        let (filter, limit) = (filter.clone(), limit.min(LARGEST_PAGE));
        self.read(move |connection| {
            let mut query = "SELECT body, correction FROM records WHERE id < ?1 AND id >= ?2".to_owned();
            let end = filter.day.map_or([0xff; 16], |day| *day.end_id().bytes());
            let end = before.map_or(end, |before| end.min(*before.bytes()));
            let begin = filter.day.map_or([0; 16], |day| *day.first_id().bytes());
            let (end, begin) = (end.to_vec(), begin.to_vec());
            let mut values: Vec<&dyn rusqlite::ToSql> = vec![&end, &begin];
            for (column, value) in [("model", &filter.model), ("label", &filter.label)] {
                if let Some(value) = value {
                    values.push(value);
                    query.push_str(&format!(" AND {column} = ?{}", values.len()));
                }
            }
            // One more tells whether there are more.
            query.push_str(&format!(" ORDER BY id DESC LIMIT {}", limit + 1));
            let mut query = connection.prepare_cached(&query)?;
            let rows = query.query_map(values.as_slice(), |row| record(&row.get::<_, String>(0)?, row.get(1)?))?;
            let mut records = rows.collect::<Result<Vec<_>, _>>()?;
            let more = records.len() > limit;
            records.truncate(limit);
            let next = records.last().map(|last| last.id).filter(|_| more);
            Ok(Page { records, next })
        })
    }

    fn get(&self, id: RecordId) -> Answer<'_, Option<Record>> {
        self.read(move |connection| {
            let mut find = connection.prepare_cached("SELECT body, correction FROM records WHERE id = ?1")?;
            find.query_row([id.bytes()], |row| record(&row.get::<_, String>(0)?, row.get(1)?)).optional()
        })
    }

    fn correct(&self, id: RecordId, correction: Option<Correction>) -> Answer<'_, bool> {
        self.write(move |transaction| {
            let text = correction.map(|one| serde_json::to_string(&one).expect("texts are always JSON"));
            let changed =
                transaction.execute("UPDATE records SET correction = ?2 WHERE id = ?1", params![id.bytes(), text])?;
            Ok(changed > 0)
        })
    }

    fn delete<'a>(&'a self, ids: &'a [RecordId]) -> Answer<'a, ()> {
        let ids = ids.to_vec();
        self.write(move |transaction| take_away(transaction, &ids, true))
    }

    fn oldest(&self, limit: usize) -> Answer<'_, Vec<(RecordId, u64)>> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT id, bytes FROM records ORDER BY id LIMIT ?1")?;
            let mut rows = query.query([limit as i64])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let weight = row.get::<_, i64>(1)?.max(0).unsigned_abs();
                found.extend(RecordId::from_slice(row.get_ref(0)?.as_blob()?).map(|id| (id, weight)));
            }
            Ok(found)
        })
    }

    fn expire(&self, before: Day) -> Answer<'_, bool> {
        self.write(move |transaction| {
            let begin = *before.first_id().bytes();
            let ids = {
                let mut old =
                    transaction.prepare_cached("SELECT id FROM records WHERE id < ?1 ORDER BY id LIMIT ?2")?;
                ids_of(&mut old.query(params![begin, STEP as i64])?)?
            };
            take_away(transaction, &ids, false)?;
            Ok(ids.len() == STEP)
        })
    }

    fn usage(&self) -> Answer<'_, Usage> {
        self.read(|connection| {
            connection.query_row("SELECT records, bytes FROM totals", [], |row| {
                let number = |place| row.get::<_, i64>(place).map(|number| number.max(0).unsigned_abs());
                Ok(Usage { records: number(0)?, bytes: number(1)? })
            })
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        self.on_thread(|shared| schema::check(&shared.reading()?.connection))
    }
}
