//! What a pipeline is doing, in a form that the server, the summary and a human can read.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

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
        self.lock().phase = phase;
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
