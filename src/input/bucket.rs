//! Objects in a bucket that are overwritten while they are read: Databricks' delivery on S3 and GCS, or any objects.
//!
//! ```text
//!   Discovery ──► found ──► readers (several objects at once) ──► chunks ──► Bucket::read
//!      ▲  listing, file events, retries      │  seam, lines, fingerprints
//!      └───────── looked at again ◄──────────┴───────── committed (an object is closed)
//! ```
//!
//! `position` decides what to read of an object, `assemble` what of it is new.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::chunk::{Partition, Position};
use crate::component::{self, BuildError};
use crate::input::{Backlog, Input, InputContext, InputError, InputKind, Read};
use crate::time::{Date, Millis};
use crate::units::{ByteSize, Period};

mod assemble;
mod credentials;
mod decompress;
mod discover;
mod fingerprint;
mod layout;
mod lines;
mod object;
mod open;
mod position;
mod queue;
mod schedule;
mod store;
mod watch;

use discover::{Discovery, Hints};
use fingerprint::Key;
use layout::{Layout, LayoutName};
use object::{Found, ObjectError, ObjectReader};
use open::{Closing, OpenObjects};
use queue::Queue;
use schedule::Schedule;
use store::{Scheme, Store, StoreSettings};

/// The bucket input.
pub const KIND: InputKind = InputKind {
    name: "bucket",
    about: "Objects in S3, Google Cloud Storage, Azure Blob Storage or a local directory",
    schema: || schemars::schema_for!(Config),
    check,
    build,
};

/// Most of a chunk's bytes; smaller where the memory is.
const CHUNK_BYTES: usize = 1 << 20;
/// Objects queued for reading.
const QUEUED: usize = 1024;
/// Hints waiting to be followed.
const HINTS: usize = 1024;

/// The workspace that a path of the delivery layout names.
pub fn workspace_in(path: &str) -> Option<&str> {
    layout::workspace_in(path)
}

/// Configuration of the bucket input.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where the objects are: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///directory`
    /// or the path of a local directory (a relative one starts where auditferry was started).
    url: String,
    /// How the objects are laid out below the URL.
    #[serde(default)]
    layout: LayoutName,
    /// How often the open dates are listed. Costs one LIST request per workspace and open date each time; local
    /// directories are watched besides.
    #[serde(default = "defaults::poll_interval")]
    poll_interval: Period,
    /// Layout `any`: which objects below the URL, for instance `**/*.json`. Default: all.
    #[serde(default)]
    glob: Option<String>,
    /// Only these workspaces. Default: all, `0` (account level) included.
    #[serde(default)]
    workspaces: Vec<String>,
    /// All workspaces but these.
    #[serde(default)]
    exclude_workspaces: Vec<String>,
    /// First `date=` folder to read, as `yyyy-mm-dd`. Default: all there are.
    #[serde(default)]
    start_date: Option<String>,
    /// How many days, today included, are listed at every poll.
    #[serde(default = "defaults::open_dates")]
    open_dates: u32,
    /// How many days back closed dates are listed daily, for late data; older ones are listed weekly. Fingerprints of
    /// shipped lines are kept for as long.
    #[serde(default = "defaults::look_back_days")]
    look_back_days: u32,
    /// How many objects are read at once, 1 to 64.
    #[serde(default = "defaults::concurrency")]
    concurrency: usize,
    /// Objects up to this size are read whole and compared line by line at every change; larger ones are read from
    /// where they were left if the 64 KiB before it are unchanged.
    #[serde(default = "defaults::verify_whole_below")]
    verify_whole_below: ByteSize,
    /// Read each object whole once more when its date closes, and ship any line that is still missing.
    #[serde(default)]
    verify_on_close: bool,
    /// Longest line that is shipped; a longer one becomes a dead letter with its beginning. At most 1GiB.
    #[serde(default = "defaults::max_line_bytes")]
    max_line_bytes: ByteSize,
    /// Local directories: how long a last line without its line end may stay incomplete before it is taken as it is.
    #[serde(default = "defaults::partial_line_wait")]
    partial_line_wait: Period,
    /// Local directories: notice changes at once by file-system events. Turn it off where the directory is a network
    /// file system that has none.
    #[serde(default = "defaults::watch")]
    watch: bool,
    /// S3: region, endpoint and credentials.
    #[serde(default)]
    s3: store::S3Settings,
    /// Google Cloud Storage: credentials.
    #[serde(default)]
    gcs: store::GcsSettings,
    /// Azure Blob Storage: account and credentials.
    #[serde(default)]
    azure: store::AzureSettings,
}

mod defaults {
    use std::time::Duration;

    use crate::units::{ByteSize, Period};

    pub(super) fn poll_interval() -> Period {
        Period(Duration::from_secs(60))
    }
    pub(super) fn open_dates() -> u32 {
        2
    }
    pub(super) fn look_back_days() -> u32 {
        7
    }
    pub(super) fn concurrency() -> usize {
        8
    }
    pub(super) fn verify_whole_below() -> ByteSize {
        ByteSize(256 << 10)
    }
    pub(super) fn max_line_bytes() -> ByteSize {
        ByteSize(16 << 20)
    }
    pub(super) fn partial_line_wait() -> Period {
        Period(Duration::from_secs(300))
    }
    pub(super) fn watch() -> bool {
        true
    }
}

/// A configuration whose values fit.
struct Checked {
    config: Config,
    layout: Layout,
}

fn parse(table: Value) -> Result<Checked, BuildError> {
    let config: Config = component::parse(table)?;
    let positive = |key: &str, holds: bool, allowed: &str| {
        if holds { Ok(()) } else { Err(BuildError::new(key, format!("must be {allowed}"))) }
    };
    positive("poll_interval", config.poll_interval.0 >= Duration::from_secs(1), "at least \"1s\"")?;
    positive("concurrency", (1..=64).contains(&config.concurrency), "1 to 64")?;
    positive("open_dates", (1..=366).contains(&config.open_dates), "1 to 366")?;
    positive("max_line_bytes", (1024..=1 << 30).contains(&config.max_line_bytes.0), "1KiB to 1GiB")?;
    let start_date = match &config.start_date {
        None => None,
        Some(text) => Some(Date::parse(text).ok_or_else(|| {
            BuildError::new("start_date", format!("`{text}` is not a date; write it as \"2026-01-31\""))
        })?),
    };
    let layout = match config.layout {
        LayoutName::DatabricksDelivery => {
            positive("glob", config.glob.is_none(), "left out with layout = \"databricks_delivery\"")?;
            Layout::DatabricksDelivery {
                workspaces: config.workspaces.clone(),
                exclude_workspaces: config.exclude_workspaces.clone(),
                start_date,
            }
        }
        LayoutName::Any => {
            let filters =
                config.workspaces.is_empty() && config.exclude_workspaces.is_empty() && start_date.is_none();
            positive("layout", filters, "\"databricks_delivery\" where workspaces or start_date are given")?;
            let glob = config.glob.as_deref().map(globset::Glob::new).transpose();
            let glob = glob.map_err(|error| BuildError::new("glob", error.kind()))?;
            Layout::Any { glob: glob.map(|glob| glob.compile_matcher()) }
        }
    };
    Ok(Checked { config, layout })
}

fn open_store(config: &Config, base: &std::path::Path) -> Result<Store, BuildError> {
    let settings =
        StoreSettings { s3: config.s3.clone(), gcs: config.gcs.clone(), azure: config.azure.clone() };
    store::open(&config.url, &settings, base)
}

fn check(table: Value) -> Result<String, BuildError> {
    let checked = parse(table)?;
    open_store(&checked.config, &PathBuf::new())?;
    let Config { url, layout, poll_interval, .. } = &checked.config;
    let layout = match layout {
        LayoutName::DatabricksDelivery => "databricks_delivery",
        LayoutName::Any => "any",
    };
    Ok(format!("{url}, layout {layout}, polled every {}", humantime::format_duration(poll_interval.0)))
}

fn build(table: Value, context: InputContext) -> Result<Box<dyn Input>, BuildError> {
    let Checked { config, layout } = parse(table)?;
    let store = open_store(&config, &context.base)?;
    Ok(Box::new(Bucket {
        plan: Mutex::new(Some(Plan { config, layout, store, context, clock: now })),
        running: OnceCell::new(),
        tasks: AsyncMutex::new(JoinSet::new()),
    }))
}

fn now() -> Millis {
    Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap_or(Date::EPOCH.start())
}

/// What the tasks are started with, at the first read.
struct Plan {
    config: Config,
    layout: Layout,
    store: Store,
    context: InputContext,
    clock: fn() -> Millis,
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

    fn backlog(&self) -> Backlog {
        let Some(running) = self.running.get() else { return Backlog::default() };
        Backlog { open: running.open.count() as u64, ..running.queue.backlog() }
    }
}

impl Bucket {
    async fn start(&self) -> Result<Running, InputError> {
        let plan = || self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let resume = plan().as_ref().map(|plan| plan.context.resume.clone());
        let key = match resume {
            Some(resume) => Some(Key::new(resume.key().await?)),
            None => None,
        };
        // Taken last: where the state could not be read, the next call tries again.
        let (Some(key), Some(Plan { config, layout, store, context, clock })) = (key, plan().take()) else {
            return Err(InputError::Transient {
                action: "start the bucket input".to_owned(),
                source: "it has been started before".into(),
            });
        };
        let (reads_in, reads) = mpsc::channel(4);
        let (found_in, found) = mpsc::channel(QUEUED);
        let (hints_in, hinted) = mpsc::channel(HINTS);
        let (open, queue) = (Arc::<OpenObjects>::default(), Arc::<Queue>::default());
        let hints = Arc::new(Hints::new(hints_in));
        let local = store.scheme == Scheme::Local;
        let reader = Arc::new(ObjectReader {
            store: Arc::clone(&store.store),
            cloud: store.cloud,
            key,
            resume: context.resume,
            // Every reader must be able to hold a chunk while another one waits to be committed.
            chunk_bytes: (context.budget.total() / (2 * config.concurrency)).clamp(64 << 10, CHUNK_BYTES),
            budget: context.budget,
            long_line: Arc::new(Semaphore::new(1)),
            open: Arc::clone(&open),
            reads: reads_in,
            max_line_bytes: config.max_line_bytes.get(),
            verify_whole_below: config.verify_whole_below.0,
            partial_line_wait: local.then_some(config.partial_line_wait.0),
        });
        let watcher = match &store.root {
            Some(root) if config.watch && !context.once => watch::Watcher::start(root, Arc::clone(&hints)),
            _ => None,
        };
        let discovery = Discovery {
            reader: Arc::clone(&reader),
            layout,
            schedule: Schedule { open_dates: config.open_dates, look_back_days: config.look_back_days },
            prefix: store.prefix,
            local,
            poll_interval: config.poll_interval.0,
            verify_on_close: config.verify_on_close,
            once: context.once,
            clock,
            found: found_in,
            queue: Arc::clone(&queue),
            hints: Arc::clone(&hints),
            hinted,
            workspaces: Vec::new(),
            workspaces_listed: None,
            last: None,
            passed: None,
        };
        let mut tasks = self.tasks.lock().await;
        tasks.spawn(discovery.run());
        let found = Arc::new(AsyncMutex::new(found));
        for _ in 0..config.concurrency {
            let worker = Worker {
                reader: Arc::clone(&reader),
                found: Arc::clone(&found),
                hints: Arc::clone(&hints),
                clock,
            };
            tasks.spawn(worker.run());
        }
        Ok(Running { reads: AsyncMutex::new(reads), open, hints, queue, _watcher: watcher })
    }
}

/// Reads one found object after the other.
struct Worker {
    reader: Arc<ObjectReader>,
    found: Arc<AsyncMutex<mpsc::Receiver<Found>>>,
    hints: Arc<Hints>,
    clock: fn() -> Millis,
}

impl Worker {
    async fn run(self) {
        loop {
            let next = self.found.lock().await.recv().await;
            let Some(found) = next else { return };
            let (key, partition) = (found.key.clone(), found.partition());
            let result = self.reader.read(found, (self.clock)()).await;
            if !matches!(result, Ok(()) | Err(ObjectError::Gone | ObjectError::Closed)) {
                // Before the object counts as closed: a pass that failed at it must not be taken for a complete one.
                self.hints.again(key.clone());
            }
            if self.reader.open.finished(&partition) == Closing::ClosedChanged {
                self.hints.look(key.clone());
            }
            match result {
                Ok(()) | Err(ObjectError::Gone) => {}
                Err(ObjectError::Closed) => return,
                Err(error) => {
                    let trouble = Read::Trouble { partition, error: trouble(&key, error) };
                    if self.reader.reads.send(Ok(trouble)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn trouble(key: &Path, error: ObjectError) -> InputError {
    let action = format!("cannot read object {key}");
    match error {
        ObjectError::Store(error) => refusal(action, &error),
        ObjectError::State(error) => InputError::State(error),
        error => InputError::Transient { action, source: error.to_string().into() },
    }
}

/// Tells what passes from what a human must put right.
fn refusal(action: String, error: &object_store::Error) -> InputError {
    let text = error.to_string();
    // Listing a bucket that is not there is no `NotFound` of the store's: only the answer's code tells.
    let no_bucket =
        ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"].iter().any(|code| text.contains(code));
    let source = text.into();
    let remedy = match error {
        _ if no_bucket => "check the bucket's name in `url`",
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            "check the credentials and that they may list and read the bucket and decrypt with its key"
        }
        object_store::Error::NotFound { .. } => "check the bucket's name in `url`",
        _ => return InputError::Transient { action, source },
    };
    InputError::Refused { action, source, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests;
