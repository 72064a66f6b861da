//! Cuts `{"records":[…]}` documents into their records, whatever the pieces they come in and however they are printed.
//!
//! Azure wrote its blobs so until 2018, in some clouds longer, and rewrote the end of the document with each record: what
//! lies behind the last record is not part of any position.
//!
//! ```text
//!   {"records": [ {…}, {…} ]}        depth 0: between documents    1: in a document    2: in its array    3…: in a record
//! ```
//!
//! What is no such document is cut as well, so that nothing is passed over: any other object is a record as a whole, and
//! other text is one up to its line's end.

use bytes::{Bytes, BytesMut};
use memchr::memchr_iter;

use super::lines::{Cut, KEPT_OF_LONG_LINE, Line, LongLine, MOST_LINES, narrow};

/// Bytes that tell a document of records from lines, blanks between them included.
pub(super) const TELLING_BYTES: usize = 64;

/// Most bytes between two records that are kept to be part of no position.
const BLANK_BYTES: usize = 64 << 10;

/// True if a text is a document of records by its beginning.
pub(super) fn begins_document(text: &[u8]) -> bool {
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for token in ["{", "\"records\"", ":", "["] {
        match rest.trim_ascii_start().strip_prefix(token.as_bytes()) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// The cutter of one stream.
#[derive(Debug)]
pub(super) struct RecordCutter {
    buffer: BytesMut,
    /// Offset in the stream of the buffer's first byte.
    offset: u64,
    /// Number of the buffer's first line.
    line: u64,
    max_record_bytes: usize,
    /// Most records of a cut.
    most_records: usize,
    /// Bytes of the buffer that were looked at.
    seen: usize,
    depth: u32,
    string: Option<Text>,
    /// The last text at depth 1 is `records`.
    named: bool,
    /// Depth 2 is the array of records.
    array: bool,
    /// Where in the buffer the object at depth 0 began, until a record of its array is met.
    document: Option<usize>,
    /// Where in the buffer the record that is under way began.
    record: Option<usize>,
    /// Text outside of any document is under way.
    stray: bool,
    /// Whole records of the buffer.
    whole: Vec<(usize, usize)>,
    /// The over-long record that is being dropped.
    dropping: Option<LongLine>,
    long: Vec<LongLine>,
}

/// A text within the document.
#[derive(Debug)]
struct Text {
    start: usize,
    escaped: bool,
}

impl RecordCutter {
    /// Cuts a stream from this offset and line on: from its beginning, or from behind one of its records.
    pub(super) fn new(offset: u64, line: u64, max_record_bytes: usize) -> Self {
        let within = offset > 0;
        Self {
            buffer: BytesMut::new(),
            offset,
            line,
            max_record_bytes,
            most_records: MOST_LINES,
            seen: 0,
            depth: if within { 2 } else { 0 },
            string: None,
            named: false,
            array: within,
            document: None,
            record: None,
            stray: false,
            whole: Vec::new(),
            dropping: None,
            long: Vec::new(),
        }
    }

    #[cfg(test)]
    fn with_most_records(self, most_records: usize) -> Self {
        Self { most_records, ..self }
    }

    /// Bytes collected and not yet cut off.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes in the next piece of the stream.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
        while let Some(&byte) = self.buffer.get(self.seen) {
            let at = self.seen;
            self.seen += 1;
            self.look(at, byte);
        }
        let began = self.record.or(self.document).unwrap_or(self.seen);
        if self.dropping.is_some() || self.seen - began > self.max_record_bytes {
            self.drop_record(began);
        }
    }

    fn look(&mut self, at: usize, byte: u8) {
        if let Some(text) = &mut self.string {
            match byte {
                _ if text.escaped => text.escaped = false,
                b'\\' => text.escaped = true,
                b'"' => {
                    let content = self.buffer.get(text.start + 1..at);
                    self.named = self.depth == 1 && content == Some(b"records");
                    self.string = None;
                }
                _ => {}
            }
            return;
        }
        if self.stray && byte != b'\n' {
            return;
        }
        match byte {
            b'\n' if self.stray => self.ends(at),
            b'"' if self.depth > 0 => self.string = Some(Text { start: at, escaped: false }),
            b'{' | b'[' => {
                match (self.depth, byte) {
                    (0, b'{') => self.document = Some(at),
                    (1, b'[') if self.named && self.dropping.is_none() => self.array = true,
                    (2, b'{') if self.array => {
                        self.document = None;
                        self.record = Some(at);
                    }
                    _ => {}
                }
                self.depth += 1;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                match self.depth {
                    2 if self.array && self.record.is_some() => self.ends(at + 1),
                    1 => {
                        self.array = false;
                        let document = self.document.and_then(|start| self.buffer.get(start..at));
                        if document.is_some_and(|text| text.trim_ascii_end().ends_with(b"[")) {
                            // No record yet.
                            self.document = None;
                        }
                    }
                    0 => {
                        // An object without such an array.
                        self.record = self.record.or(self.document.take());
                        self.ends(at + 1);
                    }
                    _ => {}
                }
            }
            b',' | b':' => {}
            _ if byte.is_ascii_whitespace() || self.depth > 0 || self.is_mark(at, byte) => {}
            _ => {
                self.stray = true;
                self.record = Some(at);
            }
        }
    }

    /// True for the bytes of a byte order mark, where alone one may stand.
    fn is_mark(&self, at: usize, byte: u8) -> bool {
        let place = usize::try_from(self.offset).ok().and_then(|offset| offset.checked_add(at));
        place.and_then(|place| b"\xef\xbb\xbf".get(place)) == Some(&byte)
    }

    /// The record under way ends before `end`.
    fn ends(&mut self, end: usize) {
        self.stray = false;
        let Some(start) = self.record.take() else { return };
        match self.dropping.take() {
            None if end - start <= self.max_record_bytes => self.whole.push((start, end)),
            None => self.long.push(LongLine {
                head: Bytes::copy_from_slice(
                    self.buffer.get(start..start + KEPT_OF_LONG_LINE.min(end - start)).unwrap_or_default(),
                ),
                bytes: (end - start) as u64,
                offset: self.offset + start as u64,
                line: self.line + self.lines_before(start),
            }),
            // What came before has been dropped from the buffer.
            Some(mut long) => {
                long.bytes += end as u64;
                self.long.push(long);
                self.advance(end);
            }
        }
    }

    fn lines_before(&self, end: usize) -> u64 {
        memchr_iter(b'\n', self.buffer.get(..end).unwrap_or_default()).count() as u64
    }

    /// Drops the record under way from the buffer, and with it what was cut off before.
    fn drop_record(&mut self, began: usize) {
        if self.whole.iter().any(|(start, _)| *start < began) && self.dropping.is_none() {
            // Those before it are to be cut off first.
            return;
        }
        match &mut self.dropping {
            Some(long) => long.bytes += self.seen as u64,
            None => {
                let record = self.buffer.get(began..self.seen).unwrap_or_default();
                self.dropping = Some(LongLine {
                    head: Bytes::copy_from_slice(record.get(..KEPT_OF_LONG_LINE).unwrap_or(record)),
                    bytes: record.len() as u64,
                    offset: self.offset + began as u64,
                    line: self.line + self.lines_before(began),
                });
            }
        }
        let seen = self.seen;
        self.advance(seen);
        self.record = Some(0);
    }

    /// Takes so many bytes off the buffer's beginning.
    fn advance(&mut self, bytes: usize) -> Bytes {
        let lines = self.lines_before(bytes);
        let text = self.buffer.split_to(bytes).freeze();
        self.offset += bytes as u64;
        self.line += lines;
        self.seen -= bytes;
        self.document = self.document.and_then(|at| at.checked_sub(bytes));
        self.record = self.record.and_then(|at| at.checked_sub(bytes));
        if let Some(text) = &mut self.string {
            text.start = text.start.saturating_sub(bytes);
        }
        text
    }

    /// True if there are more records than a cut takes, the last one counted though it has no end yet:
    /// [`finish`](Self::finish) cuts once, and what it left would be lost.
    pub(super) fn is_crowded(&self) -> bool {
        self.whole.len() + usize::from(self.unterminated().is_some()) > self.most_records
    }

    /// Cuts off whole records, or what is none, if there are any: all, or as many as a cut takes. Call it when enough is
    /// buffered.
    pub(super) fn cut(&mut self) -> Option<Cut> {
        if let Some(&(_, end)) = self.whole.get(self.most_records - 1) {
            return Some(self.cut_at(end));
        }
        match (self.whole.last(), self.record.or(self.document)) {
            (Some(&(_, end)), _) => Some(self.cut_at(end)),
            // Blanks without end.
            (None, None) if self.seen > BLANK_BYTES => Some(self.cut_at(self.seen)),
            (None, _) => None,
        }
    }

    fn cut_at(&mut self, end: usize) -> Cut {
        let (offset, line) = (self.offset, self.line);
        let later = self.whole.split_off(self.whole.partition_point(|(_, record_end)| *record_end <= end));
        let whole = std::mem::take(&mut self.whole);
        let mut text = self.advance(end);
        if !later.is_empty() {
            // What is cut off shares its memory with what stays, and must not hold all of it.
            text = Bytes::copy_from_slice(&text);
        }
        self.whole.extend(later.into_iter().map(|(start, record_end)| (start - end, record_end - end)));
        let mut lines = Vec::with_capacity(whole.len());
        let (mut number, mut counted) = (0, 0);
        for (start, end) in whole {
            number += memchr_iter(b'\n', text.get(counted..start).unwrap_or_default()).count();
            counted = start;
            lines.push(Line { start: narrow(start), end: narrow(end), number: narrow(number) });
        }
        Cut { offset, line, text, lines }
    }

    /// The last record, which has no end.
    pub(super) fn unterminated(&self) -> Option<&[u8]> {
        match (&self.dropping, self.record.or(self.document)) {
            (Some(_), _) => Some(&[]),
            (None, start) => self.buffer.get(start?..),
        }
    }

    /// At the end of the stream: takes what is left of a record as one, where it is not [crowded](Self::is_crowded).
    pub(super) fn finish(&mut self) -> Option<Cut> {
        self.record = self.record.or(self.document.take());
        if self.record.is_some() {
            let end = self.buffer.len();
            self.ends(end);
        }
        self.cut()
    }

    /// The over-long records met since the last call.
    pub(super) fn take_long(&mut self) -> Vec<LongLine> {
        std::mem::take(&mut self.long)
    }

    /// Where the stream stands behind the last whole record: (offset, line).
    pub(super) fn position(&self) -> (u64, u64) {
        self.dropping.as_ref().map_or((self.offset, self.line), |long| (long.offset, long.line))
    }
}

#[cfg(test)]
mod tests;
