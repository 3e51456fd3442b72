//! Texts to tokens, by the `tokenizer.json` of an embedding model.
//!
//! Promises: the same text has the same tokens as in the library that wrote the file; what is cut or filled up is decided here and
//! not by the file, whose settings for it are those of a training run.

use std::path::Path;

use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{Encoding, PostProcessor, Token, Tokenizer};

/// A text that has more bytes than this for each token that the model takes is not looked at any further: it would cost the time of
/// all its tokens. Words have some five bytes, characters four at most.
const BYTES_FOR_EACH_TOKEN: usize = 64;

/// Why a text has no tokens that the model takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokensError {
    #[error("is empty")]
    Empty,
    #[error("has {have} tokens, the model takes {limit}")]
    TooLong { have: usize, limit: usize },
    #[error("has {have} bytes, the model takes {tokens} tokens, which are taken to have at most {limit} bytes")]
    TooManyBytes { have: usize, limit: usize, tokens: usize },
    #[error("has the token {token}, the model knows 0 to {last}")]
    Unknown { token: i32, last: u32 },
    #[error("has no tokens: {0}")]
    Tokenizer(String),
}

/// The tokenizer of one model.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// Most tokens of a text, the added ones included.
    most: usize,
    /// How many are added.
    added: usize,
    /// The last token: some vocabularies have holes, so it does not follow from their size.
    last: u32,
}

impl Tokens {
    /// # Errors
    /// The file and what is wrong with it.
    pub(crate) fn open(folder: &Path, most: usize) -> Result<Self, String> {
        let path = folder.join("tokenizer.json");
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
        let mut tokenizer: Tokenizer = text.parse().map_err(|error| wrong(&error))?;
        tokenizer.with_truncation(None).map_err(|error| wrong(&error))?;
        tokenizer.with_padding(None);
        let added = tokenizer.get_post_processor().map_or(0, |post| post.added_tokens(false));
        if added >= most {
            return Err(format!("`embed.max_tokens` is {most}, the tokenizer alone adds {added}"));
        }
        let last = tokenizer.get_vocab(true).into_values().max().unwrap_or_default();
        Ok(Self { tokenizer, most, added, last })
    }

    /// The tokens of a text with what the tokenizer puts around it. `cut` shortens what is too long.
    pub(crate) fn of_text(&self, text: &str, cut: bool) -> Result<Vec<u32>, TokensError> {
        if text.is_empty() {
            return Err(TokensError::Empty);
        }
        let (have, tokens) = (text.len(), self.most);
        let limit = tokens * BYTES_FOR_EACH_TOKEN;
        if have > limit && !cut {
            return Err(TokensError::TooManyBytes { have, limit, tokens });
        }
        let text = &text[..text.floor_char_boundary(limit)];
        let encoding = self.tokenizer.encode_fast(text, false);
        self.finish(encoding.map_err(|error| TokensError::Tokenizer(error.to_string()))?, cut)
    }

    /// The same for tokens that the caller has made.
    pub(crate) fn of_tokens(&self, tokens: &[i32], cut: bool) -> Result<Vec<u32>, TokensError> {
        if tokens.is_empty() {
            return Err(TokensError::Empty);
        }
        let token = |token: &i32| {
            let id = u32::try_from(*token).ok().filter(|id| *id <= self.last);
            let unknown = || TokensError::Unknown { token: *token, last: self.last };
            Ok(Token::new(id.ok_or_else(unknown)?, String::new(), (0, 0)))
        };
        let tokens = tokens.iter().map(token).collect::<Result<Vec<_>, _>>()?;
        self.finish(Encoding::from_tokens(tokens, 0), cut)
    }

    fn finish(&self, mut encoding: Encoding, cut: bool) -> Result<Vec<u32>, TokensError> {
        let have = encoding.len() + self.added;
        if have > self.most {
            if !cut {
                return Err(TokensError::TooLong { have, limit: self.most });
            }
            encoding.truncate(self.most - self.added, 0, TruncationDirection::Right);
        }
        let whole = self.tokenizer.post_process(encoding, None, true);
        let whole = whole.map_err(|error| TokensError::Tokenizer(error.to_string()))?;
        // Nothing to take the mean of: a text of characters that the tokenizer drops, where it adds nothing.
        if whole.is_empty() { Err(TokensError::Empty) } else { Ok(whole.get_ids().to_vec()) }
    }

    /// Most tokens of a text.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// As many tokens as that, for first runs: what they say does not matter.
    pub(crate) fn some(&self, count: usize) -> Result<Vec<u32>, TokensError> {
        let words = self.of_text("the first run of a model", true)?;
        Ok(words.iter().copied().cycle().take(count).collect())
    }
}
