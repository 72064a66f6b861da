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

    /// A pace that has come to this limit, with somebody always waiting for a turn.
    fn in_demand(limit: usize, most: usize) -> Pace {
        let pace = Pace::new(1, most);
        pace.state().limit = limit;
        pace.state().measured = FEW;
        pace.state().waiting = 1;
        pace
    }

    /// Accepts a request after this time.
    async fn accepted_after(pace: &Pace, took: Duration) {
        tokio::time::advance(Duration::from_millis(1)).await;
        let turn = pace.turn().await;
        tokio::time::advance(took).await;
        pace.accepted(&turn);
    }

    /// A collector that takes so many requests at once, each for this time; others wait there until one has ended.
    struct Collector {
        at_once: tokio::sync::Semaphore,
        takes: Mutex<Duration>,
    }

    /// Sends without end for so long, from more senders than there may be requests.
    async fn send_for(pace: &Pace, collector: &Collector, time: Duration) {
        let sender = || async {
            loop {
                let turn = pace.turn().await;
                let takes = *collector.takes.lock().unwrap();
                let place = collector.at_once.acquire().await.unwrap();
                tokio::time::sleep(takes).await;
                drop(place);
                pace.accepted(&turn);
            }
        };
        let senders = futures::future::join_all(std::iter::repeat_with(sender).take(100));
        let _: Result<Vec<()>, _> = tokio::time::timeout(time, senders).await;
    }

    fn collector(at_once: usize, takes: Duration) -> Collector {
        Collector { at_once: tokio::sync::Semaphore::new(at_once), takes: Mutex::new(takes) }
    }

    #[tokio::test(start_paused = true)]
    async fn to_a_distant_collector_requests_double_with_each_round_trip_up_to_the_most() {
        let (pace, collector) = (Pace::new(1, 64), collector(1000, Duration::from_millis(200)));
        assert_eq!(pace.limit(), 4);
        send_for(&pace, &collector, Duration::from_millis(401)).await;
        assert!((5..=10).contains(&pace.limit()), "{}", pace.limit());
        send_for(&pace, &collector, Duration::from_millis(801)).await;
        assert_eq!(pace.limit(), 64);
        send_for(&pace, &collector, Duration::from_secs(60)).await;
        assert_eq!(pace.limit(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_go_at_once_than_a_collector_has_hands_for_and_more_again_when_it_has() {
        let (pace, narrow) = (Pace::new(1, 256), collector(8, Duration::from_millis(300)));
        for _ in 0..20 {
            send_for(&pace, &narrow, Duration::from_secs(60)).await;
            assert!((8..40).contains(&pace.limit()), "{}", pace.limit());
        }
        let wide = collector(64, Duration::from_millis(300));
        send_for(&pace, &wide, Duration::from_secs(600)).await;
        assert!((64..200).contains(&pace.limit()), "{}", pace.limit());
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_has_become_slower_by_itself_is_found_to_be_so() {
        let (pace, collector) = (Pace::new(1, 64), collector(1000, Duration::from_millis(100)));
        let becomes_slower = async {
            tokio::time::sleep(Duration::from_millis(250)).await;
            *collector.takes.lock().unwrap() = Duration::from_millis(900);
            tokio::time::sleep(Duration::from_secs(20)).await;
            pace.limit()
        };
        let (held_back, ()) =
            tokio::join!(becomes_slower, send_for(&pace, &collector, Duration::from_secs(300)));
        assert!(held_back < 20, "it may be that they wait for each other: {held_back}");
        assert_eq!(pace.limit(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_nobody_waits_at_stays() {
        let pace = Pace::new(1, 64);
        for _ in 0..100 {
            accepted_after(&pace, Duration::from_millis(10)).await;
        }
        assert_eq!(pace.limit(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gave_up_waiting_counts_no_longer_as_waiting() {
        let pace = Pace::new(1, 1);
        let _turn = pace.turn().await;
        assert!(pace.turn().now_or_never().is_none());
        assert_eq!(pace.state().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_halves_once_for_requests_under_way_together_and_recovers_one_by_one() {
        let pace = in_demand(8, 8);
        let turns = [pace.turn().await, pace.turn().await, pace.turn().await];
        for turn in &turns {
            pace.failed(turn, None);
        }
        drop(turns);
        assert_eq!(pace.limit(), 4);
        for expected in [4, 4, 4, 5, 5, 5, 5, 5, 6] {
            accepted_after(&pace, Duration::ZERO).await;
            assert_eq!(pace.limit(), expected);
        }
        let turn = pace.turn().await;
        pace.strained(&turn);
        assert_eq!(pace.limit(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_take_much_longer_than_usual_lower_the_limit() {
        let pace = in_demand(8, 8);
        for _ in 0..5 {
            accepted_after(&pace, Duration::from_millis(100)).await;
        }
        accepted_after(&pace, Duration::from_millis(1300)).await;
        assert_eq!(pace.limit(), 8);
        accepted_after(&pace, Duration::from_millis(3000)).await;
        assert_eq!(pace.limit(), 4);
    }
}
