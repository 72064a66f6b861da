//! Against librdkafka's mock cluster: brokers in process that fail on cue.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as ApiKey, RDKafkaRespErr as Answer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::*;
use crate::component::parse;
use crate::compress::Encoding;
use crate::http::HttpSettings;
use crate::json::Text;
use crate::output::HoldReason;
use crate::units::Period;

const TOPIC: &str = "audit";
/// Longest wait for anything: far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Fixed;

impl Format for Fixed {
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(event.event_id.as_ref().map_or("", Text::quoted).as_bytes());
    }
}

struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    output: Kafka,
}

impl Bench {
    fn new(more: Value) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let mut table = json!({
            "topic": TOPIC, "bootstrap_servers": [cluster.bootstrap_servers()], "plaintext": true,
            "delivery_timeout": "5s",
        });
        table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let http = HttpSettings { timeout: Period(Duration::from_secs(4)), ..HttpSettings::default() };
        let plan = Plan::new(parse(table).unwrap(), &http).unwrap();
        Self { cluster, output: Kafka::new(plan) }
    }

    fn with_topic(partitions: i32) -> Self {
        let bench = Self::new(json!({}));
        bench.cluster.create_topic(TOPIC, partitions, 1).unwrap();
        bench
    }

    fn request(&self, ids: &[&str]) -> Request {
        let mut body = Vec::new();
        for id in ids {
            let event = AuditEvent {
                event_id: Some(Text::from_plain(id)),
                workspace_id: id.split('-').next().map(Text::from_plain),
                ..AuditEvent::default()
            };
            self.output.encode(&event, &Fixed, &mut body);
        }
        let uncompressed_bytes = body.len();
        let body = Bytes::from(body);
        Request { body, encoding: Encoding::None, events: ids.len(), uncompressed_bytes }
    }

    async fn send(&self, ids: &[&str]) -> Verdict {
        tokio::time::timeout(PATIENCE, self.output.send(&self.request(ids))).await.unwrap()
    }

    /// What lies in a topic: key and how often, with the checks that hold for every message.
    fn stored(&self, topic: &str, partitions: i32) -> BTreeMap<String, usize> {
        let mut client = ClientConfig::new();
        let client = client
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "test")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        let (mut found, mut ended) = (BTreeMap::new(), 0);
        while ended < partitions {
            let Some(Ok(message)) = consumer.poll(PATIENCE) else {
                ended += 1;
                continue;
            };
            let key = std::str::from_utf8(message.key().unwrap()).unwrap();
            assert_eq!(message.payload().unwrap(), format!("\"{key}\"").as_bytes());
            let header = message.headers().unwrap().get(0);
            assert_eq!((header.key, header.value), ("event_id", Some(key.as_bytes())));
            *found.entry(key.to_owned()).or_default() += 1;
        }
        found
    }
}

fn once(ids: &[&str]) -> BTreeMap<String, usize> {
    ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
}

fn held(verdict: &Verdict, reason: HoldReason, needles: &[&str]) {
    let Verdict::Hold(alarm) = verdict else { panic!("{verdict:?} holds not") };
    assert_eq!(alarm.reason, reason, "{}", alarm.message);
    assert!(needles.iter().all(|needle| alarm.message.contains(needle)), "{}", alarm.message);
}

const ACCEPTED: Verdict = Verdict::Accepted { slow_down: false };

#[tokio::test]
async fn every_event_is_in_once_with_its_key_and_headers() {
    let bench = Bench::with_topic(3);
    assert_eq!(bench.send(&["a", "b", "c", "d"]).await, ACCEPTED);
    assert_eq!(bench.send(&["e"]).await, ACCEPTED);
    assert_eq!(bench.stored(TOPIC, 3), once(&["a", "b", "c", "d", "e"]));
}

#[tokio::test]
async fn what_passes_is_tried_again_by_the_client_and_arrives_once() {
    let bench = Bench::with_topic(1);
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    bench.cluster.request_errors(
        ApiKey::Produce,
        &[
            Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        ],
    );
    assert_eq!(bench.send(&["b", "c"]).await, ACCEPTED);
    assert_eq!(bench.stored(TOPIC, 1), once(&["a", "b", "c"]));
}

#[tokio::test]
async fn a_missing_topic_holds_until_it_is_made() {
    let bench = Bench::new(json!({}));
    for _ in 0..2 {
        held(&bench.send(&["a"]).await, HoldReason::NotFound, &["make the topic audit", "`topic`"]);
    }
    bench.cluster.create_topic(TOPIC, 1, 1).unwrap();
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    assert_eq!(bench.stored(TOPIC, 1), once(&["a"]));
}

#[tokio::test]
async fn of_several_topics_those_that_are_there_get_their_events_before_the_other_holds() {
    let bench = Bench::new(json!({ "topic": "audit-{workspace_id}" }));
    bench.cluster.create_topic("audit-1", 1, 1).unwrap();
    let verdict = bench.send(&["1-a", "2-b", "1-c"]).await;
    let Verdict::Partial { retry, rejected, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!((retry, rejected), (vec![1], vec![]));
    held(&bench.send(&["2-b"]).await, HoldReason::NotFound, &["make the topic audit-2"]);
    bench.cluster.create_topic("audit-2", 1, 1).unwrap();
    assert_eq!(bench.send(&["2-b"]).await, ACCEPTED);
    assert_eq!(bench.stored("audit-1", 1), once(&["1-a", "1-c"]));
    assert_eq!(bench.stored("audit-2", 1), once(&["2-b"]));
}

#[tokio::test]
async fn a_topic_that_may_be_made_on_demand_is() {
    let bench = Bench::new(json!({ "create_topics": true }));
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
}

#[tokio::test]
async fn a_right_that_is_missing_holds_at_the_start_and_later() {
    let bench = Bench::with_topic(1);
    let denied = Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    bench.cluster.request_errors(ApiKey::Produce, &[denied]);
    held(&bench.send(&["b"]).await, HoldReason::Credentials, &["the right Write on the topic audit"]);
    bench.cluster.topic_error(TOPIC, denied).unwrap();
    held(&bench.send(&["b"]).await, HoldReason::Credentials, &["the right Write on the topic audit"]);
    bench.cluster.topic_error(TOPIC, Answer::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    assert_eq!(bench.send(&["b"]).await, ACCEPTED);
    assert_eq!(bench.stored(TOPIC, 1), once(&["a", "b"]));
}

#[tokio::test]
async fn an_event_that_is_too_large_is_found_among_others_and_refused_when_alone() {
    let bench = Bench::with_topic(1);
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    let too_large = Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    bench.cluster.request_errors(ApiKey::Produce, &[too_large]);
    assert_eq!(bench.send(&["b", "c"]).await, Verdict::TooLarge);
    bench.cluster.request_errors(ApiKey::Produce, &[too_large]);
    let verdict = bench.send(&["b"]).await;
    let Verdict::Partial { rejected, retry, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!((rejected[0].0, retry), (0, vec![]));
    assert!(rejected[0].1.reason.contains("too large"), "{}", rejected[0].1.reason);
    assert_eq!(bench.send(&["c"]).await, ACCEPTED, "and the session goes on");
    assert_eq!(bench.stored(TOPIC, 1), once(&["a", "c"]));
}

#[tokio::test]
async fn a_record_batch_that_is_refused_without_saying_for_which_event_is_narrowed_down() {
    let bench = Bench::with_topic(1);
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    let invalid = Answer::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    bench.cluster.request_errors(ApiKey::Produce, &[invalid]);
    let verdict = bench.send(&["b", "c", "d"]).await;
    assert_eq!(verdict.label(), "rejected", "one of them may be to blame: {verdict:?}");
    bench.cluster.request_errors(ApiKey::Produce, &[invalid]);
    let verdict = bench.send(&["b"]).await;
    let Verdict::Partial { rejected, .. } = &verdict else { panic!("{verdict:?}") };
    assert_eq!(rejected.len(), 1);
    assert_eq!(bench.send(&["c", "d"]).await, ACCEPTED);
    assert_eq!(bench.stored(TOPIC, 1), once(&["a", "c", "d"]));
}

#[tokio::test]
async fn a_time_that_the_topic_does_not_take_is_that_of_this_machine_and_of_no_event() {
    let bench = Bench::with_topic(1);
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    bench.cluster.request_errors(ApiKey::Produce, &[Answer::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP]);
    held(&bench.send(&["b", "c"]).await, HoldReason::Misconfigured, &["the clock of this machine"]);
    assert_eq!(bench.send(&["b", "c"]).await, ACCEPTED);
    assert_eq!(bench.stored(TOPIC, 1), once(&["a", "b", "c"]));
}

#[tokio::test]
async fn a_broker_that_is_gone_is_ambiguous_while_events_are_with_the_client_and_clean_after() {
    let bench = Bench::with_topic(1);
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    bench.cluster.broker_down(1).unwrap();
    let verdict = bench.send(&["b"]).await;
    assert!(matches!(verdict, Verdict::Retry { ambiguous: true, .. }), "{verdict:?}");
    let verdict = bench.send(&["b"]).await;
    let Verdict::Retry { cause, ambiguous: false, .. } = &verdict else { panic!("{verdict:?}") };
    assert!(cause.contains("cannot reach 127.0.0.1:") && cause.contains("`bootstrap_servers`"), "{cause}");
    bench.cluster.broker_up(1).unwrap();
    assert_eq!(bench.send(&["b"]).await, ACCEPTED);
    assert_eq!(bench.stored(TOPIC, 1), once(&["a", "b"]));
}

#[tokio::test]
async fn a_producer_that_ended_for_good_is_made_anew() {
    let bench = Bench::with_topic(1);
    assert_eq!(bench.send(&["a"]).await, ACCEPTED);
    let first = bench.output.session().await.unwrap();
    bench.cluster.request_errors(ApiKey::Produce, &[Answer::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let verdict = bench.send(&["b"]).await;
    assert!(matches!(verdict, Verdict::Retry { ambiguous: true, .. }), "{verdict:?}");
    assert!(first.is_over(), "the client calls it fatal");
    end(Some(first)).await;
    assert_eq!(bench.send(&["b"]).await, ACCEPTED);
}

#[tokio::test]
async fn a_probe_tells_what_is_there_and_what_is_missing() {
    let bench = Bench::with_topic(3);
    let probe = bench.output.probe().await;
    assert!(matches!(&probe, Probe::Ready(seen) if seen.contains("audit has 3 partitions")), "{probe:?}");
    let bench = Bench::new(json!({}));
    let probe = bench.output.probe().await;
    assert!(matches!(&probe, Probe::Failed(why) if why.contains("make the topic audit")), "{probe:?}");
    let bench = Bench::new(json!({ "topic": "audit-{workspace_id}" }));
    let probe = bench.output.probe().await;
    assert!(matches!(&probe, Probe::Ready(seen) if seen.contains("a broker answers")), "{probe:?}");
    bench.cluster.broker_down(1).unwrap();
    let probe = bench.output.probe().await;
    assert!(matches!(&probe, Probe::Failed(why) if why.contains("cannot reach")), "{probe:?}");
}

#[test]
fn a_message_that_no_broker_takes_does_not_fit() {
    let output = Bench::new(json!({})).output;
    assert_eq!(output.fits(&[0; 1000]), Ok(()));
    assert!(output.fits(&vec![0; MOST_BYTES]).unwrap_err().reason.contains("67108864 bytes"));
}
