//! The memory of a pipeline, in bytes: who reads waits for room in it, and what is made of what was read counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::buffer::Pool;

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
    /// Chunks whose records wait compressed.
    compressed: AtomicUsize,
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
            compressed: AtomicUsize::new(0),
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

    /// Records are compressed: a collector is far away or slow.
    pub(crate) fn keep_compressed(&self) {
        self.account.compressed.fetch_add(1, Ordering::Relaxed);
    }

    /// They are not needed any more.
    pub(crate) fn release_compressed(&self) {
        self.account.compressed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Chunks whose records are kept compressed.
    pub(crate) fn compressed(&self) -> usize {
        self.account.compressed.load(Ordering::Relaxed)
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
