//! Google Security Operations (Chronicle), by `logs.import` of the Chronicle API.
//!
//! The older Ingestion API (`malachiteingestion-pa`) ends in July 2027 and is not spoken here.

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

use self::token::Tokens;
use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Answer, Client, base_url, header};
use crate::json;
use crate::output::{BatchMost, HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::{LastTaken, Secret};
use crate::template::Template;
use crate::time::Millis;

mod token;

/// Google SecOps.
pub const KIND: OutputKind = OutputKind {
    name: "google_secops",
    about: "Google Security Operations (Chronicle)",
    defaults: OutputDefaults {
        // Parsers are written for what Databricks delivers.
        format: FormatName::Raw,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip],
        // A request takes 4 MB, in base64 as it is counted here.
        max_bytes: 2_000_000,
        max_events: 5_000,
        most: Some(BatchMost { bytes: 4_000_000, events: None, why: "Google SecOps takes no more" }),
        max_age: Duration::from_secs(1),
        // Bursts beyond a tenant's quota are refused for five minutes.
        in_flight: 4,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Well below what Google's front ends keep idle connections for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bursts are limited over five minutes: an earlier attempt only uses the limit up.
const BURST_WINDOW: Duration = Duration::from_secs(300);

const TOO_LARGE: &str = "Request payload size exceeds";

/// `type = "google_secops"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Google Cloud project that the instance belongs to.
    project: String,
    /// Location of the instance, as `us`, `eu` or `europe-west2`.
    location: String,
    /// Id of the instance: the customer id, a UUID.
    instance: String,
    /// Log type, which chooses the parser; one that the instance knows, such as `DATABRICKS`.
    log_type: String,
    /// Address of the API where it is another, for instance `https://chronicle.<location>.rep.googleapis.com`.
    /// Default: `https://<location>-chronicle.googleapis.com`.
    #[serde(default)]
    url: Option<String>,
    /// Version of the API, as it stands in the path.
    #[serde(default = "default_api_version")]
    api_version: String,
    /// Key of a service account that may `chronicle.logs.import`: the JSON that Google gives, read again when its file
    /// changes. Default: the application default credentials, or the service account of the machine or pod.
    #[serde(default)]
    service_account_key: Option<Secret>,
    /// Id of a forwarder that the instance knows, to whom the logs are ascribed. Default: none.
    #[serde(default)]
    forwarder: Option<String>,
    /// Environment namespace of the logs. Default: none.
    #[serde(default)]
    namespace: Option<String>,
    /// Labels of each event besides its `event_id`: names with templates. Default: none.
    #[serde(default)]
    labels: BTreeMap<String, Template>,
}

fn default_api_version() -> String {
    "v1alpha".to_owned()
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(GoogleSecOps::new(parse(table)?, context)?))
}

struct GoogleSecOps {
    url: String,
    /// The request up to its logs.
    envelope: Vec<u8>,
    namespace: Option<String>,
    labels: BTreeMap<String, Template>,
    tokens: Tokens,
    taken: LastTaken,
    client: Client,
}

impl GoogleSecOps {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let Config { project, location, instance, log_type, .. } = &config;
        let names = [
            ("project", Some(project)),
            ("location", Some(location)),
            ("instance", Some(instance)),
            ("log_type", Some(log_type)),
            ("api_version", Some(&config.api_version)),
            ("forwarder", config.forwarder.as_ref()),
        ];
        for (key, name) in names {
            check_name(key, name.map(String::as_str))?;
        }
        if config.labels.contains_key("event_id") {
            return Err(BuildError::new("labels.event_id", "is there already: leave it out"));
        }
        let base = match &config.url {
            Some(url) => base_url("url", url, false)?,
            None => format!("https://{location}-chronicle.googleapis.com"),
        };
        let parent = format!("projects/{project}/locations/{location}/instances/{instance}");
        let mut envelope = b"{\"inlineSource\":{".to_vec();
        if let Some(forwarder) = &config.forwarder {
            envelope
                .extend_from_slice(format!("\"forwarder\":\"{parent}/forwarders/{forwarder}\",").as_bytes());
        }
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        Ok(Self {
            url: format!("{base}/{}/{parent}/logTypes/{log_type}/logs:import", config.api_version),
            envelope,
            namespace: config.namespace,
            labels: config.labels,
            tokens: Tokens::new(config.service_account_key)?,
            taken: LastTaken::default(),
            client: Client::new(&http)?,
        })
    }

    /// Makes a request and says what its answer means.
    async fn judged(&self, request: &Request, judge: impl Fn(&Answer) -> Verdict) -> Verdict {
        let token = match self.tokens.get().await {
            Ok(token) => token,
            Err(verdict) => return verdict,
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match header("service_account_key", "authorization", &format!("Bearer {token}"), true) {
            Ok((_, value)) => headers.insert(AUTHORIZATION, value),
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        };
        let verdict = match self.client.send(Method::POST, &self.url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => {
                if answer.status == 401 {
                    self.tokens.forget();
                }
                judge(&answer).renewed(&answer, &token, &self.taken)
            }
        };
        verdict.redacted(&[&token])
    }
}

/// Checks a name that becomes a part of the path.
fn check_name(key: &str, name: Option<&str>) -> Result<(), BuildError> {
    let Some(name) = name else { return Ok(()) };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(BuildError::new(
            key,
            format!("`{name}` is no such name: write it as it stands in Google's console, without a path"),
        ));
    }
    Ok(())
}

fn write_time(key: &[u8], time: Option<Millis>, frame: &mut Vec<u8>) {
    if let Some(time) = time {
        frame.extend_from_slice(key);
        time.write_rfc3339(frame);
        frame.push(b'"');
    }
}

#[async_trait]
impl Output for GoogleSecOps {
    fn framing(&self) -> Framing {
        Framing { open: b"\"logs\":[", terminator: b",", close: b"]}}", keep_last: false }
    }

    fn envelope(&self, _lane: u32, _frames_bytes: usize) -> Vec<u8> {
        self.envelope.clone()
    }

    /// The time of collection must be there and later than the entry's: a millisecond is. A clock would say it better, and
    /// would make a resend differ from what was sent.
    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        // Both must be there, even where the record has no time.
        let entry = event.event_time.or(Millis::new(0));
        let collected = entry.and_then(|time| Millis::new(time.get() + 1)).or(entry);
        write_time(b"{\"logEntryTime\":\"", entry, frame);
        write_time(b",\"collectionTime\":\"", collected, frame);
        if let Some(namespace) = &self.namespace {
            frame.extend_from_slice(b",\"environmentNamespace\":");
            json::write_quoted(namespace, frame);
        }
        let mut before: &[u8] = b",\"labels\":{";
        if let Some(id) = &event.event_id {
            frame.extend_from_slice(b",\"labels\":{\"event_id\":{\"value\":");
            frame.extend_from_slice(id.quoted().as_bytes());
            frame.push(b'}');
            before = b",";
        }
        for (name, template) in &self.labels {
            frame.extend_from_slice(before);
            json::write_quoted(name, frame);
            frame.extend_from_slice(b":{\"value\":\"");
            template.write_escaped(event, frame);
            frame.extend_from_slice(b"\"}");
            before = b",";
        }
        if before == b"," {
            frame.push(b'}');
        }
        frame.extend_from_slice(b",\"data\":\"");
        let start = frame.len();
        format.encode(event, frame);
        let document = frame.split_off(start);
        frame.extend_from_slice(BASE64_STANDARD.encode(document).as_bytes());
        frame.extend_from_slice(b"\"}");
    }

    async fn send(&self, request: &Request) -> Verdict {
        self.judged(request, of_answer).await
    }

    /// An import without logs stores nothing. Google looks at the rights first: what it complains of after that is the
    /// empty list, or a name that it does not know.
    async fn probe(&self) -> Probe {
        let judge = |answer: &Answer| match of_answer(answer) {
            Verdict::Rejected(_) => Verdict::Accepted { slow_down: false },
            verdict => verdict,
        };
        let ready = "the instance is there and takes imports of this account; whether it parses them, only events show";
        self.judged(&Request::question(br#"{"inlineSource":{"logs":[]}}"#), judge).await.into_probe(ready)
    }
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Reason,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    status: String,
    message: String,
}

fn of_answer(answer: &Answer) -> Verdict {
    let said = answer.summary();
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{said}; {advice}"));
    let Refusal { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        400 if !answer.is_json() => {
            hold(HoldReason::Misconfigured, "this is not Google's answer: check `url` and proxies")
        }
        // In the words of Google's front end, which has read no event that it could repeat.
        400 if error.message.starts_with(TOO_LARGE) => Verdict::TooLarge,
        400 if error.status == "FAILED_PRECONDITION" => {
            hold(HoldReason::Misconfigured, "check `instance`, `log_type` and `forwarder`")
        }
        401 => hold(HoldReason::Credentials, "check `service_account_key`"),
        403 => hold(
            HoldReason::Credentials,
            "give the service account the permission chronicle.logs.import on the instance; one of the older Ingestion \
             API does not do",
        ),
        404 => hold(HoldReason::NotFound, "check `project`, `location`, `instance` and `log_type`"),
        429 => Verdict::retry(said, answer.retry_after.or(Some(BURST_WINDOW))),
        _ => Verdict::from_status(answer),
    }
}

/// The verdict on an answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub fn judge(answer: &Answer, _request: &Request) -> Verdict {
    of_answer(answer)
}

#[cfg(test)]
mod tests;
