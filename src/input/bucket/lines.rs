//! Cuts a stream of bytes into lines, whatever the pieces it comes in.
//!
//! The text of a chunk is collected in one buffer and cut behind its last line end; what follows is carried into the
//! next. A line longer than the cap is not collected: its beginning is kept, the rest counted and dropped.

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr};

use crate::buffer::{Buffer, Pool};

/// Bytes of an over-long line that are kept for its dead letter.
pub(super) const KEPT_OF_LONG_LINE: usize = 64 << 10;

/// Most lines of a cut. Each is an event that takes some hundred bytes at least, so that a chunk of lines of two or three
/// bytes would take hundreds of its size.
pub(super) const MOST_LINES: usize = 4096;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line within the text of a [`Cut`], without its end and never blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) start: u32,
    pub(super) end: u32,
    /// Line ends before it in the text.
    pub(super) number: u32,
}

/// A line over the cap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LongLine {
    pub(super) head: Bytes,
    pub(super) bytes: u64,
    pub(super) offset: u64,
    pub(super) line: u64,
}

/// Whole lines, cut off the stream.
#[derive(Debug)]
pub(super) struct Cut {
    /// Offset of the text in the stream.
    pub(super) offset: u64,
    /// Number of its first line.
    pub(super) line: u64,
    pub(super) text: Bytes,
    pub(super) lines: Vec<Line>,
}

/// The cutter of one stream.
#[derive(Debug)]
pub(super) struct LineCutter {
    buffer: Buffer,
    pool: Pool,
    /// Bytes that are mostly collected until a cut.
    capacity: usize,
    /// Offset in the stream of the buffer's first byte.
    offset: u64,
    /// Number of the buffer's first line.
    line: u64,
    max_line_bytes: usize,
    /// Most lines of a cut.
    most_lines: usize,
    /// The over-long line that is being dropped.
    dropping: Option<LongLine>,
    long: Vec<LongLine>,
}

impl LineCutter {
    /// Cuts a stream from this offset and line on. Its buffers are the pool's, and of this capacity.
    pub(super) fn new(offset: u64, line: u64, max_line_bytes: usize, pool: &Pool, capacity: usize) -> Self {
        Self {
            buffer: Buffer::default(),
            pool: pool.clone(),
            capacity,
            offset,
            line,
            max_line_bytes,
            most_lines: MOST_LINES,
            dropping: None,
            long: Vec::new(),
        }
    }

    #[cfg(test)]
    fn with_most_lines(self, most_lines: usize) -> Self {
        Self { most_lines, ..self }
    }

    /// Bytes collected and not yet cut off.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// What is collected and not yet cut off.
    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// The same, for somebody else to cut.
    pub(super) fn take_buffer(&mut self) -> Buffer {
        std::mem::take(&mut self.buffer)
    }

    /// Takes in the next piece of the stream.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        if let Some(long) = &mut self.dropping {
            let Some(end) = memchr(b'\n', piece) else {
                long.bytes += piece.len() as u64;
                self.offset += piece.len() as u64;
                return;
            };
            long.bytes += end as u64;
            self.offset += end as u64 + 1;
            self.line += 1;
            self.long.extend(self.dropping.take());
            piece = piece.get(end + 1..).unwrap_or_default();
        }
        if self.buffer.capacity() < self.capacity {
            // Only now: while a chunk waits to be handed on, the beginning of the next takes no more than its bytes.
            let beginning = std::mem::replace(&mut self.buffer, self.pool.take(self.capacity));
            self.buffer.extend_from_slice(&beginning);
        }
        self.buffer.extend_from_slice(piece);
    }

    /// True if there may be more lines than a cut takes, the last one counted though it has no end yet:
    /// [`finish`](Self::finish) cuts once, and what it left would be lost.
    pub(super) fn is_crowded(&self) -> bool {
        let bytes = self.buffer.len();
        bytes > self.most_lines
            && memchr_iter(b'\n', &self.buffer).nth(self.most_lines - 1).is_some_and(|end| end + 1 < bytes)
    }

    /// Cuts off whole lines, if there are any: all, or as many as a cut takes. Call it when enough is buffered.
    pub(super) fn cut(&mut self) -> Option<Cut> {
        let Some(last) = memrchr(b'\n', &self.buffer) else {
            if self.buffer.len() > self.max_line_bytes {
                self.start_dropping();
            }
            return None;
        };
        Some(self.cut_at(last + 1))
    }

    fn cut_at(&mut self, end: usize) -> Cut {
        let (offset, line) = (self.offset, self.line);
        let text = self.buffer.get(..end).unwrap_or_default();
        let mut lines = Vec::with_capacity((text.len() / 512 + 1).min(self.most_lines));
        let mut long = Vec::new();
        let mut start =
            if offset == 0 && text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let mut number = 0;
        for end in memchr_iter(b'\n', text).chain((text.last() != Some(&b'\n')).then_some(text.len())) {
            let content = text.get(start..end).unwrap_or_default().trim_ascii();
            if content.len() > self.max_line_bytes {
                long.push((start..end, content.len() as u64, number));
            } else if !content.is_empty() {
                let lead = (end - start) - text.get(start..end).unwrap_or_default().trim_ascii_start().len();
                let first = narrow(start + lead);
                lines.push(Line { start: first, end: first + narrow(content.len()), number });
            }
            start = end + 1;
            number += 1;
            if lines.len() == self.most_lines {
                break;
            }
        }
        let text = self.take(start.min(end));
        self.offset += text.len() as u64;
        self.line += u64::from(number);
        self.long.extend(long.into_iter().map(|(span, bytes, number)| LongLine {
            head: text.slice(span.start..span.start + KEPT_OF_LONG_LINE.min(span.len())),
            bytes,
            offset: offset + span.start as u64,
            line: line + u64::from(number),
        }));
        Cut { offset, line, text, lines }
    }

    /// Takes the first bytes of the buffer; the rest, part of a line, is the beginning of the next.
    fn take(&mut self, end: usize) -> Bytes {
        let rest = self.buffer.get(end..).unwrap_or_default().to_vec();
        let mut taken = std::mem::replace(&mut self.buffer, rest.into());
        taken.truncate(end);
        taken.freeze()
    }

    fn start_dropping(&mut self) {
        let line = &self.buffer;
        let head = Bytes::copy_from_slice(line.get(..KEPT_OF_LONG_LINE).unwrap_or(line));
        self.dropping =
            Some(LongLine { head, bytes: line.len() as u64, offset: self.offset, line: self.line });
        self.offset += line.len() as u64;
        self.buffer = Buffer::default();
    }

    /// The last line, which has no end; blank ones are none.
    pub(super) fn unterminated(&self) -> Option<&[u8]> {
        let start = memrchr(b'\n', &self.buffer).map_or(0, |end| end + 1);
        let rest = self.buffer.get(start..).unwrap_or_default();
        let rest = match self.offset {
            0 if start == 0 => rest.strip_prefix(BYTE_ORDER_MARK).unwrap_or(rest),
            _ => rest,
        };
        let rest = rest.trim_ascii();
        (!rest.is_empty() || self.dropping.is_some()).then_some(rest)
    }

    /// At the end of the stream: takes what is left as a line, where it is not [crowded](Self::is_crowded).
    pub(super) fn finish(&mut self) -> Option<Cut> {
        if let Some(long) = self.dropping.take() {
            self.long.push(long);
            self.line += 1;
        }
        if self.buffer.is_empty() {
            return None;
        }
        let cut = self.cut_at(self.buffer.len());
        Some(cut)
    }

    /// The over-long lines met since the last call.
    pub(super) fn take_long(&mut self) -> Vec<LongLine> {
        std::mem::take(&mut self.long)
    }

    /// Where the stream stands behind the last whole line: (offset, line).
    pub(super) fn position(&self) -> (u64, u64) {
        self.dropping.as_ref().map_or((self.offset, self.line), |long| (long.offset, long.line))
    }
}

/// A length within a chunk.
pub(super) fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
