//! Killed again and again in mid-flow: nothing is missing, and what comes twice was in flight.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use auditferry::generate::{Bucket, Options, Rewrite};
use auditferry::time::{Date, Millis};
use fastrand::Rng;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::collector::{Collector, Protocol, Received, Step};
use crate::support::process::{Process, run};

const KILLS: u32 = 16;
/// `memory` of the configuration: what may be in flight.
const MEMORY: usize = 256 << 10;
const LINES: u64 = 6000;
const ACCEPTED: &str = r#"{"text":"Success","code":0}"#;

fn today() -> Date {
    Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap().date()
}

/// Four objects that are overwritten between two kills, and soon large enough to be read on from where they were left.
fn bucket(rewrites: &[Rewrite], seed: u64) -> Bucket {
    let options = Options {
        overwrite_rounds: KILLS,
        rewrites: rewrites.to_vec(),
        repeats: 20_000,
        seed,
        ..Options::new(2, 1, LINES, today())
    };
    Bucket::new(options).unwrap()
}

/// Two pipelines, one per collector, with batches of about 20 events.
fn configure(directory: &Path, hec: &Collector, bulk: &Collector) {
    let text = format!(
        r#"
        state_dir = "state"
        memory = "{MEMORY}B"
        [server]
        listen = "none"
        [inputs.audit]
        type = "bucket"
        url = "bucket"
        poll_interval = "1s"
        concurrency = 2
        verify_whole_below = "64KiB"
        [outputs.hec]
        type = "splunk_hec"
        url = "{}"
        token = {{ env = "TOKEN" }}
        in_flight = 3
        batch = {{ max_bytes = "32KiB", max_age = "20ms" }}
        [outputs.bulk]
        type = "elastic"
        url = "{}"
        api_key = {{ env = "TOKEN" }}
        in_flight = 3
        batch = {{ max_bytes = "32KiB", max_age = "20ms" }}
        "#,
        hec.url(),
        bulk.url()
    );
    std::fs::write(directory.join("auditferry.toml"), text).unwrap();
}

/// Lets it run until it has sent some more requests and a moment has passed, then kills it.
fn run_and_kill(directory: &Path, collectors: [&Collector; 2], rng: &mut Rng) {
    let mut process = Process::start(&["run", "--config", "auditferry.toml"], directory);
    process.until_logged("started");
    let watched = collectors[rng.usize(..2)];
    let wanted = watched.count_requests() + rng.usize(..12);
    let moment = Duration::from_millis(rng.u64(..40));
    let start = Instant::now();
    // There may be nothing left to send in this round; then it is killed at rest.
    process.until("killed in time", |_| {
        (watched.count_requests() >= wanted && start.elapsed() > moment) || start.elapsed().as_secs() >= 1
    });
    process.kill();
}

/// The events of HEC requests, each with its number and that of the process that sent it: its channel.
fn by_process(requests: &[Received]) -> Vec<(usize, Value)> {
    let mut channels: Vec<&str> = Vec::new();
    let mut events = Vec::new();
    for request in requests {
        let channel = request.header("x-splunk-request-channel").unwrap();
        // A request may still be read when the next process has already sent one.
        let process = channels.iter().position(|known| *known == channel).unwrap_or(channels.len());
        if process == channels.len() {
            channels.push(channel);
        }
        for envelope in serde_json::Deserializer::from_str(&request.body).into_iter::<Value>() {
            events.push((process, envelope.unwrap()["event"].take()));
        }
    }
    events
}

/// How many events were delivered once more, and the most bytes of their records that one kill can be blamed for: the
/// one that ended the process by which they had been delivered before.
fn repeats(requests: &[Received], sizes: &HashMap<String, usize>) -> (usize, usize) {
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut blamed: BTreeMap<usize, usize> = BTreeMap::new();
    let mut count = 0;
    for (process, event) in by_process(requests) {
        let id = event["event_id"].to_string();
        let Some(before) = last.insert(id.clone(), process) else { continue };
        assert_ne!(before, process, "{id} was sent twice although nothing had failed");
        *blamed.entry(before).or_default() += sizes[event["request_id"].as_str().unwrap()];
        count += 1;
    }
    (count, blamed.into_values().max().unwrap_or(0))
}

/// The request ids of documents, each with how often it is there.
fn counted(ids: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

fn request_ids(documents: &[Value]) -> BTreeMap<String, usize> {
    counted(documents.iter().map(|document| document["request_id"].as_str().unwrap().to_owned()))
}

/// Only a few of what differs: thousands of ids would hide everything else.
fn assert_same(found: &BTreeMap<String, usize>, expected: &BTreeMap<String, usize>, what: &str) {
    let differing: Vec<_> = expected
        .iter()
        .map(|(id, count)| (id, *count, found.get(id).copied().unwrap_or(0)))
        .filter(|(_, expected, found)| expected != found)
        .collect();
    let few: Vec<_> = differing.iter().take(5).collect();
    assert!(differing.is_empty(), "{what}: {} ids (id, expected, found): {few:?}", differing.len());
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Goes through all rounds of rewriting with a kill in each, then ships the rest in peace.
async fn survives(rewrites: &[Rewrite]) {
    let seed = std::env::var("CRASH_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let what = format!("CRASH_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let bucket = bucket(rewrites, seed % 1000);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let hec = Collector::start(Protocol::Hec).await;
    let bulk = Collector::start(Protocol::Bulk).await;
    configure(directory, &hec, &bulk);
    // A collector that takes its time, so that something is always in flight.
    for _ in 0..LINES {
        let delay = Duration::from_millis(rng.u64(..15));
        hec.push(Step::answer(200, ACCEPTED).keeping().delayed(delay));
    }
    for round in 0..=bucket.last_round() {
        bucket.write_round(&directory.join("bucket"), round).unwrap();
        if round < KILLS {
            run_and_kill(directory, [&hec, &bulk], &mut rng);
        }
    }
    let last = run(&["run", "--once", "--config", "auditferry.toml"], directory);
    assert_eq!(last.code, Some(0), "{what}\n{}", last.stderr);

    let mut sizes = HashMap::new();
    let expected = counted(bucket.lines().map(|line| {
        let record: Value = serde_json::from_slice(&line).unwrap();
        let id = record["requestId"].as_str().unwrap().to_owned();
        sizes.insert(id.clone(), line.len());
        id
    }));
    assert_same(&request_ids(&bulk.events()), &expected, &format!("{what}: bulk"));
    let ids: HashSet<String> = bulk.ids().into_iter().collect();
    assert_eq!(ids.len() as u64, LINES, "{what}: an id for every line, repeated ones too");

    let mut once = HashSet::new();
    let mut documents = hec.events();
    documents.retain(|event| once.insert(event["event_id"].to_string()));
    assert_same(&request_ids(&documents), &expected, &format!("{what}: hec"));
    let (count, worst) = repeats(&hec.requests(), &sizes);
    assert!(count > 0, "{what}: no kill met anything in flight");
    assert!(worst <= MEMORY, "{what}: {count} repeats, up to {worst} bytes of them after one kill");
    let nothing = run(&["run", "--once", "--config", "auditferry.toml"], directory).with(0);
    assert_eq!(once.len() as u64, LINES, "{what}\n{}", nothing.stderr);
    assert_eq!(hec.events().len(), documents.len() + count, "{what}: a run at rest sends nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_while_objects_grow_loses_nothing_and_repeats_what_was_in_flight() {
    survives(&[Rewrite::Append]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_while_it_compares_rewritten_objects_loses_nothing_either() {
    survives(&[Rewrite::Insert, Rewrite::Reorder, Rewrite::Shrink, Rewrite::Append, Rewrite::Touch]).await;
}
