//! From an object's bytes to chunks: lines are cut, compared with what was shipped, numbered and handed on.

use std::sync::Arc;

use bytes::Bytes;

use super::cutter::Cutter;
use super::fingerprint::{self, MAX_FINGERPRINTS, Repeats, Shipped};
use super::lines::{Cut, LineCutter, LongLine};
use super::object::{Found, ObjectError, ObjectReader, Tail};
use super::position::ObjectPosition;
use crate::budget::Credit;
use crate::chunk::{Chunk, Malformed, Note, Origin, Partition, ReadCounts, Record};
use crate::failpoint::{self, Step};
use crate::input::Read;

mod stored;

use stored::Stored;

enum Lines {
    /// All are new; equal ones are counted.
    New(Repeats),
    /// Those that were shipped are left out.
    Compared(Shipped),
}

/// Collects one read of one object.
pub(super) struct Assembler<'r> {
    reader: &'r ObjectReader,
    partition: Partition,
    origin: Arc<Origin>,
    position: ObjectPosition,
    lines: Lines,
    cutter: Cutter,
    stored: Stored,
    tail: Tail,
    /// Bytes of the seam that were read, until it is whole.
    seam: Option<Vec<u8>>,
    credit: Option<Credit>,
    counts: ReadCounts,
    /// A new line came before all shipped ones had been met: the shipped part was rewritten.
    rewritten: bool,
    /// No fingerprints are kept of the object once all of it is read.
    fold: bool,
    /// The committed position: nothing is handed on where nothing changed.
    before: Option<ObjectPosition>,
}

impl<'r> Assembler<'r> {
    fn new(
        reader: &'r ObjectReader,
        found: &Found,
        origin: Arc<Origin>,
        position: ObjectPosition,
        lines: Lines,
    ) -> Self {
        let (offset, lines_before) = (position.offset, position.lines);
        let line_cutter = LineCutter::new(
            offset,
            lines_before,
            reader.max_line_bytes,
            reader.budget.pool(),
            reader.chunk_bytes,
        );
        let cutter = Cutter::new(line_cutter, reader.max_line_bytes, reader.documents, position.document);
        Self {
            reader,
            partition: found.partition(),
            origin,
            position: ObjectPosition {
                version: found.version.name.clone(),
                done: false,
                waiting: false,
                ..position
            },
            lines,
            cutter,
            stored: Stored::default(),
            tail: Tail::default(),
            seam: None,
            credit: None,
            counts: ReadCounts::default(),
            rewritten: false,
            fold: found.fold,
            before: None,
        }
    }

    /// All lines are new. `known` is given where nothing is left to compare with.
    pub(super) fn fresh(
        reader: &'r ObjectReader,
        found: &Found,
        origin: Arc<Origin>,
        known: Option<&ObjectPosition>,
    ) -> Self {
        let position = ObjectPosition {
            folded: known.is_some_and(|known| known.folded),
            verified: found.verify,
            ..ObjectPosition::default()
        };
        if known.is_some() {
            tracing::warn!(
                object = %found.key,
                "the shipped part of the object has changed and its fingerprints are no longer kept: \
                 all of it is shipped again, with the same event ids"
            );
        }
        Self::new(reader, found, origin, position, Lines::New(Repeats::default()))
    }

    /// What follows the known offset is new, if the seam before it is unchanged.
    pub(super) fn append(
        reader: &'r ObjectReader,
        found: &Found,
        origin: Arc<Origin>,
        known: &ObjectPosition,
        repeats: Repeats,
    ) -> Self {
        let mut assembler = Self::new(reader, found, origin, known.clone(), Lines::New(repeats));
        assembler.seam = (known.seam_bytes > 0).then(Vec::new);
        assembler.before = Some(known.clone());
        // An object that was empty so far may turn out to be a compressed one.
        if known.offset > 0 {
            assembler.stored = Stored::plain();
        }
        assembler
    }

    /// Lines that were shipped are left out.
    pub(super) fn compare(
        reader: &'r ObjectReader,
        found: &Found,
        origin: Arc<Origin>,
        known: &ObjectPosition,
        shipped: Shipped,
    ) -> Self {
        let position = ObjectPosition {
            shipped: known.shipped,
            // Until all of it has been compared, a restart must compare again.
            compare: true,
            verified: known.verified || found.verify,
            ..ObjectPosition::default()
        };
        let mut assembler = Self::new(reader, found, origin, position, Lines::Compared(shipped));
        assembler.before = Some(known.clone());
        assembler
    }

    /// Takes in stored bytes; hands on chunks as they fill.
    pub(super) async fn push(&mut self, mut stored: &[u8]) -> Result<(), ObjectError> {
        self.counts.bytes_fetched += stored.len() as u64;
        if self.seam.is_some() {
            stored = self.check_seam(stored)?;
        }
        if self.stored.is_broken() || stored.is_empty() {
            return Ok(());
        }
        if self.stored.is_told() {
            return self.take_in(stored).await;
        }
        match self.stored.collect(stored) {
            true => self.take_in_head().await,
            false => Ok(()),
        }
    }

    /// Chooses by the first bytes how the object is read, and takes them in.
    async fn take_in_head(&mut self) -> Result<(), ObjectError> {
        let head = self.stored.tell()?;
        self.position.compressed = self.stored.is_compressed();
        self.take_in(&head).await
    }

    async fn take_in(&mut self, stored: &[u8]) -> Result<(), ObjectError> {
        // A buffer that has to grow takes twice the memory, and connections hand on up to 400 KiB at once: of a plain object
        // as much is taken as there is room for, and of a compressed one a quarter of the room is left for what it expands to.
        let chunk_bytes = self.reader.chunk_bytes;
        let quarter = chunk_bytes.div_ceil(4);
        let (step, full) = match self.stored.step() {
            Some(step) => (Some(step.min(quarter)), chunk_bytes - quarter),
            None => (None, chunk_bytes),
        };
        let mut rest = stored;
        while !rest.is_empty() {
            if self.credit.is_none() {
                self.credit = Some(self.reader.budget.take(chunk_bytes).await);
            }
            // There is none within a line that is longer than a chunk.
            let room = Some(chunk_bytes.saturating_sub(self.cutter.buffered())).filter(|room| *room > 0);
            let next = step.or(room).unwrap_or(quarter).min(rest.len());
            let (piece, after) = rest.split_at(next);
            rest = after;
            self.stored.feed(piece, |text| self.cutter.push(text));
            if self.cutter.buffered() >= full {
                self.hand_on_whole_lines().await?;
            }
        }
        Ok(())
    }

    /// Compares what comes before the offset with the seam; gives back what follows it.
    fn check_seam<'b>(&mut self, stored: &'b [u8]) -> Result<&'b [u8], ObjectError> {
        let Some(seam) = &mut self.seam else { return Ok(stored) };
        let missing = (self.position.seam_bytes as usize).saturating_sub(seam.len());
        let (before, after) = stored.split_at(missing.min(stored.len()));
        seam.extend_from_slice(before);
        if before.len() < missing {
            return Ok(after);
        }
        if self.reader.key.fingerprint(seam) != self.position.seam {
            return Err(ObjectError::SeamDiffers);
        }
        failpoint::reached(Step::ReadingSeam);
        self.tail.extend(seam);
        self.seam = None;
        Ok(after)
    }

    /// Hands on what is more than a chunk of it takes, each with its part of the credit.
    async fn hand_on_crowd(&mut self) -> Result<(), ObjectError> {
        while self.cutter.is_crowded() {
            let Some(cut) = self.cutter.cut() else { return Ok(()) };
            let mut rest = self.credit.take();
            self.credit = rest.as_mut().map(|credit| credit.split(cut.text.len()));
            self.hand_on(Some(cut)).await?;
            self.credit = rest;
        }
        Ok(())
    }

    async fn hand_on_whole_lines(&mut self) -> Result<(), ObjectError> {
        self.hand_on_crowd().await?;
        match self.cutter.cut() {
            Some(cut) => self.hand_on(Some(cut)).await,
            None => {
                let holds_slot = self.credit.as_ref().is_some_and(Credit::holds_slot);
                if self.cutter.buffered() > 2 * self.reader.chunk_bytes && !holds_slot {
                    // A line larger than a chunk: what goes beyond the budget is one such line at a time.
                    let slot = Arc::clone(&self.reader.long_line).acquire_owned().await;
                    if let (Some(credit), Ok(slot)) = (&mut self.credit, slot) {
                        credit.hold(slot);
                    }
                }
                Ok(())
            }
        }
    }

    /// The object has ended. `accept` decides whether a last line without its end is taken.
    pub(super) async fn finish(
        mut self,
        mismatch: bool,
        accept: impl Fn(&[u8]) -> bool,
    ) -> Result<(), ObjectError> {
        if self.seam.is_some() {
            return Err(ObjectError::SeamDiffers);
        }
        if self.stored.has_head() {
            self.take_in_head().await?;
        }
        self.stored.finish(|text| self.cutter.push(text));
        self.cutter.tell();
        self.hand_on_crowd().await?;
        let taken = match self.cutter.unterminated() {
            None => true,
            // What an object that cannot be decompressed any further ends with is no line.
            Some(_) if self.stored.is_broken() => false,
            Some(rest) => self.position.compressed || accept(rest),
        };
        self.position.waiting = !taken && !self.stored.is_broken();
        let cut = if taken { self.cutter.finish() } else { self.cutter.cut() };
        self.position.done = true;
        self.counts.objects_read = 1;
        self.rewritten |= mismatch;
        self.hand_on(cut).await
    }

    /// Hands on a chunk: the new ones of the lines that were cut off, and the position behind them.
    async fn hand_on(&mut self, cut: Option<Cut>) -> Result<(), ObjectError> {
        let credit = self.credit.take().unwrap_or_default();
        let (offset, line, text, lines) = match cut {
            Some(cut) => (cut.offset, cut.line, cut.text, cut.lines),
            None => {
                let (offset, line) = self.cutter.position();
                (offset, line, Bytes::new(), Vec::new())
            }
        };
        credit.shrink_to(text.len());
        if let Some(workspaces) = &self.reader.workspaces {
            workspaces.of_records(&mut self.origin, &text).await;
        }
        let mut fingerprints = Vec::with_capacity(lines.len());
        let mut records = Vec::with_capacity(lines.len());
        for line in lines {
            let content = text.get(line.start as usize..line.end as usize).unwrap_or_default();
            if let Some(occurrence) = self.occurrence(content, &mut fingerprints) {
                records.push(Record { start: line.start, end: line.end, line: line.number, occurrence });
            }
        }
        let mut malformed = Vec::new();
        for long in self.cutter.take_long() {
            if long.offset < offset {
                // It was dropped piece by piece: a seam can only begin behind it.
                self.tail = Tail::default();
            }
            if self.occurrence(&long.head, &mut fingerprints).is_some() {
                malformed.push(too_long(long, self.reader.max_line_bytes));
            }
        }
        if self.position.done {
            malformed.extend(self.stored.take_broken(offset, line));
            self.conclude();
        }
        self.tail.extend(&text);
        (self.position.offset, self.position.lines) = self.cutter.position();
        self.position.document = self.cutter.is_document();
        (self.position.seam_bytes, self.position.seam) = self.tail.seam(&self.reader.key);
        // Without a seam nothing tells whether what comes before the offset is still the same.
        self.position.compare |= self.position.seam_bytes == 0 && self.position.offset > 0;
        let note = self.note(&fingerprints);
        if self.before.as_ref() == Some(&self.position) {
            return Ok(());
        }
        let position = self.position.encode();
        self.reader.open.handed_on(&self.partition, &position);
        let chunk = Chunk {
            partition: self.partition.clone(),
            position,
            note,
            payload: text,
            records,
            malformed,
            origin: Arc::clone(&self.origin),
            offset,
            line,
            counts: std::mem::take(&mut self.counts),
            credit,
        };
        self.reader.reads.send(Ok(Read::Chunk(chunk))).await.map_err(|_| ObjectError::Closed)
    }

    /// All lines have been met: what the comparison found.
    fn conclude(&mut self) {
        let Lines::Compared(shipped) = &self.lines else {
            self.position.compare = false;
            return;
        };
        self.position.compare = shipped.missing() > 0;
        self.counts.prefix_mismatches = u64::from(self.rewritten || self.position.compare);
    }

    /// The occurrence number of a line that is new, `None` if it was shipped.
    fn occurrence(&mut self, line: &[u8], fingerprints: &mut Vec<u64>) -> Option<u32> {
        let fingerprint = self.reader.key.fingerprint(line);
        let occurrence = match &mut self.lines {
            Lines::New(repeats) => repeats.count(fingerprint),
            Lines::Compared(shipped) => {
                let Some(occurrence) = shipped.take(fingerprint) else {
                    self.counts.records_skipped += 1;
                    return None;
                };
                self.rewritten |= shipped.missing() > 0;
                occurrence
            }
        };
        fingerprints.push(fingerprint);
        Some(occurrence)
    }

    fn note(&mut self, fingerprints: &[u64]) -> Note {
        if self.position.folded {
            return Note::Keep;
        }
        self.position.shipped += fingerprints.len() as u64;
        // A comparison needs them to its end: one that is cut short is begun anew.
        let needed = matches!(self.lines, Lines::Compared(_)) && !self.position.done;
        // One whose date closed long ago is folded with its last chunk, so that a whole history that is read for the first
        // time leaves no fingerprints behind; until then, a read that is cut short needs them to count equal lines.
        let folds = self.fold && self.position.done;
        if folds || (self.position.shipped > u64::from(MAX_FINGERPRINTS) && !needed) {
            self.position.folded = true;
            return Note::Clear;
        }
        if fingerprints.is_empty() { Note::Keep } else { Note::Append(fingerprint::encode(fingerprints)) }
    }
}

fn too_long(long: LongLine, max_line_bytes: usize) -> Malformed {
    Malformed {
        detail: format!(
            "the line has {} bytes, more than max_line_bytes = {max_line_bytes}; its first {} are kept",
            long.bytes,
            long.head.len()
        ),
        record: long.head,
        reason: "too_long",
        offset: long.offset,
        line: long.line,
    }
}
