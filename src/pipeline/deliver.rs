//! From a verdict to what the engine does.
//!
//! | verdict | events | next |
//! |---|---|---|
//! | accepted | settled | next batch; a second's pause if the collector asks to slow down |
//! | partial | accepted and duplicate settled, rejected dead-lettered | the rest again, after the back-off if it was looked at |
//! | pending ack | settled once acknowledged | asked for up to 5 minutes, then sent again |
//! | retry | kept | the same bytes again, after the back-off, without end |
//! | too large | kept | halves; a single event is dead-lettered |
//! | hold | kept | the same again now and then, loudly, until a human has acted |
//! | rejected | kept | halves, down to the event to blame, which is dead-lettered |
//!
//! Order of safety: a dead letter is on disk before its event is settled.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batcher::LearnedSize;
use super::encode::refused_letter;
use super::pace::Pace;
use super::progress::{Fate, Reporter};
use super::{PipelineError, keep_letters};
use crate::backoff::HOLD_INTERVAL;
use crate::batch::{Batch, Request};
use crate::buffer::Pool;
use crate::compress::Encoding;
use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::metrics::PipelineMetrics;
use crate::output::{AckId, HoldReason, Output, Rejection, Verdict};
use crate::status::{Phase, Side, Status};

/// How long a collector may take to acknowledge: Splunk keeps its last partial batch for two minutes.
const ACK_PATIENCE: Duration = Duration::from_secs(300);
/// First and longest wait between two questions for an acknowledgement.
const ACK_POLLS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long `--once` waits for a collector that fails.
const ONCE_PATIENCE: Duration = Duration::from_secs(120);
/// Pause after a collector said that it nears its limits.
const SLOW_DOWN: Duration = Duration::from_secs(1);

/// Delivers batches to one output.
pub(crate) struct Deliverer {
    pub(crate) output: Arc<dyn Output>,
    pub(crate) encoding: Encoding,
    pub(crate) pace: Pace,
    pub(crate) learned: Arc<LearnedSize>,
    pub(crate) pool: Pool,
    pub(crate) status: Status,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) reporter: Reporter,
    pub(crate) name: Arc<str>,
    pub(crate) once: bool,
    /// One of the deliveries gave up (`--once`): the others end what is under way and begin nothing new.
    pub(crate) gave_up: CancellationToken,
}

/// A batch, and its request once it is made: a retry sends the same bytes.
struct Piece {
    batch: Batch,
    request: Option<Request>,
}

impl Piece {
    fn new(batch: Batch) -> Self {
        Self { batch, request: None }
    }
}

impl Deliverer {
    /// Returns when every event of the batch is settled, or another delivery gave up.
    pub(crate) async fn deliver(&self, batch: Batch) -> Result<(), PipelineError> {
        // Depth first, so that the halves of a batch go out in their order.
        let mut pieces = vec![Piece::new(batch)];
        while let Some(piece) = pieces.pop() {
            if piece.request.is_none() && self.surely_too_large(&piece.batch) {
                halve(&piece.batch, &mut pieces);
                continue;
            }
            let request = match piece.request {
                Some(request) => request,
                None => self.request(&piece.batch).await?,
            };
            let turn = tokio::select! {
                biased;
                () = self.gave_up.cancelled() => return Ok(()),
                turn = self.pace.turn() => turn,
            };
            let sent_at = Instant::now();
            let mut verdict = self.output.send(&request).await;
            self.metrics.request_duration.observe(sent_at.elapsed().as_secs_f64());
            self.metrics.request(&verdict);
            // Whoever waits for the turn must find the pace set, and must not wait for what follows.
            self.set_pace(&verdict, piece.batch.events());
            drop(turn);
            if let Verdict::PendingAck(ack) = verdict {
                verdict = self.acknowledged(ack).await;
                self.set_pace(&verdict, piece.batch.events());
                if let (true, Verdict::Retry { cause, .. }) = (self.once, &verdict) {
                    // Each request counts as a success until then, so that the patience below never ends.
                    let (pipeline, message) = (self.name.to_string(), cause.clone());
                    return Err(PipelineError::Collector { pipeline, message });
                }
            }
            self.act(verdict, Piece { batch: piece.batch, request: Some(request) }, &mut pieces).await?;
        }
        Ok(())
    }

    /// True for a batch that was formed before the collector was found to take less. Halves are seldom equal: what is a
    /// little larger than the size that was learned is tried.
    fn surely_too_large(&self, batch: &Batch) -> bool {
        batch.events() > 1 && batch.bytes() > self.learned.bytes().saturating_mul(3) / 2
    }

    fn set_pace(&self, verdict: &Verdict, events: usize) {
        match verdict {
            Verdict::Accepted { .. } | Verdict::PendingAck(_) | Verdict::Rejected(_) => self.pace.succeeded(),
            Verdict::Partial { retry, rejected, after: None, .. }
                if stopped_at_refusal(retry, rejected, events) =>
            {
                self.pace.succeeded();
            }
            Verdict::Partial { retry, after, .. } => {
                if retry.len() < events {
                    // Some were taken: the waits begin anew.
                    self.pace.succeeded();
                }
                if !retry.is_empty() {
                    self.pace.failed(*after);
                }
            }
            Verdict::Retry { after, .. } => self.pace.failed(*after),
            Verdict::Hold(_) => self.pace.held(),
            Verdict::TooLarge => {}
        }
    }

    /// Frames and compresses a batch, off the network threads.
    async fn request(&self, batch: &Batch) -> Result<Request, PipelineError> {
        let (encoding, framing, batch) = (self.encoding, self.output.framing(), batch.clone());
        let pool = self.pool.clone();
        let compressed = tokio::task::spawn_blocking(move || {
            let slices = batch.body(framing);
            let uncompressed_bytes = slices.iter().map(|slice| slice.len()).sum();
            let body = encoding.compress(&slices, &pool)?;
            Ok::<_, std::io::Error>(Request { body, encoding, events: batch.events(), uncompressed_bytes })
        });
        compressed.await.map_err(std::io::Error::other).flatten().map_err(PipelineError::Compress)
    }

    async fn act(
        &self,
        verdict: Verdict,
        piece: Piece,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), PipelineError> {
        match verdict {
            Verdict::Accepted { slow_down } => {
                self.accepted(piece.request.as_ref());
                self.settle(&piece.batch, Fate::Delivered).await;
                if slow_down {
                    tokio::time::sleep(SLOW_DOWN).await;
                }
            }
            Verdict::Partial { duplicate, retry, rejected, after: _ } => {
                let again = self.partial(&piece, &duplicate, &retry, rejected).await;
                if !again.is_empty() {
                    self.metrics.retries.inc();
                    pieces.push(Piece::new(again));
                }
            }
            Verdict::PendingAck(_) => pieces.push(piece),
            Verdict::Retry { cause, after: _, ambiguous } => {
                self.metrics.retries.inc();
                if ambiguous {
                    self.metrics.ambiguous_resends.inc_by(piece.batch.events() as u64);
                }
                if self.status.trouble(Side::Output, Phase::Retrying, &cause) {
                    self.clear_holds();
                    let patience = if self.once { "for two minutes" } else { "until it works" };
                    tracing::warn!(pipeline = %self.name, "{cause}; trying again {patience}, nothing is lost");
                }
                if self.once && self.pace.failing_for() > ONCE_PATIENCE {
                    return Err(PipelineError::Collector { pipeline: self.name.to_string(), message: cause });
                }
                pieces.push(piece);
            }
            Verdict::TooLarge => {
                self.learned.refused(piece.batch.bytes());
                let reason = format!("the collector takes no body of {} bytes", piece.batch.bytes());
                self.narrow(piece.batch, "too_large", &Rejection { reason }, pieces).await;
            }
            Verdict::Hold(alarm) => {
                for reason in HoldReason::OF_OUTPUTS {
                    self.metrics.hold(reason, reason == alarm.reason);
                }
                if self.once {
                    let pipeline = self.name.to_string();
                    return Err(PipelineError::Collector { pipeline, message: alarm.message });
                }
                if self.status.trouble(Side::Output, Phase::Holding, &alarm.message) {
                    tracing::error!(pipeline = %self.name, "{}; waiting, nothing is lost", alarm.message);
                }
                pieces.push(piece);
            }
            Verdict::Rejected(rejection) => {
                self.works();
                self.narrow(piece.batch, "rejected", &rejection, pieces).await;
            }
        }
        Ok(())
    }

    fn accepted(&self, request: Option<&Request>) {
        self.works();
        self.learned.accepted();
        if let Some(request) = request {
            self.metrics.bytes_sent.inc_by(request.body.len() as u64);
            self.metrics.bytes_encoded.inc_by(request.uncompressed_bytes as u64);
        }
    }

    /// The collector answers for events again.
    fn works(&self) {
        if self.status.recovered(Side::Output) {
            self.clear_holds();
            tracing::info!(pipeline = %self.name, "the collector takes events again");
        }
    }

    fn clear_holds(&self) {
        for reason in HoldReason::OF_OUTPUTS {
            self.metrics.hold(reason, false);
        }
    }

    async fn settle(&self, batch: &Batch, fate: Fate) {
        let events = batch.events() as u64;
        match fate {
            Fate::Delivered => self.metrics.events_delivered.inc_by(events),
            Fate::Duplicate => self.metrics.events_duplicate.inc_by(events),
            Fate::Dead => {}
        }
        self.reporter.settle(batch, fate).await;
    }

    /// Settles what an event-by-event answer settles; gives back what must go again.
    async fn partial(
        &self,
        piece: &Piece,
        duplicate: &[usize],
        retry: &[usize],
        rejected: Vec<(usize, Rejection)>,
    ) -> Batch {
        let duplicate: HashSet<usize> = duplicate.iter().copied().collect();
        let retry: HashSet<usize> = retry.iter().copied().collect();
        let refused: HashSet<usize> = rejected.iter().map(|(index, _)| *index).collect();
        let batch = &piece.batch;
        if retry.len() < batch.events() {
            self.accepted(piece.request.as_ref());
        } else if self.status.trouble(Side::Output, Phase::Retrying, "the collector puts every event off") {
            tracing::warn!(pipeline = %self.name, "the collector puts every event off; trying again, nothing is lost");
        }
        for (index, rejection) in rejected {
            let one = batch.select(|at| at == index);
            self.dead_letter(&one, "rejected", &rejection).await;
        }
        let gone =
            |index: usize| duplicate.contains(&index) || retry.contains(&index) || refused.contains(&index);
        self.settle(&batch.select(|index| duplicate.contains(&index)), Fate::Duplicate).await;
        self.settle(&batch.select(|index| !gone(index)), Fate::Delivered).await;
        batch.select(|index| retry.contains(&index))
    }

    /// Halves a batch; a single event is dead-lettered.
    async fn narrow(&self, batch: Batch, reason: &str, rejection: &Rejection, pieces: &mut Vec<Piece>) {
        if batch.events() > 1 {
            halve(&batch, pieces);
            return;
        }
        self.dead_letter(&batch, reason, rejection).await;
    }

    async fn dead_letter(&self, batch: &Batch, reason: &str, rejection: &Rejection) {
        let letters: Vec<DeadLetter> = batch
            .each()
            .filter_map(|(frames, index)| refused_letter(frames, index, reason, &rejection.reason))
            .collect();
        keep_letters(&*self.dead_letters, letters, &self.status, &self.metrics, &self.name).await;
        self.settle(batch, Fate::Dead).await;
    }

    /// Waits until the collector keeps its promise; gives up after [`ACK_PATIENCE`].
    async fn acknowledged(&self, ack: AckId) -> Verdict {
        let asked_until = Instant::now() + ACK_PATIENCE;
        let (mut wait, longest) = ACK_POLLS;
        while Instant::now() < asked_until {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
            if self.output.acknowledged(std::slice::from_ref(&ack)).await.contains(&ack) {
                return Verdict::Accepted { slow_down: false };
            }
        }
        let cause = format!("no acknowledgement within {} s", ACK_PATIENCE.as_secs());
        Verdict::Retry { cause, after: None, ambiguous: true }
    }
}

/// Puts two batches in place of one, the first on top.
fn halve(batch: &Batch, pieces: &mut Vec<Piece>) {
    let (first, second) = batch.halves();
    pieces.push(Piece::new(second));
    pieces.push(Piece::new(first));
}

/// True if a collector read up to an event it refused, and no further: that it looked at nothing behind it does not say
/// that it is busy.
fn stopped_at_refusal(retry: &[usize], rejected: &[(usize, Rejection)], events: usize) -> bool {
    rejected.last().is_some_and(|(index, _)| retry.iter().copied().eq(index + 1..events))
}

/// How long to wait before a local disk is tried again.
pub(super) const LOCAL_RETRY: Duration = HOLD_INTERVAL;

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::mpsc;

    use super::*;
    use crate::batch::{Frame, Frames, Framing, Part, Sequence};
    use crate::chunk::Chunk;
    use crate::dead_letter::DeadLetterError;
    use crate::metrics::Metrics;

    /// Takes everything and never acknowledges.
    struct Silent;

    #[async_trait]
    impl Output for Silent {
        fn framing(&self) -> Framing {
            Framing::LINES
        }

        async fn send(&self, _request: &Request) -> Verdict {
            Verdict::PendingAck(AckId { channel: "c".to_owned(), number: 1 })
        }
    }

    struct NoLetters;

    #[async_trait]
    impl DeadLetters for NoLetters {
        async fn keep(&self, _letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_run_gives_up_at_a_collector_that_never_acknowledges() {
        let (news, _told) = mpsc::channel(16);
        let deliverer = Deliverer {
            output: Arc::new(Silent),
            encoding: Encoding::None,
            pace: Pace::new(1, HOLD_INTERVAL),
            learned: Arc::new(LearnedSize::new(1000)),
            pool: Pool::default(),
            status: Status::default(),
            metrics: Metrics::new().unwrap().pipeline("in", "out"),
            dead_letters: Arc::new(NoLetters),
            reporter: Reporter(news),
            name: "in/out".into(),
            once: true,
            gave_up: CancellationToken::new(),
        };
        let frame = Frame { end: 2, record_start: 0, record_end: 1, line: 0, occurrence: 0 };
        let frames = Frames {
            sequence: Sequence(1),
            chunk: Arc::new(Chunk::default()),
            buffer: b"x\n".to_vec().into(),
            frames: vec![frame],
        };
        let mut batch = Batch::default();
        batch.push(Part { frames: Arc::new(frames), range: 0..1 });
        let ended = tokio::time::timeout(2 * ACK_PATIENCE, deliverer.deliver(batch)).await;
        assert!(matches!(ended, Ok(Err(PipelineError::Collector { .. }))), "{ended:?}");
    }
}
