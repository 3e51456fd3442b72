//! Pictures in a store that speaks S3's protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, Error, ObjectStore as _, ObjectStoreExt as _, RetryConfig};

use crate::day::Day;
use crate::record::RecordId;
use crate::settings::S3 as Settings;
use crate::store::{Answer, Kind, Pictures, StoreError, place};

/// Pictures in a bucket.
#[derive(Clone, Debug)]
pub struct S3(Arc<AmazonS3>);

impl S3 {
    /// Does not connect yet.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub fn open(settings: &Settings, timeout: Duration) -> Result<Self, String> {
        // Once for the process; somebody else's choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = ClientOptions::new()
            .with_allow_http(settings.endpoint.starts_with("http://"))
            .with_connect_timeout(timeout)
            .with_timeout(timeout);
        for certificate in certificates(&settings.ca)? {
            client = client.with_root_certificate(certificate);
        }
        // Whoever asks tries again by himself.
        let retry = RetryConfig { max_retries: 1, retry_timeout: timeout, ..RetryConfig::default() };
        let store = AmazonS3Builder::new()
            .with_endpoint(&settings.endpoint)
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_access_key_id(&settings.access_key)
            .with_secret_access_key(&settings.secret_key)
            .with_client_options(client)
            .with_retry(retry)
            .build();
        store.map(|store| Self(Arc::new(store))).map_err(|error| format!("settings: `history.s3`: {}", chain(&error)))
    }
}

/// Those of a file; none where no file is named.
fn certificates(file: &std::path::Path) -> Result<Vec<Certificate>, String> {
    if file.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let unusable = |reason: String| format!("settings: `history.s3.ca`: {}: {reason}", file.display());
    let text = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&text).map_err(|error| unusable(chain(&error)))?;
    if found.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

/// An error with everything that led to it: what is wrong with a certificate stands at the end.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

fn failed(error: Error) -> StoreError {
    StoreError::Away { store: "store of pictures", reason: chain(&error) }
}

fn absent_is_fine<T: Default>(done: Result<T, Error>) -> Result<T, StoreError> {
    match done {
        Err(Error::NotFound { .. }) => Ok(T::default()),
        done => done.map_err(failed),
    }
}

fn path(id: RecordId, kind: Kind) -> Path {
    Path::from(place(id, kind))
}

impl Pictures for S3 {
    fn put(&self, id: RecordId, kind: Kind, bytes: Bytes) -> Answer<'_, ()> {
        Box::pin(async move { self.0.put(&path(id, kind), bytes.into()).await.map(drop).map_err(failed) })
    }

    fn get(&self, id: RecordId, kind: Kind) -> Answer<'_, Option<Bytes>> {
        Box::pin(async move {
            match self.0.get(&path(id, kind)).await {
                Ok(found) => found.bytes().await.map(Some).map_err(failed),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failed(error)),
            }
        })
    }

    fn delete(&self, id: RecordId) -> Answer<'_, ()> {
        Box::pin(async move {
            absent_is_fine(self.0.delete(&path(id, Kind::Picture)).await)?;
            absent_is_fine(self.0.delete(&path(id, Kind::Preview)).await)
        })
    }

    fn expire(&self, before: Day) -> Answer<'_, ()> {
        Box::pin(async move {
            let days = self.0.list_with_delimiter(None).await.map_err(failed)?.common_prefixes;
            for folder in days {
                // Folders of other names are none of ours.
                let day = folder.filename().and_then(Day::parse);
                if day.is_none_or(|day| day >= before) {
                    continue;
                }
                let paths = self.0.list(Some(&folder)).map_ok(|found| found.location).boxed();
                self.0.delete_stream(paths).try_for_each(|_| async { Ok(()) }).await.map_err(failed)?;
            }
            Ok(())
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            // No such object, but the bucket is asked.
            match self.0.head(&Path::from("0000-00-00/none")).await {
                Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(failed(error)),
            }
        })
    }
}
