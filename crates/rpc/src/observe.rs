//! What a server and a channel tell whoever counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wire::Sniffed;

use crate::Refusal;

/// A limit that made the server refuse or close something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Open connections.
    Connections,
    /// Calls in flight on one connection.
    CallsPerConnection,
    /// Bytes of one frame.
    FrameBytes,
    /// Bytes in flight in the process.
    BytesInFlight,
    /// Time to finish a started frame.
    FrameTime,
    /// Time without any call.
    Idle,
    /// Time for taking the answers that wait.
    WriteStall,
    /// Time for a TLS handshake.
    HandshakeTime,
    /// TLS handshakes at the same time.
    Handshakes,
    /// Nesting of structs in a call.
    Depth,
    /// Elements of all containers of a call, or structs.
    Container,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 11] = [
        Self::Connections,
        Self::CallsPerConnection,
        Self::FrameBytes,
        Self::BytesInFlight,
        Self::FrameTime,
        Self::Idle,
        Self::WriteStall,
        Self::HandshakeTime,
        Self::Handshakes,
        Self::Depth,
        Self::Container,
    ];

    /// The name for a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::CallsPerConnection => "calls_per_connection",
            Self::FrameBytes => "frame_bytes",
            Self::BytesInFlight => "bytes_in_flight",
            Self::FrameTime => "frame_time",
            Self::Idle => "idle",
            Self::WriteStall => "write_stall",
            Self::HandshakeTime => "handshake_time",
            Self::Handshakes => "handshakes",
            Self::Depth => "depth",
            Self::Container => "container",
        }
    }
}

/// Why a connection did not get through the TLS handshake, other than by a [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// It spoke without TLS.
    Plain,
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is not trusted, has expired, is for something else or names nobody.
    Certificate,
    /// It did not accept this side's certificate or terms.
    Refused,
    /// It left.
    Left,
    /// It broke the protocol, or has no version or cipher in common with this side.
    Protocol,
}

impl HandshakeFailure {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Plain, Self::NoCertificate, Self::Certificate, Self::Refused, Self::Left, Self::Protocol];

    /// The name for a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::NoCertificate => "no_certificate",
            Self::Certificate => "certificate",
            Self::Refused => "refused",
            Self::Left => "left",
            Self::Protocol => "protocol",
        }
    }
}

/// Hears of everything worth a metric. Called on connection tasks: implementations must be quick and must not block.
#[expect(unused_variables, reason = "the names tell what is passed")]
pub trait Observe: Send + Sync + 'static {
    /// A connection was accepted.
    fn connection_opened(&self) {}
    /// An accepted connection has ended.
    fn connection_closed(&self) {}
    /// `accept` failed, such as for want of file descriptors.
    fn accept_failed(&self) {}
    /// A limit made the server refuse a call or close a connection.
    fn limit(&self, limit: Limit) {}
    /// A connection brought something that is not served here; it was answered where possible, and closed.
    fn sniffed(&self, what: Sniffed) {}
    /// A connection has not got through the TLS handshake.
    fn handshake_failed(&self, why: HandshakeFailure) {}
    /// New connections are shown a certificate that ends then: at the start, and when its files have changed.
    fn certificate(&self, expires: SystemTime) {}
    /// The changed files of the certificate cannot be used; what was there before is.
    fn certificate_unusable(&self) {}
    /// A frame of `bytes` payload bytes is complete; `took` is from its first byte to its last.
    fn frame_read(&self, bytes: usize, took: Duration) {}
    /// A call was handed to the service.
    fn call_started(&self) {}
    /// A call was answered, or dropped because its caller left.
    fn call_ended(&self) {}
    /// A call was refused: it reached neither the service's `call`, nor an answer of its own in `refuse`.
    fn call_refused(&self, why: Refusal) {}
    /// A handler panicked; its caller got an internal error.
    fn handler_panicked(&self) {}
    /// So many bytes more are in flight, of frames or of answers. Always told before they are told of as released.
    fn bytes_taken(&self, bytes: usize) {}
    /// So many bytes fewer are in flight.
    fn bytes_released(&self, bytes: usize) {}
    /// A batch of `bytes` has been handed to the kernel; `took` is since its first reply was ready.
    fn batch_written(&self, bytes: usize, took: Duration) {}
}

/// Hears of what a channel does about servers that fail. Never called for what goes well.
pub trait ObserveChannel: Send + Sync + 'static {
    /// A server was left out of choice, see [`Ejection`](crate::Ejection).
    fn ejected(&self) {}
    /// A connection was given up because nothing came from the server for too long.
    fn hung(&self) {}
    /// A name resolves to one server more.
    fn joined(&self) {}
    /// A name resolves to a server no more.
    fn left(&self) {}
    /// A call was sent once more.
    fn repeated(&self) {}
    /// A call was not sent once more because too many were lately.
    fn over_budget(&self) {}
}

/// Counts what a channel does about servers that fail.
#[derive(Debug, Default)]
pub struct ChannelStats {
    /// Servers left out of choice.
    pub ejected: AtomicU64,
    /// Connections given up because nothing came.
    pub hung: AtomicU64,
    /// Servers to which names began to resolve.
    pub joined: AtomicU64,
    /// Servers to which names resolve no more.
    pub left: AtomicU64,
    /// Calls sent once more.
    pub repeated: AtomicU64,
    /// Calls not sent once more because too many were.
    pub over_budget: AtomicU64,
}

impl ObserveChannel for ChannelStats {
    fn ejected(&self) {
        self.ejected.fetch_add(1, Relaxed);
    }

    fn hung(&self) {
        self.hung.fetch_add(1, Relaxed);
    }

    fn joined(&self) {
        self.joined.fetch_add(1, Relaxed);
    }

    fn left(&self) {
        self.left.fetch_add(1, Relaxed);
    }

    fn repeated(&self) {
        self.repeated.fetch_add(1, Relaxed);
    }

    fn over_budget(&self) {
        self.over_budget.fetch_add(1, Relaxed);
    }
}

/// Counts everything and remembers sums: enough for tests and for a status line.
#[derive(Debug, Default)]
pub struct ServerStats {
    /// Connections open now.
    pub connections: AtomicUsize,
    /// Connections accepted since start.
    pub connections_total: AtomicU64,
    /// Failed calls of `accept`.
    pub accept_failures: AtomicU64,
    /// Calls in flight now.
    pub calls: AtomicUsize,
    /// Calls handed to the service since start.
    pub calls_total: AtomicU64,
    /// Calls refused since start.
    pub refused_total: AtomicU64,
    /// Handlers that panicked.
    pub panics_total: AtomicU64,
    /// Bytes of frames and of waiting answers in flight now.
    pub bytes_in_flight: AtomicUsize,
    /// Complete frames since start.
    pub frames_total: AtomicU64,
    /// Payload bytes of those frames.
    pub bytes_in_total: AtomicU64,
    /// Bytes written since start.
    pub bytes_out_total: AtomicU64,
    /// Connections that brought something else than framed Thrift.
    pub sniffed_total: AtomicU64,
    /// When the certificate in use ends, in seconds of Unix time; 0: there is none.
    pub certificate_expires: AtomicU64,
    /// How often changed files of the certificate could not be used.
    pub certificates_unusable: AtomicU64,
    handshakes: [AtomicU64; HandshakeFailure::ALL.len()],
    limits: [AtomicU64; Limit::ALL.len()],
}

impl ServerStats {
    /// How often `limit` was hit.
    pub fn limit_hits(&self, limit: Limit) -> u64 {
        self.limits[limit as usize].load(Relaxed)
    }

    /// How many TLS handshakes failed for this reason.
    pub fn handshakes_failed(&self, why: HandshakeFailure) -> u64 {
        self.handshakes[why as usize].load(Relaxed)
    }
}

impl Observe for ServerStats {
    fn connection_opened(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
    }

    fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    fn accept_failed(&self) {
        self.accept_failures.fetch_add(1, Relaxed);
    }

    fn limit(&self, limit: Limit) {
        self.limits[limit as usize].fetch_add(1, Relaxed);
    }

    fn sniffed(&self, _what: Sniffed) {
        self.sniffed_total.fetch_add(1, Relaxed);
    }

    fn handshake_failed(&self, why: HandshakeFailure) {
        self.handshakes[why as usize].fetch_add(1, Relaxed);
    }

    fn certificate(&self, expires: SystemTime) {
        let expires = expires.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.certificate_expires.store(expires, Relaxed);
    }

    fn certificate_unusable(&self) {
        self.certificates_unusable.fetch_add(1, Relaxed);
    }

    fn frame_read(&self, bytes: usize, _took: Duration) {
        self.frames_total.fetch_add(1, Relaxed);
        self.bytes_in_total.fetch_add(bytes as u64, Relaxed);
    }

    fn call_started(&self) {
        self.calls.fetch_add(1, Relaxed);
        self.calls_total.fetch_add(1, Relaxed);
    }

    fn call_ended(&self) {
        self.calls.fetch_sub(1, Relaxed);
    }

    fn call_refused(&self, _why: Refusal) {
        self.refused_total.fetch_add(1, Relaxed);
    }

    fn handler_panicked(&self) {
        self.panics_total.fetch_add(1, Relaxed);
    }

    fn bytes_taken(&self, bytes: usize) {
        self.bytes_in_flight.fetch_add(bytes, Relaxed);
    }

    fn bytes_released(&self, bytes: usize) {
        self.bytes_in_flight.fetch_sub(bytes, Relaxed);
    }

    fn batch_written(&self, bytes: usize, _took: Duration) {
        self.bytes_out_total.fetch_add(bytes as u64, Relaxed);
    }
}
