//! Buffers that are used again: a pipeline fills megabytes at a time, and memory fresh from the system costs a page
//! fault and a clearing every 4 KiB, a tenth of all CPU time before there was this.

use std::ops::{Deref, DerefMut, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// Bytes that lie ready at most, those that small contents lie in counted. A quarter as many took more memory, not less: what
/// is freed and taken again and again scatters over the allocator's arenas, which keep it.
const MAX_READY_BYTES: usize = 40 << 20;
/// The buffers that are kept. The allocator is good at smaller ones; a larger one was blown up by a giant line.
const KEPT_BYTES: RangeInclusive<usize> = 64 << 10..=4 << 20;

/// The buffers of a pipeline that nobody fills at the moment.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Ready>>);

/// Buffers that lie ready, and those of them that small contents are laid in until somebody needs the whole buffer: where a
/// collector is slow, what waits for it takes the buffers that are filled less often for that.
///
/// ```text
///   put_back ──► free ──────────────► take
///                  │ ▲
///              lay ▼ │ no content is held any more
///                shelves
/// ```
#[derive(Debug, Default)]
struct Ready {
    /// The one used last is the last.
    free: Vec<Vec<u8>>,
    shelves: Vec<Shelf>,
}

/// A buffer with contents side by side.
#[derive(Debug)]
struct Shelf {
    capacity: usize,
    room: BytesMut,
}

impl Shelf {
    /// `None` if the buffer is used.
    fn of(buffer: Vec<u8>) -> Option<Self> {
        let capacity = buffer.capacity();
        Some(Self { capacity, room: Bytes::from(buffer).try_into_mut().ok()? })
    }

    /// Lays something there, if there is room.
    fn lay(&mut self, content: &[u8]) -> Option<Bytes> {
        // Where nothing is held any more, all of it is room.
        if !self.room.try_reclaim(content.len()) {
            return None;
        }
        self.room.extend_from_slice(content);
        Some(self.room.split().freeze())
    }

    fn is_empty(&mut self) -> bool {
        self.room.try_reclaim(self.capacity)
    }
}

impl Ready {
    fn bytes(&self) -> usize {
        let free: usize = self.free.iter().map(Vec::capacity).sum();
        let shelves: usize = self.shelves.iter().map(|shelf| shelf.capacity).sum();
        free + shelves
    }

    /// Of those that fit the one used last, which the caches still know.
    fn take(&mut self, fits: &RangeInclusive<usize>) -> Option<Vec<u8>> {
        let fit = self.free.iter().rposition(|buffer| fits.contains(&buffer.capacity()))?;
        Some(self.free.remove(fit))
    }

    /// Makes free buffers of the empty shelves.
    fn clear_shelves(&mut self) {
        let empty = self.shelves.extract_if(.., |shelf| shelf.is_empty());
        self.free.extend(empty.map(|shelf| Vec::from(shelf.room)));
    }

    fn lay(&mut self, content: &[u8]) -> Option<Bytes> {
        if let Some(laid) = self.shelves.iter_mut().find_map(|shelf| shelf.lay(content)) {
            return Some(laid);
        }
        // The one that was not used for longest.
        let at = self.free.iter().position(|buffer| buffer.capacity() >= content.len())?;
        let mut shelf = Shelf::of(self.free.remove(at))?;
        let laid = shelf.lay(content);
        self.shelves.push(shelf);
        laid
    }
}

impl Pool {
    /// An empty buffer with room for this many bytes, and not very much more.
    pub fn take(&self, capacity: usize) -> Buffer {
        let capacity = rounded(capacity);
        let fits = capacity..=capacity.saturating_add(capacity / 4);
        let mut ready = self.ready();
        let fit = ready.take(&fits).or_else(|| {
            ready.clear_shelves();
            ready.take(&fits)
        });
        drop(ready);
        Buffer { bytes: fit.unwrap_or_else(|| Vec::with_capacity(capacity)), pool: self.clone() }
    }

    /// A copy, where possible in a buffer that lies ready. However long it is held, no more lies in such buffers than may lie
    /// ready.
    fn copy(&self, content: &[u8]) -> Bytes {
        let laid = self.ready().lay(content);
        laid.unwrap_or_else(|| Bytes::copy_from_slice(content))
    }

    fn put_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut ready = self.ready();
        if KEPT_BYTES.contains(&buffer.capacity()) && ready.bytes() + buffer.capacity() <= MAX_READY_BYTES {
            ready.free.push(buffer);
        }
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            true => self.pool.copy(&self.bytes),
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
        pool.ready().free.iter().map(Vec::capacity).collect()
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
    fn small_contents_lie_side_by_side_in_a_buffer_that_nobody_needs() {
        let pool = Pool::default();
        drop(pool.take(128 << 10));
        let lay = |byte: u8| {
            let mut buffer = Buffer { bytes: Vec::new(), pool: pool.clone() };
            buffer.reserve_exact(60_000);
            buffer.resize(40_000, byte);
            buffer.freeze()
        };
        let [first, second, third] = [lay(1), lay(2), lay(3)];
        assert_eq!((free(&pool).len(), pool.ready().shelves.len()), (0, 1));
        assert_eq!(first.as_ptr().wrapping_add(40_000), second.as_ptr());
        let beyond = lay(4);
        for (laid, byte) in [(&first, 1), (&second, 2), (&third, 3), (&beyond, 4)] {
            assert!(laid.len() == 40_000 && laid.iter().all(|at| *at == byte));
        }
        assert_eq!(pool.ready().bytes(), 128 << 10, "there was no room for the last one");
        let place = first.as_ptr();
        drop((first, second));
        let other = pool.take(128 << 10);
        assert_ne!(other.as_ptr(), place, "it is in use until the last is gone");
        drop((third, other));
        let again = lay(5);
        assert_eq!(again.as_ptr(), place, "what nobody holds any more makes room");
        drop(again);
        let (one, two) = (pool.take(128 << 10), pool.take(128 << 10));
        assert!(one.as_ptr() == place || two.as_ptr() == place, "and is a buffer like any other");
        assert_eq!([one.capacity(), two.capacity()], [128 << 10; 2]);
        assert_eq!(pool.ready().bytes(), 0);
    }

    #[test]
    fn what_lies_ready_is_bounded() {
        let pool = Pool::default();
        let held: Vec<_> = (0..50).map(|_| pool.take(1 << 20)).collect();
        drop(held);
        assert_eq!(free(&pool), [1 << 20; 40]);
        let pool = Pool::default();
        drop([pool.take(KEPT_BYTES.end() + 1), pool.take(KEPT_BYTES.start() - 1)]);
        assert!(free(&pool).is_empty());
    }
}
