//! When a pass counts as complete, and what is looked at before one does.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutResult, Result,
};
use tokio::sync::Notify;

use super::*;

/// Another object of the same date.
const OTHER: &str = "logs/workspaceId=7/date=2026-01-05/auditlogs_2.json";

/// A store that shows all of its objects and gives some to nobody.
#[derive(Debug)]
struct Forbidding {
    inner: Arc<InMemory>,
    forbids: fn(&Path) -> bool,
    /// Until then.
    allowed: AtomicBool,
    /// A refusal takes one.
    refusals: Semaphore,
    /// A refusal waits for one.
    waits: Notify,
}

impl Forbidding {
    /// Refuses to hand over these objects; so many times at once, then only when told.
    fn new(bench: &Bench, forbids: fn(&Path) -> bool, refusals: usize) -> Arc<Self> {
        let (inner, refusals) = (Arc::clone(&bench.store), Semaphore::new(refusals));
        Arc::new(Self { inner, forbids, allowed: false.into(), refusals, waits: Notify::new() })
    }

    fn allow(&self) {
        self.allowed.store(true, Ordering::SeqCst);
        self.refusals.add_permits(1);
    }
}

impl std::fmt::Display for Forbidding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Forbidding")
    }
}

#[async_trait]
impl ObjectStore for Forbidding {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !options.head && (self.forbids)(location) && !self.allowed.load(Ordering::SeqCst) {
            if self.refusals.available_permits() == 0 {
                self.waits.notify_one();
            }
            self.refusals.acquire().await.unwrap().forget();
            if !self.allowed.load(Ordering::SeqCst) {
                let path = location.to_string();
                let archived = path.contains("archived");
                let why = if archived { "<Code>InvalidObjectState</Code>" } else { "no" };
                return Err(object_store::Error::PermissionDenied { path, source: why.into() });
            }
        }
        self.inner.get_opts(location, options).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A bucket that goes on reading.
fn service(bench: &Bench) -> Bucket {
    let bucket = bench.bucket();
    if let Some(plan) = bucket.plan.lock().unwrap().as_mut() {
        plan.context.once = false;
        plan.retry_interval = Duration::from_millis(100);
        plan.most_again = 5;
    }
    bucket
}

/// The next chunk or failure.
async fn next(bucket: &Bucket) -> Read {
    loop {
        let read = tokio::time::timeout(Duration::from_secs(60), bucket.read()).await;
        match read.expect("nothing more comes").unwrap() {
            Read::Idle => {}
            read => return read,
        }
    }
}

/// The next chunk, committed: its partition.
async fn commit_next(bench: &Bench, bucket: &Bucket) -> String {
    loop {
        let Read::Chunk(chunk) = next(bucket).await else { continue };
        let Chunk { partition, position, note, .. } = chunk;
        let change = Change { partition: partition.clone(), position: position.clone(), note };
        bench.state.commit("audit/out", vec![change], Vec::new()).await.unwrap();
        bucket.committed(&partition, &position).await;
        return partition.to_string();
    }
}

#[tokio::test]
async fn a_pass_is_not_complete_while_an_object_that_failed_is_tried_again() {
    let mut bench = Bench::new();
    bench.settings["poll_interval"] = serde_json::json!("1h");
    bench.put(KEY, lines(0, 1)).await;
    let store = Forbidding::new(&bench, |key| key.as_ref() == KEY, 1);
    bench.wrapped = Some(Arc::clone(&store) as _);
    let bucket = service(&bench);
    assert!(matches!(next(&bucket).await, Read::Trouble { .. }));
    // The next trial is under way: nothing is known to have failed, and what is open was opened after the pass.
    store.waits.notified().await;
    bench.put(OTHER, lines(0, 1)).await;
    bucket.running.get().unwrap().hints.look(Path::from(OTHER));
    assert_eq!(commit_next(&bench, &bucket).await, OTHER);
    store.allow();
    assert_eq!(commit_next(&bench, &bucket).await, KEY);
    assert_eq!(commit_next(&bench, &bucket).await, mark::PARTITION);
}

#[tokio::test]
async fn an_archived_object_is_left_alone_until_it_is_overwritten() {
    let archived = "logs/workspaceId=7/date=2026-01-05/archived.json";
    let bench = Bench::new();
    bench.put(archived, lines(0, 1)).await;
    let mut bench = bench;
    bench.settings["poll_interval"] = serde_json::json!("1h");
    let store = Forbidding::new(&bench, |key| key.as_ref().contains("archived"), 1 << 20);
    bench.wrapped = Some(Arc::clone(&store) as _);
    let bucket = service(&bench);
    let Read::Trouble { error, .. } = next(&bucket).await else { panic!("a chunk") };
    assert!(!error.needs_a_human() && error.to_string().contains("restore it"), "{error}");
    let look = |key: &str| bucket.running.get().unwrap().hints.look(Path::from(key));
    for round in 0..3 {
        // Looked at again and again, it is not asked for, and others are.
        let other = format!("logs/workspaceId=7/date=2026-01-05/auditlogs_{round}.json");
        bench.put(&other, lines(0, 1)).await;
        look(archived);
        look(&other);
        let Read::Chunk(chunk) = next(&bucket).await else { panic!("it was asked for again") };
        assert_eq!(chunk.partition.as_str(), other);
    }
    store.allow();
    bench.put(archived, lines(1, 2)).await;
    look(archived);
    assert_eq!(commit_next(&bench, &bucket).await, archived);
}

#[tokio::test]
async fn objects_that_failed_beyond_those_remembered_are_found_again_once_they_can_be_read() {
    let mut bench = Bench::new();
    bench.settings["poll_interval"] = serde_json::json!("1h");
    let keys: BTreeSet<String> =
        (10..22).map(|day| format!("logs/workspaceId=7/date=2020-02-{day}/auditlogs_1.json")).collect();
    for key in &keys {
        bench.put(key, lines(0, 1)).await;
    }
    let store = Forbidding::new(&bench, |_| true, 1 << 20);
    bench.wrapped = Some(Arc::clone(&store) as _);
    let bucket = service(&bench);
    let mut failed = BTreeSet::new();
    while failed.len() < keys.len() {
        let Read::Trouble { partition, .. } = next(&bucket).await else { panic!("a chunk") };
        failed.insert(partition.to_string());
    }
    store.allow();
    let mut read = BTreeSet::new();
    while read.len() < keys.len() {
        let key = commit_next(&bench, &bucket).await;
        assert_ne!(key, mark::PARTITION, "only {} of {} objects are read", read.len(), keys.len());
        read.insert(key);
    }
    assert_eq!(read, keys);
    assert_eq!(commit_next(&bench, &bucket).await, mark::PARTITION);
}

#[tokio::test]
async fn what_was_left_out_of_a_complete_pass_is_looked_at_once_it_is_wanted() {
    let mut bench = Bench::new();
    let key =
        |workspace: u32, date: &str| format!("logs/workspaceId={workspace}/date={date}/auditlogs_1.json");
    bench.settings["exclude_workspaces"] = serde_json::json!(["9"]);
    bench.settings["start_date"] = "2020-01-01".into();
    for (workspace, date) in [(7, "2020-02-02"), (7, "2019-02-02"), (9, "2020-02-02")] {
        bench.put(&key(workspace, date), format!("{{\"w\":\"{workspace} {date}\"}}\n")).await;
    }
    let bucket = service(&bench);
    assert_eq!(commit_next(&bench, &bucket).await, key(7, "2020-02-02"));
    assert_eq!(commit_next(&bench, &bucket).await, mark::PARTITION);
    drop(bucket);
    let late = key(7, "2020-03-03");
    bench.put(&late, "{\"w\":\"late\"}\n").await;
    bench.settings["poll_interval"] = "5m".into();
    assert!(bench.run().await.texts().is_empty(), "a closed date is not due yet");
    bench.settings["start_date"] = "2019-01-01".into();
    assert_eq!(bench.run().await.texts(), ["{\"w\":\"7 2019-02-02\"}", "{\"w\":\"late\"}"]);
    bench.settings["exclude_workspaces"] = serde_json::json!([]);
    assert_eq!(bench.run().await.texts(), ["{\"w\":\"9 2020-02-02\"}"]);
    // What was marked is what that pass looked at, not what is wanted today.
    bench.put(&key(9, "2020-04-04"), "{\"w\":\"later\"}\n").await;
    assert_eq!(bench.run().await.texts(), ["{\"w\":\"later\"}"]);
}
