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
    /// Most bytes of frames that are being read, worked on or answered, over all connections, and of answers that wait
    /// for their peers to read them. A frame's are taken before its body is read and released when its answer is
    /// written; who finds none waits in line for at most `frame_time`, then is refused. An answer's are counted from
    /// when it waits, also when there is no room for it: then nobody's frame gets any until there is. So the process
    /// holds at most this, and what the calls answer that were in flight when it was reached. On top of it every
    /// connection may own 4 KiB, and with TLS its state and a record of 16 KiB. Values below `frame_bytes` act as that,
    /// values above 1 GiB as 1 GiB.
    pub bytes_in_flight: usize,
    /// Within this time a started frame must be complete.
    pub frame_time: Duration,
    /// Within this time after it was accepted a connection must be through its TLS handshake.
    pub handshake_time: Duration,
    /// Most connections in a TLS handshake, or that are told that they speak without TLS. For one more the address that
    /// has most of them loses its oldest, so that nobody closes the door to others; among addresses with as many one that
    /// has said nothing is closed, else the new one. All of them notice at once. Addresses of IPv6 count by networks of
    /// 64 bits.
    pub handshakes: usize,
    /// A connection without calls is closed after this time without a byte.
    pub idle: Duration,
    /// Within this time a connection must take the answers that wait for it, or as many bytes of them as a frame may
    /// have (`frame_bytes`, at least 1 MiB); else it is closed. Just as it must send a whole frame within `frame_time`.
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
            handshake_time: Duration::from_secs(5),
            // As many as come back at once when a server of a large site was started again.
            handshakes: 1_024,
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

    /// What a connection must take within `write_stall`, when more waits.
    pub(crate) fn stride(&self) -> usize {
        self.frame().bytes().max(1 << 20)
    }

    pub(crate) fn decode(&self) -> DecodeLimits {
        DecodeLimits { depth: self.depth, container: self.container, ..DecodeLimits::default() }
    }
}
