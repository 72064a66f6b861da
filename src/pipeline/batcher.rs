//! Forms batches: as large as the limits allow, never older than they allow.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::batch::{Batch, Frames, Framing};

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

impl BatchLimits {
    /// Bodies are to be no larger than batches may be: where a collector takes so many bytes exactly, one more is refused. A
    /// single event is sent however large.
    pub(crate) fn make_room_for(&mut self, envelope_bytes: usize, framing: Framing) {
        self.max_bytes = self.max_bytes.saturating_sub(envelope_bytes + framing.around()).max(1);
    }
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

/// Collects frames into batches, one a lane. Pure but for the clock it is told.
#[derive(Debug)]
pub(crate) struct Batcher {
    limits: BatchLimits,
    learned: Arc<LearnedSize>,
    open: BTreeMap<u32, Open>,
}

/// A batch that waits for more.
#[derive(Debug)]
struct Open {
    batch: Batch,
    since: Instant,
}

impl Batcher {
    pub(crate) fn new(limits: BatchLimits, learned: Arc<LearnedSize>) -> Self {
        Self { limits, learned, open: BTreeMap::new() }
    }

    /// Adds a chunk's frames, with their bytes; gives the batches that became full.
    pub(crate) fn add(&mut self, frames: &Arc<Frames>, encoded: &Bytes, now: Instant) -> Vec<Batch> {
        let mut full = Vec::new();
        let mut rest = frames.frames.as_slice();
        let mut start = 0;
        // Most of the time all of a chunk travels in one lane.
        while let Some(first) = rest.first() {
            let length = rest.iter().take_while(|frame| frame.lane == first.lane).count();
            self.add_run(first.lane, (frames, encoded), start..start + length, now, &mut full);
            start += length;
            rest = rest.get(length..).unwrap_or_default();
        }
        full
    }

    /// Adds frames of one lane.
    fn add_run(
        &mut self,
        lane: u32,
        (frames, encoded): (&Arc<Frames>, &Bytes),
        range: Range<usize>,
        now: Instant,
        full: &mut Vec<Batch>,
    ) {
        let max_bytes = self.limits.max_bytes.min(self.learned.bytes());
        let new = || Open { batch: Batch::default(), since: now };
        let mut open = self.open.remove(&lane).unwrap_or_else(new);
        let mut run = range.start..range.start;
        let mut run_bytes = 0;
        for index in range {
            let bytes = frames.span(&(index..index + 1)).len();
            let events = open.batch.events() + run.len();
            // A frame larger than a batch may be goes alone: whether it is too large is for the collector to say.
            if events > 0
                && (events >= self.limits.max_events || open.batch.bytes() + run_bytes + bytes > max_bytes)
            {
                open.close_run(frames, encoded, &mut run);
                run_bytes = 0;
                full.push(std::mem::replace(&mut open, new()).batch);
            }
            run.end = index + 1;
            run_bytes += bytes;
        }
        open.close_run(frames, encoded, &mut run);
        if open.batch.events() >= self.limits.max_events || open.batch.bytes() >= max_bytes {
            full.push(open.batch);
        } else {
            self.open.insert(lane, open);
        }
    }

    /// When the oldest of the open batches must go, full or not.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.open.values().map(|open| open.since).min().map(|since| since + self.limits.max_age)
    }

    /// Closes the oldest of the open batches.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let (lane, _) = self.open.iter().min_by_key(|(_, open)| open.since)?;
        let lane = *lane;
        self.open.remove(&lane).map(|open| open.batch)
    }
}

impl Open {
    fn close_run(&mut self, frames: &Arc<Frames>, encoded: &Bytes, run: &mut Range<usize>) {
        if run.start < run.end {
            self.batch.push(frames, encoded, run.clone());
        }
        *run = run.end..run.end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::batch::{Frame, Manifest, Sequence};
    use crate::kept::KeptRecords;

    fn frames(sizes: &[usize]) -> (Arc<Frames>, Bytes) {
        let (mut buffer, mut ends) = (Vec::new(), Vec::new());
        for (index, size) in sizes.iter().enumerate() {
            buffer.extend(std::iter::repeat_n(b'a' + u8::try_from(index % 26).unwrap(), *size));
            let end = u32::try_from(buffer.len()).unwrap();
            ends.push(Frame { end, ..Frame::default() });
        }
        let records = KeptRecords::default();
        (Arc::new(Frames { sequence: Sequence(0), records, frames: ends }), buffer.into())
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
                let (frames, encoded) = frames(sizes);
                expected.extend_from_slice(&encoded);
                batches.extend(batcher.add(&frames, &encoded, now));
            }
            batches.extend(batcher.take());
            let body: Vec<u8> = batches.iter().flat_map(|batch| batch.body(b"", Framing::CONCATENATED).concat()).collect();
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
    fn a_full_body_is_as_large_as_a_batch_may_be_and_no_larger() {
        let envelope = b"{\"logs\":";
        let framings = [
            Framing::CONCATENATED,
            Framing::LINES,
            Framing::ARRAY,
            Framing { open: b"[", terminator: b",", close: b"]}", keep_last: false },
        ];
        for framing in framings {
            let mut limits =
                BatchLimits { max_bytes: 100, max_events: 1000, max_age: Duration::from_secs(1) };
            limits.make_room_for(envelope.len(), framing);
            let mut batcher = Batcher::new(limits.clone(), Arc::new(LearnedSize::new(limits.max_bytes)));
            let (frames, encoded) = frames(&[1; 200]);
            let full = batcher.add(&frames, &encoded, Instant::now());
            let body = full[0].body(envelope, framing).concat();
            assert_eq!(body.len(), 100, "{framing:?}");
        }
        let mut tiny = BatchLimits { max_bytes: 1, max_events: 1, max_age: Duration::from_secs(1) };
        tiny.make_room_for(100, Framing::ARRAY);
        assert_eq!(tiny.max_bytes, 1);
    }

    #[test]
    fn a_batch_is_due_by_the_age_of_its_first_event() {
        let mut batcher = batcher(1000, 1000);
        let start = Instant::now();
        assert_eq!(batcher.due(), None);
        let (frames, encoded) = frames(&[1]);
        batcher.add(&frames, &encoded, start);
        batcher.add(&frames, &encoded, start + Duration::from_millis(900));
        assert_eq!(batcher.due(), Some(start + Duration::from_secs(1)));
        assert_eq!(batcher.take().map(|batch| batch.events()), Some(2));
        assert_eq!(batcher.due(), None);
    }

    proptest! {
        /// A batch holds events of one lane, in their order, and no lane loses any.
        #[test]
        fn lanes_travel_apart_and_in_order(lanes in prop::collection::vec(0u32..3, 0..40)) {
            let mut batcher = batcher(5, 100);
            let (chunk, encoded) = frames(&vec![1; lanes.len()]);
            let mut chunk = Arc::into_inner(chunk).unwrap();
            chunk.frames.iter_mut().zip(&lanes).for_each(|(frame, lane)| frame.lane = *lane);
            let chunk = Arc::new(chunk);
            let mut batches = batcher.add(&chunk, &encoded, Instant::now());
            while let Some(batch) = batcher.take() {
                batches.push(batch);
            }
            for lane in 0..3 {
                let indexes = batches.iter().map(Batch::manifest).filter(|batch| batch.lane() == lane).flat_map(Manifest::each);
                let indexes: Vec<usize> = indexes.map(|(_, index)| index).collect();
                let expected: Vec<usize> = (0..lanes.len()).filter(|index| lanes[*index] == lane).collect();
                prop_assert_eq!(indexes, expected);
            }
            prop_assert!(batches.iter().all(|batch| batch.bytes() <= 5));
        }
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
