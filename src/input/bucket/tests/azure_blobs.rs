//! Blobs that Azure appends to, in several containers.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutResult,
};

use super::*;

const LANE: &str =
    "resourceId=/SUBSCRIPTIONS/S/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/PROD";
const RESOURCE: &str = "/subscriptions/s/resourcegroups/rg/providers/microsoft.databricks/workspaces/prod";
/// The blob of the hour before noon's.
const BLOB: &str = "logs/insights-logs-jobs/resourceId=/SUBSCRIPTIONS/S/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/PROD/y=2026/m=01/d=05/h=11/m=00/PT1H.json";

fn later() -> Millis {
    // In-memory objects bear the time at which the test runs.
    Millis::parse("2099-01-05T12:00:00Z").unwrap()
}

fn diagnostic() -> Bench {
    let settings = serde_json::json!({ "url": "file:///memory", "layout": "azure_diagnostic" });
    Bench { settings, ..Bench::new() }
}

fn blob(container: &str, lane: &str, date: &str) -> String {
    format!("logs/{container}/{lane}/{date}/h=11/m=00/PT1H.json")
}

#[tokio::test]
async fn blobs_of_all_containers_and_both_cases_are_found_and_others_left_alone() {
    let bench = diagnostic();
    let today = "y=2026/m=01/d=05";
    bench.put(&blob("insights-logs-jobs", LANE, today), "{\"a\":1}\n").await;
    bench.put(&blob("insights-logs-dbfs", &LANE.to_lowercase(), today), "{\"b\":1}\n").await;
    bench.put(&blob("insights-logs-dbfs", LANE, "y=2025/m=11/d=30"), "{\"c\":1}\n").await;
    bench.put(&blob("insights-metrics", LANE, today), "{\"no\":1}\n").await;
    let vault = LANE.replace("DATABRICKS/WORKSPACES", "KEYVAULT/VAULTS");
    bench.put(&blob("insights-logs-auditevent", &vault, today), "{\"no\":2}\n").await;
    let mut texts: Vec<String> = bench.run().await.texts().into_iter().map(str::to_owned).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["{\"a\":1}", "{\"b\":1}", "{\"c\":1}"]);
}

#[tokio::test]
async fn a_resource_group_may_have_any_letters_in_its_name() {
    let bench = diagnostic();
    let lane = LANE.replace("/RG/", "/RG-GRÖSSE-監査_(1).A~B%41/");
    for date in ["y=2026/m=01/d=05", "y=2025/m=11/d=30"] {
        let key = blob("insights-logs-jobs", &lane, date);
        // As a store lists it: the letters as they are.
        let key = Path::parse(&key).unwrap();
        bench.store.put(&key, format!("{{\"at\":\"{date}\"}}\n").into()).await.unwrap();
    }
    let mut texts: Vec<String> = bench.run().await.texts().into_iter().map(str::to_owned).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["{\"at\":\"y=2025/m=11/d=30\"}", "{\"at\":\"y=2026/m=01/d=05\"}"]);
}

#[tokio::test]
async fn an_export_is_found_and_its_old_folders_are_looked_at_again() {
    let mut bench = diagnostic();
    bench.settings["layout"] = "log_analytics_export".into();
    let lane = "WorkspaceResourceId=/subscriptions/s/resourcegroups/rg/providers/microsoft.operationalinsights/workspaces/log";
    let key = |date: &str, name: &str| format!("logs/am-databricksjobs/{lane}/{date}/h=11/m=05/{name}");
    bench.put(&key("y=2026/m=01/d=05", "PT05M.json"), "{\"a\":1}\n").await;
    bench.put(&key("y=2026/m=01/d=05", "PT05M_1.json"), "{\"a\":2}\n").await;
    bench.put(&key("y=2026/m=01/d=02", "PT05M.json"), "{\"b\":1}\n").await;
    bench
        .put(&format!("logs/am-heartbeat/{lane}/y=2026/m=01/d=05/h=11/m=05/PT05M.json"), "{\"no\":1}\n")
        .await;
    assert_eq!(bench.run().await.texts(), ["{\"b\":1}", "{\"a\":1}", "{\"a\":2}"]);
    bench.put(&key("y=2026/m=01/d=02", "PT05M.json"), "{\"b\":1}\n{\"b\":2}\n").await;
    assert_eq!(bench.run().await.texts(), ["{\"b\":2}"]);
}

#[tokio::test]
async fn a_blob_that_grows_at_arbitrary_bytes_gives_each_line_once_in_order_and_costs_little_more() {
    let bench = diagnostic();
    let lines: Vec<String> = (0..)
        .map(|line: usize| format!("{{\"line\":{line},\"pad\":\"{}\"}}\n", "x".repeat(line * 7919 % 900)))
        .scan(0, |bytes: &mut usize, line| {
            *bytes += line.len();
            (*bytes < 3 << 20).then_some(line)
        })
        .collect();
    let content = lines.concat();
    let mut random = fastrand::Rng::with_seed(3);
    let (mut written, mut appends, mut shipped) = (0, 0, Vec::new());
    while written < content.len() && appends < 200 {
        let bytes = random.usize(1024..50 * 1024).min(content.len() - written);
        written += bytes;
        appends += 1;
        bench.put(BLOB, &content[..written]).await;
        let outcome = bench.run().await;
        let new = bytes as u64;
        let most = new + new / 10 + 2000 + position::SEAM_BYTES as u64;
        assert!(outcome.fetched <= most, "append {appends}: {} bytes fetched for {new}", outcome.fetched);
        assert_eq!(outcome.mismatches, 0);
        shipped.extend(outcome.texts().into_iter().map(|text| format!("{text}\n")));
    }
    let whole = content[..written].rfind('\n').unwrap() + 1;
    assert_eq!(shipped.concat(), content[..whole]);
}

#[tokio::test]
async fn an_unterminated_last_line_waits_until_the_blobs_hour_is_long_over() {
    let mut bench = diagnostic();
    bench.put(BLOB, "{\"a\":1}\n{\"b\":").await;
    assert_eq!(bench.run().await.texts(), ["{\"a\":1}"]);
    assert!(bench.run().await.texts().is_empty());
    bench.put(BLOB, "{\"a\":1}\n{\"b\":2}").await;
    assert_eq!(bench.run().await.texts(), ["{\"b\":2}"], "what is JSON is complete");
    bench.put(BLOB, "{\"a\":1}\n{\"b\":2}\r\n{\"c\":").await;
    assert!(bench.run().await.texts().is_empty());
    bench.clock = later;
    assert_eq!(bench.run().await.texts(), ["{\"c\":"]);
    assert_eq!(bench.run().await.fetched, 0);
}

#[tokio::test]
async fn a_line_that_waits_behind_as_many_as_a_cut_takes_is_shipped_in_the_end() {
    let mut bench = diagnostic();
    bench.put(BLOB, "{\"a\":1}\n".repeat(lines::MOST_LINES) + "{\"b\":").await;
    assert_eq!(bench.run().await.texts().len(), lines::MOST_LINES);
    bench.clock = later;
    assert_eq!(bench.run().await.texts(), ["{\"b\":"]);
    let document = format!("{{\"records\":[{}{{\"b\":", "{\"a\":1},".repeat(lines::MOST_LINES));
    bench.put(&BLOB.replace("h=11", "h=10"), document).await;
    let outcome = bench.run().await;
    assert_eq!((outcome.texts().len(), outcome.texts().last()), (lines::MOST_LINES + 1, Some(&"{\"b\":")));
}

#[tokio::test]
async fn a_line_waits_for_the_end_of_the_blobs_hour_even_if_the_blob_seems_older() {
    let mut bench = diagnostic();
    // Written long before its hour, as a writer or a copy with another clock has it.
    bench.put(&blob("insights-logs-jobs", LANE, "y=2098/m=01/d=05"), "{\"a\":").await;
    bench.clock = || Millis::parse("2098-01-05T12:59:59Z").unwrap();
    assert!(bench.run().await.texts().is_empty());
    bench.clock = || Millis::parse("2098-01-05T13:00:00Z").unwrap();
    assert_eq!(bench.run().await.texts(), ["{\"a\":"]);
}

#[tokio::test]
async fn an_old_blob_is_a_document_whose_records_are_shipped_once_as_it_is_written_anew() {
    for pretty in [false, true] {
        let bench = diagnostic();
        let document = |records: usize| {
            let records: Vec<_> = (0..records)
                .map(|n| serde_json::json!({ "resourceId": RESOURCE, "n": n, "pad": "x".repeat(500) }))
                .collect();
            let document = serde_json::json!({ "records": records });
            if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }
                .unwrap()
        };
        let (mut shipped, mut fetched) = (Vec::new(), 0);
        for records in [0, 1, 400, 401, 450, 450] {
            bench.put(BLOB, document(records)).await;
            let outcome = bench.run().await;
            assert_eq!((outcome.mismatches, outcome.malformed.len()), (0, 0), "{records}");
            fetched = outcome.fetched;
            shipped.extend(outcome.texts().into_iter().map(str::to_owned));
        }
        let numbers: Vec<u64> = shipped
            .iter()
            .map(|text| serde_json::from_str::<Value>(text).unwrap()["n"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, (0..450).collect::<Vec<_>>());
        assert!(fetched <= document(450).len() as u64, "the same content under a new ETag is compared");
    }
}

#[tokio::test]
async fn records_carry_the_workspace_that_is_configured_for_their_resource() {
    let mut bench = diagnostic();
    bench.settings["workspace_ids"] = serde_json::json!({ RESOURCE.to_uppercase(): "7405611902334455" });
    bench.put(BLOB, "{\"a\":1}\n").await;
    let bucket = bench.bucket();
    loop {
        match bucket.read().await.unwrap() {
            Read::Chunk(chunk) if chunk.partition.as_str() == BLOB => {
                assert_eq!(chunk.origin.workspace.as_deref(), Some("7405611902334455"));
                assert_eq!(
                    chunk.origin.workspace_ids.get(RESOURCE).map(|id| &**id),
                    Some("7405611902334455")
                );
                return;
            }
            Read::End => panic!("the blob was not read"),
            _ => {}
        }
    }
}

/// Counts listings, and refuses those of one container as long as it is told to.
#[derive(Debug)]
struct Watched {
    inner: Arc<InMemory>,
    listings: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
}

impl fmt::Display for Watched {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Watched")
    }
}

impl Watched {
    fn look(&self, prefix: Option<&Path>) -> object_store::Result<()> {
        self.listings.fetch_add(1, Ordering::Relaxed);
        let path = prefix.map(ToString::to_string).unwrap_or_default();
        if path.contains("insights-logs-ssh") && self.refuses.load(Ordering::Relaxed) {
            return Err(object_store::Error::PermissionDenied { path, source: "no".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.look(prefix) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.look(prefix)?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Reads until the pass has ended; its lines, and how it ended.
async fn pass(bench: &Bench, bucket: &Bucket) -> (Vec<String>, Option<String>) {
    let mut outcome = Outcome::default();
    let withheld = loop {
        match bucket.read().await.unwrap() {
            Read::Chunk(chunk) => {
                take_in(&chunk, &mut outcome);
                let Chunk { partition, position, note, .. } = chunk;
                let change = Change { partition: partition.clone(), position: position.clone(), note };
                bench.state.commit("audit/out", vec![change], Vec::new()).await.unwrap();
                bucket.committed(&partition, &position).await;
            }
            Read::Idle => break None,
            Read::Withheld(error) => break Some(error.to_string()),
            other => panic!("{other:?}"),
        }
    };
    (outcome.texts().into_iter().map(str::to_owned).collect(), withheld)
}

/// Runs passes until there was a line, and gives back all lines.
async fn passes(bench: &Bench, bucket: &Bucket) -> Vec<String> {
    for _ in 0..10 {
        let (texts, _) = pass(bench, bucket).await;
        if !texts.is_empty() {
            return texts;
        }
    }
    Vec::new()
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_closed_to_us_holds_and_the_others_go_on_and_nothing_of_it_is_missed() {
    let mut bench = diagnostic();
    let old = "y=2025/m=12/d=01";
    bench.put(BLOB, "{\"a\":1}\n").await;
    bench.put(&blob("insights-logs-ssh", LANE, old), "{\"old\":1}\n").await;
    let (listings, refuses) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicBool::new(true)));
    bench.wrapped = Some(Arc::new(Watched {
        inner: Arc::clone(&bench.store),
        listings: Arc::clone(&listings),
        refuses: Arc::clone(&refuses),
    }));
    let bucket = bench.bucket();
    if let Some(plan) = bucket.plan.lock().unwrap().as_mut() {
        plan.context.once = false;
    }
    let mut withheld = None;
    let mut texts = Vec::new();
    for _ in 0..4 {
        let (lines, error) = pass(&bench, &bucket).await;
        texts.extend(lines);
        withheld = error;
    }
    assert_eq!(texts, ["{\"a\":1}"]);
    let withheld = withheld.unwrap();
    assert!(withheld.starts_with("cannot list logs/insights-logs-ssh"), "{withheld}");
    refuses.store(false, Ordering::Relaxed);
    assert_eq!(
        passes(&bench, &bucket).await,
        ["{\"old\":1}"],
        "of a date that is not looked at with every poll"
    );
}

#[tokio::test(start_paused = true)]
async fn a_poll_lists_the_open_date_of_each_lane_and_nothing_else() {
    let mut bench = diagnostic();
    for container in ["insights-logs-jobs", "insights-logs-dbfs", "insights-logs-ssh"] {
        for date in ["y=2026/m=01/d=05", "y=2026/m=01/d=04", "y=2025/m=12/d=31", "y=2025/m=06/d=01"] {
            bench.put(&blob(container, LANE, date), "{\"a\":1}\n").await;
        }
    }
    let (listings, refuses) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let inner = Arc::clone(&bench.store);
    bench.wrapped = Some(Arc::new(Watched { inner, listings: Arc::clone(&listings), refuses }));
    let bucket = bench.bucket();
    if let Some(plan) = bucket.plan.lock().unwrap().as_mut() {
        plan.context.once = false;
    }
    for _ in 0..3 {
        pass(&bench, &bucket).await;
    }
    let before = listings.load(Ordering::Relaxed);
    pass(&bench, &bucket).await;
    assert_eq!(listings.load(Ordering::Relaxed) - before, 3);
}
