//! The collectors that are services: what the engine does after each of their answers, and what arrives.

use std::time::Duration;

use auditferry::status::Phase;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::collector::{Collector, Protocol, Step, apis};
use crate::support::ferry::{
    Place, content, eventually, has, has_exactly, metric, offered, output, record, request_ids,
};
use crate::support::place::{ONCE, configured, deliver};
use crate::support::process::run;

const SERVICES: [Protocol; 5] =
    [Protocol::Datadog, Protocol::Sentinel, Protocol::Otlp, Protocol::Loki, Protocol::SecOps];

fn records(range: std::ops::Range<usize>) -> String {
    range.map(|number| record(&format!("r{number}")) + "\n").collect()
}

/// What the engine does with four events after this answer to the request that holds them: the verdict it counts, how
/// many events each request holds, how many are repeated without knowing whether they arrived, how many become dead
/// letters.
async fn deed(protocol: Protocol, status: u16, body: &str) -> String {
    let (place, collector) = (Place::new(), Collector::start(protocol).await);
    collector.push(Step::answer(status, body).header("Retry-After", "0"));
    place.put("a.json", records(0..4));
    let quick = Duration::from_millis(50);
    let ferry = place.start_with("", &[output(&collector, "")], |app| app.retry_holds_every(quick)).await;
    let name = apis::name(protocol);
    let metrics = &ferry.route(name).metrics;
    eventually("every event is settled", || {
        metrics.events_delivered.get() + metrics.events_duplicate.get() + metrics.dead_letters() == 4
    })
    .await;
    ferry.rests().await;
    let verdicts: Vec<&str> = ["hold", "partial", "rejected", "retry", "too_large", "accepted"]
        .into_iter()
        .filter(|verdict| {
            let count = format!(
                "auditferry_requests_total{{input=\"audit\",output=\"{name}\",verdict=\"{verdict}\"}}"
            );
            metric(&ferry.app, &count) > 0.0
        })
        .collect();
    let ambiguous = metrics.ambiguous_resends.get();
    assert!(ferry.route(name).status.snapshot().phase == Phase::Running);
    ferry.stop().await;
    let sizes: Vec<usize> = collector
        .requests()
        .iter()
        .map(|request| request.body.matches(apis::mark(protocol)).count())
        .collect();
    let letters = place.letters().len();
    assert_eq!(collector.ids().len() + letters, if sizes == [4] && letters == 0 { 0 } else { 4 });
    format!("{} {sizes:?} ambiguous {ambiguous} dead {letters}", verdicts[0])
}

/// All four in one request, as they were answered for.
const TAKEN: &str = "accepted [4] ambiguous 0 dead 0";
/// The same again.
const AGAIN: &str = "retry [4, 4] ambiguous 0 dead 0";
/// The same again, although they may have arrived.
const IN_DOUBT: &str = "retry [4, 4] ambiguous 4 dead 0";
/// The same again, once a human has acted.
const HELD: &str = "hold [4, 4] ambiguous 0 dead 0";
/// In halves.
const HALVED: &str = "too_large [4, 2, 2] ambiguous 0 dead 0";
/// In halves, to find the one to blame.
const NARROWED: &str = "rejected [4, 2, 2] ambiguous 0 dead 0";
/// None again.
const GIVEN_UP: &str = "partial [4] ambiguous 0 dead 4";

async fn answers(protocol: Protocol, table: &[(u16, &str, &str)]) {
    let deeds = join_all(table.iter().map(|(status, body, _)| deed(protocol, *status, body))).await;
    for ((status, body, expected), deed) in table.iter().zip(deeds) {
        assert_eq!(deed, *expected, "{protocol:?} {status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_each_answer_of_datadog() {
    let table = [
        (202, "{}", TAKEN),
        (400, r#"{"errors":[{"detail":"bad"}]}"#, NARROWED),
        (400, "<html>", HELD),
        (401, "{}", HELD),
        (403, r#"{"errors":["Forbidden"]}"#, HELD),
        (404, "", HELD),
        (407, "", HELD),
        (408, "{}", IN_DOUBT),
        (413, "{}", HALVED),
        (415, "{}", HELD),
        (429, "{}", AGAIN),
        (500, "{}", IN_DOUBT),
        (502, "", IN_DOUBT),
        (503, "{}", AGAIN),
        (504, "", IN_DOUBT),
    ];
    answers(Protocol::Datadog, &table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_each_answer_of_sentinel() {
    let table = [
        (204, "", TAKEN),
        (400, r#"{"error":{"code":"InvalidPayload"}}"#, NARROWED),
        (400, r#"{"error":{"code":"InvalidStream"}}"#, HELD),
        (400, r#"{"error":{"code":"InvalidDcrImmutableId"}}"#, HELD),
        (400, "<html>", HELD),
        (401, "{}", HELD),
        (403, r#"{"error":{"code":"OperationFailed"}}"#, HELD),
        (404, r#"{"error":{"code":"NotFound"}}"#, HELD),
        (413, r#"{"error":{"code":"ContentLengthLimitExceeded"}}"#, HALVED),
        (407, "", HELD),
        (408, "", IN_DOUBT),
        (429, "", AGAIN),
        (500, "", IN_DOUBT),
        (502, "", IN_DOUBT),
        (503, "", AGAIN),
        (504, "", IN_DOUBT),
    ];
    answers(Protocol::Sentinel, &table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_each_answer_of_otlp() {
    // `partial_success` with `rejected_log_records` and `error_message`, as protobuf.
    let (one, warning) = ("\n\u{5}\u{8}\u{1}\u{12}\u{1}x", "\n\u{3}\u{12}\u{1}x");
    let table = [
        (200, "", TAKEN),
        (200, warning, TAKEN),
        (200, one, GIVEN_UP),
        (400, "bad", NARROWED),
        (400, "http: request body too large", HALVED),
        (307, "", HELD),
        (401, "", HELD),
        (403, "", HELD),
        (404, "", HELD),
        (407, "", HELD),
        (408, "", HELD),
        (413, "", HALVED),
        (415, "", HELD),
        (425, "", HELD),
        (429, "", AGAIN),
        (500, "", HELD),
        (501, "", HELD),
        (502, "", IN_DOUBT),
        (503, "", AGAIN),
        (504, "", IN_DOUBT),
    ];
    answers(Protocol::Otlp, &table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_each_answer_of_loki() {
    let table = [
        (204, "", TAKEN),
        (260, "ingestion blocked for user fake", HELD),
        (400, "max entry size '262144' bytes exceeded for stream '{}'", NARROWED),
        (400, "entry too far behind, total ignored: 3 out of 4 for stream", NARROWED),
        (400, "entry too far behind, total ignored: 4 out of 4 for stream", GIVEN_UP),
        (400, "4 errors like: entry for stream '{}' has timestamp too old", GIVEN_UP),
        (400, "stream '{}' includes structured metadata, but this feature is disallowed.", HELD),
        (400, "<html>", HELD),
        (401, "no org id", HELD),
        (403, "", HELD),
        (404, "page not found", HELD),
        (407, "", HELD),
        (413, "request body too large", HALVED),
        (429, "ingestion rate limit exceeded for user fake", AGAIN),
        (429, "Per stream rate limit exceeded", IN_DOUBT),
        (500, "grpc: received message larger than max (5 vs. 4)", HALVED),
        (500, "at least 1 live replicas required", IN_DOUBT),
        (502, "", IN_DOUBT),
        (503, "", AGAIN),
        (504, "", IN_DOUBT),
    ];
    answers(Protocol::Loki, &table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_each_answer_of_google_secops() {
    let table = [
        (200, "{}", TAKEN),
        (400, r#"{"error":{"status":"INVALID_ARGUMENT","message":"bad log"}}"#, NARROWED),
        (400, r#"{"error":{"message":"Request payload size exceeds the limit: 4194304 bytes."}}"#, HALVED),
        (400, r#"{"error":{"status":"FAILED_PRECONDITION"}}"#, HELD),
        (401, "{}", HELD),
        (403, r#"{"error":{"status":"PERMISSION_DENIED"}}"#, HELD),
        (404, "{}", HELD),
        (400, "<html>", HELD),
        (407, "", HELD),
        (413, "", HALVED),
        (429, r#"{"error":{"status":"RESOURCE_EXHAUSTED"}}"#, AGAIN),
        (500, "{}", IN_DOUBT),
        (502, "", IN_DOUBT),
        (503, "{}", AGAIN),
        (504, "", IN_DOUBT),
    ];
    answers(Protocol::SecOps, &table).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_gets_each_event_once_with_its_id_and_its_credentials() {
    join_all(SERVICES.map(|protocol| async move {
        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        place.put("a.json", records(0..50));
        let ferry = place.start("", &[output(&collector, "batch.max_events = 7")]).await;
        has(&collector, 50).await;
        ferry.rests().await;
        ferry.stop().await;
        has_exactly(&collector, 50);
        assert_eq!(request_ids(&collector).len(), 50, "{protocol:?}");
        for (id, event) in collector.ids().iter().zip(collector.events()) {
            assert_eq!(event["event_id"], json!(id), "{protocol:?}");
        }
        for request in collector.requests() {
            let (header, value, path, kind) = match protocol {
                Protocol::Datadog => ("dd-api-key", "hunter2", "/api/v2/logs", "application/json"),
                Protocol::Sentinel => (
                    "authorization",
                    "Bearer token-1",
                    "/dataCollectionRules/dcr-1/streams/Custom-DatabricksAudit?api-version=2023-01-01",
                    "application/json",
                ),
                Protocol::Otlp => ("api-key", "hunter2", "/v1/logs", "application/x-protobuf"),
                Protocol::Loki => {
                    ("authorization", "Bearer hunter2", "/loki/api/v1/push", "application/json")
                }
                _ => (
                    "authorization",
                    "Bearer ey",
                    "/v1alpha/projects/acme/locations/us/instances/1f2e/logTypes/DATABRICKS/logs:import",
                    "application/json",
                ),
            };
            assert!(request.header(header).is_some_and(|found| found.starts_with(value)), "{request:?}");
            assert_eq!(request.path, path);
            assert_eq!(request.header("content-type"), Some(kind));
            let encoding = if protocol == Protocol::Datadog { "zstd" } else { "gzip" };
            assert_eq!(request.header("content-encoding"), Some(encoding), "{protocol:?}");
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_event_that_a_service_refuses_is_the_only_one_that_does_not_arrive() {
    join_all(SERVICES.map(|protocol| async move {
        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        collector.set_poison("r7\"");
        place.put("a.json", records(0..20));
        let ferry = place.start("", &[output(&collector, "")]).await;
        has(&collector, 19).await;
        ferry.rests().await;
        ferry.stop().await;
        assert_eq!(collector.ids().len(), 19, "{protocol:?}");
        let letters = place.letters();
        assert_eq!(letters.len(), 1, "{protocol:?}");
        let letter = &letters[0].letter;
        assert_eq!((letter.reason.as_str(), &*letter.record), ("rejected", record("r7").as_bytes()));
        assert!(letter.detail.contains("400"), "{protocol:?}: {}", letter.detail);
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_would_cut_is_kept_whole_as_a_dead_letter_or_sent_where_that_is_wanted() {
    // Datadog cuts entries at 1 MB, Azure fields at 64 KB.
    for (protocol, length, said) in [
        (Protocol::Datadog, 1_000_000, "Datadog would cut an entry of "),
        (Protocol::Sentinel, 70_000, "Azure would cut the field \"request_id\" of 70000 bytes"),
    ] {
        let long = record(&"x".repeat(length));
        let text = records(0..5) + &long + "\n" + &records(5..10);
        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        place.put("a.json", &text);
        let ferry = place.start("", &[output(&collector, "")]).await;
        has(&collector, 10).await;
        ferry.rests().await;
        ferry.stop().await;
        let letters = place.letters();
        assert_eq!(letters.len(), 1, "{protocol:?}");
        let letter = &letters[0].letter;
        assert_eq!((letter.reason.as_str(), &*letter.record), ("too_large", long.as_bytes()));
        assert!(letter.detail.starts_with(said), "{}", letter.detail);
        let object = content(&place.bucket().join(&letter.origin.object));
        assert!(object[usize::try_from(letter.origin.offset).unwrap()..].starts_with(long.as_bytes()));
        assert_eq!((collector.ids().len(), offered(&collector)), (10, 10));

        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        place.put("a.json", &text);
        let ferry = place.start("", &[output(&collector, "oversized = 'send'")]).await;
        has(&collector, 11).await;
        ferry.rests().await;
        ferry.stop().await;
        assert!(place.letters().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_azure_refuses_is_fetched_anew() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Sentinel).await);
    collector.want_authorization("Bearer token-2");
    place.put("a.json", records(0..4));
    let quick = Duration::from_millis(50);
    let ferry = place.start_with("", &[output(&collector, "")], |app| app.retry_holds_every(quick)).await;
    has(&collector, 4).await;
    ferry.rests().await;
    ferry.stop().await;
    let tokens: Vec<_> = collector
        .requests()
        .iter()
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(tokens, ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loki_is_sent_again_what_it_may_have_and_keeps_it_once() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Loki).await);
    collector.push(Step::hang_up().keeping());
    place.put("a.json", records(0..10));
    let ferry = place.start("", &[output(&collector, "")]).await;
    eventually("all is settled", || ferry.route("loki").metrics.events_delivered.get() == 10).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!((offered(&collector), collector.ids().len()), (20, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_run_of_the_binary_delivers_to_every_service_and_shows_no_secret() {
    for protocol in SERVICES {
        let collector = Collector::start(protocol).await;
        let table = apis::table(protocol, collector.url());
        let directory = configured(&format!(
            "state_dir = 'state'\n[inputs.in]\ntype = 'bucket'\nurl = 'bucket'\n[outputs.out]\n{table}"
        ));
        deliver(directory.path(), "a", &[1, 2, 3]);
        let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0);
        let ended = run(&ONCE, directory.path()).with(0);
        assert_eq!(collector.ids().len(), 3, "{protocol:?}");
        let said = [checked.stdout, checked.stderr, ended.stdout, ended.stderr].concat();
        assert!(!said.contains("hunter2") && !said.contains("PRIVATE KEY"), "{said}");
    }
}

#[test]
fn the_rule_for_sentinel_declares_every_column_that_is_sent() {
    let text = std::fs::read_to_string(crate::support::process::repository("packaging/azure/sentinel.json"));
    let template: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let names = |columns: &Value| -> Vec<String> {
        let columns = columns.as_array().unwrap().iter();
        columns.map(|column| column["name"].as_str().unwrap().to_owned()).collect()
    };
    let [table, rule] = template["resources"].as_array().unwrap().as_slice() else { panic!("{template}") };
    let declared = names(&rule["properties"]["streamDeclarations"]["Custom-DatabricksAudit"]["columns"]);
    assert_eq!(declared, names(&table["properties"]["schema"]["columns"]));
    let golden =
        std::fs::read_to_string(crate::support::process::repository("tests/golden/bodies/sentinel.json"));
    let records: Vec<Value> = serde_json::from_str(&golden.unwrap()).unwrap();
    for record in &records {
        for (key, value) in record.as_object().unwrap() {
            assert!(declared.contains(key), "{key} is no column: Azure would drop it");
            let column = &rule["properties"]["streamDeclarations"]["Custom-DatabricksAudit"]["columns"]
                [declared.iter().position(|name| name == key).unwrap()];
            let fits = match column["type"].as_str().unwrap() {
                "dynamic" => value.is_object() || value.is_null(),
                "datetime" | "string" => value.is_string() || value.is_null(),
                other => panic!("{other}"),
            };
            assert!(fits, "{key} is {value}, not {column}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_no_larger_than_a_batch_may_be_with_all_that_stands_around_its_events() {
    let bodies_within = |max_bytes: usize| async move {
        let (place, collector) = (Place::new(), Collector::start(Protocol::Otlp).await);
        place.put("a.json", records(0..40));
        let limits = format!("compression = 'none'\nbatch.max_bytes = '{max_bytes}B'");
        let ferry = place.start("", &[output(&collector, &limits)]).await;
        has(&collector, 40).await;
        ferry.stop().await;
        collector.requests().iter().map(|request| request.bytes.len()).collect::<Vec<_>>()
    };
    let whole = bodies_within(1_000_000).await;
    assert_eq!(whole.len(), 1, "{whole:?}");
    assert_eq!(bodies_within(whole[0]).await, whole);
    let parts = bodies_within(whole[0] - 1).await;
    assert!(parts.len() == 2 && parts.iter().all(|part| *part < whole[0]), "{parts:?} of {whole:?}");
}
