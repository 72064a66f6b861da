//! Grafana Loki, by its push API.
//!
//! | what Loki does | what follows here |
//! |---|---|
//! | of several streams in a request, it tells what it refused of the last one only, and answers 204 if that is nothing | a request holds one stream: each set of labels is a lane of its own |
//! | equal time, line and metadata are one entry | a line holds the event's id: a quick resend makes no second entry |
//! | entries far behind their stream's newest are refused | they become dead letters: nothing waits for them |
//!
//! That was seen with Loki 3.7. Several streams in a request were built first, and lost entries in silence.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::streams::Streams;
use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Answer, Client, Shown, base_url, header};
use crate::json::object::Object;
use crate::json::{self, write_number};
use crate::output::{BatchMost, HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::{Rotating, Secret};
use crate::template::Template;

mod streams;
mod verdict;

/// Grafana Loki.
pub const KIND: OutputKind = OutputKind {
    name: "loki",
    about: "Grafana Loki",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip],
        // Its rate limit allows bursts of 6 MB at most.
        max_bytes: 1_000_000,
        max_events: 1_000,
        most: Some(BatchMost {
            bytes: 6_000_000,
            events: None,
            why: "Loki's default rate limit never lets more pass at once",
        }),
        max_age: Duration::from_secs(1),
        // Its rate limit is 4 MB a second unless it was raised.
        in_flight: 4,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Well below what load balancers keep idle connections for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// `type = "loki"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of Loki without its path, as `https://loki.example:3100`; `/loki/api/v1/push` is added.
    url: String,
    /// Labels of the streams: 1 to 15 names with templates. Each set of values is a stream and has requests of its own, so
    /// they must be few: `{event_id}` and `{object}` are refused here, and events of more than 200 sets share one whose
    /// places say `unknown`. A value is cut to the 2,048 bytes that Loki takes.
    #[serde(default = "default_labels")]
    labels: BTreeMap<String, Template>,
    /// Adds `event_id`, `workspace_id`, `service` and `action` as structured metadata, to be searched by like labels; what
    /// is a label already is left out. Needs Loki 3, or 2.9 with `allow_structured_metadata`.
    #[serde(default = "default_structured_metadata")]
    structured_metadata: bool,
    /// Tenant (`X-Scope-OrgID`). Default: none, for a Loki without tenants or behind a gateway that sets it.
    #[serde(default)]
    tenant: Option<String>,
    /// User of basic authentication; at Grafana Cloud the number of the instance. Goes with `password`.
    #[serde(default)]
    username: Option<String>,
    /// Password of `username`, or access token at Grafana Cloud. Read again when its file changes.
    #[serde(default)]
    password: Option<Secret>,
    /// Token for `Authorization: Bearer`, in place of `username` and `password`. Default: none of the three.
    #[serde(default)]
    bearer_token: Option<Secret>,
}

fn default_labels() -> BTreeMap<String, Template> {
    let label = |name: &str, template| (name.to_owned(), Template::parse(template).unwrap_or_default());
    BTreeMap::from([label("job", "databricks-audit"), label("workspace_id", "{workspace_id}")])
}

fn default_structured_metadata() -> bool {
    true
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(Loki::new(parse(table)?, context)?))
}

/// How requests authenticate.
enum Login {
    Anonymous,
    Basic(String, Rotating),
    Bearer(Rotating),
}

impl Login {
    fn of(config: &Config) -> Result<Self, BuildError> {
        match (&config.username, &config.password, &config.bearer_token) {
            (None, None, None) => Ok(Self::Anonymous),
            (Some(user), Some(password), None) => {
                Ok(Self::Basic(user.clone(), Rotating::new(password.clone())))
            }
            (None, None, Some(token)) => Ok(Self::Bearer(Rotating::new(token.clone()))),
            (Some(_), None, None) => Err(BuildError::new("password", "is missing: username needs it")),
            (None, Some(_), None) => Err(BuildError::new("username", "is missing: password needs it")),
            _ => Err(BuildError::new("", "keep one of username with password, and bearer_token")),
        }
    }

    /// The header, the secret in it, and how that is written there.
    fn header(&self) -> Result<Option<(HeaderValue, Shown<'_>, String)>, BuildError> {
        let (key, secret) = match self {
            Self::Anonymous => return Ok(None),
            Self::Basic(_, secret) => ("password", secret),
            Self::Bearer(secret) => ("bearer_token", secret),
        };
        let text = secret.reveal().map_err(|error| BuildError::new(key, error))?;
        let (scheme, credentials) = match self {
            Self::Basic(user, _) => ("Basic", BASE64_STANDARD.encode(format!("{user}:{text}"))),
            Self::Bearer(_) | Self::Anonymous => ("Bearer", text.clone()),
        };
        let (_, value) = header(key, "authorization", &format!("{scheme} {credentials}"), true)?;
        Ok(Some((value, (secret, text), credentials)))
    }
}

struct Loki {
    url: String,
    streams: Streams,
    structured_metadata: bool,
    headers: HeaderMap,
    login: Login,
    client: Client,
}

impl Loki {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let url = base_url("url", &config.url, false)?;
        if let Some(path) = url.find("/loki/api/") {
            let base = url.get(..path).unwrap_or_default();
            return Err(BuildError::new("url", format!("the path is added here: write {base}")));
        }
        let login = Login::of(&config)?;
        login.header()?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(tenant) = &config.tenant {
            headers.extend([header("tenant", "x-scope-orgid", tenant, false)?]);
        }
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        Ok(Self {
            url: format!("{url}/loki/api/v1/push"),
            streams: Streams::new(config.labels)?,
            structured_metadata: config.structured_metadata,
            headers,
            login,
            client: Client::new(&http)?,
        })
    }

    /// Makes a request and says what its answer means.
    async fn judged(&self, request: &Request, judge: impl Fn(&Answer, usize) -> Verdict) -> Verdict {
        let mut headers = self.headers.clone();
        let (mut shown, mut credentials) = (None, String::new());
        match self.login.header() {
            Ok(None) => {}
            Ok(Some((value, secret, written))) => {
                headers.insert(AUTHORIZATION, value);
                (shown, credentials) = (Some(secret), written);
            }
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        }
        let verdict = match self.client.send(Method::POST, &self.url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => judge(&answer, request.events),
        };
        let mut secrets = vec![credentials.as_str()];
        secrets.extend(shown.iter().map(|(_, text)| text.as_str()));
        verdict.rotated(shown.as_slice()).redacted(&secrets)
    }
}

#[async_trait]
impl Output for Loki {
    fn framing(&self) -> Framing {
        Framing { open: b"[", terminator: b",", close: b"]}]}", keep_last: false }
    }

    fn lane(&self, event: &AuditEvent<'_>) -> u32 {
        self.streams.lane(event)
    }

    fn envelope(&self, lane: u32, _frames_bytes: usize) -> Vec<u8> {
        let mut envelope = b"{\"streams\":[{\"stream\":".to_vec();
        envelope.extend_from_slice(&self.streams.labels(lane));
        envelope.extend_from_slice(b",\"values\":");
        envelope
    }

    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        frame.extend_from_slice(b"[\"");
        // Nanoseconds. An event without a time gets one that Loki refuses, unless it is told to take old entries.
        let millis = event.event_time.and_then(|time| u64::try_from(time.get()).ok());
        write_number(millis.unwrap_or_default().saturating_mul(1_000_000), frame);
        frame.extend_from_slice(b"\",");
        let line = frame.len();
        format.encode(event, frame);
        json::quote_from(line, frame);
        if self.structured_metadata {
            frame.push(b',');
            // Not `service_name`: Loki gives every stream a label of that name, which would hide it.
            let values = [
                ("event_id", &event.event_id),
                ("workspace_id", &event.workspace_id),
                ("service", &event.service_name),
                ("action", &event.action_name),
            ];
            Object::write(frame, |metadata| {
                for (name, value) in values {
                    metadata.text(name, value.as_ref().filter(|_| !self.streams.has_label(name)));
                }
            });
        }
        frame.push(b']');
    }

    async fn send(&self, request: &Request) -> Verdict {
        self.judged(request, verdict::of_answer).await
    }

    /// A push without streams stores nothing. Loki looks at the login first, and then either takes it or says, with a 422,
    /// that a stream is missing.
    async fn probe(&self) -> Probe {
        let judge = |answer: &Answer, entries| match verdict::of_answer(answer, entries) {
            Verdict::Rejected(_) | Verdict::Partial { .. } => Verdict::Accepted { slow_down: false },
            verdict => verdict,
        };
        let ready = "it answers and does not refuse the login; which entries it keeps, only events show";
        self.judged(&Request::question(br#"{"streams":[]}"#), judge).await.into_probe(ready)
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
    use crate::time::Millis;

    struct Fixed;

    impl Format for Fixed {
        fn encode(&self, _: &AuditEvent<'_>, out: &mut Vec<u8>) {
            out.extend_from_slice(br#"{"a":"\""}"#);
        }
    }

    fn output(table: Value) -> Result<Loki, BuildError> {
        let context = OutputContext {
            name: "loki".into(),
            format: FormatName::Canonical,
            http: HttpSettings::default(),
        };
        Loki::new(parse(table)?, context)
    }

    fn frame(table: Value, event: &AuditEvent<'_>) -> String {
        let mut frame = Vec::new();
        output(table).unwrap().encode(event, &Fixed, &mut frame);
        String::from_utf8(frame).unwrap()
    }

    #[test]
    fn an_event_is_a_line_with_what_tells_it_apart_beside_it() {
        let event = AuditEvent {
            event_time: Millis::new(1_767_609_296_007),
            workspace_id: Some(Text::from_plain("7")),
            event_id: Some(Text::from_plain("e\"1")),
            service_name: Some(Text::from_plain("accounts")),
            ..AuditEvent::default()
        };
        let entry = r#"["1767609296007000000","{\"a\":\"\\\"\"}""#;
        let metadata = r#",{"event_id":"e\"1","service":"accounts"}"#;
        assert_eq!(frame(json!({"url": "http://l"}), &event), format!("{entry}{metadata}]"));
        let table = json!({"url": "http://l", "labels": {"job": "x"}});
        let metadata = r#",{"event_id":"e\"1","workspace_id":"7","service":"accounts"}"#;
        assert_eq!(frame(table, &event), format!("{entry}{metadata}]"));
        let table = json!({"url": "http://l", "structured_metadata": false});
        assert_eq!(frame(table, &event), format!("{entry}]"));
        assert_eq!(
            frame(json!({"url": "http://l"}), &AuditEvent::default()),
            r#"["0","{\"a\":\"\\\"\"}",{}]"#
        );
    }

    #[test]
    fn a_request_holds_one_stream_and_another_workspace_travels_apart() {
        let output = output(json!({"url": "http://l"})).unwrap();
        let of = |workspace: &str| AuditEvent {
            workspace_id: Some(Text::from_plain(workspace)),
            ..AuditEvent::default()
        };
        let lanes = ["7", "8", "7"].map(|workspace| output.lane(&of(workspace)));
        assert!(lanes[0] == lanes[2] && lanes[0] != lanes[1], "{lanes:?}");
        assert_eq!(
            String::from_utf8(output.envelope(lanes[1], 0)).unwrap(),
            r#"{"streams":[{"stream":{"job":"databricks-audit","workspace_id":"8"},"values":"#
        );
    }

    #[test]
    fn each_way_to_log_in_makes_its_header() {
        for (table, expected) in [
            (json!({"url": "http://l"}), None),
            (json!({"url": "http://l", "username": "u", "password": "p"}), Some("Basic dTpw")),
            (json!({"url": "http://l", "bearer_token": "b"}), Some("Bearer b")),
        ] {
            let value = output(table).unwrap().login.header().unwrap().map(|(value, ..)| value);
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap()), expected);
            assert!(value.is_none_or(|value| value.is_sensitive()));
        }
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_no_secret() {
        let labels: BTreeMap<_, _> = (0..16).map(|number| (format!("l{number}"), "v")).collect();
        for (table, key) in [
            (json!({"url": "loki:3100"}), "url: "),
            (json!({"url": "http://l/loki/api/v1/push"}), "url: "),
            (json!({"url": "http://l", "labels": {}}), "labels: "),
            (json!({"url": "http://l", "labels": labels}), "labels: "),
            (json!({"url": "http://l", "labels": {"a-b": "x"}}), "labels.a-b: "),
            (json!({"url": "http://l", "labels": {"1a": "x"}}), "labels.1a: "),
            (json!({"url": "http://l", "labels": {"a": ""}}), "labels.a: "),
            (json!({"url": "http://l", "labels": {"a": "x".repeat(2049)}}), "labels.a: "),
            (json!({"url": "http://l", "labels": {"a": "{event_id}"}}), "labels.a: "),
            (json!({"url": "http://l", "labels": {"a": "x{object}"}}), "labels.a: "),
            (json!({"url": "http://l", "tenant": "a\nb"}), "tenant: "),
            (json!({"url": "http://l", "username": "u"}), "password: "),
            (json!({"url": "http://l", "password": "hunter2"}), "username: "),
            (json!({"url": "http://l", "username": "u", "bearer_token": "hunter2"}), "keep one of "),
            (json!({"url": "http://l", "bearer_token": "hunter2\n"}), "bearer_token: "),
        ] {
            let error = output(table).err().unwrap().to_string();
            assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
        }
    }
}
