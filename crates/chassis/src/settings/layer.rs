//! What one source says, each value knowing where it stands.

use std::ffi::OsString;
use std::path::Path;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::SettingsError;

/// A file, or one variable, or one flag.
#[derive(Clone, Debug)]
pub(super) struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layer {
    pub(super) fn of_defaults(defaults: &toml::Table) -> Self {
        Self(table(defaults, &"default".to_owned()))
    }

    pub(super) fn of_file(path: &Path) -> Result<Self, SettingsError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| SettingsError::File { path: path.to_owned(), error })?;
        let read: toml::Table = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            SettingsError::Syntax { path: path.to_owned(), line, reason: error.message().replace('\n', ", ") }
        })?;
        Ok(Self(table(&read, &format!("in {}", path.display()))))
    }

    /// One for each variable of ours, in the order of their names.
    ///
    /// Ours have two underscores after the prefix. Others are none of our business, however alike: Kubernetes gives every
    /// process variables such as `OUTBOARD_SERVER_PORT` once there is a service `outboard-server`.
    pub(super) fn of_environment(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        prefix: &str,
        lists: &[&str],
        defaults: &toml::Table,
    ) -> Result<Vec<Self>, SettingsError> {
        let start = format!("{prefix}__");
        let mut ours = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(&start)) else { continue };
            let Some(value) = value.to_str() else {
                return Err(SettingsError::Value(format!("environment variable {name} is not UTF-8")));
            };
            ours.push((name.to_owned(), value.to_owned()));
        }
        ours.sort();
        let layer = |(name, value): &(String, String)| {
            let key = name[start.len()..].to_lowercase().replace("__", ".");
            Self::of_text(&key, value.trim(), lists, defaults, format!("environment variable {name}={value}"))
        };
        ours.iter().map(layer).collect()
    }

    /// A key whose value is written as a text; what the default is tells how to read it.
    pub(super) fn of_text(
        key: &str,
        text: &str,
        lists: &[&str],
        defaults: &toml::Table,
        origin: String,
    ) -> Result<Self, SettingsError> {
        if key.split('.').any(str::is_empty) {
            return Err(SettingsError::Value(format!("{key:?} is no key ({origin})")));
        }
        let mut value = if lists.contains(&key) {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::new(Some(&origin), items.map(|item| Value::new(Some(&origin), item)).collect::<Vec<_>>())
        } else {
            Value::new(Some(&origin), scalar(text, default_of(defaults, key)))
        };
        let (parents, last) = key.rsplit_once('.').map_or((None, key), |(parents, last)| (Some(parents), last));
        let mut last = last;
        for parent in parents.into_iter().flat_map(|parents| parents.rsplit('.')) {
            value = Value::new(Some(&origin), Map::from_iter([(last.to_owned(), value)]));
            last = parent;
        }
        Ok(Self(Map::from_iter([(last.to_owned(), value)])))
    }

    /// Forgets all but this table.
    pub(super) fn keep_only(&mut self, table: &str) {
        self.0.retain(|name, _| name == table);
    }

    /// Refuses what is not among the defaults.
    pub(super) fn check_keys(&self, defaults: &toml::Table) -> Result<(), SettingsError> {
        check(&self.0, defaults, "")
    }

    /// Where this source sets the key, which may name an element of a list: `models[0]`.
    pub(super) fn origin_of(&self, key: &str) -> Option<&str> {
        let mut parts = key.split('.').map(|part| part.split('[').next().unwrap_or(part));
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            let ValueKind::Table(inner) = &value.kind else { break };
            value = inner.get(part)?;
        }
        value.origin()
    }
}

fn check(given: &Map<String, Value>, defaults: &toml::Table, above: &str) -> Result<(), SettingsError> {
    for (name, value) in given {
        let key = format!("{above}{name}");
        let origin = value.origin().unwrap_or_default().to_owned();
        match (defaults.get(name), &value.kind) {
            (None, _) => {
                let allowed = defaults.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(SettingsError::Unknown { key, origin, allowed });
            }
            (Some(toml::Value::Table(inner)), ValueKind::Table(given)) => check(given, inner, &format!("{key}."))?,
            (Some(toml::Value::Table(inner)), _) => {
                let keys = inner.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(SettingsError::Value(format!("`{key}` is a table with the keys {keys} ({origin})")));
            }
            (Some(_), ValueKind::Table(_)) => {
                return Err(SettingsError::Value(format!("`{key}` is a value, not a table ({origin})")));
            }
            (Some(_), _) => {}
        }
    }
    Ok(())
}

fn table(table: &toml::Table, origin: &String) -> Map<String, Value> {
    table.iter().map(|(key, value)| (key.clone(), value_of(value, origin))).collect()
}

fn value_of(value: &toml::Value, origin: &String) -> Value {
    let kind = match value {
        toml::Value::String(text) => ValueKind::String(text.clone()),
        toml::Value::Integer(number) => ValueKind::I64(*number),
        toml::Value::Float(number) => ValueKind::Float(*number),
        toml::Value::Boolean(truth) => ValueKind::Boolean(*truth),
        toml::Value::Datetime(time) => ValueKind::String(time.to_string()),
        toml::Value::Array(items) => ValueKind::Array(items.iter().map(|item| value_of(item, origin)).collect()),
        toml::Value::Table(inner) => ValueKind::Table(table(inner, origin)),
    };
    Value::new(Some(origin), kind)
}

fn default_of<'a>(defaults: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let mut parts = key.split('.');
    let first = defaults.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// A number or a truth value only where one belongs: a text such as `007` keeps its zeros.
fn scalar(text: &str, default: Option<&toml::Value>) -> ValueKind {
    let read = match default {
        Some(toml::Value::Integer(_)) => text.parse().ok().map(ValueKind::I64),
        Some(toml::Value::Float(_)) => text.parse().ok().map(ValueKind::Float),
        Some(toml::Value::Boolean(_)) => text.parse().ok().map(ValueKind::Boolean),
        _ => None,
    };
    read.unwrap_or_else(|| ValueKind::String(text.to_owned()))
}
