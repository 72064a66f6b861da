//! Against librdkafka's mock cluster: brokers in process that fail on cue.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey as ApiKey, RDKafkaRespErr as Answer};
use rdkafka::{ClientConfig, consumer::BaseConsumer, consumer::Consumer};
use serde_json::{Value, json};

use super::super::config::parse;
use super::*;
use crate::budget::Budget;
use crate::chunk::Chunk;
use crate::input::{Resume, Shared};
use crate::state::sqlite::SqliteState;
use crate::state::{Change, State};
use crate::time::Date;

mod beginning;
mod broken;
mod refused;

const TOPIC: &str = "insights-logs-audit";
const PARTITIONS: i32 = 3;
/// Longest wait for anything: far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, and the state of a pipeline that reads it.
struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    state: Arc<SqliteState>,
    _directory: tempfile::TempDir,
    settings: Value,
    budget: Budget,
}

impl Bench {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let servers = cluster.bootstrap_servers();
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(SqliteState::open(directory.path()).unwrap());
        let producer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        let settings = json!({
            "topics": [TOPIC], "bootstrap_servers": [servers], "tls": { "enabled": false }, "session_timeout": "6s",
        });
        Self { cluster, producer, state, _directory: directory, settings, budget: Budget::new(1 << 20) }
    }

    fn with_topic() -> Self {
        let bench = Self::new();
        bench.cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
        bench
    }

    fn put(&self, partition: i32, value: Option<&str>) {
        let record: BaseRecord<'_, (), str> = BaseRecord::to(TOPIC).partition(partition);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        self.producer.send(record).unwrap();
    }

    /// Puts envelopes of two records each, named by their numbers.
    fn put_envelopes(&self, numbers: std::ops::Range<i32>) {
        for number in numbers {
            let text = format!(r#"{{"records":[{{"n":"{number}a"}},{{"n":"{number}b"}}]}}"#);
            self.put(number % PARTITIONS, Some(&text));
        }
        self.flush();
    }

    fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }

    fn input(&self, once: bool) -> Kafka {
        self.input_of("hub/out", once)
    }

    fn input_of(&self, pipeline: &str, once: bool) -> Kafka {
        let context = InputContext {
            name: "hub".to_owned(),
            resume: Resume::new(Arc::clone(&self.state) as Arc<dyn State>, pipeline),
            budget: self.budget.clone(),
            once,
            until: None,
            base: PathBuf::new(),
            shared: Shared::default(),
            clock: || Date::EPOCH.start(),
        };
        Kafka::new(parse(self.settings.clone(), Flavour::Kafka).unwrap(), context, Flavour::Kafka)
    }

    /// Another client with the group's name, which is no member.
    fn outsider(&self) -> BaseConsumer {
        let servers = self.cluster.bootstrap_servers();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", servers).set("group.id", "auditferry.hub.out").create().unwrap()
    }

    /// Commits the first offset of partitions.
    fn commit_beginnings(&self, partitions: std::ops::Range<i32>) {
        let mut offsets = rdkafka::TopicPartitionList::new();
        for partition in partitions {
            offsets.add_partition_offset(TOPIC, partition, rdkafka::Offset::Offset(0)).unwrap();
        }
        self.outsider().commit(&offsets, rdkafka::consumer::CommitMode::Sync).unwrap();
    }

    /// Has the state keep the positions of chunks, as the engine does.
    async fn keep(&self, chunks: &[Chunk]) {
        let changes = chunks.iter().map(|chunk| Change {
            partition: chunk.partition.clone(),
            position: chunk.position.clone(),
            note: crate::chunk::Note::Keep,
        });
        self.state.commit("hub/out", changes.collect(), Vec::new()).await.unwrap();
    }

    /// The group's committed offset of a partition.
    fn committed(&self, partition: i32) -> i64 {
        let mut wanted = rdkafka::TopicPartitionList::new();
        wanted.add_partition(TOPIC, partition);
        let found = self.outsider().committed_offsets(wanted, PATIENCE).unwrap();
        found.elements()[0].offset().to_raw().unwrap()
    }
}

async fn next(input: &Kafka) -> Said {
    tokio::time::timeout(PATIENCE, input.read()).await.expect("nothing was read")
}

/// The next chunk; anything else is passed over.
async fn next_chunk(input: &Kafka) -> Chunk {
    loop {
        if let Ok(Read::Chunk(chunk)) = next(input).await {
            return chunk;
        }
    }
}

/// Everything up to the end of a single run.
async fn all(input: &Kafka) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    loop {
        match next(input).await.unwrap() {
            Read::Chunk(chunk) => chunks.push(chunk),
            Read::End => return chunks,
            Read::Idle => {}
            Read::Trouble { error, .. } | Read::Withheld(error) => panic!("{error}"),
        }
    }
}

/// Chunks until a look at the topic came to its end.
async fn until_idle(input: &Kafka, wanted: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    while records(&chunks).len() < wanted {
        chunks.push(next_chunk(input).await);
    }
    chunks
}

fn records(chunks: &[Chunk]) -> Vec<String> {
    let text = |chunk: &Chunk, record| String::from_utf8(chunk.record(record).to_vec()).unwrap();
    chunks.iter().flat_map(|chunk| chunk.records.iter().map(move |record| text(chunk, record))).collect()
}

fn expected(numbers: std::ops::Range<i32>) -> BTreeSet<String> {
    numbers.flat_map(|number| ["a", "b"].map(|half| format!(r#"{{"n":"{number}{half}"}}"#))).collect()
}

/// Each of these once, and nothing else.
fn assert_once(found: &[String], numbers: std::ops::Range<i32>) {
    assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected(numbers));
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "something came twice");
}

async fn acknowledge<'a>(input: &Kafka, chunks: impl IntoIterator<Item = &'a Chunk>) {
    for chunk in chunks {
        input.committed(&chunk.partition, &chunk.position).await;
    }
}

async fn error(input: &Kafka) -> InputError {
    loop {
        match next(input).await {
            Err(error) => return error,
            Ok(Read::Chunk(_) | Read::Idle) => {}
            Ok(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_single_run_reads_what_there_is_and_the_next_one_only_what_is_new() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..300);
    bench.put(0, None);
    bench.flush();
    let input = bench.input(true);
    let chunks = all(&input).await;
    assert_once(&records(&chunks), 0..300);
    acknowledge(&input, &chunks).await;
    input.close().await;
    assert_eq!(
        (0..PARTITIONS).map(|n| bench.committed(n)).collect::<Vec<_>>(),
        [101, 100, 100],
        "with the tombstone"
    );
    assert_eq!(bench.budget.used(), 0);

    bench.put_envelopes(300..310);
    let input = bench.input(true);
    let chunks = all(&input).await;
    assert_once(&records(&chunks), 300..310);
    let origin = &chunks[0].origin;
    assert!(origin.object.starts_with(TOPIC) && origin.object.contains('/'), "{origin:?}");
    input.close().await;
}

#[tokio::test]
async fn two_outputs_get_everything_each() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..30);
    let (first, second) = (bench.input_of("hub/out", true), bench.input_of("hub/other", true));
    let (one, other) = tokio::join!(all(&first), all(&second));
    assert_once(&records(&one), 0..30);
    assert_once(&records(&other), 0..30);
    tokio::join!(first.close(), second.close());
}

#[tokio::test]
async fn the_broker_says_where_to_resume_whatever_the_state_holds() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..30);
    let input = bench.input(true);
    let chunks = all(&input).await;
    // One partition is acknowledged; the state says of all that they are.
    acknowledge(&input, chunks.iter().filter(|chunk| chunk.partition.as_str().ends_with("/1"))).await;
    bench.keep(&chunks).await;
    input.close().await;
    let input = bench.input(true);
    let again = records(&all(&input).await);
    let unacknowledged: BTreeSet<String> =
        (0..30).filter(|number| number % 3 != 1).flat_map(|number| expected(number..number + 1)).collect();
    assert_eq!(again.iter().cloned().collect::<BTreeSet<_>>(), unacknowledged);
    input.close().await;
}

#[tokio::test]
async fn a_partition_that_moves_is_resumed_where_it_was_acknowledged_and_never_moved_back() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..30);
    let first = bench.input(false);
    let chunks = until_idle(&first, 60).await;
    // Of each partition the first messages are acknowledged before it moves, if it does.
    let early: Vec<&Chunk> = chunks.iter().filter(|chunk| chunk.line == 0).collect();
    acknowledge(&first, early.iter().copied()).await;

    let second = bench.input(false);
    let mut moved = Vec::new();
    while moved.is_empty() {
        tokio::select! {
            read = second.read() => if let Ok(Read::Chunk(chunk)) = read { moved.push(chunk) },
            _ = first.read() => bench.put_envelopes(30..60),
        }
    }
    let partition = moved[0].partition.clone();
    let number: i32 = partition.as_str().rsplit('/').next().unwrap().parse().unwrap();
    let left = early.iter().rfind(|chunk| chunk.partition == partition).unwrap();
    assert_eq!(moved[0].line.to_string(), left.position.as_str(), "where the first one left it");

    acknowledge(&second, &moved).await;
    let reached: i64 = moved.last().unwrap().position.as_str().parse().unwrap();
    wait_until("the second commits", || bench.committed(number) == reached).await;
    // What the first one had in flight is delivered only now.
    let late = chunks.iter().filter(|chunk| chunk.partition == partition && chunk.line > 0);
    acknowledge(&first, late).await;
    first.close().await;
    assert_eq!(bench.committed(number), reached, "not moved back");
    second.close().await;
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < until, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn no_more_is_read_than_the_budget_allows_and_the_group_is_kept() {
    let mut bench = Bench::with_topic();
    bench.budget = Budget::new(128 << 10);
    let body = "x".repeat(1000);
    for number in 0..600 {
        bench.put(number % PARTITIONS, Some(&format!(r#"{{"n":{number},"x":"{body}"}}"#)));
    }
    bench.flush();
    let input = bench.input(false);
    let mut chunks = Vec::new();
    // The session is shorter than the wait: whoever polls no more would lose the partitions.
    while let Ok(read) = tokio::time::timeout(Duration::from_secs(8), input.read()).await {
        if let Ok(Read::Chunk(chunk)) = read {
            chunks.push(chunk);
        }
    }
    let held: usize = chunks.iter().map(|chunk| chunk.payload.len()).sum();
    assert!(held <= 128 << 10, "{held}");
    acknowledge(&input, &chunks).await;
    while records(&chunks).len() < 600 {
        let chunk = next_chunk(&input).await;
        acknowledge(&input, [&chunk]).await;
        chunks.push(chunk);
    }
    assert_eq!(records(&chunks).iter().collect::<BTreeSet<_>>().len(), records(&chunks).len(), "once each");
    input.close().await;
    assert_eq!(bench.budget.used(), 0);
}

#[tokio::test]
async fn a_message_longer_than_a_chunk_is_read_and_one_over_the_cap_reported() {
    let mut bench = Bench::with_topic();
    bench.budget = Budget::new(128 << 10);
    bench.settings["max_message_bytes"] = json!("300KiB");
    let long = format!(r#"{{"x":"{}"}}"#, "x".repeat(200 << 10));
    let too_long = "x".repeat(400 << 10);
    for value in [r#"{"n":1}"#, &long, r#"{"n":2}"#, &too_long, r#"{"n":3}"#] {
        bench.put(0, Some(value));
    }
    bench.flush();
    let input = bench.input(false);
    let mut chunks = Vec::new();
    while chunks.last().is_none_or(|chunk: &Chunk| chunk.position.as_str() != "5") {
        let chunk = next_chunk(&input).await;
        acknowledge(&input, [&chunk]).await;
        chunks.push(chunk);
    }
    assert_eq!(records(&chunks), [r#"{"n":1}"#, &long, r#"{"n":2}"#, r#"{"n":3}"#]);
    let malformed: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.malformed).collect();
    assert_eq!(malformed.iter().map(|one| (one.reason, one.line)).collect::<Vec<_>>(), [("too_long", 3)]);
    input.close().await;
}

#[tokio::test]
async fn brokers_that_go_away_and_come_back_are_waited_for_and_nothing_is_read_twice() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..30);
    let input = bench.input(false);
    let mut chunks = until_idle(&input, 60).await;
    bench.cluster.broker_down(1).unwrap();
    let passing = error(&input).await;
    assert!(!passing.needs_a_human(), "{passing}");
    bench.cluster.broker_up(1).unwrap();
    loop {
        if let Ok(Read::Idle) = next(&input).await {
            break;
        }
    }
    bench.put_envelopes(30..60);
    chunks.extend(until_idle(&input, 60).await);
    assert_once(&records(&chunks), 0..60);
    acknowledge(&input, &chunks).await;
    input.close().await;
    assert_eq!(bench.committed(0), 20);
}

#[tokio::test]
async fn a_probe_sees_the_topic_and_its_absence_and_joins_no_group() {
    let bench = Bench::with_topic();
    let probe = bench.input(false).probe().await;
    assert!(matches!(&probe, Probe::Ready(seen) if seen.contains("3 partitions of insights")), "{probe:?}");
    bench.put_envelopes(0..1);
    let input = bench.input(true);
    assert!(matches!(input.probe().await, Probe::Ready(_)));
    assert_eq!(records(&all(&input).await).len(), 2, "nothing was taken away by the look");
    input.close().await;
    let denied = Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    bench.cluster.topic_error(TOPIC, denied).unwrap();
    let probe = bench.input(false).probe().await;
    assert!(matches!(&probe, Probe::Failed(why) if why.contains("the right Read")), "{probe:?}");
    let probe = Bench::new().input(false).probe().await;
    assert!(matches!(&probe, Probe::Failed(why) if why.contains("check `topics`")), "{probe:?}");
}

#[tokio::test]
async fn a_probe_tells_a_cluster_that_does_not_answer() {
    let bench = Bench::with_topic();
    bench.cluster.broker_down(1).unwrap();
    let probe = bench.input(false).probe().await;
    let Probe::Failed(why) = &probe else { panic!("{probe:?}") };
    assert!(why.contains("cannot reach") && why.contains("`bootstrap_servers`"), "{why}");
}
