//! What the server is told: every key, with its default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chassis::Size;
use chassis::settings::{self, SettingsError};
use runtime::{DeviceWish, LibraryChoice};
use serde::{Deserialize, Serialize};
use units::ModelName;

use crate::tls::Tls;

/// What a frame holds of an answer besides the outputs' bytes: names, shapes, ids, timings.
const REPLY_HEAD: u64 = 64 << 10;

/// No wait of ours makes sense for longer, and clocks overflow somewhere beyond it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The file `config/server.toml` shows every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Framed Thrift.
    pub(crate) listen: SocketAddr,
    /// Metrics and health by HTTP.
    pub(crate) admin: SocketAddr,
    /// Folders with model folders in them; the first one that has a name counts.
    pub(crate) models: Vec<PathBuf>,
    /// Only these models; all when empty.
    pub(crate) only: Vec<String>,
    /// `auto`, `cpu` or `cuda:N` for every model, instead of its own setting; empty keeps that.
    pub(crate) device: String,
    /// Workers of every model, instead of its own setting; 0 keeps that.
    pub(crate) instances: usize,
    /// ONNX Runtime's library or its folder; empty looks where `scripts/onnxruntime` puts it.
    pub(crate) onnxruntime: String,
    /// Threads for connections; 0 is one for each two cores, at least 1, at most 4.
    pub(crate) io_threads: usize,
    /// The file of API keys, which `outboard keys` writes. Empty: nobody is asked for one.
    pub(crate) keys: PathBuf,
    /// `open`: listen where others can connect, without asking who they are. Empty: only on loopback.
    pub(crate) auth: String,
    /// What runs longer after SIGTERM is cut.
    #[serde(with = "humantime_serde")]
    pub(crate) drain: Duration,
    pub(crate) tls: Tls,
    pub(crate) limits: Limits,
    pub(crate) chat: Chat,
    pub(crate) log: chassis::logs::Settings,
    pub(crate) traces: chassis::traces::Settings,
}

/// What callers may take.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) calls_per_connection: usize,
    pub(crate) frame: Size,
    pub(crate) bytes_in_flight: Size,
    #[serde(with = "humantime_serde")]
    pub(crate) frame_time: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) handshake_time: Duration,
    /// TLS handshakes at the same time; over it the address that has most makes room.
    pub(crate) handshakes: usize,
    #[serde(with = "humantime_serde")]
    pub(crate) idle: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) write_stall: Duration,
    pub(crate) depth: usize,
    pub(crate) container: usize,
    pub(crate) picture: Size,
    pub(crate) pixels: u64,
    pub(crate) edge: u32,
    pub(crate) pictures_per_call: usize,
    pub(crate) texts_per_call: usize,
    pub(crate) top_k: usize,
    pub(crate) preview_px: u32,
    /// Of decoded pictures in work at the same time.
    pub(crate) decoded: Size,
    /// Pictures decoded at the same time; 0 is one for each core.
    pub(crate) decode_threads: usize,
    /// Most that a caller may ask for.
    #[serde(with = "humantime_serde")]
    pub(crate) longest_deadline: Duration,
    /// A run that does not end within this after it was told to stop has wedged its worker.
    #[serde(with = "humantime_serde")]
    pub(crate) wedged_after: Duration,
}

/// How long chats and their streams may take.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chat {
    /// Of a chat that names no timeout.
    #[serde(with = "humantime_serde")]
    pub(crate) deadline: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) first_token: Duration,
    /// A stream that nobody reads for so long is ended, and forgotten once it has ended.
    #[serde(with = "humantime_serde")]
    pub(crate) reader_gone: Duration,
    /// Memory of what a stream holds that its reader has not acknowledged.
    pub(crate) kept: Size,
    /// Streams that have ended and may still be asked for, in all; a quarter of them of one caller.
    pub(crate) ended_streams: usize,
    /// Answers that are in work or wait, in streams and whole ones; one that asks for n has n.
    pub(crate) answers_per_caller: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let pictures = vision::Limits::default();
        let engine = engine::Settings::default();
        let rpc = rpc::ServerLimits::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9091)),
            models: vec![PathBuf::from("models")],
            only: Vec::new(),
            device: String::new(),
            instances: 0,
            onnxruntime: String::new(),
            io_threads: 0,
            keys: PathBuf::new(),
            auth: String::new(),
            drain: rpc::Drain::LIMIT,
            tls: Tls::default(),
            limits: Limits {
                connections: rpc.connections,
                calls_per_connection: rpc.calls_per_connection,
                frame: Size::bytes(rpc.frame_bytes as u64),
                bytes_in_flight: Size::bytes(rpc.bytes_in_flight as u64),
                frame_time: rpc.frame_time,
                handshake_time: rpc.handshake_time,
                handshakes: rpc.handshakes,
                idle: rpc.idle,
                write_stall: rpc.write_stall,
                depth: rpc.depth,
                container: rpc.container,
                picture: Size::bytes(pictures.bytes),
                pixels: pictures.pixels,
                edge: pictures.edge,
                pictures_per_call: engine.pictures_per_call,
                texts_per_call: engine.texts_per_call,
                top_k: engine.top_k,
                preview_px: engine.preview_px,
                decoded: Size::bytes(engine.decoded_bytes),
                decode_threads: 0,
                longest_deadline: units::LONGEST,
                wedged_after: engine.wedged_after,
            },
            chat: Chat {
                deadline: Duration::from_secs(120),
                first_token: engine.first_token,
                reader_gone: Duration::from_secs(15),
                // A whole answer of 2,048 tokens has half of it.
                kept: Size::mib(1),
                ended_streams: 1_024,
                answers_per_caller: 64,
            },
            log: chassis::logs::Settings::default(),
            traces: chassis::traces::Settings::default(),
        }
    }
}

impl Settings {
    /// Keys whose value outside the file is a list with commas.
    pub(crate) const LISTS: [&str; 2] = ["models", "only"];

    /// # Errors
    /// The first value out of its range, with key and range.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let limits = &self.limits;
        let most_frame = wire::FrameLimits::MOST as u64;
        let (frame, in_flight) = (limits.frame.as_u64(), limits.bytes_in_flight.as_u64());
        for (key, value, allowed) in [
            ("instances", self.instances as u64, 0..=1_024),
            ("io_threads", self.io_threads as u64, 0..=1_024),
            ("limits.connections", limits.connections as u64, 1..=1_000_000),
            ("limits.calls_per_connection", limits.calls_per_connection as u64, 1..=1_000_000),
            ("limits.handshakes", limits.handshakes as u64, 1..=1_000_000),
            // Less holds no useful call.
            ("limits.frame", frame, 1_024..=most_frame),
            // Every frame that is allowed must fit, or its sender would be told to try again for ever.
            ("limits.bytes_in_flight", in_flight, frame..=1 << 30),
            // The deepest call of ours has less.
            ("limits.depth", limits.depth as u64, 8..=64),
            ("limits.container", limits.container as u64, 1..=1_000_000_000),
            ("limits.picture", limits.picture.as_u64(), 1..=most_frame),
            ("limits.pixels", limits.pixels, 1..=1 << 32),
            ("limits.edge", u64::from(limits.edge), 1..=1 << 20),
            ("limits.pictures_per_call", limits.pictures_per_call as u64, 1..=4_096),
            ("limits.texts_per_call", limits.texts_per_call as u64, 1..=1_000_000),
            ("limits.top_k", limits.top_k as u64, 1..=1_000_000),
            ("limits.preview_px", u64::from(limits.preview_px), 0..=16_384),
            ("limits.decoded", limits.decoded.as_u64(), 1..=1 << 44),
            // Less than one token's log-probabilities need would end every such stream; more fits no frame.
            ("chat.kept", self.chat.kept.as_u64(), 4_096..=8 << 20),
            ("chat.ended_streams", self.chat.ended_streams as u64, 1..=1_000_000),
            ("chat.answers_per_caller", self.chat.answers_per_caller as u64, 1..=1_000_000),
            ("limits.decode_threads", limits.decode_threads as u64, 0..=1_024),
        ] {
            settings::within(key, value, allowed)?;
        }
        for (key, value, least) in [
            ("drain", self.drain, Duration::ZERO),
            ("limits.frame_time", limits.frame_time, Duration::from_millis(1)),
            ("limits.handshake_time", limits.handshake_time, Duration::from_millis(1)),
            ("limits.idle", limits.idle, Duration::from_millis(1)),
            ("limits.write_stall", limits.write_stall, Duration::from_millis(1)),
            ("limits.wedged_after", limits.wedged_after, Duration::from_millis(1)),
            ("chat.deadline", self.chat.deadline, Duration::from_millis(1)),
            ("chat.first_token", self.chat.first_token, Duration::from_millis(1)),
            ("chat.reader_gone", self.chat.reader_gone, Duration::from_millis(1)),
        ] {
            settings::within_time(key, value, least..=DAY)?;
        }
        self.traces.check()?;
        settings::within_time(
            "limits.longest_deadline",
            limits.longest_deadline,
            Duration::from_millis(1)..=units::LONGEST,
        )
    }

    pub(crate) fn library(&self) -> LibraryChoice {
        if self.onnxruntime.is_empty() {
            LibraryChoice::Search
        } else {
            LibraryChoice::At(PathBuf::from(&self.onnxruntime))
        }
    }

    pub(crate) fn io_threads(&self) -> usize {
        // More than four serve no more calls than the models behind them can answer.
        if self.io_threads > 0 { self.io_threads } else { (cores() / 2).clamp(1, 4) }
    }

    pub(crate) fn rpc(&self) -> rpc::ServerLimits {
        rpc::ServerLimits {
            connections: self.limits.connections,
            calls_per_connection: self.limits.calls_per_connection,
            frame_bytes: self.limits.frame.as_u64() as usize,
            bytes_in_flight: self.limits.bytes_in_flight.as_u64() as usize,
            frame_time: self.limits.frame_time,
            handshake_time: self.limits.handshake_time,
            handshakes: self.limits.handshakes,
            idle: self.limits.idle,
            write_stall: self.limits.write_stall,
            depth: self.limits.depth,
            container: self.limits.container,
        }
    }

    pub(crate) fn streams(&self) -> crate::chat::Limits {
        crate::chat::Limits {
            reader_gone: self.chat.reader_gone,
            kept: self.chat.kept.as_u64() as usize,
            ended: self.chat.ended_streams,
        }
    }

    /// # Errors
    /// One sentence that names the key and the value.
    pub(crate) fn engine(&self) -> Result<engine::Settings, String> {
        let only =
            self.only.iter().map(|name| ModelName::parse(name).map_err(|error| format!("settings: `only`: {error}")));
        let device = match self.device.as_str() {
            "" => None,
            text => Some(text.parse::<DeviceWish>().map_err(|error| format!("settings: `device`: {error}"))?),
        };
        Ok(engine::Settings {
            folders: self.models.clone(),
            only: only.collect::<Result<_, _>>()?,
            device,
            instances: (self.instances > 0).then_some(self.instances),
            decode_threads: if self.limits.decode_threads > 0 { self.limits.decode_threads } else { cores() },
            decoded_bytes: self.limits.decoded.as_u64(),
            pictures: vision::Limits {
                bytes: self.limits.picture.as_u64(),
                pixels: self.limits.pixels,
                edge: self.limits.edge,
            },
            pictures_per_call: self.limits.pictures_per_call,
            texts_per_call: self.limits.texts_per_call,
            top_k: self.limits.top_k,
            preview_px: self.limits.preview_px,
            output_bytes: self.limits.frame.as_u64().saturating_sub(REPLY_HEAD),
            first_token: self.chat.first_token,
            wedged_after: self.limits.wedged_after,
        })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotated_file_has_every_key_with_its_default() {
        let text = include_str!("../../../config/server.toml");
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

    #[test]
    fn a_value_out_of_its_range_is_named_with_the_range() {
        type Change = fn(&mut Settings);
        let wrong: [(Change, &str); 8] = [
            (|it| it.limits.frame = Size::bytes(0), "`limits.frame` is 0, allowed is 1024 to 268435455"),
            (
                |it| it.limits.bytes_in_flight = Size::mib(1),
                "`limits.bytes_in_flight` is 1048576, allowed is 16384000 to",
            ),
            (|it| it.limits.connections = 0, "`limits.connections` is 0, allowed is 1 to"),
            (|it| it.limits.calls_per_connection = 0, "`limits.calls_per_connection` is 0"),
            (|it| it.limits.top_k = 0, "`limits.top_k` is 0"),
            (|it| it.io_threads = 5_000, "`io_threads` is 5000, allowed is 0 to 1024"),
            (
                |it| it.limits.longest_deadline = Duration::ZERO,
                "`limits.longest_deadline` is 0ns, allowed is 1ms to 600s",
            ),
            (|it| it.drain = Duration::MAX, "`drain` is"),
        ];
        assert!(Settings::default().check().is_ok());
        for (change, says) in wrong {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.check().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
