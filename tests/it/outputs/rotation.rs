//! Secrets in the middle of their rotation: the collector does not know the new one yet.

use std::path::Path;

use auditferry::output::{HoldReason, OutputKind, datadog, elastic, http, loki, otlp, splunk_hec, sumo};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{ACCEPTED, build, hold_reason, promised, send};
use crate::support::collector::{Collector, Protocol};

/// Every collector whose secret can be rotated, its configuration with the secret in a file, the header that shows the
/// secret, and how.
fn with_a_secret_in(file: &Path) -> Vec<(Protocol, OutputKind, Value, &'static str, &'static str)> {
    let file = json!({ "file": file });
    let basic = json!({"username": "u", "password": &file});
    vec![
        (Protocol::Hec, splunk_hec::KIND, json!({"token": &file}), "authorization", "Splunk {}"),
        (Protocol::Sumo, sumo::KIND, json!({"token": &file}), "x-sumo-token", "{}"),
        (Protocol::Bulk, elastic::KIND, json!({"api_key": &file}), "authorization", "ApiKey {}"),
        (Protocol::Bulk, elastic::KIND, json!({"bearer_token": &file}), "authorization", "Bearer {}"),
        (Protocol::Bulk, elastic::KIND, basic.clone(), "authorization", "Basic {}"),
        (Protocol::Any, http::KIND, json!({"headers": {"x-key": &file, "a": "b"}}), "x-key", "{}"),
        (Protocol::Datadog, datadog::KIND, json!({"api_key": &file}), "dd-api-key", "{}"),
        (Protocol::Otlp, otlp::KIND, json!({"headers": {"api-key": &file}}), "api-key", "{}"),
        (Protocol::Loki, loki::KIND, json!({"bearer_token": &file}), "authorization", "Bearer {}"),
        (Protocol::Loki, loki::KIND, basic, "authorization", "Basic {}"),
    ]
}

#[tokio::test]
async fn while_a_new_secret_is_not_known_yet_the_one_before_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    for (protocol, kind, mut table, header, shape) in with_a_secret_in(&path) {
        let collector = Collector::start(protocol).await;
        let want = |secret: &str| {
            let basic = BASE64_STANDARD.encode(format!("u:{secret}"));
            let shown = if shape.starts_with("Basic") { &basic } else { secret };
            collector.want_header(header, &shape.replace("{}", shown));
        };
        want("the old one");
        std::fs::write(&path, "the old one").unwrap();
        table["url"] = json!(collector.url());
        let output = build(kind, table);
        assert_eq!(send(&*output, &["a"]).await, ACCEPTED, "{protocol:?}");
        std::fs::write(&path, "the new one").unwrap();
        assert_eq!(send(&*output, &["b"]).await.label(), "retry", "{protocol:?}");
        assert_eq!(send(&*output, &["b"]).await, ACCEPTED, "{protocol:?}");
        want("the new one");
        assert_eq!(send(&*output, &["c"]).await.label(), "retry", "{protocol:?}");
        assert_eq!(send(&*output, &["c"]).await, ACCEPTED, "{protocol:?}");
        want("another");
        let held = send(&*output, &["d"]).await;
        assert_eq!(hold_reason(&held), Some(HoldReason::Credentials), "{protocol:?}");
        assert!(!format!("{held:?}").contains("the new one"), "{held:?}");
    }
}

#[tokio::test]
async fn while_a_new_address_is_not_known_yet_the_one_before_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("url");
    for (protocol, kind) in [(Protocol::Sumo, sumo::KIND), (Protocol::Any, http::KIND)] {
        let collector = Collector::start(protocol).await;
        let write = |code: &str| {
            std::fs::write(&path, format!("{}/receiver/v1/http/{code}", collector.url())).unwrap();
        };
        write("old");
        collector.want_header(":path", "/receiver/v1/http/old");
        let output = build(kind, json!({"url": {"file": &path}}));
        assert_eq!(send(&*output, &["a"]).await, ACCEPTED);
        write("new");
        assert_eq!(send(&*output, &["b"]).await.label(), "retry");
        assert_eq!(send(&*output, &["b"]).await, ACCEPTED);
        collector.want_header(":path", "/receiver/v1/http/new");
        assert_eq!(send(&*output, &["c"]).await.label(), "retry");
        assert_eq!(send(&*output, &["c"]).await, ACCEPTED);
    }
}

#[tokio::test]
async fn acknowledgements_are_asked_for_with_the_token_before_while_the_new_one_is_not_known_yet() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.set_acknowledging(true);
    collector.want_authorization("Splunk old");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let table = json!({"url": collector.url(), "token": {"file": path}, "ack": true});
    let output = build(splunk_hec::KIND, table);
    let ack = promised(&*output, "a").await;
    std::fs::write(&path, "new").unwrap();
    assert_eq!(output.acknowledged(std::slice::from_ref(&ack)).await, []);
    assert_eq!(output.acknowledged(std::slice::from_ref(&ack)).await, [ack]);
}
