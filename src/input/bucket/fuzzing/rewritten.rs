//! One object that is rewritten at will, and what is read of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::chunked::ChunkedStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::{Semaphore, mpsc};

use crate::budget::Budget;
use crate::chunk::{Chunk, Note, Partition, Position};
use crate::input::bucket::fingerprint::{self, Key};
use crate::input::bucket::layout::Place;
use crate::input::bucket::object::{Found, ObjectReader};
use crate::input::bucket::open::OpenObjects;
use crate::input::bucket::position::{ObjectPosition, Plan, Version, plan};
use crate::input::bucket::turns::Turns;
use crate::input::{Read, Resume};
use crate::state::{Change, State, StateError};
use crate::time::Millis;

/// Positions and notes in memory.
#[derive(Debug, Default)]
struct Kept {
    rows: Mutex<HashMap<Partition, (Position, Vec<u8>)>>,
}

#[async_trait]
impl State for Kept {
    async fn range(
        &self,
        _: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        let rows = self.rows.lock().unwrap();
        let within = rows.iter().filter(|(partition, _)| (first..=last).contains(&partition.as_str()));
        Ok(within.map(|(partition, (position, _))| (partition.clone(), position.clone())).collect())
    }

    async fn positions(
        &self,
        _: &str,
        partitions: Vec<Partition>,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        let rows = self.rows.lock().unwrap();
        let known = partitions.into_iter().filter_map(|partition| {
            let (position, _) = rows.get(&partition)?;
            Some((partition, position.clone()))
        });
        Ok(known.collect())
    }

    async fn notes(&self, _: &str, partition: &Partition) -> Result<Vec<Bytes>, StateError> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.get(partition).map(|(_, notes)| vec![notes.clone().into()]).unwrap_or_default())
    }

    async fn commit(
        &self,
        _: &str,
        changes: Vec<Change>,
        _: Vec<(&'static str, u64)>,
    ) -> Result<(), StateError> {
        let mut rows = self.rows.lock().unwrap();
        for change in changes {
            let row = rows.entry(change.partition).or_default();
            row.0 = change.position;
            match change.note {
                Note::Keep => {}
                Note::Append(bytes) => row.1.extend_from_slice(&bytes),
                Note::Clear => row.1.clear(),
            }
        }
        Ok(())
    }

    async fn counters(&self, _: &str) -> Result<Vec<(String, u64)>, StateError> {
        Ok(Vec::new())
    }

    async fn key(&self) -> Result<[u8; 192], StateError> {
        Ok(KEY)
    }
}

const KEY: [u8; 192] = [7; 192];
const OBJECT: &str = "logs/a.json";
/// Chunks that a reader may hand on before any is taken.
const MOST_CHUNKS: usize = 4096;

/// One object, and the reader of it.
struct Bench {
    store: Arc<InMemory>,
    state: Arc<Kept>,
    reader: ObjectReader,
    chunks: mpsc::Receiver<Result<Read, crate::input::InputError>>,
}

impl Bench {
    fn new(chunk_bytes: usize, verify_whole_below: u64, piece_bytes: usize) -> Self {
        let (store, state) = (Arc::new(InMemory::new()), Arc::new(Kept::default()));
        let (reads, chunks) = mpsc::channel(MOST_CHUNKS);
        let reader = ObjectReader {
            store: Arc::new(ChunkedStore::new(Arc::clone(&store) as Arc<dyn ObjectStore>, piece_bytes)),
            cloud: None,
            key: Key::new(KEY),
            resume: Resume::new(Arc::clone(&state) as Arc<dyn State>, "audit/out"),
            budget: Budget::new(64 << 20),
            // Chunks are taken only when all is read: none may wait for another.
            long_line: Arc::new(Semaphore::new(MOST_CHUNKS)),
            open: Arc::new(OpenObjects::default()),
            reads,
            chunk_bytes,
            reading: Turns::new(1, 1),
            large: Turns::new(1, 1),
            fingerprints: fingerprint::Room::default(),
            read_ahead: None,
            max_line_bytes: 1 << 20,
            verify_whole_below,
            partial_line_wait: None,
            documents: false,
            workspaces: None,
            until: None,
        };
        Self { store, state, reader, chunks }
    }

    async fn put(&self, content: Vec<u8>) {
        self.store.put(&Path::from(OBJECT), PutPayload::from(content)).await.unwrap();
    }

    /// Reads the object and commits the first of the chunks; gives the lines of those, with their numbers, and whether
    /// there were no more.
    async fn read(&mut self, commits: usize, verify: bool) -> (Vec<(Vec<u8>, u32)>, bool) {
        let meta = self.store.head(&Path::from(OBJECT)).await.unwrap();
        let found = Found { verify, ..Found::new(&meta, Place::default()) };
        let now = Millis::new(0).unwrap();
        // The state does not move while it reads: what was read is committed after it.
        self.reader.read(found, now).await.unwrap();
        let mut lines = Vec::new();
        let mut number = 0;
        while let Ok(read) = self.chunks.try_recv() {
            let Ok(Read::Chunk(chunk)) = read else { panic!("{read:?}") };
            number += 1;
            if number > commits {
                continue;
            }
            lines.extend(
                chunk.records.iter().map(|record| (chunk.record(record).to_vec(), record.occurrence)),
            );
            let Chunk { partition, position, note, .. } = chunk;
            let change = Change { partition, position, note };
            self.state.commit("audit/out", vec![change], Vec::new()).await.unwrap();
        }
        (lines, number <= commits)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// The lines that objects here consist of; long ones, so that seams end within them.
fn text_of(line: u8) -> Vec<u8> {
    format!("{{\"line\":{line},\"pad\":\"{}\"}}", "y".repeat(usize::from(line) * 700)).into_bytes()
}

const LINES: u8 = 12;

/// `data`: how the object is read, and then what is done to it, each step followed by a look at it, of which a part may
/// be lost. Every line must end up shipped as often as it ever stood in one version, with numbers from 0 on.
pub fn tail(data: &[u8]) {
    let Some((&[chunk, small, pieces], steps)) = data.split_first_chunk() else { return };
    block_on(async {
        let mut bench = Bench::new(
            64 << (chunk % 12),
            if small & 1 == 0 { 0 } else { 64 << (small % 14) },
            64 << (pieces % 12),
        );
        let terminated = small & 2 == 0;
        let mut version: Vec<u8> = Vec::new();
        let mut most = [0u32; LINES as usize];
        let mut shipped: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
        for step in steps.chunks_exact(3).take(24) {
            let (act, at, line) = (step[0], usize::from(step[1]), step[2] % LINES);
            match act % 6 {
                0 | 1 => version.extend(std::iter::repeat_n(line, 1 + at % 4)),
                2 => version.insert(at % (version.len() + 1), line),
                3 if !version.is_empty() => drop(version.remove(at % version.len())),
                4 => version.reverse(),
                _ => {}
            }
            let mut content: Vec<u8> =
                version.iter().flat_map(|line| [text_of(*line), b"\n".to_vec()].concat()).collect();
            if !terminated {
                content.pop();
            }
            bench.put(content).await;
            let commits = if act & 0x80 == 0 { usize::MAX } else { usize::from(act >> 4 & 3) };
            let (lines, whole) = bench.read(commits, act & 0x40 > 0).await;
            for (text, number) in lines {
                shipped.entry(text).or_default().push(number);
            }
            if !whole {
                continue;
            }
            for line in 0..LINES {
                let now = version.iter().filter(|other| **other == line).count();
                let most = &mut most[usize::from(line)];
                *most = (*most).max(u32::try_from(now).unwrap());
                let mut numbers = shipped.get(&text_of(line)).cloned().unwrap_or_default();
                numbers.sort_unstable();
                // A version of which a part was read may have held more of a line than any that was read in whole.
                let all: Vec<u32> = (0..(*most).max(u32::try_from(numbers.len()).unwrap())).collect();
                assert_eq!(numbers, all, "line {line} of {version:?}");
            }
        }
    });
}

/// `data`: the size of the object, and its position and notes, a NUL between them.
pub fn state(data: &[u8]) {
    let Some((&[size, small], rest)) = data.split_first_chunk() else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let notes = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let prints: Vec<u64> = fingerprint::decode(std::slice::from_ref(&notes)).collect();
    assert_eq!(fingerprint::decode(&[fingerprint::encode(&prints)]).collect::<Vec<_>>(), prints);
    let position = Position::new(text);
    if let Some(known) = ObjectPosition::parse(&position) {
        assert_eq!(ObjectPosition::parse(&known.encode()).as_ref(), Some(&known));
        let version = Version { name: known.version.clone(), size: u64::from(size) };
        match plan(Some(&known), &version, u64::from(small)) {
            Plan::Append => assert!(!known.compressed && version.size >= known.offset),
            Plan::Nothing => assert!(known.done),
            Plan::Fresh => assert!(known.folded),
            Plan::Compare => {}
        }
    }
    block_on(async {
        let mut bench = Bench::new(256, u64::from(small), 64);
        bench
            .put((0..size % 40).flat_map(|line| [text_of(line % 2), b"\n".to_vec()].concat()).collect())
            .await;
        let change = Change { partition: Partition::new(OBJECT), position, note: Note::Append(notes) };
        bench.state.commit("audit/out", vec![change], Vec::new()).await.unwrap();
        let (_, whole) = bench.read(usize::MAX, false).await;
        assert!(whole);
        // Wherever that went on, now all is read.
        let (lines, _) = bench.read(usize::MAX, false).await;
        assert_eq!(lines, []);
    });
}
