//! Puts messages of one partition together to a chunk.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_128;

use crate::chunk::{Chunk, Malformed, Origin, Partition, Position, ReadCounts, Record};
use crate::json::envelope;

/// Bytes of an over-long message that are kept for its dead letter.
const KEPT_OF_LONG_MESSAGE: usize = 64 << 10;
/// Most messages of a chunk: those without a value take no bytes.
const MOST_MESSAGES: usize = 16 << 10;

/// Whole messages of one partition, in order.
#[derive(Debug)]
pub(super) struct Gathering {
    payload: BytesMut,
    records: Vec<Record>,
    malformed: Vec<Malformed>,
    /// Offset of the first message.
    first: i64,
    /// Offset after the last one.
    next: i64,
    fetched: u64,
    messages: usize,
    /// Bytes of over-long messages that are kept.
    kept: usize,
    max_message_bytes: usize,
}

impl Gathering {
    /// Begins with the message at this offset.
    pub(super) fn new(first: i64, max_message_bytes: usize) -> Self {
        Self {
            payload: BytesMut::new(),
            records: Vec::new(),
            malformed: Vec::new(),
            first,
            next: first,
            fetched: 0,
            messages: 0,
            kept: 0,
            max_message_bytes,
        }
    }

    /// Bytes gathered so far.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.kept
    }

    /// True before the first message.
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// True if no more is to be added in so much room.
    pub(super) fn is_full(&self, room: usize) -> bool {
        self.bytes() >= room || self.messages >= MOST_MESSAGES
    }

    /// True if this message still belongs into the chunk: lines are counted in 32 bits.
    pub(super) fn has_room(&self, offset: i64, value: Option<&[u8]>, room: usize) -> bool {
        self.line_of(offset).is_some() && self.bytes() + value.map_or(0, <[u8]>::len) <= room
    }

    /// Offset after the last message.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    fn line_of(&self, offset: i64) -> Option<u32> {
        u32::try_from(offset.checked_sub(self.first)?).ok()
    }

    /// Adds a message. One without a value (a tombstone) or with a blank one moves the position and holds no record.
    pub(super) fn add(&mut self, offset: i64, value: Option<&[u8]>) {
        let value = value.unwrap_or_default();
        self.messages += 1;
        self.fetched += value.len() as u64;
        self.next = offset.saturating_add(1);
        if value.len() > self.max_message_bytes {
            let kept = value.get(..KEPT_OF_LONG_MESSAGE).unwrap_or(value);
            self.kept += kept.len();
            self.malformed.push(Malformed {
                record: Bytes::copy_from_slice(kept),
                reason: "too_long",
                detail: format!(
                    "the message has {} bytes, more than max_message_bytes ({})",
                    value.len(),
                    self.max_message_bytes
                ),
                offset: 0,
                line: u64::try_from(offset).unwrap_or(0),
            });
            return;
        }
        let base = self.payload.len();
        let line = self.line_of(offset).unwrap_or(0);
        let found = envelope::records(value);
        let mut seen = HashMap::new();
        let alone = found.len() == 1;
        for record in found {
            let occurrence =
                if alone { 0 } else { count(&mut seen, value.get(record.clone()).unwrap_or_default()) };
            self.records.push(Record {
                start: narrow(base + record.start),
                end: narrow(base + record.end),
                line,
                occurrence,
            });
        }
        self.payload.extend_from_slice(value);
    }

    /// The chunk. Its bytes are accounted for elsewhere: it holds no credit.
    pub(super) fn into_chunk(self, partition: &Partition, origin: &Arc<Origin>) -> Chunk {
        Chunk {
            partition: partition.clone(),
            position: Position::new(&self.next.to_string()),
            payload: self.payload.freeze(),
            records: self.records,
            malformed: self.malformed,
            origin: Arc::clone(origin),
            line: u64::try_from(self.first).unwrap_or(0),
            counts: ReadCounts { bytes_fetched: self.fetched, ..ReadCounts::default() },
            ..Chunk::default()
        }
    }
}

/// How often this record came before in its message.
fn count(seen: &mut HashMap<u128, u32>, record: &[u8]) -> u32 {
    let count = seen.entry(xxh3_128(record)).or_default();
    *count += 1;
    *count - 1
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(gathering: Gathering) -> Chunk {
        gathering.into_chunk(&Partition::new("audit/3"), &Arc::default())
    }

    fn texts(chunk: &Chunk) -> Vec<(&str, u64, u32)> {
        let text = |record: &Record| std::str::from_utf8(chunk.record(record)).unwrap().to_owned();
        let described = |record: &Record| {
            (text(record).leak() as &str, chunk.line + u64::from(record.line), record.occurrence)
        };
        chunk.records.iter().map(described).collect()
    }

    #[test]
    fn records_know_their_message_and_their_number_within_it() {
        let mut gathering = Gathering::new(40, 1000);
        gathering.add(40, Some(br#"{"records":[{"a":1},{"a":1},{"b":2}]}"#));
        gathering.add(41, Some(br#"{"a":1}"#));
        gathering.add(44, Some(br#"{"records":[{"a":1}]}"#));
        let chunk = chunk(gathering);
        assert_eq!(chunk.position.as_str(), "45");
        assert_eq!(
            texts(&chunk),
            [
                (r#"{"a":1}"#, 40, 0),
                (r#"{"a":1}"#, 40, 1),
                (r#"{"b":2}"#, 40, 0),
                (r#"{"a":1}"#, 41, 0),
                (r#"{"a":1}"#, 44, 0)
            ],
            "however messages are put together, a record has the same number"
        );
    }

    #[test]
    fn tombstones_and_blank_messages_move_the_position_and_hold_nothing() {
        let mut gathering = Gathering::new(7, 1000);
        gathering.add(7, None);
        gathering.add(9, Some(b" \n"));
        let chunk = chunk(gathering);
        assert_eq!((chunk.records.len(), chunk.malformed.len(), chunk.position.as_str()), (0, 0, "10"));
    }

    #[test]
    fn a_message_over_the_cap_is_reported_with_its_beginning() {
        let mut gathering = Gathering::new(5, 10);
        gathering.add(5, Some(b"0123456789"));
        gathering.add(6, Some(&vec![b'x'; 100_000]));
        let chunk = chunk(gathering);
        assert_eq!((chunk.records.len(), chunk.payload.len()), (1, 10));
        let [long] = &chunk.malformed[..] else { panic!("{:?}", chunk.malformed) };
        assert_eq!((long.reason, long.line, long.record.len()), ("too_long", 6, KEPT_OF_LONG_MESSAGE));
        assert!(long.detail.contains("100000"), "{}", long.detail);
    }

    #[test]
    fn what_is_kept_of_messages_over_the_cap_takes_room_too() {
        let mut gathering = Gathering::new(0, 1024);
        let long = vec![b'x'; 70_000];
        let mut offset = 0;
        while gathering.has_room(offset, Some(&long), 1 << 20) && !gathering.is_full(1 << 20) && offset < 100
        {
            gathering.add(offset, Some(&long));
            offset += 1;
        }
        let kept = usize::try_from(offset).unwrap() * KEPT_OF_LONG_MESSAGE;
        assert!(kept <= 1 << 20, "{kept} bytes");
        assert_eq!(gathering.bytes(), kept);
    }

    #[test]
    fn a_chunk_ends_where_its_room_does_or_its_lines_cannot_be_counted() {
        let mut gathering = Gathering::new(10, 100);
        assert!(gathering.has_room(10 + i64::from(u32::MAX), None, 4));
        assert!(!gathering.has_room(11 + i64::from(u32::MAX), None, 4));
        assert!(!gathering.has_room(9, None, 4));
        assert!(gathering.has_room(10, Some(b"1234"), 4) && !gathering.has_room(10, Some(b"12345"), 4));
        gathering.add(10, Some(b"123"));
        assert!(!gathering.is_full(4) && !gathering.has_room(11, Some(b"12"), 4));
        for offset in 11..10 + MOST_MESSAGES as i64 {
            gathering.add(offset, None);
        }
        assert!(gathering.is_full(4));
    }
}
