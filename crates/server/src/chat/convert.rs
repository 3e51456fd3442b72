//! The engine's chats to and from those on the wire.

use engine::{Ask, Finish, Format, Input, Message, Said, Token, Wishes};
use fault::Fault;
use idl::chat as wire_types;
use idl::chat::{AlternativeToken, ChatRequest, ChatTiming, FinishReason, FormatKind, TokenLogprob, Usage};

use super::tally::Talked;
use crate::convert::micros;

/// Most bytes of the name of a conversation.
const CONVERSATION: usize = 128;

fn bad(param: &'static str, message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::invalid_input(message).with_param(param)
}

/// # Errors
/// InvalidInput for what has no form at all; ranges are the engine's.
pub(super) fn ask(request: ChatRequest, owner: String) -> Result<Ask, Fault> {
    if let Some(bytes) = request.conversation.as_ref().map(String::len).filter(|bytes| *bytes > CONVERSATION) {
        return Err(bad("conversation", format!("conversation has {bytes} bytes, allowed is 0 to {CONVERSATION}")));
    }
    let input = match (request.messages, request.prompt) {
        (Some(messages), None) => {
            Input::Messages(messages.into_iter().enumerate().map(message).collect::<Result<_, _>>()?)
        }
        (None, Some(prompt)) => Input::Prompt(prompt),
        (Some(_), Some(_)) => return Err(bad("messages", "give either messages or prompt, not both")),
        (None, None) => return Err(bad("messages", "give messages or prompt")),
    };
    Ok(Ask {
        input,
        max_tokens: request.max_tokens.map(i64::from),
        sampling: request.sampling.map(wishes).unwrap_or_default(),
        stops: request.stop.unwrap_or_default(),
        format: request.format.map_or(Ok(Format::Text), format)?,
        answers: request.n.map_or(1, i64::from),
        logprobs: request.logprobs.map(i64::from),
        owner,
    })
}

fn message((at, message): (usize, wire_types::Message)) -> Result<Message, Fault> {
    let content = message.content.ok_or_else(|| bad("messages", format!("message {at} has no content")))?;
    Ok(Message { role: message.role.unwrap_or_default(), content, name: message.name })
}

fn wishes(sampling: wire_types::Sampling) -> Wishes {
    let bias = sampling.logit_bias.unwrap_or_default().into_iter();
    Wishes {
        temperature: sampling.temperature.map(f64::from),
        top_p: sampling.top_p.map(f64::from),
        top_k: sampling.top_k.map(i64::from),
        min_p: sampling.min_p.map(f64::from),
        repetition_penalty: sampling.repetition_penalty.map(f64::from),
        presence_penalty: sampling.presence_penalty.map(f64::from),
        frequency_penalty: sampling.frequency_penalty.map(f64::from),
        logit_bias: bias.map(|(token, bias)| (i64::from(token), f64::from(bias))).collect(),
        seed: sampling.seed.map(i64::cast_unsigned),
    }
}

fn format(format: wire_types::Format) -> Result<Format, Fault> {
    match (format.kind.unwrap_or(FormatKind::TEXT), format.schema) {
        (FormatKind::TEXT, _) => Ok(Format::Text),
        (FormatKind::JSON, _) => Ok(Format::Json),
        (FormatKind::JSON_SCHEMA, Some(schema)) => Ok(Format::JsonSchema(schema)),
        (FormatKind::JSON_SCHEMA, None) => Err(bad("format", "format is JSON_SCHEMA and there is no schema")),
        (FormatKind(kind), _) => Err(bad("format", format!("kind of format is {kind}, allowed is 0 to 2"))),
    }
}

fn count(value: usize) -> Option<i32> {
    Some(i32::try_from(value).unwrap_or(i32::MAX))
}

pub(super) fn usage(talked: &Talked) -> Usage {
    Usage {
        prompt_tokens: count(talked.usage.prompt),
        completion_tokens: count(talked.usage.completion),
        cached_tokens: count(talked.usage.cached),
    }
}

pub(super) fn timing(talked: &Talked) -> ChatTiming {
    ChatTiming {
        queue_us: micros(talked.timing.queue),
        prefill_us: micros(talked.timing.prefill),
        decode_us: micros(talked.timing.decode),
        first_token_us: micros(talked.first_token.unwrap_or_default()),
    }
}

pub(super) fn finish(finish: &Finish) -> FinishReason {
    match finish {
        Finish::End | Finish::Stop(_) => FinishReason::STOP,
        Finish::Length => FinishReason::LENGTH,
    }
}

/// What a token is as text; a part of a character is U+FFFD.
fn lossy(bytes: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(bytes).into_owned())
}

pub(super) fn logprob(token: Token) -> TokenLogprob {
    let top = token.top.into_iter().map(|other| {
        Box::new(AlternativeToken {
            token: i32::try_from(other.id).ok(),
            text: lossy(&other.bytes),
            bytes: Some(other.bytes.into()),
            logprob: Some(f64::from(other.logprob).into()),
        })
    });
    TokenLogprob {
        token: i32::try_from(token.id).ok(),
        text: lossy(&token.bytes),
        logprob: Some(f64::from(token.logprob).into()),
        top: Some(top.collect()),
        bytes: Some(token.bytes.into()),
    }
}

/// Whole answers, as their pieces come.
pub(super) struct Choices(Vec<wire_types::Choice>);

impl Choices {
    pub(super) fn new(answers: usize, wants_logprobs: bool) -> Self {
        let choice = |index| wire_types::Choice {
            index: count(index),
            text: Some(String::new()),
            logprobs: wants_logprobs.then(Vec::new),
            ..wire_types::Choice::default()
        };
        Self((0..answers).map(choice).collect())
    }

    pub(super) fn take(&mut self, said: Said) {
        match said {
            Said::Piece { answer, text, token, .. } => {
                let choice = &mut self.0[answer];
                choice.text.get_or_insert_default().push_str(&text);
                if let (Some(list), Some(token)) = (&mut choice.logprobs, token) {
                    list.push(logprob(token));
                }
            }
            Said::Finished { answer, finish: why, .. } => {
                let choice = &mut self.0[answer];
                choice.finish = Some(finish(&why));
                if let Finish::Stop(text) = why {
                    choice.stop_text = Some(text);
                }
            }
        }
    }

    pub(super) fn into_wire(self) -> Vec<wire_types::Choice> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(request: ChatRequest) -> Fault {
        ask(request, String::new()).expect_err("it has no form")
    }

    #[test]
    fn a_request_says_what_to_go_on_with_once() {
        let prompt = ChatRequest { prompt: Some("x".to_owned()), ..ChatRequest::default() };
        assert!(ask(prompt.clone(), String::new()).is_ok());
        assert_eq!(refused(ChatRequest::default()).message, "give messages or prompt");
        let both = ChatRequest { messages: Some(Vec::new()), ..prompt.clone() };
        assert_eq!(refused(both).param.as_deref(), Some("messages"));
        let message = wire_types::Message { role: Some("user".to_owned()), ..wire_types::Message::default() };
        let silent = ChatRequest { messages: Some(vec![message]), ..ChatRequest::default() };
        assert_eq!(refused(silent).message, "message 0 has no content");
        let long = ChatRequest { conversation: Some("x".repeat(129)), ..prompt.clone() };
        assert_eq!(refused(long).message, "conversation has 129 bytes, allowed is 0 to 128");
        for (kind, schema, says) in [(FormatKind(9), None, "is 9"), (FormatKind::JSON_SCHEMA, None, "no schema")] {
            let format = Some(wire_types::Format { kind: Some(kind), schema });
            assert!(refused(ChatRequest { format, ..prompt.clone() }).message.contains(says));
        }
    }

    #[test]
    fn seeds_keep_all_their_bits() {
        let sampling = wire_types::Sampling { seed: Some(-1), ..wire_types::Sampling::default() };
        assert_eq!(wishes(sampling).seed, Some(u64::MAX));
    }
}
