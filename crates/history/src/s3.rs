//! Pictures in a store that speaks S3's protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore as _, ObjectStoreExt as _, RetryConfig};

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
    /// When the settings make no sense.
    pub fn open(settings: &Settings, timeout: Duration) -> Result<Self, StoreError> {
        // Once for the process; somebody else's choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ClientOptions::new()
            .with_allow_http(settings.endpoint.starts_with("http://"))
            .with_connect_timeout(timeout)
            .with_timeout(timeout);
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
        store.map(|store| Self(Arc::new(store))).map_err(failed)
    }
}

fn failed(error: Error) -> StoreError {
    StoreError::Away { store: "store of pictures", reason: error.to_string() }
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
