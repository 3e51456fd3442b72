//! This crate knows how each kind of failure looks to everyone outside.
//!
//! Why: the same failure leaves through Thrift, HTTP, an OpenAI stream and a command's exit status, and callers must be
//! able to tell "full" from "loading" in all of them. [`Kind`] is the closed list, [`Kind::row`] the only place that
//! knows the codes.
//! Not here: turning a `Fault` into a Thrift struct (`idl`) or an HTTP answer (`gateway`).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What went wrong, as far as a caller is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The request is wrong; sending it again changes nothing.
    InvalidInput,
    /// No key, or one that is not known.
    Unauthenticated,
    /// The caller is known and may not do this.
    Forbidden,
    /// No such model or object.
    NotFound,
    /// Over a limit on bytes, pixels, rows or tokens.
    TooLarge,
    /// The caller's own budget is used up.
    QuotaExceeded,
    /// This service has more work than it can take.
    Overloaded,
    /// The deadline passed, or cannot be met.
    DeadlineExceeded,
    /// The caller left or asked to stop.
    Cancelled,
    /// Loading, draining, or no server could be reached.
    Unavailable,
    /// A defect of this service.
    Internal,
    /// The bytes are not a picture of a format that is read here.
    UnsupportedMedia,
}

/// Whether the same request may succeed when sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will fail in the same way.
    No,
    /// After the caller's budget has been refilled.
    Later,
    /// Soon, with growing pauses.
    Backoff,
    /// With a longer deadline.
    Maybe,
}

impl Retry {
    /// Whether an HTTP answer carries `Retry-After`.
    #[must_use]
    pub const fn is_advised(self) -> bool {
        matches!(self, Self::Later | Self::Backoff)
    }
}

/// One row of the fault table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The kind's name as it stands in logs and in the IDL.
    pub name: &'static str,
    /// `FaultCode` on the Thrift wire.
    pub thrift: i32,
    /// HTTP status.
    pub http: u16,
    /// `error.type` in OpenAI's form.
    pub openai_type: &'static str,
    /// `error.code`: unique to each kind, where HTTP statuses repeat.
    pub code: &'static str,
    /// Advice on sending the request again.
    pub retry: Retry,
    /// Exit status of the command line.
    pub exit: u8,
}

const fn row(
    name: &'static str,
    thrift: i32,
    http: u16,
    openai_type: &'static str,
    code: &'static str,
    retry: Retry,
) -> Row {
    Row { name, thrift, http, openai_type, code, retry, exit: 10 + thrift as u8 }
}

impl Kind {
    /// Every kind, in the order of the Thrift codes.
    pub const ALL: [Self; 12] = [
        Self::InvalidInput,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::TooLarge,
        Self::QuotaExceeded,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Unavailable,
        Self::Internal,
        Self::UnsupportedMedia,
    ];

    /// The codes of this kind in every protocol.
    #[must_use]
    pub const fn row(self) -> Row {
        use Retry::{Backoff, Later, Maybe, No};
        match self {
            Self::InvalidInput => row("InvalidInput", 1, 400, "invalid_request_error", "invalid_input", No),
            Self::Unauthenticated => row("Unauthenticated", 2, 401, "authentication_error", "invalid_api_key", No),
            Self::Forbidden => row("Forbidden", 3, 403, "permission_error", "forbidden", No),
            Self::NotFound => row("NotFound", 4, 404, "invalid_request_error", "not_found", No),
            Self::TooLarge => row("TooLarge", 5, 413, "invalid_request_error", "too_large", No),
            Self::QuotaExceeded => row("QuotaExceeded", 6, 429, "rate_limit_error", "quota_exceeded", Later),
            Self::Overloaded => row("Overloaded", 7, 503, "server_error", "overloaded", Backoff),
            Self::DeadlineExceeded => row("DeadlineExceeded", 8, 504, "server_error", "deadline_exceeded", Maybe),
            // 499 is nginx's number for a client that closed the connection: it stands in logs, nobody reads the answer.
            Self::Cancelled => row("Cancelled", 9, 499, "server_error", "cancelled", No),
            Self::Unavailable => row("Unavailable", 10, 503, "server_error", "unavailable", Backoff),
            Self::Internal => row("Internal", 11, 500, "server_error", "internal", No),
            Self::UnsupportedMedia => {
                row("UnsupportedMedia", 12, 415, "invalid_request_error", "unsupported_media", No)
            }
        }
    }

    /// The kind behind a Thrift code; a code that this build does not know is [`Kind::Internal`].
    #[must_use]
    pub fn from_thrift(code: i32) -> Self {
        Self::ALL.into_iter().find(|kind| kind.row().thrift == code).unwrap_or(Self::Internal)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

/// The `error.code` of [`Kind::NotFound`] when what was not found is a model.
pub const MODEL_NOT_FOUND: &str = "model_not_found";

/// A failure on its way to a caller.
///
/// Messages are lower case, have no full stop, and name the thing, the value and the limit:
/// `image is 41000x200 px, limit is 20000 px an edge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which row of the table this is.
    pub kind: Kind,
    /// One sentence for a person.
    pub message: Cow<'static, str>,
    /// The parameter at fault (`model`, `image`, `top_k`), when there is one.
    pub param: Option<Cow<'static, str>>,
    /// When trying again makes sense; `None` leaves it to the caller's backoff.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault with neither parameter nor retry time.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None }
    }

    /// The same fault, naming the parameter at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same fault, saying when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// An unknown model.
    #[must_use]
    pub fn model_not_found(name: &str) -> Self {
        Self::new(Kind::NotFound, format!("no model `{name}` is served here")).with_param("model")
    }

    /// `error.code` for programs: the kind's, or [`MODEL_NOT_FOUND`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        match (self.kind, self.param.as_deref()) {
            (Kind::NotFound, Some("model")) => MODEL_NOT_FOUND,
            (kind, _) => kind.row().code,
        }
    }
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Fault {
            $(
                #[doc = concat!("A fault of kind [`Kind::", stringify!($kind), "`].")]
                pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                    Self::new(Kind::$kind, message)
                }
            )*
        }
    };
}

constructors! {
    invalid_input => InvalidInput,
    not_found => NotFound,
    too_large => TooLarge,
    overloaded => Overloaded,
    deadline_exceeded => DeadlineExceeded,
    cancelled => Cancelled,
    unavailable => Unavailable,
    internal => Internal,
    unsupported_media => UnsupportedMedia,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_column_that_must_be_unique_is() {
        let rows = Kind::ALL.map(Kind::row);
        for column in [
            rows.map(|row| row.name.to_owned()),
            rows.map(|row| row.thrift.to_string()),
            rows.map(|row| row.code.to_owned()),
            rows.map(|row| row.exit.to_string()),
        ] {
            assert_eq!(column.iter().collect::<HashSet<_>>().len(), Kind::ALL.len(), "{column:?}");
        }
    }

    #[test]
    fn thrift_codes_run_from_one_and_lead_back() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.row().thrift, index as i32 + 1);
            assert_eq!(Kind::from_thrift(kind.row().thrift), kind);
        }
        assert_eq!(Kind::from_thrift(0), Kind::Internal);
        assert_eq!(Kind::from_thrift(999), Kind::Internal);
    }

    #[test]
    fn an_unknown_model_has_its_own_code() {
        assert_eq!(Fault::model_not_found("x").code(), "model_not_found");
        assert_eq!(Fault::not_found("no such picture").code(), "not_found");
    }
}
