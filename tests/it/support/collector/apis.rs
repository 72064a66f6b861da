//! How the collectors that are services speak: what they are sent, and what they answer.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use prost::Message;
use serde_json::{Value, json};

use super::{Event, Protocol, Received, Step};

/// The events of a body, each with what it was wrapped in.
pub(super) fn events(protocol: Protocol, request: &Received) -> Vec<Event> {
    match protocol {
        Protocol::Otlp => otlp(&request.bytes),
        _ => envelopes(protocol, &request.body).into_iter().map(|one| event(protocol, one)).collect(),
    }
}

fn envelopes(protocol: Protocol, body: &str) -> Vec<Value> {
    let mut body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {body}"));
    let list = match protocol {
        Protocol::Loki => {
            let streams = body["streams"].as_array().unwrap();
            assert_eq!(streams.len(), 1, "Loki would not tell what it refused of any but the last");
            body["streams"][0]["values"].take()
        }
        Protocol::SecOps => body["inlineSource"]["logs"].take(),
        _ => body,
    };
    list.as_array().unwrap().clone()
}

fn event(protocol: Protocol, envelope: Value) -> Event {
    let parsed = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
    let (id, document) = match protocol {
        Protocol::Datadog => (&envelope["event_id"], parsed(&envelope["message"])),
        Protocol::Loki => (&envelope[2]["event_id"], parsed(&envelope[1])),
        Protocol::SecOps => {
            let data = BASE64_STANDARD.decode(envelope["data"].as_str().unwrap()).unwrap();
            (&envelope["labels"]["event_id"]["value"], serde_json::from_slice(&data).unwrap())
        }
        _ => (&envelope["event_id"], envelope.clone()),
    };
    Event { id: id.as_str().unwrap().to_owned(), document, envelope }
}

fn otlp(body: &[u8]) -> Vec<Event> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?} is no text"),
    };
    let request = ExportLogsServiceRequest::decode(body).unwrap();
    let scopes = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
    scopes
        .flat_map(|logs| &logs.log_records)
        .map(|record| {
            let attributes: Value =
                record.attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect();
            Event {
                id: attributes["log.record.uid"].as_str().unwrap().to_owned(),
                document: serde_json::from_str(&text(&record.body)).unwrap(),
                envelope: attributes,
            }
        })
        .collect()
}

/// What comes before every event, for counting.
pub(crate) fn mark(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Datadog => "{\"ddsource\":",
        Protocol::Sentinel => "{\"TimeGenerated\":",
        Protocol::Otlp => "databricks.audit",
        Protocol::Loki => "{\"event_id\":",
        Protocol::SecOps => "{\"logEntryTime\":",
        Protocol::Hec | Protocol::Bulk | Protocol::Sumo | Protocol::Any => unreachable!("{protocol:?}"),
    }
}

/// The answer to a request whose events are all taken.
pub(super) fn success(protocol: Protocol) -> Step {
    match protocol {
        Protocol::Datadog => Step::answer(202, "{}"),
        Protocol::Sentinel | Protocol::Loki => Step::answer(204, ""),
        Protocol::SecOps => Step::answer(200, "{}"),
        _ => Step::answer(200, ""),
    }
}

/// The answer to a request with an event that is refused for its own sake.
pub(super) fn refusal(protocol: Protocol) -> Step {
    match protocol {
        Protocol::Datadog => Step::answer(400, json!({"errors": [{"detail": "bad entry"}]}).to_string()),
        Protocol::Sentinel => {
            Step::answer(400, json!({"error": {"code": "InvalidPayload", "message": "bad"}}).to_string())
        }
        Protocol::SecOps => {
            let error = json!({"code": 400, "message": "bad log", "status": "INVALID_ARGUMENT"});
            Step::answer(400, json!({ "error": error }).to_string())
        }
        _ => Step::answer(400, "refused"),
    }
}

/// What Loki says of the entries it did not keep.
pub(super) fn ignored(bad: usize, total: usize) -> Step {
    Step::answer(
        400,
        format!(
            "entry with timestamp 2026-01-05 10:34:56 +0000 UTC ignored, reason: 'entry too far behind',\n\
             user 'fake', total ignored: {bad} out of {total} for stream: {{job=\"databricks-audit\"}}"
        ),
    )
}

/// What Entra ID says to whoever asks for a token; its number tells how often it was asked before.
pub(super) fn token(number: usize) -> Step {
    Step::answer(200, json!({"access_token": format!("token-{number}"), "expires_in": 3600}).to_string())
}

/// A service account's key as Google gives it.
pub(crate) fn google_key() -> String {
    let pem = include_str!("../../../../src/azure_identity/test_certificate.pem");
    let private = pem.find("-----BEGIN PRIVATE KEY-----").unwrap();
    json!({
        "type": "service_account", "private_key": &pem[private..], "private_key_id": "k1",
        "client_email": "ferry@acme.iam.gserviceaccount.com"
    })
    .to_string()
}

/// The table of an output of this protocol at an address, without its name.
pub(crate) fn table(protocol: Protocol, url: &str) -> String {
    match protocol {
        Protocol::Datadog => format!("type = 'datadog'\nurl = '{url}'\napi_key = 'hunter2'\n"),
        Protocol::Sentinel => format!(
            "type = 'sentinel'\nurl = '{url}'\nrule_id = 'dcr-1'\nstream = 'Custom-DatabricksAudit'\n\
             azure = {{ tenant_id = 't', client_id = 'c', client_secret = 'hunter2', authority_host = '{url}' }}\n"
        ),
        Protocol::Otlp => format!("type = 'otlp'\nurl = '{url}'\nheaders = {{ api-key = 'hunter2' }}\n"),
        Protocol::Loki => format!("type = 'loki'\nurl = '{url}'\nbearer_token = 'hunter2'\n"),
        Protocol::SecOps => format!(
            "type = 'google_secops'\nurl = '{url}'\nproject = 'acme'\nlocation = 'us'\ninstance = '1f2e'\n\
             log_type = 'DATABRICKS'\nformat = 'canonical'\nservice_account_key = '''{}'''\n",
            google_key()
        ),
        Protocol::Hec | Protocol::Bulk | Protocol::Sumo | Protocol::Any => unreachable!("{protocol:?}"),
    }
}

/// The name of an output of this protocol.
pub(crate) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Datadog => "datadog",
        Protocol::Sentinel => "sentinel",
        Protocol::Otlp => "otlp",
        Protocol::Loki => "loki",
        Protocol::SecOps => "secops",
        Protocol::Hec | Protocol::Bulk | Protocol::Sumo | Protocol::Any => unreachable!("{protocol:?}"),
    }
}
