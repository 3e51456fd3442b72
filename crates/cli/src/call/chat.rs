//! `outboard call chat`: one answer, or a conversation at the terminal.
//!
//! Promises: text is shown as it comes; Ctrl-C stops the answer at the server, too, and a second one ends the command whatever it
//! waits for; what a model says cannot steer the terminal.

use std::io::{BufRead as _, IsTerminal as _, Read as _, stdin, stdout};
use std::time::{Duration, Instant};

use bytes::Bytes;
use idl::chat::{
    ChatRequest, ChatTiming, FinishReason, Message, NextRequest, Piece, Sampling, StartReply, StartRequest,
    StopRequest, Usage,
};
use idl::inference::{ModelState, ModelsRequest, Task};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use units::Deadline;

use super::text;
use crate::args::Chat;
use crate::client::Client;
use crate::exit::{Failure, INTERRUPTED, NO, USAGE};
use crate::say::{say, say_part};

/// How long the server waits for something new in one call.
const WAIT: Duration = Duration::from_secs(10);

pub(super) async fn chat(asked: &Chat) -> Result<(), Failure> {
    let client = Client::new(&asked.server, &asked.key, &asked.tls, asked.timeout)?;
    let typed = asked.prompt.join(" ");
    let converse = asked.interactive || (asked.prompt.is_empty() && !asked.json && stdin().is_terminal());
    let prompt = match (converse, asked.prompt.is_empty()) {
        (true, _) => String::new(),
        (false, false) => typed,
        (false, true) => from_stdin()?,
    };
    // Only now: reading standard input cannot be given up, so until then Ctrl-C ends the process.
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(|error| Failure::new(NO, format!("no signals: {error}")))?;
    let model = match &asked.model {
        Some(model) => model.clone(),
        None => tokio::select! {
            model = the_first_model(&client) => model?,
            _ = interrupts.recv() => return Err(stopped()),
        },
    };
    let system = asked.system.iter().map(|text| message("system", text));
    let mut talk = Talk { asked, client, model, messages: system.collect(), interrupts };
    if converse {
        return talk.converse().await;
    }
    let answer = talk.ask(&prompt, !asked.json).await?;
    if asked.json {
        say(answer.json(&talk.model));
    } else {
        say("");
    }
    if answer.was_stopped { Err(stopped()) } else { Ok(()) }
}

fn stopped() -> Failure {
    Failure::new(INTERRUPTED, "stopped")
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    stdin().read_to_string(&mut text).map_err(|error| Failure::new(USAGE, format!("standard input: {error}")))?;
    let text = text.trim_end();
    if text.is_empty() {
        return Err(Failure::new(USAGE, "there is no prompt, neither as an argument nor on standard input"));
    }
    Ok(text.to_owned())
}

/// The first in the list that is ready, as the chat page has it; one that is not when there is no other: the server says why.
async fn the_first_model(client: &Client) -> Result<String, Failure> {
    let models = client.call(&idl::methods::MODELS, ModelsRequest::default()).await?.models.unwrap_or_default();
    let chat = || models.iter().filter(|model| model.task == Some(Task::CHAT));
    let first = chat().find(|model| model.state == Some(ModelState::READY)).or_else(|| chat().next());
    first
        .map(|model| text(&model.name).to_owned())
        .ok_or_else(|| Failure::new(USAGE, "the server has no language model"))
}

fn message(role: &str, content: &str) -> Message {
    Message { role: Some(role.to_owned()), content: Some(content.to_owned()), name: None }
}

/// A conversation.
struct Talk<'a> {
    asked: &'a Chat,
    client: Client,
    model: String,
    messages: Vec<Message>,
    interrupts: Signal,
}

/// One whole answer, or what there is of it.
#[derive(Default)]
struct Answer {
    text: String,
    finish: Option<FinishReason>,
    usage: Usage,
    timing: ChatTiming,
    version: String,
    request_id: String,
    was_stopped: bool,
}

impl Talk<'_> {
    /// Turns until the end of standard input.
    async fn converse(&mut self) -> Result<(), Failure> {
        let mut lines = lines();
        let at_terminal = stdin().is_terminal();
        let begin = self.messages.len();
        if at_terminal {
            say(format_args!("{}: /new begins anew, Ctrl-C stops an answer, Ctrl-D ends", self.model));
        }
        loop {
            if at_terminal {
                say_part("> ");
            }
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = self.interrupts.recv() => {
                    if !at_terminal {
                        return Err(stopped());
                    }
                    say("");
                    continue;
                }
            };
            let Some(line) = line else {
                if at_terminal {
                    say("");
                }
                return Ok(());
            };
            match line.trim() {
                "" => continue,
                "/new" => {
                    self.messages.truncate(begin);
                    continue;
                }
                said => match self.ask(said, true).await {
                    Ok(answer) if answer.was_stopped => say(" [stopped]"),
                    Ok(_) => say(""),
                    // The conversation goes on: another server may be there by then.
                    Err(failure) if at_terminal && failure.status != INTERRUPTED => say(format_args!("{failure}")),
                    Err(failure) => return Err(failure),
                },
            }
        }
    }

    /// One turn. What was asked and answered becomes part of the conversation when something was answered.
    async fn ask(&mut self, said: &str, show: bool) -> Result<Answer, Failure> {
        let deadline = Deadline::after(Instant::now(), self.asked.timeout);
        let said = message("user", said);
        let request = ChatRequest {
            model: Some(self.model.clone()),
            messages: Some(self.messages.iter().cloned().chain([said.clone()]).collect()),
            max_tokens: self.asked.max_tokens,
            sampling: Some(Sampling {
                temperature: self.asked.temperature.map(Into::into),
                seed: self.asked.seed,
                ..Sampling::default()
            }),
            ..ChatRequest::default()
        };
        let key = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        // Bound to the connection: when this process dies, nobody reads on.
        let start = StartRequest { base: None, stream_key: Some(key), chat: Some(request), bound: Some(true) };
        let answer = tokio::select! {
            started = self.client.call_until(&idl::methods::START, start, deadline) => {
                self.hear(started?, deadline, show).await?
            }
            _ = self.interrupts.recv() => Answer {
                was_stopped: true,
                finish: Some(FinishReason::CANCELLED),
                ..Answer::default()
            },
        };
        if !(answer.was_stopped && answer.text.is_empty()) {
            self.messages.extend([said, message("assistant", &answer.text)]);
        }
        Ok(answer)
    }

    /// Every piece to the end.
    async fn hear(&mut self, started: StartReply, deadline: Deadline, show: bool) -> Result<Answer, Failure> {
        let stream = started.stream_id.unwrap_or_default();
        let mut answer = Answer {
            version: started.version.unwrap_or_default(),
            request_id: started.request_id.unwrap_or_default(),
            ..Answer::default()
        };
        let mut from = 0;
        loop {
            let next = NextRequest {
                base: None,
                stream_id: Some(stream.clone()),
                from_piece: Some(from),
                wait_ms: Some(WAIT.as_millis() as i32),
            };
            // Dropping the call costs nothing: the same pieces come again.
            let reply = tokio::select! {
                reply = self.client.call_until(&idl::methods::NEXT_PIECES, next, deadline) => reply?,
                _ = self.interrupts.recv() => {
                    if answer.was_stopped {
                        return Err(stopped());
                    }
                    answer.was_stopped = true;
                    let stop = StopRequest { base: None, stream_id: Some(stream.clone()) };
                    tokio::select! {
                        reply = self.client.call_until(&idl::methods::STOP, stop, deadline) => reply?,
                        _ = self.interrupts.recv() => return Err(stopped()),
                    };
                    continue;
                }
            };
            let pieces = reply.pieces.unwrap_or_default();
            from += pieces.len() as i64;
            for piece in pieces {
                answer.take(piece, show)?;
            }
            if reply.ended == Some(true) {
                return Ok(answer);
            }
        }
    }
}

impl Answer {
    fn take(&mut self, piece: Piece, show: bool) -> Result<(), Failure> {
        if let Some(text) = piece.text {
            if show && !text.is_empty() {
                say_part(&shown(&text, stdout().is_terminal()));
            }
            self.text.push_str(&text);
        }
        self.finish = piece.finish.or(self.finish);
        self.usage = piece.usage.unwrap_or(std::mem::take(&mut self.usage));
        self.timing = piece.timing.unwrap_or(std::mem::take(&mut self.timing));
        match piece.error {
            None => Ok(()),
            Some(code) => Err(Failure::of_fault(idl::fault::Fault {
                code: Some(code),
                message: piece.error_message,
                request_id: Some(self.request_id.clone()),
                ..idl::fault::Fault::default()
            })),
        }
    }

    fn json(&self, model: &str) -> serde_json::Value {
        let finish = match self.finish {
            Some(FinishReason::STOP) => "stop",
            Some(FinishReason::LENGTH) => "length",
            Some(FinishReason::CANCELLED) => "cancelled",
            _ => "unknown",
        };
        let (usage, timing) = (&self.usage, &self.timing);
        json!({
            "text": self.text, "finish": finish,
            "usage": {
                "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
                "cached_tokens": usage.cached_tokens,
            },
            "timing_us": {
                "queue": timing.queue_us, "prefill": timing.prefill_us, "decode": timing.decode_us,
                "first_token": timing.first_token_us,
            },
            "model": model, "version": self.version, "request_id": self.request_id,
        })
    }
}

/// A terminal takes commands from control characters: what a model says is shown without them.
fn shown(text: &str, at_terminal: bool) -> String {
    let harmless = |one: char| !one.is_control() || matches!(one, '\n' | '\t');
    let show = |one: char| if !at_terminal || harmless(one) { one } else { char::REPLACEMENT_CHARACTER };
    text.chars().map(show).collect()
}

/// Lines of standard input, read by a thread that dies with the process: reading cannot be given up.
fn lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_says_cannot_steer_a_terminal() {
        let text = "a\u{1b}[2Jb\tc\n\u{9b}d\r\u{7}é";
        assert_eq!(shown(text, true), "a\u{fffd}[2Jb\tc\n\u{fffd}d\u{fffd}\u{fffd}é");
        assert_eq!(shown(text, false), text);
    }
}
