//! The file of keys: one table for each, with what is kept of it, who has it, and what it opens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Scope;
use crate::secret::{Hash, Secret, SecretError, Session};

/// Most characters of a name: it stands in every log line.
const NAME: usize = 64;

const HEAD: &str = "# API keys of Outboard, written by `outboard keys`. The keys themselves are not in here: a lost one is made anew.\n";

/// A key of a file.
#[derive(Clone)]
pub struct Entry {
    /// Who has it; unique in its file. `a-z A-Z 0-9 . _ -`, up to 64 characters.
    pub name: String,
    /// What it opens.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created: SystemTime,
    /// From when on it opens nothing.
    pub expires: Option<SystemTime>,
    hash: Hash,
}

/// The keys of a file.
#[derive(Clone, Default)]
pub struct Keys(Vec<Entry>);

/// Why a key does not open what it was sent for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] SecretError),
    /// It is in no entry.
    #[error("the key is not known here")]
    Unknown,
    /// Its time is over.
    #[error("the key `{name}` has expired")]
    Expired {
        /// Whose it was.
        name: String,
    },
    /// It opens other things.
    #[error("the key `{name}` is not for {scope}, it is for {}", names(scopes))]
    Scope {
        /// Whose it is.
        name: String,
        /// What it was sent for.
        scope: Scope,
        /// What it is for.
        scopes: BTreeSet<Scope>,
    },
}

impl Refusal {
    /// The name for a metric's label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Unknown => "unknown_key",
            Self::Expired { .. } => "expired_key",
            Self::Scope { .. } => "scope",
        }
    }
}

fn names(scopes: &BTreeSet<Scope>) -> String {
    let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no file of keys.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What stands where.
        reason: String,
    },
    /// The change that was asked for cannot be made.
    #[error("{0}")]
    Change(String),
}

/// A file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, rename = "key")]
    keys: BTreeMap<String, WrittenKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    sha256: String,
    scopes: Vec<Scope>,
    #[serde(with = "humantime_serde")]
    created: SystemTime,
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    expires: Option<SystemTime>,
}

impl Entry {
    /// Whether its time is over.
    #[must_use]
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether it opens this.
    ///
    /// # Errors
    /// What it opens instead.
    pub fn check(&self, scope: Scope) -> Result<(), Refusal> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Refusal::Scope { name: self.name.clone(), scope, scopes: self.scopes.clone() })
    }
}

impl Keys {
    /// Every key, by name.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Whose key was sent, if it opens `scope`; any key does where that is `None`.
    ///
    /// # Errors
    /// Why it does not.
    pub fn admit(&self, key: &str, scope: Option<Scope>, now: SystemTime) -> Result<&Entry, Refusal> {
        let entry = self.of_secret(&Secret::parse(key)?, now)?;
        scope.map_or(Ok(()), |scope| entry.check(scope))?;
        Ok(entry)
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// When it is nobody's, or its time is over.
    pub fn of_secret(&self, secret: &Secret, now: SystemTime) -> Result<&Entry, Refusal> {
        self.find(&secret.hash(), now)
    }

    /// Whose key a cookie stands for.
    ///
    /// # Errors
    /// As [`Keys::of_secret`].
    pub fn of_session(&self, session: &Session, now: SystemTime) -> Result<&Entry, Refusal> {
        self.find(&session.hash(), now)
    }

    // Looks at every entry, so that the time does not tell which one it was.
    fn find(&self, hash: &Hash, now: SystemTime) -> Result<&Entry, Refusal> {
        let found = self.0.iter().fold(None, |found, entry| if entry.hash.is(hash) { Some(entry) } else { found });
        match found {
            None => Err(Refusal::Unknown),
            Some(entry) if entry.has_expired(now) => Err(Refusal::Expired { name: entry.name.clone() }),
            Some(entry) => Ok(entry),
        }
    }

    /// Adds one.
    ///
    /// # Errors
    /// When the name is taken, or none.
    pub fn add(
        &mut self,
        name: &str,
        secret: &Secret,
        scopes: BTreeSet<Scope>,
        created: SystemTime,
        expires: Option<SystemTime>,
    ) -> Result<(), FileError> {
        check_name(name).map_err(FileError::Change)?;
        if self.0.iter().any(|entry| entry.name == name) {
            return Err(FileError::Change(format!(
                "there is a key `{name}` already: revoke it, or choose another name"
            )));
        }
        self.0.push(Entry { name: name.to_owned(), scopes, created, expires, hash: secret.hash() });
        self.0.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(())
    }

    /// Takes one away.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn revoke(&mut self, name: &str) -> Result<(), FileError> {
        let before = self.0.len();
        self.0.retain(|entry| entry.name != name);
        if self.0.len() == before {
            return Err(FileError::Change(format!("there is no key `{name}`")));
        }
        Ok(())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let entry = |(name, key): (String, WrittenKey)| {
            check_name(&name)?;
            let hash = Hash::decode(&key.sha256);
            let hash = hash.ok_or_else(|| format!("`key.{name}.sha256` is not 64 hexadecimal digits"))?;
            let scopes = key.scopes.into_iter().collect();
            Ok(Entry { name, scopes, created: key.created, expires: key.expires, hash })
        };
        written.keys.into_iter().map(entry).collect::<Result<_, String>>().map(Self)
    }

    fn print(&self) -> Result<String, toml::ser::Error> {
        let keys = self.0.iter().map(|entry| {
            let key = WrittenKey {
                sha256: entry.hash.encode(),
                scopes: entry.scopes.iter().copied().collect(),
                created: entry.created,
                expires: entry.expires,
            };
            (entry.name.clone(), key)
        });
        let written = Written { keys: keys.collect() };
        Ok(format!("{HEAD}\n{}", toml::to_string(&written)?))
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match (1..=NAME).contains(&name.len()) && name.chars().all(good) {
        true => Ok(()),
        false => Err(format!("the name of a key is {name:?}, allowed are 1 to {NAME} of A-Z a-z 0-9 . _ -")),
    }
}

/// The keys of a file.
///
/// # Errors
/// When it cannot be read, with the place. A file without a word is one that is just being written, or was not: it shuts nobody out.
pub fn read(path: &Path) -> Result<Keys, FileError> {
    let text = text_of(path)?;
    if text.trim().is_empty() {
        let reason = "there is nothing in it; `outboard keys new` makes the first key".to_owned();
        return Err(FileError::Content { path: path.to_owned(), reason });
    }
    parsed(path, &text)
}

fn text_of(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|error| FileError::Io { path: path.to_owned(), error })
}

fn parsed(path: &Path, text: &str) -> Result<Keys, FileError> {
    Keys::parse(text).map_err(|reason| FileError::Content { path: path.to_owned(), reason })
}

/// The key that a file holds, alone, as its owner keeps it.
///
/// # Errors
/// When it cannot be read, or holds no key.
pub fn read_secret(path: &Path) -> Result<Secret, FileError> {
    let text = text_of(path)?;
    let secret = Secret::parse(text.trim());
    secret.map_err(|error| FileError::Content { path: path.to_owned(), reason: error.to_string() })
}

/// Changes a file of keys; makes it when there is none. Others that change it wait, others that read it see it before or after. A link
/// stays one: what it leads to is changed, for all who read that.
///
/// # Errors
/// When it cannot be read or written, or `change` refuses; then it is as it was.
pub fn change(path: &Path, change: impl FnOnce(&mut Keys) -> Result<(), FileError>) -> Result<(), FileError> {
    let failed = |error| FileError::Io { path: path.to_owned(), error };
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let path = real.as_path();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The file itself is replaced, so it is the folder that is locked, until this is dropped.
    let lock = File::open(folder).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let before = match fs::metadata(path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let mut keys = if before.is_some() { parsed(path, &text_of(path)?)? } else { Keys::default() };
    change(&mut keys)?;
    let text = keys.print().map_err(|error| failed(io::Error::other(error)))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    if let Some(before) = before {
        // A gateway that runs as another user must be able to read it as before.
        keep_owner(file.path(), &before).map_err(failed)?;
        fs::set_permissions(file.path(), before.permissions()).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    lock.sync_all().map_err(failed)
}

#[cfg(unix)]
fn keep_owner(path: &Path, before: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let now = fs::metadata(path)?;
    if (now.uid(), now.gid()) == (before.uid(), before.gid()) {
        return Ok(());
    }
    chown(path, Some(before.uid()), Some(before.gid()))
}

#[cfg(not(unix))]
fn keep_owner(_: &Path, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
