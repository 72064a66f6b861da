//! Objects that are being read, or read and not yet committed: none of them may be read a second time meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::chunk::{Partition, Position};

/// The open objects of a bucket.
///
/// ```text
///   begin ──► reading ──finished──► waiting for its last position ──committed──► closed
///                 └───────changed───────┴─ remembered, told by the one that closes it
/// ```
#[derive(Debug, Default)]
pub(super) struct OpenObjects {
    objects: Mutex<HashMap<Partition, Open>>,
    /// How many were opened so far.
    opened: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    /// How many were opened before it.
    number: u64,
    last: Option<Position>,
    committed: Option<Position>,
    finished: bool,
    changed: bool,
}

impl Open {
    fn closes(&self) -> bool {
        self.finished && self.last == self.committed
    }
}

/// What became of an object on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Still open.
    Open,
    /// Closed now.
    Closed,
    /// Closed now, and it changed while it was open: look at it again.
    ClosedChanged,
}

impl OpenObjects {
    /// Opens an object for reading; `false` if it is open already, which is remembered as a change.
    pub(super) fn begin(&self, partition: &Partition) -> bool {
        let mut objects = self.lock();
        if let Some(open) = objects.get_mut(partition) {
            open.changed = true;
            return false;
        }
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        objects.insert(partition.clone(), Open { number, ..Open::default() });
        true
    }

    /// Notes a position before its chunk is handed on.
    pub(super) fn handed_on(&self, partition: &Partition, position: &Position) {
        if let Some(open) = self.lock().get_mut(partition) {
            open.last = Some(position.clone());
        }
    }

    /// The reader is done with the object.
    pub(super) fn finished(&self, partition: &Partition) -> Closing {
        self.update(partition, |open| open.finished = true)
    }

    /// True if all that was handed on of an object is durable.
    pub(super) fn is_settled(&self, partition: &Partition) -> bool {
        self.lock().get(partition).is_none_or(|open| open.last == open.committed)
    }

    /// A position is durable.
    pub(super) fn committed(&self, partition: &Partition, position: &Position) -> Closing {
        self.update(partition, |open| open.committed = Some(position.clone()))
    }

    fn update(&self, partition: &Partition, change: impl FnOnce(&mut Open)) -> Closing {
        let mut objects = self.lock();
        let Some(open) = objects.get_mut(partition) else { return Closing::Open };
        change(open);
        if !open.closes() {
            return Closing::Open;
        }
        match objects.remove(partition) {
            Some(Open { changed: true, .. }) => Closing::ClosedChanged,
            _ => Closing::Closed,
        }
    }

    /// How many objects were opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// True if the first so many that were opened are closed, whatever has been opened since.
    pub(super) fn are_closed(&self, first: u64) -> bool {
        self.lock().values().all(|open| open.number >= first)
    }

    /// Number of open objects.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Partition, Open>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_open_until_its_last_position_is_durable() {
        let open = OpenObjects::default();
        let (object, first, last) = (Partition::new("o"), Position::new("1"), Position::new("2"));
        assert!(open.begin(&object));
        open.handed_on(&object, &first);
        assert_eq!(open.committed(&object, &first), Closing::Open, "still being read");
        open.handed_on(&object, &last);
        assert_eq!(open.finished(&object), Closing::Open, "the last position is not durable");
        assert!(!open.begin(&object), "a change while it is open");
        assert_eq!(open.committed(&object, &last), Closing::ClosedChanged);
        assert!(open.begin(&object));
        assert_eq!(open.finished(&object), Closing::Closed, "nothing was handed on");
        assert_eq!(open.count(), 0);
    }

    #[test]
    fn what_is_opened_later_is_not_waited_for() {
        let open = OpenObjects::default();
        let (first, second) = (Partition::new("1"), Partition::new("2"));
        open.begin(&first);
        let until = open.opened();
        open.begin(&second);
        assert!(!open.are_closed(until));
        open.finished(&first);
        assert!(open.are_closed(until) && !open.are_closed(open.opened()));
        open.begin(&first);
        assert!(open.are_closed(until), "opened again is opened later");
    }

    #[test]
    fn a_commit_that_overtakes_the_readers_end_is_not_lost() {
        let open = OpenObjects::default();
        let (object, last) = (Partition::new("o"), Position::new("1"));
        open.begin(&object);
        open.handed_on(&object, &last);
        assert_eq!(open.committed(&object, &last), Closing::Open);
        assert_eq!(open.finished(&object), Closing::Closed);
    }
}
