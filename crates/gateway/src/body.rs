//! Bodies: how much of them may be in memory, and how long they may take.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CONTENT_LENGTH;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use fault::Fault;
use futures_util::StreamExt as _;

use crate::memory::Share;
use crate::problem::unreadable;
use crate::site::Process;

/// How much of a body that is too large is read and thrown away before the answer. A peer that is still sending when the
/// connection closes loses the answer; twice the largest allowed body is what a client with a mistake sends.
const DISCARD: usize = 44 << 20;

/// Reads a whole body of at most `limit` bytes. A body that comes in one piece is not copied.
///
/// # Errors
/// TooLarge with the limit; DeadlineExceeded when it does not come in time; InvalidInput when the client sends nonsense.
pub(crate) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    limit: usize,
    what: &'static str,
    process: &Arc<Process>,
) -> Result<(Bytes, Share), Fault> {
    let mut share = process.bodies.share();
    let time = process.settings.limits.body_time;
    let mut payload = payload.into_inner();
    let declared =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
    let reading = async {
        if declared > limit {
            discard(&mut payload, process).await;
            return Err(too_large(declared, limit, what));
        }
        let mut whole = BytesMut::new();
        let mut first = Bytes::new();
        while let Some(piece) = payload.next().await {
            let piece = piece.map_err(|error| broken(&error))?;
            share.grow(piece.len())?;
            let have = first.len() + whole.len();
            if have + piece.len() > limit {
                discard(&mut payload, process).await;
                return Err(too_large(have + piece.len(), limit, what));
            }
            if have == 0 {
                first = piece;
                continue;
            }
            if whole.is_empty() {
                // The declared length is within the limit, and the bytes are already on their way.
                whole.reserve(declared.max(first.len() + piece.len()));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    };
    let read = tokio::time::timeout(time, reading).await;
    let bytes = read.map_err(|_| slow(time))??;
    Ok((bytes, share))
}

/// Reads and forgets, so that the client is done sending before it is answered; for as long as a body may take, and no longer: a
/// client that never sends would otherwise hold its request for ever.
pub(crate) async fn discard(payload: &mut actix_web::dev::Payload, process: &Process) {
    let reading = async {
        let mut thrown = 0;
        while let Some(Ok(piece)) = payload.next().await {
            thrown += piece.len();
            if thrown > DISCARD {
                return;
            }
        }
    };
    // Past the time the answer leaves all the same.
    let _ = tokio::time::timeout(process.settings.limits.body_time, reading).await;
}

pub(crate) fn slow(time: Duration) -> Fault {
    Fault::deadline_exceeded(format!("the body was not complete within {} s", time.as_secs()))
}

pub(crate) fn too_large(have: usize, limit: usize, what: &str) -> Fault {
    Fault::too_large(format!("{what} is {have} bytes or more, the limit is {limit} bytes"))
}

pub(crate) fn broken(error: &dyn std::fmt::Display) -> Fault {
    unreadable("the body", error)
}
