//! The reader: takes chunks from the input, numbers them, and announces them to the committer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::PipelineError;
use super::progress::{Progress, Reporter};
use crate::backoff::Backoff;
use crate::batch::Sequence;
use crate::chunk::{Chunk, Partition};
use crate::input::{Input, InputError, Read};
use crate::metrics::PipelineMetrics;
use crate::output::HoldReason;
use crate::state::Change;
use crate::status::{Phase, Side, Status};

/// Times in a row `--once` tries an input that fails in a way that passes.
const ONCE_TRIES: u32 = 5;
/// Lines logged for single objects that cannot be read, in a period: a minute, and longer while it does not stop.
const TROUBLES_LOGGED: u32 = 10;
const SHORTEST_PERIOD: Duration = Duration::from_secs(60);
const LONGEST_PERIOD: Duration = Duration::from_secs(3600);
/// Partitions remembered as refused while others were read; with more of them a hold may be told once too often.
const MAX_LOCKED: usize = 10_000;

pub(crate) struct Reader {
    pub(crate) input: Arc<dyn Input>,
    pub(crate) chunks: mpsc::Sender<(Sequence, Chunk)>,
    pub(crate) reporter: Reporter,
    pub(crate) status: Status,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) name: Arc<str>,
    pub(crate) once: bool,
    pub(crate) stop: CancellationToken,
}

impl Reader {
    /// Reads until told to stop, or (`--once`) to the end: to be stopped before it is an error there.
    pub(crate) async fn run(self) -> Result<(), PipelineError> {
        let mut backoff = Backoff::new(fastrand::u64(..));
        let mut failures = 0;
        let mut sequence = 0;
        let mut unread: Option<InputError> = None;
        let mut troubles = Troubles::default();
        let mut unreadable = Unreadable::default();
        loop {
            let read = tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.stopped(),
                read = self.input.read() => read,
            };
            match read {
                Ok(Read::Chunk(chunk)) => {
                    // A first pass takes hours: what fails now and then on the way must not add up.
                    failures = 0;
                    backoff.reset();
                    if unreadable.end() {
                        self.recovered();
                    }
                    sequence += 1;
                    if !self.hand_on(Sequence(sequence), chunk).await {
                        break;
                    }
                }
                Ok(Read::Trouble { partition, error }) => {
                    self.metrics.input_errors.inc();
                    if troubles.may_log() {
                        tracing::warn!(pipeline = %self.name, %partition, "{error}; it is tried again, others go on");
                    }
                    if error.needs_a_human() {
                        unreadable.add(partition, &error);
                    }
                    unread = Some(error);
                }
                Ok(Read::Withheld(error)) => {
                    // Said like any other hold, but nobody waits: there is more to read.
                    self.metrics.input_errors.inc();
                    self.failed(&error);
                    unreadable.holding = false;
                    unread = Some(error);
                }
                Ok(Read::Idle) => {
                    failures = 0;
                    backoff.reset();
                    match unreadable.hold() {
                        // A single run says so at its end.
                        Some(error) if !self.once => self.troubled(Phase::Holding, &error),
                        _ => self.recovered(),
                    }
                }
                Ok(Read::End) => break,
                Err(error) => {
                    failures += 1;
                    self.metrics.input_errors.inc();
                    if self.once && (error.needs_a_human() || failures >= ONCE_TRIES) {
                        return Err(PipelineError::Input { pipeline: self.name.to_string(), source: error });
                    }
                    self.failed(&error);
                    unreadable.holding = false;
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return self.stopped(),
                        () = tokio::time::sleep(backoff.next(error.retry_after())) => {}
                    }
                }
            }
        }
        match unread {
            Some(source) if self.once => {
                Err(PipelineError::Input { pipeline: self.name.to_string(), source })
            }
            _ => Ok(()),
        }
    }

    fn stopped(&self) -> Result<(), PipelineError> {
        match self.once {
            true => Err(PipelineError::Stopped { pipeline: self.name.to_string() }),
            false => Ok(()),
        }
    }

    fn failed(&self, error: &InputError) {
        let phase = if error.needs_a_human() { Phase::Holding } else { Phase::Retrying };
        self.troubled(phase, &error.to_string());
    }

    fn troubled(&self, phase: Phase, error: &str) {
        self.metrics.hold(HoldReason::Input, phase == Phase::Holding);
        if !self.status.trouble(Side::Input, phase, error) {
            return;
        }
        match phase {
            Phase::Holding => tracing::error!(pipeline = %self.name, "{error}; waiting, nothing is lost"),
            _ => tracing::warn!(pipeline = %self.name, "{error}; trying again, nothing is lost"),
        }
    }

    fn recovered(&self) {
        self.metrics.hold(HoldReason::Input, false);
        if self.status.recovered(Side::Input) {
            tracing::info!(pipeline = %self.name, "the input can be read again");
        }
    }

    /// Announces a chunk and passes it on; `false` if nobody takes it any more.
    async fn hand_on(&self, sequence: Sequence, mut chunk: Chunk) -> bool {
        self.metrics.records_read.inc_by((chunk.records.len() + chunk.malformed.len()) as u64);
        let bytes: u64 = chunk.records.iter().map(|record| u64::from(record.end - record.start)).sum();
        self.metrics.bytes_read.inc_by(bytes);
        self.metrics.bytes_fetched.inc_by(chunk.counts.bytes_fetched);
        self.metrics.records_skipped.inc_by(chunk.counts.records_skipped);
        self.metrics.records_duplicate.inc_by(chunk.counts.records_duplicate);
        self.metrics.objects_read.inc_by(chunk.counts.objects_read);
        self.metrics.prefix_mismatch.inc_by(chunk.counts.prefix_mismatches);
        let change = Change {
            partition: chunk.partition.clone(),
            position: chunk.position.clone(),
            note: std::mem::take(&mut chunk.note),
        };
        let credit = chunk.credit.clone();
        let workspace = chunk.origin.workspace.clone();
        let read = Progress::Read { sequence, change, read_at: Instant::now(), credit, workspace };
        self.reporter.tell(read).await;
        self.chunks.send((sequence, chunk)).await.is_ok()
    }
}

/// Tells an object that is locked, which is for a warning, from a source that can be listed and not read, which is for a
/// human: of the latter nothing comes but refusals.
#[derive(Debug, Default)]
struct Unreadable {
    /// Refused since anything could be read, and not before that.
    new: HashSet<Partition>,
    /// Refused while others could be read.
    locked: HashSet<Partition>,
    /// The last refusal of a new one since the last look at the source.
    error: Option<String>,
    /// It is these that are held for.
    holding: bool,
}

impl Unreadable {
    fn add(&mut self, partition: Partition, error: &InputError) {
        if self.locked.contains(&partition) {
            return;
        }
        self.error = Some(error.to_string());
        if self.new.len() < MAX_LOCKED {
            self.new.insert(partition);
        }
    }

    /// Something could be read. True if it was held for that.
    fn end(&mut self) -> bool {
        if self.locked.len() + self.new.len() > MAX_LOCKED {
            self.locked.clear();
        }
        self.locked.extend(self.new.drain());
        self.error = None;
        std::mem::take(&mut self.holding)
    }

    /// A look at the source came to its end: why to hold, if it gave nothing but refusals.
    fn hold(&mut self) -> Option<String> {
        let error = self.error.take();
        self.holding = error.is_some();
        error
    }
}

/// Keeps the log readable when thousands of objects cannot be read, or some never can: where there is trouble in each period,
/// the periods get longer.
struct Troubles {
    begun: Instant,
    period: Duration,
    logged: u32,
}

impl Default for Troubles {
    fn default() -> Self {
        Self { begun: Instant::now(), period: SHORTEST_PERIOD, logged: 0 }
    }
}

impl Troubles {
    fn may_log(&mut self) -> bool {
        let (elapsed, period) = (self.begun.elapsed(), self.period);
        if elapsed > period {
            let quiet = elapsed > 2 * period;
            let next = if quiet { SHORTEST_PERIOD } else { (2 * period).min(LONGEST_PERIOD) };
            *self = Self { period: next, ..Self::default() };
        }
        self.logged += 1;
        self.logged <= TROUBLES_LOGGED
    }
}

#[cfg(test)]
mod tests;
