//! What goes out in one request: framed and compressed once, off the network threads. Of its events only that is kept
//! which a dead letter needs, compressed where much waits; their bytes, five times as many as the body's, go back to the
//! pool.
//!
//! Where an answer asks for fewer events at once, they are recalled from the body: that is all there is to know of them,
//! and the same events give the same bytes. To encode the chunk anew was rejected: that takes ten times as long, and needs
//! a redactor, format and clock that are still the same.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::PipelineError;
use super::batcher::LearnedSize;
use super::workers::on_a_core;
use crate::batch::{Batch, Manifest, Request};
use crate::budget::Budget;
use crate::compress::Encoding;
use crate::output::Output;

/// Events and their request: a retry sends the same bytes.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) events: Manifest,
    pub(crate) request: Request,
    /// The collector may have seen it.
    pub(crate) sent: bool,
    /// How often an event had been taken when all of these were refused and that was not believed.
    pub(crate) doubted: Option<usize>,
}

/// Makes requests of batches.
#[derive(Clone)]
pub(crate) struct Packer {
    output: Arc<dyn Output>,
    encoding: Encoding,
    budget: Budget,
    learned: Arc<LearnedSize>,
    /// Bodies that are taken apart at once. All of them uncompressed would be several times the memory of what is in
    /// flight.
    recalls: Arc<Semaphore>,
}

impl Packer {
    pub(crate) fn new(
        output: Arc<dyn Output>,
        encoding: Encoding,
        budget: Budget,
        learned: Arc<LearnedSize>,
    ) -> Self {
        Self { output, encoding, budget, learned, recalls: Arc::new(Semaphore::new(1)) }
    }

    /// The requests of a batch, in order: mostly one.
    pub(crate) async fn pack(&self, batch: Batch) -> Result<Vec<Piece>, PipelineError> {
        let packer = self.clone();
        self.off_the_network(move || packer.pieces([batch.grouped()])).await
    }

    /// Two requests of about half the events each.
    pub(crate) async fn halves(&self, piece: Piece) -> Result<Vec<Piece>, PipelineError> {
        self.again(piece, |packer, batch| {
            let (first, second) = batch.halves();
            packer.pieces([first, second])
        })
        .await
    }

    /// Requests of the events with these indexes, and of those with these others.
    pub(crate) async fn some(
        &self,
        piece: Piece,
        (first, second): (HashSet<usize>, HashSet<usize>),
    ) -> Result<Vec<Piece>, PipelineError> {
        self.again(piece, move |packer, batch| {
            let parts = [first, second].into_iter().filter(|part| !part.is_empty());
            packer.pieces(parts.map(|part| batch.select(|index| part.contains(&index))))
        })
        .await
    }

    /// Recalls a piece's events, to make other requests of them.
    async fn again(
        &self,
        piece: Piece,
        make: impl FnOnce(&Self, Batch) -> io::Result<Vec<Piece>> + Send + 'static,
    ) -> Result<Vec<Piece>, PipelineError> {
        let _turn = self.recalls.acquire().await;
        let packer = self.clone();
        self.off_the_network(move || {
            let Piece { events, request, .. } = piece;
            let body = request.encoding.decompress(&request.body, request.uncompressed_bytes)?;
            drop(request);
            let batch = events.recall(body, packer.output.framing());
            make(&packer, batch.ok_or_else(|| io::Error::other("a body is shorter than its events"))?)
        })
        .await
    }

    async fn off_the_network(
        &self,
        work: impl FnOnce() -> io::Result<Vec<Piece>> + Send + 'static,
    ) -> Result<Vec<Piece>, PipelineError> {
        on_a_core(work).await.map_err(io::Error::other).flatten().map_err(PipelineError::Compress)
    }

    /// The requests of batches, in their order. What the collector is known to take no more is halved.
    fn pieces(&self, batches: impl IntoIterator<Item = Batch>) -> io::Result<Vec<Piece>> {
        let mut batches: VecDeque<Batch> = batches.into_iter().collect();
        let mut pieces = Vec::with_capacity(batches.len());
        while let Some(batch) = batches.pop_front() {
            if self.surely_too_large(batch.manifest()) {
                let (first, second) = batch.halves();
                batches.push_front(second);
                batches.push_front(first);
                continue;
            }
            pieces.push(self.piece(batch)?);
        }
        Ok(pieces)
    }

    fn piece(&self, batch: Batch) -> io::Result<Piece> {
        let (encoding, events) = (self.encoding, batch.events());
        let envelope = self.output.envelope(batch.manifest().lane(), batch.bytes());
        let slices = batch.body(&envelope, self.output.framing());
        let uncompressed_bytes = slices.iter().map(|slice| slice.len()).sum();
        let body = self.budget.count(encoding.compress(&slices, self.budget.pool())?);
        for part in batch.manifest().parts() {
            part.frames.records.make_room()?;
        }
        let request = Request { body, encoding, events, uncompressed_bytes };
        Ok(Piece { events: batch.into_manifest(), request, sent: false, doubted: None })
    }

    /// True for a batch that was formed before the collector was found to take less. Halves are seldom equal: what is a
    /// little larger than the size that was learned is tried.
    pub(crate) fn surely_too_large(&self, events: &Manifest) -> bool {
        events.events() > 1 && events.bytes() > self.learned.bytes().saturating_mul(3) / 2
    }
}
