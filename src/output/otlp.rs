//! OpenTelemetry's protocol over HTTP, as protobuf: the OpenTelemetry Collector, and the many that speak its language.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Client, SecretHeaders, Shown, base_url, blots};
use crate::json::Text;
use crate::output::{BatchMost, HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::Secret;

mod proto;
mod verdict;

/// OTLP.
pub const KIND: OutputKind = OutputKind {
    name: "otlp",
    about: "The OpenTelemetry Collector, and whatever takes OTLP logs over HTTP",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip],
        // Servers should take 20 MiB; some that speak the protocol take 1 MB.
        max_bytes: 1_000_000,
        // A collector that refuses some does not say which: all of the batch become dead letters then.
        max_events: 1_000,
        most: Some(BatchMost { bytes: 20 << 20, events: None, why: "OTLP advises servers to take no more" }),
        max_age: Duration::from_secs(1),
        in_flight: 96,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Well below what servers and load balancers keep idle connections for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// `type = "otlp"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the receiver without its path, as `https://otel.example:4318`; `/v1/logs` is added.
    url: String,
    /// Headers by name, for instance a key. Values are secrets: a text, or `{ file = "…" }` and the like, read again
    /// when they change. Default: none.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// Attributes of the resource that the events come from.
    #[serde(default = "default_resource")]
    resource: BTreeMap<String, String>,
}

fn default_resource() -> BTreeMap<String, String> {
    BTreeMap::from([("service.name".to_owned(), "databricks".to_owned())])
}

/// Numbers of the fields, as `opentelemetry/proto` gives them.
mod number {
    pub(super) const REQUEST_RESOURCE_LOGS: u8 = 1;
    pub(super) const RESOURCE_LOGS_RESOURCE: u8 = 1;
    pub(super) const RESOURCE_LOGS_SCOPE_LOGS: u8 = 2;
    pub(super) const RESOURCE_ATTRIBUTES: u8 = 1;
    pub(super) const SCOPE_LOGS_SCOPE: u8 = 1;
    pub(super) const SCOPE_LOGS_LOG_RECORDS: u8 = 2;
    pub(super) const SCOPE_NAME: u8 = 1;
    pub(super) const SCOPE_VERSION: u8 = 2;
    pub(super) const RECORD_TIME_UNIX_NANO: u8 = 1;
    pub(super) const RECORD_BODY: u8 = 5;
    pub(super) const RECORD_ATTRIBUTES: u8 = 6;
    pub(super) const RECORD_EVENT_NAME: u8 = 12;
    pub(super) const KEY_VALUE_KEY: u8 = 1;
    pub(super) const KEY_VALUE_VALUE: u8 = 2;
    pub(super) const ANY_VALUE_STRING: u8 = 1;
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(Otlp::new(parse(table)?, context)?))
}

struct Otlp {
    url: String,
    headers: SecretHeaders,
    /// The fields before the records, as they are written in `ResourceLogs` and `ScopeLogs`.
    resource: Vec<u8>,
    scope: Vec<u8>,
    client: Client,
}

impl Otlp {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let url = base_url("url", &config.url, false)?;
        if let Some(base) = url.strip_suffix("/v1/logs") {
            return Err(BuildError::new("url", format!("the path is added here: write {base}")));
        }
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        let output = Self {
            url: format!("{url}/v1/logs"),
            headers: SecretHeaders::new(config.headers),
            resource: resource(&config.resource),
            scope: scope(),
            client: Client::new(&http)?,
        };
        output.headers()?;
        Ok(output)
    }

    /// The headers of a request, and the secrets in them.
    fn headers(&self) -> Result<(HeaderMap, Vec<Shown<'_>>), BuildError> {
        let (mut headers, shown) = self.headers.reveal()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok((headers, shown))
    }
}

fn resource(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    proto::write_message(number::RESOURCE_LOGS_RESOURCE, &mut out, |out| {
        for (key, value) in attributes {
            write_attribute(number::RESOURCE_ATTRIBUTES, key, value, out);
        }
    });
    out
}

fn scope() -> Vec<u8> {
    let mut out = Vec::new();
    proto::write_message(number::SCOPE_LOGS_SCOPE, &mut out, |out| {
        proto::write_bytes(number::SCOPE_NAME, env!("CARGO_PKG_NAME").as_bytes(), out);
        proto::write_bytes(number::SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes(), out);
    });
    out
}

fn write_attribute(field: u8, key: &str, value: &str, out: &mut Vec<u8>) {
    proto::write_message(field, out, |out| {
        proto::write_bytes(number::KEY_VALUE_KEY, key.as_bytes(), out);
        proto::write_message(number::KEY_VALUE_VALUE, out, |out| {
            proto::write_bytes(number::ANY_VALUE_STRING, value.as_bytes(), out);
        });
    });
}

#[async_trait]
impl Output for Otlp {
    /// Each frame is a field of the message that the envelope begins.
    fn framing(&self) -> Framing {
        Framing::CONCATENATED
    }

    fn any_order(&self) -> bool {
        true
    }

    fn envelope(&self, _lane: u32, frames_bytes: usize) -> Vec<u8> {
        let mut scope_logs = Vec::new();
        let length = self.scope.len() + frames_bytes;
        proto::write_head(number::RESOURCE_LOGS_SCOPE_LOGS, length, &mut scope_logs);
        scope_logs.extend_from_slice(&self.scope);
        let mut envelope = Vec::new();
        let length = self.resource.len() + scope_logs.len() + frames_bytes;
        proto::write_head(number::REQUEST_RESOURCE_LOGS, length, &mut envelope);
        envelope.extend_from_slice(&self.resource);
        envelope.extend_from_slice(&scope_logs);
        envelope
    }

    /// Records of the same `log.record.uid` are duplicates that may be removed: that is OpenTelemetry's convention.
    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        let attributes: [(&str, &Option<Text<'_>>); 5] = [
            ("log.record.uid", &event.event_id),
            ("databricks.account_id", &event.account_id),
            ("databricks.workspace_id", &event.workspace_id),
            ("databricks.service_name", &event.service_name),
            ("databricks.action_name", &event.action_name),
        ];
        proto::write_message(number::SCOPE_LOGS_LOG_RECORDS, frame, |frame| {
            if let Some(nanos) = event.event_time.and_then(|time| u64::try_from(time.get()).ok()) {
                proto::write_fixed64(number::RECORD_TIME_UNIX_NANO, nanos.saturating_mul(1_000_000), frame);
            }
            proto::write_message(number::RECORD_BODY, frame, |frame| {
                proto::write_message(number::ANY_VALUE_STRING, frame, |frame| format.encode(event, frame));
            });
            for (key, value) in attributes {
                if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                    write_attribute(number::RECORD_ATTRIBUTES, key, &value.plain(), frame);
                }
            }
            proto::write_bytes(number::RECORD_EVENT_NAME, b"databricks.audit", frame);
        });
    }

    async fn send(&self, request: &Request) -> Verdict {
        let (headers, shown) = match self.headers() {
            Ok(headers) => headers,
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        };
        let verdict = match self.client.send(Method::POST, &self.url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => {
                let verdict = verdict::of_answer(&answer, request.events);
                match (verdict, verdict::warning(&answer)) {
                    (Verdict::Accepted { .. }, warning) if !warning.is_empty() => {
                        Verdict::AcceptedWithRemark(warning)
                    }
                    (Verdict::Accepted { .. }, _) => Verdict::from_status(&answer),
                    (verdict, _) => verdict,
                }
            }
        };
        verdict.rotated(&shown).redacted(&blots(&shown))
    }

    /// An export without records is one that OTLP allows, and stores nothing.
    async fn probe(&self) -> Probe {
        let ready = "it takes exports; which records it keeps, only events show";
        self.send(&Request::question(b"")).await.into_probe(ready)
    }
}

/// The verdict on an answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub fn judge(answer: &crate::http::Answer, request: &Request) -> Verdict {
    verdict::of_answer(answer, request.events)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use prost::Message;
    use serde_json::json;

    use super::*;
    use crate::format::canonical::Canonical;
    use crate::http::HttpSettings;
    use crate::time::Millis;

    fn output(table: Value) -> Result<Otlp, BuildError> {
        let context = OutputContext {
            name: "otlp".into(),
            format: FormatName::Canonical,
            http: HttpSettings::default(),
        };
        Otlp::new(parse(table)?, context)
    }

    fn text(text: &str) -> AnyValue {
        AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
    }

    fn pairs(attributes: &[KeyValue]) -> Vec<(&str, AnyValue)> {
        attributes.iter().map(|pair| (pair.key.as_str(), pair.value.clone().unwrap())).collect()
    }

    /// The body of a request with these events, read by the types of the official definitions.
    fn read(output: &Otlp, events: &[AuditEvent<'_>]) -> ExportLogsServiceRequest {
        let mut frames = Vec::new();
        for event in events {
            output.encode(event, &Canonical, &mut frames);
        }
        let body = [output.envelope(0, frames.len()), frames].concat();
        let request = ExportLogsServiceRequest::decode(body.as_slice()).unwrap();
        assert_eq!(request.encode_to_vec(), body, "not one byte is written differently there");
        request
    }

    #[test]
    fn a_body_is_what_the_official_definitions_say() {
        let table = json!({"url": "http://o", "resource": {"service.name": "dbx", "deployment": "prod"}});
        let event = AuditEvent {
            event_time: Millis::new(1_767_609_296_007),
            event_id: Some(Text::from_plain("e\"1")),
            workspace_id: Some(Text::from_plain("7")),
            service_name: Some(Text::from_plain("ünity")),
            account_id: Some(Text::from_plain("")),
            raw: b"{}",
            ..AuditEvent::default()
        };
        let request = read(&output(table).unwrap(), &[event, AuditEvent::default()]);
        let [logs] = request.resource_logs.as_slice() else { panic!("{request:?}") };
        assert_eq!(
            pairs(&logs.resource.as_ref().unwrap().attributes),
            [("deployment", text("prod")), ("service.name", text("dbx"))]
        );
        let [logs] = logs.scope_logs.as_slice() else { panic!("{logs:?}") };
        assert_eq!(logs.scope.as_ref().unwrap().name, "auditferry");
        let [first, second] = logs.log_records.as_slice() else { panic!("{logs:?}") };
        assert_eq!((first.time_unix_nano, second.time_unix_nano), (1_767_609_296_007_000_000, 0));
        assert_eq!(
            pairs(&first.attributes),
            [
                ("log.record.uid", text("e\"1")),
                ("databricks.workspace_id", text("7")),
                ("databricks.service_name", text("ünity"))
            ]
        );
        assert_eq!(first.event_name, "databricks.audit");
        let Some(any_value::Value::StringValue(body)) = first.body.clone().unwrap().value else { panic!() };
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["event_id"], &body["workspace_id"]), (&json!("e\"1"), &json!("7")));
        assert_eq!(second.attributes, []);
    }

    #[test]
    fn lengths_hold_for_records_and_batches_of_any_size() {
        let output = output(json!({"url": "http://o"})).unwrap();
        for length in [0, 1, 100, 127, 128, 20_000, 3_000_000] {
            let id = Text::from_plain(&"x".repeat(length));
            let event = || AuditEvent { event_id: Some(id.clone()), ..AuditEvent::default() };
            let request = read(&output, &[event(), event()]);
            assert_eq!(request.resource_logs[0].scope_logs[0].log_records.len(), 2, "{length}");
        }
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_no_secret() {
        for (table, key) in [
            (json!({"url": "otel:4318"}), "url: "),
            (json!({"url": "http://otel:4318/v1/logs"}), "url: "),
            (json!({"url": "http://o", "headers": {"x y": "hunter2"}}), "headers.x y: "),
            (json!({"url": "http://o", "headers": {"api-key": "hunter2\n"}}), "headers.api-key: "),
            (json!({"url": "http://o", "resource": {"a": 1}}), "resource.a: "),
        ] {
            let error = output(table).err().unwrap().to_string();
            assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
        }
    }
}
