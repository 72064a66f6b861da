//! The committer: the one task that knows what is settled, and makes it durable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::PipelineError;
use super::disk::Disk;
use super::progress::{Fate, Progress};
use super::tracker::Tracker;
use crate::budget::{Budget, Credit};
use crate::input::Input;
use crate::metrics::PipelineMetrics;
use crate::state::{Change, State};
use crate::time::Millis;

/// Shortest time between two commits: one fsync for many acknowledgements.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// Messages taken at once.
const AT_ONCE: usize = 1024;

pub(crate) struct Committer {
    pub(crate) namespace: Arc<str>,
    pub(crate) input: Arc<dyn Input>,
    pub(crate) state: Arc<dyn State>,
    pub(crate) budget: Budget,
    pub(crate) disk: Disk,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) clock: fn() -> Millis,
    pub(crate) tracker: Tracker<Uncommitted>,
    pub(crate) counts: Counts,
}

/// What rides along with an uncommitted chunk.
#[derive(Debug)]
pub(crate) struct Uncommitted {
    workspace: Option<Arc<str>>,
    newest: Option<Millis>,
    credit: Credit,
}

/// Totals since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    delivered: u64,
    duplicate: u64,
    dead: u64,
}

impl Committer {
    /// Runs until all that could tell news are gone; commits what is settled by then.
    pub(crate) async fn run(mut self, mut news: mpsc::Receiver<Progress>) -> Result<(), PipelineError> {
        let mut batch = Vec::with_capacity(AT_ONCE);
        let mut last_commit = Instant::now() - COMMIT_INTERVAL;
        loop {
            // The time-out only keeps the gauges true while nothing happens.
            let news_in =
                tokio::time::timeout(Duration::from_secs(1), news.recv_many(&mut batch, AT_ONCE)).await;
            self.disk.status.beat();
            if news_in == Ok(0) {
                return Ok(());
            }
            if last_commit.elapsed() < COMMIT_INTERVAL && !news.is_closed() {
                tokio::time::sleep_until(last_commit + COMMIT_INTERVAL).await;
                while let Ok(progress) = news.try_recv() {
                    batch.push(progress);
                }
            }
            for progress in batch.drain(..) {
                self.take_in(progress);
            }
            if self.commit().await? {
                last_commit = Instant::now();
            }
            let oldest = self.tracker.oldest().map_or(0.0, |read_at| read_at.elapsed().as_secs_f64());
            self.metrics.oldest_unacknowledged.set(oldest);
            self.metrics.bytes_uncommitted.set(i64::try_from(self.budget.used()).unwrap_or(i64::MAX));
            self.metrics.objects_open.set(i64::try_from(self.input.backlog().open).unwrap_or(i64::MAX));
        }
    }

    fn take_in(&mut self, progress: Progress) {
        match progress {
            Progress::Read { sequence, change, read_at, credit, workspace } => {
                let rider = Uncommitted { workspace, newest: None, credit };
                self.tracker.track(sequence, change, read_at, rider);
            }
            Progress::Counted { sequence, events, newest } => {
                if let Some(rider) = self.tracker.expect(sequence, events) {
                    rider.newest = newest;
                }
            }
            Progress::Settled { sequence, events, fate } => {
                let count = match fate {
                    Fate::Delivered => &mut self.counts.delivered,
                    Fate::Duplicate => &mut self.counts.duplicate,
                    Fate::Dead => &mut self.counts.dead,
                };
                *count += events as u64;
                self.tracker.settle(sequence, events);
            }
        }
    }

    /// Makes the settled prefix durable; `false` if there is none.
    async fn commit(&mut self) -> Result<bool, PipelineError> {
        let (changes, riders) = self.tracker.take_committable();
        if changes.is_empty() {
            return Ok(false);
        }
        let counts = std::mem::take(&mut self.counts);
        self.write(&changes, &counts).await?;
        self.metrics.commits.inc();
        // After the fsync and not before: the input may let go of what it holds.
        for change in &changes {
            self.input.committed(&change.partition, &change.position).await;
        }
        let now = (self.clock)();
        for Uncommitted { workspace, newest, credit } in riders {
            if let Some(newest) = newest {
                self.metrics.committed_event(workspace.as_deref().unwrap_or("none"), newest, now);
            }
            drop(credit);
        }
        Ok(true)
    }

    async fn write(&self, changes: &[Change], counts: &Counts) -> Result<(), PipelineError> {
        let counts = || {
            vec![
                ("events_delivered", counts.delivered),
                ("events_duplicate", counts.duplicate),
                ("dead_letters", counts.dead),
            ]
        };
        let mut failures = 0;
        while let Err(error) = self.state.commit(&self.namespace, changes.to_vec(), counts()).await {
            // A disk that refuses is for a human to put right: a restart by a watchdog would not help.
            self.disk.status.beat();
            self.disk.refuses(&error, &mut failures).await?;
        }
        self.disk.takes();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use tokio::task::JoinSet;

    use super::*;
    use crate::batch::Sequence;
    use crate::chunk::{Note, Partition, Position};
    use crate::input::{InputError, Read};
    use crate::metrics::Metrics;
    use crate::state::StateError;
    use crate::status::{Side, Status};

    /// A disk takes so long.
    const FSYNC: Duration = Duration::from_millis(20);
    /// Longest time from an acknowledgement to its durable position.
    const BOUND: Duration = Duration::from_millis(200);

    /// Takes a while for each commit, and notes when what was durable.
    #[derive(Default)]
    struct SlowState {
        commits: Mutex<Vec<(Instant, Vec<Change>)>>,
    }

    #[async_trait]
    impl State for SlowState {
        async fn range(&self, _: &str, _: &str, _: &str) -> Result<Vec<(Partition, Position)>, StateError> {
            Ok(Vec::new())
        }
        async fn positions(
            &self,
            _: &str,
            _: Vec<Partition>,
        ) -> Result<Vec<(Partition, Position)>, StateError> {
            Ok(Vec::new())
        }
        async fn notes(&self, _: &str, _: &Partition) -> Result<Vec<Bytes>, StateError> {
            Ok(Vec::new())
        }
        async fn commit(
            &self,
            _: &str,
            changes: Vec<Change>,
            _: Vec<(&'static str, u64)>,
        ) -> Result<(), StateError> {
            tokio::time::sleep(FSYNC).await;
            self.commits.lock().unwrap().push((Instant::now(), changes));
            Ok(())
        }
        async fn counters(&self, _: &str) -> Result<Vec<(String, u64)>, StateError> {
            Ok(Vec::new())
        }
        async fn key(&self) -> Result<[u8; 192], StateError> {
            Ok([0; 192])
        }
    }

    struct NoInput;

    #[async_trait]
    impl Input for NoInput {
        async fn read(&self) -> Result<Read, InputError> {
            Ok(Read::End)
        }
        async fn committed(&self, _: &Partition, _: &Position) {}
    }

    fn committer(state: Arc<SlowState>) -> Committer {
        let metrics = Metrics::new().unwrap().pipeline("in", "out");
        let disk = Disk {
            side: Side::State,
            name: "in/out".into(),
            status: Status::default(),
            metrics: metrics.clone(),
            once: false,
        };
        Committer {
            namespace: "in/out".into(),
            input: Arc::new(NoInput),
            state,
            budget: Budget::new(1 << 20),
            disk,
            metrics,
            clock: || crate::time::Date::EPOCH.start(),
            tracker: Tracker::default(),
            counts: Counts::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_fsync_is_for_many_acknowledgements_and_none_waits_long_for_it() {
        let state = Arc::<SlowState>::default();
        let (news_in, news) = mpsc::channel(64);
        let mut committing = JoinSet::new();
        committing.spawn(committer(Arc::clone(&state)).run(news));
        let mut settled = Vec::new();
        for number in 0..1000 {
            let sequence = Sequence(number);
            // Each an object of its own, as small ones are.
            let change = Change {
                partition: Partition::new(&number.to_string()),
                position: Position::new("1"),
                note: Note::Keep,
            };
            let (read_at, credit) = (Instant::now(), Credit::default());
            let read = Progress::Read { sequence, change, read_at, credit, workspace: None };
            news_in.send(read).await.unwrap();
            news_in.send(Progress::Counted { sequence, events: 1, newest: None }).await.unwrap();
            news_in.send(Progress::Settled { sequence, events: 1, fate: Fate::Delivered }).await.unwrap();
            settled.push(Instant::now());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(news_in);
        committing.join_next().await.unwrap().unwrap().unwrap();
        let commits = state.commits.lock().unwrap();
        let durable: Vec<(Instant, usize)> = commits
            .iter()
            .flat_map(|(at, changes)| {
                changes.iter().map(|change| (*at, change.partition.as_str().parse().unwrap()))
            })
            .collect();
        assert_eq!(durable.len(), 1000);
        for (at, number) in durable {
            let waited = at - settled[number];
            assert!(waited <= BOUND, "{number} waited {waited:?}");
        }
        assert!(commits.len() <= 25, "{} commits for 1000 acknowledgements", commits.len());
    }
}
