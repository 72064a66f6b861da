//! What was read of each partition, what of it is settled, and what of that the broker may be told.
//!
//! ```text
//!   read ──► open ──settled──► held ──asked for──► confirmed by the broker: its bytes are free again
//!              │                 │
//!              └── revoked: the term is over ──► settled later, and told nobody
//! ```
//!
//! A *term* is the time from a partition's assignment to its revocation. What was read in an earlier term may still be
//! delivered, but its offset is no longer ours to commit: by then another instance may have come further, and would be
//! moved back. The same is true where offsets fall back within a term, as those of a topic that was made anew or cut off:
//! then a term begins with the first message of the new ones, or the old offset would skip as many of them. The bytes of
//! what the broker has not confirmed stay taken from the budget: so what a crash makes
//! come again is bounded by `memory`, however seldom offsets are committed.

use std::collections::{HashMap, VecDeque};

use crate::budget::Credit;
use crate::chunk::Partition;

/// The partitions of one pipeline.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lanes: HashMap<Partition, Lane>,
    terms: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// Chunks in reading order, of this term and of earlier ones.
    open: VecDeque<Open>,
    /// Absent while the partition is not ours.
    term: Option<Term>,
}

#[derive(Debug)]
struct Open {
    /// Offset after its last message.
    next: i64,
    term: u64,
    credit: Credit,
}

#[derive(Debug)]
struct Term {
    number: u64,
    /// Offset after the last message that was read.
    read: i64,
    /// Settled and not confirmed, in order.
    held: VecDeque<(i64, Credit)>,
    /// The last offset that the broker was asked to commit and has not refused.
    asked: i64,
}

impl Term {
    fn new(number: u64) -> Self {
        Self { number, read: -1, held: VecDeque::new(), asked: -1 }
    }

    fn settled(&self) -> Option<i64> {
        self.held.back().map(|(next, _)| *next).filter(|next| *next > self.asked)
    }
}

impl Ledger {
    /// A partition is ours from now on.
    pub(super) fn assigned(&mut self, partition: &Partition) {
        self.terms += 1;
        self.lanes.entry(partition.clone()).or_default().term = Some(Term::new(self.terms));
    }

    /// A partition is ours no longer; gives the offset to leave with, if the broker does not know it yet.
    pub(super) fn revoked(&mut self, partition: &Partition) -> Option<i64> {
        let lane = self.lanes.get_mut(partition)?;
        let term = lane.term.take()?;
        if lane.open.is_empty() {
            self.lanes.remove(partition);
        }
        // Also what it was asked for: the answer may still be on its way, and may be a refusal.
        term.held.back().map(|(next, _)| *next)
    }

    /// A chunk was read that ends before the offset `next`.
    pub(super) fn read(&mut self, partition: &Partition, next: i64, credit: Credit) {
        if let Some(lane) = self.lanes.get_mut(partition)
            && let Some(term) = &mut lane.term
        {
            if next <= term.read {
                self.terms += 1;
                *term = Term::new(self.terms);
            }
            term.read = next;
            lane.open.push_back(Open { next, term: term.number, credit });
        }
    }

    /// The oldest open chunk of a partition, which ends before `next`, is settled and durable.
    pub(super) fn settled(&mut self, partition: &Partition, next: i64) {
        let Some(lane) = self.lanes.get_mut(partition) else { return };
        let Some(open) = lane.open.pop_front_if(|open| open.next == next) else { return };
        match &mut lane.term {
            Some(term) if term.number == open.term => term.held.push_back((open.next, open.credit)),
            Some(_) => {}
            None if lane.open.is_empty() => {
                self.lanes.remove(partition);
            }
            None => {}
        }
    }

    /// What the broker is to be asked to commit; it counts as asked for.
    pub(super) fn due(&mut self) -> Vec<(Partition, i64)> {
        let mut due = Vec::new();
        for (partition, lane) in &mut self.lanes {
            if let Some(term) = &mut lane.term
                && let Some(next) = term.settled()
            {
                term.asked = next;
                due.push((partition.clone(), next));
            }
        }
        due
    }

    /// The broker has committed an offset: what lies before it cannot come again.
    pub(super) fn confirmed(&mut self, partition: &Partition, next: i64) {
        let Some(term) = self.lanes.get_mut(partition).and_then(|lane| lane.term.as_mut()) else { return };
        while term.held.pop_front_if(|(held, _)| *held <= next).is_some() {}
    }

    /// The broker has refused to commit: it is asked again.
    pub(super) fn refused(&mut self, partition: &Partition) {
        if let Some(term) = self.lanes.get_mut(partition).and_then(|lane| lane.term.as_mut()) {
            term.asked = -1;
        }
    }

    /// Partitions that are ours.
    pub(super) fn owned(&self) -> usize {
        self.lanes.values().filter(|lane| lane.term.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::{Just, Strategy};

    use super::*;
    use crate::budget::Budget;

    fn partition() -> Partition {
        Partition::new("audit/0")
    }

    fn credit(budget: &Budget) -> Credit {
        budget.try_take(1).unwrap()
    }

    #[test]
    fn bytes_stay_taken_until_the_broker_has_confirmed() {
        let (mut ledger, budget) = (Ledger::default(), Budget::new(10));
        ledger.assigned(&partition());
        ledger.read(&partition(), 5, credit(&budget));
        ledger.read(&partition(), 9, credit(&budget));
        assert!(ledger.due().is_empty(), "nothing is settled");
        ledger.settled(&partition(), 5);
        assert_eq!(budget.used(), 2);
        assert_eq!(ledger.due(), [(partition(), 5)]);
        assert!(ledger.due().is_empty(), "asked for once");
        ledger.confirmed(&partition(), 5);
        assert_eq!(budget.used(), 1);
    }

    #[test]
    fn a_refused_commit_is_asked_for_again() {
        let (mut ledger, budget) = (Ledger::default(), Budget::new(10));
        ledger.assigned(&partition());
        ledger.read(&partition(), 5, credit(&budget));
        ledger.settled(&partition(), 5);
        assert_eq!(ledger.due(), [(partition(), 5)]);
        ledger.refused(&partition());
        assert_eq!(ledger.due(), [(partition(), 5)]);
    }

    #[test]
    fn a_revoked_partition_is_left_with_what_is_settled_and_what_settles_later_is_told_nobody() {
        let (mut ledger, budget) = (Ledger::default(), Budget::new(10));
        ledger.assigned(&partition());
        ledger.read(&partition(), 5, credit(&budget));
        ledger.read(&partition(), 9, credit(&budget));
        ledger.settled(&partition(), 5);
        assert_eq!(ledger.revoked(&partition()), Some(5));
        ledger.settled(&partition(), 9);
        assert!(ledger.due().is_empty());
        assert_eq!((budget.used(), ledger.lanes.len()), (0, 0), "and nothing is kept of it");
    }

    #[test]
    fn what_an_earlier_term_left_behind_moves_no_later_one() {
        let (mut ledger, budget) = (Ledger::default(), Budget::new(10));
        ledger.assigned(&partition());
        ledger.read(&partition(), 5, credit(&budget));
        assert_eq!(ledger.revoked(&partition()), None);
        // Another instance came to 100 before the partition came back.
        ledger.assigned(&partition());
        ledger.read(&partition(), 105, credit(&budget));
        ledger.settled(&partition(), 5);
        assert!(ledger.due().is_empty());
        ledger.settled(&partition(), 105);
        assert_eq!(ledger.due(), [(partition(), 105)]);
    }

    #[test]
    fn a_topic_that_was_made_anew_is_committed_by_its_new_offsets_and_not_by_the_old_ones() {
        let (mut ledger, budget) = (Ledger::default(), Budget::new(10));
        ledger.assigned(&partition());
        for next in [100, 200, 300] {
            ledger.read(&partition(), next, credit(&budget));
        }
        ledger.settled(&partition(), 100);
        assert_eq!(ledger.due(), [(partition(), 100)]);
        ledger.settled(&partition(), 200);
        // The offset is out of range, and the client goes on with the oldest message there is.
        ledger.read(&partition(), 7, credit(&budget));
        ledger.confirmed(&partition(), 100);
        assert!(ledger.due().is_empty(), "200 would skip messages of the new topic");
        ledger.settled(&partition(), 300);
        assert!(ledger.due().is_empty());
        ledger.settled(&partition(), 7);
        assert_eq!(ledger.due(), [(partition(), 7)]);
        ledger.confirmed(&partition(), 7);
        assert_eq!(budget.used(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Assign,
        Revoke,
        Read,
        Settle,
        Commit,
        Answer(bool),
    }

    proptest! {
        /// The broker is told offsets of the present term only, each at least as far as the one before, and when all is
        /// settled and confirmed no byte is taken.
        #[test]
        fn the_broker_hears_of_the_present_term_and_never_goes_back(steps in prop::collection::vec(prop_oneof![
            1 => Just(Step::Assign),
            1 => Just(Step::Revoke),
            4 => Just(Step::Read),
            4 => Just(Step::Settle),
            2 => Just(Step::Commit),
            2 => (0u8..2).prop_map(|ok| Step::Answer(ok == 0)),
        ], 1..60)) {
            let (mut ledger, budget, partition) = (Ledger::default(), Budget::new(1000), partition());
            let (mut next, mut first_of_term, mut told, mut owned) = (0i64, 0i64, -1i64, false);
            let mut open = VecDeque::new();
            let mut asked = None;
            for step in steps {
                match step {
                    Step::Assign => {
                        ledger.assigned(&partition);
                        // Someone else has come further in the meantime.
                        next += 1000;
                        (first_of_term, told, owned, asked) = (next, -1, true, None);
                    }
                    Step::Revoke => {
                        if let Some(left) = ledger.revoked(&partition) {
                            prop_assert!(owned && left > first_of_term && left >= told);
                        }
                        (owned, asked) = (false, None);
                    }
                    Step::Read if owned => {
                        next += 1;
                        open.push_back(next);
                        ledger.read(&partition, next, credit(&budget));
                    }
                    Step::Settle => if let Some(next) = open.pop_front() {
                        ledger.settled(&partition, next);
                    },
                    Step::Commit => for (_, offset) in ledger.due() {
                        prop_assert!(owned && offset > first_of_term && offset >= told);
                        told = offset;
                        asked = Some(offset);
                    },
                    Step::Answer(ok) => if let Some(offset) = asked.take() {
                        if ok { ledger.confirmed(&partition, offset) } else { ledger.refused(&partition) }
                    },
                    Step::Read => {}
                }
            }
            for next in open { ledger.settled(&partition, next); }
            for (partition, offset) in ledger.due() { ledger.confirmed(&partition, offset); }
            ledger.confirmed(&partition, i64::MAX);
            prop_assert_eq!(budget.used(), 0);
            prop_assert_eq!(ledger.owned(), usize::from(owned));
        }
    }
}
