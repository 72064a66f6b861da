//! What the services have in common: each of these outputs against its collector.

use auditferry::component::Probe;
use auditferry::output::{HoldReason, Output, Verdict};
use auditferry::registry;

use super::{ACCEPTED, build, hold_reason, send};
use crate::support::collector::{Collector, Protocol, Step, apis};

/// The outputs that are services, each with its collector.
async fn services() -> Vec<(Collector, Box<dyn Output>)> {
    let mut services = Vec::new();
    for protocol in [Protocol::Datadog, Protocol::Sentinel, Protocol::Otlp, Protocol::Loki, Protocol::SecOps]
    {
        let collector = Collector::start(protocol).await;
        let mut table: toml::Table = toml::from_str(&apis::table(protocol, collector.url())).unwrap();
        let kind = table.remove("type").unwrap();
        table.remove("format");
        let kind = registry::OUTPUTS.iter().find(|known| Some(known.name) == kind.as_str()).unwrap();
        let output = build(*kind, serde_json::to_value(table).unwrap());
        services.push((collector, output));
    }
    services
}

#[tokio::test]
async fn a_page_that_somebody_else_answers_with_is_no_success() {
    for (collector, output) in services().await {
        collector.script_everything();
        collector.push(Step::answer(200, " <!doctype html><title>Sign in</title>"));
        let verdict = send(&*output, &["a"]).await;
        let Verdict::Hold(alarm) = &verdict else { panic!("{:?}: {verdict:?}", collector.protocol()) };
        assert!(alarm.message.contains("Sign in") && alarm.message.contains("`url`"), "{}", alarm.message);
        collector.push(Step::answer(200, "<html>Sign in"));
        let probe = output.probe().await;
        assert!(matches!(&probe, Probe::Failed(seen) if seen.contains("Sign in")), "{probe:?}");
        assert_eq!(send(&*output, &["a"]).await, ACCEPTED);
    }
}

#[tokio::test]
async fn a_token_that_was_taken_and_is_refused_is_renewed_before_anybody_is_called() {
    for (collector, output) in services().await {
        if !matches!(collector.protocol(), Protocol::Sentinel | Protocol::SecOps) {
            continue;
        }
        assert_eq!(send(&*output, &["a"]).await, ACCEPTED);
        collector.want_authorization("Bearer token-2");
        let verdict = send(&*output, &["b"]).await;
        assert!(matches!(verdict, Verdict::Retry { ambiguous: false, .. }), "{verdict:?}");
        if collector.protocol() == Protocol::Sentinel {
            assert_eq!(send(&*output, &["b"]).await, ACCEPTED);
            collector.want_authorization("Bearer another");
            assert_eq!(send(&*output, &["c"]).await.label(), "retry");
        }
        let verdict = send(&*output, &["c"]).await;
        assert_eq!(hold_reason(&verdict), Some(HoldReason::Credentials), "the new one is not taken either");
    }
}
