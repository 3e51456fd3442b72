//! Forms with pictures, as browsers send them.

#[path = "../../gateway/src/form/fields.rs"]
mod fields;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use actix_multipart::Multipart;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::stream;

use self::fields::{Bounds, Filled, Wrong};
use crate::choice;

const BOUNDS: Bounds = Bounds { picture: 512, pictures: 4 };

/// The same form, or the same kind of fault, comes out however the body is cut; what is kept is within the bounds.
pub(crate) fn multipart(bytes: &[u8]) {
    let (first, body) = choice(bytes);
    let whole = read(body, body.len().max(1));
    let pieces = read(body, 1 + usize::from(first) % 32);
    assert_eq!(whole, pieces, "the form depends on how its body came");
}

/// Names of what was read, or of what is wrong.
fn read(body: &[u8], piece: usize) -> Result<Filled, &'static str> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=X"));
    let pieces: Vec<_> = body.chunks(piece).map(|part| Ok::<_, PayloadError>(Bytes::copy_from_slice(part))).collect();
    let form = Multipart::new(&headers, stream::iter(pieces));
    let mut taken = 0;
    let grow = |bytes| {
        taken += bytes;
        Ok::<(), Infallible>(())
    };
    let filled = finish(fields::read(form, &BOUNDS, grow));
    assert!(taken <= body.len(), "{taken} bytes were kept of {}", body.len());
    let filled = filled.map_err(|wrong| match wrong {
        Wrong::Broken(error) => {
            assert!(!error.to_string().is_empty());
            "broken"
        }
        Wrong::TooLarge { field, is_file, have, limit } => {
            assert!(have > limit && field.len() <= 64 && is_file == (limit == BOUNDS.picture));
            "too large"
        }
        Wrong::TooManyFields(most) => {
            assert!(most > BOUNDS.pictures);
            "too many fields"
        }
        Wrong::TooManyPictures(most) => {
            assert_eq!(most, BOUNDS.pictures);
            "too many pictures"
        }
        Wrong::NotUtf8(field) => {
            assert!(matches!(field.as_str(), "model" | "top_k" | "keep"));
            "not utf-8"
        }
        Wrong::Denied(never) => match never {},
    })?;
    assert!(filled.images.len() <= BOUNDS.pictures && filled.images.iter().all(|image| image.len() <= BOUNDS.picture));
    assert!(filled.names.len() == filled.images.len() && filled.names.iter().all(|name| name.len() <= 4_096));
    Ok(filled)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs what waits for nothing but itself: every piece is here already.
fn finish<T>(work: impl Future<Output = T>) -> T {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        assert!(woken.0.swap(false, Ordering::Relaxed), "the form waits for nobody");
    }
}
