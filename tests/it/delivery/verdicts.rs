//! Every status and code that a collector can answer with, what it is taken for, and what becomes of three events.
//!
//! Each row is a pipeline of its own: the collector answers once as the row says, then as usual.

use std::time::Duration;

use auditferry::output::{HoldReason, Verdict};
use futures::StreamExt;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::ferry::{Place, eventually, metric, offered, output, record};

/// What came of a row.
#[derive(Debug, PartialEq, Eq)]
struct Became {
    /// Verdict on the first request.
    verdict: &'static str,
    /// Why everything was held, if it was.
    held: Option<&'static str>,
    /// Events sent a second time, and those of them that may be there twice.
    again: usize,
    ambiguous: u64,
    /// Events that ended as dead letters.
    dead: u64,
    /// Fewer requests go at once afterwards.
    slowed: bool,
}

const ACCEPTED: Became =
    Became { verdict: "accepted", held: None, again: 0, ambiguous: 0, dead: 0, slowed: false };
const SLOWED: Became = Became { slowed: true, ..ACCEPTED };
const RETRIED: Became =
    Became { verdict: "retry", held: None, again: 3, ambiguous: 0, dead: 0, slowed: true };
const AMBIGUOUS: Became = Became { ambiguous: 3, ..RETRIED };
const TOO_LARGE: Became =
    Became { verdict: "too_large", held: None, again: 3, ambiguous: 0, dead: 0, slowed: false };
const NARROWED: Became = Became { verdict: "rejected", ..TOO_LARGE };

fn held(reason: HoldReason) -> Became {
    Became { verdict: "hold", held: Some(reason.as_str()), again: 3, ambiguous: 0, dead: 0, slowed: false }
}

/// The answer, the length of each event's id, and what becomes of them.
type Row = (Step, usize, Became);

async fn check(protocol: Protocol, rows: Vec<Row>) {
    let checks = rows.into_iter().enumerate().map(|(number, (step, length, expected))| async move {
        let said = format!("{protocol:?}, row {number}: {step:?}");
        let became = follow(protocol, step, length).await;
        (became != expected).then(|| format!("{said}\n  is       {became:?}\n  expected {expected:?}"))
    });
    // Each has watches, files and threads of its own: not all at once.
    let wrong: Vec<String> =
        futures::stream::iter(checks).buffer_unordered(8).filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn follow(protocol: Protocol, step: Step, length: usize) -> Became {
    let (mut place, collector) = (Place::new(), Collector::start(protocol).await);
    place.memory = "16MiB";
    collector.push(step);
    let id = |number: usize| format!("{number}").repeat(length);
    place.put("a.json", (0..3).map(|number| record(&id(number)) + "\n").collect::<String>());
    let keys = "in_flight = 4\nbatch.max_bytes = '5MB'\ntimeout = '1s'";
    let hold = Duration::from_secs(1);
    // Long events come one by one, and have to end up in one request all the same.
    let output = output(&collector, keys).replace("'50ms'", if length > 1 { "'2s'" } else { "'50ms'" });
    let ferry = place.start_with("", &[output], |app| app.retry_holds_every(hold)).await;
    let route = &ferry.app.routes[0];
    let labels = format!("{{input=\"audit\",output=\"{}\"", route.output_name);
    let mut reason = None;
    eventually("the events end", || {
        let holds = HoldReason::OF_OUTPUTS.iter().map(|reason| reason.as_str());
        reason = reason.or(holds.into_iter().find(|reason| {
            metric(&ferry.app, &format!("auditferry_hold{labels},reason=\"{reason}\"}}")) > 0.5
        }));
        route.metrics.events_delivered.get() + route.metrics.dead_letters() == 3
    })
    .await;
    ferry.rests().await;
    let verdicts = Verdict::LABELS.into_iter().filter(|label| {
        metric(&ferry.app, &format!("auditferry_requests_total{labels},verdict=\"{label}\"}}")) > 0.5
    });
    let verdicts: Vec<_> = verdicts.collect();
    let first = verdicts.iter().find(|label| **label != "accepted").or(verdicts.first());
    let became = Became {
        verdict: first.unwrap(),
        held: reason,
        again: offered(&collector) - 3,
        ambiguous: route.metrics.ambiguous_resends.get(),
        dead: route.metrics.dead_letters(),
        slowed: metric(&ferry.app, &format!("auditferry_requests_limit{labels}}}")) < 3.5,
    };
    ferry.stop().await;
    assert_eq!(place.letters().len() as u64, became.dead);
    became
}

/// What any collector over HTTP may say, or what stands before it.
fn any(status: u16) -> Option<Became> {
    Some(match status {
        204 => ACCEPTED,
        301 | 303 | 405 | 406 | 407 | 411 | 415 | 431 => held(HoldReason::Misconfigured),
        401 | 403 => held(HoldReason::Credentials),
        404 | 410 => held(HoldReason::NotFound),
        408 | 500 | 502 | 504 | 520 => AMBIGUOUS,
        413 => TOO_LARGE,
        425 | 429 | 503 => RETRIED,
        _ => return None,
    })
}

/// Rows for all statuses that mean the same everywhere, and for answers that are none.
fn common(body: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = (100..600)
        .filter_map(|status| {
            Some((Step::answer(status, if status == 204 { "" } else { body }), 1, any(status)?))
        })
        .collect();
    rows.extend([
        (Step::answer(429, "slow").header("Retry-After", "1"), 1, RETRIED),
        (Step::hang_up(), 1, AMBIGUOUS),
        (Step::garbage(), 1, AMBIGUOUS),
        (Step::half_answer("{"), 1, AMBIGUOUS),
        (Step::answer(200, "").delayed(Duration::from_secs(2)), 1, AMBIGUOUS),
    ]);
    rows
}

fn hec(status: u16, code: u16, number: Option<usize>) -> Step {
    let mut body = serde_json::json!({"text": "said", "code": code});
    if let Some(number) = number {
        body["invalid-event-number"] = number.into();
    }
    Step::answer(status, body.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_splunk_is_taken_for_what_it_means() {
    let (credentials, misconfigured) = (held(HoldReason::Credentials), held(HoldReason::Misconfigured));
    let codes = [
        // 24 and 25 sound like errors and are none: the events are in.
        ((200, 0), ACCEPTED),
        ((403, 1), credentials),
        ((401, 2), held(HoldReason::Credentials)),
        ((401, 3), held(HoldReason::Credentials)),
        ((403, 4), held(HoldReason::Credentials)),
        ((400, 5), misconfigured),
        ((400, 6), NARROWED),
        ((400, 7), held(HoldReason::Misconfigured)),
        ((500, 8), AMBIGUOUS),
        ((503, 9), RETRIED),
        ((400, 10), held(HoldReason::Misconfigured)),
        ((400, 11), held(HoldReason::Misconfigured)),
        ((400, 12), NARROWED),
        ((400, 13), NARROWED),
        ((400, 14), held(HoldReason::Misconfigured)),
        ((400, 15), NARROWED),
        ((400, 16), held(HoldReason::Misconfigured)),
        ((200, 17), held(HoldReason::Misconfigured)),
        ((503, 18), RETRIED),
        ((503, 19), RETRIED),
        ((503, 20), RETRIED),
        ((400, 21), held(HoldReason::Misconfigured)),
        ((400, 22), held(HoldReason::Misconfigured)),
        ((503, 23), RETRIED),
        ((200, 24), SLOWED),
        ((200, 25), SLOWED),
        ((429, 26), RETRIED),
        ((429, 27), RETRIED),
        ((400, 28), held(HoldReason::Misconfigured)),
    ];
    assert!(codes.iter().map(|((_, code), _)| *code).eq(0..=28), "a code is missing");
    let mut rows: Vec<Row> =
        codes.into_iter().map(|((status, code), became)| (hec(status, code, None), 1, became)).collect();
    // What stands before the number is in, what stands behind it was not looked at.
    let partial = |again, dead, slowed| Became { verdict: "partial", again, dead, slowed, ..ACCEPTED };
    for code in [6, 12, 13, 15] {
        rows.push((hec(400, code, Some(0)).keeping_first(0), 1, partial(2, 1, false)));
        rows.push((hec(400, code, Some(1)).keeping_first(1), 1, partial(1, 1, false)));
        rows.push((hec(400, code, Some(2)).keeping_first(2), 1, partial(0, 1, false)));
        rows.push((hec(400, code, Some(3)), 1, NARROWED));
        // Splunk Cloud names the first event of a body that is too large.
        rows.push((hec(400, code, Some(0)), 340_000, TOO_LARGE));
    }
    rows.push((hec(503, 9, Some(2)).keeping_first(2), 1, partial(1, 0, true)));
    rows.push((hec(503, 9, Some(0)), 1, RETRIED));
    rows.extend([
        (Step::answer(201, "OK").keeping(), 1, ACCEPTED),
        (Step::answer(500, "\"Internal Server Error\""), 1, AMBIGUOUS),
        (Step::answer(400, "\"Bad Request\""), 1, NARROWED),
        (Step::answer(400, "<html>Bad Request</html>"), 1, held(HoldReason::Misconfigured)),
        (hec(400, 99, None), 1, NARROWED),
    ]);
    rows.extend(common("<html>no</html>"));
    check(Protocol::Hec, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_sumo_is_taken_for_what_it_means() {
    let slow = Became { verdict: "too_slow", slowed: true, ambiguous: 3, ..RETRIED };
    let warning = r#"{"id":"A","status":200,"code":"bad.http.header.fields","message":"dropped"}"#;
    let mut rows = vec![
        (Step::answer(200, "").keeping(), 1, ACCEPTED),
        (Step::answer(200, warning).keeping(), 1, ACCEPTED),
        (Step::answer(200, "<html>").keeping(), 1, ACCEPTED),
        // Sumo looks at no single event.
        (Step::answer(400, "no"), 1, held(HoldReason::Misconfigured)),
        (Step::answer(422, "no"), 1, held(HoldReason::Misconfigured)),
        // A part of it may be in; what is large is not sent as large again.
        (Step::answer(408, "timeout"), 50_000, slow),
    ];
    rows.extend(common("no"));
    check(Protocol::Sumo, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_any_collector_is_taken_for_what_it_means() {
    let mut rows = vec![
        (Step::answer(200, r#"{"ok":"true"}"#).keeping(), 1, ACCEPTED),
        (Step::answer(202, r#"{"requestId":"a"}"#).keeping(), 1, ACCEPTED),
        (Step::answer(400, "no"), 1, NARROWED),
        (Step::answer(422, "no"), 1, NARROWED),
    ];
    rows.extend(common("no"));
    check(Protocol::Any, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_says_of_our_tls_is_no_answer_of_the_collector() {
    for protocol in [Protocol::Hec, Protocol::Sumo, Protocol::Bulk, Protocol::Any] {
        let complaint = |text: &str| {
            let body = format!("<html>\r\n<head><title>400 {text}</title></head>\r\n");
            (Step::answer(400, body), 1, held(HoldReason::Misconfigured))
        };
        let rows = [
            "The plain HTTP request was sent to HTTPS port",
            "No required SSL certificate was sent",
            "The SSL certificate error",
        ];
        check(protocol, rows.into_iter().map(complaint).collect()).await;
    }
}
