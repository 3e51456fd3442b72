//! Who asked, and which request this is.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Shorter or longer than allowed.
    #[error("id is {0} characters long, allowed are 8 to 64")]
    Length(usize),
    /// A character outside the set.
    #[error("id has the character {0:?}, allowed are letters, digits, '.', '_' and '-'")]
    Character(char),
}

/// The id that one request carries through every process, log line and error. `[A-Za-z0-9._-]{8,64}`, as nginx checks it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new id: 32 hexadecimal digits that sort by time (UUIDv7).
    #[must_use]
    pub fn generate() -> Self {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        // Nothing is guarded by an id, so its random part needs no system call.
        let random = std::array::from_fn(|_| fastrand::u8(..));
        let mut buffer = Uuid::encode_buffer();
        let id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        Self(Arc::from(&*id.simple().encode_lower(&mut buffer)))
    }

    /// An id that came from outside.
    ///
    /// # Errors
    /// When it is not `[A-Za-z0-9._-]{8,64}`: such an id would be unsafe in a log line or a header.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let length = text.chars().count();
        if !(8..=64).contains(&length) {
            return Err(IdError::Length(length));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            Some(character) => Err(IdError::Character(character)),
            None => Ok(Self(Arc::from(text))),
        }
    }

    /// The id that came, when it is a sane one; otherwise a new one.
    #[must_use]
    pub fn keep_or_generate(incoming: Option<&str>) -> Self {
        incoming.and_then(|text| Self::parse(text).ok()).unwrap_or_else(Self::generate)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 16 bytes chosen by the caller; all attempts of one call share them, and `cancel` names a call by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub [u8; 16]);

impl CallId {
    /// A random id.
    #[must_use]
    pub fn random() -> Self {
        // A call can be cancelled by the connection that made it alone, so nobody gains by guessing.
        Self(fastrand::u128(..).to_ne_bytes())
    }

    /// The id in `bytes`, when there are exactly 16.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// Who is calling: a verified identity, or `anonymous@<address>`. Never taken from the request itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(Arc<str>);

impl CallerId {
    /// A caller whose identity nobody verified.
    #[must_use]
    pub fn anonymous(address: impl fmt::Display) -> Self {
        Self(Arc::from(format!("anonymous@{address}")))
    }

    /// A caller whose identity a key or a certificate proved.
    #[must_use]
    pub fn verified(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_valid_and_differ() {
        let (a, b) = (RequestId::generate(), RequestId::generate());
        assert_ne!(a, b);
        assert_eq!(RequestId::parse(a.as_str()), Ok(a));
    }

    #[test]
    fn ids_that_could_break_a_log_line_or_a_header_are_refused() {
        assert_eq!(RequestId::parse("short"), Err(IdError::Length(5)));
        assert_eq!(RequestId::parse(&"a".repeat(65)), Err(IdError::Length(65)));
        assert_eq!(RequestId::parse("line\nbreak"), Err(IdError::Character('\n')));
        assert_eq!(RequestId::parse("ümlautümlaut"), Err(IdError::Character('ü')));
    }

    #[test]
    fn a_bad_incoming_id_is_replaced_and_a_good_one_kept() {
        assert_eq!(RequestId::keep_or_generate(Some("client-id_1.2")).as_str(), "client-id_1.2");
        assert_ne!(RequestId::keep_or_generate(Some("no")).as_str(), "no");
    }
}
