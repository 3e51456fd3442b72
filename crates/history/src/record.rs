//! What is kept of one picture and its answer.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::{ContextV7, Timestamp, Uuid};

use crate::day::{self, Day};
use crate::store::Kind;

/// Names a record: a UUIDv7, from which its moment, its day and its shard follow. So nobody has to look a record up to find
/// where it lies, and storing it again is the same as storing it once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(Uuid);

impl TryFrom<String> for RecordId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.to_string()
    }
}

impl RecordId {
    /// A new one, of now, and after those before it.
    #[must_use]
    pub fn generate() -> Self {
        static MOMENTS: Mutex<Moments> = Mutex::new(Moments::new());
        MOMENTS.lock().next(day::now())
    }

    /// A new one of another moment; milliseconds since 1970.
    #[must_use]
    pub fn of(millis: u64) -> Self {
        let random = Uuid::now_v7().as_u128() & ((1 << 62) - 1);
        Self(Uuid::from_u128(Self::first_of(millis).0.as_u128() | random))
    }

    /// The smallest one of a moment; milliseconds since 1970.
    #[must_use]
    pub fn first_of(millis: u64) -> Self {
        // 48 bits are left of the version's place.
        Self(Uuid::from_u128(u128::from(millis) << 80 | 0x7 << 76 | 0x2 << 62))
    }

    /// # Errors
    /// When `text` is no UUIDv7 in the usual form.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
        id.and_then(Self::from_uuid).ok_or(IdError)
    }

    pub(crate) fn from_uuid(id: Uuid) -> Option<Self> {
        (id.get_version_num() == 7).then_some(Self(id))
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().and_then(Self::from_uuid)
    }

    pub(crate) fn uuid(self) -> Uuid {
        self.0
    }

    pub(crate) fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> u64 {
        (self.0.as_u128() >> 80) as u64
    }

    /// Its moment.
    #[must_use]
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis())
    }

    /// Its day, by UTC.
    #[must_use]
    pub fn day(self) -> Day {
        Day::of_millis(self.millis())
    }

    /// One of `shards`, by random bits.
    pub(crate) fn shard(self, shards: u8) -> u8 {
        self.0.as_bytes()[15] % shards
    }
}

/// Makes ids that follow each other, also within a millisecond and where the clock is set back a little.
struct Moments {
    context: ContextV7,
    newest: Duration,
}

impl Moments {
    /// A clock that goes back by more has been wrong before: the ids follow it, or all of them would stay in that future.
    const BACK: Duration = Duration::from_secs(2);

    const fn new() -> Self {
        Self { context: ContextV7::new(), newest: Duration::ZERO }
    }

    fn next(&mut self, now: Duration) -> RecordId {
        if now + Self::BACK < self.newest {
            *self = Self::new();
        }
        self.newest = self.newest.max(now);
        RecordId(Uuid::new_v7(Timestamp::from_unix(&self.context, now.as_secs(), now.subsec_nanos())))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no record's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no id of a record, expected a UUID such as 01931b6e-1c1a-7c3e-9f0a-0123456789ab")]
pub struct IdError;

/// Who sent the picture in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A person, on the upload page.
    Page,
    /// A program.
    Api,
}

impl Source {
    /// As it stands in answers and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Api => "api",
        }
    }
}

/// A class and how sure the model was of it, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Its name.
    pub label: String,
    /// Its place among the model's classes.
    pub index: i32,
    /// 0 to 1.
    pub score: f64,
}

/// Where the time went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Bytes to the model's input.
    pub decode_us: u64,
    /// Waiting for the model.
    pub queue_us: u64,
    /// On the device.
    pub run_us: u64,
    /// As the gateway saw it.
    pub total_us: u64,
}

/// What a person says it really is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// The right label.
    pub label: String,
    /// Who said so.
    pub by: String,
    /// When; milliseconds since 1970.
    pub at_ms: u64,
}

/// One picture and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name and moment.
    pub id: RecordId,
    /// The request's id, as it stands in every log.
    pub request_id: String,
    /// Who asked, as far as it was known.
    pub caller: String,
    /// Where.
    pub source: Source,
    /// The model that was asked.
    pub model: String,
    /// Its version; empty when there was no answer.
    pub version: String,
    /// What the picture was called, made safe by [`crate::file_name::safe`]; empty when it had no name.
    pub file_name: String,
    /// `png`, `jpeg`, ...: what the bytes were; empty when they were not understood.
    pub format: String,
    /// Of the picture as it was sent.
    pub bytes: u64,
    /// SHA-256 of it, in hexadecimal digits; filled in when the record is kept.
    pub sha256: String,
    /// Pixels, upright.
    pub width: u32,
    /// Pixels, upright.
    pub height: u32,
    /// Best first.
    pub labels: Vec<Score>,
    /// Where the time went.
    pub timing: Timing,
    /// `ok`, or the code of the failure.
    pub outcome: String,
    /// Bytes that lie in the store of pictures: the picture and its preview; filled in when the record is kept.
    pub kept_bytes: u64,
    /// There is a small JPEG of it.
    pub has_preview: bool,
    /// Kept beside the record: storing a record again does not take it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<Correction>,
}

impl Record {
    /// The best label; empty when there is none.
    #[must_use]
    pub fn label(&self) -> &str {
        self.labels.first().map_or("", |score| score.label.as_str())
    }

    /// Bytes of one of its pictures in the store.
    #[must_use]
    pub fn stored_bytes(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Picture => self.bytes.min(self.kept_bytes),
            Kind::Preview => self.kept_bytes.saturating_sub(self.bytes),
        }
    }

    /// The picture is there.
    #[must_use]
    pub fn has_picture(&self) -> bool {
        self.kept_bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_moment_and_sorts_by_it() {
        let (early, late) = (RecordId::first_of(1_700_000_000_000), RecordId::first_of(1_700_000_000_001));
        assert!(early < late);
        assert_eq!(early.millis(), 1_700_000_000_000);
        assert_eq!(early.day().to_string(), "2023-11-14");
        assert_eq!(RecordId::parse(&early.to_string()), Ok(early));
        let now = RecordId::generate();
        assert!(RecordId::first_of(now.millis()) <= now && now < RecordId::first_of(now.millis() + 1));
        assert_eq!(RecordId::from_slice(now.bytes()), Some(now));
        let other = RecordId::of(early.millis());
        assert!(early < other && other < late && other != RecordId::of(early.millis()));
    }

    #[test]
    fn ids_follow_each_other_and_a_clock_that_was_wrong() {
        let mut moments = Moments::new();
        let at = Duration::from_secs(1_700_000_000);
        let (millisecond, year) = (Duration::from_millis(1), Duration::from_secs(365 * 24 * 60 * 60));
        let first = moments.next(at);
        assert_eq!(first.time(), UNIX_EPOCH + at);
        // In the same moment, and where the clock is set right by a little.
        let mut before = first;
        for now in [at, at, at - millisecond, at - Moments::BACK, at] {
            let next = moments.next(now);
            assert!(next > before && next.time() < UNIX_EPOCH + at + millisecond, "{before} {next}");
            before = next;
        }
        assert_eq!(moments.next(at + year).time(), UNIX_EPOCH + at + year);
        assert_eq!(moments.next(at + millisecond).time(), UNIX_EPOCH + at + millisecond, "it was wrong");
        assert_eq!(RecordId::generate().uuid().get_version_num(), 7);
    }

    #[test]
    fn what_is_no_uuid_of_version_7_is_no_id() {
        let now = RecordId::generate().to_string();
        let version_4 = "936da01f-9abd-4d9d-80c7-02af85c822a8";
        for text in ["", "x", version_4, &now[1..], &now.replace('-', ""), &format!("{{{now}}}"), &format!("{now} ")] {
            assert_eq!(RecordId::parse(text), Err(IdError), "{text}");
        }
    }
}
