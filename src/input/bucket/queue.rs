//! What was found and not yet read: tells how much lies ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::input::Backlog;

/// Totals over all objects that were found and not yet read to their end.
#[derive(Debug, Default)]
pub(super) struct Queue {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Queue {
    pub(super) fn backlog(&self) -> Backlog {
        let (objects, bytes) = (self.objects.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        Backlog { objects, bytes, open: 0 }
    }
}

/// One object's part of the [`Queue`]: shrinks as it is read, gone when dropped.
#[derive(Debug)]
pub(super) struct Queued {
    queue: Arc<Queue>,
    bytes: AtomicU64,
}

impl Queued {
    /// Adds an object of this many bytes.
    pub(super) fn new(queue: &Arc<Queue>, bytes: u64) -> Self {
        queue.objects.fetch_add(1, Ordering::Relaxed);
        queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { queue: Arc::clone(queue), bytes: AtomicU64::new(bytes) }
    }

    /// So many bytes of it were read. One reader at a time calls this.
    pub(super) fn read(&self, bytes: u64) {
        // An object that is read again, or has grown, has no more to give than was added.
        let bytes = bytes.min(self.bytes.load(Ordering::Relaxed));
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.read(u64::MAX);
        self.queue.objects.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_ahead_shrinks_as_it_is_read_and_is_gone_with_its_object() {
        let queue = Arc::<Queue>::default();
        let (first, second) = (Queued::new(&queue, 100), Queued::new(&queue, 50));
        first.read(30);
        assert_eq!(queue.backlog(), Backlog { objects: 2, bytes: 120, open: 0 });
        first.read(500);
        drop(first);
        assert_eq!(queue.backlog(), Backlog { objects: 1, bytes: 50, open: 0 });
        drop(second);
        assert_eq!(queue.backlog(), Backlog::default());
    }
}
