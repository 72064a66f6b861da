//! Which positions may be committed: the settled prefix of each partition.
//!
//! ```text
//!   partition   a ── b ── c ── d        tracked in reading order
//!               ✓    ✓    ·    ✓        settled in any order
//!               └─ committable          c holds d back
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use crate::batch::Sequence;
use crate::chunk::Partition;
use crate::state::Change;

/// Chunks that are read and not committed. `P` rides along with each and is given back with it.
#[derive(Debug)]
pub struct Tracker<P> {
    partitions: HashMap<Partition, VecDeque<Entry<P>>>,
    partition_of: HashMap<Sequence, Partition>,
    /// Partitions that may have something to commit.
    touched: Vec<Partition>,
    /// When each was read. Sequences are given in reading order.
    read_at: BTreeMap<Sequence, Instant>,
}

#[derive(Debug)]
struct Entry<P> {
    sequence: Sequence,
    change: Change,
    /// Events that are not settled; `None` until they are counted.
    open: Option<usize>,
    /// Events settled before they were counted.
    settled_early: usize,
    payload: P,
}

impl<P> Default for Tracker<P> {
    fn default() -> Self {
        Self {
            partitions: HashMap::new(),
            partition_of: HashMap::new(),
            touched: Vec::new(),
            read_at: BTreeMap::new(),
        }
    }
}

impl<P> Tracker<P> {
    /// Takes in a chunk. Called in reading order.
    pub fn track(&mut self, sequence: Sequence, change: Change, read_at: Instant, payload: P) {
        self.partition_of.insert(sequence, change.partition.clone());
        self.read_at.insert(sequence, read_at);
        let entry = Entry { sequence, change, open: None, settled_early: 0, payload };
        self.partitions.entry(entry.change.partition.clone()).or_default().push_back(entry);
    }

    /// Says how many events a chunk holds; gives what rides along with it.
    pub fn expect(&mut self, sequence: Sequence, events: usize) -> Option<&mut P> {
        let entry = self.entry(sequence)?;
        entry.open = Some(events.saturating_sub(entry.settled_early));
        Some(&mut entry.payload)
    }

    /// Counts events of a chunk as delivered or dead-lettered.
    pub fn settle(&mut self, sequence: Sequence, events: usize) {
        if let Some(entry) = self.entry(sequence) {
            match &mut entry.open {
                Some(open) => *open = open.saturating_sub(events),
                None => entry.settled_early += events,
            }
        }
    }

    fn entry(&mut self, sequence: Sequence) -> Option<&mut Entry<P>> {
        let partition = self.partition_of.get(&sequence)?;
        self.touched.push(partition.clone());
        self.partitions.get_mut(partition)?.iter_mut().find(|entry| entry.sequence == sequence)
    }

    /// Takes out the settled prefix of each partition: changes in order, and what rode along with them.
    pub fn take_committable(&mut self) -> (Vec<Change>, Vec<P>) {
        let (mut changes, mut payloads) = (Vec::new(), Vec::new());
        for partition in std::mem::take(&mut self.touched) {
            let Some(entries) = self.partitions.get_mut(&partition) else { continue };
            while entries.front().is_some_and(|entry| entry.open == Some(0)) {
                let Some(entry) = entries.pop_front() else { break };
                self.partition_of.remove(&entry.sequence);
                self.read_at.remove(&entry.sequence);
                changes.push(entry.change);
                payloads.push(entry.payload);
            }
            if entries.is_empty() {
                self.partitions.remove(&partition);
            }
        }
        (changes, payloads)
    }

    /// When the oldest uncommitted chunk was read.
    pub fn oldest(&self) -> Option<Instant> {
        self.read_at.first_key_value().map(|(_, read_at)| *read_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::chunk::{Note, Position};

    fn change(partition: usize, position: usize) -> Change {
        Change {
            partition: Partition::new(&partition.to_string()),
            position: Position::new(&position.to_string()),
            note: Note::Keep,
        }
    }

    /// Chunks as `(partition, events)`, and the order in which their events settle.
    fn runs() -> impl Strategy<Value = (Vec<(usize, usize)>, Vec<usize>)> {
        prop::collection::vec((0usize..3, 0usize..4), 1..20).prop_flat_map(|chunks| {
            let settles: Vec<usize> =
                chunks.iter().enumerate().flat_map(|(index, (_, events))| vec![index; *events]).collect();
            (Just(chunks), Just(settles).prop_shuffle())
        })
    }

    proptest! {
        /// No committed position passes an unsettled chunk of its partition, all are committed in reading order, and
        /// when everything is settled everything is committed.
        #[test]
        fn what_is_committed_is_the_settled_prefix_of_each_partition((chunks, settles) in runs(), late in 0usize..20) {
            let mut tracker = Tracker::default();
            let start = Instant::now();
            for (index, (partition, _)) in chunks.iter().enumerate() {
                tracker.track(Sequence(index as u64), change(*partition, index), start, index);
            }
            let mut open: Vec<usize> = chunks.iter().map(|(_, events)| *events).collect();
            let mut counted = vec![false; chunks.len()];
            let mut committed = Vec::new();
            let mut check = |tracker: &mut Tracker<usize>, open: &[usize], counted: &[bool]| {
                let (changes, payloads) = tracker.take_committable();
                for (change, index) in changes.iter().zip(&payloads) {
                    prop_assert_eq!(change.position.as_str(), index.to_string());
                    let partition = chunks[*index].0;
                    for (before, (other, _)) in chunks.iter().enumerate().take(*index + 1) {
                        prop_assert!(*other != partition || (open[before] == 0 && counted[before]));
                    }
                    prop_assert!(committed.iter().all(|done: &usize| chunks[*done].0 != partition || done < index));
                    committed.push(*index);
                }
                Ok(())
            };
            for (step, index) in settles.iter().enumerate() {
                if step >= late && !counted[*index] {
                    counted[*index] = true;
                    tracker.expect(Sequence(*index as u64), chunks[*index].1);
                }
                open[*index] -= 1;
                tracker.settle(Sequence(*index as u64), 1);
                check(&mut tracker, &open, &counted)?;
            }
            for (index, (_, events)) in chunks.iter().enumerate() {
                if !counted[index] {
                    counted[index] = true;
                    tracker.expect(Sequence(index as u64), *events);
                    check(&mut tracker, &open, &counted)?;
                }
            }
            prop_assert_eq!(committed.len(), chunks.len());
            prop_assert!(tracker.oldest().is_none());
        }
    }
    #[test]
    fn the_oldest_is_the_one_that_was_read_first_of_those_that_are_left() {
        let (mut tracker, start) = (Tracker::default(), Instant::now());
        let at = |seconds| start + std::time::Duration::from_secs(seconds);
        for sequence in 0..3 {
            tracker.track(Sequence(sequence), change(0, 0), at(sequence), ());
        }
        assert_eq!(tracker.oldest(), Some(at(0)));
        for sequence in [1, 0] {
            tracker.expect(Sequence(sequence), 1);
            tracker.settle(Sequence(sequence), 1);
            tracker.take_committable();
        }
        assert_eq!(tracker.oldest(), Some(at(2)));
    }

    #[test]
    fn nothing_is_kept_of_what_was_committed_while_an_older_chunk_of_another_partition_is_not() {
        let (mut tracker, start) = (Tracker::default(), Instant::now());
        tracker.track(Sequence(0), change(0, 0), start, ());
        for sequence in 1..1000 {
            tracker.track(Sequence(sequence), change(1, 0), start, ());
            tracker.expect(Sequence(sequence), 0);
            tracker.take_committable();
        }
        assert_eq!((tracker.read_at.len(), tracker.partition_of.len(), tracker.partitions.len()), (1, 1, 1));
    }
}
