//! What an input reads: whole records of one partition, with where they came from and where to go on after them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::buffer::Pool;
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

/// The memory of a pipeline, the one brake of the engine. Whoever reads waits for room. What is made of what was read, frames
/// and bodies, only counts: it never waits, so that nobody who holds some waits for more, and the readers wait longer.
#[derive(Clone, Debug)]
pub struct Budget {
    account: Arc<Account>,
    pool: Pool,
}

#[derive(Debug)]
struct Account {
    free: Semaphore,
    total: usize,
    counted: Mutex<Counted>,
    /// Of the bytes taken, those that records take which wait for a collector, uncompressed.
    plain: AtomicUsize,
}

/// Bytes that did not wait for room.
#[derive(Debug, Default)]
struct Counted {
    bytes: usize,
    /// Those of them for which there was no room: they have the first that becomes free.
    beyond: usize,
}

impl Account {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, bytes: usize) {
        let mut counted = self.counted();
        counted.bytes += bytes;
        counted.beyond += bytes - self.free.forget_permits(bytes);
    }

    fn give_back(&self, bytes: usize, were_counted: bool) {
        let mut counted = self.counted();
        if were_counted {
            counted.bytes -= bytes;
        }
        let owed = bytes.min(counted.beyond);
        counted.beyond -= owed;
        self.free.add_permits(bytes - owed);
    }
}

/// Bytes that count until nobody holds them.
struct CountedBytes<T> {
    content: T,
    bytes: usize,
    account: Arc<Account>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for CountedBytes<T> {
    fn as_ref(&self) -> &[u8] {
        self.content.as_ref()
    }
}

impl<T> Drop for CountedBytes<T> {
    fn drop(&mut self) {
        self.account.give_back(self.bytes, true);
    }
}

/// A part of the [`Budget`], given back with the last clone that is dropped.
#[derive(Clone, Debug, Default)]
pub struct Credit(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    account: Option<Arc<Account>>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of this many bytes (at most 4 GiB).
    pub fn new(bytes: usize) -> Self {
        let total = bytes.clamp(1, u32::MAX as usize);
        let account = Account {
            free: Semaphore::new(total),
            total,
            counted: Mutex::default(),
            plain: AtomicUsize::new(0),
        };
        Self { account: Arc::new(account), pool: Pool::default() }
    }

    /// Waits until this many bytes are free and takes them. More than the whole budget counts as the whole.
    pub async fn take(&self, bytes: usize) -> Credit {
        let bytes = bytes.min(self.account.total);
        match self.account.free.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).await {
            Ok(permit) => self.credit(permit, bytes),
            Err(_) => Credit::default(),
        }
    }

    /// Takes this many bytes if they are free now: for readers that have other things to do while they wait.
    pub fn try_take(&self, bytes: usize) -> Option<Credit> {
        let bytes = bytes.min(self.account.total);
        let permit = self.account.free.try_acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).ok()?;
        Some(self.credit(permit, bytes))
    }

    fn credit(&self, permit: SemaphorePermit<'_>, bytes: usize) -> Credit {
        permit.forget();
        Credit::of(bytes, Some(Arc::clone(&self.account)))
    }

    /// Records of so many bytes are kept as they were read while their events are under way.
    pub(crate) fn keep_plain(&self, bytes: usize) {
        self.account.plain.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are not any more.
    pub(crate) fn release_plain(&self, bytes: usize) {
        self.account.plain.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes of records that are kept as they were read.
    pub(crate) fn plain(&self) -> usize {
        self.account.plain.load(Ordering::Relaxed)
    }

    /// Counts bytes for as long as somebody holds them.
    pub fn count(&self, content: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        let bytes = content.as_ref().len();
        self.account.count(bytes);
        Bytes::from_owner(CountedBytes { content, bytes, account: Arc::clone(&self.account) })
    }

    /// The buffers that what is read, encoded and compressed lies in.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The whole budget in bytes.
    pub fn total(&self) -> usize {
        self.account.total
    }

    /// Bytes taken: those read and not committed.
    pub fn used(&self) -> usize {
        let counted = self.account.counted();
        let in_use =
            self.account.total.saturating_sub(self.account.free.available_permits()) + counted.beyond;
        in_use.saturating_sub(counted.bytes)
    }
}

impl Credit {
    fn of(bytes: usize, account: Option<Arc<Account>>) -> Self {
        Self(Arc::new(Mutex::new(Taken { bytes, account, slot: None })))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps this many bytes and gives the rest back at once.
    pub fn shrink_to(&self, bytes: usize) {
        let more = self.taken().bytes.saturating_sub(bytes);
        drop(self.split(more));
    }

    /// Takes so many of its bytes out, as far as there are as many.
    pub fn split(&self, bytes: usize) -> Self {
        let mut taken = self.taken();
        let bytes = bytes.min(taken.bytes);
        taken.bytes -= bytes;
        Self::of(bytes, taken.account.clone())
    }

    /// Holds a slot along with the bytes: what goes beyond the budget (one long line at a time) is bounded by slots.
    pub fn hold(&self, slot: OwnedSemaphorePermit) {
        self.taken().slot = Some(slot);
    }

    /// True if a slot is held.
    pub fn holds_slot(&self) -> bool {
        self.taken().slot.is_some()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let (Some(account), true) = (self.account.take(), self.bytes > 0) {
            account.give_back(self.bytes, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_counted_never_waits_and_has_the_first_that_becomes_free() {
        let budget = Budget::new(100);
        let read = budget.take(80).await;
        let body = budget.count(vec![0; 50]);
        assert_eq!(budget.used(), 80, "what was read");
        let more = budget.take(10);
        tokio::pin!(more);
        assert!(more.as_mut().now_or_never().is_none(), "30 beyond");
        let slice = body.slice(10..);
        drop(body);
        assert!(more.as_mut().now_or_never().is_none(), "a slice holds all of it");
        drop(read);
        let more = more.now_or_never().unwrap();
        assert_eq!(budget.used(), 10);
        assert!(budget.try_take(41).is_none());
        drop((slice, more));
        assert!(budget.try_take(101).is_some(), "all of it is free again");
    }

    #[tokio::test]
    async fn a_credit_gives_back_what_is_not_needed_and_what_is_split_off() {
        let budget = Budget::new(100);
        let credit = budget.take(1000).await;
        assert_eq!(budget.used(), 100);
        credit.shrink_to(70);
        credit.shrink_to(90);
        assert_eq!(budget.used(), 70);
        let part = credit.split(30);
        drop(credit);
        assert_eq!(budget.used(), 30);
        drop(part);
        assert_eq!(budget.used(), 0);
    }
}
