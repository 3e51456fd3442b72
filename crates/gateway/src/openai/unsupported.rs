//! Fields of OpenAI's API, and of other servers that speak it, that would change the answer and are not supported here.

use fault::Fault;
use serde_json::Value;

use super::fields::{Fields, wrong};
use super::request::Form;

/// Such a field with the values, as JSON, with which it changes nothing: what there would be without it.
type Field = (&'static str, &'static [&'static str]);

const ALWAYS: [Field; 49] = [
    ("add_generation_prompt", &["true"]),
    ("add_special_tokens", &[]),
    ("allowed_token_ids", &["[]"]),
    ("audio", &[]),
    ("bad_words", &["[]"]),
    ("chat_template", &[]),
    ("chat_template_kwargs", &["{}"]),
    ("continue_final_message", &["false"]),
    ("documents", &["[]"]),
    ("dry_multiplier", &["0"]),
    ("dynatemp_range", &["0"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("functions", &["[]"]),
    ("grammar", &["\"\""]),
    ("guided_choice", &["[]"]),
    ("guided_grammar", &["\"\""]),
    ("guided_json", &[]),
    ("guided_regex", &["\"\""]),
    ("guided_whitespace_pattern", &[]),
    ("ignore_eos", &["false"]),
    ("include_stop_str_in_output", &["false"]),
    ("json_schema", &["{}"]),
    ("length_penalty", &["1"]),
    ("logits_processors", &["[]"]),
    ("min_tokens", &["0"]),
    ("mirostat", &["0"]),
    ("n_predict", &["-1"]),
    ("prompt_logprobs", &[]),
    ("reasoning", &["{}"]),
    ("reasoning_effort", &["\"none\""]),
    ("regex", &["\"\""]),
    ("repeat_penalty", &["1"]),
    ("samplers", &[]),
    ("skip_special_tokens", &["true"]),
    ("spaces_between_special_tokens", &["true"]),
    ("stop_token_ids", &["[]"]),
    ("structured_outputs", &["{}"]),
    ("suffix", &["\"\""]),
    ("tfs_z", &["1"]),
    ("thinking", &["false", r#"{"type": "disabled"}"#]),
    // Without tools there is nothing to choose.
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("tools", &["[]"]),
    ("top_a", &["0"]),
    ("truncate_prompt_tokens", &[]),
    ("typical_p", &["1"]),
    ("use_beam_search", &["false"]),
    ("verbosity", &["\"medium\""]),
    ("web_search_options", &[]),
    ("xtc_probability", &["0"]),
];

/// In chats besides.
const IN_CHATS: [Field; 3] = [("best_of", &["1"]), ("echo", &["false"]), ("prompt", &["\"\""])];

/// A value that changes nothing is short; longer ones are not even read.
const SHORT: usize = 64;

/// # Errors
/// InvalidInput that names the field.
pub(super) fn refuse(fields: &Fields<'_>, form: Form) -> Result<(), Fault> {
    let in_chats = if form == Form::Chat { &IN_CHATS[..] } else { &[] };
    for name in fields.names() {
        let known = ALWAYS.iter().chain(in_chats).find(|(field, _)| *field == name);
        let Some((_, neutral)) = known else { continue };
        let value = fields.raw(name).map(|value| value.get()).filter(|value| value.len() <= SHORT);
        if !value.is_some_and(|value| neutral.iter().any(|neutral| same(value, neutral))) {
            let but = match neutral {
                [] => String::new(),
                neutral => format!("; allowed is {}, which changes nothing", neutral.join(" or ")),
            };
            let message = format!("{name} is not supported here, and the answer would be another one with it{but}");
            return Err(Fault::invalid_input(message).with_param(name.to_owned()));
        }
    }
    for (number, modality) in fields.list("modalities", 8)?.unwrap_or_default().into_iter().enumerate() {
        if modality.get() != "\"text\"" {
            return Err(wrong(&format!("modalities[{number}]"), modality.get(), "\"text\""));
        }
    }
    Ok(())
}

/// Whether two JSON texts mean the same: `1.0` is `1`, and `[ ]` is `[]`.
fn same(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    match (read(one), read(other)) {
        (Some(Value::Number(one)), Some(Value::Number(other))) => one.as_f64() == other.as_f64(),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str, form: Form) -> Option<String> {
        let fault = refuse(&Fields::of_body(body.as_bytes()).expect(body), form).err()?;
        assert!(fault.message.starts_with(fault.param.as_deref().unwrap_or("?")), "{fault}");
        fault.param.map(|param| param.into_owned())
    }

    #[test]
    fn every_field_has_neutral_values_of_its_own() {
        for (name, neutral) in ALWAYS.iter().chain(&IN_CHATS) {
            for value in *neutral {
                assert_eq!(refused(&format!("{{\"{name}\": {value}}}"), Form::Chat), None, "{name}: {value}");
            }
            let odd = r#"{"x": [17]}"#;
            assert_eq!(refused(&format!("{{\"{name}\": {odd}}}"), Form::Chat).as_deref(), Some(*name));
        }
        // What is nothing for one changes the answer for another.
        for (field, value) in [
            ("add_generation_prompt", "false"),
            ("tfs_z", "0"),
            ("typical_p", "0"),
            ("length_penalty", "0"),
            ("skip_special_tokens", "false"),
            ("n_predict", "5"),
            ("echo", "true"),
            ("verbosity", "\"low\""),
            ("truncate_prompt_tokens", "5"),
        ] {
            assert_eq!(refused(&format!("{{\"{field}\": {value}}}"), Form::Chat).as_deref(), Some(field));
        }
    }

    #[test]
    fn a_value_may_be_written_in_other_ways() {
        for body in [r#"{"tools": [ ]}"#, r#"{"length_penalty": 1.0, "tfs_z": 1e0}"#, "{\"documents\": [\n]}"] {
            assert_eq!(refused(body, Form::Chat), None, "{body}");
        }
    }

    #[test]
    fn completions_have_fields_that_chats_have_not() {
        assert_eq!(refused(r#"{"echo": true, "best_of": 2, "prompt": "x"}"#, Form::Completion), None);
        assert_eq!(refused(r#"{"best_of": 2}"#, Form::Chat).as_deref(), Some("best_of"));
    }
}
