//! The engine: one input, one output, and the tasks between them.
//!
//! ```text
//!            ┌─ Reader ─┐ chunks ┌─ Encoder ──────────────┐ batches ┌─ Sender ────────────┐
//!   Input ──►│ numbers  ├───────►│ decode, map, encode    ├────────►│ compress, send,     │──► collector
//!            └────┬─────┘        │ (all cores), batch     │         │ verdict (in_flight) │
//!                 │ read         └────┬───────────────────┘         └────┬────────────────┘
//!                 ▼                   ▼ counted, dead letters            ▼ settled
//!            ┌─ Committer: Tracker ─► State (fsync) ─► Input::committed, credit ─────────┐
//!            └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Channels are bounded, and bytes that are read and not committed, encoded or under way are bounded by one budget. Frames
//! are in memory until they are compressed: what waits for a collector are bodies. The committer waits for
//! nobody, so nothing here can wait in a circle. At a stop the reader ends, the channels close one after the other and
//! everything drains; after the grace period the rest is dropped, to be read again. So is, at once, what waits for a
//! collector that takes nothing before a human acts. Only the committer goes on until it has made durable what was settled
//! by then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Sequence};
use crate::budget::Budget;
use crate::chunk::Chunk;
use crate::compress::Encoding;
use crate::cores::cores;
use crate::dead_letter::DeadLetters;
use crate::decode::Decoder;
use crate::format::Format;
use crate::input::Input;
use crate::metrics::PipelineMetrics;
use crate::output::Output;
use crate::overlap::Overlap;
use crate::recent::RecentEvents;
use crate::state::State;
use crate::status::{Phase, Side, Status};
use crate::time::Millis;

mod acks;
mod batcher;
mod commit;
mod deliver;
mod disk;
mod encode;
mod error;
mod pace;
mod piece;
mod progress;
mod read;
mod refusals;
mod refuse;
mod told;
mod tracker;
mod workers;

pub use batcher::BatchLimits;
use batcher::{Batcher, LearnedSize};
use commit::Committer;
use deliver::Deliverer;
use disk::Disk;
use encode::{Codec, Encoded};
pub use error::PipelineError;
pub use pace::Pace;
use piece::{Packer, Piece};
use progress::{Fate, Progress, Reporter};
use read::Reader;
use refusals::Refusals;
use told::Said;
#[doc(hidden)] // For the benchmarks.
pub use tracker::Tracker;

/// Chunks between the reader and the encoder.
const CHUNKS_WAITING: usize = 2;
/// Batches between the encoder and the sender.
const BATCHES_WAITING: usize = 1;
/// News on their way to the committer.
const NEWS_WAITING: usize = 1024;
/// How long a pipeline that gave up waits for the disk, so that what was settled is not sent again, and at least any that
/// ends; and how long it waits for its input to take leave. Both are within what a service manager waits after the grace
/// period.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// A pipeline, ready to run.
pub struct Pipeline {
    /// `<input>/<output>`: its name in logs and its namespace in the state.
    pub name: Arc<str>,
    /// Where records come from.
    pub input: Arc<dyn Input>,
    /// What they mean.
    pub decoder: Arc<dyn Decoder>,
    /// How events are written.
    pub format: Arc<dyn Format>,
    /// Where they go.
    pub output: Arc<dyn Output>,
    /// Size and age of batches.
    pub limits: BatchLimits,
    /// How bodies are compressed.
    pub encoding: Encoding,
    /// Batches under way at once.
    pub in_flight: usize,
    /// The pace of the destination, shared by all pipelines to it.
    pub pace: Arc<Pace>,
    /// So many events refused in a row, and none taken, become dead letters; then it is a hold. 0: any number.
    pub hold_after_refusals: usize,
    /// Bytes read and not committed; the same that the input takes from.
    pub budget: Budget,
    /// Where positions are kept.
    pub state: Arc<dyn State>,
    /// Where undeliverable records are kept.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// What is counted.
    pub metrics: PipelineMetrics,
    /// What is shown.
    pub status: Status,
    /// End when everything is read, and give up rather than wait for a human.
    pub once: bool,
    /// How long a stop waits for what is under way, while a collector may still take it.
    pub grace: Duration,
    /// Time between two tries while the collector holds everything up until a human acts.
    pub hold_interval: Duration,
    /// Counts what another input sends to the same output.
    pub overlap: Option<Overlap>,
    /// The events encoded last, for the page.
    pub recent: RecentEvents,
    /// The time of day, for lags.
    pub clock: fn() -> Millis,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Pipeline({})", self.name)
    }
}

impl Pipeline {
    /// Runs until `stop` and everything under way is settled; with `once`, until all there is has been delivered.
    ///
    /// # Errors
    /// [`PipelineError`] if it gave up; what was not committed will be read again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), PipelineError> {
        let (status, grace, name) = (self.status.clone(), self.grace, Arc::clone(&self.name));
        let input = Arc::clone(&self.input);
        status.enter(Phase::Running);
        // Tasks live in these sets: when they are dropped, none outlives the pipeline.
        let (mut tasks, mut committer) = self.spawn(&stop);
        let unfinished = || Err(PipelineError::overdue(&name));
        // One for all that is waited for.
        let grace_is_over = async {
            stop.cancelled().await;
            status.enter(Phase::Stopping);
            tokio::time::sleep(grace).await;
        };
        tokio::pin!(grace_is_over);
        let result = tokio::select! {
            biased;
            result = join_all(&mut tasks) => result,
            error = failure(&mut committer) => Err(error),
            () = &mut grace_is_over => unfinished(),
        };
        // Whatever ended the others: what was settled until then is committed, or it would be sent again. The committer
        // ends when nobody is left to tell it news.
        tasks.shutdown().await;
        let patience = async {
            tokio::time::sleep(LAST_COMMIT).await;
            if result.is_ok() {
                grace_is_over.await;
            }
        };
        let committed = tokio::select! {
            biased;
            committed = join_all(&mut committer) => committed,
            () = patience => unfinished(),
        };
        let result = result.and(committed);
        if tokio::time::timeout(LAST_COMMIT, input.close()).await.is_err() {
            tracing::debug!(pipeline = %name, "the input did not take leave in time");
        }
        status.enter(Phase::Stopped);
        result
    }

    /// The reader, the encoder and the sender; and the committer, which outlives them.
    fn spawn(mut self, stop: &CancellationToken) -> (Tasks, Tasks) {
        self.limits
            .make_room_for(self.output.envelope(0, self.limits.max_bytes).len(), self.output.framing());
        let (chunks_in, chunks) = mpsc::channel(CHUNKS_WAITING);
        let (batches_in, batches) = mpsc::channel(BATCHES_WAITING);
        let (news_in, news) = mpsc::channel(NEWS_WAITING);
        let reporter = Reporter(news_in);
        let learned = Arc::new(LearnedSize::new(self.limits.max_bytes));
        let (name, status, metrics, once) =
            (Arc::clone(&self.name), self.status.clone(), self.metrics.clone(), self.once);
        let disk = |side| Disk {
            side,
            name: Arc::clone(&name),
            status: status.clone(),
            metrics: metrics.clone(),
            once,
        };
        let reader = Reader {
            input: Arc::clone(&self.input),
            chunks: chunks_in,
            reporter: reporter.clone(),
            status: self.status.clone(),
            metrics: self.metrics.clone(),
            name: Arc::clone(&self.name),
            once: self.once,
            stop: stop.clone(),
        };
        let encoder = Encoder {
            codec: Codec {
                decoder: self.decoder,
                format: self.format,
                output: Arc::clone(&self.output),
                budget: self.budget.clone(),
                grouped: self.encoding.gains_by_order() && self.output.any_order(),
                overlap: self.overlap,
                recent: self.recent,
            },
            batcher: Batcher::new(self.limits, Arc::clone(&learned)),
            batches: batches_in,
            dead_letters: Arc::clone(&self.dead_letters),
            reporter: reporter.clone(),
            disk: disk(Side::DeadLetters),
            metrics: self.metrics.clone(),
            budget: self.budget.clone(),
            name: Arc::clone(&self.name),
        };
        let budget = self.budget.clone();
        let deliverer = Deliverer {
            packer: Packer::new(Arc::clone(&self.output), self.encoding, budget, Arc::clone(&learned)),
            output: self.output,
            pace: self.pace,
            hold_interval: self.hold_interval,
            slots: Arc::new(Semaphore::new(self.in_flight)),
            unacknowledged: Arc::new(Semaphore::new(acks::MAX_UNACKNOWLEDGED)),
            refusals: Refusals::new(self.hold_after_refusals),
            learned,
            status: self.status,
            metrics: self.metrics.clone(),
            disk: disk(Side::DeadLetters),
            dead_letters: self.dead_letters,
            reporter,
            name: Arc::clone(&self.name),
            once: self.once,
            stop: stop.clone(),
            gave_up: CancellationToken::new(),
            said: Said::default(),
        };
        let committer = Committer {
            namespace: self.name,
            input: self.input,
            state: self.state,
            budget: self.budget,
            disk: disk(Side::State),
            metrics: self.metrics,
            clock: self.clock,
            tracker: Tracker::default(),
            counts: commit::Counts::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(reader.run());
        tasks.spawn(encoder.run(chunks));
        tasks.spawn(send(Arc::new(deliverer), batches));
        let mut committing = JoinSet::new();
        committing.spawn(committer.run(news));
        (tasks, committing)
    }
}

type Tasks = JoinSet<Result<(), PipelineError>>;

async fn join_all(tasks: &mut Tasks) -> Result<(), PipelineError> {
    let mut first_error = Ok(());
    while let Some(result) = tasks.join_next().await {
        match result? {
            Ok(()) => {}
            // What was read before the input gave up, or was stopped, is still delivered and committed.
            Err(error @ (PipelineError::Input { .. } | PipelineError::Stopped { .. })) => {
                first_error = Err(error);
            }
            Err(error) => return Err(error),
        }
    }
    first_error
}

/// Waits until one of the tasks fails.
async fn failure(tasks: &mut Tasks) -> PipelineError {
    while let Some(ended) = tasks.join_next().await {
        match ended.map_err(PipelineError::Task) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// Makes requests of batches and sends them, several at once.
async fn send(deliverer: Arc<Deliverer>, batches: mpsc::Receiver<Batch>) -> Result<(), PipelineError> {
    let mut deliveries = JoinSet::new();
    let mut result = Ok(());
    let packer = deliverer.packer.clone();
    // Packed before it has its place, and no more at once than there are cores: whatever waits, waits compressed.
    let packed = workers::stream_of(batches).map(|batch| packer.pack(batch)).buffered(cores());
    futures::pin_mut!(packed);
    // A request waits for its place here. To hold a place while waiting for a batch was rejected: a delivery that gave its
    // own up for an acknowledgement, and has more to send, could not go on before there is something new to send.
    let mut next = VecDeque::<Piece>::new();
    while result.is_ok() {
        tokio::select! {
            biased;
            Some(delivered) = deliveries.join_next() => result = delivered?,
            slot = Arc::clone(&deliverer.slots).acquire_owned(), if !next.is_empty() => {
                let (Some(piece), Ok(slot)) = (next.pop_front(), slot) else { break };
                let deliverer = Arc::clone(&deliverer);
                deliveries.spawn(async move { deliverer.deliver(piece, slot).await });
            }
            pieces = packed.next(), if next.is_empty() => match pieces {
                Some(Ok(pieces)) => next.extend(pieces),
                Some(Err(error)) => result = Err(error),
                None => break,
            },
        }
    }
    loop {
        if result.is_err() {
            // What is under way may well be taken: dropped, it would be sent again.
            deliverer.gave_up.cancel();
        }
        let Some(delivered) = deliveries.join_next().await else { return result };
        result = result.and(delivered?);
    }
}

/// Decodes, encodes and batches.
struct Encoder {
    codec: Codec,
    batcher: Batcher,
    batches: mpsc::Sender<Batch>,
    dead_letters: Arc<dyn DeadLetters>,
    reporter: Reporter,
    disk: Disk,
    metrics: PipelineMetrics,
    budget: Budget,
    name: Arc<str>,
}

impl Encoder {
    async fn run(mut self, chunks: mpsc::Receiver<(Sequence, Chunk)>) -> Result<(), PipelineError> {
        let codec = self.codec.clone();
        // In parallel over the cores, in order to the batcher.
        let encoded = workers::stream_of(chunks)
            .map(|(sequence, chunk)| {
                let codec = codec.clone();
                workers::on_a_core(move || codec.encode(sequence, chunk))
            })
            .buffered(cores());
        futures::pin_mut!(encoded);
        loop {
            let due = self.batcher.due();
            tokio::select! {
                biased;
                // First, or a stream of small chunks could keep it from ever coming about.
                () = sleep_until(due), if due.is_some() => {
                    if let Some(batch) = self.batcher.take() {
                        let _ended = self.batches.send(batch).await;
                    }
                }
                next = encoded.next() => match next {
                    Some(encoded) => self.batch(encoded?).await?,
                    None => break,
                },
            }
        }
        while let Some(batch) = self.batcher.take() {
            let _ended = self.batches.send(batch).await;
        }
        Ok(())
    }

    async fn batch(&mut self, encoded: Encoded) -> Result<(), PipelineError> {
        let Encoded { frames, encoded, dead, newest, redactions, overlaps } = encoded;
        self.metrics.redactions.inc_by(redactions.into());
        if overlaps > 0 && self.metrics.overlaps.get() == 0 {
            tracing::info!(
                pipeline = %self.name,
                "another input sends some of the same events to this output; from now on they are only counted"
            );
        }
        self.metrics.overlaps.inc_by(overlaps);
        let (sequence, dead_count) = (frames.sequence, dead.len());
        let events = frames.frames.len() + dead_count;
        self.reporter.tell(Progress::Counted { sequence, events, newest }).await;
        if dead_count > 0 {
            self.disk.keep(&*self.dead_letters, dead).await?;
            self.reporter.tell(Progress::Settled { sequence, events: dead_count, fate: Fate::Dead }).await;
        }
        // Not frozen: a buffer is not copied for being larger than what is in it, since it is soon free again.
        let encoded = self.budget.count(encoded);
        for batch in self.batcher.add(&Arc::new(frames), &encoded, Instant::now()) {
            let _ended = self.batches.send(batch).await;
        }
        Ok(())
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
