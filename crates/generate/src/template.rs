//! A conversation as the text that a chat model was trained on, by the model's own template.
//!
//! The templates are Jinja as transformers runs it: `trim_blocks` and `lstrip_blocks`, Python's methods on strings and lists,
//! `raise_exception`, `tojson` without escapes for HTML.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::vocabulary::{FolderError, read};

/// Work of one rendering, in minijinja's units: a conversation of thousands of messages takes some hundred thousand.
const FUEL: u64 = 10_000_000;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Who said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A special token, written as a text or as an object with more about it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Object { content: String },
}

/// One template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Many(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    chat_template: Option<Written>,
    bos_token: Option<Named>,
    eos_token: Option<Named>,
}

/// A model's chat template.
pub struct Template {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

impl Template {
    /// Reads the template from `chat_template.jinja` or `tokenizer_config.json`; `None` when the model has none.
    ///
    /// # Errors
    /// [`FolderError`] with the file.
    pub fn open(folder: &Path) -> Result<Option<Self>, FolderError> {
        let path = folder.join("tokenizer_config.json");
        let config: Config = if path.is_file() {
            let reason =
                |error: serde_json::Error| FolderError::Content { path: path.clone(), reason: error.to_string() };
            serde_json::from_str(&read(&path)?).map_err(reason)?
        } else {
            Config::default()
        };
        let own = folder.join("chat_template.jinja");
        let (source, path) = match (own.is_file(), config.chat_template) {
            (true, _) => (read(&own)?, own),
            (false, Some(Written::One(source))) => (source, path),
            (false, Some(Written::Many(all))) => match all.into_iter().find(|one| one.name == "default") {
                Some(one) => (one.template, path),
                None => return Ok(None),
            },
            (false, None) => return Ok(None),
        };
        let text = |named| match named {
            Named::Text(text) | Named::Object { content: text } => text,
        };
        let made = Self::new(source, config.bos_token.map(text), config.eos_token.map(text));
        made.map(Some).map_err(|error| FolderError::Content { path, reason: format!("chat template: {error:#}") })
    }

    /// A template from its source, with the names of the tokens that begin and end a text.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn new(source: String, bos: Option<String>, eos: Option<String>) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(|state, value, method, words| match (value.as_str(), words) {
            (Some(text), []) if method == "strip" => Ok(text.trim_matches(is_space).into()),
            (Some(text), []) if method == "lstrip" => Ok(text.trim_start_matches(is_space).into()),
            (Some(text), []) if method == "rstrip" => Ok(text.trim_end_matches(is_space).into()),
            _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, words),
        });
        environment.add_filter("trim", |text: &str, of: Option<&str>| -> String {
            match of {
                Some(of) => text.trim_matches(|character| of.contains(character)).to_owned(),
                None => text.trim_matches(is_space).to_owned(),
            }
        });
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", without_generation(&source))?;
        Ok(Self { environment, bos, eos })
    }

    /// The conversation as text, up to where the model is to speak.
    ///
    /// # Errors
    /// What the template says of the messages, as that roles must alternate.
    pub fn render(&self, messages: &[Message]) -> Result<String, String> {
        let template = self.environment.get_template("chat").map_err(|error| error.to_string())?;
        let values = context! {
            messages => Value::from(Serde(messages)),
            // Templates ask whether there are any, as `is defined` or as `is not none`.
            tools => Value::from(()),
            documents => Value::from(()),
            bos_token => self.bos.as_deref().unwrap_or_default(),
            eos_token => self.eos.as_deref().unwrap_or_default(),
            add_generation_prompt => true,
        };
        template.render(values).map_err(|error| error.detail().map_or_else(|| error.to_string(), str::to_owned))
    }
}

/// Without `generation` blocks, which tell a trainer which words are the model's: for us they are only what is in them.
fn without_generation(source: &str) -> String {
    let (mut told, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(at) = rest.find("{%") {
        let end = rest[at..].find("%}").map_or(rest.len(), |end| at + end + 2);
        let tag = &rest[at..end];
        told.push_str(&rest[..at]);
        // The tag's own marks stay: they say which space around it goes.
        match tag.trim_matches(['{', '%', '-', '+', '}']).trim() {
            "generation" => told.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => told.push_str(&tag.replace("endgeneration", "endif")),
            _ => told.push_str(tag),
        }
        rest = &rest[end..];
    }
    told.push_str(rest);
    told
}

/// What Python, in which templates are written, takes for space: the separators of ASCII as well.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT_ML: &str = "{% for message in messages %}\n{% if loop.first and message['role'] != 'system' %}\n\
        {{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}\n{% endif %}\n\
        {{ '<|im_start|>' + message['role'] + '\\n' + message['content'].strip() + '<|im_end|>' + '\\n' }}\n{% endfor %}\n\
        {% if add_generation_prompt %}\n{{ '<|im_start|>assistant\\n' }}\n{% endif %}";

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.to_owned(), content: content.to_owned(), name: None }
    }

    #[test]
    fn a_conversation_becomes_the_text_that_the_template_says() {
        let template = Template::new(CHAT_ML.to_owned(), None, None).expect("is Jinja");
        let text = template.render(&[message("user", "  Hello <b>&\"you\"</b> ")]).expect("renders");
        let system = "<|im_start|>system\nYou help.<|im_end|>\n";
        let user = "<|im_start|>user\nHello <b>&\"you\"</b><|im_end|>\n";
        // The line of a block tag goes with it, that of a value stays: so does Jinja.
        assert_eq!(text, format!("{system}\n{user}\n<|im_start|>assistant\n\n"));
    }

    #[test]
    fn what_a_template_refuses_is_told_in_its_own_words() {
        let source =
            "{% if messages[0].role != 'user' %}{{ raise_exception('the user begins') }}{% endif %}{{ bos_token }}";
        let template = Template::new(source.to_owned(), Some("<s>".to_owned()), None).expect("is Jinja");
        assert_eq!(template.render(&[message("assistant", "x")]).expect_err("is refused"), "the user begins");
        assert_eq!(template.render(&[message("user", "x")]).expect("renders"), "<s>");
    }

    #[test]
    fn a_template_cannot_work_for_ever() {
        let source = "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        let template = Template::new(source.to_owned(), None, None).expect("is Jinja");
        assert!(template.render(&[]).is_err());
    }

    #[test]
    fn a_template_that_is_none_says_where() {
        let Err(error) = Template::new("{% for %}".to_owned(), None, None) else { panic!("was taken") };
        assert_eq!(error.line(), Some(1));
    }
}
