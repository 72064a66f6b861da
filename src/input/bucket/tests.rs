use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use object_store::chunked::ChunkedStore;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::object::Found;
use super::position::ObjectPosition;
use super::*;
use crate::budget::Budget;
use crate::buffer::Pool;
use crate::chunk::{Chunk, Note};
use crate::input::{Resume, Shared};
use crate::state::sqlite::SqliteState;
use crate::state::{Change, State, StateError};
use crate::time::Millis;

mod ahead;
mod azure_blobs;
mod breaking_off;
mod comparing;
mod folded;
mod hinted;
mod passes;
mod rewritten;
mod weak;

use breaking_off::BreakingOff;

const KEY: &str = "logs/workspaceId=7/date=2026-01-05/auditlogs_1.json";

fn noon() -> Millis {
    Millis::parse("2026-01-05T12:00:00Z").unwrap()
}

/// The input over any store, as if that were S3, with the prefix `logs` and chunks of so many bytes.
pub(crate) fn over(
    store: Arc<dyn ObjectStore>,
    settings: Value,
    context: InputContext,
    chunk_bytes: usize,
) -> Arc<dyn Input> {
    Arc::new(bucket_over(store, settings, context, chunk_bytes))
}

fn bucket_over(
    store: Arc<dyn ObjectStore>,
    settings: Value,
    context: InputContext,
    chunk_bytes: usize,
) -> Bucket {
    let checked = parse(settings).unwrap();
    let workspaces = azure::workspaces(&checked.config).unwrap();
    let store = Store { store, prefix: Path::from("logs"), scheme: Scheme::S3, root: None, cloud: None };
    let (retry_interval, most_again) = (RETRY_INTERVAL, MOST_AGAIN);
    let queue = None;
    // Parts of a chunk, so that small objects are read in ranges.
    let range_bytes = chunk_bytes as u64 / 4;
    Bucket::new(Plan {
        checked,
        store,
        workspaces,
        queue,
        context,
        chunk_bytes,
        range_bytes,
        retry_interval,
        most_again,
    })
}

/// A bucket in memory and the state of a pipeline that reads it.
struct Bench {
    store: Arc<InMemory>,
    state: Arc<SqliteState>,
    _directory: tempfile::TempDir,
    settings: Value,
    clock: fn() -> Millis,
    /// Bytes the store hands over at once.
    piece_bytes: usize,
    /// The budget.
    memory: usize,
    /// What stands before the store.
    wrapped: Option<Arc<dyn ObjectStore>>,
}

/// What one run gave.
#[derive(Debug, Default)]
struct Outcome {
    /// Lines by object, in the order they came, with their occurrence numbers.
    lines: BTreeMap<String, Vec<(String, u32)>>,
    malformed: Vec<String>,
    fetched: u64,
    mismatches: u64,
    skipped: u64,
}

impl Outcome {
    fn texts(&self) -> Vec<&str> {
        self.lines.values().flatten().map(|(text, _)| text.as_str()).collect()
    }
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(SqliteState::open(directory.path()).unwrap());
        let settings = serde_json::json!({ "url": "s3://memory/logs", "verify_whole_below": 0 });
        Self {
            store: Arc::default(),
            state,
            _directory: directory,
            settings,
            clock: noon,
            piece_bytes: 1 << 20,
            memory: 4 << 20,
            wrapped: None,
        }
    }

    async fn put(&self, key: &str, content: impl AsRef<[u8]>) {
        self.store.put(&Path::from(key), PutPayload::from(content.as_ref().to_vec())).await.unwrap();
    }

    fn bucket(&self) -> Bucket {
        let context = InputContext {
            name: "audit".to_owned(),
            resume: Resume::new(Arc::clone(&self.state) as Arc<dyn State>, "audit/out"),
            budget: Budget::new(self.memory),
            once: true,
            until: None,
            shared: Shared::default(),
            base: PathBuf::new(),
            clock: self.clock,
        };
        let store = match &self.wrapped {
            Some(store) => Arc::clone(store),
            None => {
                Arc::new(ChunkedStore::new(Arc::clone(&self.store) as Arc<dyn ObjectStore>, self.piece_bytes))
            }
        };
        let chunk_bytes = chunk_bytes(&context, &parse(self.settings.clone()).unwrap().config);
        bucket_over(store, self.settings.clone(), context, chunk_bytes)
    }

    /// A reader of objects, without the rest of the input.
    fn reader(&self, reads: mpsc::Sender<Result<Read, InputError>>) -> ObjectReader {
        ObjectReader {
            store: Arc::clone(&self.store) as Arc<dyn ObjectStore>,
            cloud: None,
            key: Key::new([7; 192]),
            resume: Resume::new(Arc::clone(&self.state) as Arc<dyn State>, "audit/out"),
            budget: Budget::new(1 << 20),
            long_line: Arc::new(Semaphore::new(1)),
            open: Arc::default(),
            reads,
            chunk_bytes: 64 << 10,
            reading: Turns::new(1, 1),
            large: Turns::new(1, 1),
            fingerprints: Room::default(),
            read_ahead: None,
            max_line_bytes: 1 << 20,
            verify_whole_below: 0,
            partial_line_wait: None,
            documents: false,
            until: None,
            workspaces: None,
        }
    }

    /// Changes what is committed for the object.
    async fn recommit(&self, change: impl FnOnce(&mut ObjectPosition), note: Note) {
        let resume = Resume::new(Arc::clone(&self.state) as Arc<dyn State>, "audit/out");
        let committed = resume.position(&Partition::new(KEY)).await.unwrap().unwrap();
        let mut position = ObjectPosition::parse(&committed).unwrap();
        change(&mut position);
        let change = Change { partition: Partition::new(KEY), position: position.encode(), note };
        self.state.commit("audit/out", vec![change], Vec::new()).await.unwrap();
    }

    async fn run(&self) -> Outcome {
        self.run_and_commit(usize::MAX).await
    }

    /// Reads all there is; commits only the first chunks, as if the process died then.
    async fn run_and_commit(&self, commits: usize) -> Outcome {
        let bucket = self.bucket();
        let mut outcome = Outcome::default();
        let mut chunks = 0;
        loop {
            match bucket.read().await.unwrap() {
                Read::Chunk(chunk) => {
                    chunks += 1;
                    if chunks > commits {
                        return outcome;
                    }
                    take_in(&chunk, &mut outcome);
                    let Chunk { partition, position, note, .. } = chunk;
                    let change = Change { partition: partition.clone(), position: position.clone(), note };
                    self.state.commit("audit/out", vec![change], Vec::new()).await.unwrap();
                    bucket.committed(&partition, &position).await;
                }
                Read::Trouble { error, .. } | Read::Withheld(error) => panic!("{error}"),
                Read::Idle => {}
                Read::End => return outcome,
            }
        }
    }
}

fn take_in(chunk: &Chunk, outcome: &mut Outcome) {
    for record in &chunk.records {
        let text = String::from_utf8_lossy(chunk.record(record)).into_owned();
        outcome.lines.entry(chunk.partition.to_string()).or_default().push((text, record.occurrence));
    }
    outcome.malformed.extend(chunk.malformed.iter().map(|malformed| malformed.reason.to_owned()));
    outcome.fetched += chunk.counts.bytes_fetched;
    outcome.mismatches += chunk.counts.prefix_mismatches;
    outcome.skipped += chunk.counts.records_skipped;
}

/// Lines of about 1 KB: `n` of them, from `from` on.
fn lines(from: usize, n: usize) -> String {
    (from..from + n).map(|line| format!("{{\"line\":{line},\"pad\":\"{}\"}}\n", "x".repeat(1000))).collect()
}

#[tokio::test]
async fn an_appended_object_costs_its_seam_and_what_is_new() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 1000)).await;
    assert_eq!(bench.run().await.texts().len(), 1000);
    bench.put(KEY, lines(0, 1010)).await;
    let second = bench.run().await;
    assert_eq!(second.texts().len(), 10);
    assert!(second.texts()[0].contains("\"line\":1000"));
    let new = lines(1000, 10).len() as u64;
    assert!(second.fetched <= new + position::SEAM_BYTES as u64, "{} bytes", second.fetched);
    assert_eq!(bench.run().await.fetched, 0, "nothing has changed");
}

/// A state that cannot be read the first time.
struct Stumbling {
    state: Arc<SqliteState>,
    stumbled: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl State for Stumbling {
    async fn range(
        &self,
        namespace: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        self.state.range(namespace, first, last).await
    }

    async fn positions(
        &self,
        namespace: &str,
        partitions: Vec<Partition>,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        self.state.positions(namespace, partitions).await
    }

    async fn notes(&self, namespace: &str, partition: &Partition) -> Result<Vec<bytes::Bytes>, StateError> {
        self.state.notes(namespace, partition).await
    }

    async fn commit(
        &self,
        namespace: &str,
        changes: Vec<Change>,
        counts: Vec<(&'static str, u64)>,
    ) -> Result<(), StateError> {
        self.state.commit(namespace, changes, counts).await
    }

    async fn counters(&self, namespace: &str) -> Result<Vec<(String, u64)>, StateError> {
        self.state.counters(namespace).await
    }

    async fn key(&self) -> Result<[u8; 192], StateError> {
        if !self.stumbled.swap(true, Ordering::Relaxed) {
            let source = std::io::Error::other("locked").into();
            let path = "state.db".to_owned();
            return Err(StateError::Database { action: "read", path, source, remedy: "try again" });
        }
        self.state.key().await
    }
}

#[tokio::test]
async fn a_state_that_cannot_be_read_at_the_start_is_tried_again() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 1)).await;
    let bucket = bench.bucket();
    let state = Stumbling { state: Arc::clone(&bench.state), stumbled: false.into() };
    if let Some(plan) = bucket.plan.lock().unwrap().as_mut() {
        plan.context.resume = Resume::new(Arc::new(state), "audit/out");
    }
    assert!(matches!(bucket.read().await, Err(InputError::State(_))));
    assert!(matches!(bucket.read().await, Ok(Read::Chunk(_) | Read::Idle)));
}

#[tokio::test]
async fn equal_lines_are_numbered_and_an_added_one_goes_on_counting() {
    let bench = Bench::new();
    bench.put(KEY, "{\"a\":1}\n{\"a\":1}\n{\"b\":1}\n").await;
    let numbers = |outcome: &Outcome| outcome.lines[KEY].iter().map(|(_, n)| *n).collect::<Vec<_>>();
    assert_eq!(numbers(&bench.run().await), [0, 1, 0]);
    bench.put(KEY, "{\"a\":1}\n{\"a\":1}\n{\"b\":1}\n{\"a\":1}\n").await;
    assert_eq!(numbers(&bench.run().await), [2]);
    bench.put(KEY, "{\"a\":1}\n{\"a\":1}\n{\"a\":1}\n{\"b\":1}\n{\"a\":1}\n").await;
    assert_eq!(numbers(&bench.run().await), [3]);
}

#[tokio::test]
async fn an_unterminated_last_line_of_a_delivered_object_is_a_line() {
    let bench = Bench::new();
    bench.put(KEY, "{\"a\":1}\n{\"b\":2}").await;
    assert_eq!(bench.run().await.texts(), ["{\"a\":1}", "{\"b\":2}"]);
    bench.put(KEY, "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n").await;
    assert_eq!(bench.run().await.texts(), ["{\"c\":3}"]);
}

#[tokio::test]
async fn a_last_line_without_its_end_is_shipped_however_many_lines_come_before_it() {
    let bench = Bench::new();
    for whole in [lines::MOST_LINES, 2 * lines::MOST_LINES] {
        let text = "{\"a\":1}\n".repeat(whole) + "{\"a\":2}";
        let gzip = crate::compress::Encoding::Gzip.compress(&[text.as_bytes()], &Pool::default()).unwrap();
        for (name, stored) in [("plain", text.as_bytes()), ("gz", &gzip)] {
            bench.put(&format!("{KEY}.{whole}.{name}"), stored).await;
            let outcome = bench.run().await;
            let texts = outcome.texts();
            assert_eq!((texts.len(), texts.last()), (whole + 1, Some(&"{\"a\":2}")), "{whole} {name}");
            assert_eq!(bench.run().await.fetched, 0);
        }
    }
}

#[tokio::test]
async fn compressed_objects_are_compared_line_by_line() {
    let bench = Bench::new();
    for encoding in [crate::compress::Encoding::Gzip, crate::compress::Encoding::Zstd] {
        let key = format!("{KEY}.{encoding:?}");
        bench.put(&key, encoding.compress(&[lines(0, 50).as_bytes()], &Pool::default()).unwrap()).await;
        assert_eq!(bench.run().await.texts().len(), 50);
        bench.put(&key, encoding.compress(&[lines(0, 60).as_bytes()], &Pool::default()).unwrap()).await;
        assert_eq!(bench.run().await.texts().len(), 10);
    }
    let whole =
        crate::compress::Encoding::Gzip.compress(&[lines(0, 50).as_bytes()], &Pool::default()).unwrap();
    bench.put(&format!("{KEY}.cut.gz"), &whole[..whole.len() - 20]).await;
    assert_eq!(bench.run().await.malformed, ["broken_compression"]);
    assert!(bench.run().await.malformed.is_empty(), "said once");
    bench.put(&format!("{KEY}.cut.gz"), &whole).await;
    bench.run().await;
    assert_eq!(bench.run().await.fetched, 0);
}

#[tokio::test]
async fn a_compressed_object_is_recognised_however_little_of_it_comes_first() {
    let bench = Bench { piece_bytes: 1, ..Bench::new() };
    bench
        .put(KEY, crate::compress::Encoding::Gzip.compress(&[b"{\"a\":1}\n"], &Pool::default()).unwrap())
        .await;
    bench.put(&format!("{KEY}.short.json"), "{}").await;
    assert_eq!(bench.run().await.texts(), ["{\"a\":1}", "{}"]);
}

#[tokio::test]
async fn other_workspaces_and_dates_are_found_and_old_dates_only_now_and_then() {
    let bench = Bench::new();
    let key =
        |workspace: u32, date: &str| format!("logs/workspaceId={workspace}/date={date}/auditlogs_1.json");
    bench.put(&key(0, "2026-01-05"), "{\"a\":1}\n").await;
    bench.put(&key(9, "2020-02-02"), "{\"b\":1}\n").await;
    bench.put("logs/workspaceId=9/date=2026-01-05/_SUCCESS", "no line\n").await;
    assert_eq!(bench.run().await.texts(), ["{\"a\":1}", "{\"b\":1}"]);
    bench.put(&key(9, "2020-02-02"), "{\"b\":1}\n{\"b\":2}\n").await;
    bench.put(&key(0, "2026-01-04"), "{\"a\":2}\n").await;
    assert_eq!(bench.run().await.texts(), ["{\"a\":2}", "{\"b\":2}"], "everything, as no pass was completed");
}

#[tokio::test]
async fn filters_choose_workspaces_and_dates() {
    let mut bench = Bench::new();
    bench.settings["exclude_workspaces"] = serde_json::json!(["9"]);
    bench.settings["start_date"] = serde_json::json!("2026-01-01");
    for (workspace, date) in [("7", "2026-01-02"), ("9", "2026-01-02"), ("7", "2025-12-31")] {
        let key = format!("logs/workspaceId={workspace}/date={date}/auditlogs_1.json");
        bench.put(&key, format!("{{\"w\":\"{workspace} {date}\"}}\n")).await;
    }
    assert_eq!(bench.run().await.texts(), ["{\"w\":\"7 2026-01-02\"}"]);
}
