//! This crate knows how to keep API keys in a file that does not tell them.
//!
//! Why a plain SHA-256 and not a slow hash such as Argon2: a key is 256 random bits, not a password. Nobody can try enough of them
//! to find one by its hash, however quick the hash is, and every request must be checked.
//! Promises: a key is random, told once, and in no file; hashes are compared in constant time; a file is replaced as a whole or not
//! at all, and two commands that change it wait for each other; what is wrong in a file is named.
//! Not here: what a scope opens (`gateway`, `server`, `chassis`).

mod file;
mod secret;

pub use file::{Entry, FileError, Keys, Refusal, change, read, read_secret};
pub use secret::{Secret, SecretError, Session};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Ask models.
    #[serde(rename = "infer")]
    Infer,
    /// See what was asked and answered.
    #[serde(rename = "history.read")]
    HistoryRead,
    /// Remove some of it.
    #[serde(rename = "history.delete")]
    HistoryDelete,
    /// Change what is served.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Infer, Self::HistoryRead, Self::HistoryDelete, Self::Admin];

    /// As it stands in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::HistoryRead => "history.read",
            Self::HistoryDelete => "history.delete",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scope| scope.name() == text);
        known.ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            format!("scope is {text:?}, allowed is one of {all}")
        })
    }
}
