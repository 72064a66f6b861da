//! Elasticsearch and OpenSearch by `_bulk`.
//!
//! Every document is *created* under its event's id. Sending it again is answered with 409 and changes nothing, which
//! makes delivery exactly once and every retry harmless. `create` is also the one operation data streams take.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::endpoints::Addresses;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::Answer;
use crate::json::{self, edit};
use crate::output::{HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::Secret;
use crate::template::Template;
use crate::time::{Date, Millis};

mod cluster;
mod login;
pub mod setup;
#[cfg(feature = "aws")]
mod sigv4;
mod verdict;

use cluster::{Cluster, Exchange};
use login::NoLogin;

/// Elasticsearch and OpenSearch.
pub const KIND: OutputKind = OutputKind {
    name: "elastic",
    about: "Elasticsearch or OpenSearch, an index or a data stream; exactly once",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip],
        max_bytes: 2_000_000,
        max_events: 5_000,
        most: None,
        max_age: Duration::from_secs(1),
        in_flight: 32,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Only what a verdict needs: the whole answer is as long as the request. Items come in the order of the actions.
const BULK: &str = "/_bulk?filter_path=errors,items.*.status,items.*.failure_store,items.*.error.type,\
                    items.*.error.reason,items.*.error.caused_by.reason";
/// Longest `_id` the server takes, in bytes; a longer one would fail the whole request.
const MAX_ID_BYTES: usize = 512;
/// Bytes that an index name must not contain.
const FORBIDDEN: &[u8] = b"\\/*?\"<>| ,#:";

/// `type = "elastic"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the cluster, as `https://es.example:9200`, or a list of its nodes' addresses, which take turns; one that
    /// fails is left out for a while. A path before `/_bulk` is kept.
    url: Addresses,
    /// Index or data stream; a template in lower case. What an event puts in is lower-cased, and characters that an
    /// index name cannot have become `_`. Name a data stream without a date.
    #[serde(default = "default_index")]
    index: Template,
    /// API key: the base64 text that Elasticsearch shows, or `id:key`. Excludes `username` and `bearer_token`. Its file is
    /// read for each request; while the cluster does not know a new key yet, the one before it is used.
    #[serde(default)]
    api_key: Option<Secret>,
    /// User of basic authentication. Goes with `password`.
    #[serde(default)]
    username: Option<String>,
    /// Password of `username`; read again and rotated like `api_key`.
    #[serde(default)]
    password: Option<Secret>,
    /// Token for `Authorization: Bearer`; read again and rotated like `api_key`. Default: none of these, for a cluster without security.
    #[serde(default)]
    bearer_token: Option<Secret>,
    /// Signs requests for Amazon OpenSearch, in place of the keys above; `aws = {}` with the credentials of this machine.
    #[serde(default)]
    aws: Option<AwsSettings>,
}

/// Amazon OpenSearch Service and Serverless. Without keys, the credentials are found as the AWS tools find them:
/// environment, profile files, SSO, web identity, container and instance metadata.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct AwsSettings {
    /// `es` or, for a serverless collection, `aoss`. Default: what `url` names, else `es`. A collection must be of the
    /// type search: others take no ids, and an event that is sent again would be stored again.
    service: Option<AwsService>,
    /// Region of the cluster. Default: what `url` names, else that of the environment, the profile or the instance.
    region: Option<String>,
    /// Profile of the AWS configuration files. Default: `AWS_PROFILE`, or `default`.
    profile: Option<String>,
    /// Access key, if not found the usual way.
    access_key_id: Option<Secret>,
    /// Secret of the access key.
    secret_access_key: Option<Secret>,
    /// Session token of temporary keys.
    session_token: Option<Secret>,
    /// Role to assume with the credentials found or given: `arn:aws:iam::123456789012:role/name`.
    role_arn: Option<String>,
    /// External id that the role's trust policy asks for.
    external_id: Option<String>,
    /// Name of the session in CloudTrail. Default: `auditferry`.
    role_session_name: Option<String>,
}

/// Which of Amazon's two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AwsService {
    /// OpenSearch Service: clusters
    Es,
    /// OpenSearch Serverless: collections
    Aoss,
}

#[cfg(feature = "aws")]
impl AwsService {
    /// As the signature names it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Es => "es",
            Self::Aoss => "aoss",
        }
    }
}

#[cfg(feature = "aws")]
impl AwsSettings {
    fn login(&self) -> crate::aws::AwsLogin {
        crate::aws::AwsLogin {
            table: "aws",
            profile: self.profile.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: self.session_token.clone(),
            role_arn: self.role_arn.clone(),
            external_id: self.external_id.clone(),
            role_session_name: self.role_session_name.clone(),
        }
    }
}

fn default_index() -> Template {
    Template::parse("databricks-audit-{event_date}").unwrap_or_default()
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(Elastic::new(parse(table)?, context)?))
}

struct Elastic {
    cluster: Cluster,
    index: Template,
    /// The format writes an `@timestamp` of its own, where the event has a time.
    dated_format: bool,
}

impl Elastic {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        check_index(config.index.as_str())?;
        Ok(Self {
            cluster: Cluster::new(&config, context.http)?,
            index: config.index,
            dated_format: context.format == FormatName::Ecs,
        })
    }

    /// The `@timestamp` that the format does not write. A data stream takes no document without one: an event whose time
    /// cannot be read goes to 1970, where it is found and taken for no other, and its `event_time` stays empty.
    fn missing_timestamp(&self, event: &AuditEvent<'_>) -> Option<Millis> {
        match event.event_time {
            Some(_) if self.dated_format => None,
            time => Some(time.unwrap_or(Date::EPOCH.start())),
        }
    }

    /// Appends the index's name for the event, without quotes.
    fn write_index(&self, event: &AuditEvent<'_>, frame: &mut Vec<u8>) {
        let start = frame.len();
        self.index.write_escaped(event, frame);
        for byte in frame.get_mut(start..).unwrap_or_default() {
            *byte = if FORBIDDEN.contains(byte) { b'_' } else { byte.to_ascii_lowercase() };
        }
    }
}

/// Checks the part of the index's name that no event fills.
fn check_index(template: &str) -> Result<(), BuildError> {
    let mut fixed = String::new();
    let mut inside = false;
    for character in template.chars() {
        match character {
            '{' => inside = true,
            '}' => inside = false,
            _ if !inside => fixed.push(character),
            _ => {}
        }
    }
    if fixed.chars().any(char::is_uppercase) {
        return Err(BuildError::new("index", format!("`{template}` must be in lower case")));
    }
    if let Some(bad) = fixed.bytes().find(|byte| FORBIDDEN.contains(byte)) {
        return Err(BuildError::new(
            "index",
            format!("`{template}` contains `{}`, which no index name can", char::from(bad)),
        ));
    }
    if template.is_empty() || template.starts_with(['-', '_', '+', '.']) {
        return Err(BuildError::new(
            "index",
            format!("`{template}` must begin with a letter, a digit or a place"),
        ));
    }
    Ok(())
}

impl Elastic {
    /// Makes a request and says what its answer means.
    async fn judged(&self, request: &Request, judge: impl Fn(&Answer, usize) -> Verdict) -> Verdict {
        let called = self.cluster.call(Method::POST, BULK, "application/x-ndjson", request).await;
        let Exchange { answer, secrets } = match called {
            Ok(exchange) => exchange,
            Err(NoLogin::Refused(said)) => return Verdict::hold(HoldReason::Credentials, said),
            Err(NoLogin::Unreachable(said)) => return Verdict::retry(said, None),
        };
        let verdict = match answer {
            Err(failure) => failure.into(),
            Ok(answer) => judge(&answer, request.events),
        };
        let verdict = self.cluster.rotated(verdict, &secrets);
        verdict.redacted(&secrets.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[async_trait]
impl Output for Elastic {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    fn any_order(&self) -> bool {
        true
    }

    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        frame.extend_from_slice(b"{\"create\":{\"_index\":\"");
        self.write_index(event, frame);
        frame.push(b'"');
        write_id(event, frame);
        frame.extend_from_slice(b"}}\n");
        let document = frame.len();
        if let Some(time) = self.missing_timestamp(event) {
            frame.extend_from_slice(b"{\"@timestamp\":\"");
            time.write_rfc3339(frame);
            frame.push(b'"');
            let rest = frame.len();
            format.encode(event, frame);
            edit::join_objects(document, rest, frame);
        } else {
            format.encode(event, frame);
        }
        // The server keeps this name for itself and refuses any document that has it.
        edit::rename_member("\"_source\"", "\"extras\"", document, frame);
    }

    async fn send(&self, request: &Request) -> Verdict {
        self.judged(request, verdict::of_answer).await
    }

    /// A body without actions does nothing, and is refused only after the login was looked at.
    async fn probe(&self) -> Probe {
        let nothing = Request::question(b"");
        let judge = |answer: &Answer, events| match answer.status {
            400 if serde_json::from_slice::<IgnoredAny>(&answer.body).is_ok() => {
                Verdict::Accepted { slow_down: false }
            }
            _ => verdict::of_answer(answer, events),
        };
        let ready = "it answers and knows the login; whether that may write to the index, only events show";
        self.judged(&nothing, judge).await.into_probe(ready)
    }
}

/// Appends `,"_id":…`. A longer id than the server takes goes as its digest: as good, since nobody else makes ids here.
fn write_id(event: &AuditEvent<'_>, frame: &mut Vec<u8>) {
    let Some(id) = event.event_id.as_ref().filter(|id| !id.is_empty()) else { return };
    frame.extend_from_slice(b",\"_id\":");
    if id.escaped().len() <= MAX_ID_BYTES {
        frame.extend_from_slice(id.quoted().as_bytes());
    } else {
        let digest = Bytes::copy_from_slice(&Sha256::digest(id.escaped()));
        json::write_quoted(&format!("{digest:x}"), frame);
    }
}

/// The verdict on an answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub fn judge(answer: &Answer, request: &Request) -> Verdict {
    verdict::of_answer(answer, request.events)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::HttpSettings;
    use crate::json::Text;

    struct Fixed(&'static str);

    impl Format for Fixed {
        fn encode(&self, _: &AuditEvent<'_>, out: &mut Vec<u8>) {
            out.extend_from_slice(self.0.as_bytes());
        }
    }

    fn output(table: Value, format: FormatName) -> Result<Elastic, BuildError> {
        let context = OutputContext { name: "elastic".into(), format, http: HttpSettings::default() };
        Elastic::new(parse(table)?, context)
    }

    fn event() -> AuditEvent<'static> {
        AuditEvent {
            event_time: Millis::new(1_767_609_296_007),
            event_id: Some(Text::from_plain("e\"1")),
            service_name: Some(Text::from_plain("unity/Catalog")),
            ..AuditEvent::default()
        }
    }

    fn frame(table: Value, format: FormatName, document: &'static str, event: &AuditEvent<'_>) -> String {
        let mut frame = Vec::new();
        output(table, format).unwrap().encode(event, &Fixed(document), &mut frame);
        String::from_utf8(frame).unwrap()
    }

    #[test]
    fn a_document_is_created_under_its_events_id_with_a_timestamp() {
        let url = json!({"url": "https://es:9200"});
        let action = r#"{"create":{"_index":"databricks-audit-2026-01-05","_id":"e\"1"}}"#;
        for (format, document, expected) in [
            (FormatName::Canonical, r#"{"a":1}"#, r#"{"@timestamp":"2026-01-05T10:34:56.007Z","a":1}"#),
            (FormatName::Raw, r#"{ }"#, r#"{"@timestamp":"2026-01-05T10:34:56.007Z"  }"#),
            (FormatName::Raw, r#" {"a":1}"#, r#"{"@timestamp":"2026-01-05T10:34:56.007Z" ,"a":1}"#),
            (FormatName::Raw, "7", "7"),
            (FormatName::Ecs, r#"{"@timestamp":"x"}"#, r#"{"@timestamp":"x"}"#),
        ] {
            assert_eq!(frame(url.clone(), format, document, &event()), format!("{action}\n{expected}"));
        }
    }

    #[test]
    fn an_event_without_a_time_is_dated_1970_since_a_data_stream_wants_a_date() {
        for format in [FormatName::Canonical, FormatName::Ecs] {
            let nothing = frame(json!({"url": "https://es"}), format, r#"{"a":1}"#, &AuditEvent::default());
            let (action, document) = nothing.split_once('\n').unwrap();
            assert_eq!(action, r#"{"create":{"_index":"databricks-audit-unknown"}}"#);
            assert_eq!(document, r#"{"@timestamp":"1970-01-01T00:00:00.000Z","a":1}"#);
        }
    }

    #[test]
    fn what_an_event_puts_into_the_index_is_made_fit() {
        let table = json!({"url": "https://es:9200", "index": "audit-{service_name}"});
        let text = frame(table, FormatName::Ecs, "{}", &event());
        assert!(text.starts_with(r#"{"create":{"_index":"audit-unity_catalog","#), "{text}");
    }

    #[test]
    fn the_reserved_name_source_is_renamed_at_the_top_and_nowhere_else() {
        let document = r#"{"request_params":{"_source":"x"},"t":"\"_source\":","_source":{"_source":1}}"#;
        let renamed = r#"{"request_params":{"_source":"x"},"t":"\"_source\":","extras":{"_source":1}}"#;
        let text = frame(json!({"url": "https://es"}), FormatName::Ecs, document, &event());
        assert_eq!(text.lines().last(), Some(renamed));
    }

    #[test]
    fn an_id_that_is_too_long_goes_as_its_digest() {
        let id = |length: usize| {
            let event = AuditEvent { event_id: Some(Text::from_plain(&"x".repeat(length))), ..event() };
            let text = frame(json!({"url": "https://es"}), FormatName::Ecs, "{}", &event);
            let action: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            action["create"]["_id"].as_str().unwrap().len()
        };
        assert_eq!((id(512), id(513)), (512, 64));
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_never_a_secret() {
        for (table, key) in [
            (json!({"url": "es:9200"}), "url: "),
            (json!({"url": "https://es", "index": "Audit"}), "index: "),
            (json!({"url": "https://es", "index": "a b"}), "index: "),
            (json!({"url": "https://es", "index": "_a"}), "index: "),
            (json!({"url": "https://es", "username": "u"}), "password: "),
            (json!({"url": "https://es", "password": "hunter2"}), "username: "),
            (json!({"url": "https://es", "api_key": "hunter2", "bearer_token": "b"}), "keep one of "),
            (json!({"url": "https://es", "bearer_token": "hunter2\n"}), "bearer_token: "),
            (json!({"url": "https://es", "bearer_token": "hunter2", "aws": {}}), "aws: keep one of "),
            (json!({"url": "https://es", "aws": {"secret_access_key": "hunter2"}}), "aws.access_key_id: "),
        ] {
            let error = output(table, FormatName::Ecs).err().unwrap().to_string();
            assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
        }
    }
}
