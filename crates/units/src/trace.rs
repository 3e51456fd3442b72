//! Where a request stands in a trace: W3C Trace Context, as its two HTTP headers and `Base` carry it.
//!
//! Promises: what was read can be written again, and is what the standard allows; what came and is wrong is as if nothing had come,
//! because a trace is a hint and never a reason to refuse.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;

/// The flag that says that whoever began the trace keeps it.
const SAMPLED: u8 = 1;

/// The flags that this version of the standard knows: sampled, and that the trace's id is a random number.
const KNOWN: u8 = 0b11;

/// A span in a trace: the header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: NonZeroU128,
    span: NonZeroU64,
    flags: u8,
}

/// Names a trace: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceParent {
    /// Length of the text.
    pub const LENGTH: usize = 55;

    /// What came from outside: `None` for what the standard does not allow. A later version is read as far as it is this one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (fields, more) = bytes.split_at_checked(Self::LENGTH)?;
        let version = digits(&fields[..2])?;
        let has_more_of_its_own = version > 0 && more.first() == Some(&b'-');
        if version == 0xff || !(more.is_empty() || has_more_of_its_own) {
            return None;
        }
        if [2, 35, 52].iter().any(|dash| fields[*dash] != b'-') {
            return None;
        }
        let trace = NonZeroU128::new(digits(&fields[3..35])?)?;
        let span = NonZeroU64::new(u64::try_from(digits(&fields[36..52])?).ok()?)?;
        let flags = u8::try_from(digits(&fields[53..])?).ok()? & KNOWN;
        Some(Self { trace, span, flags })
    }

    /// The beginning of a trace.
    #[must_use]
    pub fn begin() -> Self {
        // Nothing is guarded by these numbers, so they need no system call.
        let trace = NonZeroU128::new(fastrand::u128(1..)).unwrap_or(NonZeroU128::MIN);
        Self { trace, span: new_span(), flags: 0 }
    }

    /// A span below this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: new_span(), ..self }
    }

    /// The same, kept or not.
    #[must_use]
    pub const fn with_sampled(self, sampled: bool) -> Self {
        let flags = if sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED };
        Self { flags, ..self }
    }

    /// Whether the trace is kept.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace's name.
    #[must_use]
    pub const fn trace_id(self) -> TraceId {
        TraceId(self.trace)
    }

    /// The span's name, in the order of the text.
    #[must_use]
    pub const fn span_bytes(self) -> [u8; 8] {
        self.span.get().to_be_bytes()
    }
}

impl TraceId {
    /// The name, in the order of the text.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        f.write_str(hex(self.0.get(), &mut text))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one go: each request writes it three times.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(self.trace.get(), &mut text[3..35]);
        hex(self.span.get().into(), &mut text[36..52]);
        hex(self.flags.into(), &mut text[53..]);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Writes the last digits of a number.
fn hex(number: u128, text: &mut [u8]) -> &str {
    for (place, digit) in text.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    }
    std::str::from_utf8(text).unwrap_or_default()
}

fn new_span() -> NonZeroU64 {
    NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN)
}

/// The number that lower-case hexadecimal digits, at most 32 of them, stand for.
fn digits(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// What tracing systems tell each other beside a [`TraceParent`]: the header `tracestate`. It is handed on as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

impl TraceState {
    /// Most bytes that are handed on: what the standard asks everybody to take.
    pub const LONGEST: usize = 512;

    /// Most members of a list.
    const MEMBERS: usize = 32;

    /// Members that are longer go first when the whole is too long.
    const LARGE: usize = 128;

    /// The list that these headers are together; `None` when it is empty or when the standard does not allow it. Of one that is
    /// too long large members go first, then the last ones.
    #[must_use]
    pub fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let blank = |c: char| c == ' ' || c == '\t';
        let mut members: Vec<&str> = Vec::new();
        for member in headers.into_iter().flat_map(|header| header.split(',')).map(|member| member.trim_matches(blank))
        {
            // An empty one is allowed and says nothing.
            if member.is_empty() {
                continue;
            }
            if !is_member(member) || members.len() == Self::MEMBERS {
                return None;
            }
            members.push(member);
        }
        let bytes = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1);
        if bytes(&members) > Self::LONGEST {
            members.retain(|member| member.len() <= Self::LARGE);
        }
        while bytes(&members) > Self::LONGEST {
            members.pop();
        }
        (!members.is_empty()).then(|| Self(Arc::from(members.join(","))))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether it is `key=value` as the standard has it.
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_start = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_key = (1..=256).contains(&key.len())
        && key.bytes().take(1).all(|byte| is_start(&byte))
        && key.bytes().all(|byte| is_start(&byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@'))
        && key.bytes().filter(|byte| *byte == b'@').count() <= 1
        && !key.ends_with('@');
    let is_value = (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
        && !value.ends_with(' ');
    is_key && is_value
}

#[cfg(test)]
mod tests;
