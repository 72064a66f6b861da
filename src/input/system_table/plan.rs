//! Which stretch of event time to read next. Pure: time comes in as an argument.
//!
//! ```text
//!   origin            oldest open lane   hourly       overlap    watermark      now - safety margin
//!   ├── holes, once ──┼───── counted ────┼── counted ──┼─ again ──┼──── new ────┤
//!                       once a day         once an hour  every poll  every poll
//! ```
//!
//! The table has no time of arrival, so a late row can only be found by looking again. Every poll reads the overlap
//! again; older hours are merely counted, and read again where the count is not what was read. An hour is done with only
//! when it was looked at a daily look-back after its end: neither the days between two counts nor a week of standing
//! still lets a row slip through.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::Schedule;
use crate::time::Millis;

/// Rows of one hour of event time share a lane.
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// The shortest window; one that is still too large is fetched from cloud storage.
const SHORTEST: Duration = Duration::from_secs(60);
/// The longest window.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);

/// A stretch of event time, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Millis,
    pub(super) to: Millis,
}

impl Window {
    pub(super) fn length(self) -> Duration {
        self.from.until(self.to)
    }
}

/// The look-backs whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Whole hours.
    pub(super) window: Window,
    daily: bool,
}

/// What to read, and how far reading has come.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    schedule: Schedule,
    /// Nothing before is ever read.
    origin: Millis,
    /// All before has been read once, `todo` aside.
    watermark: Millis,
    todo: VecDeque<Window>,
    /// How long a window may be to fit into an answer, as learnt so far.
    span: Duration,
    counted_hourly: Option<Millis>,
    counted_daily: Option<Millis>,
}

impl Plan {
    /// Goes on at the watermark; `holes` before it were never read.
    pub(super) fn new(schedule: Schedule, origin: Millis, watermark: Millis, holes: Vec<Window>) -> Self {
        Self {
            schedule,
            origin,
            watermark,
            todo: holes.into(),
            span: HOUR,
            counted_hourly: None,
            counted_daily: None,
        }
    }

    /// Goes on where the lanes end: `(hour, read up to)`, in order. A start time before them leaves a hole to fill.
    pub(super) fn resume(
        schedule: Schedule,
        lanes: &[(Millis, Millis)],
        start: Option<Millis>,
        now: Millis,
    ) -> Self {
        let first = lanes.first().map(|(hour, _)| *hour);
        let origin = hour_down(start.or(first).unwrap_or(now));
        let mut holes = Vec::new();
        let mut reached = origin;
        for &(hour, read_to) in lanes.iter().filter(|(hour, _)| *hour >= origin) {
            if reached < hour {
                holes.push(Window { from: reached, to: hour });
            }
            reached = reached.max(read_to);
        }
        Self::new(schedule, origin, reached, holes)
    }

    /// Begins a poll: what is new, and the overlap before it.
    pub(super) fn poll(&mut self, now: Millis) {
        let to = now.minus(self.schedule.safety_margin);
        let from = self.watermark.minus(self.schedule.overlap).max(self.origin);
        // A clock that was set back reads nothing twice; it only waits.
        if to > self.watermark {
            self.todo.push_back(Window { from, to });
        }
    }

    /// The next window to read.
    pub(super) fn window(&self) -> Option<Window> {
        let next = self.todo.front()?;
        Some(Window { from: next.from, to: next.to.min(next.from.plus(self.span)) })
    }

    /// The window was read, and its answer filled this share of what one can hold.
    pub(super) fn read(&mut self, window: Window, filled: f64) {
        if let Some(next) = self.todo.front_mut() {
            next.from = window.to;
            if next.from >= next.to {
                self.todo.pop_front();
            }
        }
        if window.from <= self.watermark {
            self.watermark = self.watermark.max(window.to);
        }
        // Grown only while half of it would fit twice: rows are not spread evenly.
        if filled < 0.25 && window.length() >= self.span {
            self.span = (self.span * 2).min(LONGEST);
        }
    }

    /// It is earlier than was thought when the poll began: nothing is read beyond what lies before.
    pub(super) fn cut(&mut self, now: Millis) {
        let end = now.minus(self.schedule.safety_margin);
        self.todo.retain_mut(|window| {
            window.to = window.to.min(end);
            window.from < window.to
        });
    }

    /// The window's rows do not fit into an answer: `false` if it cannot be any shorter.
    pub(super) fn narrow(&mut self, window: Window) -> bool {
        if window.length() <= SHORTEST {
            return false;
        }
        self.span = (window.length() / 2).max(SHORTEST);
        true
    }

    /// The hours to count now that all is read, if it is time to; once a day from the oldest on that is not done with.
    pub(super) fn count(&self, now: Millis, oldest: Option<Millis>) -> Option<Count> {
        let Schedule { hourly_look_back, daily_look_back, overlap, .. } = self.schedule;
        let due = |counted: Option<Millis>, every: Duration, look_back: Duration| {
            look_back > overlap && counted.is_none_or(|counted| now < counted || counted.until(now) >= every)
        };
        let daily = due(self.counted_daily, DAY, daily_look_back);
        if !daily && !due(self.counted_hourly, HOUR, hourly_look_back) {
            return None;
        }
        let from = match oldest {
            Some(oldest) if daily => oldest,
            _ => hour_up(self.watermark.minus(hourly_look_back)),
        };
        // The hour in which the overlap begins is counted too: half of it is not read again.
        let window = Window {
            from: from.max(self.origin),
            to: hour_up(self.watermark.minus(overlap)).min(hour_down(self.watermark)),
        };
        (window.from < window.to).then_some(Count { window, daily })
    }

    /// The count was taken at this time, and these hours hold what was not read.
    pub(super) fn counted(&mut self, count: Count, now: Millis, changed: impl IntoIterator<Item = Millis>) {
        self.counted_hourly = Some(now);
        if count.daily {
            self.counted_daily = Some(now);
        }
        for from in changed {
            let to = from.plus(HOUR);
            match self.todo.back_mut() {
                Some(last) if last.to == from => last.to = to,
                _ => self.todo.push_back(Window { from, to }),
            }
        }
    }

    /// Nothing before is ever read.
    pub(super) fn origin(&self) -> Millis {
        self.origin
    }

    /// How long after its end an hour is looked at for the last time; none if hours are not counted at all.
    pub(super) fn look_back(&self) -> Option<Duration> {
        let Schedule { daily_look_back, overlap, .. } = self.schedule;
        (daily_look_back > overlap).then_some(daily_look_back)
    }

    /// What lies before is not read again by every poll.
    pub(super) fn overlap_begins(&self) -> Millis {
        self.watermark.minus(self.schedule.overlap)
    }
}

/// The full hour at or before an instant.
pub(super) fn hour_down(time: Millis) -> Millis {
    let into = time.get().rem_euclid(3_600_000).unsigned_abs();
    time.minus(Duration::from_millis(into))
}

fn hour_up(time: Millis) -> Millis {
    let down = hour_down(time);
    if down == time { time } else { down.plus(HOUR) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minutes: u64) -> Millis {
        Millis::parse("2026-01-05T00:00:00Z").unwrap().plus(MINUTE * u32::try_from(minutes).unwrap())
    }

    fn schedule() -> Schedule {
        Schedule {
            poll_interval: 5 * MINUTE,
            safety_margin: MINUTE,
            overlap: 2 * HOUR,
            hourly_look_back: 24 * HOUR,
            daily_look_back: 72 * HOUR,
        }
    }

    /// Reads all that is to do; gives the windows in order.
    fn drain(plan: &mut Plan, mut too_large: impl FnMut() -> bool, filled: f64) -> Vec<Window> {
        let mut windows = Vec::new();
        while let Some(window) = plan.window() {
            if too_large() && plan.narrow(window) {
                continue;
            }
            plan.read(window, filled);
            windows.push(window);
        }
        windows
    }

    fn covers(windows: &[Window], from: Millis, to: Millis) -> bool {
        let mut reached = from;
        for window in windows {
            if window.from <= reached {
                reached = reached.max(window.to);
            }
        }
        reached >= to
    }

    /// Minutes between polls, and for each window whether its answer is too large.
    fn runs() -> impl Strategy<Value = (Vec<u64>, Vec<bool>, f64)> {
        let polls = prop::collection::vec(0u64..500, 1..20);
        (polls, prop::collection::vec(prop::bool::ANY, 1..50), 0.0..1.0f64)
    }

    proptest! {
        /// However polls fall and windows are narrowed: each poll reads all from the overlap to the safety margin, nothing
        /// beyond it, in windows of a bounded length that follow one another, and the watermark is where the reading ended.
        #[test]
        fn every_poll_reads_what_is_new_and_the_overlap((gaps, large, filled) in runs()) {
            let mut plan = Plan::new(schedule(), at(0), at(0), Vec::new());
            let mut large = large.into_iter().cycle();
            let (mut now, mut watermark) = (at(0), at(0));
            for gap in gaps {
                now = now.plus(MINUTE * u32::try_from(gap).unwrap());
                plan.poll(now);
                let windows = drain(&mut plan, || large.next().unwrap(), filled);
                let target = now.minus(MINUTE);
                if target > watermark {
                    let begin = watermark.minus(2 * HOUR).max(at(0));
                    prop_assert!(covers(&windows, begin, target));
                    prop_assert_eq!(windows[0].from, begin);
                    watermark = target;
                }
                for window in &windows {
                    prop_assert!(window.from < window.to && window.to <= target);
                    prop_assert!(window.length() <= LONGEST);
                }
                prop_assert!(windows.windows(2).all(|pair| pair[0].to == pair[1].from));
                prop_assert_eq!(plan.watermark, watermark);
            }
        }

        /// Holes are read once, before all else, and do not move the watermark.
        #[test]
        fn holes_are_read_first(from in 0u64..500, length in 1u64..500) {
            let hole = Window { from: at(from), to: at(from + length) };
            let mut plan = Plan::new(schedule(), at(0), at(2000), vec![hole]);
            plan.poll(at(2100));
            let windows = drain(&mut plan, || false, 1.0);
            prop_assert!(covers(&windows, hole.from, hole.to));
            prop_assert_eq!(windows[0].from, hole.from);
            prop_assert_eq!(plan.watermark, at(2099));
            plan.poll(at(2200));
            prop_assert_eq!(drain(&mut plan, || false, 1.0)[0].from, at(2099 - 120));
        }
    }

    #[test]
    fn a_window_is_halved_down_to_a_minute_and_grows_again_when_it_is_quiet() {
        let mut plan = Plan::new(schedule(), at(0), at(0), Vec::new());
        plan.poll(at(601));
        let mut lengths = Vec::new();
        loop {
            let window = plan.window().unwrap();
            lengths.push(window.length().as_secs());
            if !plan.narrow(window) {
                break;
            }
        }
        assert_eq!(lengths, [3600, 1800, 900, 450, 225, 112, 60]);
        let grown: Vec<_> =
            drain(&mut plan, || false, 0.1).iter().map(|window| window.length().as_secs()).collect();
        assert_eq!(grown[..5], [60, 120, 240, 480, 960]);
        plan.poll(at(1201));
        let busy = drain(&mut plan, || false, 0.5);
        assert!(busy.windows(2).all(|pair| pair[1].length() <= pair[0].length()));
    }

    #[test]
    fn older_hours_are_counted_hourly_and_daily_and_read_where_they_changed() {
        let mut plan = Plan::new(schedule(), at(0), at(6030), Vec::new());
        let now = at(6031);
        let oldest = Some(at(1740));
        let count = plan.count(now, oldest).unwrap();
        assert_eq!(
            count.window,
            Window { from: at(1740), to: at(5940) },
            "to the hour the overlap begins in"
        );
        plan.counted(count, now, [at(1800), at(1860), at(2400)]);
        assert_eq!(plan.count(now, oldest), None);
        let windows = drain(&mut plan, || false, 1.0);
        assert_eq!(windows[0].from, at(1800));
        assert_eq!(windows.last().unwrap().to, at(2460));
        assert_eq!(windows.iter().map(|window| window.length()).sum::<Duration>(), 3 * HOUR);
        assert_eq!(plan.watermark, at(6030), "old rows do not move it");
        assert_eq!(plan.count(at(6090), oldest), None);
        let hourly = plan.count(at(6091), oldest).unwrap();
        assert_eq!(hourly.window, Window { from: at(4620), to: at(5940) });
        plan.counted(hourly, at(6091), []);
        assert!(plan.count(at(6031 + 24 * 60), oldest).unwrap().daily);
    }

    #[test]
    fn what_a_crash_left_unread_between_the_lanes_is_read_first() {
        let lanes = [(at(60), at(120)), (at(120), at(135)), (at(240), at(270))];
        let plan = Plan::resume(schedule(), &lanes, None, at(1000));
        assert_eq!((plan.origin, plan.watermark), (at(60), at(270)));
        assert_eq!(plan.todo, [Window { from: at(135), to: at(240) }]);
        let earlier = Plan::resume(schedule(), &lanes, Some(at(5)), at(1000));
        assert_eq!((earlier.origin, earlier.todo[0]), (at(0), Window { from: at(0), to: at(60) }));
        let later = Plan::resume(schedule(), &lanes, Some(at(240)), at(1000));
        assert_eq!((later.origin, later.watermark, later.todo.len()), (at(240), at(270), 0));
        let new = Plan::resume(schedule(), &[], None, at(1000));
        assert_eq!((new.origin, new.watermark, new.todo.len()), (at(960), at(960), 0));
        let future = Plan::resume(schedule(), &[], Some(at(2000)), at(1000));
        assert_eq!(future.origin, at(1980));
    }

    #[test]
    fn nothing_before_the_origin_is_read_or_counted() {
        let mut plan = Plan::new(schedule(), at(60), at(150), Vec::new());
        assert_eq!(
            plan.count(at(200), Some(at(60))),
            None,
            "the overlap reaches back further than the table was ever read"
        );
        plan.poll(at(400));
        assert_eq!(drain(&mut plan, || false, 1.0)[0].from, at(60));
        assert_eq!(plan.count(at(400), Some(at(0))).unwrap().window, Window { from: at(60), to: at(300) });
    }

    #[test]
    fn a_clock_that_is_set_back_reads_nothing() {
        let mut plan = Plan::new(schedule(), at(0), at(600), Vec::new());
        plan.poll(at(500));
        assert_eq!(plan.window(), None);
    }
}
