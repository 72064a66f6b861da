//! The disk under the state and the dead letters. While it refuses, the pipeline holds: without it nothing may be
//! forgotten, and nothing that no collector takes may be let go.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::PipelineError;
use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::metrics::PipelineMetrics;
use crate::output::HoldReason;
use crate::status::{Phase, Side, Status};

/// How long to wait before a disk is tried again. Trying costs nothing, and nobody need be told that there is room again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Times `--once` tries: it is watched by whoever started it, who would wait for ever.
const ONCE_TRIES: u32 = 5;

/// What is kept on a disk by one task of a pipeline.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) side: Side,
    pub(crate) name: Arc<str>,
    pub(crate) status: Status,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) once: bool,
}

impl Disk {
    /// Keeps dead letters: their events may not be settled before.
    ///
    /// # Errors
    /// [`PipelineError::Disk`] if a single run gives up.
    pub(crate) async fn keep(
        &self,
        dead_letters: &dyn DeadLetters,
        letters: Vec<DeadLetter>,
    ) -> Result<(), PipelineError> {
        let mut failures = 0;
        while let Err(error) = dead_letters.keep(letters.clone()).await {
            self.refuses(&error, &mut failures).await?;
        }
        self.takes();
        for letter in &letters {
            self.metrics.dead_letter(&letter.reason);
        }
        Ok(())
    }

    /// Says that the disk refuses, and waits before it is tried again. `failures` counts them, from 0.
    ///
    /// # Errors
    /// [`PipelineError::Disk`] if a single run gives up.
    pub(crate) async fn refuses(
        &self,
        error: &(dyn Display + Sync),
        failures: &mut u32,
    ) -> Result<(), PipelineError> {
        let (pipeline, message) = (self.name.to_string(), error.to_string());
        *failures += 1;
        if self.once && *failures >= ONCE_TRIES {
            return Err(PipelineError::Disk { pipeline, message });
        }
        self.metrics.hold(HoldReason::State, true);
        if self.status.trouble(self.side, Phase::Holding, &message) {
            tracing::error!(pipeline, "{message}; waiting, nothing is lost");
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
        Ok(())
    }

    /// Says that the disk has taken what it was given.
    pub(crate) fn takes(&self) {
        if self.status.recovered(self.side) {
            let held = [Side::State, Side::DeadLetters].into_iter().any(|side| self.status.is_troubled(side));
            self.metrics.hold(HoldReason::State, held);
            tracing::info!(pipeline = %self.name, "the disk can be written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn a_single_run_gives_up_and_a_service_never_does() {
        let disk = |once| Disk {
            side: Side::State,
            name: "in/out".into(),
            status: Status::default(),
            metrics: Metrics::new().unwrap().pipeline("in", "out"),
            once,
        };
        let tried = async |disk: Disk| {
            let mut failures = 0;
            while failures < 1000 && disk.refuses(&"full", &mut failures).await.is_ok() {}
            failures
        };
        assert_eq!((tried(disk(true)).await, tried(disk(false)).await), (ONCE_TRIES, 1000));
    }
}
