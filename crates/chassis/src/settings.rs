//! Settings from a file, the environment and the command line, in this order; later ones win.
//!
//! The environment variable of a key is the process's prefix and the key's path with two underscores between parts:
//! `OUTBOARD_SERVER__LIMITS__FRAME_TIME=5s`. On the command line it is `--set limits.frame_time=5s`. Below all of them stand the
//! variables of OpenTelemetry, for a program that has traces.
//! Promises: an unknown key or a bad value is one sentence that names the key, the value, where it stands and what is
//! allowed; a key is unknown wherever it stands, even when a later source would win over it.

mod layer;
mod open_telemetry;

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, ConfigError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::layer::Layer;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("settings file {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The file is no TOML.
    #[error("settings file {}, line {line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// `--set` without `key=value`.
    #[error("--set takes key=value, it was given {0:?}")]
    NoValue(String),
    /// A key that is not there.
    #[error("settings: there is no key `{key}` ({origin}), allowed here are {allowed}")]
    Unknown {
        /// The whole path.
        key: String,
        /// Where it was written.
        origin: String,
        /// The keys beside it, with commas between.
        allowed: String,
    },
    /// A value that is not allowed.
    #[error("settings: {0}")]
    Value(String),
}

/// Where settings come from, besides their defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// Prefix of environment variables, such as `OUTBOARD_SERVER`.
    pub prefix: &'a str,
    /// Keys whose value in the environment or on the command line is a list with commas; an empty text is an empty list.
    pub lists: &'a [&'a str],
    /// `(key, value)` from the command line.
    pub flags: Vec<(String, String)>,
}

/// Reads settings over the defaults of `S`, which must refuse unknown fields and have a value for every key: what is
/// not in the defaults is no key.
///
/// # Errors
/// [`SettingsError`].
pub fn read<S>(sources: &Sources<'_>) -> Result<S, SettingsError>
where
    S: Default + Serialize + DeserializeOwned,
{
    read_with(sources, std::env::vars_os(), None)
}

/// Reads one table of another program's settings; what else its sources say does not count. `S` has that table alone.
///
/// # Errors
/// [`SettingsError`].
pub fn read_table<S>(sources: &Sources<'_>, name: &str) -> Result<S, SettingsError>
where
    S: Default + Serialize + DeserializeOwned,
{
    read_with(sources, std::env::vars_os(), Some(name))
}

fn read_with<S>(
    sources: &Sources<'_>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    only: Option<&str>,
) -> Result<S, SettingsError>
where
    S: Default + Serialize + DeserializeOwned,
{
    let defaults = toml::Table::try_from(S::default()).map_err(|error| SettingsError::Value(error.to_string()))?;
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let readable = environment.iter().filter_map(|(name, value)| Some((name.to_str()?.into(), value.to_str()?.into())));
    let mut layers = open_telemetry::layers(&readable.collect(), &defaults)?;
    if let Some(path) = sources.file {
        layers.push(Layer::of_file(path)?);
    }
    layers.extend(Layer::of_environment(environment, sources.prefix, sources.lists, &defaults)?);
    for (key, value) in &sources.flags {
        layers.push(Layer::of_text(
            key,
            value,
            sources.lists,
            &defaults,
            format!("on the command line: {key}={value}"),
        )?);
    }
    if let Some(table) = only {
        layers.iter_mut().for_each(|layer| layer.keep_only(table));
    }
    let mut builder = Config::builder().add_source(Layer::of_defaults(&defaults));
    for layer in &layers {
        layer.check_keys(&defaults)?;
        builder = builder.add_source(layer.clone());
    }
    let wrong = |error: ConfigError| told(&error, &layers);
    builder.build().map_err(wrong)?.try_deserialize().map_err(wrong)
}

/// The sentence for a value that its key does not take.
fn told(error: &ConfigError, layers: &[Layer]) -> SettingsError {
    let (key, reason) = match error {
        ConfigError::Type { unexpected, expected, key: Some(key), .. } => {
            (key, format!("{unexpected} is not allowed, expected {expected}"))
        }
        ConfigError::At { error, key: Some(key), .. } => (key, error.to_string()),
        other => return SettingsError::Value(other.to_string()),
    };
    // What the parser of durations says does not tell how one is written.
    let reason = reason.replace("expected a duration", "expected a duration such as 10s or 2m 30s");
    // The last one to set the key is the one whose value is wrong.
    let origin = layers.iter().rev().find_map(|layer| layer.origin_of(key));
    let origin = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
    SettingsError::Value(format!("`{key}`: {reason}{origin}"))
}

/// Refuses a value outside of a range.
///
/// # Errors
/// [`SettingsError::Value`] with the key, the value and the range.
pub fn within<T: PartialOrd + Display>(key: &str, value: T, allowed: RangeInclusive<T>) -> Result<(), SettingsError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (low, high) = (allowed.start(), allowed.end());
    Err(SettingsError::Value(format!("`{key}` is {value}, allowed is {low} to {high}")))
}

/// Refuses a time outside of a range.
///
/// # Errors
/// [`SettingsError::Value`] with the key, the value and the range.
pub fn within_time(key: &str, value: Duration, allowed: RangeInclusive<Duration>) -> Result<(), SettingsError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (low, high) = (allowed.start(), allowed.end());
    Err(SettingsError::Value(format!("`{key}` is {value:?}, allowed is {low:?} to {high:?}")))
}

/// The command line for [`Sources::flags`]: flags that are keys by themselves, where they were given, and then what `--set` says.
///
/// # Errors
/// When a `--set` has no `=`.
pub fn command_line(named: &[(&str, &Option<String>)], set: &[String]) -> Result<Vec<(String, String)>, SettingsError> {
    let named = named.iter().filter_map(|(key, value)| Some(((*key).to_owned(), (*value).clone()?)));
    named.map(Ok).chain(set.iter().map(|text| assignment(text))).collect()
}

/// Splits `key=value`.
fn assignment(text: &str) -> Result<(String, String), SettingsError> {
    let (key, value) = text.split_once('=').ok_or_else(|| SettingsError::NoValue(text.to_owned()))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The settings as TOML, for `--print-config`.
///
/// # Errors
/// When they cannot be written as TOML.
pub fn print<S: Serialize>(settings: &S) -> Result<String, SettingsError> {
    toml::to_string(settings).map_err(|error| SettingsError::Value(error.to_string()))
}

#[cfg(test)]
mod tests;
