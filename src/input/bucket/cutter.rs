//! What cuts an object into records: lines, or for old blobs of Azure the records of a document.

use super::lines::{Cut, LineCutter, LongLine};
use super::records::{RecordCutter, TELLING_BYTES, begins_document};

/// The cutter of one object.
#[derive(Debug)]
pub(super) struct Cutter {
    lines: LineCutter,
    records: Option<RecordCutter>,
    /// The first bytes are to tell which of the two it is.
    untold: bool,
    max_record_bytes: usize,
}

impl Cutter {
    /// Cuts an object as `lines` would. `documents` where it may be a document of records, `document` where it is known
    /// to be one.
    pub(super) fn new(lines: LineCutter, max_record_bytes: usize, documents: bool, document: bool) -> Self {
        let (offset, line) = lines.position();
        Self {
            lines,
            records: (offset > 0 && document).then(|| RecordCutter::new(offset, line, max_record_bytes)),
            untold: documents && offset == 0,
            max_record_bytes,
        }
    }

    /// True for a document of records.
    pub(super) fn is_document(&self) -> bool {
        self.records.is_some()
    }

    /// Bytes collected and not yet cut off.
    pub(super) fn buffered(&self) -> usize {
        self.records.as_ref().map_or(self.lines.buffered(), RecordCutter::buffered)
    }

    /// Takes in the next piece of the object.
    pub(super) fn push(&mut self, piece: &[u8]) {
        match &mut self.records {
            Some(records) => records.push(piece),
            None => self.lines.push(piece),
        }
        if self.untold && self.lines.buffered() >= TELLING_BYTES {
            self.tell();
        }
    }

    /// Decides by what has come so far; nothing more comes before the next cut.
    pub(super) fn tell(&mut self) {
        if std::mem::take(&mut self.untold) && begins_document(self.lines.buffer()) {
            let mut records = RecordCutter::new(0, 0, self.max_record_bytes);
            records.push(&self.lines.take_buffer());
            self.records = Some(records);
        }
    }

    /// True if there may be more records than a cut takes, the last one counted though it has no end yet.
    pub(super) fn is_crowded(&self) -> bool {
        self.records.as_ref().map_or_else(|| self.lines.is_crowded(), RecordCutter::is_crowded)
    }

    /// Cuts off whole records, if there are any: all, or as many as a cut takes. Call it when enough is buffered.
    pub(super) fn cut(&mut self) -> Option<Cut> {
        self.records.as_mut().map_or_else(|| self.lines.cut(), RecordCutter::cut)
    }

    /// The last record, which has no end.
    pub(super) fn unterminated(&self) -> Option<&[u8]> {
        self.records.as_ref().map_or_else(|| self.lines.unterminated(), RecordCutter::unterminated)
    }

    /// At the end of the object: takes what is left as a record, where it is not [crowded](Self::is_crowded).
    pub(super) fn finish(&mut self) -> Option<Cut> {
        self.records.as_mut().map_or_else(|| self.lines.finish(), RecordCutter::finish)
    }

    /// The over-long records met since the last call.
    pub(super) fn take_long(&mut self) -> Vec<LongLine> {
        self.records.as_mut().map_or_else(|| self.lines.take_long(), RecordCutter::take_long)
    }

    /// Where the object stands behind the last whole record: (offset, line).
    pub(super) fn position(&self) -> (u64, u64) {
        self.records.as_ref().map_or_else(|| self.lines.position(), RecordCutter::position)
    }
}
