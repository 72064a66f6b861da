//! No secret is in what is said of a failure, whatever the collector repeats.

use auditferry::output::{Verdict, elastic, http, otlp, splunk_hec, sumo};
use serde_json::json;

use super::{ACCEPTED, build, send};
use crate::support::collector::{Collector, Protocol, Step};

#[tokio::test]
async fn no_failure_shows_the_address_of_a_sumo_source() {
    let collector = Collector::start(Protocol::Sumo).await;
    let url = format!("{}/receiver/v1/http/ZaVnC4dhaV39", collector.url());
    let output = build(sumo::KIND, json!({ "url": url }));
    let steps = [
        Step::hang_up(),
        Step::garbage(),
        Step::half_answer(""),
        Step::answer(500, "ZaVnC4dhaV39"),
        Step::answer(404, url.as_str()),
    ];
    for step in steps {
        collector.push(step);
        let verdict = send(&*output, &["a"]).await;
        assert_ne!(verdict, ACCEPTED);
        assert!(!format!("{verdict:?}").contains("ZaVnC4dhaV39"), "{verdict:?}");
    }
    drop(collector);
    let verdict = send(&*output, &["a"]).await;
    assert!(!format!("{verdict:?}").contains("ZaVnC4dhaV39"), "{verdict:?}");
}

#[tokio::test]
async fn a_credential_that_a_collector_repeats_is_in_no_message() {
    let collector = Collector::start(Protocol::Any).await;
    let url = collector.url();
    for output in [
        build(splunk_hec::KIND, json!({"url": url, "token": "hunter2"})),
        build(elastic::KIND, json!({"url": url, "username": "u", "password": "hunter2"})),
        build(elastic::KIND, json!({"url": url, "bearer_token": "hunter2"})),
        build(http::KIND, json!({"url": url, "headers": {"authorization": "Bearer hunter2"}})),
        build(http::KIND, json!({"url": format!("{url}/in?key=hunter2")})),
    ] {
        for status in [400, 403, 404, 500] {
            collector.push(Step::answer(status, r#"{"error":"who is hunter2?"}"#));
            let verdict = format!("{:?}", send(&*output, &["a"]).await);
            assert!(verdict.contains("who is ***") && !verdict.contains("hunter2"), "{verdict}");
        }
    }
    let otlp_collector = Collector::start(Protocol::Otlp).await;
    let table = json!({"url": otlp_collector.url(), "headers": {"api-key": "hunter2"}});
    let warns = build(otlp::KIND, table);
    otlp_collector.push(Step::answer(200, "\n\u{11}\u{12}\u{f}who is hunter2?"));
    assert_eq!(send(&*warns, &["a"]).await, Verdict::AcceptedWithRemark("who is ***?".to_owned()));
    // `u:hunter2` in base64, as basic authentication sends it.
    let basic = build(elastic::KIND, json!({"url": url, "username": "u", "password": "hunter2"}));
    collector.push(Step::answer(500, "dTpodW50ZXIy"));
    assert!(!format!("{:?}", send(&*basic, &["a"]).await).contains("dTpodW50ZXIy"));
}

#[tokio::test]
async fn a_secret_is_known_however_a_collector_spells_it() {
    let collector = Collector::start(Protocol::Any).await;
    let url = collector.url();
    let source = format!("{url}/receiver/v1/http/ZaVnC4dhaV39_-x==");
    let hook = format!("{url}/services/T0/hunter2hunter2?key=a%2Fb+swordfish");
    for (output, said, secret) in [
        // As Java's Gson, PHP's json_encode and whatever makes HTML write them.
        (
            build(sumo::KIND, json!({"url": source})),
            r#"{"path":"/http/ZaVnC4dhaV39_-x\u003d\u003d"}"#,
            "ZaVnC4",
        ),
        (build(sumo::KIND, json!({"url": source})), "no source ZaVnC4dhaV39_-x&#61;&#61;", "ZaVnC4"),
        (build(sumo::KIND, json!({"url": source})), "no source ZaVnC4dhaV39_-x%3D%3D", "ZaVnC4"),
        (build(http::KIND, json!({"url": hook})), r#"{"path":"\/services\/T0\/hunter2hunter2"}"#, "hunter2"),
        (build(http::KIND, json!({"url": hook})), "no such hook: hunter2hunter2", "hunter2"),
        (build(http::KIND, json!({"url": hook})), "no such key: a/b swordfish", "swordfish"),
        (
            build(http::KIND, json!({"url": url, "headers": {"x": "a+b/hunter2=="}})),
            r#"{"key":"a\u002bb\/hunter2\u003d\u003d"}"#,
            "hunter2",
        ),
        (
            build(http::KIND, json!({"url": url, "headers": {"x": "a<b&hunter2"}})),
            "who is a&lt;b&amp;hunter2?",
            "hunter2",
        ),
    ] {
        for status in [400, 403, 404, 500] {
            collector.push(Step::answer(status, said));
            let verdict = format!("{:?}", send(&*output, &["a"]).await);
            assert!(verdict.contains("***") && !verdict.contains(secret), "{said}: {verdict}");
        }
    }
}
