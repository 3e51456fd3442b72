//! What one server lets its peers use, in numbers.

use std::time::Duration;

use wire::{DecodeLimits, FrameLimits};

/// The limits of a [`Server`](crate::Server). Hitting one is told to [`Observe::limit`](crate::Observe::limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Most open connections. One more is accepted and closed, so that its owner notices at once.
    pub connections: usize,
    /// Most calls in flight on one connection; more are answered by [`Service::refuse`](crate::Service::refuse).
    pub calls_per_connection: usize,
    /// Most bytes of a frame's payload. A frame over it is answered with a `TApplicationException` and ends the
    /// connection.
    pub frame_bytes: usize,
    /// Most bytes of frames that are being read, worked on or answered, over all connections. Taken before a body is
    /// read, released when the answer is written; who finds none waits in line for at most `frame_time`, then is
    /// refused. On top of it every connection may own 4 KiB. Values below `frame_bytes` act as that, values above
    /// 1 GiB as 1 GiB.
    pub bytes_in_flight: usize,
    /// Within this time a started frame must be complete.
    pub frame_time: Duration,
    /// A connection without calls is closed after this time without a byte.
    pub idle: Duration,
    /// A connection that takes none of the bytes waiting for it is closed after this time.
    pub write_stall: Duration,
    /// Deepest nesting of structs in a message, 64 at most.
    pub depth: usize,
    /// Most elements of all containers of one message together.
    pub container: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            calls_per_connection: 1_024,
            frame_bytes: FrameLimits::default().frame_bytes,
            bytes_in_flight: 256 << 20,
            frame_time: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            // As long as a frame may take to come in twice over: slow links are common, dead ones reset earlier.
            write_stall: Duration::from_secs(20),
            depth: DecodeLimits::DEEPEST,
            container: 1_000_000,
        }
    }
}

impl ServerLimits {
    pub(crate) fn frame(&self) -> FrameLimits {
        FrameLimits { frame_bytes: self.frame_bytes }
    }

    pub(crate) fn decode(&self) -> DecodeLimits {
        DecodeLimits { depth: self.depth, container: self.container, ..DecodeLimits::default() }
    }
}
