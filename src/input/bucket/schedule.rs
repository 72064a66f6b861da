//! Which dates' folders to look at now.
//!
//! | date | looked at |
//! |---|---|
//! | open: the last `open_dates` days, or those of the last `open_hours`; any in the future | every poll |
//! | closed: up to `look_back_days` old | daily |
//! | older | weekly |
//!
//! Looks at closed dates are spread over the day (the week) by the folder's name, and are due by the clock, not by the
//! process: a restart neither repeats nor forgets them. Before the first complete pass over all that the configuration wants,
//! everything is due.

use crate::time::{Date, Millis};

const DAY_MILLIS: i64 = 86_400_000;
const HOUR_MILLIS: i64 = 3_600_000;
/// Longest standstill whose dates are all listed at once; older ones wait for the weekly look.
const MOST_MISSED_DAYS: i64 = 400;

/// The look-back settings of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) open: Open,
    pub(super) look_back_days: u32,
}

/// What is looked at with every poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// So many days, today included, and tomorrow, for a writer whose clock is ahead.
    Dates(u32),
    /// The dates of so many hours, the present one included, and of the next. Cheaper: mostly one date.
    Hours(u32),
}

/// How far a date is from today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Open,
    Closed,
    Old,
}

impl Schedule {
    pub(super) fn age(&self, date: Date, now: Millis) -> Age {
        if date >= self.first_open_date(now) {
            Age::Open
        } else if date.days_until(now.date()) <= i64::from(self.look_back_days) {
            Age::Closed
        } else {
            Age::Old
        }
    }

    /// The dates that are open or have been since the last look, newest first.
    pub(super) fn open_since(&self, last: Option<Millis>, now: Millis) -> impl Iterator<Item = Date> {
        let newest = match self.open {
            Open::Dates(_) => now.date().plus_days(1),
            Open::Hours(_) => hours_later(now, 1).date(),
        };
        let first = self.first_open_date(last.map_or(now, |last| last.min(now)));
        let days = first.days_until(newest).min(MOST_MISSED_DAYS);
        (0..=days).map(move |days| newest.plus_days(-days))
    }

    fn first_open_date(&self, now: Millis) -> Date {
        match self.open {
            Open::Dates(dates) => now.date().plus_days(1 - i64::from(dates)),
            Open::Hours(hours) => hours_later(now, 1 - i64::from(hours)).date(),
        }
    }

    /// The daily looks at a workspace's closed dates that are due at `now`, where the last complete pass began at
    /// `last`: one, or several after a time of standing still.
    pub(super) fn looks(&self, workspace: &str, now: Millis, last: Option<Millis>) -> Looks {
        let Some(last) = last else { return Looks::First };
        let day = |at: Millis| (at.get() + hash(workspace) % DAY_MILLIS).div_euclid(DAY_MILLIS);
        Looks::Days { after: day(last), until: day(now) }
    }

    /// True if a date's folder is to be listed by these looks.
    pub(super) fn is_due(&self, folder: &str, date: Date, now: Millis, looks: Looks) -> bool {
        match (self.age(date, now), looks) {
            (Age::Open, _) | (_, Looks::First) => true,
            (Age::Closed, Looks::Days { after, until }) => until > after,
            (Age::Old, Looks::Days { after, until }) => {
                let week = |day: i64| (day + hash(folder) % 7).div_euclid(7);
                week(until) > week(after)
            }
        }
    }
}

/// Looks at closed dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// Nothing was ever looked at to its end: look at everything.
    First,
    /// Those of the days after the one, until the other, counted in the workspace's own days.
    Days { after: i64, until: i64 },
}

impl Looks {
    /// True if there are any.
    pub(super) fn any(self) -> bool {
        match self {
            Self::First => true,
            Self::Days { after, until } => until > after,
        }
    }
}

fn hours_later(at: Millis, hours: i64) -> Millis {
    Millis::new(at.get() + hours * HOUR_MILLIS).unwrap_or(at)
}

/// Shifts the days of each name, so that not all workspaces are looked at in the same minute.
fn hash(name: &str) -> i64 {
    i64::try_from(xxhash_rust::xxh3::xxh3_64(name.as_bytes()) >> 2).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { open: Open::Dates(2), look_back_days: 7 };

    fn at(text: &str) -> Millis {
        Millis::parse(text).unwrap()
    }

    /// Polls every minute (or as often as said) for some days and counts the looks at one date.
    fn looks(date: &str, days: i64, every_minutes: i64) -> usize {
        let date = Date::parse(date).unwrap();
        let start = at("2026-03-01T12:00:00Z").get();
        let mut last = Millis::new(start).unwrap();
        let mut count = 0;
        for poll in 1..days * 1440 / every_minutes {
            let now = Millis::new(start + poll * every_minutes * 60_000).unwrap();
            let looks = SCHEDULE.looks("workspace", now, Some(last));
            count += usize::from(SCHEDULE.is_due("folder", date, now, looks));
            last = now;
        }
        count
    }

    #[test]
    fn open_dates_are_looked_at_each_time_closed_ones_daily_old_ones_weekly() {
        assert_eq!(looks("2026-03-01", 1, 1), 1439);
        assert!((3..=4).contains(&looks("2026-02-26", 4, 1)));
        assert_eq!(looks("2026-01-01", 28, 1), 4);
    }

    #[test]
    fn a_look_that_fell_into_a_standstill_is_made_afterwards() {
        assert_eq!(looks("2026-01-01", 56, 7 * 1440), 7);
        assert_eq!(looks("2026-01-01", 56, 1439), 8);
    }

    #[test]
    fn everything_is_due_before_the_first_complete_pass() {
        let (date, now) = (Date::parse("2020-01-01").unwrap(), at("2026-03-01T12:00:00Z"));
        assert!(SCHEDULE.is_due("folder", date, now, SCHEDULE.looks("workspace", now, None)));
    }

    #[test]
    fn open_dates_include_tomorrow() {
        let now = at("2026-03-01T23:59:00Z");
        let dates: Vec<_> = SCHEDULE.open_since(None, now).map(|date| date.to_string()).collect();
        assert_eq!(dates, ["2026-03-02", "2026-03-01", "2026-02-28"]);
    }

    #[test]
    fn dates_that_were_open_during_a_standstill_are_looked_at() {
        let schedule = Schedule { open: Open::Hours(3), look_back_days: 2 };
        let (last, now) = (at("2026-02-20T01:00:00Z"), at("2026-03-01T12:00:00Z"));
        let dates: Vec<_> = schedule.open_since(Some(last), now).map(|date| date.to_string()).collect();
        assert_eq!((dates.len(), dates.last().map(String::as_str)), (11, Some("2026-02-19")));
        let long_ago = at("1990-01-01T00:00:00Z");
        assert_eq!(schedule.open_since(Some(long_ago), now).count(), 401);
    }

    #[test]
    fn open_hours_are_mostly_of_one_date() {
        let schedule = Schedule { open: Open::Hours(3), look_back_days: 2 };
        for (now, expected) in [
            ("2026-03-01T12:00:00Z", &["2026-03-01"][..]),
            ("2026-03-01T01:59:00Z", &["2026-03-01", "2026-02-28"]),
            ("2026-03-01T02:00:00Z", &["2026-03-01"]),
            ("2026-03-01T23:10:00Z", &["2026-03-02", "2026-03-01"]),
        ] {
            let dates: Vec<_> = schedule.open_since(None, at(now)).map(|date| date.to_string()).collect();
            assert_eq!(dates, expected, "{now}");
        }
        let yesterday = Date::parse("2026-02-28").unwrap();
        assert_eq!(schedule.age(yesterday, at("2026-03-01T01:59:00Z")), Age::Open);
        assert_eq!(schedule.age(yesterday, at("2026-03-01T02:00:00Z")), Age::Closed);
        assert_eq!(schedule.age(yesterday, at("2026-03-04T02:00:00Z")), Age::Old);
    }
}
