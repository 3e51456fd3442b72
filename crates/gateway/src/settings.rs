//! What the gateway is told: every key, with its default.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chassis::Size;
use serde::{Deserialize, Serialize};

/// The file `config/gateway.toml` shows every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Pages and HTTP APIs.
    pub(crate) listen: SocketAddr,
    /// Metrics and health.
    pub(crate) admin: SocketAddr,
    /// The servers, as `host:port`.
    pub(crate) servers: Vec<String>,
    /// Threads that serve; 0 is one for each core.
    pub(crate) workers: usize,
    /// Connections of each thread to each server.
    pub(crate) connections_per_server: usize,
    /// `open`: listen where others can connect, without asking who they are. Empty: only on loopback.
    pub(crate) auth: String,
    /// Peers whose `X-Real-IP` is believed: the nginx in front.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// What runs longer after SIGTERM is cut.
    #[serde(with = "humantime_serde")]
    pub(crate) drain: Duration,
    pub(crate) limits: Limits,
    pub(crate) log: chassis::logs::Settings,
}

/// What clients may take.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Open connections of the whole process.
    pub(crate) connections: usize,
    /// A picture, alone or as a part of a form.
    pub(crate) picture: Size,
    /// A JSON body; a picture in base64 fits.
    pub(crate) json: Size,
    /// Bodies in memory at the same time.
    pub(crate) bodies: Size,
    /// A body must be complete within this.
    #[serde(with = "humantime_serde")]
    pub(crate) body_time: Duration,
    /// Answers that the client named no time for.
    #[serde(with = "humantime_serde")]
    pub(crate) deadline: Duration,
    /// Most that a client may ask for.
    #[serde(with = "humantime_serde")]
    pub(crate) longest_deadline: Duration,
    pub(crate) pictures_per_call: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8001)),
            servers: vec!["127.0.0.1:9090".to_owned()],
            workers: 0,
            connections_per_server: 1,
            auth: String::new(),
            trusted_proxies: vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)],
            drain: Duration::from_secs(150),
            limits: Limits {
                connections: 16_384,
                picture: Size::mib(15),
                json: Size::mib(21),
                bodies: Size::mib(256),
                body_time: Duration::from_secs(30),
                deadline: Duration::from_secs(10),
                longest_deadline: units::LONGEST,
                pictures_per_call: 16,
            },
            log: chassis::logs::Settings::default(),
        }
    }
}

impl Settings {
    /// Keys whose value outside the file is a list with commas.
    pub(crate) const LISTS: [&str; 2] = ["servers", "trusted_proxies"];

    pub(crate) fn workers(&self) -> usize {
        if self.workers > 0 { self.workers } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotated_file_has_every_key_with_its_default() {
        let text = include_str!("../../../config/gateway.toml");
        let written: toml::Table = text.parse().expect("TOML");
        let ours = toml::Table::try_from(Settings::default()).expect("settings are TOML");
        assert_eq!(written, ours);
    }

    #[test]
    fn the_defaults_survive_being_printed_to_the_byte() {
        let printed = chassis::settings::print(&Settings::default()).expect("prints");
        let read: Settings = toml::from_str(&printed).expect("reads");
        assert_eq!(chassis::settings::print(&read).expect("prints"), printed);
    }
}
