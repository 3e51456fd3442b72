//! Names of models.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a text is not a model's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there, or too much of it.
    #[error("model name is {0} characters long, allowed are 1 to 128")]
    Length(usize),
    /// A character outside the set.
    #[error("model name has the character {0:?}, allowed are letters, digits, '.', '_', '-' and one '/' between parts")]
    Character(char),
    /// A part that is empty or begins with a dot.
    #[error("model name `{0}` has a part that is empty or begins with a dot")]
    Part(String),
}

/// The name under which a model is served: `fashion-mnist`, `HuggingFaceTB/SmolLM2-135M`. Safe in a path and in a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// The name in `text`.
    ///
    /// # Errors
    /// When it is empty, over 128 characters, has other characters than letters, digits, `.`, `_`, `-`, `/`, or a part
    /// that is empty or begins with a dot.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let length = text.chars().count();
        if !(1..=128).contains(&length) {
            return Err(NameError::Length(length));
        }
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'))) {
            return Err(NameError::Character(bad));
        }
        if text.split('/').any(|part| part.is_empty() || part.starts_with('.')) || text.matches('/').count() > 1 {
            return Err(NameError::Part(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_and_of_hub_repositories_are_taken() {
        for name in ["mnist", "fashion-mnist", "HuggingFaceTB/SmolLM2-135M-Instruct", "a.b_c"] {
            assert_eq!(ModelName::parse(name).map(|n| n.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for name in ["../x", "a/../b", "/etc", "a//b", ".hidden", "a/", "a/b/c"] {
            assert!(matches!(ModelName::parse(name), Err(NameError::Part(_))), "{name}");
        }
        assert_eq!(ModelName::parse("a b"), Err(NameError::Character(' ')));
        assert_eq!(ModelName::parse(""), Err(NameError::Length(0)));
    }
}
