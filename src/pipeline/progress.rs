//! What the tasks of a pipeline tell the committer.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::batch::{Manifest, Sequence};
use crate::budget::Credit;
use crate::state::Change;
use crate::time::Millis;

/// News of a chunk.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It was read.
    Read { sequence: Sequence, change: Change, read_at: Instant, credit: Credit, workspace: Option<Arc<str>> },
    /// It holds this many events, dead letters included.
    Counted { sequence: Sequence, events: usize, newest: Option<Millis> },
    /// Some of its events are delivered or dead-lettered.
    Settled { sequence: Sequence, events: usize, fate: Fate },
}

/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Duplicate,
    Dead,
}

/// Tells the committer.
#[derive(Clone, Debug)]
pub(crate) struct Reporter(pub(crate) mpsc::Sender<Progress>);

impl Reporter {
    /// Waits for room: the committer waits for nobody, so this ends.
    pub(crate) async fn tell(&self, progress: Progress) {
        let _ended = self.0.send(progress).await;
    }

    /// Every one of these events ended alike.
    pub(crate) async fn settle(&self, events: &Manifest, fate: Fate) {
        // Once for each chunk: events that stand by action are of many runs.
        let mut ended = BTreeMap::<Sequence, usize>::new();
        for part in events.parts() {
            *ended.entry(part.frames.sequence).or_default() += part.range.len();
        }
        for (sequence, events) in ended {
            self.tell(Progress::Settled { sequence, events, fate }).await;
        }
    }
}
