//! Makes the calls that frames bring, and takes what they come to.
//!
//! Not here: the order of their answers (`calls`), and calls that may not start (`refusing`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use wire::{MessageKind, Request};

use super::{Connection, End, Step};
use crate::calls::{Answer, Finished, Running, panic_reply};
use crate::inbound::Arrived;
use crate::server::Shared;
use crate::{CallContext, Service};

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    pub(super) fn start(&mut self, shared: &Shared<S>, arrived: Arrived, now: Instant, cx: &mut Context<'_>) -> Step {
        let Arrived { mut payload, mut charge, read } = arrived;
        shared.observe.frame_read(payload.len(), read);
        if self.starved
            && let Some(granted) = shared.budget.try_take(payload.len())
        {
            self.starved = false;
            // Out of the chunk, for which nobody has paid.
            payload = Bytes::copy_from_slice(&payload);
            charge = granted;
        }
        let request = match Request::parse(payload.clone(), &shared.limits.decode()) {
            Ok(request) => request,
            Err(error) => {
                self.tell_closed(&error);
                return Step::End(End::Polite);
            }
        };
        if self.turn_away(&request) {
            return Step::End(End::Polite);
        }
        if let Some(why) = self.refusal(&request) {
            self.refuse(&request, why, charge);
            return Step::Idle;
        }
        self.peer.protocol.get_or_init(|| request.protocol);
        if self.draining && self.busy.is_none() {
            // It was let in, so its answer is to arrive.
            self.busy = Some(shared.busy.token());
        }

        let context =
            CallContext { peer: Arc::clone(&self.peer), received: now.into_std(), read, frame_bytes: payload.len() };
        let (seqid, oneway) = (request.seqid, request.kind == MessageKind::Oneway);
        shared.observe.call_started();
        // Most calls of cheap methods are answered by the first poll and never become a task of their own.
        let first = catch_unwind(AssertUnwindSafe(|| {
            let mut future = shared.service.call(request, context);
            match future.as_mut().poll(cx) {
                Poll::Ready(reply) => Ok(reply),
                Poll::Pending => Err(future),
            }
        }));
        let reply = match first {
            Ok(Err(future)) => {
                self.calls.push(Running::new(future, payload, charge, seqid, oneway));
                return Step::Idle;
            }
            Ok(Ok(reply)) => reply,
            Err(_) => {
                self.tell_panic();
                panic_reply(&payload)
            }
        };
        shared.observe.call_ended();
        if !oneway && let Some(answer) = self.calls.pass(seqid, Answer { reply, charge }) {
            self.out.push(answer);
        }
        Step::Idle
    }

    /// Takes what has finished, however much waits already: only here it is counted.
    pub(super) fn finish_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(finished)) = self.calls.poll_finished(cx) {
            moved = true;
            self.settle(finished);
        }
        if moved {
            self.active = Instant::now();
        }
        moved
    }

    fn settle(&mut self, finished: Finished) {
        if finished.panicked {
            self.tell_panic();
        }
        let Self { calls, out, .. } = self;
        calls.settle(finished, |answer| out.push(answer));
    }

    pub(super) fn tell_panic(&self) {
        self.shared.observe.handler_panicked();
        tracing::error!(peer = %self.peer.address, "a handler panicked, its caller got an internal error");
    }
}
