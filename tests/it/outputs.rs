//! The outputs against collectors on a real socket.

use std::time::Duration;

use auditferry::batch::Request;
use auditferry::buffer::Pool;
use auditferry::compress::Encoding;
use auditferry::event::{AuditEvent, Extra};
use auditferry::format::canonical::Canonical;
use auditferry::format::ecs::Ecs;
use auditferry::format::ocsf::Ocsf;
use auditferry::format::raw::Raw;
use auditferry::format::sumo::Sumo;
use auditferry::format::{Format, FormatName};
use auditferry::http::HttpSettings;
use auditferry::json::Text;
use auditferry::output::{
    AckId, HoldReason, Output, OutputContext, OutputKind, Verdict, elastic, http, splunk_hec, sumo,
};
use auditferry::registry;
use auditferry::time::Millis;
use auditferry::units::Period;
use serde_json::{Value, json};

use crate::support::collector::{Collector, Protocol, Step};

mod rotation;
mod secrets;
mod services;

const ACCEPTED: Verdict = Verdict::Accepted { slow_down: false };

fn build(kind: OutputKind, table: Value) -> Box<dyn Output> {
    build_with(kind, table, HttpSettings::default())
}

fn build_with(kind: OutputKind, table: Value, http: HttpSettings) -> Box<dyn Output> {
    let http = HttpSettings { proxy: Some("none".to_owned()), ..http };
    let context = OutputContext { name: "out".to_owned(), format: FormatName::Canonical, http };
    (kind.build)(table, context).unwrap()
}

fn event(id: &str) -> AuditEvent<'static> {
    AuditEvent {
        event_id: Some(Text::from_plain(id)),
        event_time: Millis::new(1_767_609_296_007),
        workspace_id: Some(Text::from_plain("7")),
        extras: [Extra { key: Text::from_plain("object"), value: r#""a/b.json""#.into() }]
            .into_iter()
            .collect(),
        raw: br#"{"serviceName":"accounts"}"#,
        ..AuditEvent::default()
    }
}

/// The request that the engine would make of events with these ids.
fn request(output: &dyn Output, ids: &[&str], encoding: Encoding) -> Request {
    let framing = output.framing();
    let frames: Vec<Vec<u8>> = ids
        .iter()
        .map(|id| {
            let mut frame = Vec::new();
            output.encode(&event(id), &Canonical, &mut frame);
            frame
        })
        .collect();
    let lane = output.lane(&event(ids[0]));
    let mut body = output.envelope(lane, frames.iter().map(Vec::len).sum());
    body.extend_from_slice(framing.open);
    body.extend(frames.join(framing.terminator));
    body.extend_from_slice(if framing.keep_last { framing.terminator } else { framing.close });
    let uncompressed_bytes = body.len();
    let body = encoding.compress(&[&body], &Pool::default()).unwrap();
    Request { body, encoding, events: ids.len(), uncompressed_bytes }
}

async fn send(output: &dyn Output, ids: &[&str]) -> Verdict {
    output.send(&request(output, ids, Encoding::Gzip)).await
}

fn hec(collector: &Collector) -> Box<dyn Output> {
    build(splunk_hec::KIND, json!({"url": collector.url(), "token": "hunter2"}))
}

fn bulk(collector: &Collector) -> Box<dyn Output> {
    build(elastic::KIND, json!({"url": collector.url(), "api_key": "hunter2"}))
}

fn hold_reason(verdict: &Verdict) -> Option<HoldReason> {
    match verdict {
        Verdict::Hold(alarm) => Some(alarm.reason),
        _ => None,
    }
}

#[tokio::test]
async fn splunk_gets_envelopes_back_to_back_with_token_and_channel() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.want_authorization("Splunk hunter2");
    assert_eq!(send(&*hec(&collector), &["a", "b"]).await, ACCEPTED);
    assert_eq!(collector.ids(), ["a", "b"]);
    let envelope = &collector.envelopes()[0];
    assert_eq!(envelope["sourcetype"], "databricks:audit");
    assert_eq!(envelope["time"], 1_767_609_296.007);
    assert_eq!(envelope["fields"], json!({"workspace_id": "7", "event_id": "a"}));
    let request = &collector.requests()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/services/collector/event"));
    assert_eq!(request.header("x-splunk-request-channel").map(str::len), Some(36));
    assert!(request.header("user-agent").unwrap().starts_with("auditferry/"));
}

#[tokio::test]
async fn splunk_tells_which_event_it_refused_and_keeps_those_before_it() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.set_poison("\"c\"");
    let verdict = send(&*hec(&collector), &["a", "b", "c", "d"]).await;
    let Verdict::Partial { retry, rejected, .. } = verdict else { panic!("{verdict:?} is not partial") };
    assert_eq!((retry, rejected[0].0), (vec![3], 2));
    assert_eq!(collector.ids(), ["a", "b"]);
}

#[tokio::test]
async fn a_rotated_token_is_read_again_without_a_restart() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.want_authorization("Splunk the new token");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "hunter2").unwrap();
    let output = build(splunk_hec::KIND, json!({"url": collector.url(), "token": {"file": path}}));
    assert_eq!(hold_reason(&send(&*output, &["a"]).await), Some(HoldReason::Credentials));
    std::fs::write(&path, "the new token").unwrap();
    assert_eq!(send(&*output, &["a"]).await, ACCEPTED);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(hold_reason(&send(&*output, &["a"]).await), Some(HoldReason::Credentials));
    assert_eq!(collector.requests().len(), 2);
}

/// Sends an event that will be acknowledged later.
async fn promised(output: &dyn Output, id: &str) -> AckId {
    match send(output, &[id]).await {
        Verdict::PendingAck { ack, .. } => ack,
        other => panic!("{other:?} is not pending"),
    }
}

#[tokio::test]
async fn an_acknowledgement_is_asked_for_at_the_indexer_that_promised_it() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.set_acknowledging(false);
    collector.set_sticky();
    let table = json!({"url": collector.url(), "token": "hunter2", "ack": true});
    let output = build(splunk_hec::KIND, table);
    let pending = [promised(&*output, "a").await, promised(&*output, "b").await];
    assert!(output.acknowledged(&pending).await.is_empty());
    collector.set_acknowledging(true);
    assert_eq!(output.acknowledged(&pending).await, pending);
    let poll = collector.requests().pop().unwrap();
    assert_eq!((poll.path.as_str(), poll.body.as_str()), ("/services/collector/ack", r#"{"acks":[0]}"#));
    assert_eq!(
        poll.header("x-splunk-request-channel"),
        collector.requests()[1].header("x-splunk-request-channel")
    );
    collector.set_down(Some(503));
    assert!(output.acknowledged(&pending).await.is_empty());
}

#[tokio::test]
async fn a_channel_carries_one_request_until_it_is_acknowledged() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.set_acknowledging(true);
    let table = json!({"url": collector.url(), "token": "hunter2", "ack": true});
    let output = build(splunk_hec::KIND, table);
    let (first, second) = (promised(&*output, "a").await, promised(&*output, "b").await);
    assert_ne!(first.channel, second.channel);
    let asked = std::slice::from_ref(&first);
    assert_eq!(output.acknowledged(asked).await, asked);
    let third = promised(&*output, "c").await;
    assert_eq!((&third.channel, third.number), (&first.channel, 1), "it is free again");
    // Nobody knows what number this one was given.
    collector.push(Step::hang_up().keeping());
    assert_eq!(send(&*output, &["d"]).await.label(), "retry");
    let lost = collector.requests().pop().unwrap();
    for id in ["e", "f", "g"] {
        let ack = promised(&*output, id).await;
        assert_ne!(Some(ack.channel.as_str()), lost.header("x-splunk-request-channel"));
    }
}

#[tokio::test]
async fn acknowledgements_that_only_one_side_wants_are_remarked_on() {
    let collector = Collector::start(Protocol::Hec).await;
    let wants = build(splunk_hec::KIND, json!({"url": collector.url(), "token": "hunter2", "ack": true}));
    let verdict = send(&*wants, &["a"]).await;
    assert!(
        matches!(&verdict, Verdict::AcceptedWithRemark(said) if said.contains("no `useACK`")),
        "{verdict:?}"
    );
    collector.set_acknowledging(true);
    let verdict = send(&*hec(&collector), &["a"]).await;
    assert!(
        matches!(&verdict, Verdict::AcceptedWithRemark(said) if said.contains("set `ack`")),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn a_server_that_fails_is_left_out_and_one_that_was_swamped_is_asked_for_its_health_first() {
    let (first, second) = (Collector::start(Protocol::Hec).await, Collector::start(Protocol::Hec).await);
    let table = json!({"url": [first.url(), second.url()], "token": "hunter2"});
    let output = build(splunk_hec::KIND, table);
    first.set_down(Some(500));
    assert_eq!(send(&*output, &["a"]).await.label(), "retry");
    for id in ["a", "b", "c"] {
        assert_eq!(send(&*output, &[id]).await, ACCEPTED);
    }
    assert_eq!((first.count_requests(), second.ids().len()), (1, 3));
    let alone = hec(&second);
    second.set_down(Some(503));
    for _ in 0..4 {
        assert_eq!(send(&*alone, &["d"]).await.label(), "retry");
    }
    let fourth = second.requests().pop().unwrap();
    assert_eq!((fourth.method.as_str(), fourth.path.as_str()), ("GET", "/services/collector/health"));
    second.set_down(None);
    assert_eq!(send(&*alone, &["d"]).await, ACCEPTED);
}

#[tokio::test]
async fn sumo_gets_a_line_per_event_in_every_compression() {
    let collector = Collector::start(Protocol::Sumo).await;
    let url = format!("{}/receiver/v1/http/ZaVnC4dhaV39", collector.url());
    let output = build(sumo::KIND, json!({"url": url, "category": "sec/databricks"}));
    for encoding in sumo::KIND.defaults.compressions {
        assert_eq!(output.send(&request(&*output, &["a", "b"], *encoding)).await, ACCEPTED);
    }
    assert_eq!(collector.ids(), ["a", "b"].repeat(4));
    for request in collector.requests() {
        assert_eq!(request.path, "/receiver/v1/http/ZaVnC4dhaV39");
        assert_eq!(request.header("x-sumo-category"), Some("sec/databricks"));
        assert_eq!((request.body.lines().count(), request.body.ends_with('\n')), (2, true));
    }
}

#[tokio::test]
async fn elasticsearch_creates_each_document_once() {
    let collector = Collector::start(Protocol::Bulk).await;
    let output = bulk(&collector);
    // The documents arrive, the answer does not.
    collector.push(Step::hang_up().keeping());
    let verdict = send(&*output, &["a", "b"]).await;
    assert!(matches!(verdict, Verdict::Retry { ambiguous: true, .. }), "{verdict:?}");
    let verdict = send(&*output, &["a", "b", "c"]).await;
    let Verdict::Partial { duplicate, retry, rejected, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!((duplicate, retry, rejected), (vec![0, 1], vec![], vec![]));
    assert_eq!(collector.ids(), ["a", "b", "c"]);
    assert_eq!(collector.envelopes()[0]["create"]["_index"], "databricks-audit-2026-01-05");
    assert_eq!(collector.events()[0]["@timestamp"], "2026-01-05T10:34:56.007Z");
    let request = &collector.requests()[0];
    assert!(request.path.starts_with("/_bulk?filter_path=errors,items."), "{}", request.path);
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(request.header("authorization"), Some("ApiKey hunter2"));
}

#[tokio::test]
async fn elasticsearch_refuses_a_document_without_harm_to_the_others() {
    let collector = Collector::start(Protocol::Bulk).await;
    collector.set_poison("\"b\"");
    let verdict = send(&*bulk(&collector), &["a", "b", "c"]).await;
    let Verdict::Partial { rejected, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!((rejected.len(), rejected[0].0), (1, 1));
    assert!(rejected[0].1.reason.contains("document_parsing_exception"));
    collector.keeps(2).await;
    assert_eq!(collector.ids(), ["a", "c"]);
}

#[tokio::test]
async fn any_collector_gets_an_array_under_a_key_that_repeats_with_the_body() {
    let collector = Collector::start(Protocol::Any).await;
    let table = json!({
        "url": format!("{}/in?key=1", collector.url()), "method": "PUT", "body": "json_array",
        "headers": {"x-key": "hunter2"}, "idempotency_key": true
    });
    let output = build(http::KIND, table);
    for ids in [["a", "b"], ["a", "b"], ["a", "c"]] {
        assert_eq!(send(&*output, &ids).await, ACCEPTED);
    }
    let requests = collector.requests();
    let keys: Vec<_> = requests.iter().map(|request| request.header("idempotency-key").unwrap()).collect();
    assert_eq!((keys[0].len(), keys[0] == keys[1], keys[1] == keys[2]), (64, true, false));
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("PUT", "/in?key=1"));
    assert_eq!(requests[0].header("x-key"), Some("hunter2"));
    assert!(requests[0].body.starts_with('[') && requests[0].body.ends_with(']'));
    assert_eq!(collector.ids().len(), 6);
}

#[tokio::test]
async fn without_a_whole_answer_a_request_is_ambiguous() {
    let collector = Collector::start(Protocol::Bulk).await;
    let output = bulk(&collector);
    for step in [Step::hang_up(), Step::garbage(), Step::half_answer(r#"{"errors":false"#)] {
        collector.push(step);
        let verdict = send(&*output, &["a"]).await;
        assert!(matches!(verdict, Verdict::Retry { ambiguous: true, .. }), "{verdict:?}");
    }
}

#[tokio::test]
async fn a_refusal_whose_text_breaks_off_is_one_all_the_same() {
    let collector = Collector::start(Protocol::Any).await;
    let output = build(http::KIND, json!({"url": collector.url()}));
    for (status, label, reason) in [
        (302, "hold", Some(HoldReason::Misconfigured)),
        (401, "hold", Some(HoldReason::Credentials)),
        (403, "hold", Some(HoldReason::Credentials)),
        (404, "hold", Some(HoldReason::NotFound)),
        (413, "too_large", None),
    ] {
        collector.push(Step::answer(status, "<html>").broken_off());
        let verdict = send(&*output, &["a"]).await;
        assert_eq!((verdict.label(), hold_reason(&verdict)), (label, reason), "{status}: {verdict:?}");
    }
    // What these say of single events was not read.
    for status in [200, 400, 422, 503] {
        collector.push(Step::answer(status, "{").broken_off());
        let verdict = send(&*output, &["a"]).await;
        assert!(matches!(verdict, Verdict::Retry { ambiguous: true, .. }), "{status}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_is_given_up_after_the_timeout() {
    let collector = Collector::start(Protocol::Hec).await;
    let http = HttpSettings { timeout: Period(Duration::from_millis(100)), ..HttpSettings::default() };
    let output = build_with(splunk_hec::KIND, json!({"url": collector.url(), "token": "hunter2"}), http);
    collector.push(Step::answer(200, "").delayed(Duration::from_secs(3600)));
    let verdict = send(&*output, &["a"]).await;
    assert!(matches!(verdict, Verdict::Retry { ambiguous: true, .. }), "{verdict:?}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_has_seen_nothing() {
    let collector = Collector::start(Protocol::Hec).await;
    let output = hec(&collector);
    drop(collector);
    let verdict = send(&*output, &["a"]).await;
    assert!(matches!(verdict, Verdict::Retry { ambiguous: false, .. }), "{verdict:?}");
}

#[tokio::test]
async fn a_collector_says_how_long_to_wait_and_how_much_it_takes() {
    let collector = Collector::start(Protocol::Hec).await;
    let output = hec(&collector);
    collector.push(Step::answer(429, "slow").header("Retry-After", "17"));
    let verdict = send(&*output, &["a"]).await;
    assert!(
        matches!(verdict, Verdict::Retry { after: Some(after), .. } if after.as_secs() == 17),
        "{verdict:?}"
    );
    collector.set_down(Some(503));
    assert_eq!(send(&*output, &["a"]).await.label(), "retry");
    collector.set_down(None);
    collector.set_most_bytes(100);
    assert_eq!(send(&*output, &["a"]).await, Verdict::TooLarge);
    assert!(collector.events().is_empty());
}

#[test]
fn every_output_writes_every_format_as_json_and_elastic_gets_one_timestamp_and_no_reserved_name() {
    let formats: [(FormatName, &dyn Format); 5] = [
        (FormatName::Canonical, &Canonical),
        (FormatName::Sumo, &Sumo),
        (FormatName::Ecs, &Ecs::default()),
        (FormatName::Ocsf, &Ocsf::default()),
        (FormatName::Raw, &Raw),
    ];
    for (name, format) in formats {
        let build = |kind: OutputKind, table: Value| {
            let context =
                OutputContext { name: "out".to_owned(), format: name, http: HttpSettings::default() };
            let mut frame = Vec::new();
            (kind.build)(table, context).unwrap().encode(&event("a"), format, &mut frame);
            String::from_utf8(frame).unwrap()
        };
        let url = "https://collector.example";
        let envelope = build(splunk_hec::KIND, json!({"url": url, "token": "t"}));
        let envelope: Value = serde_json::from_str(&envelope).unwrap();
        assert!(envelope["event"].is_object() && envelope["source"] == "a/b.json", "{name:?}: {envelope}");
        let pair = build(elastic::KIND, json!({ "url": url }));
        let (action, document) = pair.split_once('\n').unwrap();
        assert_eq!(serde_json::from_str::<Value>(action).unwrap()["create"]["_id"], "a");
        assert_eq!(document.matches("@timestamp").count(), 1, "{name:?}: {document}");
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["@timestamp"], "2026-01-05T10:34:56.007Z");
        assert_eq!(document.get("_source"), None, "{name:?}: {document}");
    }
}

#[test]
fn every_key_of_every_output_is_described() {
    for kind in registry::OUTPUTS {
        let schema = (kind.schema)().to_value();
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{}.{key} has no description", kind.name);
        }
    }
}
