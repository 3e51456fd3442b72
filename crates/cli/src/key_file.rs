//! `outboard keys`: the file of API keys that gateways read.

use std::time::SystemTime;

use keys::{Entry, Secret};
use serde_json::json;

use crate::args::Keys;
use crate::exit::{Failure, NO, USAGE};
use crate::say::{say, say_aside};

pub(crate) fn run(command: &Keys) -> Result<(), Failure> {
    let refused = |error: keys::FileError| Failure::new(NO, error.to_string());
    let now = SystemTime::now();
    match command {
        Keys::New { name, scope, expires, kept } => {
            if expires.is_some_and(|expires| expires <= now) {
                return Err(Failure::new(USAGE, "`--expires` is over already"));
            }
            let scopes = if scope.is_empty() { [keys::Scope::Infer].into() } else { scope.iter().copied().collect() };
            let secret = Secret::generate().map_err(|error| Failure::new(NO, error.to_string()))?;
            // Whole seconds, as the file has them.
            let times = (whole(now), expires.map(whole));
            keys::change(&kept.file, |keys| keys.add(name, &secret, scopes, times.0, times.1)).map_err(refused)?;
            // Alone on standard output, so that it can be taken from there.
            say(secret.expose());
            say_aside("This is the key. It is not kept: give it away now, or make another one later.");
            Ok(())
        }
        Keys::List { json, kept } => {
            let keys = keys::read(&kept.file).map_err(refused)?;
            if *json {
                let all: Vec<_> = keys.entries().iter().map(|entry| described(entry, now)).collect();
                say(serde_json::Value::from(all));
                return Ok(());
            }
            let width = keys.entries().iter().map(|entry| entry.name.len()).max().unwrap_or(0).max(4);
            say(format_args!("{:width$}  {:20}  {:20}  scopes", "name", "made", "ends"));
            for entry in keys.entries() {
                let ends = entry.expires.map_or_else(|| "never".to_owned(), at);
                let over = if entry.has_expired(now) { "  (over)" } else { "" };
                say(format_args!(
                    "{:width$}  {:20}  {ends:20}  {}{over}",
                    entry.name,
                    at(entry.created),
                    scopes(entry).join(", ")
                ));
            }
            Ok(())
        }
        Keys::Revoke { names, kept } => {
            keys::change(&kept.file, |keys| names.iter().try_for_each(|name| keys.revoke(name))).map_err(refused)?;
            say(format_args!("revoked: {}", names.join(", ")));
            Ok(())
        }
    }
}

fn described(entry: &Entry, now: SystemTime) -> serde_json::Value {
    json!({
        "name": entry.name,
        "scopes": scopes(entry),
        "created": at(entry.created),
        "expires": entry.expires.map(at),
        "expired": entry.has_expired(now),
    })
}

fn scopes(entry: &Entry) -> Vec<&'static str> {
    entry.scopes.iter().map(|scope| scope.name()).collect()
}

fn at(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn whole(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs())
}
