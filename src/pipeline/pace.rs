//! The back-off that all requests of a pipeline share: one collector, one pace.
//!
//! While the collector fails, requests go out one at a time, each after the shared wait; the first success lets all of
//! them go again. A storm of retries from requests that each wait for themselves was the alternative.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use tokio::time::Instant;

use crate::backoff::Backoff;

#[derive(Debug)]
pub(crate) struct Pace {
    /// Held by the one request that may go out while the collector fails.
    probe: AsyncMutex<()>,
    state: Mutex<State>,
    hold_interval: Duration,
}

#[derive(Debug)]
struct State {
    backoff: Backoff,
    failing_since: Option<Instant>,
    next: Instant,
}

impl Pace {
    pub(crate) fn new(seed: u64, hold_interval: Duration) -> Self {
        let state = State { backoff: Backoff::new(seed), failing_since: None, next: Instant::now() };
        Self { probe: AsyncMutex::new(()), state: Mutex::new(state), hold_interval }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may go out. The guard, where there is one, is kept until its verdict is in.
    pub(crate) async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.state().failing_since?;
        let guard = self.probe.lock().await;
        let next = {
            let state = self.state();
            state.failing_since?;
            state.next
        };
        tokio::time::sleep_until(next).await;
        Some(guard)
    }

    /// A request failed: the next one waits.
    pub(crate) fn failed(&self, retry_after: Option<Duration>) {
        let mut state = self.state();
        let now = Instant::now();
        // Requests that were under way together fail together: they count as one failure.
        if state.failing_since.is_none() || now >= state.next {
            state.failing_since.get_or_insert(now);
            let wait = state.backoff.next(retry_after);
            state.next = now + wait;
        }
    }

    /// A request was refused until a human acts.
    pub(crate) fn held(&self) {
        let mut state = self.state();
        let now = Instant::now();
        state.failing_since.get_or_insert(now);
        state.next = now + self.hold_interval;
    }

    /// A request was accepted. Its guard, if it held one, lets the others go.
    pub(crate) fn succeeded(&self) {
        let mut state = self.state();
        if state.failing_since.take().is_some() {
            state.backoff.reset();
        }
    }

    /// How long the collector has been failing.
    pub(crate) fn failing_for(&self) -> Duration {
        self.state().failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
