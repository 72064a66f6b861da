//! The pace of all requests to one destination, from whichever pipelines they come.
//!
//! | the collector | requests at once | wait before one |
//! |---|---|---|
//! | takes events | up to the limit | none |
//! | fails | one | the back-off, shared |
//! | is held | one | the hold interval |
//!
//! The limit begins at `in_flight`. It halves at each sign of overload (a failure, a collector that asks to slow down, an
//! answer that takes several times as long as usual), and grows by one after as many acceptances as it allows.
//!
//! A storm of retries from requests that each wait for themselves was the alternative.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::status::Phase;

/// How much longer than usual an answer takes when it is taken for a sign of overload, and the least that counts.
const SLOWER: (u32, Duration) = (4, Duration::from_secs(1));
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
    limit: usize,
    most: usize,
    /// Acceptances since the limit changed.
    accepted: usize,
    /// When the limit fell: what began before tells nothing new.
    fell_at: Option<Instant>,
    usual: Option<Duration>,
}

/// The right to make one request; kept until its verdict is in.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pace: &'a Pace,
    tries: bool,
    began: Instant,
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
            limit: in_flight,
            most: in_flight,
            accepted: 0,
            fell_at: None,
            usual: None,
        };
        Self { state: Mutex::new(state), line: AsyncMutex::default(), ended: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may go out.
    pub(crate) async fn turn(&self) -> Turn<'_> {
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
        if let Some(at) = at {
            tokio::time::sleep_until(at).await;
            turn.began = Instant::now();
        }
        turn
    }

    /// A turn, where there is one now, and when it begins.
    fn take(&self) -> Option<(Turn<'_>, Option<Instant>)> {
        let mut state = self.state();
        let turn = |tries| Turn { pace: self, tries, began: Instant::now() };
        if state.failing_since.is_some() {
            let free = !std::mem::replace(&mut state.trying, true);
            return free.then(|| (turn(true), Some(state.next)));
        }
        if state.under_way >= state.limit {
            return None;
        }
        state.under_way += 1;
        Some((turn(false), None))
    }

    /// A request failed: the next one waits, and fewer go at once.
    pub(crate) fn failed(&self, turn: &Turn<'_>, retry_after: Option<Duration>) {
        let mut state = self.state();
        let now = Instant::now();
        // Requests that were under way together fail together: they count as one failure.
        if state.failing_since.is_none() || now >= state.next {
            state.failing_since.get_or_insert(now);
            let wait = state.backoff.next(retry_after);
            state.held = false;
            state.next = now + wait;
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
        if state.usual.is_some_and(|usual| took > usual * times + least) {
            state.fall(turn.began);
        } else {
            state.rise();
        }
        state.usual = Some(state.usual.map_or(took, |usual| (usual * (SMOOTHING - 1) + took) / SMOOTHING));
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
        self.accepted = 0;
    }

    fn rise(&mut self) {
        self.accepted += 1;
        if self.limit < self.most && self.accepted >= self.limit {
            self.limit += 1;
            self.accepted = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_requests_go_at_once_than_the_limit_and_the_next_goes_when_one_ends() {
        let pace = Pace::new(1, 2);
        let (first, _second) = (pace.turn().await, pace.turn().await);
        assert!(pace.turn().now_or_never().is_none());
        let third = pace.turn();
        tokio::pin!(third);
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_collector_is_tried_by_one_request_after_the_shared_wait_whoever_asks() {
        let pace = Pace::new(1, 4);
        let turn = pace.turn().await;
        pace.failed(&turn, Some(Duration::from_secs(7)));
        drop(turn);
        let failed_at = Instant::now();
        let (first, second) = (pace.turn(), pace.turn());
        tokio::pin!(first, second);
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        let first = first.await;
        assert!(failed_at.elapsed() >= Duration::from_secs(7));
        assert!(second.as_mut().now_or_never().is_none(), "one at a time");
        pace.accepted(&first);
        drop(first);
        assert!(second.now_or_never().is_some(), "it works again");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_tried_in_vain_stands_behind_those_who_wait() {
        let pace = Pace::new(1, 4);
        drop(pace.turn().await);
        pace.held(Duration::from_secs(15));
        let first = pace.turn().await;
        let second = pace.turn();
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let again = pace.turn();
        tokio::pin!(again);
        assert!(again.as_mut().now_or_never().is_none());
        second.await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_waiting_lets_another_try() {
        let pace = Pace::new(1, 4);
        let turn = pace.turn().await;
        pace.held(Duration::from_secs(15));
        drop(turn);
        assert!(pace.turn().now_or_never().is_none(), "dropped while it waits");
        pace.turn().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_halves_once_for_requests_under_way_together_and_recovers_one_by_one() {
        let pace = Pace::new(1, 8);
        let turns = [pace.turn().await, pace.turn().await, pace.turn().await];
        for turn in &turns {
            pace.failed(turn, None);
        }
        drop(turns);
        assert_eq!(pace.limit(), 4);
        for expected in [4, 4, 4, 5, 5, 5, 5, 5, 6] {
            tokio::time::advance(Duration::from_secs(60)).await;
            let turn = pace.turn().await;
            pace.accepted(&turn);
            assert_eq!(pace.limit(), expected);
        }
        let turn = pace.turn().await;
        pace.strained(&turn);
        assert_eq!(pace.limit(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_take_much_longer_than_usual_lower_the_limit() {
        let pace = Pace::new(1, 8);
        let answered_after = async |took: Duration| {
            tokio::time::advance(Duration::from_millis(1)).await;
            let turn = pace.turn().await;
            tokio::time::advance(took).await;
            pace.accepted(&turn);
        };
        for _ in 0..5 {
            answered_after(Duration::from_millis(100)).await;
        }
        answered_after(Duration::from_millis(1300)).await;
        assert_eq!(pace.limit(), 8);
        answered_after(Duration::from_millis(3000)).await;
        assert_eq!(pace.limit(), 4);
    }
}
