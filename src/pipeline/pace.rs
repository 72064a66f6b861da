//! The pace of all requests to one destination, from whichever pipelines they come.
//!
//! | the collector | requests at once | wait before one |
//! |---|---|---|
//! | takes events | up to the limit | none |
//! | fails | one | the back-off, shared |
//! | is held | one | the hold interval |
//!
//! The limit begins at four, or `in_flight` if that is less, and moves between one and `in_flight`, while requests wait for
//! their turn (a limit that is not used tells nothing):
//!
//! | answers | the limit |
//! |---|---|
//! | the first four | stays: they tell how long an answer takes |
//! | acceptances after that, until the first sign of anything else | grows by one with each: doubles in a round trip |
//! | acceptances after such a sign | grows by one after as many as it allows |
//! | acceptances that take twice as long as when few go at once | stays: more at once would only wait at the collector |
//! | three times as long | shrinks by one after as many as it allows |
//! | overload: a failure, a plea to slow down, an answer several times as long as usual | halves |
//!
//! How long answers take when few go at once is measured whenever few do. A measure that is old is made anew before it is
//! believed that more would only wait: for one round trip few go at once.
//!
//! A storm of retries from requests that each wait for themselves was the alternative.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::status::Phase;

/// Requests at once in the beginning: so few do not wait for each other at any collector.
const FEW: usize = 4;
/// How much longer than usual an answer takes when it is taken for a sign of overload, and the least that counts.
const SLOWER: (u32, Duration) = (4, Duration::from_secs(1));
/// Times that an answer takes in place of the time it takes when few go at once, where requests wait for each other; times
/// where too many do; and what does not count, since this machine may be busy, too.
const WAITING: (u32, u32, Duration) = (2, 3, Duration::from_millis(50));
/// How long it is believed how long answers take when few go at once.
const BELIEVED: Duration = Duration::from_secs(30);
/// Share of the newest answer in what is usual: as TCP smooths its round trips.
const SMOOTHING: u32 = 8;

/// The shared pace of one destination.
#[derive(Debug)]
pub struct Pace {
    state: Mutex<State>,
    /// First come, first served: whoever failed stands behind those who wait.
    line: AsyncMutex<()>,
    /// Told whenever a turn ends.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    backoff: Backoff,
    failing_since: Option<Instant>,
    /// Since a human has to act.
    held: bool,
    /// When the one request may go out that tries a failing collector.
    next: Instant,
    /// That request is waiting or under way.
    trying: bool,
    under_way: usize,
    /// Those who wait for their turn.
    waiting: usize,
    limit: usize,
    most: usize,
    /// There was no sign yet that the limit is high enough.
    climbing: bool,
    /// Acceptances since the limit changed, or would have.
    accepted: usize,
    /// When the limit fell: what began before tells nothing new.
    fell_at: Option<Instant>,
    usual: Option<Duration>,
    /// What is usual when few go at once.
    unhurried: Option<Duration>,
    /// When that was measured last.
    measured_at: Instant,
    /// Since when it is being measured, and answers since then: until there are some, few go at once.
    measuring_since: Instant,
    measured: usize,
    /// Requests that began while more than a few were under way.
    crowds: u64,
}

/// The right to make one request; kept until its verdict is in.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pace: &'a Pace,
    tries: bool,
    /// Where few were under way when it began: how many had begun in a crowd until then.
    crowds_before: Option<u64>,
    began: Instant,
}

/// One of those who wait for their turn.
struct Waiting<'a>(&'a Pace);

impl<'a> Waiting<'a> {
    fn at(pace: &'a Pace) -> Self {
        pace.state().waiting += 1;
        Self(pace)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        match self.tries {
            true => state.trying = false,
            false => state.under_way -= 1,
        }
        drop(state);
        self.pace.ended.notify_waiters();
    }
}

impl Pace {
    /// With randomness for the waits, and the most requests at once.
    pub fn new(seed: u64, in_flight: usize) -> Self {
        let state = State {
            backoff: Backoff::new(seed),
            failing_since: None,
            held: false,
            next: Instant::now(),
            trying: false,
            under_way: 0,
            waiting: 0,
            limit: in_flight.min(FEW),
            most: in_flight,
            climbing: true,
            accepted: 0,
            fell_at: None,
            usual: None,
            unhurried: None,
            measured_at: Instant::now(),
            measuring_since: Instant::now(),
            measured: 0,
            crowds: 0,
        };
        Self { state: Mutex::new(state), line: AsyncMutex::default(), ended: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may go out.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let waiting = Waiting::at(self);
        let first_in_line = self.line.lock().await;
        let (mut turn, at) = loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Before looking: a turn that ends in between must be heard.
            ended.as_mut().enable();
            match self.take() {
                Some(taken) => break taken,
                None => ended.await,
            }
        };
        drop(first_in_line);
        drop(waiting);
        if let Some(at) = at {
            tokio::time::sleep_until(at).await;
            turn.began = Instant::now();
        }
        turn
    }

    /// A turn, where there is one now, and when it begins.
    fn take(&self) -> Option<(Turn<'_>, Option<Instant>)> {
        let mut state = self.state();
        let turn = |tries, crowds_before| Turn { pace: self, tries, crowds_before, began: Instant::now() };
        if state.failing_since.is_some() {
            let free = !std::mem::replace(&mut state.trying, true);
            return free.then(|| (turn(true, Some(state.crowds)), Some(state.next)));
        }
        let limit = if state.is_measuring() { state.limit.min(FEW) } else { state.limit };
        if state.under_way >= limit {
            return None;
        }
        state.under_way += 1;
        let few = state.under_way <= FEW;
        state.crowds += u64::from(!few);
        Some((turn(false, few.then_some(state.crowds)), None))
    }

    /// A request failed: the next one waits, and fewer go at once. The last one goes when `patience` with a failing
    /// collector ends, not a wait after it.
    pub(crate) fn failed(&self, turn: &Turn<'_>, retry_after: Option<Duration>, patience: Option<Duration>) {
        let mut state = self.state();
        let now = Instant::now();
        // Requests that were under way together fail together: they count as one failure.
        if state.failing_since.is_none() || now >= state.next {
            let since = *state.failing_since.get_or_insert(now);
            let next = now + state.backoff.next(retry_after);
            state.held = false;
            state.next = patience.map_or(next, |patience| next.min(since + patience));
        }
        state.fall(turn.began);
    }

    /// A request was refused until a human acts.
    pub(crate) fn held(&self, interval: Duration) {
        let mut state = self.state();
        let now = Instant::now();
        state.failing_since.get_or_insert(now);
        state.held = true;
        state.next = now + interval;
    }

    /// The collector looked at a request: it works.
    pub(crate) fn succeeded(&self) {
        self.state().works();
    }

    /// A request was accepted.
    pub(crate) fn accepted(&self, turn: &Turn<'_>) {
        let mut state = self.state();
        state.works();
        let took = turn.began.elapsed();
        let (times, least) = SLOWER;
        let overload = state.usual.is_some_and(|usual| took > usual * times + least);
        state.usual = Some(smoothed(state.usual, took, SMOOTHING));
        // Few all the time: others may have come after it.
        if turn.crowds_before == Some(state.crowds) {
            state.measure(turn.began, took);
        }
        match overload {
            true => state.fall(turn.began),
            false => state.adapt(),
        }
    }

    /// A request was accepted by a collector that asks to slow down.
    pub(crate) fn strained(&self, turn: &Turn<'_>) {
        let mut state = self.state();
        state.works();
        state.fall(turn.began);
    }

    /// Most requests under way at once, for now.
    pub(crate) fn limit(&self) -> usize {
        self.state().limit
    }

    /// What whoever waits for a turn waits for, where the collector fails.
    pub(crate) fn trouble(&self) -> Option<Phase> {
        let state = self.state();
        state.failing_since.map(|_| if state.held { Phase::Holding } else { Phase::Retrying })
    }

    /// Waits until the collector takes nothing before a human acts.
    pub(crate) async fn until_held(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Before looking: a turn that ends in between must be heard.
            ended.as_mut().enable();
            if self.trouble() == Some(Phase::Holding) {
                return;
            }
            ended.await;
        }
    }

    /// How long the collector has been failing.
    pub(crate) fn failing_for(&self) -> Duration {
        self.state().failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl State {
    fn works(&mut self) {
        if self.failing_since.take().is_some() {
            self.backoff.reset();
        }
    }

    fn fall(&mut self, began: Instant) {
        if self.fell_at.is_some_and(|fell_at| began <= fell_at) {
            return;
        }
        self.fell_at = Some(Instant::now());
        self.limit = (self.limit / 2).max(1);
        self.climbing = false;
        self.accepted = 0;
    }

    fn is_measuring(&self) -> bool {
        self.measured < FEW
    }

    /// An answer to a request that went while few others did.
    fn measure(&mut self, began: Instant, took: Duration) {
        if began < self.measuring_since {
            return;
        }
        self.unhurried =
            Some(smoothed(self.unhurried, took, u32::try_from(self.measured + 1).unwrap_or(SMOOTHING)));
        self.measured += 1;
        self.measured_at = Instant::now();
    }

    /// Moves the limit after an acceptance.
    fn adapt(&mut self) {
        if self.waiting == 0 || self.is_measuring() {
            return;
        }
        let (some, many, not_counted) = WAITING;
        let (usual, unhurried) = (self.usual.unwrap_or_default(), self.unhurried.unwrap_or_default());
        let wait_at_the_collector = |times| usual > unhurried * times + not_counted;
        if wait_at_the_collector(some) && self.measured_at.elapsed() > BELIEVED {
            self.measuring_since = Instant::now();
            self.measured = 0;
            self.unhurried = None;
            return;
        }
        self.climbing &= !wait_at_the_collector(some);
        self.accepted += 1;
        if !self.climbing && self.accepted < self.limit {
            return;
        }
        self.accepted = 0;
        if !wait_at_the_collector(some) {
            self.limit = (self.limit + 1).min(self.most);
        } else if wait_at_the_collector(many) && self.limit > FEW {
            self.limit -= 1;
        }
    }
}

/// The average of the first, and then of those before and the newest.
fn smoothed(usual: Option<Duration>, newest: Duration, number: u32) -> Duration {
    let share = number.clamp(1, SMOOTHING);
    usual.map_or(newest, |usual| (usual * (share - 1) + newest) / share)
}

#[cfg(test)]
mod tests;
