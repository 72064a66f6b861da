//! Objects that are looked at because somebody said so, while the next listing is far away.

use std::time::Duration;

use super::*;
use crate::input::Read;

/// A bucket that goes on reading, whose next listing is an hour away.
struct Live {
    bench: Bench,
    bucket: Bucket,
}

impl Live {
    /// Starts with an empty bucket and lists it.
    async fn start(mut bench: Bench) -> Self {
        bench.settings["poll_interval"] = serde_json::json!("1h");
        let bucket = bench.bucket();
        if let Some(plan) = bucket.plan.lock().unwrap().as_mut() {
            plan.context.once = false;
            plan.retry_interval = Duration::from_millis(100);
        }
        let live = Self { bench, bucket };
        while live.bucket.read().await.is_err() {}
        live
    }

    fn hint(&self, key: &str) {
        self.bucket.running.get().unwrap().hints.look(Path::from(key));
    }

    /// Commits what is read and gives its lines.
    async fn read(&self) -> Option<Vec<String>> {
        match self.bucket.read().await.unwrap() {
            Read::Chunk(chunk) => {
                let lines = chunk.records.iter().map(|record| chunk.record(record));
                let lines = lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
                let Chunk { partition, position, note, .. } = chunk;
                let change = Change { partition: partition.clone(), position: position.clone(), note };
                self.bench.state.commit("audit/out", vec![change], Vec::new()).await.unwrap();
                self.bucket.committed(&partition, &position).await;
                Some(lines)
            }
            Read::Trouble { error, .. } | Read::Withheld(error) => panic!("{error}"),
            Read::Idle | Read::End => None,
        }
    }

    /// Lines until so many have come.
    async fn lines(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let more = tokio::time::timeout(Duration::from_secs(60), self.read()).await;
            lines.extend(more.expect("the hint was not followed").unwrap_or_default());
        }
        lines
    }
}

#[tokio::test]
async fn late_repeated_and_false_hints_ship_each_line_once() {
    let key = |name: &str| format!("logs/workspaceId=7/date=2026-01-05/auditlogs_{name}.json");
    let live = Live::start(Bench::new()).await;
    live.bench.put(&key("new"), "{\"a\":1}\n").await;
    // Repeated, of an object that is gone, of one that was read before, of one that is none of ours.
    for name in ["new", "new", "gone", "new"] {
        live.hint(&key(name));
    }
    live.hint("logs/billing/usage.json");
    assert_eq!(live.lines(1).await, ["{\"a\":1}"]);
    live.hint(&key("new"));
    live.bench.put(&key("other"), "{\"b\":1}\n").await;
    live.hint(&key("other"));
    live.bench.put(&key("new"), "{\"a\":1}\n{\"a\":2}\n").await;
    live.hint(&key("new"));
    let mut lines = live.lines(2).await;
    lines.sort_unstable();
    assert_eq!(lines, ["{\"a\":2}", "{\"b\":1}"]);
    // The hint of a date that closed long ago counts as well.
    let old = "logs/workspaceId=7/date=2020-02-02/auditlogs_late.json";
    live.bench.put(old, "{\"c\":1}\n").await;
    live.hint(old);
    assert_eq!(live.lines(1).await, ["{\"c\":1}"]);
}

#[tokio::test]
async fn a_hint_that_tells_an_old_version_ships_what_there_is_now() {
    let live = Live::start(Bench::new()).await;
    let told = |etag: &str, size| object_store::ObjectMeta {
        location: Path::from(KEY),
        last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
        size,
        e_tag: Some(etag.to_owned()),
        version: None,
    };
    let look_at = |meta| live.bucket.running.get().unwrap().hints.look_at(meta);
    live.bench.put(KEY, "{\"a\":1}\n{\"a\":2}\n").await;
    // Never read: the store refuses the version, and the reader asks for the one there is.
    look_at(told("\"old\"", 4));
    assert_eq!(live.lines(2).await, ["{\"a\":1}", "{\"a\":2}"]);
    // Known: a late hint is no change, and whatever it says, nothing is committed for it.
    let resume = Resume::new(Arc::clone(&live.bench.state) as Arc<dyn State>, "audit/out");
    let before = resume.position(&Partition::new(KEY)).await.unwrap();
    for (size, other) in [(0, "2"), (4, "3")] {
        let other = format!("logs/workspaceId=7/date=2026-01-05/auditlogs_{other}.json");
        live.bench.put(&other, "{\"b\":1}\n").await;
        look_at(told("\"older\"", size));
        live.hint(&other);
        assert_eq!(live.read().await.unwrap(), ["{\"b\":1}"], "the very next chunk");
        assert_eq!(resume.position(&Partition::new(KEY)).await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_hint_that_tells_a_wrong_size_hides_nothing_of_the_object() {
    for part in [100, 2, 1] {
        let live = Live::start(Bench::new()).await;
        let content = lines(0, 20_000);
        live.bench.put(KEY, &content).await;
        let meta = live.bench.store.head(&Path::from(KEY)).await.unwrap();
        // Whoever may write to the queue could say so, of a version that is there.
        let told = object_store::ObjectMeta { size: meta.size - meta.size / part, ..meta };
        live.bucket
            .running
            .get()
            .unwrap()
            .hints
            .look_at(object_store::ObjectMeta { size: told.size.max(1), ..told });
        assert_eq!(live.lines(20_000).await.len(), 20_000);
    }
}

#[tokio::test]
async fn what_failed_is_tried_again_long_before_the_next_listing() {
    let mut bench = Bench::new();
    bench.wrapped = Some(Arc::new(BreakingOff::failing_listings(Arc::clone(&bench.store), 3)));
    // The listing itself: three times in vain.
    let live = tokio::time::timeout(Duration::from_secs(60), Live::start(bench)).await.expect("no listing");
    live.bench.put(KEY, lines(0, 3)).await;
    live.bucket.running.get().unwrap().hints.again(Path::from(KEY));
    assert_eq!(live.lines(3).await.len(), 3);
}

#[tokio::test]
async fn a_pass_is_complete_though_hints_keep_objects_open() {
    let mut bench = Bench::new();
    bench.settings["poll_interval"] = serde_json::json!("1h");
    bench.put(KEY, lines(0, 1)).await;
    let bucket = bench.bucket();
    if let Some(plan) = bucket.plan.lock().unwrap().as_mut() {
        plan.context.once = false;
    }
    let next = async || loop {
        match bucket.read().await.unwrap() {
            Read::Chunk(chunk) => return chunk,
            Read::Idle => {}
            other => panic!("{other:?}"),
        }
    };
    let found = next().await;
    assert_eq!(found.partition.as_str(), KEY);
    let hinted = "logs/workspaceId=7/date=2026-01-05/auditlogs_2.json";
    bench.put(hinted, lines(0, 1)).await;
    bucket.running.get().unwrap().hints.look(Path::from(hinted));
    assert_eq!(next().await.partition.as_str(), hinted, "open from now on");
    bucket.committed(&found.partition, &found.position).await;
    let mark = tokio::time::timeout(Duration::from_secs(60), next()).await.expect("the pass is not marked");
    assert_eq!(mark.partition.as_str(), mark::PARTITION);
}

#[tokio::test]
async fn what_no_hint_told_is_found_by_the_next_listing() {
    let live = Live::start(Bench::new()).await;
    live.bench.put(KEY, lines(0, 3)).await;
    live.bucket.running.get().unwrap().hints.rescan();
    assert_eq!(live.lines(3).await.len(), 3);
}

#[tokio::test]
async fn more_hints_than_fit_become_a_listing() {
    let live = Live::start(Bench::new()).await;
    let count = HINTS + 200;
    for number in 0..count {
        let key = format!("logs/workspaceId=7/date=2026-01-05/auditlogs_{number}.json");
        live.bench.put(&key, format!("{{\"n\":{number}}}\n")).await;
        live.hint(&key);
    }
    let mut lines = live.lines(count).await;
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), count);
}
