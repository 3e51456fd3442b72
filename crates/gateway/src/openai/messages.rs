//! The messages of a conversation, as OpenAI's clients write them.

use fault::Fault;
use idl::chat::Message;
use serde_json::value::RawValue;

use super::fields::{Fields, text_of, wrong};

/// Most messages of a conversation, and most parts of one message.
const MOST: usize = 4_096;

/// # Errors
/// InvalidInput that names the message and what is wrong with it.
pub(super) fn read(fields: &Fields<'_>) -> Result<Vec<Message>, Fault> {
    let items = fields.list("messages", MOST)?;
    let items = items.ok_or_else(|| fields.missing("messages", "a list of messages"))?;
    if items.is_empty() {
        return Err(wrong("messages", "[]", "at least one message"));
    }
    items.into_iter().enumerate().map(|(number, item)| message(item, &format!("messages[{number}]"))).collect()
}

fn message(item: &RawValue, place: &str) -> Result<Message, Fault> {
    let fields = Fields::of_value(item, place)?;
    let role = fields.raw("role").ok_or_else(|| fields.missing("role", "a role"))?;
    let known = match text_of(role).as_deref() {
        // The newer name for the same.
        Some("system" | "developer") => Some("system"),
        Some("user") => Some("user"),
        Some("assistant") => Some("assistant"),
        Some("tool") => Some("tool"),
        _ => None,
    };
    let known = known.ok_or_else(|| {
        wrong(&fields.place("role"), role.get(), "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"")
    })?;
    if fields.raw("audio").is_some() {
        let place = fields.place("audio");
        let message = format!("{place} is not supported, the models here know text only");
        return Err(Fault::invalid_input(message).with_param(place));
    }
    let content = match fields.raw("content") {
        Some(content) => Some(
            match content.get().as_bytes().first() {
                Some(b'"') => text_of(content).map(|text| text.into_owned()),
                Some(b'[') => Some(parts(&fields)?),
                _ => None,
            }
            .ok_or_else(|| wrong(&fields.place("content"), content.get(), "a text or a list of texts"))?,
        ),
        None => None,
    };
    let content = match known {
        "assistant" => said(&fields, content)?,
        _ => content.ok_or_else(|| fields.missing("content", "a text or a list of texts"))?,
    };
    let name = fields.text("name")?.map(|name| name.into_owned());
    Ok(Message { role: Some(known.to_owned()), content: Some(content), name })
}

/// What an assistant said, which can be nothing but a refusal, or calls of functions. Those were made by another model, or by this
/// one's text: they become text again, in the form that most models were trained on.
fn said(fields: &Fields<'_>, content: Option<String>) -> Result<String, Fault> {
    let refusal = fields.text("refusal")?.map(|text| text.into_owned());
    let mut all = content.or(refusal).unwrap_or_default();
    let mut call = |function: &Fields<'_>| {
        let name = function.raw("name").filter(|name| text_of(name).is_some());
        let name = name.ok_or_else(|| function.missing("name", "a text"))?;
        let arguments = function.text("arguments")?.unwrap_or_default();
        // A text that holds JSON, in OpenAI's API; whatever else it is stays a text.
        let arguments = match serde_json::from_str::<&RawValue>(&arguments) {
            Ok(value) => value.get().to_owned(),
            Err(_) => serde_json::Value::from(&*arguments).to_string(),
        };
        if !all.is_empty() {
            all.push('\n');
        }
        let name = name.get();
        all.push_str(&format!("<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>"));
        Ok::<_, Fault>(())
    };
    for (number, item) in fields.list("tool_calls", MOST)?.unwrap_or_default().into_iter().enumerate() {
        let place = format!("{}[{number}]", fields.place("tool_calls"));
        let item = Fields::of_value(item, &place)?;
        call(&item.object("function")?.ok_or_else(|| item.missing("function", "an object"))?)?;
    }
    if let Some(function) = fields.object("function_call")? {
        call(&function)?;
    }
    Ok(all)
}

/// The texts of a list of parts, one behind the other.
fn parts(fields: &Fields<'_>) -> Result<String, Fault> {
    let mut all = String::new();
    for (number, part) in fields.list("content", MOST)?.unwrap_or_default().into_iter().enumerate() {
        let place = format!("{}[{number}]", fields.place("content"));
        let part = Fields::of_value(part, &place)?;
        let kind = part.text("type")?.ok_or_else(|| part.missing("type", "\"text\""))?;
        let field = match &*kind {
            "text" => "text",
            "refusal" => "refusal",
            _ => {
                let shown = format!("{kind:?}");
                return Err(wrong(&part.place("type"), &shown, "\"text\": the models here know text only"));
            }
        };
        all.push_str(&part.text(field)?.ok_or_else(|| part.missing(field, "a text"))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Message>, Fault> {
        let body = format!(r#"{{"messages": {text}}}"#);
        read(&Fields::of_body(body.as_bytes()).expect(text))
    }

    #[test]
    fn content_is_a_text_or_a_list_of_texts() {
        let messages = of(r#"[
            {"role": "developer", "content": "be \"kind\""},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a\u00e9"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": null, "tool_calls": []}
        ]"#);
        let messages = messages.expect("good ones");
        let seen: Vec<_> = messages.iter().map(|one| (one.role.as_deref(), one.content.as_deref())).collect();
        let expected = [("system", "be \"kind\""), ("user", "a\u{e9}b"), ("assistant", "no")];
        assert_eq!(seen, expected.map(|(role, content)| (Some(role), Some(content))));
        assert_eq!(messages[1].name.as_deref(), Some("ann"));
    }

    #[test]
    fn an_assistant_may_have_said_nothing_but_a_refusal_or_calls() {
        let messages = of(r#"[
            {"role": "assistant", "content": null, "refusal": "I cannot."},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}},
                {"id": "2", "type": "function", "function": {"name": "time", "arguments": "no JSON"}}
            ]},
            {"role": "tool", "tool_call_id": "1", "content": "7 degrees"},
            {"role": "assistant", "content": "Let me see.", "function_call": {"name": "f", "arguments": ""}},
            {"role": "assistant", "content": null}
        ]"#);
        let said: Vec<_> = messages.expect("good ones").into_iter().filter_map(|one| one.content).collect();
        let expected = [
            "I cannot.",
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\n\
             <tool_call>\n{\"name\": \"time\", \"arguments\": \"no JSON\"}\n</tool_call>",
            "7 degrees",
            "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": \"\"}\n</tool_call>",
            "",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, param, says) in [
            ("null", "messages", "is missing"),
            ("[]", "messages", "at least one"),
            ("{}", "messages", "allowed is a list"),
            ("[1]", "messages[0]", "allowed is an object"),
            (r#"[{"content": "x"}]"#, "messages[0].role", "is missing"),
            (r#"[{"role": "user", "content": "x"}, {"role": "god", "content": "x"}]"#, "messages[1].role", "\"god\""),
            (r#"[{"role": "user"}]"#, "messages[0].content", "is missing"),
            (r#"[{"role": "user", "content": 5}]"#, "messages[0].content", "is 5"),
            (r#"[{"role": "user", "content": [{"text": "x"}]}]"#, "messages[0].content[0].type", "is missing"),
            (r#"[{"role": "user", "content": [{"type": "text"}]}]"#, "messages[0].content[0].text", "is missing"),
            (
                r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]"#,
                "messages[0].content[0].type",
                "\"image_url\", allowed is \"text\": the models here know text only",
            ),
            (r#"[{"role": "user", "content": null}]"#, "messages[0].content", "is missing"),
            (r#"[{"role": "assistant", "content": 5}]"#, "messages[0].content", "is 5"),
            (
                r#"[{"role": "assistant", "tool_calls": [{"id": "1"}]}]"#,
                "messages[0].tool_calls[0].function",
                "is missing, expected an object",
            ),
            (
                r#"[{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}]"#,
                "messages[0].tool_calls[0].function.name",
                "is missing",
            ),
            (r#"[{"role": "assistant", "audio": {"id": "1"}}]"#, "messages[0].audio", "not supported"),
        ] {
            let fault = of(text).expect_err(text);
            assert_eq!(fault.param.as_deref(), Some(param), "{fault}");
            assert!(fault.message.contains(says), "{fault}");
        }
    }
}
