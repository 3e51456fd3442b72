//! Over an in-memory pipe and with paused time, so that every limit on time is met without waiting for it.

mod calls;
mod drain;
mod frames;
mod limits;
mod memory;
mod strangers;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use wire::{ApplicationErrorKind, Protocol, ResponseError};

use super::reading::{BATCH, OUT_ENOUGH};
use super::timing::LET_GO;
use super::*;
use crate::testing::{Note, Notes, Raw, call, text_call};
use crate::{Drain, DrainHandle, Limit, ServerLimits, ServerStats};

/// What the pipe takes before its writer has to wait.
const PIPE: usize = 64 << 10;

const MB: usize = 1 << 20;

/// A server without sockets.
struct Bench {
    notes: Arc<Notes>,
    stats: Arc<ServerStats>,
    drain: DrainHandle,
    shared: Arc<Shared<Notes>>,
}

fn bench(limits: ServerLimits) -> Bench {
    let (notes, stats) = (Arc::new(Notes::default()), Arc::new(ServerStats::default()));
    let (handle, drain) = Drain::new(Drain::LIMIT);
    let shared = Arc::new(Shared::new(Arc::clone(&notes), limits, Arc::clone(&stats) as _, drain));
    Bench { notes, stats, drain: handle, shared }
}

impl Bench {
    fn connect(&self) -> (Raw<DuplexStream>, JoinHandle<()>) {
        self.connect_to(Connection::new)
    }

    /// As one that may not call.
    fn connect_refused(&self, why: &str) -> (Raw<DuplexStream>, JoinHandle<()>) {
        self.connect_to(|io, peer, shared| Connection::refused(io, peer, shared, why.to_owned()))
    }

    fn connect_to(
        &self,
        new: impl FnOnce(DuplexStream, Arc<Peer>, Arc<Shared<Notes>>) -> Connection<DuplexStream, Notes>,
    ) -> (Raw<DuplexStream>, JoinHandle<()>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let peer = Peer::new("192.0.2.1:1".parse().expect("an address"), NEXT.fetch_add(1, Relaxed));
        let task = tokio::spawn(new(theirs, Arc::new(peer), Arc::clone(&self.shared)).run());
        (Raw::over(ours), task)
    }

    fn in_flight(&self) -> usize {
        self.stats.bytes_in_flight.load(Relaxed)
    }
}

fn default_bench() -> Bench {
    bench(ServerLimits::default())
}

fn application_kind(response: &wire::Response) -> ApplicationErrorKind {
    match response.result::<Note, Note>() {
        Err(ResponseError::Application { kind, .. }) => kind,
        other => panic!("expected an application exception, got {other:?}"),
    }
}
