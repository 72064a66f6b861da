//! The rest of the way in pieces: reading what is new of an object, keeping account of chunks, forming and compressing
//! a body.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use auditferry::batch::{Batch, Frame, Frames, Framing, Sequence};
use auditferry::budget::Budget;
use auditferry::buffer::Pool;
use auditferry::chunk::{Chunk, Note, Partition, Position};
use auditferry::compress::Encoding;
use auditferry::generate::{Bucket, Options};
use auditferry::input::{Input, InputContext, Read, Resume, Shared, bucket};
use auditferry::kept::KeptRecords;
use auditferry::pipeline::Tracker;
use auditferry::state::{Change, State, StateError};
use auditferry::time::Date;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Lines of the object, of about 1 KB each.
const LINES: u64 = 20_000;
/// Chunks that are kept account of, and events of each.
const CHUNKS: u64 = 1000;
const EVENTS: usize = 1000;
/// Lines of a body.
const BATCH_LINES: usize = 1000;
const KEY: &str = "workspaceId=7/date=2026-01-31/auditlogs_1.json";

/// Positions and notes in memory: the disk is another benchmark's.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Rows>>);

type Rows = HashMap<Partition, (Position, Vec<Bytes>)>;

impl Kept {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Partition, (Position, Vec<Bytes>)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, partition: Partition, position: Position, note: Note) {
        self.with(|kept| {
            let (last, notes) = kept.entry(partition).or_insert_with(|| (position.clone(), Vec::new()));
            *last = position;
            match note {
                Note::Keep => {}
                Note::Append(bytes) => notes.push(bytes),
                Note::Clear => notes.clear(),
            }
        });
    }
}

#[async_trait]
impl State for Kept {
    async fn range(
        &self,
        _: &str,
        _: &str,
        _: &str,
    ) -> std::result::Result<Vec<(Partition, Position)>, StateError> {
        Ok(Vec::new())
    }

    async fn positions(
        &self,
        _: &str,
        asked: Vec<Partition>,
    ) -> std::result::Result<Vec<(Partition, Position)>, StateError> {
        Ok(self.with(|kept| {
            let position = |partition: &Partition| kept.get(partition).map(|(position, _)| position.clone());
            asked.into_iter().filter_map(|asked| Some((asked.clone(), position(&asked)?))).collect()
        }))
    }

    async fn notes(&self, _: &str, partition: &Partition) -> std::result::Result<Vec<Bytes>, StateError> {
        Ok(self.with(|kept| kept.get(partition).map(|(_, notes)| notes.clone()).unwrap_or_default()))
    }

    async fn commit(
        &self,
        _: &str,
        changes: Vec<Change>,
        _: Vec<(&'static str, u64)>,
    ) -> std::result::Result<(), StateError> {
        for Change { partition, position, note } in changes {
            self.keep(partition, position, note);
        }
        Ok(())
    }

    async fn counters(&self, _: &str) -> std::result::Result<Vec<(String, u64)>, StateError> {
        Ok(Vec::new())
    }

    async fn key(&self) -> std::result::Result<[u8; 192], StateError> {
        Ok([7; 192])
    }
}

fn lines(count: u64) -> Vec<Vec<u8>> {
    let date = Date::parse("2026-01-31").unwrap_or(Date::EPOCH);
    Bucket::new(Options::new(3, 1, count, date)).map(|bucket| bucket.lines().collect()).unwrap_or_default()
}

/// Reads what is new below a directory, as a single run does; the state takes each chunk's position. Gives back how many
/// lines were new.
async fn read(directory: &Path, state: Kept) -> Result<usize> {
    let context = InputContext {
        name: "audit".to_owned(),
        resume: Resume::new(Arc::new(state.clone()), "audit/out"),
        budget: Budget::new(64 << 20),
        once: true,
        until: None,
        shared: Shared::default(),
        base: PathBuf::new(),
        // The object's date is open: its fingerprints are kept.
        clock: || Date::parse("2026-01-31").unwrap_or(Date::EPOCH).start(),
    };
    let input: Box<dyn Input> = (bucket::KIND.build)(json!({ "url": directory }), context)?;
    let mut new = 0;
    loop {
        match input.read().await? {
            Read::Chunk(Chunk { partition, position, note, records, .. }) => {
                new += records.len();
                state.keep(partition.clone(), position.clone(), note);
                input.committed(&partition, &position).await;
            }
            Read::Trouble { error, .. } | Read::Withheld(error) => return Err(error.into()),
            Read::Idle => {}
            Read::End => return Ok(new),
        }
    }
}

fn tail(criterion: &mut Criterion) {
    let (Ok(directory), Ok(runtime)) = (tempfile::tempdir(), Runtime::new()) else { return };
    let (path, mut lines) = (directory.path().join(KEY), lines(LINES));
    let write = |lines: &[Vec<u8>]| {
        let content: Vec<u8> = lines.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect();
        let written =
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, &content));
        assert!(written.is_ok(), "{written:?}");
        content.len() as u64
    };
    let read = |state: &Kept| runtime.block_on(read(directory.path(), state.clone())).unwrap_or_default();
    let mut group = criterion.benchmark_group("tail");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(write(&lines)));
    group.bench_function("a new object: read, lines, fingerprints", |bencher| {
        bencher.iter(|| assert_eq!(read(&Kept::default()) as u64, LINES));
    });
    let known = Kept::default();
    read(&known);
    lines.insert(lines.len() / 3, b"{\"inserted\":true}".to_vec());
    group.throughput(Throughput::Bytes(write(&lines)));
    group.bench_function("a line inserted: read whole, compared", |bencher| {
        // A copy of what was known: each time it is new.
        let copy = || Kept(Arc::new(Mutex::new(known.with(|kept| kept.clone()))));
        bencher.iter_batched(copy, |state| assert_eq!(read(&state), 1), BatchSize::PerIteration);
    });
    group.finish();
}

/// Chunks of two objects, each of which is settled in two parts.
fn tracker(criterion: &mut Criterion) {
    let changes: Vec<Change> = (0..CHUNKS)
        .map(|number| Change {
            partition: Partition::new(if number % 2 == 0 { "one" } else { "other" }),
            position: Position::new(&number.to_string()),
            note: Note::Keep,
        })
        .collect();
    let mut group = criterion.benchmark_group("tracker");
    group.throughput(Throughput::Elements(CHUNKS));
    group.bench_function("a chunk is tracked, settled and committed", |bencher| {
        bencher.iter(|| {
            let (mut tracker, mut committed) = (Tracker::default(), 0);
            let mut sequences = (0..).map(Sequence);
            // As many under way at once as the memory has room for.
            for changes in changes.chunks(32) {
                let numbers: Vec<Sequence> = sequences.by_ref().take(changes.len()).collect();
                for (number, change) in numbers.iter().zip(changes) {
                    tracker.track(*number, change.clone(), Instant::now(), ());
                    tracker.expect(*number, EVENTS);
                }
                for number in &numbers {
                    tracker.settle(*number, EVENTS / 2);
                    tracker.settle(*number, EVENTS / 2);
                }
                committed += tracker.take_committable().0.len();
            }
            assert_eq!(committed, changes.len());
        });
    });
    group.finish();
}

/// Frames are put into a batch, joined into a body, and compressed.
fn batch(criterion: &mut Criterion) {
    let lines = lines(BATCH_LINES as u64);
    let (pool, mut ends) = (Pool::default(), Vec::new());
    let mut buffer = pool.take(lines.iter().map(Vec::len).sum());
    for line in &lines {
        buffer.extend_from_slice(line);
        buffer.push(b'\n');
        let end = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        // A number of actions, mixed.
        ends.push(Frame { end, kind: ends.len() as u64 * 7 % 30, ..Frame::default() });
    }
    let bytes = buffer.len() as u64;
    let (sequence, records) = (Sequence(0), KeptRecords::default());
    let (frames, encoded) = (Arc::new(Frames { sequence, records, frames: ends }), Bytes::from_owner(buffer));
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Bytes(bytes));
    for encoding in [Encoding::None, Encoding::Gzip, Encoding::Zstd] {
        group.bench_function(format!("formed, and compressed by {encoding:?}"), |bencher| {
            bencher.iter(|| {
                let mut batch = Batch::default();
                // Runs of a chunk, as they come where several share a body.
                for start in (0..lines.len()).step_by(100) {
                    let range = start..lines.len().min(start + 100);
                    batch.push(&frames, &encoded, range);
                }
                let batch = if encoding.gains_by_order() { batch.grouped() } else { batch };
                let body = batch.body(b"", Framing::LINES);
                black_box(encoding.compress(&body, &pool))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = rest_of_the_way;
    // Short runs: the whole takes half a minute.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = tail, tracker, batch
}
criterion_main!(rest_of_the_way);
