//! Points in time and spans as people write them, for the sentences of this module.

use std::time::Duration;

/// Seconds of a day.
pub const DAY: u64 = 86_400;

/// `2026-11-21 07:32 UTC`, for a time since 1970.
pub fn date(unix: Duration) -> String {
    let seconds = unix.as_secs();
    // Beyond the year 9999 only a broken clock goes; the arithmetic below must hold for it.
    let days = (seconds / DAY).min(10_000_000);
    let (hour, minute) = (seconds % DAY / 3600, seconds % 3600 / 60);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days: years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// `3 days`, `1 hour`, `5 minutes`: the largest unit, rounded down.
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [(DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or((1, "second"));
    let count = seconds / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_246_346, "2026-11-21 07:32 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), expected);
        }
        assert!(!date(Duration::MAX).is_empty());
    }

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        for (seconds, expected) in [(0, "0 seconds"), (61, "1 minute"), (7200, "2 hours"), (DAY * 365, "365 days")] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }
}
