//! Buffers that are used again: a pipeline fills megabytes at a time, and memory fresh from the system costs a page
//! fault and a clearing every 4 KiB, a tenth of all CPU time before there was this.

use std::ops::{Deref, DerefMut, RangeInclusive};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes that lie ready at most; what comes back beyond them is freed. A quarter as many took more memory, not less: what is
/// freed and taken again and again scatters over the allocator's arenas, which keep it.
const MAX_FREE_BYTES: usize = 32 << 20;
/// The buffers that are kept. The allocator is good at smaller ones; a larger one was blown up by a giant line.
const KEPT_BYTES: RangeInclusive<usize> = 64 << 10..=4 << 20;

/// The buffers of a pipeline that nobody fills at the moment.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// An empty buffer with room for this many bytes, and not very much more.
    pub fn take(&self, capacity: usize) -> Buffer {
        let capacity = rounded(capacity);
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of those that fit the one used last, which the caches still know.
        let fits = capacity..=capacity.saturating_add(capacity / 4);
        let fit = free.iter().rposition(|buffer| fits.contains(&buffer.capacity()));
        let bytes = fit.map(|at| free.remove(at));
        drop(free);
        Buffer { bytes: bytes.unwrap_or_else(|| Vec::with_capacity(capacity)), pool: self.clone() }
    }

    fn put_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ready: usize = free.iter().map(Vec::capacity).sum();
        if KEPT_BYTES.contains(&buffer.capacity()) && ready + buffer.capacity() <= MAX_FREE_BYTES {
            free.push(buffer);
        }
    }
}

/// The next of few sizes, four to a doubling: needs that are nearly alike can take each other's buffers.
fn rounded(capacity: usize) -> usize {
    if capacity < *KEPT_BYTES.start() {
        return capacity;
    }
    capacity.next_multiple_of(capacity.next_power_of_two() / 8)
}

/// A growing run of bytes that goes back to its pool when it is dropped.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Buffer {
    /// Its content, to be kept for as long as somebody needs it. Where that is not most of what the buffer takes, it is
    /// copied: a budget counts the content, so what is held must not be much more.
    pub fn freeze(self) -> Bytes {
        match self.bytes.len() < self.bytes.capacity() / 4 * 3 {
            true => Bytes::copy_from_slice(&self.bytes),
            false => Bytes::from_owner(self),
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: Pool::default() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.put_back(std::mem::take(&mut self.bytes));
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(pool: &Pool) -> Vec<usize> {
        pool.0.lock().unwrap().iter().map(Vec::capacity).collect()
    }

    #[test]
    fn a_buffer_is_used_again_once_nobody_holds_its_content() {
        let pool = Pool::default();
        let mut buffer = pool.take(1 << 20);
        buffer.resize(1 << 20, 7);
        let content = buffer.freeze();
        let slice = content.slice(..5);
        drop(content);
        assert!(free(&pool).is_empty(), "a slice still holds it");
        drop(slice);
        assert_eq!(free(&pool), [1 << 20]);
        let again = pool.take(1_000_000);
        assert!(again.is_empty() && again.capacity() == 1 << 20);
        assert!(free(&pool).is_empty());
    }

    #[test]
    fn a_small_content_does_not_hold_a_large_buffer() {
        let pool = Pool::default();
        let mut buffer = pool.take(1 << 20);
        buffer.extend_from_slice(b"little");
        assert_eq!(buffer.freeze(), b"little".as_slice());
        let mut buffer = pool.take(1 << 20);
        buffer.resize(700_000, 7);
        let content = buffer.freeze();
        assert_eq!((content.len(), free(&pool)), (700_000, vec![1 << 20]), "two thirds of it do not either");
        drop(content);
        assert_eq!(free(&pool), [1 << 20]);
        assert_eq!(pool.take(600 << 10).capacity(), 640 << 10, "nor does a smaller need take it");
    }

    #[test]
    fn what_lies_ready_is_bounded() {
        let pool = Pool::default();
        let held: Vec<_> = (0..40).map(|_| pool.take(1 << 20)).collect();
        drop(held);
        assert_eq!(free(&pool), [1 << 20; 32]);
        let pool = Pool::default();
        drop([pool.take(KEPT_BYTES.end() + 1), pool.take(KEPT_BYTES.start() - 1)]);
        assert!(free(&pool).is_empty());
    }
}
