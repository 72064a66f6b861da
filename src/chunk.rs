//! What an input reads: whole records of one partition, with where they came from and where to go on after them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Credit;
use crate::time::Date;

/// One ordered lane of an input: an object, an Event Hubs partition, an hour of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(Arc<str>);

/// Where to resume in a partition; opaque to all but the input that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(Arc<str>);

impl Partition {
    /// A partition by its name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Position {
    /// A position as its input spells it.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The input's spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where one record lies in its chunk's payload, and which one of several equal records of its partition it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// First byte in the payload.
    pub start: u32,
    /// One past the last byte in the payload, without the line end.
    pub end: u32,
    /// Lines between the chunk's first line and this one.
    pub line: u32,
    /// How many equal records came before it in its partition (0 for the first).
    pub occurrence: u32,
}

/// Where records come from: what the decoder may fill gaps from, and what a dead letter names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Key of the object, topic or table.
    pub object: Arc<str>,
    /// The same as a JSON string, so that it need not be escaped for each event; empty where there is no object.
    pub object_json: Arc<str>,
    /// The workspace the path names.
    pub workspace: Option<Arc<str>>,
    /// The date the path names.
    pub date: Option<Date>,
    /// Workspace id by Azure resource id in lower case, of the resources that the records name.
    pub workspace_ids: BTreeMap<String, Arc<str>>,
    /// Cloud the input reads from: `aws`, `gcp` or `azure`.
    pub cloud: Option<&'static str>,
}

impl Origin {
    /// Records of this object.
    pub fn of_object(object: &str) -> Self {
        let object_json = crate::json::Text::from_plain(object).quoted().into();
        Self { object: object.into(), object_json, ..Self::default() }
    }
}

/// A record that cannot be an event, for a reason only the input knows (too long, broken compression).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The record, or its first bytes.
    pub record: Bytes,
    /// Why, in one word for metrics: `too_long`, `not_json`, …
    pub reason: &'static str,
    /// Why, in a sentence.
    pub detail: String,
    /// Byte offset in the object.
    pub offset: u64,
    /// Line in the object, from 0.
    pub line: u64,
}

/// What becomes of the bytes that an input keeps beside a partition's position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Note {
    /// Stay as they are.
    #[default]
    Keep,
    /// These are added.
    Append(Bytes),
    /// All are forgotten.
    Clear,
}

/// What a read cost and found out, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Bytes fetched from the store.
    pub bytes_fetched: u64,
    /// Records recognised as shipped before and left out.
    pub records_skipped: u64,
    /// Records met a second time, by another way of the same input.
    pub records_duplicate: u64,
    /// Objects read to their end.
    pub objects_read: u64,
    /// Objects whose shipped part had changed.
    pub prefix_mismatches: u64,
}

/// Whole records of one partition, in reading order.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The lane.
    pub partition: Partition,
    /// Where to resume once all of this is settled.
    pub position: Position,
    /// What to remember with it.
    pub note: Note,
    /// The bytes the records lie in.
    pub payload: Bytes,
    /// The new records, in order; what lies between them is not new.
    pub records: Vec<Record>,
    /// Records the input could not hand over.
    pub malformed: Vec<Malformed>,
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// Offset of the payload's first byte in the object.
    pub offset: u64,
    /// Number of the payload's first line in the object, from 0. In a topic, the messages are the lines.
    pub line: u64,
    /// What the read cost.
    pub counts: ReadCounts,
    /// Share of the byte budget the payload takes until it is committed.
    pub credit: Credit,
}

impl Chunk {
    /// The bytes of one of its records.
    pub fn record(&self, record: &Record) -> &[u8] {
        self.payload.get(record.start as usize..record.end as usize).unwrap_or_default()
    }
}

impl Default for Partition {
    fn default() -> Self {
        Self::new("")
    }
}

impl Default for Position {
    fn default() -> Self {
        Self::new("")
    }
}
