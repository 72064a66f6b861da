use serde_json::json;

use super::*;
use crate::http::HttpSettings;
use crate::json::Text;

struct Fixed;

impl Format for Fixed {
    fn encode(&self, _: &AuditEvent<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"a":1}"#);
    }
}

/// A key as Google gives it.
fn key(id: &str) -> String {
    let pem = include_str!("../../azure_identity/test_certificate.pem");
    let private = pem.find("-----BEGIN PRIVATE KEY-----").unwrap();
    json!({
        "type": "service_account", "private_key": &pem[private..], "private_key_id": id,
        "client_email": "ferry@acme.iam.gserviceaccount.com"
    })
    .to_string()
}

fn table() -> Value {
    json!({
        "project": "acme", "location": "europe-west2", "instance": "1f2e-3d", "log_type": "DATABRICKS",
        "service_account_key": key("k1")
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut table = table();
    table[key] = value;
    table
}

fn output(table: Value) -> Result<GoogleSecOps, BuildError> {
    let context =
        OutputContext { name: "secops".into(), format: FormatName::Raw, http: HttpSettings::default() };
    GoogleSecOps::new(parse(table)?, context)
}

/// The body of a request with these events.
fn body(output: &GoogleSecOps, events: &[AuditEvent<'_>]) -> Value {
    let framing = output.framing();
    let mut body = output.envelope(0, 0);
    body.extend_from_slice(framing.open);
    for event in events {
        output.encode(event, &Fixed, &mut body);
        body.extend_from_slice(framing.terminator);
    }
    body.truncate(body.len() - framing.terminator.len());
    body.extend_from_slice(framing.close);
    serde_json::from_slice(&body).unwrap()
}

fn event() -> AuditEvent<'static> {
    AuditEvent {
        event_time: Millis::new(1_767_609_296_007),
        event_id: Some(Text::from_plain("e\"1")),
        workspace_id: Some(Text::from_plain("7")),
        ..AuditEvent::default()
    }
}

#[test]
fn a_request_holds_its_events_in_base64_under_their_times_and_labels() {
    let plain = body(&output(table()).unwrap(), &[event(), AuditEvent::default()]);
    let expected = json!({"inlineSource": {"logs": [
        {
            "logEntryTime": "2026-01-05T10:34:56.007Z", "collectionTime": "2026-01-05T10:34:56.008Z",
            "labels": {"event_id": {"value": "e\"1"}}, "data": "eyJhIjoxfQ=="
        },
        {
            "logEntryTime": "1970-01-01T00:00:00.000Z", "collectionTime": "1970-01-01T00:00:00.001Z",
            "data": "eyJhIjoxfQ=="
        }
    ]}});
    assert_eq!(plain, expected);
    let mut more = with("forwarder", json!("f-1"));
    more["namespace"] = json!("prod\"");
    more["labels"] = json!({"workspace": "{workspace_id}"});
    let more = body(&output(more).unwrap(), &[event()]);
    assert_eq!(
        more["inlineSource"]["forwarder"],
        "projects/acme/locations/europe-west2/instances/1f2e-3d/forwarders/f-1"
    );
    let log = &more["inlineSource"]["logs"][0];
    assert_eq!(log["environmentNamespace"], "prod\"");
    assert_eq!(log["labels"], json!({"event_id": {"value": "e\"1"}, "workspace": {"value": "7"}}));
}

#[test]
fn the_address_names_project_location_instance_and_log_type() {
    let path =
        "v1alpha/projects/acme/locations/europe-west2/instances/1f2e-3d/logTypes/DATABRICKS/logs:import";
    let url = |table| output(table).unwrap().url;
    assert_eq!(url(table()), format!("https://europe-west2-chronicle.googleapis.com/{path}"));
    assert_eq!(url(with("url", json!("http://c:1/"))), format!("http://c:1/{path}"));
}

#[test]
fn every_status_has_its_verdict() {
    let status_of = |status: &str, message: &str| {
        json!({"error": {"code": 0, "message": message, "status": status}}).to_string()
    };
    for (status, body, expected) in [
        (200, "{}".to_owned(), "accepted"),
        (400, status_of("INVALID_ARGUMENT", "bad log"), "rejected"),
        (
            400,
            status_of("INVALID_ARGUMENT", "Request payload size exceeds the limit: 4194304 bytes."),
            "too_large",
        ),
        (400, status_of("FAILED_PRECONDITION", "no such log type"), "hold misconfigured"),
        (400, "<html>".to_owned(), "hold misconfigured"),
        (401, status_of("UNAUTHENTICATED", ""), "hold credentials"),
        (403, status_of("PERMISSION_DENIED", ""), "hold credentials"),
        (404, status_of("NOT_FOUND", ""), "hold not_found"),
        (408, String::new(), "retry true"),
        (409, String::new(), "hold misconfigured"),
        (413, "<html>".to_owned(), "too_large"),
        (429, status_of("RESOURCE_EXHAUSTED", ""), "retry false"),
        (500, status_of("INTERNAL", ""), "retry true"),
        (502, String::new(), "retry true"),
        (503, status_of("UNAVAILABLE", ""), "retry false"),
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
fn what_google_refuses_is_told_by_its_status_however_much_it_says() {
    let refusal = |message: &str, status: &str| {
        let body = json!({"error": {"code": 400, "message": message, "status": status}}).to_string();
        let answer =
            Answer { status: 400, retry_after: None, body: body.into(), cut: false, cookies: String::new() };
        of_answer(&answer)
    };
    // The status comes last, behind a message of any length.
    let long = refusal(&"no such log type ".repeat(50), "FAILED_PRECONDITION");
    assert!(matches!(&long, Verdict::Hold(alarm) if alarm.reason == HoldReason::Misconfigured), "{long:?}");
    // An event that is repeated there says nothing of the settings, nor of the size.
    for quoted in ["FAILED_PRECONDITION", "payload size exceeds"] {
        let verdict = refusal(&format!("bad log: '{quoted}'"), "INVALID_ARGUMENT");
        assert_eq!(verdict.label(), "rejected", "{verdict:?}");
    }
}

#[test]
fn a_burst_is_given_its_five_minutes_unless_google_says_when() {
    for (said, expected) in [(None, 300), (Some(Duration::from_secs(7)), 7)] {
        let answer =
            Answer { status: 429, retry_after: said, body: "{}".into(), cut: false, cookies: String::new() };
        let Verdict::Retry { after, .. } = of_answer(&answer) else { panic!("429 is no retry") };
        assert_eq!(after, Some(Duration::from_secs(expected)));
    }
}

/// Header and claims of a token.
fn decoded(token: &str) -> [Value; 2] {
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { panic!("{token}") };
    assert!(signature.len() > 300, "{signature}");
    [*header, *claims].map(|part| {
        let text = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&text).unwrap()
    })
}

#[tokio::test]
async fn a_token_is_signed_by_the_key_and_made_anew_when_the_key_changes_or_was_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    std::fs::write(&file, key("k1")).unwrap();
    let tokens = Tokens::new(Some(Secret::file(&file))).unwrap();
    let first = tokens.get().await.unwrap();
    let [header, claims] = decoded(&first);
    assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &json!("k1")));
    assert_eq!(claims["iss"], "ferry@acme.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(tokens.get().await.unwrap(), first);
    std::fs::write(&file, key("another")).unwrap();
    assert_eq!(decoded(&tokens.get().await.unwrap())[0]["kid"], "another");
    tokens.forget();
    assert_eq!(decoded(&tokens.get().await.unwrap())[0]["kid"], "another");
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(tokens.get().await, Err(Verdict::Hold(_))));
}

#[test]
fn a_wrong_configuration_names_its_key_and_no_secret() {
    for (table, key) in [
        (with("project", json!("")), "project: "),
        (with("location", json!("eu/x")), "location: "),
        (with("instance", json!("projects/x")), "instance: "),
        (with("log_type", json!("a b")), "log_type: "),
        (with("forwarder", json!("a/b")), "forwarder: "),
        (with("url", json!("chronicle")), "url: "),
        (with("labels", json!({"event_id": "{event_id}"})), "labels.event_id: "),
        (with("service_account_key", json!("hunter2")), "service_account_key: "),
        (with("service_account_key", json!({"file": "/no/such"})), "service_account_key: "),
        (with("service_account_key", json!(r#"{"private_key":"hunter2"}"#)), "service_account_key: "),
    ] {
        let error = output(table).err().unwrap().to_string();
        assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
    }
}
