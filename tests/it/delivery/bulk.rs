//! Every answer of Elasticsearch and OpenSearch that is known, and what auditferry makes of it.

use std::fmt::Write;
use std::time::Duration;

use auditferry::output::{HoldReason, Verdict};
use auditferry::status::Phase;
use futures::StreamExt;
use serde_json::json;

use crate::support::collector::{Collector, Item, Protocol, Step};
use crate::support::ferry::{Ferry, Place, eventually, has, metric, offered, output, record};

const FLOOD: &str = "index [audit] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];";
const READ_ONLY: &str = "index [audit] blocked by: [FORBIDDEN/5/index read-only (api)];";
const NO_PRIMARY: &str = "[audit][0] primary shard is not active Timeout: [1m]";
const WRONG_TYPE: &str = "failed to parse field [response.status_code] of type [long]";

/// The answer to the first request, of three documents.
enum First {
    /// To the request as a whole.
    Whole(Step),
    /// To the second document; the first and the third are created.
    Second(Item),
    /// To each of the three.
    Each(Item),
}

/// What the engine did, in a line: the verdict, what became of the three events, and how many requests it took.
/// A hold is looked at while it lasts; its events are read again by a second run.
async fn done_after(first: First) -> String {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Bulk).await);
    match first {
        First::Whole(step) => collector.push(step),
        First::Second(item) => collector.push_items(vec![Item::of(201), item]),
        First::Each(item) => collector.push_items(vec![item; 3]),
    }
    place.put("a.json", ["a", "b", "c"].map(|id| record(id) + "\n").concat());
    let outputs = [output(&collector, "batch.max_events = 3\nin_flight = 1")];
    let forever = Duration::from_secs(3600);
    let ferry = place.start_with("", &outputs, |app| app.retry_holds_every(forever)).await;
    let metrics = ferry.route("elastic").metrics.clone();
    let settled = || metrics.events_delivered.get() + metrics.events_duplicate.get() + metrics.dead_letters();
    let holds = || ferry.route("elastic").status.snapshot().phase == Phase::Holding;
    eventually("settled or held", || settled() == 3 || holds()).await;
    let mut line = worst_verdict(&ferry);
    if holds() {
        write!(line, " {}", held_for(&ferry)).unwrap();
        assert_eq!((settled(), place.letters().len()), (0, 0), "{line}: a hold settles nothing");
        ferry.crash().await;
        let ferry = place.start("", &outputs).await;
        has(&collector, 3).await;
        ferry.rests().await;
        ferry.stop().await;
        return line;
    }
    if metrics.ambiguous_resends.get() > 0 {
        line.push_str(" ambiguous");
    }
    for (count, what) in [
        (metrics.events_delivered.get(), "delivered"),
        (metrics.events_duplicate.get(), "duplicate"),
        (metrics.dead_letters(), "dead"),
    ] {
        if count > 0 {
            write!(line, ", {count} {what}").unwrap();
        }
    }
    write!(line, ", {} requests", collector.count_requests()).unwrap();
    ferry.rests().await;
    ferry.stop().await;
    for kept in place.letters() {
        write!(line, ": {}", kept.letter.detail).unwrap();
    }
    line
}

/// Of the verdicts that came, the one furthest from success: that of the scripted answer.
fn worst_verdict(ferry: &Ferry) -> String {
    let of = |verdict: &str| {
        metric(
            &ferry.app,
            &format!("auditferry_requests_total{{input=\"audit\",output=\"elastic\",verdict=\"{verdict}\"}}"),
        )
    };
    Verdict::LABELS.into_iter().rev().find(|label| of(label) > 0.0).unwrap_or("none").to_owned()
}

fn held_for(ferry: &Ferry) -> &'static str {
    let of = |reason: &str| {
        metric(
            &ferry.app,
            &format!("auditferry_hold{{input=\"audit\",output=\"elastic\",reason=\"{reason}\"}}"),
        )
    };
    HoldReason::ALL
        .map(HoldReason::as_str)
        .into_iter()
        .find(|reason| of(reason) > 0.0)
        .unwrap_or("for nothing")
}

/// Fails with all rows that went another way than expected.
async fn go_as_told(rows: Vec<(&str, First, &str)>) {
    let runs = rows.into_iter().map(|(name, first, expected)| async move {
        let done = done_after(first).await;
        (done != expected).then(|| format!("{name}: {done}\n  instead of: {expected}"))
    });
    let wrong: Vec<_> =
        futures::stream::iter(runs).buffer_unordered(8).filter_map(async |row| row).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn error(status: u16, kind: &str, reason: &str) -> Step {
    Step::answer(status, json!({"error": {"type": kind, "reason": reason}, "status": status}).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_to_a_whole_request_is_acted_on() {
    const AGAIN: &str = "retry, 3 delivered, 2 requests";
    const AMBIGUOUS: &str = "retry ambiguous, 3 delivered, 2 requests";
    const HALVES: &str = "rejected, 3 delivered, 3 requests";
    let html = |status| Step::answer(status, "<html>nginx</html>");
    let created = |count: usize| {
        let items = vec![json!({"create": {"status": 201}}); count];
        json!({"errors": false, "items": items}).to_string()
    };
    let rows = vec![
        ("200", Step::answer(200, created(3)).keeping(), "accepted, 3 delivered, 1 requests"),
        (
            "200 of a server that names no items",
            Step::answer(200, r#"{"errors":false}"#).keeping(),
            "accepted, 3 delivered, 1 requests",
        ),
        ("200 with fewer items", Step::answer(200, created(2)), AMBIGUOUS),
        ("200 with more items", Step::answer(200, created(4)), AMBIGUOUS),
        ("200 with errors and no items", Step::answer(200, r#"{"errors":true}"#), AMBIGUOUS),
        ("200 that is no answer", html(200), AMBIGUOUS),
        ("200 that is empty", Step::answer(200, ""), AMBIGUOUS),
        (
            "200 longer than is read",
            Step::answer(200, "x".repeat(5 << 20)),
            "too_large, 3 delivered, 3 requests",
        ),
        ("303", html(303), "hold misconfigured"),
        ("400 for a document", error(400, "action_request_validation_exception", "id is too long"), HALVES),
        (
            "400 for a line",
            error(400, "illegal_argument_exception", "Malformed action/metadata line [3]"),
            HALVES,
        ),
        (
            "400 without a body",
            error(400, "parse_exception", "request body is required"),
            "hold misconfigured",
        ),
        (
            "400 without the last line's end",
            error(
                400,
                "illegal_argument_exception",
                "The bulk request must be terminated by a newline [\\n]",
            ),
            "hold misconfigured",
        ),
        (
            "400 for the index",
            error(400, "invalid_index_name_exception", "Invalid index name [A]"),
            "hold misconfigured",
        ),
        (
            "400 for the path",
            Step::answer(400, r#"{"error":"no handler found for uri [/x/_bulk] and method [POST]"}"#),
            "hold misconfigured",
        ),
        ("400 of a proxy", html(400), "hold misconfigured"),
        ("401", error(401, "security_exception", "unable to authenticate user"), "hold credentials"),
        (
            "403",
            error(403, "security_exception", "action [indices:data/write/bulk] is unauthorized"),
            "hold credentials",
        ),
        (
            "403 of AWS",
            Step::answer(403, r#"{"message":"The security token included in the request is expired"}"#),
            "hold credentials",
        ),
        (
            "403 for a block",
            error(403, "cluster_block_exception", "blocked by: [FORBIDDEN/6/cluster read-only (api)];"),
            "hold misconfigured",
        ),
        (
            "403 for the disk",
            error(
                403,
                "cluster_block_exception",
                "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];",
            ),
            "hold disk_full",
        ),
        (
            "404 for the index",
            error(404, "index_not_found_exception", "no such index [audit]"),
            "hold not_found",
        ),
        ("404 of a proxy", html(404), "hold not_found"),
        ("405", Step::answer(405, r#"{"error":"Incorrect HTTP method"}"#), "hold misconfigured"),
        (
            "406",
            Step::answer(406, r#"{"error":"Content-Type header [x] is not supported","status":406}"#),
            "hold misconfigured",
        ),
        ("408", Step::answer(408, ""), AMBIGUOUS),
        ("413", html(413), "too_large, 3 delivered, 3 requests"),
        (
            "413 of AWS",
            Step::answer(413, r#"{"Message":"Request size exceeded 10485760 bytes"}"#),
            "too_large, 3 delivered, 3 requests",
        ),
        ("415", Step::answer(415, "{}"), "hold misconfigured"),
        ("429 of the breaker", error(429, "circuit_breaking_exception", "[parent] Data too large"), AGAIN),
        (
            "429 of the queue",
            error(429, "es_rejected_execution_exception", "rejected execution of coordinating operation"),
            AGAIN,
        ),
        ("429 of AWS", Step::answer(429, "429 Too Many Requests /_bulk"), AGAIN),
        ("429 for the disk", error(429, "cluster_block_exception", FLOOD), "hold disk_full"),
        ("429 with a time", Step::answer(429, "").header("retry-after", "1"), AGAIN),
        ("500", error(500, "exception", "?"), AMBIGUOUS),
        ("502", html(502), AMBIGUOUS),
        (
            "503 without a master",
            error(503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no master];"),
            AGAIN,
        ),
        ("503 of a proxy", html(503), AGAIN),
        ("504", html(504), AMBIGUOUS),
        ("hung up", Step::hang_up(), AMBIGUOUS),
        (
            "hung up behind the documents",
            Step::hang_up().keeping(),
            "retry ambiguous, 3 duplicate, 2 requests",
        ),
        ("no HTTP", Step::garbage(), AMBIGUOUS),
        (
            "half an answer",
            Step::half_answer(created(3)).keeping(),
            "retry ambiguous, 3 duplicate, 2 requests",
        ),
    ];
    go_as_told(rows.into_iter().map(|(name, step, expected)| (name, First::Whole(step), expected)).collect())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_to_one_document_is_acted_on() {
    const ALONE_AGAIN: &str = "partial, 3 delivered, 2 requests";
    let dead =
        |kind: &str, reason: &str| format!("partial, 2 delivered, 1 dead, 1 requests: 400 {kind}: {reason}");
    let refusals = [
        ("mapper_parsing_exception", WRONG_TYPE),
        ("document_parsing_exception", WRONG_TYPE),
        ("strict_dynamic_mapping_exception", "dynamic introduction of [x] within [_doc] is not allowed"),
        ("illegal_argument_exception", "Limit of total fields [1000] has been exceeded"),
        ("illegal_argument_exception", "mapper [x] cannot be changed from type [long] to [text]"),
        ("illegal_argument_exception", "Document contains at least one immense term in field=\"x\""),
    ];
    let expected = refusals.map(|(kind, reason)| dead(kind, reason));
    let second = [
        (201, "", "", "accepted, 3 delivered, 1 requests"),
        (200, "", "", "accepted, 3 delivered, 1 requests"),
        (
            409,
            "version_conflict_engine_exception",
            "document already exists",
            "partial, 2 delivered, 1 duplicate, 1 requests",
        ),
        (429, "es_rejected_execution_exception", "rejected execution of primary operation", ALONE_AGAIN),
        (429, "circuit_breaking_exception", "[parent] Data too large", ALONE_AGAIN),
        (429, "cluster_block_exception", FLOOD, ALONE_AGAIN),
        (403, "cluster_block_exception", FLOOD, ALONE_AGAIN),
        (403, "cluster_block_exception", READ_ONLY, "hold misconfigured"),
        (403, "security_exception", "no permissions for [indices:data/write/bulk[s]]", "hold credentials"),
        (401, "security_exception", "", "hold credentials"),
        (404, "index_not_found_exception", "no such index [audit]", "hold not_found"),
        (400, "resource_already_exists_exception", "index [audit] already exists", ALONE_AGAIN),
        (400, "index_closed_exception", "closed", "hold misconfigured"),
        (400, "invalid_index_name_exception", "Invalid index name [A]", "hold misconfigured"),
        (400, "validation_exception", "this action would add [2] total shards", "hold misconfigured"),
        (400, "routing_missing_exception", "routing is required", "hold misconfigured"),
        (400, "illegal_argument_exception", "pipeline with id [p] does not exist", "hold misconfigured"),
        (400, "illegal_argument_exception", "no write index is defined for alias [a]", "hold misconfigured"),
        (
            400,
            "illegal_argument_exception",
            "Document ID is not supported in create/index operation request",
            "hold misconfigured",
        ),
        (500, "exception", "", ALONE_AGAIN),
        (503, "unavailable_shards_exception", NO_PRIMARY, ALONE_AGAIN),
    ];
    let second = second.into_iter().chain(
        refusals
            .iter()
            .zip(&expected)
            .map(|((kind, reason), expected)| (400, *kind, *reason, expected.as_str())),
    );
    let each = [
        (429, "es_rejected_execution_exception", "queue", "retry, 3 delivered, 2 requests"),
        (503, "unavailable_shards_exception", NO_PRIMARY, "retry, 3 delivered, 2 requests"),
        (429, "cluster_block_exception", FLOOD, "hold disk_full"),
        (403, "cluster_block_exception", FLOOD, "hold disk_full"),
        (409, "version_conflict_engine_exception", "exists", "partial, 3 duplicate, 1 requests"),
    ];
    let rows = second
        .map(|(status, kind, reason, expected)| {
            (kind, First::Second(Item::new(status, kind, reason)), expected)
        })
        .chain(each.map(|(status, kind, reason, expected)| {
            (kind, First::Each(Item::new(status, kind, reason)), expected)
        }))
        .collect();
    go_as_told(rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_events_only_the_poisonous_one_does_not_arrive_wherever_it_is() {
    for poison in [0, 4_999, 5_000, 9_999].map(|number| format!("r{number}")) {
        let (place, collector) = (Place::new(), Collector::start(Protocol::Bulk).await);
        collector.set_poison(&format!("\"{poison}\""));
        place.put(
            "a.json",
            (0..10_000).map(|number| record(&format!("r{number}")) + "\n").collect::<String>(),
        );
        let ferry = place.start("", &[output(&collector, "")]).await;
        has(&collector, 9_999).await;
        ferry.rests().await;
        ferry.stop().await;
        has_exactly_but_one(&collector);
        let letters = place.letters();
        assert_eq!(letters.len(), 1, "{poison}");
        assert_eq!(letters[0].letter.record, record(&poison));
        assert!(letters[0].letter.detail.contains("document_parsing_exception"), "{poison}");
    }
}

/// Each event was offered once, the refused one too.
fn has_exactly_but_one(collector: &Collector) {
    assert_eq!(collector.ids().len(), 9_999);
    assert_eq!(offered(collector), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_a_cluster_take_turns_and_one_that_fails_is_left_out_until_it_works() {
    let (place, one, other) =
        (Place::new(), Collector::start(Protocol::Bulk).await, Collector::start(Protocol::Bulk).await);
    let output = output(&one, "batch.max_events = 1\nin_flight = 1")
        .replace(&format!("url = '{}'", one.url()), &format!("url = ['{}', '{}']", one.url(), other.url()));
    let ferry = place.start("", &[output]).await;
    let mut written = 0;
    let mut write = |count: usize| {
        written += count;
        place.put(
            "a.json",
            (0..written).map(|number| record(&format!("r{number}")) + "\n").collect::<String>(),
        );
        written
    };
    let both = || one.ids().len() + other.ids().len();
    let all = write(20);
    eventually("twenty events", || both() == all).await;
    assert_eq!((one.ids().len(), other.ids().len()), (10, 10));
    other.set_down(Some(503));
    let asked = other.count_requests();
    let all = write(20);
    eventually("forty events", || both() == all).await;
    assert_eq!(other.ids().len(), 10);
    assert!(
        other.count_requests() <= asked + 2,
        "it is left out: {} requests",
        other.count_requests() - asked
    );
    other.set_down(None);
    // It is tried again after five seconds, or ten where it was tried in between.
    eventually("the node is back", || {
        write(1);
        other.ids().len() > 10
    })
    .await;
    let all = write(0);
    eventually("all events", || both() == all).await;
    ferry.rests().await;
    ferry.stop().await;
    assert!(place.letters().is_empty());
}
