//! From a verdict to what the engine does.
//!
//! | verdict | events | next |
//! |---|---|---|
//! | accepted | settled | next batch; a second's pause, and fewer at once, if the collector asks to slow down |
//! | partial | accepted and duplicate settled, rejected dead-lettered | the rest again, after the back-off if it was looked at |
//! | pending ack | settled once acknowledged | its place in flight is free; after the output's ack time-out the same bytes again |
//! | retry | kept | the same bytes again, after the back-off, without end |
//! | too large | kept | halves; a single event is dead-lettered |
//! | too slow | kept | halves, after the back-off; a single event again |
//! | hold | kept | the same again now and then, loudly, until a human has acted; a stop does not wait for that |
//! | rejected | kept | halves, down to the event to blame, which is dead-lettered |
//!
//! Order of safety: a dead letter is on disk before its event is settled. Where one event after the other is refused and
//! none is taken, the refusal is a hold instead (see `refusals.rs`, and `refuse.rs` for what is done with it).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::PipelineError;
use super::batcher::LearnedSize;
use super::disk::Disk;
use super::pace::{Pace, Turn};
use super::piece::{Packer, Piece};
use super::progress::{Fate, Reporter};
use super::refusals::Refusals;
use super::told::{Said, Told, Worth};
use crate::batch::{Manifest, Request};
use crate::dead_letter::DeadLetters;
use crate::failpoint::{self, Step};
use crate::metrics::PipelineMetrics;
use crate::output::{HoldReason, Output, Rejection, Verdict};
use crate::status::{Phase, Side, Status};

/// How long `--once` waits for a collector that fails.
const ONCE_PATIENCE: Duration = Duration::from_secs(120);
/// Pause after a collector said that it nears its limits.
const SLOW_DOWN: Duration = Duration::from_secs(1);

/// Delivers requests to one output.
pub(crate) struct Deliverer {
    pub(crate) output: Arc<dyn Output>,
    pub(crate) packer: Packer,
    pub(crate) pace: Arc<Pace>,
    pub(crate) hold_interval: Duration,
    /// Places in flight: deliveries that are not waiting for an acknowledgement.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) unacknowledged: Arc<Semaphore>,
    pub(crate) refusals: Refusals,
    pub(crate) learned: Arc<LearnedSize>,
    pub(crate) status: Status,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) disk: Disk,
    pub(crate) reporter: Reporter,
    pub(crate) name: Arc<str>,
    pub(crate) once: bool,
    /// The pipeline is to end.
    pub(crate) stop: CancellationToken,
    /// One of the deliveries gave up: the others end what is under way and begin nothing new.
    pub(crate) gave_up: CancellationToken,
    /// What the log said last of the collector.
    pub(crate) said: Said,
}

impl Deliverer {
    /// Returns when every event of the piece is settled, or another delivery gave up. `slot` is its place in flight.
    pub(crate) async fn deliver(
        &self,
        piece: Piece,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), PipelineError> {
        let mut slot = Some(slot);
        // Depth first, so that the halves of a batch go out in their order.
        let mut pieces = VecDeque::from([piece]);
        while let Some(mut piece) = pieces.pop_front() {
            if !piece.sent && self.packer.surely_too_large(&piece.events) {
                first(&mut pieces, self.packer.halves(piece).await?);
                continue;
            }
            if slot.is_none() {
                slot = Arc::clone(&self.slots).acquire_owned().await.ok();
            }
            self.show_waiting();
            let turn = tokio::select! {
                biased;
                () = self.gave_up.cancelled() => return Ok(()),
                turn = self.pace.turn() => turn,
                () = self.is_in_vain() => return Err(PipelineError::held(&self.name)),
            };
            let sent_at = Instant::now();
            piece.sent = true;
            let verdict = self.output.send_in_lane(piece.events.lane(), &piece.request).await;
            failpoint::reached(Step::Answered);
            self.metrics.request_duration.observe(sent_at.elapsed().as_secs_f64());
            self.metrics.request(&verdict);
            // Whoever waits for the turn must find the pace set, and must not wait for what follows.
            self.set_pace(&verdict, piece.events.events(), &turn);
            self.metrics.requests_limit.set(i64::try_from(self.pace.limit()).unwrap_or(i64::MAX));
            drop(turn);
            self.act(verdict, piece, &mut pieces, &mut slot).await?;
        }
        Ok(())
    }

    /// Waits until it makes no sense to wait any longer: the pipeline is to end, and only a human can make the collector
    /// take something.
    async fn is_in_vain(&self) {
        self.stop.cancelled().await;
        self.pace.until_held().await;
    }

    /// A pipeline that waits for its turn shows why, also where another one to the same output found out.
    fn show_waiting(&self) {
        if let (true, Some(phase)) = (self.said.is_nothing(), self.pace.trouble()) {
            let why = "another pipeline to this output waits for the collector, and this one with it";
            self.status.trouble(Side::Output, phase, why);
        }
    }

    fn set_pace(&self, verdict: &Verdict, events: usize, turn: &Turn<'_>) {
        match verdict {
            Verdict::Accepted { slow_down: false }
            | Verdict::AcceptedWithRemark(_)
            | Verdict::PendingAck { slow_down: false, .. } => self.pace.accepted(turn),
            Verdict::Accepted { slow_down: true } | Verdict::PendingAck { slow_down: true, .. } => {
                self.pace.strained(turn);
            }
            Verdict::Rejected(_) => self.pace.succeeded(),
            Verdict::Partial { retry, rejected, after: None, ambiguous, .. }
                if stopped_at_refusal(retry, rejected, events, *ambiguous) =>
            {
                self.pace.succeeded();
            }
            Verdict::Partial { retry, after, .. } => {
                if retry.len() < events {
                    // Some were taken: the waits begin anew.
                    self.pace.succeeded();
                }
                if !retry.is_empty() {
                    self.pace.failed(turn, *after, self.patience());
                }
            }
            Verdict::Retry { after, .. } => self.pace.failed(turn, *after, self.patience()),
            Verdict::TooSlow { .. } => self.pace.failed(turn, None, self.patience()),
            Verdict::Hold(_) => self.pace.held(self.hold_interval),
            Verdict::TooLarge => {}
        }
    }

    /// How long a collector that fails is tried.
    fn patience(&self) -> Option<Duration> {
        self.once.then_some(ONCE_PATIENCE)
    }

    async fn act(
        &self,
        verdict: Verdict,
        piece: Piece,
        pieces: &mut VecDeque<Piece>,
        slot: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), PipelineError> {
        let verdict = match verdict {
            Verdict::Partial { retry, after, ambiguous, .. } if retry.len() == piece.events.events() => {
                let cause = "the collector puts every event off".to_owned();
                Verdict::Retry { cause, after, ambiguous }
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::Accepted { slow_down } => {
                self.accepted(&piece.request);
                self.settle(&piece.events, Fate::Delivered).await;
                if slow_down {
                    tokio::time::sleep(SLOW_DOWN).await;
                }
            }
            Verdict::AcceptedWithRemark(remark) => {
                self.accepted(&piece.request);
                if self.said.is_worth(Told::Remarked(remark.clone())) == Worth::News {
                    tracing::warn!(pipeline = %self.name, "the collector took the events and remarks: {remark}");
                }
                self.settle(&piece.events, Fate::Delivered).await;
            }
            Verdict::Partial { duplicate, retry, rejected, after: _, ambiguous } => {
                let taken = retry.len() + rejected.len() < piece.events.events();
                if let Some((_, rejection)) = rejected.first()
                    && !taken
                    && !self.refusals.believed(rejected.len())
                {
                    return self.doubt(rejected.len(), rejection, piece, pieces).await;
                }
                let refused = rejected.first().map_or(0, |(index, _)| *index);
                self.partial(&piece, &duplicate, &retry, rejected).await?;
                if retry.is_empty() {
                    return Ok(());
                }
                self.metrics.retries.inc();
                if ambiguous {
                    self.metrics.ambiguous_resends.inc_by(retry.len() as u64);
                }
                // What may be there goes by itself: with the rest it would come once more with each further refusal.
                let parts = retry.into_iter().partition(|index| ambiguous && *index < refused);
                first(pieces, self.packer.some(piece, parts).await?);
            }
            Verdict::PendingAck { ack, .. } => match self.acknowledged(ack, slot).await {
                Ok(()) => {
                    self.accepted(&piece.request);
                    self.settle(&piece.events, Fate::Delivered).await;
                }
                // Each request counts as a success until then, so that the patience would never end.
                Err(message) if self.once => {
                    return Err(PipelineError::Collector { pipeline: self.name.to_string(), message });
                }
                Err(cause) => {
                    self.failed(&cause, true, &piece.events)?;
                    pieces.push_front(piece);
                }
            },
            Verdict::Retry { cause, after: _, ambiguous } => {
                self.failed(&cause, ambiguous, &piece.events)?;
                pieces.push_front(piece);
            }
            Verdict::TooSlow { cause } => {
                self.failed(&cause, true, &piece.events)?;
                if piece.events.events() > 1 {
                    self.learned.refused(piece.events.bytes());
                    first(pieces, self.packer.halves(piece).await?);
                } else {
                    pieces.push_front(piece);
                }
            }
            Verdict::TooLarge => {
                self.learned.refused(piece.events.bytes());
                let reason = format!("the collector takes no body of {} bytes", piece.events.bytes());
                self.narrow(piece, "too_large", &Rejection { reason }, pieces).await?;
            }
            Verdict::Hold(alarm) => self.hold(alarm, piece, pieces)?,
            Verdict::Rejected(rejection) => self.narrow(piece, "rejected", &rejection, pieces).await?,
        }
        Ok(())
    }

    /// A request failed in a way that passes by itself.
    fn failed(&self, cause: &str, ambiguous: bool, events: &Manifest) -> Result<(), PipelineError> {
        self.metrics.retries.inc();
        if ambiguous {
            self.metrics.ambiguous_resends.inc_by(events.events() as u64);
        }
        self.status.trouble(Side::Output, Phase::Retrying, cause);
        let patience = if self.once { "for two minutes" } else { "until it works" };
        match self.said.is_worth(Told::Retrying) {
            Worth::News => {
                self.clear_holds();
                tracing::warn!(pipeline = %self.name, "{cause}; trying again {patience}, nothing is lost");
            }
            Worth::Reminder(after) => {
                let after = humantime::format_duration(Duration::from_secs(after.as_secs()));
                tracing::warn!(pipeline = %self.name, "still, after {after}: {cause}; trying again, nothing is lost");
            }
            Worth::Nothing => tracing::debug!(pipeline = %self.name, "{cause}"),
        }
        if self.once && self.pace.failing_for() >= ONCE_PATIENCE {
            let (pipeline, message) = (self.name.to_string(), cause.to_owned());
            return Err(PipelineError::Collector { pipeline, message });
        }
        Ok(())
    }

    fn accepted(&self, request: &Request) {
        self.works();
        self.refusals.end();
        self.learned.accepted();
        self.metrics.bytes_sent.inc_by(request.body.len() as u64);
        self.metrics.bytes_encoded.inc_by(request.uncompressed_bytes as u64);
    }

    /// The collector answers for events again.
    pub(super) fn works(&self) {
        if self.status.recovered(Side::Output) {
            self.said.forget();
            self.clear_holds();
            tracing::info!(pipeline = %self.name, "the collector takes events again");
        }
    }

    pub(super) fn clear_holds(&self) {
        for reason in HoldReason::OF_OUTPUTS {
            self.metrics.hold(reason, false);
        }
    }

    pub(super) async fn settle(&self, events: &Manifest, fate: Fate) {
        let count = events.events() as u64;
        match fate {
            Fate::Delivered => self.metrics.events_delivered.inc_by(count),
            Fate::Duplicate => self.metrics.events_duplicate.inc_by(count),
            Fate::Dead => {}
        }
        self.reporter.settle(events, fate).await;
    }

    /// Settles what an event-by-event answer settles.
    async fn partial(
        &self,
        piece: &Piece,
        duplicate: &[usize],
        retry: &[usize],
        mut rejected: Vec<(usize, Rejection)>,
    ) -> Result<(), PipelineError> {
        let duplicate: HashSet<usize> = duplicate.iter().copied().collect();
        let retry: HashSet<usize> = retry.iter().copied().collect();
        let refused: HashSet<usize> = rejected.iter().map(|(index, _)| *index).collect();
        let events = &piece.events;
        if retry.len() + rejected.len() < events.events() {
            self.accepted(&piece.request);
        } else {
            self.works();
        }
        let gone =
            |index: usize| duplicate.contains(&index) || retry.contains(&index) || refused.contains(&index);
        self.settle(&events.select(|index| duplicate.contains(&index)), Fate::Duplicate).await;
        self.settle(&events.select(|index| !gone(index)), Fate::Delivered).await;
        // Last: a disk that refuses dead letters must not keep what was delivered from being committed.
        rejected.sort_by_key(|(index, _)| *index);
        rejected.dedup_by_key(|(index, _)| *index);
        let rejections = rejected.iter().map(|(_, rejection)| rejection);
        self.dead_letter(&events.select(|index| refused.contains(&index)), "rejected", rejections).await
    }
}

/// Puts pieces before the others, in their order.
pub(super) fn first(pieces: &mut VecDeque<Piece>, these: Vec<Piece>) {
    for piece in these.into_iter().rev() {
        pieces.push_front(piece);
    }
}

/// True if a collector read up to an event it refused, and no further: that it looked at nothing behind it does not say
/// that it is busy. Where what comes before the event is not sure to be there, that is sent again, too.
fn stopped_at_refusal(
    retry: &[usize],
    rejected: &[(usize, Rejection)],
    events: usize,
    ambiguous: bool,
) -> bool {
    rejected.last().is_some_and(|(refused, _)| {
        let from = if ambiguous { 0 } else { refused + 1 };
        retry.iter().copied().eq((from..events).filter(|index| index != refused))
    })
}

#[cfg(test)]
mod tests;
