//! This crate knows how to keep what pictures were answered: records and pictures, in stores that may be away.
//!
//! Why: whoever runs a model wants to see what it said, correct it, and train the next one with that; and no picture may wait
//! for a database.
//! A record goes through a queue in memory into the [`History`]'s spool on the disk (from then on it cannot be lost), and from
//! there into the stores that the [`Settings`] name: SQLite and a folder, or Cassandra and an S3-compatible store. All of them
//! keep the contract of [`store`], which one set of tests holds them to.
//! Not here: pages and HTTP (`gateway`), printing (`cli`).

pub mod cassandra;
mod day;
mod delivery;
pub mod export;
pub mod file_name;
pub mod folder;
mod history;
mod metrics;
mod record;
pub mod s3;
pub mod settings;
mod spool;
pub mod sqlite;
pub mod store;
mod stores;
mod sweep;
#[cfg(test)]
mod testing;

pub use day::{Day, rfc_3339};
pub use history::{History, State};
pub use record::{Correction, IdError, Record, RecordId, Score, Source, Timing};
pub use settings::Settings;
pub use spool::Entry;
pub use store::{Filter, Kind, LARGEST_PAGE, Migration, Page, StoreError, Usage};
pub use stores::Stores;
