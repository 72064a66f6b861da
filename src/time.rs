//! Instants of the audit trail: milliseconds since 1970, UTC, and their spellings.

use std::time::Duration;

use jiff::{Timestamp, civil};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(i64);

/// A UTC calendar date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(civil::Date);

const MILLIS_PER_DAY: i64 = 86_400_000;
/// 0000-01-01T00:00:00Z: RFC 3339 has no earlier year.
const EARLIEST: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z: RFC 3339 has no later year.
const LATEST: i64 = 253_402_300_799_999;

impl Millis {
    /// An instant that RFC 3339 can spell (years 0000 to 9999).
    pub fn new(millis: i64) -> Option<Self> {
        (EARLIEST..=LATEST).contains(&millis).then_some(Self(millis))
    }

    /// Milliseconds since 1970.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 or ISO 8601 with 0 to 9 fraction digits and any offset (none means UTC; a blank may stand for
    /// the `T`), or a whole number: milliseconds, unless it has as many digits as today's seconds (10), microseconds (16)
    /// or nanoseconds (19). As milliseconds, those would lie in the first months of 1970, where nobody looks, or after the
    /// year 9999. Finer digits are cut, not rounded.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(number) = text.parse::<i64>() {
            return Self::new(match number {
                1_000_000_000..=9_999_999_999 => number * 1000,
                1_000_000_000_000_000..=9_999_999_999_999_999 => number / 1000,
                1_000_000_000_000_000_000.. => number / 1_000_000,
                millis => millis,
            });
        }
        let timestamp = match text.parse::<Timestamp>() {
            Ok(timestamp) => timestamp,
            Err(_) => {
                text.parse::<civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()
            }
        };
        Self::new(timestamp.as_nanosecond().div_euclid(1_000_000).try_into().ok()?)
    }

    /// The instant this much later, at most the last that RFC 3339 can spell.
    pub fn plus(self, length: Duration) -> Self {
        let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis).min(LATEST))
    }

    /// The instant this much earlier, at least the first that RFC 3339 can spell.
    pub fn minus(self, length: Duration) -> Self {
        let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis).max(EARLIEST))
    }

    /// Time from here to `later`; none if that lies before.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0 - self.0).unwrap_or(0))
    }

    /// The UTC date.
    pub fn date(self) -> Date {
        Date(civil_from_days(self.0.div_euclid(MILLIS_PER_DAY)))
    }

    /// Appends `2026-01-05T10:34:56.123Z`.
    pub fn write_rfc3339(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.rfc3339());
    }

    /// `2026-01-05T10:34:56.123Z`; the first ten bytes are the date.
    pub fn rfc3339(self) -> [u8; 24] {
        let [y, yy, yyy, yyyy, dash, m, mm, dash2, d, dd] = self.date().text();
        let in_day = u32::try_from(self.0.rem_euclid(MILLIS_PER_DAY)).unwrap_or(0);
        let [h, hh] = digits(in_day / 3_600_000);
        let [n, nn] = digits(in_day / 60_000 % 60);
        let [s, ss] = digits(in_day / 1000 % 60);
        let [f, ff, fff] = digits(in_day % 1000);
        [
            y, yy, yyy, yyyy, dash, m, mm, dash2, d, dd, b'T', h, hh, b':', n, nn, b':', s, ss, b'.', f, ff,
            fff, b'Z',
        ]
    }

    /// Appends seconds with three decimals (`1767609296.123`), never in scientific notation.
    pub fn write_epoch_seconds(self, out: &mut Vec<u8>) {
        if self.0 < 0 {
            out.push(b'-');
        }
        crate::json::write_number(self.0.unsigned_abs() / 1000, out);
        out.push(b'.');
        out.extend_from_slice(&digits::<3>(u32::try_from(self.0.unsigned_abs() % 1000).unwrap_or(0)));
    }
}

impl Date {
    /// 1970-01-01
    pub const EPOCH: Self = Self(civil::date(1970, 1, 1));

    /// Reads `yyyy-mm-dd`.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 10).then(|| text.parse().ok().map(Self)).flatten()
    }

    /// Appends `yyyy-mm-dd`.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text());
    }

    fn text(self) -> [u8; 10] {
        let [y, yy, yyy, yyyy] = digits(self.0.year().unsigned_abs().into());
        let [m, mm] = digits(self.0.month().unsigned_abs().into());
        let [d, dd] = digits(self.0.day().unsigned_abs().into());
        [y, yy, yyy, yyyy, b'-', m, mm, b'-', d, dd]
    }

    /// Whole days from this date to `later`; negative if `later` lies before.
    pub fn days_until(self, later: Self) -> i64 {
        later.0.duration_since(self.0).as_hours().div_euclid(24)
    }

    /// The date this many days later.
    pub fn plus_days(self, days: i64) -> Self {
        Self(self.0.saturating_add(jiff::SignedDuration::from_hours(24 * days)))
    }

    /// Midnight UTC at which the date begins.
    pub fn start(self) -> Millis {
        Millis(self.0.duration_since(Self::EPOCH.0).as_hours() * 3_600_000)
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// Date of a day number, after Howard Hinnant's `civil_from_days`: jiff's own conversion costs more than all else in
/// an event's encoding.
fn civil_from_days(days: i64) -> civil::Date {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let narrow = |value: i64| i8::try_from(value).unwrap_or(1);
    civil::Date::new(i16::try_from(year).unwrap_or(0), narrow(month), narrow(day)).unwrap_or_default()
}

/// The last digits of a number.
fn digits<const N: usize>(number: u32) -> [u8; N] {
    let mut digits = [b'0'; N];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    fn rfc3339(millis: Millis) -> String {
        let mut out = Vec::new();
        millis.write_rfc3339(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_spelling_of_the_routes_is_read_and_cut_to_milliseconds() {
        for (text, expected) in [
            ("1767609296123", "2026-01-05T10:34:56.123Z"),
            ("2026-01-05T10:34:56Z", "2026-01-05T10:34:56.000Z"),
            ("2026-01-05T10:34:56.0000000Z", "2026-01-05T10:34:56.000Z"),
            ("2026-01-05T10:34:56.123999999Z", "2026-01-05T10:34:56.123Z"),
            ("2026-01-05T12:34:56.5+02:00", "2026-01-05T10:34:56.500Z"),
            ("2026-01-05T10:34:56.123", "2026-01-05T10:34:56.123Z"),
            ("2026-01-05 10:34:56", "2026-01-05T10:34:56.000Z"),
            ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Millis::parse(text).map(rfc3339).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "99999999999999999", "1.5"] {
            assert_eq!(Millis::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_milliseconds_unless_only_another_unit_makes_sense() {
        for (text, expected) in [
            ("1767609296", "2026-01-05T10:34:56.000Z"),
            ("1767609296123999", "2026-01-05T10:34:56.123Z"),
            ("1767609296123999999", "2026-01-05T10:34:56.123Z"),
            ("1000000000", "2001-09-09T01:46:40.000Z"),
            ("999999999", "1970-01-12T13:46:39.999Z"),
            ("10000000000", "1970-04-26T17:46:40.000Z"),
            ("-1767609296", "1969-12-11T12:59:50.704Z"),
            ("253402300799999", "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Millis::parse(text).map(rfc3339).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(Millis::parse("253402300800000"), None);
    }

    #[test]
    fn dates_count_in_whole_days() {
        let date = Date::parse("2026-02-28").unwrap();
        assert_eq!(date.plus_days(1).to_string(), "2026-03-01");
        assert_eq!(date.days_until(Date::parse("2027-02-28").unwrap()), 365);
        assert_eq!(date.days_until(Date::parse("2026-02-27").unwrap()), -1);
        assert_eq!(date.start().date(), date);
        assert_eq!(Date::parse("2026-2-28"), None);
    }

    #[test]
    fn instants_move_by_lengths_and_stop_at_the_ends_of_time() {
        let (noon, hour) = (Millis::parse("2026-01-05T12:00:00Z").unwrap(), Duration::from_secs(3600));
        assert_eq!(rfc3339(noon.plus(hour)), "2026-01-05T13:00:00.000Z");
        assert_eq!(noon.plus(hour).minus(hour), noon);
        assert_eq!((noon.until(noon.plus(hour)), noon.plus(hour).until(noon)), (hour, Duration::ZERO));
        assert_eq!((noon.plus(Duration::MAX), noon.minus(Duration::MAX)), (Millis(LATEST), Millis(EARLIEST)));
    }

    proptest! {
        /// Formatting by hand gives what jiff gives.
        #[test]
        fn formatting_agrees_with_jiff(millis in EARLIEST..=LATEST) {
            let expected = format!("{:.3}", Timestamp::from_millisecond(millis).unwrap());
            prop_assert_eq!(rfc3339(Millis(millis)), expected);
            prop_assert_eq!(Millis::parse(&rfc3339(Millis(millis))), Some(Millis(millis)));
        }

        /// Milliseconds of any year from 1971 on are what they are.
        #[test]
        fn milliseconds_are_milliseconds(millis in 10_000_000_000..=LATEST) {
            prop_assert_eq!(Millis::parse(&millis.to_string()), Some(Millis(millis)));
        }

        /// Epoch seconds are the milliseconds, divided and never in scientific notation.
        #[test]
        fn epoch_seconds_keep_the_milliseconds(millis in EARLIEST..=LATEST) {
            let mut out = Vec::new();
            Millis(millis).write_epoch_seconds(&mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.replace('.', "").parse::<i64>().unwrap(), millis);
        }
    }
}
