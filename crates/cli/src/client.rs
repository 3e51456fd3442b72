//! One server, called over Thrift.

use std::time::{Duration, Instant};

use idl::HasBase;
use keys::Secret;
use rpc::{CallOptions, Channel, ChannelConfig, ClientTls, ClientTlsSettings, Endpoint};
use units::{Deadline, RequestId};
use wire::{Method, Outgoing, TSerializable};

use crate::args::{OwnKey, OwnTls};
use crate::exit::{Failure, USAGE};

/// Holds the key where no file does.
const VARIABLE: &str = "OUTBOARD_KEY";

/// A client of one server.
pub(crate) struct Client {
    channel: Channel,
    /// Shown with each call.
    key: Option<Secret>,
    timeout: Duration,
    /// Of all calls together.
    end: Option<Deadline>,
}

impl Client {
    /// Each call has this time. Must be made inside a tokio runtime.
    pub(crate) fn new(address: &str, key: &OwnKey, tls: &OwnTls, timeout: Duration) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(address).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        let config = ChannelConfig { connect_timeout: timeout, tls: tls.read()?, ..ChannelConfig::default() };
        Ok(Self { channel: Channel::new(vec![endpoint], config), key: key.read()?, timeout, end: None })
    }

    /// As [`Client::new`], but the time, which begins now, is that of all calls together.
    pub(crate) fn with_one_deadline(
        address: &str,
        key: &OwnKey,
        tls: &OwnTls,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let end = Some(Deadline::after(Instant::now(), timeout));
        Ok(Self { end, ..Self::new(address, key, tls, timeout)? })
    }

    pub(crate) async fn call<Q, R>(&self, method: &Method<Q, R, idl::fault::Fault>, request: Q) -> Result<R, Failure>
    where
        Q: Outgoing + HasBase,
        R: TSerializable,
    {
        let deadline = self.end.unwrap_or_else(|| Deadline::after(Instant::now(), self.timeout));
        self.call_until(method, request, deadline).await
    }

    /// As [`Client::call`], with a time of its own.
    pub(crate) async fn call_until<Q, R>(
        &self,
        method: &Method<Q, R, idl::fault::Fault>,
        mut request: Q,
        deadline: Deadline,
    ) -> Result<R, Failure>
    where
        Q: Outgoing + HasBase,
        R: TSerializable,
    {
        let base = request.base_mut();
        base.request_id = Some(RequestId::generate().as_str().to_owned());
        base.caller = Some("outboard".to_owned());
        base.key = self.key.as_ref().map(|key| key.expose().to_owned());
        let answer = self.channel.call(method, &mut request, CallOptions::new(deadline)).await;
        answer.map_err(|error| Failure::of_channel(&error))?.map_err(Failure::of_fault)
    }
}

impl OwnKey {
    /// The key of the file, else of the environment.
    fn read(&self) -> Result<Option<Secret>, Failure> {
        let unusable = |error: String| Failure::new(USAGE, error);
        if let Some(file) = &self.key_file {
            return keys::read_secret(file).map(Some).map_err(|error| unusable(format!("--key-file: {error}")));
        }
        match std::env::var(VARIABLE) {
            Ok(text) if !text.trim().is_empty() => {
                Secret::parse(text.trim()).map(Some).map_err(|error| unusable(format!("{VARIABLE}: {error}")))
            }
            _ => Ok(None),
        }
    }
}

impl OwnTls {
    /// What a channel needs for it; `None` without TLS.
    fn read(&self) -> Result<Option<ClientTls>, Failure> {
        if !self.tls {
            return Ok(None);
        }
        let settings = ClientTlsSettings {
            ca: self.tls_ca.clone(),
            certificate: self.tls_cert.clone().zip(self.tls_key.clone()),
            server_name: self.tls_server_name.clone(),
        };
        ClientTls::new(settings).map(Some).map_err(|error| Failure::new(USAGE, format!("--tls: {error}")))
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(crate::exit::NO, format!("no runtime: {error}")))?.block_on(future)
}
