//! The calls of `Chat`: which server a conversation goes to, and how its answer comes back in pieces.
//!
//! Promises: a conversation goes to the server that has its beginning in the cache, while that takes it; a stream that is
//! dropped before its end is stopped at its server, wherever it has come to; nothing that a person has seen is generated twice.
//! Not here: what HTTP makes of it (`openai`).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fault::{Fault, Kind};
use idl::chat::{ChatReply, ChatRequest, NextRequest, Piece, StartReply, StartRequest, StopRequest};
use idl::fault::{Fault as Thrown, FaultCode};
use rpc::{CallOptions, Channel, ChannelError, EndpointId};
use tokio::sync::oneshot;
use units::{CallId, Deadline};
use wire::{Exception as _, Method};

use super::{Backend, Speaker, call, thrown};
use crate::trace::Names;

/// A bound stream ends with the connection that it was started on, so a start that was lost with its connection is made anew
/// and not sent again.
const START: Method<StartRequest, StartReply, Thrown> = Method::new("start", false);

/// Longer than a server waits for something new, by this much: it answers in time, or it hangs.
const GRACE: Duration = Duration::from_secs(5);

/// How long a stream may take to be stopped.
const STOP: Duration = Duration::from_secs(5);

/// So much of a prompt's beginning says which conversation it belongs to: a prompt that goes on with an answer begins alike.
const BEGINNING: usize = 256;

/// A fault, and whether another server may do better.
struct Refused {
    fault: Fault,
    elsewhere: bool,
}

/// The times of a stream.
#[derive(Clone, Copy)]
pub(crate) struct StreamTimes {
    /// For all of it.
    pub(crate) deadline: Deadline,
    /// For the first token.
    pub(crate) first: Deadline,
    /// How long to wait for more before saying that there is none yet.
    pub(crate) wait: Duration,
}

impl Backend {
    /// The whole answer. Dropping the future stops the work on the server.
    ///
    /// # Errors
    /// The server's faults; Unavailable, DeadlineExceeded.
    pub(crate) async fn chat_complete(
        &self,
        request: ChatRequest,
        caller: &str,
        names: &Names,
        deadline: Deadline,
    ) -> Result<ChatReply, Fault> {
        let (request, options) = placed(request, caller, deadline);
        let speaker = self.speaker(caller, names);
        let (_, reply) = where_it_belongs(&self.channel, options, async |options| {
            let (call_id, calling) = (CallId::random(), names.calling("complete"));
            let mut request = ChatRequest { base: Some(speaker.base_of(&calling, call_id)), ..request.clone() };
            let options = options.with_call_id(call_id);
            let reply = call(&self.channel, &idl::methods::COMPLETE, &mut request, options, calling).await;
            reply.map_err(|error| Refused::channel(error, false))?.map_err(Refused::thrown)
        })
        .await?;
        Ok(reply)
    }

    /// Begins an answer that comes in pieces, and waits for the first of them. A server that is lost before that is replaced by
    /// another one: nobody has seen anything yet.
    ///
    /// # Errors
    /// As [`Backend::chat_complete`]; DeadlineExceeded when there is no first token in time.
    pub(crate) async fn chat_start(
        &self,
        request: ChatRequest,
        caller: &str,
        names: &Names,
        times: StreamTimes,
    ) -> Result<(ChatStream, Vec<Piece>), Fault> {
        let (request, options) = placed(request, caller, times.deadline);
        let (began, speaker) = (Instant::now(), self.speaker(caller, names));
        let (_, begun) = where_it_belongs(&self.channel, options, async |options| {
            let begin = async {
                let mut stream =
                    ChatStream::start(&self.channel, request.clone(), speaker.clone(), options, times).await?;
                let pieces = stream.first().await?;
                Ok((stream, pieces))
            };
            // Around the start as well: a server that says nothing at all is the slowest of all. A start that is answered too
            // late is stopped, see there.
            let left = times.first.left(Instant::now());
            tokio::time::timeout(left, begin).await.unwrap_or_else(|_| {
                let waited = began.elapsed().as_secs_f64();
                let fault = Fault::deadline_exceeded(format!("no first token came within {waited:.1} s"));
                Err(Refused { fault, elsewhere: false })
            })
        })
        .await?;
        Ok(begun)
    }
}

/// The request with the name of its conversation, and the way to the server that knows it.
fn placed(mut request: ChatRequest, caller: &str, deadline: Deadline) -> (ChatRequest, CallOptions) {
    let key = conversation(&request, caller);
    request.conversation = Some(format!("{key:016x}"));
    (request, CallOptions::new(deadline).with_affinity(key))
}

/// Who talks with which model, and how the talk began: this stays the same from turn to turn.
fn conversation(request: &ChatRequest, caller: &str) -> u64 {
    // The hasher's keys are fixed: every gateway comes to the same.
    let mut hasher = DefaultHasher::new();
    (caller, &request.model).hash(&mut hasher);
    if let Some(name) = &request.conversation {
        name.hash(&mut hasher);
        return hasher.finish();
    }
    for message in request.messages.iter().flatten() {
        (&message.role, &message.content).hash(&mut hasher);
        if message.role.as_deref() == Some("user") {
            break;
        }
    }
    if let Some(prompt) = &request.prompt {
        prompt[..prompt.floor_char_boundary(BEGINNING)].hash(&mut hasher);
    }
    hasher.finish()
}

/// Calls the server that the affinity names; when that has turned the call away or is full, one other, once.
async fn where_it_belongs<R>(
    channel: &Channel,
    options: CallOptions,
    attempt: impl AsyncFn(CallOptions) -> Result<R, Refused>,
) -> Result<(EndpointId, R), Fault> {
    let home = channel.connected(options).await?;
    let refused = match attempt(options.with_endpoint(home)).await {
        Ok(reply) => return Ok((home, reply)),
        Err(refused) => refused,
    };
    let others = channel.endpoints().into_iter().filter(|other| other.id != home && other.takes_calls());
    let Some(other) = others.min_by_key(|other| other.in_flight).filter(|_| refused.elsewhere) else {
        return Err(refused.fault);
    };
    tracing::debug!(reason = %refused.fault, other = other.address, "sent to another server");
    let again = attempt(options.with_endpoint(other.id)).await;
    again.map(|reply| (other.id, reply)).map_err(|again| again.fault)
}

impl Refused {
    /// `safe`: what may have run may be run again.
    fn channel(error: ChannelError, safe: bool) -> Self {
        let elsewhere = match &error {
            ChannelError::Unreachable { .. } | ChannelError::NotSent { .. } | ChannelError::Full { .. } => true,
            ChannelError::Lost { .. } => safe,
            _ => false,
        };
        Self { fault: error.into(), elsewhere }
    }

    fn thrown(fault: Thrown) -> Self {
        let elsewhere = fault.not_here() || fault.code == Some(FaultCode::OVERLOADED);
        Self { fault: thrown(fault), elsewhere }
    }
}

/// An answer on its way. Dropped before its end, it is stopped at the server.
pub(crate) struct ChatStream {
    channel: Channel,
    endpoint: EndpointId,
    speaker: Speaker,
    id: String,
    /// The first piece that has not come yet.
    from: i64,
    times: StreamTimes,
    /// Why it broke, while the pieces before are on their way to the reader.
    broke: Option<Fault>,
    ended: bool,
    pub(crate) model: String,
    pub(crate) version: String,
}

impl ChatStream {
    /// Starts it on one server.
    async fn start(
        channel: &Channel,
        chat: ChatRequest,
        speaker: Speaker,
        options: CallOptions,
        times: StreamTimes,
    ) -> Result<Self, Refused> {
        let endpoint = options.endpoint.expect("an attempt is made at one server");
        let channel = channel.clone();
        let (sender, receiver) = oneshot::channel();
        // By itself: a client that leaves now would leave a stream behind whose name nobody knows.
        tokio::spawn(async move {
            // Lent to the call, while the stream takes the speaker.
            let names = speaker.names.clone();
            let (key, calling) = (CallId::random(), names.calling("start"));
            let mut request = StartRequest {
                base: Some(speaker.base_of(&calling, key)),
                stream_key: Some(Bytes::copy_from_slice(&key.0)),
                chat: Some(chat),
                bound: Some(true),
            };
            let started = match call(&channel, &START, &mut request, options, calling).await {
                Err(error) => Err(Refused::channel(error, true)),
                Ok(Err(fault)) => Err(Refused::thrown(fault)),
                Ok(Ok(reply)) => Ok(Self {
                    channel,
                    endpoint,
                    speaker,
                    id: reply.stream_id.unwrap_or_default(),
                    from: 0,
                    times,
                    broke: None,
                    ended: false,
                    model: reply.model.unwrap_or_default(),
                    version: reply.version.unwrap_or_default(),
                }),
            };
            // Nobody takes it any more: dropping stops it.
            drop(sender.send(started));
        });
        receiver
            .await
            .unwrap_or_else(|_| Err(Refused { fault: Fault::internal("a start ended early"), elsewhere: false }))
    }

    /// The first pieces, however long they take.
    async fn first(&mut self) -> Result<Vec<Piece>, Refused> {
        loop {
            match self.next().await {
                Ok(pieces) if pieces.is_empty() && !self.ended() => {}
                Ok(pieces) => return Ok(pieces),
                Err(fault) => {
                    let elsewhere = fault.kind == Kind::Unavailable;
                    return Err(Refused { fault, elsewhere });
                }
            }
        }
    }

    /// Whether nothing comes any more.
    pub(crate) fn ended(&self) -> bool {
        self.ended && self.broke.is_none()
    }

    /// The next pieces, in order and each once; none when there was nothing new for a while.
    ///
    /// # Errors
    /// Why it broke. Nothing comes after that.
    pub(crate) async fn next(&mut self) -> Result<Vec<Piece>, Fault> {
        if let Some(fault) = self.broke.take() {
            return Err(fault);
        }
        let result = self.poll().await;
        if result.is_err() {
            // A server that is there still knows the stream, and must not go on with it.
            self.stop();
        }
        result
    }

    async fn poll(&mut self) -> Result<Vec<Piece>, Fault> {
        let mut request = NextRequest {
            base: Some(self.speaker.base(CallId::random())),
            stream_id: Some(self.id.clone()),
            from_piece: Some(self.from),
            wait_ms: Some(i32::try_from(self.times.wait.as_millis()).unwrap_or(i32::MAX)),
        };
        let now = Instant::now();
        // The server itself ends the stream at its deadline; a little later it does not answer any more.
        let by = (self.times.deadline.instant() + GRACE).min(now + self.times.wait + GRACE);
        let options = CallOptions::new(Deadline::at(by)).with_endpoint(self.endpoint);
        let reply = match self.channel.call(&idl::methods::NEXT_PIECES, &mut request, options).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(fault)) => return Err(lost(thrown(fault))),
            Err(ChannelError::Deadline { .. }) if !self.times.deadline.is_over(Instant::now()) => {
                return Err(Fault::unavailable("the server gives no sign any more"));
            }
            Err(error) => return Err(error.into()),
        };
        let mut pieces = reply.pieces.unwrap_or_default();
        // Asked twice, answered twice: what has come already is left out.
        pieces.retain(|piece| piece.number.is_some_and(|number| number >= self.from));
        if (self.from..).zip(&pieces).any(|(number, piece)| piece.number != Some(number)) {
            return Err(Fault::internal(format!("the server left out pieces after number {}", self.from)));
        }
        self.from += pieces.len() as i64;
        self.ended = reply.ended.unwrap_or(false);
        if let Some(last) = pieces.pop_if(|last| last.error.is_some()) {
            self.ended = true;
            let kind = Kind::from_thrift(last.error.map_or(0, |code| code.0));
            let fault = Fault::new(kind, last.error_message.unwrap_or_default());
            if pieces.is_empty() {
                return Err(fault);
            }
            self.broke = Some(fault);
        }
        Ok(pieces)
    }

    fn stop(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // Without a runtime the process is ending, and its connections with it, which ends the stream, too.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut request =
            StopRequest { base: Some(self.speaker.base(CallId::random())), stream_id: Some(self.id.clone()) };
        let (channel, endpoint) = (self.channel.clone(), self.endpoint);
        runtime.spawn(async move {
            let options = CallOptions::new(Deadline::after(Instant::now(), STOP)).with_endpoint(endpoint);
            if let Err(error) = channel.call(&idl::methods::STOP, &mut request, options).await {
                tracing::debug!(%error, "a stream could not be stopped");
            }
        });
    }
}

impl Drop for ChatStream {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A stream that the server does not know is one that it had: it was started again, or forgot it.
fn lost(fault: Fault) -> Fault {
    match fault.kind {
        Kind::NotFound => Fault::unavailable(format!("the server lost the answer: {}", fault.message)),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use idl::chat::Message;

    use super::*;

    fn talk(messages: &[(&str, &str)]) -> ChatRequest {
        let message = |(role, content): &(&str, &str)| Message {
            role: Some((*role).to_owned()),
            content: Some((*content).to_owned()),
            name: None,
        };
        let messages = messages.iter().map(message).collect();
        ChatRequest { model: Some("m".to_owned()), messages: Some(messages), ..ChatRequest::default() }
    }

    #[test]
    fn a_conversation_keeps_its_name_from_turn_to_turn_and_shares_it_with_nobody() {
        let first = [("system", "be kind"), ("user", "hello")];
        let later = [first.as_slice(), &[("assistant", "hi"), ("user", "and now?")]].concat();
        let name = conversation(&talk(&first), "a");
        assert_eq!(conversation(&talk(&later), "a"), name);
        for (other, caller) in [
            (talk(&first), "b"),
            (talk(&[("system", "be rude"), ("user", "hello")]), "a"),
            (talk(&[("system", "be kind"), ("user", "hello?")]), "a"),
            (ChatRequest { model: Some("n".to_owned()), ..talk(&first) }, "a"),
            (ChatRequest { conversation: Some("mine".to_owned()), ..talk(&first) }, "a"),
        ] {
            assert_ne!(conversation(&other, caller), name);
        }
    }

    #[test]
    fn the_name_of_a_conversation_chooses_the_server_and_travels_to_it() {
        let key = conversation(&talk(&[("user", "hello")]), "a");
        let (request, options) = placed(talk(&[("user", "hello")]), "a", Deadline::at(Instant::now()));
        assert_eq!(options.affinity, Some(key));
        assert_eq!(request.conversation, Some(format!("{key:016x}")));
    }

    #[test]
    fn a_prompt_that_goes_on_is_the_same_conversation() {
        let prompt = |text: String| ChatRequest { prompt: Some(text), ..ChatRequest::default() };
        let begin = "\u{e9}".repeat(BEGINNING);
        let name = conversation(&prompt(begin.clone()), "a");
        assert_eq!(conversation(&prompt(begin + " and more"), "a"), name);
        assert_ne!(conversation(&prompt("another".to_owned()), "a"), name);
    }
}
