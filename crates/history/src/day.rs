//! Days, by UTC.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::record::RecordId;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The clock.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) fn millis_now() -> u64 {
    now().as_millis() as u64
}

/// A day by UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub(crate) u32);

impl Day {
    /// 9999-12-31: later ones would have five digits.
    const LAST: u32 = 2_932_896;

    /// Today.
    #[must_use]
    pub fn today() -> Self {
        Self::of_millis(millis_now())
    }

    pub(crate) fn of_millis(millis: u64) -> Self {
        Self(u32::try_from(millis / DAY_MS).unwrap_or(Self::LAST).min(Self::LAST))
    }

    /// `YYYY-MM-DD`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<i64>().ok())?;
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let (year, month, day) = (digits(text.get(..4)?)?, digits(text.get(5..7)?)?, digits(text.get(8..)?)?);
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // Howard Hinnant's days_from_civil.
        let shifted = if month <= 2 { year - 1 } else { year };
        let (era, of_era) = (shifted / 400, shifted % 400);
        let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        let found = Self(u32::try_from(days).ok()?);
        // The 31st of a shorter month is another day.
        (found.to_string() == text).then_some(found)
    }

    /// The smallest id of the day.
    #[must_use]
    pub fn first_id(self) -> RecordId {
        RecordId::first_of(u64::from(self.0) * DAY_MS)
    }

    /// The smallest id of the next day.
    #[must_use]
    pub fn end_id(self) -> RecordId {
        RecordId::first_of((u64::from(self.0) + 1) * DAY_MS)
    }

    /// So many days later.
    pub(crate) fn ahead(self, days: u32) -> Self {
        Self(self.0.saturating_add(days).min(Self::LAST))
    }

    /// So many days before.
    #[must_use]
    pub fn back(self, days: u32) -> Self {
        Self(self.0.saturating_sub(days))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Howard Hinnant's civil_from_days.
        let shifted = i64::from(self.0) + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A moment as RFC 3339 by UTC, with milliseconds.
#[must_use]
pub fn rfc_3339(millis: u64) -> String {
    let (day, rest) = (Day::of_millis(millis), millis % DAY_MS);
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    format!("{day}T{hours:02}:{minutes:02}:{:02}.{:03}Z", rest / 1_000 % 60, rest % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_until_2100_is_read_back_and_follows_the_one_before() {
        assert_eq!(Day(0).to_string(), "1970-01-01");
        assert_eq!(Day::parse("2024-02-29").map(|day| day.0), Some(19_782));
        for number in 0..47_500 {
            assert_eq!(Day::parse(&Day(number).to_string()), Some(Day(number)));
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-04-31",
            "2024-4-1",
            "1969-12-31",
            "x024-01-01",
            "2024-01-01T",
            "２０24-01-01",
        ] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_is_written_to_the_millisecond() {
        assert_eq!(rfc_3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
