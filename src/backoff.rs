//! How long to wait before the next try. Pure: randomness is a seed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Longest wait a collector's `Retry-After` is granted.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// Wait between tries while something needs a human (a revoked token, a missing index).
pub const HOLD_INTERVAL: Duration = Duration::from_secs(15);

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Waits that double from half a second up to a minute, each with jitter, without end.
#[derive(Debug)]
pub struct Backoff {
    seed: u64,
    waits: backon::ExponentialBackoff,
}

impl Backoff {
    /// The waits of this seed: equal seeds wait alike.
    pub fn new(seed: u64) -> Self {
        Self { seed, waits: Self::waits(seed) }
    }

    fn waits(seed: u64) -> backon::ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(FIRST)
            .with_max_delay(LONGEST)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(seed)
            .build()
    }

    /// The wait before the next try, at least as long as the collector asked for (within reason).
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let wait = self.waits.next().unwrap_or(LONGEST);
        wait.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.seed = self.seed.wrapping_add(1);
        self.waits = Self::waits(self.seed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_never_end() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<_> = (0..100).map(|_| backoff.next(None)).collect();
        assert!(waits[0] >= FIRST && waits[0] <= 2 * FIRST, "{:?}", waits[0]);
        assert!(waits[99] >= LONGEST && waits[99] <= 2 * LONGEST, "{:?}", waits[99]);
        backoff.reset();
        assert!(backoff.next(None) <= 2 * FIRST);
    }

    #[test]
    fn a_collector_may_ask_for_longer_but_not_for_ever() {
        let mut backoff = Backoff::new(7);
        assert_eq!(backoff.next(Some(Duration::from_secs(20))), Duration::from_secs(20));
        assert_eq!(backoff.next(Some(Duration::from_secs(86_400))), LONGEST_RETRY_AFTER);
    }
}
