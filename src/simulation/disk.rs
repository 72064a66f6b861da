//! The state and the dead letters on a disk: what was written before the process died is there, all of it or nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::schedule::Step;
use super::world::World;
use crate::chunk::{Note, Partition, Position};
use crate::dead_letter::{DeadLetter, DeadLetterError, DeadLetters};
use crate::state::sqlite::SqliteState;
use crate::state::{Change, State, StateError};

/// What a [`State`] keeps of one pipeline.
#[derive(Debug, Default)]
pub(super) struct Tables {
    positions: BTreeMap<String, Position>,
    notes: BTreeMap<String, Vec<u8>>,
    counters: BTreeMap<String, u64>,
}

impl Tables {
    pub(super) fn apply(&mut self, changes: &[Change], counts: &[(&'static str, u64)]) {
        for change in changes {
            let partition = change.partition.to_string();
            match &change.note {
                Note::Keep => {}
                Note::Append(bytes) => self.notes.entry(partition.clone()).or_default().extend(bytes),
                Note::Clear => drop(self.notes.remove(&partition)),
            }
            self.positions.insert(partition, change.position.clone());
        }
        for (name, added) in counts {
            *self.counters.entry((*name).to_owned()).or_default() += added;
        }
    }

    pub(super) fn range(&self, first: &str, last: &str) -> Vec<(Partition, Position)> {
        let found = self
            .positions
            .range::<str, _>((std::ops::Bound::Included(first), std::ops::Bound::Included(last)));
        found.map(|(name, position)| (Partition::new(name), position.clone())).collect()
    }

    pub(super) fn notes(&self, partition: &Partition) -> Vec<u8> {
        self.notes.get(partition.as_str()).cloned().unwrap_or_default()
    }
}

/// The disk.
#[derive(Debug)]
pub(super) struct Disk {
    world: Arc<World>,
    tables: Mutex<Tables>,
}

impl Disk {
    pub(super) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, tables: Mutex::default() })
    }

    /// True if this version of an object was read to its end, and that is committed.
    pub(super) fn has_all_of(&self, key: &str, etag: &str) -> bool {
        let tables = self.tables.lock().unwrap();
        let word =
            |position: &Position, number| position.as_str().splitn(8, ' ').nth(number).map(str::to_owned);
        tables.positions.get(key).is_some_and(|position| {
            word(position, 7).is_some_and(|version| version == etag)
                && word(position, 1).is_some_and(|flags| flags.contains('d'))
        })
    }

    async fn slow(&self) {
        let world = &self.world;
        let millis = if world.strikes(&world.schedule.disk) { 0..2000 } else { 0..8 };
        world.pass(millis).await;
    }

    fn fails(&self, what: &str) -> bool {
        let fails = self.world.strikes(&self.world.schedule.disk) && self.world.chance(30);
        if fails {
            self.world.note(format!("the disk refuses to {what}"));
        }
        fails
    }

    fn read_error(&self) -> Result<(), StateError> {
        if self.fails("read") { Err(failed("read")) } else { Ok(()) }
    }
}

fn failed(action: &'static str) -> StateError {
    StateError::Database {
        action,
        path: "state.db".to_owned(),
        source: io::Error::other("EIO").into(),
        remedy: "wait",
    }
}

/// How many lines a position covers: its fifth word.
fn shipped(position: &Position) -> u64 {
    position.as_str().split(' ').nth(4).unwrap().parse().unwrap()
}

/// Checks that a position passes nothing that is not settled.
fn check(world: &World, change: &Change) {
    let Some(number) = change.partition.as_str().rsplit_once("auditlogs_").map(|(_, rest)| rest) else {
        return;
    };
    let object = format!("o{}", number.trim_end_matches(".json"));
    world.ledger().committed(&object, shipped(&change.position));
}

#[async_trait]
impl State for Disk {
    async fn range(
        &self,
        _namespace: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        self.slow().await;
        self.read_error()?;
        Ok(self.tables.lock().unwrap().range(first, last))
    }

    async fn positions(
        &self,
        _namespace: &str,
        partitions: Vec<Partition>,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        self.slow().await;
        self.read_error()?;
        let tables = self.tables.lock().unwrap();
        let position = |partition: Partition| {
            let name = partition.as_str();
            tables.range(name, name).pop()
        };
        Ok(partitions.into_iter().filter_map(position).collect())
    }

    async fn notes(&self, _namespace: &str, partition: &Partition) -> Result<Vec<Bytes>, StateError> {
        self.slow().await;
        self.read_error()?;
        Ok(vec![self.tables.lock().unwrap().notes(partition).into()])
    }

    async fn commit(
        &self,
        _namespace: &str,
        changes: Vec<Change>,
        counts: Vec<(&'static str, u64)>,
    ) -> Result<(), StateError> {
        self.world.step(Step::Committing).await;
        self.slow().await;
        if self.fails("commit") {
            return Err(failed("write"));
        }
        for change in &changes {
            check(&self.world, change);
            self.world.note(format!("commit {} {}", change.partition, change.position.as_str()));
        }
        self.tables.lock().unwrap().apply(&changes, &counts);
        self.world.step(Step::Committed).await;
        self.slow().await;
        Ok(())
    }

    async fn counters(&self, _namespace: &str) -> Result<Vec<(String, u64)>, StateError> {
        let tables = self.tables.lock().unwrap();
        Ok(tables.counters.iter().map(|(name, value)| (name.clone(), *value)).collect())
    }

    async fn key(&self) -> Result<[u8; 192], StateError> {
        self.slow().await;
        self.read_error()?;
        Ok([7; 192])
    }
}

#[async_trait]
impl DeadLetters for Disk {
    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        self.world.step(Step::KeepingLetters).await;
        self.slow().await;
        if self.fails("keep dead letters") {
            return Err(DeadLetterError { path: "dead".to_owned(), source: io::Error::other("ENOSPC") });
        }
        for letter in &letters {
            self.world.note(format!("dead letter: {}", letter.detail));
            self.world.ledger().bury(&letter.record, letter.origin.occurrence);
        }
        self.world.step(Step::KeptLetters).await;
        self.slow().await;
        Ok(())
    }
}

/// What the simulations rest on: the simulated state is like the real one.
#[tokio::test]
async fn the_disk_of_a_simulation_keeps_what_the_database_keeps() {
    let directory = tempfile::tempdir().unwrap();
    let (mut rng, mut tables) = (fastrand::Rng::with_seed(1), Tables::default());
    let state = SqliteState::open(directory.path()).unwrap();
    for _ in 0..60 {
        let mut changes = Vec::new();
        for _ in 0..rng.usize(1..4) {
            let bytes = vec![rng.u8(..); rng.usize(..3000)];
            let note = [Note::Keep, Note::Clear, Note::Append(bytes.into())][rng.usize(..3)].clone();
            let partition = Partition::new(["a", "b", "b/c", "c"][rng.usize(..4)]);
            changes.push(Change { partition, position: Position::new(&rng.u32(..).to_string()), note });
        }
        let counts = vec![("events_delivered", rng.u64(..9))];
        tables.apply(&changes, &counts);
        state.commit("n", changes, counts).await.unwrap();
        for (first, last) in [("", "z"), ("b", "b/c"), ("c", "c"), ("x", "z")] {
            assert_eq!(state.range("n", first, last).await.unwrap(), tables.range(first, last));
        }
        for name in ["a", "b", "b/c", "c"] {
            let partition = Partition::new(name);
            let kept: Vec<Bytes> = state.notes("n", &partition).await.unwrap();
            assert_eq!(kept.concat(), tables.notes(&partition), "{name}");
        }
    }
    let counted = state.counters("n").await.unwrap();
    assert_eq!(counted, tables.counters.into_iter().collect::<Vec<_>>());
}
