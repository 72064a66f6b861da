//! Encoded events on their way to a collector: frames, the batch they form, and the body of its request.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::compress::Encoding;

/// Number of a chunk in reading order, within one run of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// How a collector wants frames joined into a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Before the first frame.
    pub open: &'static [u8],
    /// After each frame.
    pub terminator: &'static [u8],
    /// After the last frame, in place of its terminator where `keep_last` is false.
    pub close: &'static [u8],
    /// Whether the last frame keeps its terminator.
    pub keep_last: bool,
}

impl Framing {
    /// Objects back to back (Splunk HEC).
    pub const CONCATENATED: Self = Self { open: b"", terminator: b"", close: b"", keep_last: true };
    /// One event a line, each line ended (Sumo, `_bulk`, files).
    pub const LINES: Self = Self { open: b"", terminator: b"\n", close: b"", keep_last: true };
    /// A JSON array.
    pub const ARRAY: Self = Self { open: b"[", terminator: b",", close: b"]", keep_last: false };
}

/// One encoded event: where it ends in its buffer and which record it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One past its last byte (terminator included) in the buffer; it begins where the one before ends.
    pub end: u32,
    /// First byte of its record in the chunk's payload.
    pub record_start: u32,
    /// One past the last byte of its record in the chunk's payload.
    pub record_end: u32,
    /// Lines between the chunk's first line and its record.
    pub line: u32,
    /// Which one of several equal records.
    pub occurrence: u32,
    /// The lane it travels in.
    pub lane: u32,
}

/// The frames of one chunk: in reading order, or by action where the output takes any order. Keeps the chunk, so that a refused frame's record can be told.
#[derive(Debug)]
pub struct Frames {
    /// The chunk's number.
    pub sequence: Sequence,
    /// The chunk.
    pub chunk: Arc<Chunk>,
    /// The encoded events, one after the other.
    pub buffer: Buffer,
    /// Where each ends.
    pub frames: Vec<Frame>,
}

impl Frames {
    /// Where a frame lies in the buffer.
    fn span(&self, index: usize) -> Range<usize> {
        let start = match index.checked_sub(1) {
            Some(before) => self.frames.get(before).map_or(0, |frame| frame.end as usize),
            None => 0,
        };
        start..self.frames.get(index).map_or(start, |frame| frame.end as usize)
    }

    /// Bytes of a run of frames, terminators included.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        if range.is_empty() {
            return &[];
        }
        let span = self.span(range.start).start..self.span(range.end - 1).end;
        self.buffer.get(span).unwrap_or_default()
    }
}

/// A run of one chunk's frames within a batch.
#[derive(Clone)]
pub struct Part {
    /// The chunk's frames.
    pub frames: Arc<Frames>,
    /// Which of them.
    pub range: Range<usize>,
}

impl fmt::Debug for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Part({:?}, {:?})", self.frames.sequence, self.range)
    }
}

/// Frames that go out in one request. The same batch always gives the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    parts: Vec<Part>,
    events: usize,
    bytes: usize,
}

impl Batch {
    /// Adds a run of frames at the end.
    pub fn push(&mut self, part: Part) {
        self.events += part.range.len();
        self.bytes += part.frames.bytes(&part.range).len();
        self.parts.push(part);
    }

    /// The runs, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Number of events.
    pub fn events(&self) -> usize {
        self.events
    }

    /// The lane its events travel in.
    pub fn lane(&self) -> u32 {
        let first = self.each().next();
        first.and_then(|(frames, index)| frames.frames.get(index)).map_or(0, |frame| frame.lane)
    }

    /// Uncompressed bytes, terminators included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True without events.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// The batch of those events whose index passes, in order.
    pub fn select(&self, mut wanted: impl FnMut(usize) -> bool) -> Self {
        let mut selected = Self::default();
        let mut index = 0;
        for part in &self.parts {
            let mut run: Option<Range<usize>> = None;
            for at in part.range.clone() {
                if wanted(index) {
                    run = Some(run.map_or(at..at + 1, |run| run.start..at + 1));
                } else if let Some(range) = run.take() {
                    selected.push(Part { frames: Arc::clone(&part.frames), range });
                }
                index += 1;
            }
            if let Some(range) = run {
                selected.push(Part { frames: Arc::clone(&part.frames), range });
            }
        }
        selected
    }

    /// Two batches of about half the events each.
    pub fn halves(&self) -> (Self, Self) {
        let middle = self.events / 2;
        (self.select(|index| index < middle), self.select(|index| index >= middle))
    }

    /// The frames one by one: `(chunk's frames, index in them)`.
    pub fn each(&self) -> impl Iterator<Item = (&Arc<Frames>, usize)> {
        self.parts.iter().flat_map(|part| part.range.clone().map(move |index| (&part.frames, index)))
    }

    /// The uncompressed body behind an envelope's beginning, as the slices it consists of.
    pub fn body<'a>(&'a self, envelope: &'a [u8], framing: Framing) -> Vec<&'a [u8]> {
        let mut slices = vec![envelope, framing.open];
        for part in &self.parts {
            slices.push(part.frames.bytes(&part.range));
        }
        if !framing.keep_last
            && !self.is_empty()
            && let Some(last) = slices.last_mut()
        {
            *last = last.get(..last.len().saturating_sub(framing.terminator.len())).unwrap_or_default();
        }
        slices.push(framing.close);
        slices
    }
}

/// One request as it goes out: the engine has framed and compressed it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The compressed body.
    pub body: Bytes,
    /// How it is compressed.
    pub encoding: Encoding,
    /// Events in it.
    pub events: usize,
    /// Bytes before compression.
    pub uncompressed_bytes: usize,
}

impl Request {
    /// A request without events, by which a collector is asked whether it would take some.
    pub fn question(body: &'static [u8]) -> Self {
        let uncompressed_bytes = body.len();
        Self { body: Bytes::from_static(body), encoding: Encoding::None, events: 0, uncompressed_bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    fn frames(sequence: u64, texts: &[&str]) -> Arc<Frames> {
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        for text in texts {
            buffer.extend_from_slice(text.as_bytes());
            buffer.push(b',');
            let end = u32::try_from(buffer.len()).unwrap();
            frames.push(Frame { end, record_start: 0, record_end: 0, line: 0, occurrence: 0, lane: 0 });
        }
        Arc::new(Frames {
            sequence: Sequence(sequence),
            chunk: Arc::new(Chunk::default()),
            buffer: buffer.into(),
            frames,
        })
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.push(Part { frames: frames(1, &["a", "bb", "ccc"]), range: 1..3 });
        batch.push(Part { frames: frames(2, &["d", "e"]), range: 0..2 });
        batch
    }

    fn text(batch: &Batch) -> String {
        String::from_utf8(batch.body(b"", Framing::ARRAY).concat()).unwrap()
    }

    #[test]
    fn a_body_is_its_frames_between_open_and_close() {
        assert_eq!(text(&batch()), "[bb,ccc,d,e]");
        assert_eq!(text(&Batch::default()), "[]");
        assert_eq!((batch().events(), batch().bytes()), (4, 11));
        assert_eq!(batch().body(b"{\"x\":", Framing::ARRAY).concat(), b"{\"x\":[bb,ccc,d,e]");
    }

    #[test]
    fn halves_are_in_order_and_complete() {
        let (first, second) = batch().halves();
        assert_eq!((text(&first).as_str(), text(&second).as_str()), ("[bb,ccc]", "[d,e]"));
    }

    proptest! {
        /// Selecting keeps the wanted events, in their order, and counts them.
        #[test]
        fn a_selection_is_what_was_wanted(wanted in prop::collection::vec(any::<bool>(), 4)) {
            let selected = batch().select(|index| wanted[index]);
            let expected: Vec<_> = ["bb", "ccc", "d", "e"].into_iter().zip(&wanted).filter(|(_, keep)| **keep).map(|(frame, _)| frame).collect();
            prop_assert_eq!(selected.events(), expected.len());
            prop_assert_eq!(text(&selected), format!("[{}]", expected.join(",")));
        }
    }
}
