//! Forms batches: as large as the limits allow, never older than they allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::batch::{Batch, Frames, Part};

/// How large a batch may be and how long it may wait.
#[derive(Clone, Debug)]
pub struct BatchLimits {
    /// Uncompressed bytes.
    pub max_bytes: usize,
    /// Events.
    pub max_events: usize,
    /// Time since its first event.
    pub max_age: Duration,
}

/// The bytes a collector was found to take: falls when it refuses a body as too large, recovers slowly.
#[derive(Debug)]
pub(crate) struct LearnedSize {
    configured: usize,
    bytes: AtomicUsize,
}

impl LearnedSize {
    pub(crate) fn new(configured: usize) -> Self {
        Self { configured, bytes: AtomicUsize::new(configured) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A body of this many bytes was too large.
    pub(crate) fn refused(&self, bytes: usize) {
        self.bytes.fetch_min((bytes / 2).max(1), Ordering::Relaxed);
    }

    /// A body was accepted: allows 0.1 % more, so that a limit that was lifted is found again within hours.
    pub(crate) fn accepted(&self) {
        let bytes = self.bytes();
        if bytes < self.configured {
            self.bytes.store((bytes + bytes / 1000 + 1).min(self.configured), Ordering::Relaxed);
        }
    }
}

/// Collects frames into batches. Pure but for the clock it is told.
#[derive(Debug)]
pub(crate) struct Batcher {
    limits: BatchLimits,
    learned: Arc<LearnedSize>,
    current: Batch,
    opened: Option<Instant>,
}

impl Batcher {
    pub(crate) fn new(limits: BatchLimits, learned: Arc<LearnedSize>) -> Self {
        Self { limits, learned, current: Batch::default(), opened: None }
    }

    /// Adds a chunk's frames; gives the batches that became full.
    pub(crate) fn add(&mut self, frames: &Arc<Frames>, now: Instant) -> Vec<Batch> {
        let max_bytes = self.limits.max_bytes.min(self.learned.bytes());
        let mut full = Vec::new();
        let mut run = 0..0;
        let mut run_bytes = 0;
        for index in 0..frames.frames.len() {
            let bytes = frames.bytes(&(index..index + 1)).len();
            let events = self.current.events() + run.len();
            // A frame larger than a batch may be goes alone: whether it is too large is for the collector to say.
            if events > 0
                && (events >= self.limits.max_events || self.current.bytes() + run_bytes + bytes > max_bytes)
            {
                self.close_run(frames, &mut run);
                run_bytes = 0;
                full.extend(self.take());
            }
            if self.opened.is_none() {
                self.opened = Some(now);
            }
            run.end = index + 1;
            run_bytes += bytes;
        }
        self.close_run(frames, &mut run);
        if self.current.events() >= self.limits.max_events || self.current.bytes() >= max_bytes {
            full.extend(self.take());
        }
        full
    }

    fn close_run(&mut self, frames: &Arc<Frames>, run: &mut std::ops::Range<usize>) {
        if run.start < run.end {
            self.current.push(Part { frames: Arc::clone(frames), range: run.clone() });
        }
        *run = run.end..run.end;
    }

    /// When the open batch must go, full or not.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.limits.max_age)
    }

    /// Closes the open batch.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        self.opened = None;
        let batch = std::mem::take(&mut self.current);
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::batch::{Frame, Framing, Sequence};
    use crate::chunk::Chunk;

    fn frames(sizes: &[usize]) -> Arc<Frames> {
        let (mut buffer, mut ends) = (Vec::new(), Vec::new());
        for (index, size) in sizes.iter().enumerate() {
            buffer.extend(std::iter::repeat_n(b'a' + u8::try_from(index % 26).unwrap(), *size));
            let end = u32::try_from(buffer.len()).unwrap();
            ends.push(Frame { end, record_start: 0, record_end: 0, line: 0, occurrence: 0 });
        }
        Arc::new(Frames {
            sequence: Sequence(0),
            chunk: Arc::new(Chunk::default()),
            buffer: buffer.into(),
            frames: ends,
        })
    }

    fn batcher(max_bytes: usize, max_events: usize) -> Batcher {
        let limits = BatchLimits { max_bytes, max_events, max_age: Duration::from_secs(1) };
        Batcher::new(limits, Arc::new(LearnedSize::new(max_bytes)))
    }

    proptest! {
        /// Batches hold all frames in order; none is larger than allowed unless it is a single frame; none but the last
        /// could have taken the next frame.
        #[test]
        fn batches_are_full_and_lose_nothing(
            chunks in prop::collection::vec(prop::collection::vec(1usize..40, 0..12), 0..8),
            max_bytes in 1usize..100, max_events in 1usize..10,
        ) {
            let mut batcher = batcher(max_bytes, max_events);
            let now = Instant::now();
            let mut batches = Vec::new();
            let mut expected = Vec::new();
            for sizes in &chunks {
                let frames = frames(sizes);
                expected.extend_from_slice(&frames.buffer);
                batches.extend(batcher.add(&frames, now));
            }
            batches.extend(batcher.take());
            let body: Vec<u8> = batches.iter().flat_map(|batch| batch.body(Framing::CONCATENATED).concat()).collect();
            prop_assert!(body == expected);
            let sizes: Vec<usize> = chunks.concat();
            let mut at = 0;
            for batch in &batches {
                prop_assert!(batch.events() <= max_events);
                prop_assert!(batch.bytes() <= max_bytes || batch.events() == 1);
                at += batch.events();
                if let Some(next) = sizes.get(at) {
                    let full = batch.events() == max_events || batch.bytes() + next > max_bytes;
                    prop_assert!(full, "a batch was closed early");
                }
            }
            prop_assert_eq!(at, sizes.len());
        }
    }

    #[test]
    fn a_batch_is_due_by_the_age_of_its_first_event() {
        let mut batcher = batcher(1000, 1000);
        let start = Instant::now();
        assert_eq!(batcher.due(), None);
        batcher.add(&frames(&[1]), start);
        batcher.add(&frames(&[1]), start + Duration::from_millis(900));
        assert_eq!(batcher.due(), Some(start + Duration::from_secs(1)));
        assert_eq!(batcher.take().map(|batch| batch.events()), Some(2));
        assert_eq!(batcher.due(), None);
    }

    #[test]
    fn a_refused_size_is_halved_and_recovers_slowly() {
        let learned = LearnedSize::new(1000);
        learned.refused(900);
        assert_eq!(learned.bytes(), 450);
        learned.accepted();
        assert_eq!(learned.bytes(), 451);
        (0..10_000).for_each(|_| learned.accepted());
        assert_eq!(learned.bytes(), 1000);
    }
}
