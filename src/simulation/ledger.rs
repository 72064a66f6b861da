//! Both ends of a simulation, written down as they happen, and what they must agree on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::schedule::{Fate, Schedule, request_id};

/// Lines of the journal that a failure shows.
const SHOWN: usize = 60;

/// An event that the collector has.
#[derive(Clone, Debug)]
struct Arrived {
    request: String,
    /// The life of the process that sent it last.
    life: usize,
    /// That life has not been told so.
    ambiguous: bool,
}

/// Who has what.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    arrived: HashMap<String, Arrived>,
    /// Event ids by the number of their object, of what the process knows to be delivered.
    settled: HashMap<String, BTreeSet<String>>,
    /// Dead letters by request id: occurrence numbers.
    dead: BTreeMap<String, BTreeSet<u32>>,
    /// The life that goes on; those that ended in order.
    life: usize,
    in_order: BTreeSet<usize>,
    /// Bytes of records that came once more since a life was killed.
    blamed: BTreeMap<usize, usize>,
    kills: usize,
    repeats: usize,
    journal: Vec<String>,
    violations: Vec<String>,
    digest: u64,
}

impl Ledger {
    /// Writes down what happened.
    pub(super) fn note(&mut self, what: String) {
        let line = format!("{:>10.3} {what}", super::clock::elapsed().as_secs_f64());
        self.digest = xxhash_rust::xxh3::xxh3_64_with_seed(line.as_bytes(), self.digest);
        self.journal.push(line);
    }

    /// A digest of all that happened, in its order.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn violation(&mut self, what: String) {
        self.note(format!("VIOLATION {what}"));
        self.violations.push(what);
    }

    pub(super) fn begin_life(&mut self) {
        self.life += 1;
        self.note(format!("life {} begins", self.life));
    }

    /// The life ended, and what was under way is settled and committed.
    pub(super) fn ended_in_order(&mut self) {
        self.in_order.insert(self.life);
    }

    /// The life ended wherever it was.
    pub(super) fn killed(&mut self) {
        self.kills += 1;
    }

    /// The life gave up: it need not have committed what it had been told last.
    pub(super) fn gave_up(&mut self) {
        self.note("gave up".to_owned());
    }

    pub(super) fn lives(&self) -> usize {
        self.life
    }

    pub(super) fn kills(&self) -> usize {
        self.kills
    }

    /// Events that came more than once.
    pub(super) fn repeats(&self) -> usize {
        self.repeats
    }

    pub(super) fn arrivals(&self) -> usize {
        self.arrived.len() + self.repeats
    }

    /// An event arrives at the collector; false if it is there already. Where the collector knows ids, that is all.
    pub(super) fn arrive(
        &mut self,
        keyed: bool,
        event_id: &str,
        request: &str,
        bytes: usize,
        ambiguous: bool,
    ) -> bool {
        let now = Arrived { request: request.to_owned(), life: self.life, ambiguous };
        let Some(before) = self.arrived.insert(event_id.to_owned(), now) else { return true };
        if keyed {
            return false;
        }
        self.repeats += 1;
        if before.request != request {
            self.violation(format!("{event_id} is the id of {} and of {request}", before.request));
        } else if before.ambiguous {
            // It had to be sent again.
        } else if before.life == self.life {
            self.violation(format!("{request} was sent twice, and the first answer had been clear"));
        } else if self.in_order.contains(&before.life) {
            self.violation(format!(
                "{request} was sent again after life {}, which had ended in order",
                before.life
            ));
        } else {
            *self.blamed.entry(before.life).or_default() += bytes;
        }
        false
    }

    /// The process is told that an event is in.
    pub(super) fn settle(&mut self, event_id: &str, request: &str) {
        if let Some(arrived) = self.arrived.get_mut(event_id) {
            arrived.ambiguous = false;
        }
        self.settled.entry(object_of(request).to_owned()).or_default().insert(event_id.to_owned());
    }

    /// A dead letter is on disk.
    pub(super) fn bury(&mut self, record: &[u8], occurrence: u32) {
        let line = String::from_utf8_lossy(record);
        self.dead.entry(request_id(&line).to_owned()).or_default().insert(occurrence);
    }

    /// A position of an object is being committed, by which so many of its lines are done with.
    pub(super) fn committed(&mut self, object: &str, lines: u64) {
        let settled = self.settled.get(object).map_or(0, BTreeSet::len);
        let dead = self.dead.iter().filter(|(request, _)| object_of(request) == object);
        let done = settled + dead.map(|(_, occurrences)| occurrences.len()).sum::<usize>();
        if lines > done as u64 {
            self.violation(format!("{lines} lines of {object} are committed, and only {done} are settled"));
        }
    }

    /// Whether all that must have arrived has, and nothing is missing among the dead letters.
    pub(super) fn is_complete(&self, schedule: &Schedule) -> bool {
        self.differences(schedule).is_empty()
    }

    /// What differs between what was written and what became of it.
    fn differences(&self, schedule: &Schedule) -> Vec<String> {
        let mut delivered: BTreeMap<&str, u32> = BTreeMap::new();
        for arrived in self.arrived.values() {
            *delivered.entry(&arrived.request).or_default() += 1;
        }
        let mut differences = Vec::new();
        for (request, (count, fate)) in &schedule.expected {
            let found = delivered.remove(request.as_str()).unwrap_or(0);
            let dead = self.dead.get(request).map_or(0, |occurrences| occurrences.iter().map(|_| 1).sum());
            let expected = match fate {
                Fate::Delivered => (*count, 0),
                Fate::DeadLetter => (0, *count),
            };
            if (found, dead) != expected {
                differences.push(format!(
                    "{request}: delivered {found} and dead-lettered {dead}, not {} and {}",
                    expected.0, expected.1
                ));
            }
        }
        differences.extend(delivered.keys().map(|request| format!("{request} was never written")));
        differences
    }

    /// Everything that is wrong; `None` if all is well.
    pub(super) fn verdict(&self, schedule: &Schedule) -> Option<String> {
        let mut wrong = self.violations.clone();
        wrong.extend(self.differences(schedule));
        let longest = 20_000;
        for (life, bytes) in &self.blamed {
            if *bytes > schedule.memory + longest {
                wrong.push(format!("{bytes} bytes came again after life {life}, more than were in flight"));
            }
        }
        if wrong.is_empty() {
            return None;
        }
        let journal = self.journal[self.journal.len().saturating_sub(SHOWN)..].join("\n");
        wrong.truncate(10);
        Some(format!("{}\nlast of the journal:\n{journal}", wrong.join("\n")))
    }

    /// All that happened.
    pub(super) fn journal(&self) -> &[String] {
        &self.journal
    }
}

/// The object of a request id: `o3` of `o3-17`.
fn object_of(request: &str) -> &str {
    request.split('-').next().unwrap_or_default()
}
