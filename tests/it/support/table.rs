//! The system table input by itself, read as the engine reads it, in virtual time.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use auditferry::budget::Budget;
use auditferry::chunk::{Chunk, ReadCounts};
use auditferry::input::{Input, InputContext, InputError, Read, Resume, Shared};
use auditferry::registry;
use auditferry::state::sqlite::SqliteState;
use auditferry::state::{Change, State};
use auditferry::time::Millis;
use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::warehouse::{CLIENT, WAREHOUSE, Workspace};

thread_local! {
    static STARTED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// When every test begins.
pub(crate) fn noon() -> Millis {
    Millis::parse("2026-01-05T12:00:00Z").unwrap()
}

/// The time of day in a test: noon, and what has passed of the runtime's time. Each test has a thread of its own.
pub(crate) fn now() -> Millis {
    let started = STARTED.with(|started| {
        let known = started.get().unwrap_or_else(Instant::now);
        started.set(Some(known));
        known
    });
    noon().plus(started.elapsed())
}

/// Stops the clock: from here on it moves only when a test moves it, and not while sockets are waited for.
pub(crate) struct Frozen {
    _awake: Sender<()>,
    _blocked: JoinHandle<()>,
}

impl Frozen {
    pub(crate) fn start() -> Self {
        tokio::time::pause();
        now();
        let (awake, wait) = channel::<()>();
        // Time does not move by itself while something blocks.
        let blocked = tokio::task::spawn_blocking(move || {
            let _ = wait.recv();
        });
        Self { _awake: awake, _blocked: blocked }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// Moves the clock on.
pub(crate) async fn pass(time: Duration) {
    // Timers fire on whole milliseconds after their time.
    tokio::time::advance(time + Duration::from_millis(2)).await;
}

/// A state directory, what was read into it, and how the input is configured.
pub(crate) struct Shelf {
    state: Arc<SqliteState>,
    _directory: TempDir,
    settings: Value,
    pub(crate) memory: usize,
    pub(crate) once: bool,
    /// The ids of the records that were committed, in order.
    pub(crate) ids: Vec<String>,
    pub(crate) records: Vec<Value>,
    pub(crate) counts: ReadCounts,
    /// The last read failed.
    failed: bool,
}

impl Shelf {
    /// With OAuth at this workspace.
    pub(crate) fn new(workspace: &Workspace) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(SqliteState::open(directory.path()).unwrap());
        let settings = json!({
            "url": workspace.url(), "warehouse_id": WAREHOUSE, "client_id": CLIENT.0, "client_secret": CLIENT.1,
            "proxy": "none"
        });
        Self {
            state,
            _directory: directory,
            settings,
            memory: 32 << 20,
            once: false,
            ids: Vec::new(),
            records: Vec::new(),
            counts: ReadCounts::default(),
            failed: false,
        }
    }

    /// Sets a key of the configuration; null takes it away.
    pub(crate) fn set(&mut self, key: &str, value: Value) -> &mut Self {
        let table = self.settings.as_object_mut().unwrap();
        if value.is_null() {
            table.remove(key);
        } else {
            table.insert(key.to_owned(), value);
        }
        self
    }

    /// Starts the input.
    pub(crate) fn open(&self) -> Box<dyn Input> {
        let kind = registry::INPUTS.iter().find(|kind| kind.name == "system_table").unwrap();
        let context = InputContext {
            name: "table".to_owned(),
            resume: Resume::new(Arc::clone(&self.state) as Arc<dyn State>, "table/out"),
            budget: Budget::new(self.memory),
            once: self.once,
            until: None,
            shared: Shared::default(),
            base: PathBuf::new(),
            clock: now,
        };
        (kind.build)(self.settings.clone(), context).unwrap()
    }

    /// Commits chunks, as the engine does once a collector has them.
    pub(crate) async fn commit(&mut self, input: &dyn Input, chunks: impl IntoIterator<Item = Chunk>) {
        let mut changes = Vec::new();
        for chunk in chunks {
            for record in &chunk.records {
                let record: Value = serde_json::from_slice(chunk.record(record)).unwrap();
                self.ids.push(record["event_id"].as_str().unwrap().to_owned());
                self.records.push(record);
            }
            self.counts.records_skipped += chunk.counts.records_skipped;
            self.counts.records_duplicate += chunk.counts.records_duplicate;
            self.counts.bytes_fetched += chunk.counts.bytes_fetched;
            let Chunk { partition, position, note, .. } = chunk;
            changes.push(Change { partition, position, note });
        }
        self.state.commit("table/out", changes.clone(), Vec::new()).await.unwrap();
        for change in changes {
            input.committed(&change.partition, &change.position).await;
        }
    }

    /// Reads and commits until there is nothing more for now.
    pub(crate) async fn poll(&mut self, input: &dyn Input) -> Result<(), InputError> {
        let (mut read, mut held) = (Vec::new(), 0);
        let result = loop {
            // Half of the memory is the answer's: what is not committed must leave room for another chunk.
            if held >= self.memory / 8 {
                held = 0;
                self.commit(input, read.drain(..)).await;
            }
            match input.read().await {
                Ok(Read::Chunk(chunk)) => {
                    held += chunk.payload.len();
                    read.push(chunk);
                }
                // That it can be read again is told before what was read.
                Ok(Read::Idle) if std::mem::take(&mut self.failed) => {}
                Ok(Read::Idle | Read::End) => break Ok(()),
                Ok(Read::Trouble { error, .. } | Read::Withheld(error)) | Err(error) => {
                    self.failed = true;
                    break Err(error);
                }
            }
        };
        self.commit(input, read).await;
        result
    }

    /// Reads so many chunks, or to the end, without a commit: as before a crash.
    pub(crate) async fn read_uncommitted(&self, input: &dyn Input, chunks: usize) -> usize {
        for read in 0..chunks {
            let Ok(Read::Chunk(_)) = input.read().await else { return read };
        }
        chunks
    }

    /// Reads some chunks and dies: of each partition some are committed, first things first, and of one more than of
    /// another, as it comes in the engine.
    pub(crate) async fn crash(&mut self, input: Box<dyn Input>, chunks: usize, rng: &mut Rng) {
        let (mut read, mut held) = (Vec::new(), 0);
        while read.len() < chunks && held < self.memory / 8 {
            let Ok(Read::Chunk(chunk)) = input.read().await else { break };
            held += chunk.payload.len();
            read.push(chunk);
        }
        let mut cut = HashSet::new();
        for chunk in read {
            if cut.contains(&chunk.partition) || rng.u8(..4) == 0 {
                cut.insert(chunk.partition);
            } else {
                self.commit(&*input, [chunk]).await;
            }
        }
    }

    /// Everything the state keeps: bytes of notes, and positions.
    pub(crate) async fn kept(&self) -> (usize, Vec<String>) {
        let positions = self.state.range("table/out", "", "~").await.unwrap();
        let mut bytes = 0;
        for (partition, _) in &positions {
            bytes += self
                .state
                .notes("table/out", partition)
                .await
                .unwrap()
                .iter()
                .map(|note| note.len())
                .sum::<usize>();
        }
        (bytes, positions.iter().map(|(_, position)| position.as_str().to_owned()).collect())
    }

    /// Fails unless exactly the table's rows were read, each once.
    pub(crate) fn has_each_once(&self, ids: impl IntoIterator<Item = String>) {
        let mut found = self.ids.clone();
        found.sort_unstable();
        let mut expected: Vec<String> = ids.into_iter().collect();
        expected.sort_unstable();
        assert_eq!(found.len(), expected.len());
        assert!(found == expected);
    }
}
