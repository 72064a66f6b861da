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
            dropping: None,
            long: Vec::new(),
        }
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

    /// True if there are more whole lines than a cut takes.
    pub(super) fn is_crowded(&self) -> bool {
        self.buffer.len() > MOST_LINES && memchr_iter(b'\n', &self.buffer).nth(MOST_LINES).is_some()
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
        let mut lines = Vec::with_capacity((text.len() / 512 + 1).min(MOST_LINES));
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
            if lines.len() == MOST_LINES {
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
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    fn texts(cut: &Cut) -> Vec<String> {
        cut.lines
            .iter()
            .map(|line| {
                String::from_utf8_lossy(&cut.text[line.start as usize..line.end as usize]).into_owned()
            })
            .collect()
    }

    #[test]
    fn line_ends_blank_lines_and_a_byte_order_mark_are_no_part_of_a_line() {
        let mut cutter = LineCutter::new(0, 0, 100, &Pool::default(), 64);
        cutter.push(b"\xef\xbb\xbf{\"a\":1}\r\n\r\n \n{\"b\":2}\n{\"c\"");
        assert_eq!(
            cutter.unterminated(),
            Some(b"{\"c\"".as_slice()),
            "whole lines before it are none of its"
        );
        let cut = cutter.cut().unwrap();
        assert_eq!(texts(&cut), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(cut.lines[1].number, 3);
        assert_eq!(cutter.unterminated(), Some(b"{\"c\"".as_slice()));
        assert_eq!(cutter.position(), (24, 4));
        cutter.push(b":3}");
        assert!(cutter.cut().is_none());
        assert_eq!(texts(&cutter.finish().unwrap()), ["{\"c\":3}"]);
    }

    #[test]
    fn a_line_over_the_cap_is_reported_and_the_rest_goes_on() {
        let mut cutter = LineCutter::new(0, 0, 8, &Pool::default(), 64);
        for piece in ["ok\n", "0123456789", "0123456789", "01\nafter\n", "within one piece\nend\n"] {
            cutter.push(piece.as_bytes());
            if let Some(cut) = cutter.cut() {
                assert!(texts(&cut).iter().all(|line| ["ok", "after", "end"].contains(&line.as_str())));
            }
        }
        let long = cutter.take_long();
        assert_eq!(
            long.iter().map(|long| (long.bytes, long.offset, long.line)).collect::<Vec<_>>(),
            [(22, 3, 1), (16, 32, 3)]
        );
        assert_eq!(cutter.position(), (53, 5));
    }

    #[test]
    fn a_cut_takes_so_many_lines_and_the_rest_stays_for_the_next() {
        let mut cutter = LineCutter::new(0, 0, 100, &Pool::default(), 64);
        cutter.push(&b"a\n\n".repeat(2 * MOST_LINES + 1));
        let mut cuts = Vec::new();
        while cutter.is_crowded() {
            cuts.extend(cutter.cut());
        }
        cuts.extend(cutter.finish());
        let (most, lines) = (MOST_LINES, MOST_LINES as u64);
        assert!(cuts.iter().all(|cut| cut.lines.len() <= most), "{:?}", cuts.len());
        assert_eq!(cuts.iter().map(|cut| cut.lines.len()).sum::<usize>(), 2 * most + 1);
        assert_eq!((cuts[1].offset, cuts[1].line), (3 * lines - 1, 2 * lines - 1));
        assert_eq!(cutter.position(), (6 * lines + 3, 4 * lines + 2));
    }

    #[test]
    fn a_line_of_the_cap_is_one_and_a_longer_one_is_told_with_its_place() {
        let mut cutter = LineCutter::new(100, 10, 8, &Pool::default(), 64);
        cutter.push(b"12345678\n123456789\n");
        assert_eq!(texts(&cutter.cut().unwrap()), ["12345678"]);
        let long = LongLine { head: Bytes::from_static(b"123456789"), bytes: 9, offset: 109, line: 11 };
        assert_eq!(cutter.take_long(), [long]);
        assert!(cutter.take_long().is_empty());
    }

    #[test]
    fn of_a_line_that_is_dropped_no_more_is_collected_than_its_beginning() {
        let mut cutter = LineCutter::new(0, 0, 8, &Pool::default(), 64);
        let line = vec![b'x'; KEPT_OF_LONG_LINE + 9];
        cutter.push(&line);
        assert_eq!(cutter.buffered(), line.len());
        assert!(cutter.cut().is_none());
        assert_eq!(cutter.buffered(), 0, "it is dropped");
        assert_eq!(cutter.unterminated(), Some(b"".as_slice()), "and still a line");
        assert_eq!(cutter.position(), (0, 0));
        assert!(cutter.finish().is_none());
        let head = Bytes::from(vec![b'x'; KEPT_OF_LONG_LINE]);
        assert_eq!(
            cutter.take_long(),
            [LongLine { head: head.clone(), bytes: line.len() as u64, offset: 0, line: 0 }]
        );
        assert_eq!(cutter.position(), (line.len() as u64, 1), "it counts as a line");

        let mut cutter = LineCutter::new(0, 0, 8, &Pool::default(), 64);
        cutter.push(&[&line, b"\n".as_slice()].concat());
        assert!(cutter.cut().unwrap().lines.is_empty());
        assert_eq!(cutter.take_long()[0].head, head, "within one piece too");
    }

    #[test]
    fn what_is_collected_can_be_looked_at_and_taken_over() {
        let mut cutter = LineCutter::new(0, 0, 100, &Pool::default(), 64);
        cutter.push(b"{\"a\"");
        assert_eq!((cutter.buffered(), cutter.buffer()), (4, b"{\"a\"".as_slice()));
        assert_eq!(&cutter.take_buffer()[..], b"{\"a\"");
        assert_eq!(cutter.buffered(), 0);
        assert!(cutter.finish().is_none(), "nothing is left to cut");
    }

    #[test]
    fn only_more_whole_lines_than_a_cut_takes_are_a_crowd() {
        let crowded = |text: &[u8]| {
            let mut cutter = LineCutter::new(0, 0, 1 << 20, &Pool::default(), 64);
            cutter.push(text);
            cutter.is_crowded()
        };
        assert!(!crowded(&b"\n".repeat(MOST_LINES)));
        assert!(crowded(&b"\n".repeat(MOST_LINES + 1)));
        assert!(!crowded(&[b'x'; 2 * MOST_LINES]), "a long line is one line");
    }

    #[test]
    fn a_byte_order_mark_is_one_at_the_beginning_of_a_stream_only() {
        let unterminated = |offset: u64, text: &[u8]| {
            let mut cutter = LineCutter::new(offset, 0, 100, &Pool::default(), 64);
            cutter.push(text);
            cutter.unterminated().map(<[u8]>::to_vec)
        };
        assert_eq!(unterminated(0, b"\xef\xbb\xbf a "), Some(b"a".to_vec()));
        assert_eq!(unterminated(0, b"\xef\xbb\xbf"), None);
        assert_eq!(unterminated(9, b"\xef\xbb\xbfa"), Some(b"\xef\xbb\xbfa".to_vec()));
        assert_eq!(unterminated(0, b"a\n\xef\xbb\xbfb"), Some(b"\xef\xbb\xbfb".to_vec()));
    }

    proptest! {
        /// The lines do not depend on how the stream was cut into pieces, and the offset counts every byte.
        #[test]
        fn lines_do_not_depend_on_the_pieces(
            text in prop::collection::vec(prop::sample::select(b"ab\r\n {}".to_vec()), 0..200),
            pieces in prop::collection::vec(1usize..20, 1..50),
            cut_every_piece in any::<bool>(),
        ) {
            let mut cutter = LineCutter::new(0, 0, 1000, &Pool::default(), 64);
            let mut found = Vec::new();
            let mut rest = text.as_slice();
            for length in pieces.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*length).min(rest.len()));
                cutter.push(piece);
                rest = after;
                if cut_every_piece {
                    found.extend(cutter.cut().iter().flat_map(texts));
                }
            }
            found.extend(cutter.cut().iter().flat_map(texts));
            found.extend(cutter.finish().iter().flat_map(texts));
            let expected: Vec<_> = String::from_utf8(text.clone()).unwrap()
                .split('\n').map(|line| line.trim_ascii().to_owned()).filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(cutter.position().0, text.len() as u64);
        }
    }
}
