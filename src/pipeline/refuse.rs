//! What a collector refuses: held, halved down to the event to blame, or kept as a dead letter.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::PipelineError;
use super::deliver::{Deliverer, first};
use super::encode::refused_letter;
use super::piece::Piece;
use super::progress::Fate;
use super::told::{Told, Worth};
use crate::batch::Manifest;
use crate::dead_letter::DeadLetter;
use crate::output::{Alarm, HoldReason, Rejection};
use crate::status::{Phase, Side};

impl Deliverer {
    /// Keeps what a human must see to. It goes to the end of the line: if another event is taken, it was not the setting.
    pub(super) fn hold(
        &self,
        alarm: Alarm,
        piece: Piece,
        pieces: &mut VecDeque<Piece>,
    ) -> Result<(), PipelineError> {
        for reason in HoldReason::OF_OUTPUTS {
            self.metrics.hold(reason, reason == alarm.reason);
        }
        self.status.trouble(Side::Output, Phase::Holding, &alarm.message);
        if self.once {
            let pipeline = self.name.to_string();
            return Err(PipelineError::Collector { pipeline, message: alarm.message });
        }
        if self.said.is_worth(Told::Holding(alarm.reason)) == Worth::News {
            tracing::error!(pipeline = %self.name, "{}; waiting, nothing is lost", alarm.message);
        }
        pieces.push_back(piece);
        Ok(())
    }

    /// More events of a piece are refused than are believed to be bad: a hold. If others were taken since it was held, it is
    /// not the setting: its parts come to be believed, as single events would.
    pub(super) async fn doubt(
        &self,
        refused: usize,
        rejection: &Rejection,
        mut piece: Piece,
        pieces: &mut VecDeque<Piece>,
    ) -> Result<(), PipelineError> {
        let taken = self.refusals.taken();
        if let Some(before) = piece.doubted
            && before != taken
            && self.refusals.never_believes(refused)
        {
            let halves = self.packer.halves(piece).await?.into_iter();
            first(pieces, halves.map(|half| Piece { doubted: Some(before), ..half }).collect());
            return Ok(());
        }
        piece.doubted = Some(taken);
        self.hold(self.suspicion(refused, rejection), piece, pieces)
    }

    /// The alarm when one event after the other is refused.
    fn suspicion(&self, refused: usize, rejection: &Rejection) -> Alarm {
        self.pace.held(self.hold_interval);
        let message = self.refusals.message(refused, &rejection.reason);
        Alarm { reason: HoldReason::Misconfigured, message }
    }

    /// Halves a batch; a single event is dead-lettered.
    pub(super) async fn narrow(
        &self,
        piece: Piece,
        reason: &str,
        rejection: &Rejection,
        pieces: &mut VecDeque<Piece>,
    ) -> Result<(), PipelineError> {
        if piece.events.events() > 1 {
            first(pieces, self.packer.halves(piece).await?);
            return Ok(());
        }
        if !self.refusals.believed(1) {
            return self.hold(self.suspicion(1, rejection), piece, pieces);
        }
        self.works();
        self.dead_letter(&piece.events, reason, [rejection]).await
    }

    /// Keeps events, each with what was said of it: together, since each keeping waits for the disk.
    pub(super) async fn dead_letter<'r>(
        &self,
        events: &Manifest,
        reason: &str,
        rejections: impl IntoIterator<Item = &'r Rejection>,
    ) -> Result<(), PipelineError> {
        if events.is_empty() {
            return Ok(());
        }
        let letters = letters(events, reason, rejections).map_err(PipelineError::Compress)?;
        self.disk.keep(&*self.dead_letters, letters).await?;
        self.settle(events, Fate::Dead).await;
        Ok(())
    }
}

fn letters<'r>(
    events: &Manifest,
    reason: &str,
    rejections: impl IntoIterator<Item = &'r Rejection>,
) -> io::Result<Vec<DeadLetter>> {
    let mut letters = Vec::with_capacity(events.events());
    let mut rejections = rejections.into_iter();
    // Once for all of a chunk, in how many runs they are: its records may lie compressed.
    for of_chunk in events.parts().chunk_by(|one, next| Arc::ptr_eq(&one.frames, &next.frames)) {
        let Some(first) = of_chunk.first() else { continue };
        let (frames, records) = (&first.frames, first.frames.records.plain()?);
        let indices = of_chunk.iter().flat_map(|part| part.range.clone());
        for (index, rejection) in indices.zip(&mut rejections) {
            letters.push(refused_letter(frames, index, &records, reason, &rejection.reason)?);
        }
    }
    // Without a letter nothing may count as settled.
    if letters.len() < events.events() {
        Err(io::Error::other("a refused event has no reason"))
    } else {
        Ok(letters)
    }
}
