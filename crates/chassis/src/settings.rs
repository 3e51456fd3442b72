//! Settings from a file, the environment and the command line, in this order; later ones win.
//!
//! The environment variable of a key is the process's prefix and the key's path with two underscores between parts:
//! `OUTBOARD_SERVER__LIMITS__FRAME_TIME=5s`. On the command line it is `--set limits.frame_time=5s`.
//! Promises: an unknown key or a bad value is one sentence that names the key, the value and what is allowed.

use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Environment, File, FileFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;

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
    /// `--set` without `key=value`.
    #[error("--set takes key=value, it was given {0:?}")]
    NoValue(String),
    /// A key or a value that is not allowed.
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
    /// Keys whose value in the environment or on the command line is a list with commas.
    pub lists: &'a [&'a str],
    /// `(key, value)` from the command line.
    pub flags: Vec<(String, String)>,
}

/// Reads settings over the defaults of `S`, which must refuse unknown fields.
///
/// # Errors
/// [`SettingsError`].
pub fn read<S>(sources: &Sources<'_>) -> Result<S, SettingsError>
where
    S: Default + Serialize + DeserializeOwned,
{
    let wrong = |error: ConfigError| SettingsError::Value(error.to_string().replace('\n', " "));
    let defaults = toml::to_string(&S::default()).map_err(|error| SettingsError::Value(error.to_string()))?;
    let mut builder = Config::builder().add_source(File::from_str(&defaults, FileFormat::Toml));
    if let Some(path) = sources.file {
        let text =
            std::fs::read_to_string(path).map_err(|error| SettingsError::File { path: path.to_owned(), error })?;
        // Read once by itself: an unknown key is then blamed on the file.
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let mut environment =
        Environment::with_prefix(sources.prefix).prefix_separator("__").separator("__").try_parsing(true);
    if !sources.lists.is_empty() {
        environment = environment.list_separator(",");
        for key in sources.lists {
            environment = environment.with_list_parse_key(key);
        }
    }
    builder = builder.add_source(environment);
    for (key, value) in &sources.flags {
        if sources.lists.contains(&key.as_str()) {
            let items: Vec<String> =
                value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect();
            builder = builder.set_override(key, items).map_err(wrong)?;
        } else {
            builder = builder.set_override(key, scalar(value)).map_err(wrong)?;
        }
    }
    builder.build().map_err(wrong)?.try_deserialize().map_err(wrong)
}

/// Splits `key=value`.
///
/// # Errors
/// When there is no `=`.
pub fn assignment(text: &str) -> Result<(String, String), SettingsError> {
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

/// A value from the command line: a whole number, a truth value or a text.
fn scalar(text: &str) -> config::Value {
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    match text {
        "true" => true.into(),
        "false" => false.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        calls: usize,
        note: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Some {
        listen: SocketAddr,
        models: Vec<String>,
        limits: Limits,
    }

    impl Default for Some {
        fn default() -> Self {
            let listen = SocketAddr::from(([127, 0, 0, 1], 9090));
            Self { listen, models: vec!["models".into()], limits: Limits { calls: 7, note: String::new() } }
        }
    }

    fn with(file: &str, flags: &[(&str, &str)]) -> Result<Some, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("some.toml");
        std::fs::write(&path, file).expect("a temporary file");
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let sources = Sources { file: Some(&path), prefix: "OUTBOARD_TEST_NOTHING", lists: &["models"], flags };
        read(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn later_sources_win_and_the_rest_keeps_its_default() {
        assert_eq!(with("", &[]), Ok(Some::default()));
        let read = with("listen = '127.0.0.1:1'\n[limits]\ncalls = 3", &[("limits.calls", "5"), ("models", "a,b")]);
        let read = read.expect("good settings");
        assert_eq!(read.listen.port(), 1);
        assert_eq!((read.limits.calls, read.models), (5, vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        // PATH is there in every environment: `__` as the only separator makes it no setting of ours.
        let environment = Environment::with_prefix("X").prefix_separator("__").separator("__").try_parsing(true);
        let source = [("X__LIMITS__CALLS".to_owned(), "9".to_owned())].into_iter().collect();
        let built = Config::builder()
            .add_source(File::from_str("[limits]\ncalls = 3", FileFormat::Toml))
            .add_source(environment.source(std::option::Option::Some(source)))
            .build()
            .expect("builds");
        assert_eq!(built.get_int("limits.calls").ok(), std::option::Option::Some(9));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (file, flags, says) in [
            ("lisen = '127.0.0.1:1'", &[][..], &["lisen", "listen"][..]),
            ("listen = 'nowhere'", &[], &["listen", "address"]),
            ("[limits]\ncalls = 'many'", &[], &["limits.calls", "many"]),
            ("", &[("limits.cals", "3")], &["cals", "calls"]),
            ("listen = ", &[], &["TOML"]),
        ] {
            let error = with(file, flags).expect_err(file);
            for part in says {
                assert!(error.contains(part), "{file:?} {flags:?} gives {error:?}, which lacks {part:?}");
            }
        }
        assert!(assignment("novalue").expect_err("no =").to_string().contains("novalue"));
    }

    #[test]
    fn what_is_printed_reads_back() {
        let printed = print(&Some::default()).expect("prints");
        assert_eq!(with(&printed, &[]), Ok(Some::default()));
    }
}
