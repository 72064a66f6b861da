//! Requests that a collector took and has not made safe yet: they wait for its word without a place in flight, and are
//! sent again if it does not come.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::deliver::Deliverer;
use crate::output::AckId;

/// First and longest wait between two questions for an acknowledgement.
const ACK_POLLS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Requests of a pipeline that wait for their acknowledgement; beyond it they keep their place in flight.
pub(super) const MAX_UNACKNOWLEDGED: usize = 1000;

impl Deliverer {
    /// Waits until the collector keeps its promise, for as long as the output says, without a place in flight.
    ///
    /// # Errors
    /// What to tell if it did not.
    pub(super) async fn acknowledged(
        &self,
        ack: AckId,
        slot: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), String> {
        let waiting = Arc::clone(&self.unacknowledged).acquire_owned().await;
        slot.take();
        self.metrics.acks_pending.inc();
        let patience = self.output.ack_timeout();
        let kept = tokio::time::timeout(patience, self.promise_kept(&ack)).await;
        self.metrics.acks_pending.dec();
        drop(waiting);
        kept.map_err(|_| format!("no acknowledgement within {} s", patience.as_secs()))
    }

    /// Asks until the collector says so.
    async fn promise_kept(&self, ack: &AckId) {
        let (mut wait, longest) = ACK_POLLS;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
            if self.output.acknowledged(std::slice::from_ref(ack)).await.contains(ack) {
                return;
            }
        }
    }
}
