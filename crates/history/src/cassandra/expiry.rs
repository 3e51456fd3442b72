//! When rows go by themselves.

use crate::day::Day;

const DAY: i64 = 24 * 60 * 60;
/// Longest TTL that Cassandra takes, in seconds: 20 years.
const LONGEST: i64 = 20 * 365 * DAY;
/// The last moment at which a row may expire, in seconds since 1970. Releases before 5.0, and 5.0 as long as it is compatible with
/// them, count it in 31 bits and refuse a row that would live longer. A day before, for nodes whose clocks are ahead.
const LAST: i64 = i32::MAX as i64 - 1 - DAY;

/// Seconds that a record of `day` has left `now`, in seconds since 1970; 0 is for ever, none is that its time is over.
pub(super) fn ttl(day: Day, keep_days: u32, now: i64) -> Option<i32> {
    // Past the last moment rows are kept, which is better than refused.
    if keep_days == 0 || now >= LAST {
        return Some(0);
    }
    let left = (day.end_id().millis() / 1_000) as i64 + i64::from(keep_days) * DAY - now;
    (left > 0).then(|| left.min(LONGEST).min(LAST - now) as i32)
}

/// Whether records of `day` go earlier than they should.
pub(crate) fn is_cut(day: Day, keep_days: u32) -> bool {
    keep_days > 0 && i64::from(day.0) + 1 + i64::from(keep_days) > LAST / DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_expires_when_cassandra_cannot_count_it() {
        let day = Day::parse("2026-11-22").expect("a day");
        let noon = i64::from(day.0) * DAY + DAY / 2;
        assert_eq!(ttl(day, 0, noon), Some(0));
        assert_eq!(ttl(day, 1, noon), Some((DAY + DAY / 2) as i32));
        assert_eq!(ttl(day.back(3), 1, noon), None);
        assert_eq!(ttl(day, 36_500, noon), Some((LAST - noon) as i32));
        assert_eq!(ttl(day, 36_500, LAST), Some(0));
        assert_eq!(Day::of_millis(LAST as u64 * 1_000).to_string(), "2038-01-18");
        let fits = LAST / DAY - i64::from(day.0) - 1;
        assert!(!is_cut(day, 0) && !is_cut(day, fits as u32) && is_cut(day, fits as u32 + 1));
        assert_eq!(ttl(day, fits as u32, noon), Some(((fits + 1) * DAY - DAY / 2) as i32));
    }
}
