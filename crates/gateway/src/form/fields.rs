//! The fields of a form with pictures, one after the other.
//!
//! Promises: no field is kept beyond its limit, and no bytes that `grow` did not allow; the whole form is read whatever is
//! wrong with it, because a client that is still sending would not see the answer.
//! Nothing of the rest of this program is used here, so that fuzzing can drive it.

use actix_multipart::{Multipart, MultipartError};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

/// A text field may be this long: a model's name is shorter.
const TEXT: usize = 1 << 10;
/// Fields of a form besides its pictures.
const OTHERS: usize = 48;
/// A longer name is none of ours; it stands in messages.
const NAME: usize = 64;
/// No more of a file's name is looked at.
const FILE_NAME: usize = 4 << 10;

pub(crate) struct Bounds {
    /// Bytes of one picture.
    pub(crate) picture: usize,
    pub(crate) pictures: usize,
}

/// What was filled in. An empty field counts as none.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Filled {
    pub(crate) images: Vec<Bytes>,
    /// What each picture is called, as it was sent: a stranger's text.
    pub(crate) names: Vec<String>,
    pub(crate) model: String,
    pub(crate) top_k: Option<String>,
    pub(crate) keep: Option<String>,
}

/// What is wrong with a form; `E` says why it gets no more memory.
#[derive(Debug)]
pub(crate) enum Wrong<E> {
    Broken(MultipartError),
    TooLarge { field: String, is_file: bool, have: usize, limit: usize },
    TooManyFields(usize),
    TooManyPictures(usize),
    NotUtf8(String),
    Denied(E),
}

/// Reads `image` files (also `images`, `file`), `model`, `top_k` and `keep`.
pub(crate) async fn read<E>(
    mut form: Multipart,
    bounds: &Bounds,
    mut grow: impl FnMut(usize) -> Result<(), E>,
) -> Result<Filled, Wrong<E>> {
    let mut filled = Filled::default();
    let (mut fields, most_fields) = (0, bounds.pictures + OTHERS);
    let mut failed = None;
    while let Some(field) = form.next().await {
        let mut field = field.map_err(Wrong::Broken)?;
        fields += 1;
        if fields > most_fields && failed.is_none() {
            failed = Some(Wrong::TooManyFields(most_fields));
        }
        let name = field.name().unwrap_or_default();
        let name = name[..name.floor_char_boundary(NAME)].to_owned();
        let is_file = matches!(name.as_str(), "image" | "images" | "images[]" | "file");
        let called = field.content_disposition().and_then(|head| head.get_filename()).unwrap_or_default();
        let called = called[called.ceil_char_boundary(called.len().saturating_sub(FILE_NAME))..].to_owned();
        let limit = if is_file { bounds.picture } else { TEXT };
        let mut content = BytesMut::new();
        while let Some(piece) = field.next().await {
            let piece = piece.map_err(Wrong::Broken)?;
            if failed.is_some() {
                continue;
            }
            let have = content.len() + piece.len();
            if have > limit {
                failed = Some(Wrong::TooLarge { field: name.clone(), is_file, have, limit });
                content = BytesMut::new();
                continue;
            }
            match grow(piece.len()) {
                Ok(()) => content.extend_from_slice(&piece),
                Err(why) => failed = Some(Wrong::Denied(why)),
            }
        }
        if failed.is_none() {
            failed = filled.put(&name, is_file.then_some(called), content, bounds).err();
        }
    }
    failed.map_or(Ok(filled), Err)
}

impl Filled {
    /// `called`: the name of a file.
    fn put<E>(
        &mut self,
        name: &str,
        called: Option<String>,
        content: BytesMut,
        bounds: &Bounds,
    ) -> Result<(), Wrong<E>> {
        let is_file = called.is_some();
        match name {
            _ if is_file && self.images.len() >= bounds.pictures => {
                return Err(Wrong::TooManyPictures(bounds.pictures));
            }
            // A form that was sent without choosing a file has one empty part.
            _ if content.is_empty() => {}
            _ if is_file => {
                self.images.push(content.freeze());
                self.names.extend(called);
            }
            "model" => self.model = text(name, &content)?,
            "top_k" => self.top_k = Some(text(name, &content)?),
            "keep" => self.keep = Some(text(name, &content)?),
            // A field that is not known is harmless: pages may send more than programs.
            _ => {}
        }
        Ok(())
    }
}

fn text<E>(name: &str, content: &[u8]) -> Result<String, Wrong<E>> {
    let text = std::str::from_utf8(content).map_err(|_| Wrong::NotUtf8(name.to_owned()))?;
    Ok(text.trim().to_owned())
}
