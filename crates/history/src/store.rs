//! What every store must be able to do. `tests/contract` holds all of them to it.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::day::Day;
use crate::record::{Correction, Record, RecordId};

/// Most records of a page.
pub const LARGEST_PAGE: usize = 200;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It may work later: not reached, too slow, busy.
    #[error("the history's {store} cannot be reached: {reason}")]
    Away {
        /// `database` or `store of pictures`.
        store: &'static str,
        /// The driver's words.
        reason: String,
    },
    /// Its tables are not those of this program.
    #[error("the history's tables have version {found}, this program needs {needed}: {advice}")]
    Version {
        /// 0 when there are none.
        found: u32,
        /// Of this program.
        needed: u32,
        /// What to do.
        advice: &'static str,
    },
    /// What was asked cannot be, now or later.
    #[error("the history's {store}: {reason}")]
    Broken {
        /// `database` or `store of pictures`.
        store: &'static str,
        /// The driver's words.
        reason: String,
    },
}

/// What a store answers, sooner or later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Which records are wanted. An empty one wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Answers of this model.
    pub model: Option<String>,
    /// With this best label.
    pub label: Option<String>,
    /// Of this day, by UTC.
    pub day: Option<Day>,
}

/// A part of the list, the newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// At most as many as were asked for.
    pub records: Vec<Record>,
    /// Where the next part begins: at the first record older than this one. None at the end.
    pub next: Option<RecordId>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes of them and of their pictures.
    pub bytes: u64,
}

/// Versions of the tables, before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// 0 when there were none.
    pub from: u32,
    /// Of this program.
    pub to: u32,
}

/// Keeps records.
pub trait Records: Send + Sync + 'static {
    /// Makes or renews the tables. Doing it again changes nothing.
    fn migrate(&self) -> Answer<'_, Migration>;

    /// Keeps records. They are durable when this answers; those that are there already stay as they are, with their
    /// corrections, and those that were deleted stay away.
    fn put<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()>;

    /// Which of these were deleted.
    fn deleted<'a>(&'a self, ids: &'a [RecordId]) -> Answer<'a, Vec<RecordId>>;

    /// Records older than `before`, the newest first; at most `limit`, which is at most [`LARGEST_PAGE`].
    fn page<'a>(&'a self, filter: &'a Filter, before: Option<RecordId>, limit: usize) -> Answer<'a, Page>;

    /// One record.
    fn get(&self, id: RecordId) -> Answer<'_, Option<Record>>;

    /// Sets or takes back what a person says of it. Whether there is such a record.
    fn correct(&self, id: RecordId, correction: Option<Correction>) -> Answer<'_, bool>;

    /// Deletes records, for good: storing them again does not bring them back.
    fn delete<'a>(&'a self, ids: &'a [RecordId]) -> Answer<'a, ()>;

    /// The oldest records, with what each counts in [`Usage::bytes`].
    fn oldest(&self, limit: usize) -> Answer<'_, Vec<(RecordId, u64)>>;

    /// Forgets records of days before this one, at most some thousand at a time. Whether any may be left. A store that ages
    /// by itself has nothing to do.
    fn expire(&self, before: Day) -> Answer<'_, bool>;

    /// How much there is.
    fn usage(&self) -> Answer<'_, Usage>;

    /// Whether it answers and its tables are those of this program.
    fn check(&self) -> Answer<'_, ()>;
}

/// Which picture of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it was sent.
    Picture,
    /// A small JPEG of it.
    Preview,
}

/// Keeps pictures.
pub trait Pictures: Send + Sync + 'static {
    /// Keeps one; durable when this answers. The same one again changes nothing.
    fn put(&self, id: RecordId, kind: Kind, bytes: Bytes) -> Answer<'_, ()>;

    /// One, when it is there.
    fn get(&self, id: RecordId, kind: Kind) -> Answer<'_, Option<Bytes>>;

    /// Deletes both kinds. What is not there is no failure.
    fn delete(&self, id: RecordId) -> Answer<'_, ()>;

    /// Deletes all of the days before this one.
    fn expire(&self, before: Day) -> Answer<'_, ()>;

    /// Whether it answers.
    fn check(&self) -> Answer<'_, ()>;
}

/// Where a picture lies: its day's folder, so that a day can be deleted without asking what is in it.
pub(crate) fn place(id: RecordId, kind: Kind) -> String {
    match kind {
        Kind::Picture => format!("{}/{id}", id.day()),
        Kind::Preview => format!("{}/{id}.preview", id.day()),
    }
}
