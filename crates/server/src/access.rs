//! Who calls, and whether they may: the keys of calls.
//!
//! Promises: with a file of keys no model is run, listed or told about without one, but by `Health.check`, which orchestrators ask
//! that have none; a key is in no log. What a caller calls itself (`base.caller`) opens nothing.
//! Not here: the file (`keys`), following it (`chassis`).

use std::sync::Arc;
use std::time::SystemTime;

use chassis::keyring::Keyring;
use fault::{Fault, Kind};
use idl::base::Base;
use keys::{Refusal, Scope};
use rpc::Peer;
use units::CallerId;

use crate::metrics::ServerMetrics;

/// Asks callers for their keys.
pub(crate) struct Access {
    keyring: Option<Arc<Keyring>>,
    metrics: Arc<ServerMetrics>,
}

/// Who may cancel a call: whoever has shown the same key, on any connection; without keys the connection that made it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Maker {
    Caller(CallerId),
    Connection(u64),
}

impl Access {
    /// Without a keyring everyone may call.
    pub(crate) fn new(keyring: Option<Arc<Keyring>>, metrics: Arc<ServerMetrics>) -> Self {
        Self { keyring, metrics }
    }

    /// Who makes a call that needs `scope`, or any key where that is `None`.
    ///
    /// # Errors
    /// Unauthenticated and Forbidden.
    pub(crate) fn check(&self, base: Option<&Base>, peer: &Peer, scope: Option<Scope>) -> Result<CallerId, Fault> {
        let Some(keyring) = &self.keyring else { return Ok(peer.caller()) };
        let Some(key) = base.and_then(|base| base.key.as_deref()).filter(|key| !key.is_empty()) else {
            self.metrics.refused_key("no_key");
            return Err(Fault::new(Kind::Unauthenticated, "a key is needed here").with_param("base.key"));
        };
        match keyring.keys().admit(key, scope, SystemTime::now()) {
            Ok(entry) => Ok(CallerId::verified(&entry.name)),
            Err(refusal) => {
                self.metrics.refused_key(refusal.name());
                let kind = match refusal {
                    Refusal::Scope { .. } => Kind::Forbidden,
                    Refusal::Malformed(_) | Refusal::Unknown | Refusal::Expired { .. } => Kind::Unauthenticated,
                };
                Err(Fault::new(kind, refusal.to_string()).with_param("base.key"))
            }
        }
    }

    /// What a method needs: to see what is served, any key.
    pub(crate) fn need(method: &str) -> Option<Scope> {
        (method != "models").then_some(Scope::Infer)
    }

    /// By whom a call of this caller can be cancelled.
    pub(crate) fn maker(&self, caller: &CallerId, peer: &Peer) -> Maker {
        match self.keyring {
            Some(_) => Maker::Caller(caller.clone()),
            None => Maker::Connection(peer.connection),
        }
    }
}
