use serde_json::json;

use super::*;
use crate::http::HttpSettings;
use crate::json::Text;
use crate::time::Millis;

struct Fixed(String);

impl Format for Fixed {
    fn encode(&self, _: &AuditEvent<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

fn table() -> Value {
    json!({
        "url": "https://acme.westeurope-1.ingest.monitor.azure.com", "rule_id": "dcr-0123",
        "stream": "Custom-DatabricksAudit",
        "azure": {"client_id": "c", "tenant_id": "t", "client_secret": "hunter2"}
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut table = table();
    table[key] = value;
    table
}

fn output(table: Value) -> Result<Sentinel, BuildError> {
    let context = OutputContext {
        name: "sentinel".into(),
        format: FormatName::Canonical,
        http: HttpSettings::default(),
    };
    Sentinel::new(parse(table)?, context)
}

#[tokio::test]
async fn a_record_has_its_time_where_every_table_has_it_and_no_name_that_is_no_column() {
    let output = output(table()).unwrap();
    let frame = |document: &str, event: &AuditEvent<'_>| {
        let mut frame = Vec::new();
        output.encode(event, &Fixed(document.to_owned()), &mut frame);
        String::from_utf8(frame).unwrap()
    };
    let event = AuditEvent {
        event_time: Millis::new(1_767_609_296_007),
        event_id: Some(Text::from_plain("e1")),
        ..AuditEvent::default()
    };
    assert_eq!(
        frame(r#"{"event_id":"e1","_source":{"_source":1}}"#, &event),
        r#"{"TimeGenerated":"2026-01-05T10:34:56.007Z","event_id":"e1","extras":{"_source":1}}"#
    );
    assert_eq!(frame(r#"{"a":1}"#, &AuditEvent::default()), r#"{"a":1}"#);
    let row = r#"{"OperationName":"\"TimeGenerated\"","TimeGenerated":"2026-01-05T10:34:56.0071234Z"}"#;
    assert_eq!(frame(row, &event), row, "a record that has the member itself");
    let nested = r#"{"a":{"TimeGenerated":1}}"#;
    assert_eq!(
        frame(nested, &event),
        r#"{"TimeGenerated":"2026-01-05T10:34:56.007Z","a":{"TimeGenerated":1}}"#
    );
}

#[tokio::test]
async fn a_field_that_would_be_cut_does_not_fit_unless_that_is_wanted() {
    let frame = |length: usize| format!(r#"{{"a":{{"b":1}},"long":"{}"}}"#, "x".repeat(length));
    let keeps = output(table()).unwrap();
    assert_eq!(keeps.fits(frame(MAX_FIELD_BYTES).as_bytes()), Ok(()));
    let rejection = keeps.fits(frame(MAX_FIELD_BYTES + 1).as_bytes()).unwrap_err();
    assert!(rejection.reason.contains("the field \"long\" of 65537 bytes"), "{}", rejection.reason);
    let escaped = |quotes: usize| format!(r#"{{"long":"{}"}}"#, r#"\""#.repeat(quotes));
    assert_eq!(keeps.fits(escaped(MAX_FIELD_BYTES).as_bytes()), Ok(()), "escapes are no part of the field");
    assert!(keeps.fits(escaped(MAX_FIELD_BYTES + 1).as_bytes()).is_err());
    let text = |length: usize| format!(r#"{{"long":"{}"}}"#, "x".repeat(length));
    assert_eq!(keeps.fits(text(MAX_FIELD_BYTES).as_bytes()), Ok(()), "nor are quotes");
    let sends = output(with("oversized", json!("send"))).unwrap();
    assert_eq!(sends.fits(frame(MAX_FIELD_BYTES + 1).as_bytes()), Ok(()));
}

#[test]
fn every_status_has_its_verdict() {
    let coded = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
    for (status, body, expected) in [
        (204, String::new(), "accepted"),
        (400, coded("InvalidPayload"), "rejected"),
        (400, coded("InvalidStream"), "hold misconfigured"),
        (400, coded("InvalidDcrImmutableId"), "hold misconfigured"),
        (400, "<html>".to_owned(), "hold misconfigured"),
        (401, coded("AuthenticationFailed"), "hold credentials"),
        (403, coded("OperationFailed"), "hold credentials"),
        (404, coded("NotFound"), "hold not_found"),
        (408, String::new(), "retry true"),
        (413, coded("ContentLengthLimitExceeded"), "too_large"),
        (415, String::new(), "hold misconfigured"),
        (429, String::new(), "retry false"),
        (500, String::new(), "retry true"),
        (502, String::new(), "retry true"),
        (503, String::new(), "retry false"),
        (504, String::new(), "retry true"),
    ] {
        let answer = Answer {
            status,
            retry_after: None,
            body: body.clone().into(),
            cut: false,
            cookies: String::new(),
        };
        let verdict = match of_answer(&answer) {
            Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
            Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
            other => other.label().to_owned(),
        };
        assert_eq!(verdict, expected, "{status} {body}");
    }
}

#[test]
fn tokens_are_those_of_the_cloud_that_the_endpoint_is_in() {
    for (url, expected) in [
        ("https://a.westeurope-1.ingest.monitor.azure.com", "https://monitor.azure.com/.default"),
        ("https://a.usgovvirginia-1.ingest.monitor.azure.us", "https://monitor.azure.us/.default"),
        ("https://a.chinanorth3-1.ingest.monitor.azure.cn", "https://monitor.azure.cn/.default"),
        ("http://127.0.0.1:8080/us", "https://monitor.azure.com/.default"),
    ] {
        assert_eq!(scope(url), expected, "{url}");
    }
}

#[test]
fn a_wrong_configuration_names_its_key_and_never_the_secret() {
    for (table, key) in [
        (with("url", json!("acme")), "url: "),
        (with("rule_id", json!("0123")), "rule_id: "),
        (with("rule_id", json!("dcr-1/x")), "rule_id: "),
        (with("stream", json!("")), "stream: "),
        (with("azure", json!({"client_id": "c", "client_secret": "hunter2"})), "azure.tenant_id: "),
        (with("azure", json!({"nothing": 1})), "azure.nothing: "),
    ] {
        let error = output(table).err().unwrap().to_string();
        assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
    }
}
