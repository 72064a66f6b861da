//! What is kept of a chunk while its events are under way: its records, for the dead letter of one that is refused.
//!
//! They lie there as they were read while there is room for that. Where many wait, since a collector is far away or slow,
//! those that are made a request of are compressed: a ninth of audit lines is left, at 1 GB per CPU-second. So a fast
//! collector costs no compression, and a slow one no memory. Rejected: the record read again from its object, which may
//! be another one by then; the record told from its event, which is not byte for byte what was delivered; compressing
//! always, a tenth of all CPU time.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::budget::{Budget, Credit};
use crate::chunk::{Chunk, Origin};
use crate::compress::Encoding;

/// Share of the budget that records take as they were read before further ones are compressed.
const PLAIN_SHARE: usize = 4;
/// The same while records are compressed, until none is any more: then the collector is far away or slow, and what is taken
/// by records cannot be taken by requests. Where it begins so low, what goes to a near one is compressed too.
const FAR_SHARE: usize = 16;
/// Share of its credit that a chunk keeps at least, compressed, until it is committed. It bounds how much is read and not
/// committed, and so what is sent again after a crash, to so many times the budget.
const LEAST_SHARE: usize = 4;

/// The records of a chunk and where they come from.
#[derive(Debug, Default)]
pub struct KeptRecords {
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// Offset of the first byte in the object.
    pub offset: u64,
    /// Number of the first line in the object, from 0.
    pub line: u64,
    payload: Mutex<Payload>,
    credit: Credit,
    budget: Option<Budget>,
}

#[derive(Debug)]
enum Payload {
    Plain(Bytes),
    Compressed { bytes: Bytes, length: usize },
}

impl Default for Payload {
    fn default() -> Self {
        Self::Plain(Bytes::new())
    }
}

impl KeptRecords {
    /// The records of a chunk that is encoded.
    pub fn of(chunk: Chunk, budget: &Budget) -> Self {
        budget.keep_plain(chunk.payload.len());
        Self {
            origin: chunk.origin,
            offset: chunk.offset,
            line: chunk.line,
            payload: Mutex::new(Payload::Plain(chunk.payload)),
            credit: chunk.credit,
            budget: Some(budget.clone()),
        }
    }

    /// Compresses them if much lies uncompressed. Takes a while: not for the threads of the network.
    ///
    /// # Errors
    /// Only what the compressor reports when it cannot set itself up.
    pub fn make_room(&self) -> io::Result<()> {
        let Some(budget) = &self.budget else { return Ok(()) };
        let share = if budget.compressed() > 0 { FAR_SHARE } else { PLAIN_SHARE };
        if budget.plain() <= budget.total() / share {
            return Ok(());
        }
        let mut payload = self.payload();
        if let Payload::Plain(plain) = &*payload {
            let length = plain.len();
            let bytes = Encoding::Zstd.compress(&[plain], budget.pool())?;
            self.credit.shrink_to(bytes.len().max(length / LEAST_SHARE));
            *payload = Payload::Compressed { bytes, length };
            budget.release_plain(length);
            budget.keep_compressed();
        }
        Ok(())
    }

    /// They as they were read.
    ///
    /// # Errors
    /// They cannot be decompressed.
    pub fn plain(&self) -> io::Result<Bytes> {
        match &*self.payload() {
            Payload::Plain(plain) => Ok(plain.clone()),
            Payload::Compressed { bytes, length } => Ok(Encoding::Zstd.decompress(bytes, *length)?.into()),
        }
    }

    fn payload(&self) -> MutexGuard<'_, Payload> {
        self.payload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeptRecords {
    fn drop(&mut self) {
        let Some(budget) = &self.budget else { return };
        match &*self.payload() {
            Payload::Plain(plain) => budget.release_plain(plain.len()),
            Payload::Compressed { .. } => budget.release_compressed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn records(budget: &Budget, payload: &'static [u8]) -> KeptRecords {
        let credit = budget.take(payload.len()).await;
        KeptRecords::of(Chunk { payload: payload.into(), credit, ..Chunk::default() }, budget)
    }

    #[tokio::test]
    async fn records_are_compressed_only_where_many_wait_and_come_back_byte_for_byte() {
        let budget = Budget::new(40_000);
        let text: &'static [u8] = "0123456789".repeat(600).leak().as_bytes();
        let first = records(&budget, text).await;
        first.make_room().unwrap();
        assert_eq!(budget.plain(), 6_000, "there is room");
        let second = records(&budget, text).await;
        assert_eq!((budget.used(), budget.plain()), (12_000, 12_000));
        second.make_room().unwrap();
        assert_eq!((budget.used(), budget.plain()), (7_500, 6_000), "a quarter stays until it is committed");
        first.make_room().unwrap();
        assert_eq!(budget.plain(), 0, "where it has begun, more is compressed");
        for kept in [&first, &second] {
            assert_eq!(kept.plain().unwrap(), text);
        }
        drop((first, second));
        assert_eq!((budget.used(), budget.plain()), (0, 0));
        let alone = records(&budget, text).await;
        alone.make_room().unwrap();
        assert_eq!(budget.plain(), 6_000, "where it has ended, there is room again");
    }

    #[tokio::test]
    async fn what_does_not_shrink_keeps_counting_as_much_as_it_takes() {
        let budget = Budget::new(1000);
        let noise: Vec<u8> = (0..500).map(|_| fastrand::u8(..)).collect();
        let kept = records(&budget, noise.leak()).await;
        kept.make_room().unwrap();
        assert_eq!((budget.used(), budget.plain()), (500, 0));
    }
}
