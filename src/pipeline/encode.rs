//! From a chunk to frames: decode, map, encode. Pure; runs beside the network tasks.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{Frame, Frames, Sequence};
use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::chunk::{Chunk, Malformed, Origin, Record};
use crate::dead_letter::{DeadLetter, DeadLetterOrigin};
use crate::decode::Decoder;
use crate::format::Format;
use crate::kept::KeptRecords;
use crate::output::Output;
use crate::overlap::Overlap;
use crate::recent::RecentEvents;
use crate::time::Millis;

/// Most bytes that the events of one record take, where it is not larger itself: see [`MOST_EXPANSION`].
const MOST_OF_A_RECORD: usize = 16 << 20;
/// Most bytes of events for each of their record. The longest format takes 2.2; an envelope of a million records of two
/// bytes would take 300.
const MOST_EXPANSION: usize = 4;

/// What a pipeline encodes with.
#[derive(Clone)]
pub(crate) struct Codec {
    pub(crate) decoder: Arc<dyn Decoder>,
    pub(crate) format: Arc<dyn Format>,
    pub(crate) output: Arc<dyn Output>,
    pub(crate) budget: Budget,
    /// Events of one action are to stand side by side.
    pub(crate) grouped: bool,
    pub(crate) overlap: Option<Overlap>,
    pub(crate) recent: RecentEvents,
}

/// A chunk as frames.
pub(crate) struct Encoded {
    pub(crate) frames: Frames,
    /// The bytes of the frames.
    pub(crate) encoded: Buffer,
    pub(crate) dead: Vec<DeadLetter>,
    /// Newest event of the chunk.
    pub(crate) newest: Option<Millis>,
    /// Secrets taken out.
    pub(crate) redactions: u32,
    /// Events that another input has sent to this output too.
    pub(crate) overlaps: u64,
}

impl Codec {
    /// Decodes and encodes a chunk's records; what is no event becomes a dead letter.
    pub(crate) fn encode(&self, sequence: Sequence, chunk: Chunk) -> Encoded {
        let terminator = self.output.framing().terminator;
        // ECS, the longest format, takes 2.2 bytes for each of the record: nothing is moved on the way. What remains is
        // mostly no memory: pages that no event has been written to.
        let mut buffer = self.budget.pool().take(chunk.payload.len() * 9 / 4);
        let mut frames = Vec::with_capacity(chunk.records.len());
        let mut scratch = Vec::new();
        let mut dead = Vec::new();
        let mut newest = None;
        let mut redactions = 0;
        let mut overlaps = 0;
        let shown_from = chunk.records.len().saturating_sub(self.recent.capacity());
        for (index, record) in chunk.records.iter().enumerate() {
            let bytes = chunk.record(record);
            let before = (buffer.len(), frames.len(), dead.len());
            let most = before.0 + MOST_OF_A_RECORD.max(bytes.len().saturating_mul(MOST_EXPANSION));
            let mut too_much = false;
            let result =
                self.decoder.decode(bytes, record.occurrence, &chunk.origin, &mut scratch, &mut |event| {
                    let start = buffer.len();
                    too_much |= start > most;
                    if too_much {
                        return;
                    }
                    self.output.encode(event, &*self.format, &mut buffer);
                    newest = newest.max(event.event_time);
                    let (record_start, record_end) =
                        (record.start + narrow(event.span.start), record.start + narrow(event.span.end));
                    if let Err(rejection) = self.output.fits(buffer.get(start..).unwrap_or_default()) {
                        buffer.truncate(start);
                        let event = Record { start: record_start, end: record_end, ..*record };
                        dead.push(chunk_letter(&chunk, &event, "too_large", rejection.reason));
                        return;
                    }
                    buffer.extend_from_slice(terminator);
                    redactions += event.redactions;
                    if index >= shown_from {
                        self.recent.note(event);
                    }
                    overlaps += u64::from(self.overlap.as_ref().is_some_and(|overlap| overlap.note(event)));
                    frames.push(Frame {
                        end: narrow(buffer.len()),
                        record_start,
                        record_end,
                        line: record.line,
                        occurrence: record.occurrence,
                        lane: self.output.lane(event),
                        kind: if self.grouped { event.kind() } else { 0 },
                    });
                });
            let refused = match result {
                Ok(()) if too_much => Some(("too_large", "its events take many times its size".to_owned())),
                Ok(()) => None,
                Err(error) => Some((error.reason, error.detail)),
            };
            if let Some((reason, detail)) = refused {
                // All of a record, or none of it: what is kept as a dead letter is sent whole when it is replayed.
                buffer.truncate(before.0);
                frames.truncate(before.1);
                dead.truncate(before.2);
                dead.push(chunk_letter(&chunk, record, reason, detail));
            }
        }
        dead.extend(chunk.malformed.iter().map(|malformed| malformed_letter(&chunk.origin, malformed)));
        let frames = Frames { sequence, records: KeptRecords::of(chunk, &self.budget), frames };
        Encoded { frames, encoded: buffer, dead, newest, redactions, overlaps }
    }
}

/// The dead letter of a frame that a collector refused; `records` are those of its chunk.
pub(crate) fn refused_letter(
    frames: &Frames,
    index: usize,
    records: &Bytes,
    reason: &str,
    detail: &str,
) -> io::Result<DeadLetter> {
    let frame = frames.frames.get(index).ok_or_else(|| io::Error::other("an event is not of its chunk"))?;
    let kept = &frames.records;
    let record = Record {
        start: frame.record_start,
        end: frame.record_end,
        line: frame.line,
        occurrence: frame.occurrence,
    };
    // A copy of the few bytes that are wanted does not hold the others.
    let bytes = records.get(record.start as usize..record.end as usize).map(Bytes::copy_from_slice);
    let bytes = bytes.ok_or_else(|| io::Error::other("a record lies outside of its chunk"))?;
    let from = record_origin(&kept.origin, (kept.offset, kept.line), &record);
    Ok(record_letter(from, bytes, reason, detail.to_owned()))
}

/// The dead letter of a record, or of an event in it.
fn chunk_letter(chunk: &Chunk, record: &Record, reason: &str, detail: String) -> DeadLetter {
    let bytes = chunk.payload.slice(record.start as usize..record.end as usize);
    record_letter(record_origin(&chunk.origin, (chunk.offset, chunk.line), record), bytes, reason, detail)
}

fn record_letter(origin: DeadLetterOrigin, record: Bytes, reason: &str, detail: String) -> DeadLetter {
    DeadLetter { reason: reason.to_owned(), detail, origin, record, truncated: false }
}

/// Where a record comes from that lies in a chunk which begins at this byte and line.
fn record_origin(from: &Origin, (offset, line): (u64, u64), record: &Record) -> DeadLetterOrigin {
    DeadLetterOrigin {
        offset: offset + u64::from(record.start),
        line: line + u64::from(record.line),
        occurrence: record.occurrence,
        ..origin(from)
    }
}

fn malformed_letter(from: &Origin, malformed: &Malformed) -> DeadLetter {
    DeadLetter {
        reason: malformed.reason.to_owned(),
        detail: malformed.detail.clone(),
        origin: DeadLetterOrigin { offset: malformed.offset, line: malformed.line, ..origin(from) },
        record: malformed.record.clone(),
        truncated: true,
    }
}

fn origin(origin: &Origin) -> DeadLetterOrigin {
    DeadLetterOrigin {
        object: origin.object.to_string(),
        workspace: origin.workspace.as_deref().map(str::to_owned),
        cloud: origin.cloud.map(str::to_owned),
        ..DeadLetterOrigin::default()
    }
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_knows_what_the_path_and_the_store_said_of_its_record() {
        let read =
            Origin { workspace: Some("7".into()), cloud: Some("gcp"), ..Origin::of_object("logs/a.json") };
        let kept = origin(&read);
        assert_eq!(kept.object, "logs/a.json");
        assert_eq!((kept.workspace.as_deref(), kept.cloud.as_deref()), (Some("7"), Some("gcp")));
    }
}
