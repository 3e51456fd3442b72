//! Calls that may not start: who says so, why, and from how much of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::{ApplicationErrorKind, MessageKind, Request};

use super::{Connection, End, Step};
use crate::budget::{Charge, Taken};
use crate::calls::Answer;
use crate::inbound::must_hold_head;
use crate::{Instead, Limit, Refusal, Service};

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    /// Tells who may not call why, as the answer to its first call; `false` when it may.
    pub(super) fn turn_away(&mut self, request: &Request) -> bool {
        let Some(why) = &self.refused else { return false };
        let answer = request.application_error(ApplicationErrorKind::UnsupportedClientType, why);
        self.out.push_bytes(answer.to_bytes().to_vec());
        true
    }

    pub(super) fn refusal(&self, request: &Request) -> Option<Refusal> {
        let limits = &self.shared.limits;
        // Who is told to stop still wants to hear which of its calls are given up.
        let concerns_old_calls = request.kind == MessageKind::Oneway && self.calls.is_awaited();
        if self.draining && !concerns_old_calls && !self.shared.service.continues(request) {
            Some(Refusal::Draining)
        } else if self.starved {
            Some(Refusal::BytesInFlight { limit: self.shared.budget.total() })
        } else if self.calls.len() >= limits.calls_per_connection {
            self.shared.observe.limit(Limit::CallsPerConnection);
            Some(Refusal::CallsPerConnection { limit: limits.calls_per_connection })
        } else {
            None
        }
    }

    pub(super) fn refuse(&mut self, request: &Request, why: Refusal, charge: Charge) {
        let instead = match request.kind {
            MessageKind::Oneway => Instead::Refused(None),
            _ => catch_unwind(AssertUnwindSafe(|| self.shared.service.refuse(request, why))).unwrap_or_else(|_| {
                self.tell_panic();
                Instead::Refused(None)
            }),
        };
        let reply = match instead {
            Instead::Answered(reply) => Some(reply),
            Instead::Refused(reply) => {
                self.shared.observe.call_refused(why);
                reply
            }
        };
        if let Some(answer) = self.calls.pass(request.seqid, Answer { reply, charge }) {
            self.out.push(answer);
        }
    }

    /// Refuses a frame of which only the beginning is here, and skips the rest, or ends the connection that may not call.
    pub(super) fn refuse_unfinished(&mut self) -> Step {
        let unread = self.inbound.unread();
        let Ok(Some(claimed)) = wire::claimed(unread, &self.limits) else { return Step::Idle };
        if self.refused.is_none()
            && let Some(charge) = self.shared.budget.try_take(claimed.max(1))
        {
            drop(charge);
            self.starved = false;
            return Step::Idle;
        }
        match Request::parse(Bytes::copy_from_slice(&unread[4..]), &self.shared.limits.decode()) {
            Ok(request) => {
                if self.turn_away(&request) {
                    return Step::End(End::Polite);
                }
                self.inbound.skip_frame();
                let why = Refusal::BytesInFlight { limit: self.shared.budget.total() };
                self.refuse(&request, why, Taken::own(0));
                Step::Idle
            }
            Err(error) if must_hold_head(unread) => {
                self.tell_closed(&error);
                Step::End(End::Polite)
            }
            Err(_) => Step::Idle,
        }
    }
}
