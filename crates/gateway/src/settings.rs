//! What the gateway is told: every key, with its default.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use chassis::Size;
use chassis::settings::{self, SettingsError};
use rpc::Ejection;
use serde::{Deserialize, Serialize};

use crate::backend::most_picture_bytes;
use crate::server_tls;

/// The largest value of `limits.pictures_per_call`.
pub(crate) const MOST_PICTURES: usize = 4_096;

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
    /// The key that the servers ask for.
    pub(crate) server_key: String,
    /// The file that holds it, and is looked at again and again.
    pub(crate) server_key_file: PathBuf,
    /// The file of API keys, which `outboard keys` writes. Empty: nobody is asked for one.
    pub(crate) keys: PathBuf,
    /// `open`: listen where others can connect, without asking who they are. Empty: only on loopback.
    pub(crate) auth: String,
    /// Peers whose `X-Real-IP` is believed: the nginx in front.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// What runs longer after SIGTERM is cut.
    #[serde(with = "humantime_serde")]
    pub(crate) drain: Duration,
    pub(crate) limits: Limits,
    /// How the servers are watched.
    pub(crate) channel: ChannelSettings,
    /// What is kept of answers.
    pub(crate) history: history::Settings,
    pub(crate) log: chassis::logs::Settings,
    pub(crate) traces: chassis::traces::Settings,
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
    /// A client that takes nothing of its answer for so long is cut off.
    #[serde(with = "humantime_serde")]
    pub(crate) write_stall: Duration,
    /// Answers that the client named no time for.
    #[serde(with = "humantime_serde")]
    pub(crate) deadline: Duration,
    /// Most that a client may ask for.
    #[serde(with = "humantime_serde")]
    pub(crate) longest_deadline: Duration,
    pub(crate) pictures_per_call: usize,
    /// The JSON body of a chat.
    pub(crate) chat_body: Size,
    /// A generated text that the client named no time for.
    #[serde(with = "humantime_serde")]
    pub(crate) chat_deadline: Duration,
    /// The first token of a streamed one.
    #[serde(with = "humantime_serde")]
    pub(crate) chat_first_token: Duration,
    /// A stream is silent for at most this long.
    #[serde(with = "humantime_serde")]
    pub(crate) chat_keep_alive: Duration,
}

/// How the servers are watched, and spared when they fail.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelSettings {
    /// A connection that was silent for so long is asked whether somebody is there.
    #[serde(with = "humantime_serde")]
    pub(crate) ping: Duration,
    /// An attempt to connect takes at most this, with the TLS handshake; zero: see [`ChannelSettings::connect_timeout`].
    #[serde(with = "humantime_serde")]
    pub(crate) connect_timeout: Duration,
    /// Names among `servers` are resolved again this often.
    #[serde(with = "humantime_serde")]
    pub(crate) resolve: Duration,
    /// So many failures in a row leave a server out of choice.
    pub(crate) eject_after: u32,
    /// For so long at first.
    #[serde(with = "humantime_serde")]
    pub(crate) eject_first: Duration,
    /// Doubled each time up to this.
    #[serde(with = "humantime_serde")]
    pub(crate) eject_longest: Duration,
    pub(crate) tls: server_tls::Settings,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        let Ejection { failures, first, longest } = Ejection::default();
        Self {
            ping: Duration::from_secs(1),
            connect_timeout: Duration::ZERO,
            resolve: Duration::from_secs(5),
            eject_after: failures,
            eject_first: first,
            eject_longest: longest,
            tls: server_tls::Settings::default(),
        }
    }
}

impl ChannelSettings {
    /// What is set, else a second; three where there is a handshake, which waits for the signatures of all who come at once.
    pub(crate) fn connect_timeout(&self, with_tls: bool) -> Duration {
        match self.connect_timeout {
            Duration::ZERO => Duration::from_secs(if with_tls { 3 } else { 1 }),
            set => set,
        }
    }

    pub(crate) fn ejection(&self) -> Ejection {
        Ejection { failures: self.eject_after, first: self.eject_first, longest: self.eject_longest }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8001)),
            servers: vec!["127.0.0.1:9090".to_owned()],
            workers: 0,
            connections_per_server: 1,
            server_key: String::new(),
            server_key_file: PathBuf::new(),
            keys: PathBuf::new(),
            auth: String::new(),
            trusted_proxies: vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)],
            drain: Duration::from_secs(150),
            limits: Limits {
                connections: 16_384,
                picture: Size::mib(15),
                json: Size::mib(21),
                bodies: Size::mib(256),
                body_time: Duration::from_secs(30),
                write_stall: Duration::from_secs(60),
                deadline: Duration::from_secs(10),
                longest_deadline: units::LONGEST,
                pictures_per_call: 16,
                chat_body: Size::mib(4),
                chat_deadline: Duration::from_secs(120),
                chat_first_token: Duration::from_secs(30),
                chat_keep_alive: Duration::from_secs(10),
            },
            channel: ChannelSettings::default(),
            history: history::Settings::default(),
            log: chassis::logs::Settings::default(),
            traces: chassis::traces::Settings::default(),
        }
    }
}

impl Settings {
    /// Keys whose value outside the file is a list with commas.
    pub(crate) const LISTS: [&str; 3] = ["servers", "trusted_proxies", "history.cassandra.nodes"];

    /// # Errors
    /// The first value out of its range, with key and range.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let limits = &self.limits;
        let (picture, json) = (limits.picture.as_u64(), limits.json.as_u64());
        for (key, value, allowed) in [
            ("workers", self.workers as u64, 0..=1_024),
            ("connections_per_server", self.connections_per_server as u64, 1..=1_024),
            ("limits.connections", limits.connections as u64, 1..=1_000_000),
            ("channel.eject_after", self.channel.eject_after.into(), 1..=1_000_000),
            // One picture must fit one frame.
            ("limits.picture", picture, 1..=most_picture_bytes()),
            ("limits.json", json, 1..=1 << 30),
            // It must fit one frame of the servers.
            ("limits.chat_body", limits.chat_body.as_u64(), 1..=most_picture_bytes()),
            // Every body that is allowed must fit, or its sender would be told to try again for ever. JSON is there as it came,
            // as base64 without its escapes, and as pictures.
            ("limits.bodies", limits.bodies.as_u64(), picture.max(json.saturating_mul(11) / 4)..=1 << 44),
            ("limits.pictures_per_call", limits.pictures_per_call as u64, 1..=MOST_PICTURES as u64),
        ] {
            settings::within(key, value, allowed)?;
        }
        let (least, day) = (Duration::from_millis(1), Duration::from_secs(24 * 60 * 60));
        for (key, value, allowed) in [
            ("drain", self.drain, Duration::ZERO..=day),
            ("limits.body_time", limits.body_time, least..=day),
            ("limits.write_stall", limits.write_stall, least..=day),
            // Shorter ones would take a busy server for one that hangs.
            ("channel.ping", self.channel.ping, Duration::from_millis(100)..=day),
            ("channel.connect_timeout", self.channel.connect_timeout, Duration::ZERO..=day),
            ("channel.resolve", self.channel.resolve, Duration::from_millis(100)..=day),
            ("channel.eject_first", self.channel.eject_first, least..=self.channel.eject_longest),
            ("channel.eject_longest", self.channel.eject_longest, least..=day),
            ("limits.longest_deadline", limits.longest_deadline, least..=units::LONGEST),
            ("limits.deadline", limits.deadline, least..=limits.longest_deadline),
            ("limits.chat_deadline", limits.chat_deadline, least..=limits.longest_deadline),
            ("limits.chat_first_token", limits.chat_first_token, least..=limits.chat_deadline),
            // The servers wait for no longer.
            ("limits.chat_keep_alive", limits.chat_keep_alive, least..=Duration::from_secs(30)),
        ] {
            settings::within_time(key, value, allowed)?;
        }
        self.traces.check()?;
        self.history.check()
    }

    /// # Errors
    /// When others can reach a listener that asks nobody for a key, and nothing says that this is meant.
    pub(crate) fn check_exposure(&self) -> Result<(), String> {
        chassis::exposure::check(&self.auth, &self.keys, &[("listen", self.listen), ("admin", self.admin)])
    }

    /// As they may be shown.
    pub(crate) fn without_secrets(mut self) -> Self {
        self.history = self.history.without_secrets();
        if !self.server_key.is_empty() {
            self.server_key = "(set)".to_owned();
        }
        self
    }

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
    fn a_value_out_of_its_range_is_named_with_the_range() {
        assert!(Settings::default().check().is_ok());
        type Change = fn(&mut Settings);
        let cases: [(Change, &str); 6] = [
            (|it| it.limits.picture = Size::mib(16), "`limits.picture` is 16777216, allowed is 1 to 16318464"),
            (|it| it.workers = 5_000, "`workers` is 5000, allowed is 0 to 1024"),
            (|it| it.limits.pictures_per_call = 0, "`limits.pictures_per_call` is 0, allowed is 1 to 4096"),
            (|it| it.limits.bodies = Size::mib(1), "`limits.bodies` is 1048576, allowed is 60555264 to"),
            (|it| it.limits.body_time = Duration::ZERO, "`limits.body_time` is 0ns, allowed is 1ms to"),
            (
                |it| it.limits.deadline = Duration::from_secs(3_600),
                "`limits.deadline` is 3600s, allowed is 1ms to 600s",
            ),
        ];
        for (change, says) in cases {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.check().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    /// Clients gave up before a server was through with the handshakes of all, and began again.
    #[test]
    fn a_handshake_has_its_time_unless_it_is_set() {
        let unset = ChannelSettings::default();
        let set = ChannelSettings { connect_timeout: Duration::from_millis(700), ..ChannelSettings::default() };
        let both = |settings: ChannelSettings| [false, true].map(|tls| settings.connect_timeout(tls).as_millis());
        assert_eq!((both(unset), both(set)), ([1_000, 3_000], [700, 700]));
    }

    #[test]
    fn who_listens_to_others_needs_keys_or_a_word() {
        let street = SocketAddr::from(([0, 0, 0, 0], 8000));
        let mut settings = Settings { listen: street, ..Settings::default() };
        let refused = settings.check_exposure().expect_err("anybody could call");
        assert!(refused.contains("`listen` is 0.0.0.0:8000") && refused.contains("`keys`"), "{refused}");
        settings.admin = street;
        settings.keys = PathBuf::from("keys.toml");
        assert_eq!(settings.check_exposure(), Ok(()));
        settings.keys = PathBuf::new();
        settings.auth = "open".to_owned();
        assert_eq!(settings.check_exposure(), Ok(()));
    }

    #[test]
    fn the_defaults_survive_being_printed_to_the_byte() {
        let printed = chassis::settings::print(&Settings::default()).expect("prints");
        let read: Settings = toml::from_str(&printed).expect("reads");
        assert_eq!(chassis::settings::print(&read).expect("prints"), printed);
    }
}
