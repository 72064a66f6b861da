//! Splunk's HTTP Event Collector, and the collectors that speak its protocol (Cribl, LogScale, Vector, …).
//!
//! What an answer means is in `verdict`, how acknowledgements find their way in `channels`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::endpoints::{Addresses, Endpoint, Endpoints};
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Answer, Client, NoAnswer, blots, header};
use crate::output::{
    ACK_TIMEOUT, AckId, HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict,
};
use crate::secret::{Rotating, Secret};
use crate::template::Template;
use crate::units::Period;

mod channels;
mod probe;
mod verdict;

use channels::{Channel, Channels};
use verdict::Terms;

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
        most: None,
        max_age: Duration::from_secs(1),
        in_flight: 96,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Splunk closes a busy keep-alive connection after 12 s: ours is closed first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const _: () = assert!(IDLE_TIMEOUT.as_secs() < 12);

/// Remark where the server keeps books of acknowledgements for nobody; it refuses requests once they are full.
const NOBODY_ASKS: &str =
    "the token promises acknowledgements that nobody asks for: set `ack` to true, or its `useACK` to false";
/// Remark where there is nothing to wait for.
const NO_ACKS: &str = "`ack` is true and the token has no `useACK`: the answer 200 counts as delivered";

/// `type = "splunk_hec"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the collector without its path, as `https://splunk.example:8088`; for Splunk Cloud on AWS
    /// `https://http-inputs-<stack>.splunkcloud.com`. `/services/collector/event` is added. Several servers are a list:
    /// they take turns, and one that fails is left out for a while.
    #[schemars(extend("examples" = ["https://splunk.example:8088"]))]
    url: Addresses,
    /// The HEC token. Its file is read for each request, so that it can be rotated without a restart; while Splunk does
    /// not know the new token yet, the one before it is used.
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
    /// other token the answer 200 counts. What waits is held by `memory`: Splunk may take two minutes, so raise it for
    /// more than some hundred kilobytes a second. A load balancer need not be sticky, but polls find their indexer
    /// sooner if it is, by cookie.
    #[serde(default)]
    ack: bool,
    /// How long an acknowledgement is waited for. Then the same request is sent again, and its events may be there twice.
    /// Less than Splunk's two minutes makes every last batch arrive twice.
    #[serde(default = "default_ack_timeout")]
    ack_timeout: Period,
}

fn default_ack_timeout() -> Period {
    Period(ACK_TIMEOUT)
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
    token: Rotating,
    endpoints: Endpoints,
    channels: Channels,
    client: Client,
    /// It was said already that the server no longer acknowledges.
    told: AtomicBool,
}

impl SplunkHec {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let endpoints = Endpoints::new("url", &config.url)?;
        for endpoint in endpoints.all() {
            if let Some((base, _)) = endpoint.url().split_once("/services/collector") {
                return Err(BuildError::new("url", format!("the path is added here: write {base}")));
            }
        }
        if config.index.as_ref().is_some_and(|index| index.as_str().is_empty()) {
            return Err(BuildError::new("index", "is empty; leave it out for the token's own index"));
        }
        if config.ack_timeout.0.is_zero() {
            return Err(BuildError::new("ack_timeout", "must be longer than 0, such as \"5m\""));
        }
        let token = Rotating::new(config.token.clone());
        authorization(&token.reveal().map_err(|error| BuildError::new("token", error))?)?;
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        Ok(Self {
            token,
            endpoints,
            channels: Channels::default(),
            client: Client::new(&http)?,
            told: AtomicBool::new(false),
            config,
        })
    }

    /// The token as it stands now.
    fn token(&self) -> Result<(String, HeaderValue), Verdict> {
        let hold = |message: String| Verdict::hold(HoldReason::Credentials, format!("token: {message}"));
        let token = self.token.reveal().map_err(|error| hold(error.to_string()))?;
        let value = authorization(&token).map_err(|error| hold(error.message))?;
        Ok((token, value))
    }

    /// Posts to a path of a server, on a channel.
    async fn post(
        &self,
        channel: &Channel,
        path: &str,
        authorization: HeaderValue,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Also without `ack`: a token with useACK refuses a request that names no channel.
        if let Ok(id) = HeaderValue::from_str(&channel.id) {
            headers.insert("x-splunk-request-channel", id);
        }
        // Only an acknowledgement needs the same indexer again: otherwise a balancer may balance.
        if let (true, false, Ok(cookies)) =
            (self.config.ack, channel.cookies.is_empty(), HeaderValue::from_str(&channel.cookies))
        {
            headers.insert(COOKIE, cookies);
        }
        let url = format!("{}/services/collector/{path}", channel.endpoint);
        self.client.send(Method::POST, &url, headers, request).await
    }

    /// Sends events to one server.
    async fn send_to(&self, endpoint: &Endpoint, authorization: HeaderValue, request: &Request) -> Verdict {
        let mut channel = self.channels.take(endpoint.url());
        let began = Instant::now();
        let answer = match self.post(&channel, "event", authorization, request).await {
            Ok(answer) => answer,
            Err(failure) => {
                endpoint.failed(began);
                return failure.into();
            }
        };
        match answer.status {
            503 => endpoint.busy(began),
            500..=599 => endpoint.failed(began),
            _ => endpoint.works(),
        }
        let index_varies = self.config.index.as_ref().is_some_and(|index| index.fixed().is_none());
        let verdict = verdict::of_answer(&answer, request, Terms { index_varies, ack: self.config.ack });
        let Verdict::Accepted { slow_down } = verdict else { return verdict };
        channel.remember(&answer.cookies);
        let number = verdict::ack_number(&answer);
        if let (Some(number), true) = (number, self.config.ack) {
            let Channel { endpoint, id, cookies } = channel;
            return Verdict::PendingAck { ack: AckId { endpoint, channel: id, cookies, number }, slow_down };
        }
        self.channels.give_back(channel);
        match (number, self.config.ack) {
            (Some(_), false) => Verdict::AcceptedWithRemark(NOBODY_ASKS.to_owned()),
            (None, true) if !slow_down => Verdict::AcceptedWithRemark(NO_ACKS.to_owned()),
            _ => verdict,
        }
    }

    /// After a burst of 503: none if the server says that it is well again.
    async fn gate(&self, endpoint: &Endpoint, authorization: &HeaderValue) -> Option<Verdict> {
        if !endpoint.is_swamped() {
            return None;
        }
        let began = Instant::now();
        let verdict = match self.health(endpoint, authorization).await {
            Ok(answer) => verdict::of_health(&answer, self.config.ack),
            // Nothing of the events was sent.
            Err(failure) => Some(Verdict::retry(failure.cause, None)),
        };
        match &verdict {
            None => endpoint.works(),
            Some(_) => endpoint.failed(began),
        }
        verdict
    }

    async fn health(&self, endpoint: &Endpoint, authorization: &HeaderValue) -> Result<Answer, NoAnswer> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.clone());
        self.client.get(&format!("{}/services/collector/health", endpoint.url()), headers).await
    }

    /// True if the server says that this one request is safe.
    async fn is_safe(&self, ack: &AckId) -> bool {
        let Ok((token, authorization)) = self.token() else { return false };
        let channel =
            Channel { endpoint: ack.endpoint.clone(), id: ack.channel.clone(), cookies: ack.cookies.clone() };
        let question = plain(serde_json::json!({ "acks": [ack.number] }).to_string());
        let Ok(answer) = self.post(&channel, "ack", authorization, &question).await else { return false };
        if matches!(answer.status, 401 | 403) {
            // Without events to send, only this shows that the token of before the rotation is to be used.
            self.token.refused(&token);
            return false;
        }
        if verdict::acknowledges_no_more(&answer) {
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!("{}; what it answered with 200 counts as delivered", answer.summary());
            }
            return true;
        }
        let safe = verdict::is_acknowledged(&answer, ack.number);
        if safe {
            self.channels.give_back(channel);
        }
        safe
    }
}

/// A request that carries no events.
fn plain(body: String) -> Request {
    let uncompressed_bytes = body.len();
    Request { body: Bytes::from(body), encoding: Encoding::None, events: 0, uncompressed_bytes }
}

fn authorization(token: &str) -> Result<HeaderValue, BuildError> {
    header("token", "authorization", &format!("Splunk {token}"), true).map(|(_, value)| value)
}

#[async_trait]
impl Output for SplunkHec {
    fn framing(&self) -> Framing {
        Framing::CONCATENATED
    }

    fn any_order(&self) -> bool {
        true
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
        let (token, authorization) = match self.token() {
            Ok(token) => token,
            Err(hold) => return hold,
        };
        let Some(endpoint) = self.endpoints.pick() else {
            return Verdict::hold(HoldReason::Misconfigured, "`url` names no server; add one");
        };
        let verdict = match self.gate(endpoint, &authorization).await {
            Some(not_now) => not_now,
            None => self.send_to(endpoint, authorization, request).await,
        };
        let shown = [(&self.token, token)];
        verdict.rotated(&shown).redacted(&blots(&shown))
    }

    async fn acknowledged(&self, pending: &[AckId]) -> Vec<AckId> {
        let mut safe = Vec::new();
        for ack in pending {
            if self.is_safe(ack).await {
                safe.push(ack.clone());
            }
        }
        safe
    }

    fn ack_timeout(&self) -> Duration {
        self.config.ack_timeout.0
    }

    async fn probe(&self) -> Probe {
        self.ask().await
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

/// The verdict on an answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub fn judge(answer: &Answer, request: &Request) -> Verdict {
    verdict::of_answer(answer, request, Terms::default())
}

#[cfg(test)]
mod tests;
