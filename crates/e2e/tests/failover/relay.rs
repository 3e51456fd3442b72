//! What lies between the gateways and a server: passes everything on, slows it down, or resets connections.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// An answer takes about a millisecond.
const SLOW: Duration = Duration::from_millis(20);

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Pass,
    /// Holds each piece of an answer back.
    Slow,
    /// Resets the connections that are there, and each new one.
    Reset,
}

/// The relay; ends when dropped.
pub(crate) struct Relay {
    mode: watch::Sender<Mode>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Relay {
    /// A relay to this address, on a port of its own.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mode = watch::Sender::new(Mode::Pass);
        let modes = mode.clone();
        runtime.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("connections can be accepted");
                tokio::spawn(pass(client, server, modes.subscribe()));
            }
        });
        Self { mode, address, _runtime: runtime }
    }

    /// From now on it does this.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn pass(client: TcpStream, server: SocketAddr, mut mode: watch::Receiver<Mode>) {
    client.set_nodelay(true).expect("a socket takes it");
    // Closed in whatever way, the peer gets a reset.
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket takes it");
    if *mode.borrow() == Mode::Reset {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    server.set_nodelay(true).expect("a socket takes it");
    let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    let answers = answers(from_server, to_client, mode.clone());
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = answers => {}
        _ = mode.wait_for(|mode| *mode == Mode::Reset) => {}
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<Mode>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let slow = *mode.borrow() == Mode::Slow;
        if slow {
            tokio::time::sleep(SLOW).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
