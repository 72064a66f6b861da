//! What the log says of a collector: once when it becomes so, and now and then while it goes on failing. Not with every
//! attempt, and not never again: whoever looks at a terminal for a minute must see that something is tried.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::output::HoldReason;

/// First and longest time between two lines that say that a collector still fails; it doubles.
const REMINDERS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// What there is to say of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Retrying,
    Holding(HoldReason),
    Remarked(String),
}

/// Whether it is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    News,
    /// It has been so for this long.
    Reminder(Duration),
    Nothing,
}

/// What was said last.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<Option<Line>>);

#[derive(Debug)]
struct Line {
    told: Told,
    since: Instant,
    next: Instant,
    interval: Duration,
}

impl Said {
    /// Whether this is to be said now; then it counts as said.
    pub(crate) fn is_worth(&self, now: Told) -> Worth {
        let mut line = self.line();
        let at = Instant::now();
        match &mut *line {
            Some(line) if line.told == now => {
                if now != Told::Retrying || at < line.next {
                    return Worth::Nothing;
                }
                line.interval = (line.interval * 2).min(REMINDERS.1);
                line.next = at + line.interval;
                Worth::Reminder(line.since.elapsed())
            }
            _ => {
                let (interval, _) = REMINDERS;
                *line = Some(Line { told: now, since: at, next: at + interval, interval });
                Worth::News
            }
        }
    }

    /// Nothing has been said since the collector took events.
    pub(crate) fn is_nothing(&self) -> bool {
        self.line().is_none()
    }

    /// It takes events again.
    pub(crate) fn forget(&self) {
        self.line().take();
    }

    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_goes_on_failing_is_told_of_now_and_then() {
        let (said, began) = (Said::default(), Instant::now());
        let mut lines = Vec::new();
        while began.elapsed() < Duration::from_secs(3600) {
            match said.is_worth(Told::Retrying) {
                Worth::Nothing => {}
                Worth::News => assert!(lines.is_empty()),
                Worth::Reminder(after) => lines.push(after.as_secs()),
            }
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!(lines, [30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]);
        said.forget();
        assert_eq!(said.is_worth(Told::Retrying), Worth::News);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_told_once() {
        let said = Said::default();
        let hold = || Told::Holding(HoldReason::Credentials);
        assert_eq!((said.is_worth(hold()), said.is_worth(hold())), (Worth::News, Worth::Nothing));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(said.is_worth(hold()), Worth::Nothing);
        assert_eq!(said.is_worth(Told::Retrying), Worth::News);
    }
}
