//! An answer on its way to a client, event by event.
//!
//! Promises: the server is asked for more only when the client has taken what came before; a client that leaves drops all of it,
//! which stops the answer at the server; when a drain ends before it, an error is its last event; one log line, at the end.

use std::convert::Infallible;

use actix_web::HttpResponse;
use actix_web::body::BodyStream;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use bytes::Bytes;
use fault::Fault;
use futures_util::stream::unfold;
use idl::chat::Piece;

use super::events::{Events, KEEP_ALIVE};
use super::tell;
use crate::ask::Ask;
use crate::backend::ChatStream;
use crate::problem::Problem;

/// Everything that one stream needs; dropped with the connection.
struct Answer {
    ask: Ask,
    stream: ChatStream,
    events: Events,
    /// The pieces that came before the head was sent.
    first: Option<Vec<Piece>>,
    bytes: u64,
    ended: bool,
}

/// The answer's head, and a body that is made as the pieces come.
pub(super) fn respond(ask: Ask, stream: ChatStream, events: Events, first: Vec<Piece>) -> HttpResponse {
    let mut head = HttpResponse::Ok();
    head.content_type("text/event-stream; charset=utf-8");
    head.insert_header((CACHE_CONTROL, "no-cache"));
    // A proxy must let each event through at once.
    head.insert_header((HeaderName::from_static("x-accel-buffering"), "no"));
    let mut head = head.finish();
    ask.sign(&mut head);
    let answer = Answer { ask, stream, events, first: Some(first), bytes: 0, ended: false };
    head.set_body(BodyStream::new(unfold(answer, chunk))).map_into_boxed_body()
}

async fn chunk(mut answer: Answer) -> Option<(Result<Bytes, Infallible>, Answer)> {
    if answer.ended {
        return None;
    }
    let chunk = answer.chunk().await;
    Some((Ok(chunk), answer))
}

impl Answer {
    /// The next events; the last ones when `ended` says so.
    async fn chunk(&mut self) -> Bytes {
        let mut out = if self.first.is_some() { self.events.opening() } else { Vec::new() };
        let problem = self.step(&mut out).await.err().map(Problem::Fault);
        if let Some(problem) = &problem {
            problem.event(&self.ask.names, &mut out);
            self.ended = true;
        }
        self.bytes += out.len() as u64;
        if self.ended {
            self.ask.end(problem.as_ref(), self.bytes);
        }
        Bytes::from(out)
    }

    async fn step(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let pieces = match self.first.take() {
            Some(first) => first,
            None => self.ask.in_time(self.stream.next()).await?,
        };
        if pieces.is_empty() {
            out.extend_from_slice(&KEEP_ALIVE);
        }
        for piece in &pieces {
            self.events.piece(piece, out)?;
            self.ask.told.tokens_out += 1;
            if let Some(usage) = self.events.usage() {
                tell(&mut self.ask, usage, piece.timing.as_ref());
            }
        }
        if self.stream.ended() {
            self.events.end(out)?;
            self.ended = true;
        }
        Ok(())
    }
}
