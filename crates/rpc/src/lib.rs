//! This crate knows how to carry framed Thrift calls over tokio.
//!
//! Why: the Apache crate's server gives a thread to each connection and knows no deadline, limit or drain, and its client
//! has one call in flight. Here a connection carries many calls at once, every resource that a peer can use up has a
//! limit, and leaving cancels.
//!
//! [`Server`] accepts connections and hands calls to a [`Service`]; [`Channel`] is the client, over one or more
//! endpoints. Neither knows a method: requests and replies are encoded by `wire`, described by `idl`.
//! Not here: the bytes of a message (`wire`), what a call means (`server`), opening the process to signals (`chassis`).

mod budget;
mod calls;
mod channel;
mod connection;
mod drain;
mod endpoint;
mod error;
mod handshake;
mod inbound;
mod keeper;
mod limits;
mod link;
mod load;
mod members;
mod observe;
mod outbound;
mod peer;
mod ping;
mod resolver;
mod retry;
mod server;
mod service;
mod socket;
mod tls;

pub use channel::{CallOptions, CancelCall, Channel, ChannelConfig};
pub use drain::{Drain, DrainHandle};
pub use endpoint::{Endpoint, EndpointError, EndpointId, EndpointState};
pub use error::ChannelError;
pub use limits::ServerLimits;
pub use load::Ejection;
pub use observe::{ChannelStats, HandshakeFailure, Limit, Observe, ObserveChannel, ServerStats};
pub use peer::{CallContext, Peer};
pub use ping::{Ping, Pong};
pub use resolver::{Found, Lookup};
pub use server::Server;
pub use service::{CallFuture, Instead, Refusal, Service};
pub use tls::{
    ClientTls, ClientTlsSettings, ServerTls, ServerTlsSettings, TlsChange, TlsError, TlsVersion, UnknownVersion,
};

#[cfg(test)]
mod testing;
