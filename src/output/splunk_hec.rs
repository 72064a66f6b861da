//! Splunk's HTTP Event Collector, and the collectors that speak its protocol (Cribl, LogScale, Vector, …).
//!
//! What an answer means is in `verdict`. An indexer acknowledgement is numbered per channel *and* per indexer, so
//! the cookies by which a load balancer finds the indexer again travel with the number and come back with the poll.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, parse};
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Answer, Client, base_url, header};
use crate::output::{AckId, HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::Secret;
use crate::template::Template;

mod verdict;

/// Splunk HEC.
pub const KIND: OutputKind = OutputKind {
    name: "splunk_hec",
    about: "Splunk's HTTP Event Collector, and what speaks its protocol",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip],
        max_bytes: 1_000_000,
        max_events: 5_000,
        max_age: Duration::from_secs(1),
        in_flight: 4,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Splunk closes a busy keep-alive connection after 12 s: ours is closed first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// `type = "splunk_hec"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the collector without its path, as `https://splunk.example:8088`; for Splunk Cloud on AWS
    /// `https://http-inputs-<stack>.splunkcloud.com`. `/services/collector/event` is added.
    url: String,
    /// The HEC token. Read again when its file changes, so that it can be rotated without a restart.
    token: Secret,
    /// Index, one of those the token allows. Default: the token's own. A template such as
    /// `databricks_{workspace_id}` is filled from each event.
    #[serde(default)]
    index: Option<Template>,
    /// Source type; a template.
    #[serde(default = "default_sourcetype")]
    sourcetype: Template,
    /// `source` of each event; a template. `{object}` is the key of the object the event was read from.
    #[serde(default = "default_source")]
    source: Template,
    /// `host` of each event; a template.
    #[serde(default = "default_host")]
    host: Template,
    /// Adds `workspace_id`, `service_name`, `action_name` and `event_id` as indexed fields, for fast `tstats`
    /// searches; false saves their index space. A value the event lacks is left out.
    #[serde(default = "default_fields")]
    fields: bool,
    /// Waits for indexer acknowledgement before an event counts as delivered. Needs a token with `useACK`; with any
    /// other token the answer 200 counts. Behind a load balancer, requests must be sticky by cookie.
    #[serde(default)]
    ack: bool,
}

fn default_sourcetype() -> Template {
    Template::parse("databricks:audit").unwrap_or_default()
}

fn default_source() -> Template {
    Template::parse("{object}").unwrap_or_default()
}

fn default_host() -> Template {
    Template::parse("{workspace_id}").unwrap_or_default()
}

fn default_fields() -> bool {
    true
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(SplunkHec::new(parse(table)?, context)?))
}

struct SplunkHec {
    config: Config,
    event_url: String,
    ack_url: String,
    channel: String,
    client: Client,
}

impl SplunkHec {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let url = base_url("url", &config.url, false)?;
        if let Some(path) = url.find("/services/collector") {
            let base = url.get(..path).unwrap_or_default();
            return Err(BuildError::new("url", format!("the path is added here: write {base}")));
        }
        if config.index.as_ref().is_some_and(|index| index.as_str().is_empty()) {
            return Err(BuildError::new("index", "is empty; leave it out for the token's own index"));
        }
        let token = config.token.reveal().map_err(|error| BuildError::new("token", error))?;
        authorization(&token)?;
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        Ok(Self {
            event_url: format!("{url}/services/collector/event"),
            ack_url: format!("{url}/services/collector/ack"),
            channel: new_channel(),
            client: Client::new(&http)?,
            config,
        })
    }

    /// The headers of a request, and the token that is in them.
    fn headers(&self) -> Result<(HeaderMap, String), Verdict> {
        let hold = |message: String| Verdict::hold(HoldReason::Credentials, format!("token: {message}"));
        let token = self.config.token.reveal().map_err(|error| hold(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization(&token).map_err(|error| hold(error.message))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(channel) = HeaderValue::from_str(&self.channel) {
            // Also without `ack`: a token with useACK refuses a request that names no channel.
            headers.insert("x-splunk-request-channel", channel);
        }
        Ok((headers, token))
    }

    /// Asks one indexer which of these numbers it has made safe.
    async fn poll(&self, cookies: &str, numbers: &[u64]) -> Option<Answer> {
        let (mut headers, _) = self.headers().ok()?;
        if !cookies.is_empty() {
            headers.insert(COOKIE, HeaderValue::from_str(cookies).ok()?);
        }
        let body = serde_json::json!({ "acks": numbers }).to_string();
        let uncompressed_bytes = body.len();
        let request =
            Request { body: Bytes::from(body), encoding: Encoding::None, events: 0, uncompressed_bytes };
        self.client.send(Method::POST, &self.ack_url, headers, &request).await.ok()
    }
}

fn authorization(token: &str) -> Result<HeaderValue, BuildError> {
    header("token", "authorization", &format!("Splunk {token}"), true).map(|(_, value)| value)
}

/// A random UUID: after a restart a new one is used, since the server numbers acknowledgements per channel.
fn new_channel() -> String {
    let random = fastrand::u128(..);
    let versioned = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{versioned:032x}");
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default()).join("-")
}

#[async_trait]
impl Output for SplunkHec {
    fn framing(&self) -> Framing {
        Framing::CONCATENATED
    }

    /// Only keys that HEC knows: for any other it answers 200 and drops the events after it.
    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        frame.push(b'{');
        if let Some(time) = event.event_time {
            frame.extend_from_slice(b"\"time\":");
            time.write_epoch_seconds(frame);
            frame.push(b',');
        }
        write_template(b"\"host\":\"", &self.config.host, event, frame);
        write_template(b",\"source\":\"", &self.config.source, event, frame);
        write_template(b",\"sourcetype\":\"", &self.config.sourcetype, event, frame);
        if let Some(index) = &self.config.index {
            write_template(b",\"index\":\"", index, event, frame);
        }
        frame.extend_from_slice(b",\"event\":");
        format.encode(event, frame);
        if self.config.fields {
            write_fields(event, frame);
        }
        frame.push(b'}');
    }

    async fn send(&self, request: &Request) -> Verdict {
        let (headers, token) = match self.headers() {
            Ok(headers) => headers,
            Err(hold) => return hold,
        };
        let verdict = match self.client.send(Method::POST, &self.event_url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => match (verdict::of_answer(&answer, request), verdict::ack_number(&answer)) {
                (Verdict::Accepted { .. }, Some(number)) if self.config.ack => Verdict::PendingAck(AckId {
                    channel: format!("{} {}", self.channel, answer.cookies),
                    number,
                }),
                (verdict, _) => verdict,
            },
        };
        verdict.redacted(&[&token])
    }

    async fn acknowledged(&self, pending: &[AckId]) -> Vec<AckId> {
        let mut indexers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for id in pending {
            indexers.entry(&id.channel).or_default().push(id.number);
        }
        let mut kept = Vec::new();
        for (channel, numbers) in indexers {
            let cookies = channel.split_once(' ').map_or("", |(_, cookies)| cookies);
            let Some(answer) = self.poll(cookies, &numbers).await else { continue };
            let acknowledged = verdict::acknowledged(&answer, &numbers);
            kept.extend(acknowledged.into_iter().map(|number| AckId { channel: channel.to_owned(), number }));
        }
        kept
    }
}

fn write_template(open: &[u8], template: &Template, event: &AuditEvent<'_>, frame: &mut Vec<u8>) {
    frame.extend_from_slice(open);
    template.write_escaped(event, frame);
    frame.push(b'"');
}

/// Flat and never null: HEC refuses anything else.
fn write_fields(event: &AuditEvent<'_>, frame: &mut Vec<u8>) {
    let fields = [
        ("workspace_id", &event.workspace_id),
        ("service_name", &event.service_name),
        ("action_name", &event.action_name),
        ("event_id", &event.event_id),
    ];
    let mut open = ",\"fields\":{\"";
    for (key, value) in fields {
        if let Some(text) = value.as_ref().filter(|text| !text.is_empty()) {
            frame.extend_from_slice(open.as_bytes());
            frame.extend_from_slice(key.as_bytes());
            frame.extend_from_slice(b"\":");
            frame.extend_from_slice(text.quoted().as_bytes());
            open = ",\"";
        }
    }
    if open == ",\"" {
        frame.push(b'}');
    }
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
            out.extend_from_slice(br#"{"a":1}"#);
        }
    }

    fn output(table: Value) -> Result<SplunkHec, BuildError> {
        let context = OutputContext {
            name: "splunk".into(),
            format: FormatName::Canonical,
            http: HttpSettings::default(),
        };
        SplunkHec::new(parse(table)?, context)
    }

    fn frame(table: Value, event: &AuditEvent<'_>) -> String {
        let mut frame = Vec::new();
        output(table).unwrap().encode(event, &Fixed, &mut frame);
        String::from_utf8(frame).unwrap()
    }

    #[test]
    fn an_event_is_wrapped_in_the_keys_that_hec_knows() {
        let event = AuditEvent {
            event_time: Millis::new(1_767_609_296_007),
            workspace_id: Some(Text::from_plain("77")),
            service_name: Some(Text::from_plain("say \"hi\"")),
            action_name: Some(Text::from_plain("")),
            event_id: Some(Text::from_plain("e1")),
            ..AuditEvent::default()
        };
        assert_eq!(
            frame(json!({"url": "https://s:8088", "token": "t", "index": "main"}), &event),
            concat!(
                r#"{"time":1767609296.007,"host":"77","source":"unknown","sourcetype":"databricks:audit","#,
                r#""index":"main","event":{"a":1},"#,
                r#""fields":{"workspace_id":"77","service_name":"say \"hi\"","event_id":"e1"}}"#
            )
        );
    }

    #[test]
    fn a_missing_time_and_missing_fields_are_left_out() {
        let table =
            json!({"url": "https://s:8088", "token": "t", "source": "a", "host": "h\"", "sourcetype": "x"});
        let expected = r#"{"host":"h\"","source":"a","sourcetype":"x","event":{"a":1}}"#;
        assert_eq!(frame(table.clone(), &AuditEvent::default()), expected);
        let event = AuditEvent { event_id: Some(Text::from_plain("e")), ..AuditEvent::default() };
        let mut without_fields = table;
        without_fields["fields"] = json!(false);
        assert_eq!(frame(without_fields, &event), expected);
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_never_the_token() {
        for (table, key) in [
            (json!({"url": "splunk:8088", "token": "hunter2"}), "url: "),
            (json!({"url": "https://s/services/collector/event", "token": "hunter2"}), "url: "),
            (json!({"url": "https://s", "token": "hunter2", "index": ""}), "index: "),
            (json!({"url": "https://s", "token": "hunter2\n3"}), "token: "),
            (json!({"url": "https://s", "token": {"env": "AUDITFERRY_NO_SUCH_VARIABLE"}}), "token: "),
            (json!({"url": "https://s", "token": "hunter2", "source": "{nothing}"}), "source: "),
        ] {
            let error = output(table).err().unwrap().to_string();
            assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
        }
        let config: Config = parse(json!({"url": "https://s", "token": "hunter2"})).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_channel_is_a_new_random_uuid_each_time() {
        let channel = new_channel();
        let lengths: Vec<_> = channel.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(channel.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&channel.as_bytes()[19]), "{channel}");
        assert_ne!(channel, new_channel());
    }
}
