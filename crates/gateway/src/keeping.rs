//! What of an answer goes into the history.
//!
//! Promises: an answer never waits for a store; one that asked to be kept waits for the disk, and for no longer than
//! `history.acknowledge`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::web;
use bytes::Bytes;
use fault::{Fault, Kind};
use history::settings::ApiKind;
use history::{Entry, Record, RecordId, Score, Source, Timing, file_name};
use idl::inference::{Classification, ClassifyReply};
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::ask::Ask;
use crate::classify::Wanted;
use crate::site::Site;

/// The most labels of a record: what lies below is noise, and a record stays small.
const LABELS: usize = 10;

/// What will be kept of a request, once it is answered.
pub(crate) struct Keeping {
    images: Vec<Bytes>,
    names: Vec<String>,
    model: String,
    source: Source,
}

/// Which records were made of an answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeptBody {
    /// One for each picture, in order.
    #[schema(value_type = Vec<String>)]
    ids: Vec<RecordId>,
    /// They can no longer be lost. Where this is false, the disk was too slow or too full for a promise.
    acknowledged: bool,
}

/// Records on their way to the disk.
pub(crate) struct Kept {
    pub(crate) ids: Vec<RecordId>,
    receipts: Vec<oneshot::Receiver<bool>>,
}

impl Keeping {
    /// None when nothing of it is to be kept.
    pub(crate) fn of(site: &web::Data<Site>, wanted: &Wanted, source: Source) -> Option<Self> {
        site.process.history.as_ref()?;
        let settings = &site.process.settings.history;
        let keep = match (source, settings.api) {
            (Source::Page, _) => settings.pages,
            (Source::Api, ApiKind::None) => false,
            (Source::Api, ApiKind::Asked) => wanted.keep == Some(true),
            (Source::Api, ApiKind::All) => wanted.keep != Some(false),
        };
        keep.then(|| Self {
            // The bytes themselves are shared.
            images: wanted.images.clone(),
            names: wanted.names.clone(),
            model: wanted.model.clone(),
            source,
        })
    }

    /// Hands everything over, without waiting.
    pub(crate) fn answered(self, site: &web::Data<Site>, ask: &Ask, reply: &Result<ClassifyReply, Fault>) -> Kept {
        let mut kept = Kept { ids: Vec::new(), receipts: Vec::new() };
        let Some(history) = &site.process.history else { return kept };
        for (place, image) in self.images.iter().enumerate() {
            let entry = match reply {
                Ok(reply) => {
                    let Some(one) = reply.results.as_ref().and_then(|all| all.get(place)) else { continue };
                    self.entry(ask, place, image, reply, one)
                }
                Err(fault) if is_of_the_picture(fault) => self.failure(ask, place, image, fault),
                Err(_) => continue,
            };
            kept.ids.push(entry.record.id);
            kept.receipts.push(history.keep(entry));
        }
        kept
    }

    fn entry(&self, ask: &Ask, place: usize, image: &Bytes, reply: &ClassifyReply, one: &Classification) -> Entry {
        let labels = one.labels.iter().flatten().take(LABELS).map(|label| Score {
            label: label.label.clone().unwrap_or_default(),
            index: label.index.unwrap_or(0),
            score: label.score.map_or(0.0, |score| score.0),
        });
        let pixels = |value: Option<i32>| value.unwrap_or(0).max(0).unsigned_abs();
        let record = Record {
            version: reply.version.clone().unwrap_or_default(),
            format: one.format.clone().unwrap_or_default(),
            width: pixels(one.width),
            height: pixels(one.height),
            labels: labels.collect(),
            ..self.record(ask, place, image)
        };
        Entry { record, picture: Some(image.clone()), preview: one.preview.clone() }
    }

    /// Without the picture: nobody knows that it is one.
    fn failure(&self, ask: &Ask, place: usize, image: &Bytes, fault: &Fault) -> Entry {
        let record = Record { outcome: fault.code().to_owned(), ..self.record(ask, place, image) };
        Entry { record, picture: None, preview: None }
    }

    fn record(&self, ask: &Ask, place: usize, image: &Bytes) -> Record {
        let server = ask.told.server;
        let micros = |time: Duration| time.as_micros() as u64;
        Record {
            id: RecordId::generate(),
            request_id: ask.names.request_id.as_str().to_owned(),
            caller: ask.caller(),
            source: self.source,
            model: self.model.clone(),
            version: String::new(),
            file_name: self.names.get(place).map(|name| file_name::safe(name)).unwrap_or_default(),
            format: String::new(),
            bytes: image.len() as u64,
            sha256: String::new(),
            width: 0,
            height: 0,
            labels: Vec::new(),
            timing: Timing {
                decode_us: micros(server.decode),
                queue_us: micros(server.queue),
                run_us: micros(server.run),
                total_us: micros(ask.received.elapsed()),
            },
            outcome: "ok".to_owned(),
            kept_bytes: 0,
            has_preview: false,
            correction: None,
        }
    }
}

impl Kept {
    /// Waits for the disk, at most `limit`.
    pub(crate) async fn acknowledged(self, limit: Duration) -> KeptBody {
        let all = futures_util::future::join_all(self.receipts);
        let told = tokio::time::timeout(limit, all).await;
        let acknowledged = told.is_ok_and(|told| told.into_iter().all(|receipt| receipt == Ok(true)));
        KeptBody { ids: self.ids, acknowledged }
    }
}

/// What was wrong with a picture, or happened to it, is worth a record; that no server was there is not.
fn is_of_the_picture(fault: &Fault) -> bool {
    let kind = matches!(
        fault.kind,
        Kind::InvalidInput | Kind::TooLarge | Kind::UnsupportedMedia | Kind::DeadlineExceeded | Kind::Internal
    );
    kind && fault.param.as_deref() != Some("model")
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
