//! Killed again and again in mid-flow: nothing is missing, and what comes twice was in flight.
//!
//! `AUDITFERRY_CRASH_KILLS` asks for more kills a test, `AUDITFERRY_CRASH_SEED` for those of a run that failed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use auditferry::dead_letter::file as dead_letters;
use auditferry::failpoint::{CAN_ABORT, Step as DyingAt};
use auditferry::generate::{Bucket, Options, Rewrite};
use auditferry::time::{Date, Millis};
use fastrand::Rng;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::process::{Process, run};

/// Kills in each of the five tests that kill at random.
const KILLS: u32 = 100;
/// `memory` of the configuration: what may be in flight. Four times that where a collector is slow; none is here.
const MEMORY: usize = 256 << 10;
/// At least so many, and 80 a round.
const LINES: u64 = 8000;
/// Refused by the collectors: one line of 32.
const POISON: &str = "ServiceMain-0";
/// There may be nothing left to do in a round; then the process is killed at rest.
const AT_REST: Duration = Duration::from_millis(300);

/// Where a process dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// The collector has events and has not answered.
    Sent,
    /// After some requests, and a moment.
    Anywhere(usize, Duration),
    /// When it comes to a step for the nth time.
    At(DyingAt, u32),
}

impl Death {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u32(..8) {
            0 => Self::Sent,
            1..4 => Self::Anywhere(rng.usize(..6), Duration::from_millis(rng.u64(..40))),
            _ => {
                let step = DyingAt::ALL[rng.usize(1..DyingAt::ALL.len())];
                // A round comes to these a few times only.
                let seldom = [DyingAt::ReadingSeam, DyingAt::KeepingDeadLetters, DyingAt::KeptDeadLetters];
                Self::At(step, if seldom.contains(&step) { 1 } else { rng.u32(1..6) })
            }
        }
    }
}

fn variable<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn today() -> Date {
    Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap().date()
}

/// A bucket, two collectors, and two pipelines to them with batches of about 20 events.
struct Bench {
    directory: TempDir,
    bucket: Bucket,
    hec: Collector,
    bulk: Collector,
    what: String,
}

impl Bench {
    /// Four objects that are overwritten between two kills, and soon large enough to be read on from where they were left.
    async fn new(rewrites: &[Rewrite], rounds: u32, seed: u64, keys: &str) -> Self {
        let options = Options {
            overwrite_rounds: rounds,
            rewrites: rewrites.to_vec(),
            repeats: 20_000,
            seed: seed % 1000,
            ..Options::new(2, 1, LINES.max(u64::from(rounds) * 80), today())
        };
        let bench = Self {
            directory: tempfile::tempdir().unwrap(),
            bucket: Bucket::new(options).unwrap(),
            hec: Collector::start(Protocol::Hec).await,
            bulk: Collector::start(Protocol::Bulk).await,
            what: format!("AUDITFERRY_CRASH_SEED={seed}"),
        };
        bench.hec.set_poison(POISON);
        bench.bulk.set_poison(POISON);
        bench.configure(keys);
        bench
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn configure(&self, keys: &str) {
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
            [outputs.bulk]
            type = "elastic"
            url = "{}"
            api_key = {{ env = "TOKEN" }}
            in_flight = 3
            batch = {{ max_bytes = "32KiB", max_age = "20ms" }}
            [outputs.hec]
            type = "splunk_hec"
            url = "{}"
            token = {{ env = "TOKEN" }}
            in_flight = 3
            batch = {{ max_bytes = "32KiB", max_age = "20ms" }}
            {keys}
            "#,
            self.bulk.url(),
            self.hec.url(),
        );
        std::fs::write(self.directory().join("auditferry.toml"), text).unwrap();
    }

    fn write_round(&self, round: u32) {
        self.bucket.write_round(&self.directory().join("bucket"), round).unwrap();
    }

    fn start(&self, variables: &[(&str, &str)]) -> Process {
        Process::start_with(&["run", "--config", "auditferry.toml"], self.directory(), variables)
    }

    /// Runs until that death; false if it never came to it and was killed at rest.
    fn run_and_kill(&self, death: Death, patience: Duration) -> bool {
        match death {
            Death::At(step, times) => {
                let doom = format!("{}:{times}", step.name());
                let mut process = self.start(&[("AUDITFERRY_ABORT_AT", &doom)]);
                let died = process.dies_within(patience);
                process.kill();
                died
            }
            Death::Sent => {
                self.hec.set_withholding(true);
                let before = self.hec.count_events();
                let sent =
                    self.kill_when(|start| self.hec.count_events() > before || start.elapsed() > patience);
                self.hec.set_withholding(false);
                sent && self.hec.count_events() > before
            }
            Death::Anywhere(requests, moment) => {
                let wanted = self.hec.count_requests() + requests;
                self.kill_when(|start| {
                    (self.hec.count_requests() >= wanted && start.elapsed() > moment)
                        || start.elapsed() > patience
                })
            }
        }
    }

    fn kill_when(&self, holds: impl Fn(Instant) -> bool) -> bool {
        let mut process = self.start(&[]);
        process.until_logged("started");
        let start = Instant::now();
        process.until("killed in time", |_| holds(start));
        process.kill();
        true
    }

    /// Ships the rest in peace, and compares both ends.
    fn verify(&self) -> usize {
        let what = &self.what;
        let last = run(&["run", "--once", "--config", "auditferry.toml"], self.directory());
        // 1 where something was dead-lettered in that run.
        assert!(matches!(last.code, Some(0 | 1)), "{what}\n{}", last.stderr);
        let (mut delivered, mut dead, mut sizes) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
        for line in self.bucket.lines() {
            let record: Value = serde_json::from_slice(&line).unwrap();
            let id = record["requestId"].as_str().unwrap().to_owned();
            sizes.insert(id.clone(), line.len());
            let ends = if id.starts_with(POISON) { &mut dead } else { &mut delivered };
            *ends.entry(id).or_insert(0) += 1;
        }
        assert!(!dead.is_empty(), "{what}: no poison");
        assert_same(&request_ids(&self.bulk.events()), &delivered, &format!("{what}: bulk"));
        let lines: usize = delivered.values().sum();
        let ids: HashSet<String> = self.bulk.ids().into_iter().collect();
        assert_eq!(ids.len(), lines, "{what}: an id for every line, repeated ones too");
        let mut once = HashSet::new();
        let mut documents = self.hec.events();
        documents.retain(|event| once.insert(event["event_id"].to_string()));
        assert_same(&request_ids(&documents), &delivered, &format!("{what}: hec"));
        for output in ["bulk", "hec"] {
            assert_same(&self.letters(output), &dead, &format!("{what}: dead letters of {output}"));
        }
        let (repeats, worst) = self.repeats(&sizes);
        assert!(worst <= MEMORY, "{what}: {repeats} repeats, up to {worst} bytes of them after one kill");
        let arrived = self.hec.count_events();
        run(&["run", "--once", "--config", "auditferry.toml"], self.directory()).with(0);
        assert_eq!(self.hec.count_events(), arrived, "{what}: a run at rest sends nothing");
        repeats
    }

    /// The dead letters of an output by request id; one that was written again after a kill counts once.
    fn letters(&self, output: &str) -> BTreeMap<String, usize> {
        let files = dead_letters::list(&self.directory().join("state")).unwrap();
        let letters = files.iter().flat_map(|file| dead_letters::read(&file.path).unwrap());
        let mut known = BTreeSet::new();
        let mut counts = BTreeMap::new();
        for letter in letters.map(|letter| letter.unwrap()) {
            let record: Value = serde_json::from_slice(&letter.letter.record).unwrap();
            let id = record["requestId"].as_str().unwrap().to_owned();
            let of_output = letter.pipeline.ends_with(output);
            if of_output && known.insert((id.clone(), letter.letter.origin.occurrence)) {
                *counts.entry(id).or_insert(0) += 1;
            }
        }
        counts
    }

    /// How many events came once more, and the most bytes of their records that one kill can be blamed for: the one that
    /// ended the process by which they had come before.
    fn repeats(&self, sizes: &HashMap<String, usize>) -> (usize, usize) {
        let mut last: HashMap<String, String> = HashMap::new();
        let mut blamed: BTreeMap<String, usize> = BTreeMap::new();
        let mut count = 0;
        // The channel is the process's own.
        for (process, event) in self.hec.events_by("x-splunk-request-channel") {
            let id = event["event_id"].to_string();
            let Some(before) = last.insert(id.clone(), process.clone()) else { continue };
            assert_ne!(before, process, "{}: {id} came twice although nothing had failed", self.what);
            *blamed.entry(before).or_default() += sizes[event["request_id"].as_str().unwrap()];
            count += 1;
        }
        (count, blamed.into_values().max().unwrap_or(0))
    }
}

fn request_ids(documents: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for document in documents {
        *counts.entry(document["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
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
async fn survives(rewrites: &[Rewrite], keys: &str) {
    let seed = variable("AUDITFERRY_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = variable("AUDITFERRY_CRASH_KILLS").unwrap_or(KILLS).max(2);
    let mut rng = Rng::with_seed(seed);
    let bench = Bench::new(rewrites, kills - 1, seed, keys).await;
    if keys.contains("ack") {
        bench.hec.set_acknowledging(true);
    }
    // Collectors that take their time, so that something is always in flight.
    for collector in [&bench.hec, &bench.bulk] {
        for _ in 0..LINES {
            collector.push(Step::usual().delayed(Duration::from_millis(rng.u64(..15))));
        }
    }
    for round in 0..=bench.bucket.last_round() {
        bench.write_round(round);
        if round == 0 {
            // One kill that surely meets something in flight.
            assert!(bench.run_and_kill(Death::Sent, Duration::MAX));
        } else {
            bench.run_and_kill(Death::draw(&mut rng), AT_REST);
        }
    }
    let repeats = bench.verify();
    assert!(repeats > 0, "{}: no kill met anything in flight", bench.what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_while_objects_grow_loses_nothing_and_repeats_what_was_in_flight() {
    survives(&[Rewrite::Append], "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_while_it_compares_rewritten_objects_loses_nothing_either() {
    survives(&[Rewrite::Insert, Rewrite::Reorder, Rewrite::Shrink, Rewrite::Append, Rewrite::Touch], "")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_while_acknowledgements_are_due_loses_nothing_either() {
    survives(&[Rewrite::Append, Rewrite::Insert], "ack = true").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_while_it_sends_compressed_requests_loses_nothing_either() {
    survives(&[Rewrite::Append, Rewrite::Append, Rewrite::Reorder], "compression = \"gzip\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_while_objects_shrink_and_grow_again_loses_nothing_either() {
    survives(&[Rewrite::Shrink, Rewrite::Append], "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_dies_at_any_step_loses_nothing() {
    if !CAN_ABORT {
        return;
    }
    for step in DyingAt::ALL {
        let bench = Bench::new(&[Rewrite::Append], 3, 1, "").await;
        bench.write_round(0);
        if step == DyingAt::ReadingSeam {
            // There has to be something to read on from.
            run(&["run", "--once", "--config", "auditferry.toml"], bench.directory()).with(1);
        }
        bench.write_round(1);
        let times = if step == DyingAt::Migrating { 1..2 } else { 1..4 };
        for time in times {
            let died = bench.run_and_kill(Death::At(step, time), Duration::from_secs(50));
            assert!(died, "it never came to {} for the {time}th time", step.name());
        }
        bench.write_round(2);
        bench.write_round(3);
        bench.verify();
    }
}
