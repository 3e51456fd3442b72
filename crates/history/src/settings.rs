//! What is kept, where, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use chassis::Size;
use chassis::settings::{SettingsError, within, within_time};
use serde::{Deserialize, Serialize};

/// The table `[history]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where records are kept.
    pub store: StoreKind,
    /// Where pictures are kept.
    pub pictures: PicturesKind,
    /// Keep what the upload page answers.
    pub pages: bool,
    /// What of the API's answers is kept.
    pub api: ApiKind,
    /// SQLite's file, the folder of pictures and the spool; empty is the user's own.
    pub folder: PathBuf,
    /// Whole days after which records and pictures go; 0 is never.
    pub days: u32,
    /// Bytes of records and pictures, beyond which the oldest go; 0 is no limit.
    pub bytes: Size,
    /// How often it is looked for what must go.
    #[serde(with = "humantime_serde")]
    pub sweep: Duration,
    /// Memory of records on their way to the disk.
    pub queue: Size,
    /// Disk of records on their way to the stores.
    pub spool: Size,
    /// How long an answer of the API that asked to be kept waits for the disk.
    #[serde(with = "humantime_serde")]
    pub acknowledge: Duration,
    /// How long the stores may take for one operation.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// For `store = "cassandra"`.
    pub cassandra: Cassandra,
    /// For `pictures = "s3"`.
    pub s3: S3,
}

/// Where records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// Nothing is kept.
    None,
    /// One file: for the gateways of one host.
    Sqlite,
    /// For gateways of many hosts.
    Cassandra,
}

/// Where pictures are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PicturesKind {
    /// Only what was answered is kept.
    None,
    /// In the folder.
    Folder,
    /// In a store that speaks S3's protocol.
    S3,
}

/// What of the API's answers is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiKind {
    /// Nothing.
    None,
    /// Where the request says `keep=true`.
    Asked,
    /// Everything, unless the request says `keep=false`.
    All,
}

/// How to reach Cassandra.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cassandra {
    /// Some of its nodes, as `host:port`.
    pub nodes: Vec<String>,
    /// Made by `outboard history migrate` when it is not there.
    pub keyspace: String,
    /// Copies of each record, for a keyspace that is made.
    pub replication: u32,
    /// Empty: without a login.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// How to reach the store of pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// `http://host:port`, or `https://...`.
    pub endpoint: String,
    /// A file of certificates (PEM) that vouch for an `https://` endpoint, besides those that the system trusts.
    pub ca: PathBuf,
    /// It must be there.
    pub bucket: String,
    /// What the store calls its place.
    pub region: String,
    /// Of the key that signs.
    pub access_key: String,
    /// Its other half.
    pub secret_key: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store: StoreKind::Sqlite,
            pictures: PicturesKind::Folder,
            pages: true,
            api: ApiKind::Asked,
            folder: PathBuf::new(),
            days: 90,
            bytes: Size::mib(20 << 10),
            sweep: Duration::from_secs(10 * 60),
            queue: Size::mib(64),
            spool: Size::mib(4 << 10),
            acknowledge: Duration::from_millis(250),
            timeout: Duration::from_secs(5),
            cassandra: Cassandra {
                nodes: vec!["127.0.0.1:9042".to_owned()],
                keyspace: "outboard".to_owned(),
                replication: 1,
                user: String::new(),
                password: String::new(),
            },
            s3: S3 {
                endpoint: "http://127.0.0.1:9000".to_owned(),
                ca: PathBuf::new(),
                bucket: "outboard".to_owned(),
                region: "us-east-1".to_owned(),
                access_key: String::new(),
                secret_key: String::new(),
            },
        }
    }
}

impl Settings {
    /// # Errors
    /// The first value out of its range, with key and range.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (key, value, allowed) in [
            ("history.days", u64::from(self.days), 0..=36_500),
            ("history.bytes", self.bytes.as_u64(), 0..=1 << 60),
            // The largest call must fit, or it would never be kept.
            ("history.queue", self.queue.as_u64(), 32 << 20..=1 << 40),
            ("history.spool", self.spool.as_u64(), 64 << 20..=1 << 50),
            ("history.cassandra.replication", u64::from(self.cassandra.replication), 1..=100),
        ] {
            within(key, value, allowed)?;
        }
        let (milli, day) = (Duration::from_millis(1), Duration::from_secs(24 * 60 * 60));
        for (key, value, allowed) in [
            ("history.sweep", self.sweep, milli * 100..=day),
            ("history.acknowledge", self.acknowledge, Duration::ZERO..=Duration::from_secs(10)),
            ("history.timeout", self.timeout, milli * 100..=Duration::from_secs(60)),
        ] {
            within_time(key, value, allowed)?;
        }
        let keyspace = &self.cassandra.keyspace;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if keyspace.is_empty() || keyspace.len() > 48 || !keyspace.chars().all(plain) {
            return Err(SettingsError::Value(format!(
                "`history.cassandra.keyspace` is {keyspace:?}, allowed are 1 to 48 letters, digits and _"
            )));
        }
        if self.store == StoreKind::Cassandra && self.cassandra.nodes.is_empty() {
            return Err(SettingsError::Value(
                "`history.cassandra.nodes` is empty, expected at least one host:port".into(),
            ));
        }
        Ok(())
    }

    /// Where files go.
    ///
    /// # Errors
    /// When there is no user's folder and none is set.
    pub fn place(&self) -> Result<PathBuf, SettingsError> {
        if !self.folder.as_os_str().is_empty() {
            return Ok(self.folder.clone());
        }
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = named("XDG_STATE_HOME").or_else(|| named("HOME").map(|home| home.join(".local/state")));
        state.map(|state| state.join("outboard/history")).ok_or_else(|| {
            SettingsError::Value("`history.folder` is empty, and there is no user's folder (HOME): name one".to_owned())
        })
    }

    /// As it may be shown.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        for secret in [&mut self.cassandra.password, &mut self.s3.secret_key] {
            if !secret.is_empty() {
                *secret = "(set)".to_owned();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_its_range_is_named_with_the_range() {
        assert!(Settings::default().check().is_ok());
        type Change = fn(&mut Settings);
        let cases: [(Change, &str); 4] = [
            (|it| it.days = 40_000, "`history.days` is 40000, allowed is 0 to 36500"),
            (|it| it.queue = Size::mib(1), "`history.queue` is 1048576, allowed is 33554432 to"),
            (|it| it.cassandra.keyspace = "a; DROP".into(), "`history.cassandra.keyspace` is \"a; DROP\""),
            (|it| it.timeout = Duration::ZERO, "`history.timeout` is 0ns, allowed is 100ms to"),
        ];
        for (change, says) in cases {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.check().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut settings = Settings::default();
        settings.s3.secret_key = "hush".to_owned();
        assert!(!format!("{:?}", settings.without_secrets()).contains("hush"));
    }
}
