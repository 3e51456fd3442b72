//! A key, and what is kept of it.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every key begins with, so that people and scanners for leaked secrets know one when they see it.
const PREFIX: &str = "ob_";
/// Random bytes of a key: 256 bits, which nobody guesses.
const BYTES: usize = 32;

/// A key as a caller sends it. It is never shown by `Debug`.
pub struct Secret(String);

/// Why a text cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no key of Outboard: they are {PREFIX} and 43 letters, digits, - or _")]
pub struct SecretError;

/// What stands for a key where it must not be kept itself, such as a cookie. It is no key: nothing leads back from it.
#[derive(Clone, Copy)]
pub struct Session([u8; BYTES]);

/// What a file keeps of a key.
#[derive(Clone, Copy)]
pub(crate) struct Hash([u8; BYTES]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate() -> Result<Self, std::io::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// A key that was sent.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let random = text.strip_prefix(PREFIX).ok_or(SecretError)?;
        decoded(random).map(|_| Self(text.to_owned())).ok_or(SecretError)
    }

    /// The text, to be told once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What stands for it in a cookie.
    #[must_use]
    pub fn session(&self) -> Session {
        Session(sum("session", self.0.as_bytes()))
    }

    pub(crate) fn hash(&self) -> Hash {
        self.session().hash()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Session {
    /// The text of a cookie.
    #[must_use]
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// A cookie that was sent.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        decoded(text).map(Self)
    }

    /// What a form must carry besides the cookie: a page of another site makes a browser send the cookie, and cannot know this.
    #[must_use]
    pub fn token(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(sum("token", &self.0))
    }

    /// Whether a form carries it.
    #[must_use]
    pub fn has_token(&self, sent: &str) -> bool {
        decoded(sent).is_some_and(|sent| sent.ct_eq(&sum("token", &self.0)).into())
    }

    // From the session and not from the key: so the file vouches for both and tells neither.
    pub(crate) fn hash(&self) -> Hash {
        Hash(sum("file", &self.0))
    }
}

impl Hash {
    pub(crate) fn encode(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * BYTES || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Takes as long whatever the bytes are.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Of one purpose: the sum for one is of no use for another.
fn sum(purpose: &str, bytes: &[u8]) -> [u8; BYTES] {
    let mut hash = Sha256::new_with_prefix(format!("outboard {purpose}\0"));
    hash.update(bytes);
    hash.finalize().into()
}

fn decoded(text: &str) -> Option<[u8; BYTES]> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_and_read_back() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.expose().len(), PREFIX.len() + 43);
        assert!(Secret::parse(one.expose()).unwrap().hash().is(&one.hash()));
        assert!(!one.hash().is(&other.hash()));
        for wrong in ["", "ob_", "none", &one.expose()[1..], &format!("{}x", one.expose()), "sk-123", "ob_\u{e9}"] {
            assert!(Secret::parse(wrong).is_err(), "{wrong}");
        }
        assert!(!format!("{one:?}").contains(&one.expose()[4..]), "a key that is logged is not told");
    }

    #[test]
    fn a_cookie_is_no_key_and_a_token_no_cookie() {
        let key = Secret::generate().unwrap();
        let session = key.session();
        assert!(Secret::parse(&format!("{PREFIX}{}", session.encode())).unwrap().hash().0 != key.hash().0);
        assert!(Session::decode(&session.encode()).unwrap().hash().is(&key.hash()));
        assert!(!Session::decode(&session.token()).unwrap().hash().is(&key.hash()));
        assert!(session.has_token(&session.token()));
        for wrong in ["", &session.encode(), &Secret::generate().unwrap().session().token()] {
            assert!(!session.has_token(wrong));
        }
    }

    #[test]
    fn a_hash_is_sixty_four_digits() {
        let hash = Secret::generate().unwrap().hash();
        assert!(Hash::decode(&hash.encode()).unwrap().is(&hash));
        for wrong in
            ["", "+1", &hash.encode()[1..], &format!("{}0", hash.encode()), &"\u{e9}".repeat(32), &"+1".repeat(32)]
        {
            assert!(Hash::decode(wrong).is_none(), "{wrong}");
        }
    }
}
