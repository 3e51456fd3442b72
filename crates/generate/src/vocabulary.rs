//! Text to tokens and tokens to bytes, by a model's own `tokenizer.json`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::Tokenizer;
use toktrie_hf_tokenizers::ByteTokenizer;

use crate::generator::Tokens;

/// Why a model's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// One token or several, as `eos_token_id` is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ends {
    eos_token_id: Option<Ids>,
}

/// The tokens of one model.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    bytes: Vec<Box<[u8]>>,
    ends: Vec<u32>,
}

impl Vocabulary {
    /// Reads `tokenizer.json`, and the tokens that end an answer from `generation_config.json` and `config.json`.
    ///
    /// # Errors
    /// [`FolderError`] with the file.
    pub fn open(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join("tokenizer.json");
        let text = read(&path)?;
        let content = |reason: String| FolderError::Content { path: path.clone(), reason };
        let mut tokenizer: Tokenizer = text.parse().map_err(|error| content(format!("{error}")))?;
        // Some files cut or fill up to the length that the model was trained with: an answer would begin in the middle.
        tokenizer.with_truncation(None).map_err(|error| content(error.to_string()))?;
        tokenizer.with_padding(None);
        let bytes =
            ByteTokenizer::from_tokenizer(tokenizer.clone()).map_err(|error| content(error.to_string()))?.token_bytes();
        let added = tokenizer.get_added_tokens_decoder();
        // An added token is its own text; the trie has it with a mark in front.
        let bytes = bytes.into_iter().enumerate().map(|(token, bytes)| match added.get(&(token as u32)) {
            Some(added) if added.special => Box::default(),
            Some(added) => added.content.clone().into_bytes().into_boxed_slice(),
            None => bytes.into_boxed_slice(),
        });
        let bytes = bytes.collect();
        let mut ends = BTreeSet::new();
        for name in ["generation_config.json", "config.json"] {
            let path = folder.join(name);
            if !path.is_file() {
                continue;
            }
            let read: Ends = serde_json::from_str(&read(&path)?)
                .map_err(|error| FolderError::Content { path, reason: error.to_string() })?;
            match read.eos_token_id {
                Some(Ids::One(one)) => ends.extend([one]),
                Some(Ids::Many(many)) => ends.extend(many),
                None => {}
            }
        }
        Ok(Self { tokenizer, bytes, ends: ends.into_iter().collect() })
    }

    /// The tokens of a text; the names of special tokens in it are those tokens. `begin` puts in front of it what the model's
    /// file puts in front of every text (a template does so itself).
    ///
    /// # Errors
    /// The tokenizer's words.
    pub fn encode(&self, text: &str, begin: bool) -> Result<Vec<u32>, String> {
        let encoding = self.tokenizer.encode_fast(text, begin).map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The bytes of a token; none for a special one, or for one that does not exist.
    #[must_use]
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], |bytes| bytes)
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// What a generator needs of it.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        Tokens { bytes: self.bytes.clone(), ends: self.ends.clone() }
    }
}

pub(crate) fn read(path: &Path) -> Result<String, FolderError> {
    std::fs::read_to_string(path).map_err(|error| FolderError::Read { path: path.to_owned(), error })
}
