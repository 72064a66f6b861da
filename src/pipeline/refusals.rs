//! Tells bad events from a wrong setting: a collector that refuses one event after the other and takes none is not fed
//! with bad events alone. Turned into dead letters, they would be the whole backlog.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Events refused one after the other since the last that was taken.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// So many are believed to be bad; 0: any number.
    most: usize,
    in_a_row: AtomicUsize,
    /// How often an event was taken.
    taken: AtomicUsize,
}

impl Refusals {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, in_a_row: AtomicUsize::new(0), taken: AtomicUsize::new(0) }
    }

    /// An event was taken.
    pub(crate) fn end(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an event was taken: if more often than before, the setting is not wrong for all.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// So many at once are not believed even right after an event was taken.
    pub(crate) fn never_believes(&self, events: usize) -> bool {
        self.most != 0 && events > self.most
    }

    /// So many more were refused. False if that is no longer believed: then they are not counted either.
    pub(crate) fn believed(&self, events: usize) -> bool {
        let believe = |in_a_row: usize| {
            Some(in_a_row + events).filter(|in_a_row| self.most == 0 || *in_a_row <= self.most)
        };
        self.in_a_row.fetch_update(Ordering::Relaxed, Ordering::Relaxed, believe).is_ok()
    }

    /// What to tell whoever has to look, at so many more that were refused.
    pub(crate) fn message(&self, events: usize, reason: &str) -> String {
        let in_a_row = self.in_a_row.load(Ordering::Relaxed) + events;
        format!(
            "the collector refused {in_a_row} events in a row and takes none, the last ones because: {reason}; correct \
             the output's settings, or set `hold_after_refusals` to 0 if the events are to become dead letters"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_in_a_row_are_believed_up_to_the_limit_and_again_after_an_event_was_taken() {
        let refusals = Refusals::new(3);
        assert!(refusals.believed(1) && refusals.believed(2) && !refusals.believed(1));
        refusals.end();
        assert!(!refusals.believed(4) && refusals.believed(3));
        assert!(refusals.message(2, "no such field").contains("refused 5 events in a row"));
        assert!(refusals.never_believes(4) && !refusals.never_believes(3));
        assert_eq!(refusals.taken(), 1);
        let trusting = Refusals::new(0);
        assert!((0..1000).all(|_| trusting.believed(100)) && !trusting.never_believes(100));
    }
}
