//! The key that this gateway shows to the servers.
//!
//! Promises: where it lies in a file, a new one is shown within seconds of the change. It is shown nowhere else, and in no log.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chassis::followed::Followed;
use idl::base::Base;
use keys::Secret;
use tracing::{info, warn};
use units::{CallId, RequestId};

use crate::settings::Settings;

/// Where the key comes from.
#[derive(Clone)]
pub(crate) enum ServerKey {
    /// The servers ask for none.
    None,
    /// From the settings.
    Fixed(Arc<Secret>),
    /// From a file.
    File(Arc<Followed<Secret>>),
}

impl ServerKey {
    /// # Errors
    /// One sentence that names the setting.
    pub(crate) fn open(settings: &Settings) -> Result<Self, String> {
        let (text, file) = (settings.server_key.trim(), settings.server_key_file.as_path());
        match (text.is_empty(), file.as_os_str().is_empty()) {
            (true, true) => Ok(Self::None),
            (false, true) => {
                let secret = Secret::parse(text).map_err(|error| format!("settings: `server_key`: {error}"))?;
                Ok(Self::Fixed(Arc::new(secret)))
            }
            (true, false) => {
                let opened = Followed::open(file, read);
                Ok(Self::File(Arc::new(opened.map_err(|error| format!("settings: `server_key_file`: {error}"))?)))
            }
            (false, false) => {
                Err("settings: there are a `server_key` and a `server_key_file`, allowed is one of them".to_owned())
            }
        }
    }

    /// Follows the file, for ever.
    pub(crate) async fn follow(self) {
        let Self::File(file) = self else { return };
        let path = file.path().display().to_string();
        let told = |read: Result<&Secret, &str>| match read {
            Ok(_) => info!(file = path, "key for the servers read"),
            Err(error) => warn!(error, "the file of the key for the servers cannot be used, the one before is shown"),
        };
        Arc::clone(&file).follow(told).await;
    }

    /// What every call carries.
    pub(crate) fn base(&self, request_id: &RequestId, call_id: CallId) -> Base {
        Base {
            request_id: Some(request_id.as_str().to_owned()),
            caller: Some("gateway".to_owned()),
            call_id: Some(Bytes::copy_from_slice(&call_id.0)),
            key: self.text(),
            ..Base::default()
        }
    }

    /// The key itself.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Fixed(secret) => Some(secret.expose().to_owned()),
            Self::File(file) => Some(file.now().expose().to_owned()),
        }
    }
}

fn read(path: &Path) -> Result<Secret, String> {
    keys::read_secret(path).map_err(|error| error.to_string())
}
