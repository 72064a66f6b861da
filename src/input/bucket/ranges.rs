//! Reads a large object of a distant store range by range, the next ones while one is used: a connection carries less
//! than a pipeline takes, and an answer takes its time.
//!
//! ```text
//!   used now    ├──────────┤
//!   in memory              ├──────────┼──────────┼──────────┤   where the memory allows
//!   asked for              ├──────────┤                         where it does not: the answer waits in its connection
//! ```
//!
//! What is in memory ahead is counted by the budget, and is at most a part of it: who uses a range needs some of the rest.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::object::ObjectError;
use crate::budget::{Budget, Credit};

/// Bytes of a range. What is under way at once is bounded by memory, so that many small ones carry more than few large
/// ones: with 4 MiB, a 200 MB object took 12 s over connections of 30 MB/s, and one request for all of it 7.5 s.
pub(super) const RANGE_BYTES: u64 = 1 << 20;
/// Ranges of an object in memory ahead.
const AHEAD: usize = 7;
/// So many ranges are asked for with one request where there is no memory to have them ahead.
const UNHELD: u64 = 8;
/// An object of fewer ranges is read with one request: mostly there are others to read beside it.
const LARGE: u64 = 16;
/// The part of the budget that may lie in memory ahead, of all objects: a quarter.
const PART_AHEAD: usize = 4;

/// The bytes of an object, or of a part of it, as they come.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, ObjectError>>;

/// What the readers of a bucket read ahead with.
#[derive(Clone, Debug)]
pub(super) struct ReadAhead {
    range_bytes: u64,
    budget: Budget,
    share: Arc<Semaphore>,
}

impl ReadAhead {
    pub(super) fn new(range_bytes: u64, budget: &Budget) -> Self {
        let share = Arc::new(Semaphore::new(budget.total() / PART_AHEAD));
        Self { range_bytes, budget: budget.clone(), share }
    }

    /// True for what is large.
    pub(super) fn is_worth_it(&self, span: &Range<u64>) -> bool {
        span.end.saturating_sub(span.start) > LARGE * self.range_bytes
    }

    /// Opens this part of a version of an object, up to its end.
    ///
    /// # Errors
    /// [`ObjectError`] if its first range cannot be opened, or its end is elsewhere: its size may be hearsay, and what
    /// lies beyond it would never be read.
    pub(super) async fn open(
        &self,
        store: Arc<dyn ObjectStore>,
        key: Path,
        etag: String,
        span: Range<u64>,
    ) -> Result<Pieces, ObjectError> {
        let source = Source { store, key, etag, bytes: span.end };
        let first = span.start..span.end.min(span.start + self.range_bytes);
        let used = source.pieces(first.clone()).await?;
        let ranges = Ranges {
            reads: self.clone(),
            source,
            used,
            left: first.end - first.start,
            held: None,
            next: first.end..span.end,
            ahead: VecDeque::new(),
        };
        Ok(stream::try_unfold(ranges, Ranges::next).boxed())
    }

    /// Room for a range in memory, if there is any just now. To wait for it could be to wait for oneself.
    fn room(&self, bytes: u64) -> Option<Held> {
        let bytes = usize::try_from(bytes).ok()?;
        let share = Arc::clone(&self.share).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()?;
        Some(Held { _credit: self.budget.try_take(bytes)?, _share: share })
    }
}

/// The memory a range takes, until it is used up.
#[derive(Debug)]
struct Held {
    _credit: Credit,
    _share: OwnedSemaphorePermit,
}

/// A range that comes, with the memory it takes if it is all there.
struct Coming {
    bytes: u64,
    /// One task, which ends with whoever waits for it.
    pieces: JoinSet<Result<(Pieces, Option<Held>), ObjectError>>,
}

#[derive(Clone)]
struct Source {
    store: Arc<dyn ObjectStore>,
    key: Path,
    etag: String,
    /// Of the whole object.
    bytes: u64,
}

impl Source {
    async fn pieces(&self, range: Range<u64>) -> Result<Pieces, ObjectError> {
        let options = GetOptions {
            if_match: Some(self.etag.clone()),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let got = self.store.get_opts(&self.key, options).await?;
        if got.meta.size != self.bytes {
            return Err(ObjectError::Moved);
        }
        let pieces = got.into_stream();
        Ok(pieces.map(|piece| piece.map_err(ObjectError::from)).boxed())
    }
}

struct Ranges {
    reads: ReadAhead,
    source: Source,
    used: Pieces,
    /// Bytes of the range that is used, which are to come.
    left: u64,
    held: Option<Held>,
    /// What was not asked for yet.
    next: Range<u64>,
    ahead: VecDeque<Coming>,
}

impl Ranges {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ObjectError> {
        loop {
            self.ask_ahead();
            if let Some(piece) = self.used.next().await {
                let piece = piece?;
                // A part that is too short or too long would be taken for another part's bytes.
                self.left = self.left.checked_sub(piece.len() as u64).ok_or(ObjectError::Moved)?;
                return Ok(Some((piece, self)));
            }
            if self.left > 0 {
                return Err(ObjectError::Moved);
            }
            let Some(Coming { bytes, mut pieces }) = self.ahead.pop_front() else { return Ok(None) };
            // Given back before the next is waited for.
            self.held = None;
            let Some(came) = pieces.join_next().await else { return Ok(None) };
            let (used, held) = came.map_err(std::io::Error::other)??;
            (self.used, self.held, self.left) = (used, held, bytes);
        }
    }

    /// Asks for the next ranges: for as many as there is memory for, and for one in any case.
    fn ask_ahead(&mut self) {
        while self.ahead.len() < AHEAD && !self.next.is_empty() {
            let begun = |bytes: u64| self.next.start..self.next.end.min(self.next.start + bytes);
            let mut range = begun(self.reads.range_bytes);
            let held = self.reads.room(range.end - range.start);
            if held.is_none() {
                if !self.ahead.is_empty() {
                    return;
                }
                range = begun(UNHELD * self.reads.range_bytes);
            }
            let bytes = range.end - range.start;
            self.next.start = range.end;
            let (source, pool) = (self.source.clone(), self.reads.budget.pool().clone());
            let mut pieces = JoinSet::new();
            pieces.spawn(async move {
                let mut pieces = source.pieces(range).await?;
                if held.is_none() {
                    return Ok((pieces, None));
                }
                // Into one buffer that is used again: the pieces may hold much larger ones of the connection's.
                let mut whole = pool.take(usize::try_from(bytes).unwrap_or_default());
                while let Some(piece) = pieces.next().await {
                    let piece = piece?;
                    if (whole.len() + piece.len()) as u64 > bytes {
                        return Err(ObjectError::Moved);
                    }
                    whole.extend_from_slice(&piece);
                }
                let whole = whole.freeze();
                Ok((stream::iter([Ok(whole)]).boxed(), held))
            });
            self.ahead.push_back(Coming { bytes, pieces });
        }
    }
}
