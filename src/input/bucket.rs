//! Objects in a bucket that are overwritten while they are read: Databricks' delivery on S3 and GCS, or any objects.
//!
//! ```text
//!   Discovery ──► found ──► readers (several objects at once) ──► chunks ──► Bucket::read
//!      ▲  listing, events, retries           │  seam, lines, fingerprints
//!      └───────── looked at again ◄──────────┴───────── committed (an object is closed)
//! ```
//!
//! `position` decides what to read of an object, `assemble` what of it is new.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::azure_workspace::Workspaces;
use crate::chunk::{Partition, Position};
use crate::component::{BuildError, Probe};
use crate::cores::cores;
use crate::input::{Backlog, Input, InputContext, InputError, InputKind, Read};

mod assemble;
mod azure;
mod azure_path;
mod config;
mod cutter;
mod decompress;
mod discover;
mod fingerprint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hints;
mod lanes;
mod layout;
mod lines;
mod listing;
mod mark;
mod notification;
mod object;
mod open;
mod position;
mod queue;
mod ranges;
mod records;
mod refusal;
mod schedule;
mod sqs;
mod store;
mod turns;
mod watch;
mod worker;

use config::{Checked, Config, gaps, parse};
use discover::Discovery;
use fingerprint::{Key, Room};
use hints::{Hints, MOST_AGAIN};
use lanes::Lanes;
use layout::Layout;
use mark::Scope;
use object::ObjectReader;
use open::{Closing, OpenObjects};
use queue::Queue;
use ranges::{RANGE_BYTES, ReadAhead};
use refusal::refusal;
use sqs::{BucketQueue, Receivers, Subscription};
use store::{Scheme, Store, StoreSettings};
use turns::Turns;
use worker::Worker;

/// The bucket input.
pub const KIND: InputKind = InputKind {
    name: "bucket",
    about: "Objects in S3, Google Cloud Storage, Azure Blob Storage or a local directory",
    schema: || schemars::schema_for!(Config),
    check,
    gaps,
    build,
};

/// Most of a chunk's bytes; smaller where the memory is. Twice as many take more memory, for each reader and encoder has
/// one, and no less time.
const CHUNK_BYTES: usize = 512 << 10;
/// Chunks between the readers and the engine.
const READ: usize = 2;
/// Objects read at once for each core while the pipeline is busy with what is read. Files are never more: no answer of a
/// network is waited for, and each takes the memory of a chunk.
const FEW_FOR_EACH_CORE: usize = 2;
/// Objects queued for reading.
const QUEUED: usize = 1024;
/// Objects of a distant store that are asked for at once, for each that is read: while one answers, another is read.
const ASKED_FOR_EACH: usize = 8;
/// Large ones among them, beyond those that are read: the connection of each holds hundreds of kilobytes.
const LARGE_AHEAD: usize = 1;
/// Objects asked for at once at most: each takes a connection.
const MOST_ASKED: usize = 128;
/// Folders within each other that are looked into for an object.
const DEEPEST: usize = 32;
/// Hints waiting to be followed.
const HINTS: usize = 1024;
/// Longest wait before what failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// The workspace that a path of the delivery layout names.
pub fn workspace_in(path: &str) -> Option<&str> {
    layout::workspace_in(path)
}

/// What an input with this table never looks at, by the folder of an object's key: what lies before its `start_date`. `None`
/// where it has none.
pub fn never_looked_at(table: &Value) -> Option<impl Fn(&str) -> bool> {
    let start = parse(table.clone()).ok()?.layout.start_date()?;
    Some(move |folder: &str| layout::is_before(start, folder))
}

fn open_store(config: &Config, layout: &Layout, base: &std::path::Path) -> Result<Store, BuildError> {
    let settings = StoreSettings {
        s3: config.s3.clone(),
        gcs: config.gcs.clone(),
        azure: config.azure.clone(),
        http: config.http(),
    };
    let containers = match layout {
        Layout::Azure { containers, .. } => Some(containers),
        _ => None,
    };
    store::open(&config.url, &settings, containers, base)
}

fn check(table: Value) -> Result<String, BuildError> {
    let checked = parse(table)?;
    open_store(&checked.config, &checked.layout, &PathBuf::new())?;
    azure::workspaces(&checked.config)?;
    let queue = BucketQueue::open(&checked.config.url, &checked.config.s3)?;
    let Config { url, layout, poll_interval, .. } = &checked.config;
    let layout = serde_json::to_value(layout).unwrap_or_default();
    let layout = layout.as_str().unwrap_or_default();
    let notified = if queue.is_some() { ", notified through SQS" } else { "" };
    let poll_interval = humantime::format_duration(poll_interval.0);
    let chosen = checked.config.chosen();
    Ok(format!("{url}, layout {layout}{chosen}, polled every {poll_interval}{notified}"))
}

fn build(table: Value, context: InputContext) -> Result<Box<dyn Input>, BuildError> {
    let checked = parse(table)?;
    let store = open_store(&checked.config, &checked.layout, &context.base)?;
    let workspaces = azure::workspaces(&checked.config)?;
    let queue = BucketQueue::open(&checked.config.url, &checked.config.s3)?;
    let chunk_bytes = chunk_bytes(&context, &checked.config);
    Ok(Box::new(Bucket::new(Plan {
        checked,
        store,
        workspaces,
        queue,
        context,
        chunk_bytes,
        range_bytes: RANGE_BYTES,
        retry_interval: RETRY_INTERVAL,
        most_again: MOST_AGAIN,
    })))
}

/// Most bytes of a chunk: every reader must be able to hold one while another one waits to be committed.
fn chunk_bytes(context: &InputContext, config: &Config) -> usize {
    (context.budget.total() / (2 * config.concurrency)).clamp(64 << 10, CHUNK_BYTES)
}

/// Objects read at once.
fn readers(concurrency: usize, local: bool) -> usize {
    if local { concurrency.min(FEW_FOR_EACH_CORE * cores()) } else { concurrency }
}

/// Goes down the last folder of each level, as far as there is one, and reads the first byte of an object that lies there.
/// False if there is none. Folder by folder, since an Azure account has no listing of all its containers.
async fn finds_an_object(store: &dyn ObjectStore, prefix: &Path) -> Result<bool, InputError> {
    let mut folder = prefix.clone();
    for _ in 0..DEEPEST {
        let place = if folder.as_ref().is_empty() { "the bucket" } else { folder.as_ref() };
        let listed = store.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| refusal(format!("cannot list {place}"), &error))?;
        if let Some(object) = listed.objects.iter().find(|object| object.size > 0) {
            let read = store.get_range(&object.location, 0..1).await;
            read.map_err(|error| refusal(format!("cannot read {}", object.location), &error))?;
            return Ok(true);
        }
        let Some(next) = listed.common_prefixes.into_iter().next_back() else { return Ok(false) };
        folder = next;
    }
    Ok(false)
}

/// What the tasks are started with, at the first read.
struct Plan {
    checked: Checked,
    store: Store,
    workspaces: Option<Arc<Workspaces>>,
    queue: Option<BucketQueue>,
    context: InputContext,
    chunk_bytes: usize,
    range_bytes: u64,
    retry_interval: Duration,
    most_again: usize,
}

/// The bucket input at work.
struct Bucket {
    plan: Mutex<Option<Plan>>,
    running: OnceCell<Running>,
    tasks: AsyncMutex<JoinSet<()>>,
}

struct Running {
    reads: AsyncMutex<mpsc::Receiver<Result<Read, InputError>>>,
    open: Arc<OpenObjects>,
    hints: Arc<Hints>,
    queue: Arc<Queue>,
    _watcher: Option<watch::Watcher>,
    _subscription: Option<Subscription>,
}

#[async_trait]
impl Input for Bucket {
    async fn read(&self) -> Result<Read, InputError> {
        let running = self.running.get_or_try_init(|| self.start()).await?;
        let (mut reads, mut tasks) = (running.reads.lock().await, self.tasks.lock().await);
        loop {
            tokio::select! {
                biased;
                // All senders are gone when the tasks have ended: with --once, when everything is read.
                read = reads.recv() => return read.unwrap_or(Ok(Read::End)),
                Some(ended) = tasks.join_next() => {
                    if let Err(failed) = ended && failed.is_panic() {
                        // A reader that is gone would be missed by nobody: end the pipeline with it.
                        std::panic::resume_unwind(failed.into_panic());
                    }
                }
            }
        }
    }

    async fn committed(&self, partition: &Partition, position: &Position) {
        let Some(running) = self.running.get() else { return };
        if running.open.committed(partition, position) == Closing::ClosedChanged
            && let Ok(key) = Path::parse(partition.as_str())
        {
            running.hints.look(key);
        }
    }

    async fn probe(&self) -> Probe {
        let place = self
            .plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|plan| (Arc::clone(&plan.store.store), plan.store.prefix.clone()));
        let Some((store, prefix)) = place else { return Probe::Unknown };
        match finds_an_object(&*store, &prefix).await {
            Ok(true) => Probe::Ready("objects can be listed and read".to_owned()),
            Ok(false) => Probe::Ready(
                "it can be listed, and no object was found in its last folder: check `url` if there should be one"
                    .to_owned(),
            ),
            Err(error) => Probe::Failed(error.to_string()),
        }
    }

    fn backlog(&self) -> Backlog {
        let Some(running) = self.running.get() else { return Backlog::default() };
        Backlog { open: running.open.count() as u64, ..running.queue.backlog() }
    }
}

impl Bucket {
    fn new(plan: Plan) -> Self {
        Self {
            plan: Mutex::new(Some(plan)),
            running: OnceCell::new(),
            tasks: AsyncMutex::new(JoinSet::new()),
        }
    }

    async fn start(&self) -> Result<Running, InputError> {
        let plan = || self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let resume = plan().as_ref().map(|plan| plan.context.resume.clone());
        let key = match resume {
            Some(resume) => Some(Key::new(resume.key().await?)),
            None => None,
        };
        // Taken last: where the state could not be read, the next call tries again.
        let (Some(key), Some(plan)) = (key, plan().take()) else {
            return Err(InputError::Transient {
                action: "start the bucket input".to_owned(),
                source: "it has been started before".into(),
            });
        };
        let Plan { checked, store, workspaces, queue: notices, context, chunk_bytes, range_bytes, .. } = plan;
        let (clock, retry_interval) = (context.clock, plan.retry_interval);
        let scope = Scope::new(&checked.config, &store);
        let Checked { config, layout, schedule, verify_whole_below, partial_line_wait } = checked;
        let (reads_in, reads) = mpsc::channel(READ);
        let (found_in, found) = mpsc::channel(QUEUED);
        let (hints_in, hinted) = mpsc::channel(HINTS);
        let (open, queue) = (Arc::<OpenObjects>::default(), Arc::<Queue>::default());
        let hints = Arc::new(Hints::new(hints_in, plan.most_again));
        let local = store.scheme == Scheme::Local;
        let few = FEW_FOR_EACH_CORE * cores();
        let reader = Arc::new(ObjectReader {
            store: Arc::clone(&store.store),
            cloud: store.cloud,
            key,
            resume: context.resume,
            chunk_bytes,
            reading: Turns::new(few, readers(config.concurrency, local)),
            large: Turns::new(few + LARGE_AHEAD, config.concurrency + LARGE_AHEAD),
            fingerprints: Room::default(),
            read_ahead: (!local).then(|| ReadAhead::new(range_bytes, &context.budget)),
            budget: context.budget,
            long_line: Arc::new(Semaphore::new(1)),
            open: Arc::clone(&open),
            reads: reads_in,
            max_line_bytes: config.max_line_bytes.get(),
            verify_whole_below,
            partial_line_wait: (local || layout.is_several()).then_some(partial_line_wait),
            documents: layout.has_documents(),
            until: context.until,
            workspaces,
        });
        let watcher = match &store.root {
            Some(root) if config.watch && !context.once => watch::Watcher::start(root, Arc::clone(&hints)),
            _ => None,
        };
        let subscription = notices.filter(|_| !context.once).map(|notices| {
            let receivers = context.shared.get::<Receivers>();
            receivers.subscribe(&notices, store.prefix.clone(), Arc::clone(&hints))
        });
        let discovery = Discovery {
            reader: Arc::clone(&reader),
            layout,
            schedule,
            prefix: store.prefix,
            local,
            poll_interval: config.poll_interval.0,
            retry_interval,
            verify_on_close: config.verify_on_close,
            once: context.once,
            clock,
            found: found_in,
            queue: Arc::clone(&queue),
            hints: Arc::clone(&hints),
            hinted,
            lanes: Lanes::default(),
            scope,
            last: None,
            missed: Vec::new(),
            unmarked: None,
        };
        let mut tasks = self.tasks.lock().await;
        tasks.spawn(discovery.run());
        let found = Arc::new(AsyncMutex::new(found));
        let asked = match local {
            true => config.concurrency,
            false => config.concurrency.max(MOST_ASKED.min(ASKED_FOR_EACH * config.concurrency)),
        };
        for _ in 0..asked {
            let worker = Worker {
                reader: Arc::clone(&reader),
                found: Arc::clone(&found),
                hints: Arc::clone(&hints),
                clock,
            };
            tasks.spawn(worker.run());
        }
        Ok(Running {
            reads: AsyncMutex::new(reads),
            open,
            hints,
            queue,
            _watcher: watcher,
            _subscription: subscription,
        })
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::over;
