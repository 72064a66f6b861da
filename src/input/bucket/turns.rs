//! Whose turn it is to read an object, or to ask for a large one.
//!
//! An object that is read takes memory: a chunk of its lines and, from a distant store, most of a megabyte in the buffers of
//! its connection. A few readers are as fast as many while the rest of the pipeline is what is waited for. Where it waits
//! for the readers, the store is far away, and as many read as may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::object::ObjectError;

/// How often it is looked whether the pipeline waits for what is read.
const LOOK: Duration = Duration::from_millis(50);

/// Turns, a few of them at any time and more where they are of use.
#[derive(Debug)]
pub(super) struct Turns {
    few: Semaphore,
    more: Semaphore,
    /// The first in the line is the one that looks.
    first: Semaphore,
    /// The pipeline was waiting at the last look. Where it was not, one look may meet it between two chunks.
    waited: AtomicBool,
}

impl Turns {
    pub(super) fn new(few: usize, most: usize) -> Self {
        let few = few.min(most);
        Self {
            few: Semaphore::new(few),
            more: Semaphore::new(most - few),
            first: Semaphore::new(1),
            waited: AtomicBool::new(false),
        }
    }

    /// Waits for a turn; `waits` tells whether the pipeline has nothing to do just now.
    ///
    /// # Errors
    /// [`ObjectError::Closed`]: the pipeline has ended.
    pub(super) async fn take(&self, waits: impl Fn() -> bool) -> Result<SemaphorePermit<'_>, ObjectError> {
        let closed = |_| ObjectError::Closed;
        let _first = self.first.acquire().await.map_err(closed)?;
        loop {
            if let Ok(turn) = self.few.try_acquire() {
                return Ok(turn);
            }
            let waits = waits();
            let waited = self.waited.swap(waits, Ordering::Relaxed);
            if waits
                && waited
                && let Ok(turn) = self.more.try_acquire()
            {
                return Ok(turn);
            }
            tokio::select! {
                biased;
                turn = self.few.acquire() => return turn.map_err(closed),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn more_than_a_few_have_a_turn_only_where_the_pipeline_waits_for_them() {
        let turns = Turns::new(2, 3);
        let few = [turns.take(|| false).await.unwrap(), turns.take(|| false).await.unwrap()];
        let busy = tokio::time::timeout(60 * LOOK, turns.take(|| false)).await;
        assert!(busy.is_err(), "a few are enough");
        let once = std::cell::Cell::new(true);
        let between_chunks = tokio::time::timeout(60 * LOOK, turns.take(|| once.take())).await;
        assert!(between_chunks.is_err(), "one look tells nothing");
        let more = turns.take(|| true).await.unwrap();
        let beyond = tokio::time::timeout(60 * LOOK, turns.take(|| true)).await;
        assert!(beyond.is_err(), "no more than allowed");
        drop(more);
        assert!(turns.take(|| true).now_or_never().is_some(), "it has been waiting");
        let busy = turns.take(|| false);
        tokio::pin!(busy);
        assert!(busy.as_mut().now_or_never().is_none());
        drop(few);
        assert!(busy.now_or_never().is_some(), "one that ends makes room at once");
    }
}
