//! Whether a server is still there: asked when nothing has come from it for a while.
//!
//! Why: a process that hangs and a link that drops everything look like a server that takes its time. The kernel notices the
//! one never and the other after many seconds.
//! Costs: nothing while answers come, since any byte from the server tells the same; else one small call per interval and
//! connection.
//! Not here: what becomes of the connection and its calls (`endpoint`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thrift::protocol::TSerializable;
use wire::{ApplicationErrorKind, DecodeLimits, Exception, Frame, Method, Outgoing, Protocol, Response, ResponseError};

/// What a server that is there says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pong {
    /// It takes calls.
    Serves,
    /// It is about to stop: what is in flight is answered, new calls belong elsewhere.
    Leaves,
}

type Encode = dyn Fn(i32) -> Option<Frame> + Send + Sync;
type Judge = dyn Fn(Bytes) -> Result<Pong, String> + Send + Sync;

/// How a channel asks whether a server is there.
#[derive(Clone)]
pub struct Ping {
    pub(crate) every: Duration,
    encode: Arc<Encode>,
    judge: Arc<Judge>,
}

impl Ping {
    /// Calls `method` when a connection was silent for `every`. What is no result means as much as [`Pong::Serves`]: it is
    /// an answer, also when the server does not know the method; only one that says that it makes no calls of such a client is not
    /// used. A server is given up when it was silent for two to three times `every`. While it is silent on one connection alone,
    /// that one is given up after twelve times `every`, and the server is not.
    pub fn new<Q, R, E>(
        every: Duration,
        method: Method<Q, R, E>,
        ask: impl Fn() -> Q + Send + Sync + 'static,
        judge: impl Fn(R) -> Pong + Send + Sync + 'static,
    ) -> Self
    where
        Q: Outgoing + 'static,
        R: TSerializable + 'static,
        E: Exception + 'static,
    {
        let encode = move |number| {
            let mut request = ask();
            request.stamp(every.max(Duration::from_secs(1)));
            wire::encode_call(Protocol::Binary, method.name, number, method.kind(), &request).ok()
        };
        let judge = move |frame| {
            let answer = Response::parse(frame, &DecodeLimits::default()).map_err(ResponseError::from);
            match answer.and_then(|response| response.result::<R, E>()) {
                Ok(Ok(result)) => Ok(judge(result)),
                // So is every call on this connection answered, as without TLS where it is spoken.
                Err(ResponseError::Application { kind: ApplicationErrorKind::UnsupportedClientType, message }) => {
                    Err(message)
                }
                Ok(Err(_)) | Err(_) => Ok(Pong::Serves),
            }
        };
        Self { every, encode: Arc::new(encode), judge: Arc::new(judge) }
    }

    /// The call with this number.
    pub(crate) fn call(&self, number: i32) -> Option<Frame> {
        (self.encode)(number)
    }

    /// What its answer says, or why no call will be made on this connection.
    pub(crate) fn judge(&self, frame: Bytes) -> Result<Pong, String> {
        (self.judge)(frame)
    }
}

impl fmt::Debug for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ping").field("every", &self.every).finish_non_exhaustive()
    }
}

/// What is to be done about a connection after a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Ask on the connection.
    Ask,
    /// Ask on a new one: this one may be stuffed with something big, or not be read while the server has no memory left.
    AskAnew,
    /// That has been answered, but this connection was silent for too long.
    GiveUp,
}

/// Counts the beats for which a connection has been silent. Beats and not time: a client that was stopped itself, or had no
/// processor, finds everything silent when it wakes up.
#[derive(Debug, Default)]
pub(crate) struct Silence(u32);

impl Silence {
    /// Beats in an interval.
    pub(crate) const BEATS: u32 = 4;
    /// After so many it is asked anew, and again.
    const ANEW: u32 = Self::BEATS + Self::BEATS / 2;
    /// After so many it is over. At an interval of a second that is longer than a server that waits for its own memory lets a
    /// connection lie (`frame_time` of its limits) before it answers that it is overloaded.
    const MOST: u32 = 12 * Self::BEATS;

    pub(crate) fn beat(&mut self, heard: bool) -> Due {
        if heard {
            self.0 = 0;
            return Due::Nothing;
        }
        self.0 += 1;
        match self.0 {
            Self::MOST.. => Due::GiveUp,
            silent if silent.is_multiple_of(Self::ANEW) => Due::AskAnew,
            Self::BEATS => Due::Ask,
            _ => Due::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_asked_then_asked_anew_then_given_up() {
        let mut silence = Silence::default();
        let due: Vec<Due> = (1..=48).map(|_| silence.beat(false)).collect();
        let found: Vec<(u32, Due)> = (1..).zip(due).filter(|(_, due)| *due != Due::Nothing).collect();
        let anew = [6, 12, 18, 24, 30, 36, 42].map(|beat| (beat, Due::AskAnew));
        assert_eq!(found, [&[(4, Due::Ask)], &anew[..], &[(48, Due::GiveUp)]].concat());
    }

    /// It was given up before, and its calls were lost.
    #[test]
    fn a_server_without_memory_has_the_time_to_say_so() {
        let beats = crate::ServerLimits::default().frame_time.as_secs() as u32 * Silence::BEATS;
        let mut silence = Silence::default();
        assert!((0..=beats).all(|_| silence.beat(false) != Due::GiveUp));
    }

    #[test]
    fn a_byte_is_as_good_as_an_answer() {
        let mut silence = Silence::default();
        for beat in 0..100 {
            let due = silence.beat(beat % 6 == 0);
            assert!(matches!(due, Due::Nothing | Due::Ask), "{beat}: {due:?}");
        }
    }
}
