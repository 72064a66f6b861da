//! Which `date=` folders to look at now.
//!
//! | date | looked at |
//! |---|---|
//! | open: the last `open_dates` days, and any in the future | every poll |
//! | closed: up to `look_back_days` old | daily |
//! | older | weekly |
//!
//! Looks at closed dates are spread over the day (the week) by the folder's name, and are due by the clock, not by the
//! process: a restart neither repeats nor forgets them. Before the first complete pass everything is due.

use crate::time::{Date, Millis};

const DAY_MILLIS: i64 = 86_400_000;

/// The look-back settings of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) open_dates: u32,
    pub(super) look_back_days: u32,
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
        let days = date.days_until(now.date());
        if days < i64::from(self.open_dates) {
            Age::Open
        } else if days <= i64::from(self.look_back_days) {
            Age::Closed
        } else {
            Age::Old
        }
    }

    /// The open dates, newest first: tomorrow is one of them, for a writer whose clock is ahead.
    pub(super) fn open_dates(&self, now: Millis) -> impl Iterator<Item = Date> {
        let today = now.date();
        (-1..i64::from(self.open_dates)).map(move |days| today.plus_days(-days))
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

/// Shifts the days of each name, so that not all workspaces are looked at in the same minute.
fn hash(name: &str) -> i64 {
    i64::try_from(xxhash_rust::xxh3::xxh3_64(name.as_bytes()) >> 2).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { open_dates: 2, look_back_days: 7 };

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
        let dates: Vec<_> =
            SCHEDULE.open_dates(at("2026-03-01T23:59:00Z")).map(|date| date.to_string()).collect();
        assert_eq!(dates, ["2026-03-02", "2026-03-01", "2026-02-28"]);
    }
}
