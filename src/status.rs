//! What a pipeline is doing, in a form that the server, the summary and a human can read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The state of a pipeline in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not running yet.
    #[default]
    Starting,
    /// Reading and delivering, or waiting for something new.
    Running,
    /// The collector or the store fails in a way that passes; trying again.
    Retrying,
    /// Waiting for a human.
    Holding,
    /// Draining.
    Stopping,
    /// At its end.
    Stopped,
}

/// A snapshot of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// What it does.
    pub phase: Phase,
    /// Why, where it does not run: the last error and what to do.
    pub reason: Option<String>,
}

/// The shared status of one pipeline: how its two ends and the local disks see it.
#[derive(Clone, Debug, Default)]
pub struct Status {
    inner: Arc<Mutex<Sides>>,
}

#[derive(Debug, Default)]
struct Sides {
    phase: Phase,
    input: Option<(Phase, String)>,
    output: Option<(Phase, String)>,
    state: Option<(Phase, String)>,
    dead_letters: Option<(Phase, String)>,
    beat: Option<Instant>,
}

/// Which end of a pipeline speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The reader.
    Input,
    /// The sender.
    Output,
    /// The disk under the state.
    State,
    /// The disk under the dead letters.
    DeadLetters,
}

impl Status {
    /// Enters a phase of the whole pipeline.
    pub fn enter(&self, phase: Phase) {
        let mut sides = self.lock();
        sides.phase = phase;
        sides.beat = (phase != Phase::Stopped).then(Instant::now);
    }

    /// Says that the pipeline still turns, whether or not there is anything to do.
    pub fn beat(&self) {
        let mut sides = self.lock();
        if sides.beat.is_some() {
            sides.beat = Some(Instant::now());
        }
    }

    /// Time since the pipeline last turned; nothing before its start and after its end.
    pub fn silent_for(&self) -> Option<Duration> {
        self.lock().beat.map(|beat| beat.elapsed())
    }

    /// Says that a side retries or holds, and why. Returns true if that is news, so that it is logged once.
    pub fn trouble(&self, side: Side, phase: Phase, reason: &str) -> bool {
        let mut sides = self.lock();
        let slot = sides.side(side);
        let news = slot.as_ref().is_none_or(|(known, text)| *known != phase || text != reason);
        *slot = Some((phase, reason.to_owned()));
        news
    }

    /// Says that a side works again. Returns true if it did not before.
    pub fn recovered(&self, side: Side) -> bool {
        self.lock().side(side).take().is_some()
    }

    /// True if a side is in trouble.
    pub fn is_troubled(&self, side: Side) -> bool {
        self.lock().side(side).is_some()
    }

    /// The state now; a hold outweighs a retry.
    pub fn snapshot(&self) -> Snapshot {
        let sides = self.lock();
        let mut troubles: Vec<_> =
            [&sides.state, &sides.dead_letters, &sides.output, &sides.input].into_iter().flatten().collect();
        troubles.sort_by_key(|(phase, _)| *phase != Phase::Holding);
        match troubles.first() {
            Some((phase, reason)) if sides.phase == Phase::Running => {
                Snapshot { phase: *phase, reason: Some(reason.clone()) }
            }
            first => Snapshot { phase: sides.phase, reason: first.map(|(_, reason)| reason.clone()) },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sides> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sides {
    fn side(&mut self, side: Side) -> &mut Option<(Phase, String)> {
        match side {
            Side::Input => &mut self.input,
            Side::Output => &mut self.output,
            Side::State => &mut self.state,
            Side::DeadLetters => &mut self.dead_letters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pipeline_that_runs_is_silent_from_its_last_beat_on() {
        let status = Status::default();
        assert_eq!(status.silent_for(), None);
        status.enter(Phase::Running);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(status.silent_for(), Some(Duration::from_secs(5)));
        status.beat();
        assert_eq!(status.silent_for(), Some(Duration::ZERO));
        status.enter(Phase::Stopped);
        status.beat();
        assert_eq!(status.silent_for(), None, "what has ended need not turn");
    }

    #[test]
    fn a_hold_outweighs_a_retry_and_trouble_is_news_once() {
        let status = Status::default();
        status.enter(Phase::Running);
        assert!(status.trouble(Side::Output, Phase::Retrying, "503"));
        assert!(!status.trouble(Side::Output, Phase::Retrying, "503"));
        assert!(status.trouble(Side::Input, Phase::Holding, "no permission"));
        assert_eq!(status.snapshot().phase, Phase::Holding);
        assert!(status.recovered(Side::Input));
        assert!(!status.recovered(Side::Input));
        assert_eq!(status.snapshot().reason.as_deref(), Some("503"));
    }
}
