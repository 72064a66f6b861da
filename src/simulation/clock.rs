//! The time of a simulation. It goes on over the lives of a process; each life counts from zero in tokio's paused time.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

use crate::time::Millis;

/// What the clock shows at the beginning: noon, so that dates close while a simulation runs on for a day.
const START: &str = "2026-03-10T12:00:00Z";

#[derive(Default)]
struct Clock {
    /// Time before the life that goes on.
    before: Duration,
    /// When that began.
    began: Option<Instant>,
    /// When the clock is set, and by how many milliseconds.
    jumps: Vec<(Duration, i64)>,
}

thread_local! {
    /// Of the thread, since whoever asks the engine's clock has nothing to ask it of.
    static CLOCK: RefCell<Clock> = RefCell::default();
}

/// Begins a simulation whose clock is set at these times.
pub(super) fn reset(jumps: Vec<(Duration, i64)>) {
    CLOCK.with_borrow_mut(|clock| *clock = Clock { jumps, ..Clock::default() });
}

/// Begins a life; called within its runtime.
pub(super) fn begin() {
    CLOCK.with_borrow_mut(|clock| clock.began = Some(Instant::now()));
}

/// Ends a life; called within its runtime.
pub(super) fn end() {
    let now = elapsed();
    CLOCK.with_borrow_mut(|clock| (clock.before, clock.began) = (now, None));
}

/// Time since the simulation began.
pub(super) fn elapsed() -> Duration {
    CLOCK.with_borrow(|clock| clock.before + clock.began.map_or(Duration::ZERO, |began| began.elapsed()))
}

/// Waits until so much time has passed since the simulation began.
pub(super) async fn until(at: Duration) {
    tokio::time::sleep(at.saturating_sub(elapsed())).await;
}

/// The time of day, as wrong as the clock is.
pub(super) fn now() -> Millis {
    let elapsed = elapsed();
    let set: i64 = CLOCK.with_borrow(|clock| {
        clock.jumps.iter().filter(|(at, _)| *at <= elapsed).map(|(_, millis)| millis).sum()
    });
    let start = Millis::parse(START).unwrap().plus(elapsed);
    Millis::new(start.get() + set).unwrap()
}
