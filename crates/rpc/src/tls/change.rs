//! What became of files that have changed.

use std::time::SystemTime;

use super::TlsError;

/// What became of files that have changed.
#[derive(Debug)]
pub enum TlsChange {
    /// New connections use what is in them. With the time at which this side's certificate ends, if it has one.
    Used {
        /// The first end of its chain.
        expires: Option<SystemTime>,
    },
    /// They cannot be used; new connections get what was there before.
    Kept(TlsError),
}

impl TlsChange {
    pub(super) fn of(read: Result<Option<SystemTime>, TlsError>) -> Self {
        read.map_or_else(Self::Kept, |expires| Self::Used { expires })
    }
}
