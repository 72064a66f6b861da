//! Any collector that takes events over HTTP, as lines or as a JSON array.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::format::FormatName;
use crate::http::{Answer, Client, SecretHeaders, Shown, blots, full_url};
use crate::output::{HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::{Rotating, Secret};

/// Any HTTP collector.
pub const KIND: OutputKind = OutputKind {
    name: "http",
    about: "Any collector over HTTP, as newline-delimited JSON or as JSON arrays",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip, Encoding::Zstd],
        max_bytes: 1_000_000,
        max_events: 1_000,
        most: None,
        max_age: Duration::from_secs(1),
        in_flight: 96,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// `type = "http"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to send to, path and query included. It may hold a key and is treated as a secret: a text, or
    /// `{ file = "…" }` and the like. While a new one is refused with 401 or 403, the one before it is used.
    url: Secret,
    /// Method of the requests.
    #[serde(default)]
    method: Verb,
    /// How events are joined into a body.
    #[serde(default)]
    body: Body,
    /// Headers by name. Values are secrets: a text, or `{ file = "…" }` and the like, read again when they change; while a
    /// new one is refused with 401 or 403, the one before it is used.
    /// `Content-Type` replaces the one that goes with `body`. Default: none.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// Statuses that mean every event was taken: numbers, and ranges such as `"200-299"`.
    #[serde(default = "default_success")]
    success: Vec<Codes>,
    /// Statuses after which the same request is sent again until it succeeds. Of the others, 413 halves the request;
    /// 400 and 422 narrow it down to the event to blame, which becomes a dead letter; the rest, such as 401, 403 and
    /// 404, holds everything until somebody looks.
    #[serde(default = "default_retry")]
    retry: Vec<Codes>,
    /// Adds `Idempotency-Key`, the SHA-256 of the body in hex: the same for each repetition of a request.
    #[serde(default)]
    idempotency_key: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    #[default]
    Post,
    Put,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Body {
    /// One event a line.
    #[default]
    Ndjson,
    /// One JSON array.
    JsonArray,
}

/// A status, or a range of them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Codes {
    One(u16),
    Range(String),
}

fn default_success() -> Vec<Codes> {
    vec![Codes::Range("200-299".to_owned())]
}

fn default_retry() -> Vec<Codes> {
    vec![Codes::One(408), Codes::One(425), Codes::One(429), Codes::Range("500-599".to_owned())]
}

type Ranges = Vec<(u16, u16)>;

/// Reads `codes` of `key` as inclusive ranges.
fn ranges(key: &str, codes: &[Codes]) -> Result<Ranges, BuildError> {
    codes
        .iter()
        .map(|codes| {
            let (first, last) = match codes {
                Codes::One(code) => (Some(*code), Some(*code)),
                Codes::Range(text) => {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    (first.trim().parse().ok(), last.trim().parse().ok())
                }
            };
            match (first, last) {
                (Some(first), Some(last)) if (100..=last).contains(&first) && last <= 599 => {
                    Ok((first, last))
                }
                _ => Err(BuildError::new(key, "holds statuses such as 429 and ranges such as \"500-599\"")),
            }
        })
        .collect()
}

/// True for a part of a path that is more likely a key than a word that messages need.
fn may_be_key(name: &str) -> bool {
    name.len() >= 20 || name.len() >= 6 && name.bytes().any(|byte| byte.is_ascii_digit())
}

fn holds(ranges: &Ranges, status: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&status))
}

fn build(table: Value, OutputContext { http, .. }: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    let client = Client::new(&http)?;
    Ok(Box::new(Http::new(parse(table)?, client)?))
}

struct Http {
    config: Config,
    url: Rotating,
    headers: SecretHeaders,
    success: Ranges,
    retry: Ranges,
    client: Client,
}

/// Where to send to, with which headers, and the secrets in them.
struct Target<'a> {
    url: String,
    headers: HeaderMap,
    shown: Vec<Shown<'a>>,
    /// Parts of the address that are secrets too.
    parts: Vec<String>,
}

impl Target<'_> {
    /// All that must not be shown.
    fn secrets(&self) -> Vec<&str> {
        self.parts.iter().map(String::as_str).chain(blots(&self.shown)).collect()
    }
}

impl Http {
    fn new(config: Config, client: Client) -> Result<Self, BuildError> {
        let output = Self {
            success: ranges("success", &config.success)?,
            retry: ranges("retry", &config.retry)?,
            url: Rotating::new(config.url.clone()),
            headers: SecretHeaders::new(config.headers.clone()),
            client,
            config,
        };
        if output.success.is_empty() {
            return Err(BuildError::new("success", "is empty: no request could ever succeed"));
        }
        output.target()?;
        Ok(output)
    }

    fn target(&self) -> Result<Target<'_>, BuildError> {
        let text = self.url.reveal().map_err(|error| BuildError::new("url", error))?;
        let url = full_url("url", &text, true)?;
        let mut parts = vec![url.clone()];
        // Servers like to say which path they do not know.
        if let Some(target) =
            url.split_once("://").and_then(|(_, rest)| Some(rest.split_at(rest.find('/')?).1))
        {
            let path = target.split('?').next().unwrap_or_default();
            parts.extend([target, path].map(str::to_owned));
            parts.extend(path.split('/').filter(|name| may_be_key(name)).map(str::to_owned));
        }
        if let Some((_, query)) = url.split_once('?') {
            let values = query.split('&').filter_map(|pair| pair.split_once('='));
            parts.extend(values.map(|(_, value)| value.to_owned()));
            // As the server reads them.
            parts.extend(form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned()));
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.config.body.content_type()));
        let (configured, mut shown) = self.headers.reveal()?;
        headers.extend(configured);
        shown.push((&self.url, text));
        Ok(Target { url, headers, shown, parts })
    }

    fn of_answer(&self, answer: &Answer) -> Verdict {
        if holds(&self.success, answer.status) {
            return Verdict::Accepted { slow_down: false };
        }
        match Verdict::from_status(answer) {
            retry @ Verdict::Retry { .. } if holds(&self.retry, answer.status) => retry,
            _ if holds(&self.retry, answer.status) => Verdict::retry(answer.summary(), answer.retry_after),
            // A status that means success or a retry elsewhere was taken off its list here.
            Verdict::Accepted { .. } | Verdict::Retry { .. } => Verdict::hold(
                HoldReason::Misconfigured,
                format!("{}; add the status to `success` or `retry`", answer.summary()),
            ),
            verdict => verdict,
        }
    }
}

impl Body {
    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::JsonArray => "application/json",
        }
    }
}

#[async_trait]
impl Output for Http {
    fn framing(&self) -> Framing {
        match self.config.body {
            Body::Ndjson => Framing::LINES,
            Body::JsonArray => Framing::ARRAY,
        }
    }

    async fn send(&self, request: &Request) -> Verdict {
        let target = match self.target() {
            Ok(target) => target,
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        };
        let mut headers = target.headers.clone();
        if self.config.idempotency_key {
            let digest = Bytes::copy_from_slice(&Sha256::digest(&request.body));
            if let Ok(value) = HeaderValue::from_str(&format!("{digest:x}")) {
                headers.insert("idempotency-key", value);
            }
        }
        let method = match self.config.method {
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
        };
        let verdict = match self.client.send(method, &target.url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => self.of_answer(&answer),
        };
        verdict.rotated(&target.shown).redacted(&target.secrets())
    }

    /// HEAD changes nothing, whatever stands behind the address. That it is not known there, as by many that take POST
    /// alone, says nothing.
    async fn probe(&self) -> Probe {
        let target = match self.target() {
            Ok(target) => target,
            Err(error) => return Probe::Failed(error.to_string()),
        };
        let nothing = Request::question(b"");
        let sent = self.client.send(Method::HEAD, &target.url, target.headers.clone(), &nothing).await;
        let verdict = match sent {
            Err(failure) => failure.into(),
            Ok(answer) if matches!(answer.status, 300..=399 | 401 | 403) => Verdict::from_status(&answer),
            Ok(_) => Verdict::Accepted { slow_down: false },
        };
        let ready = "it answers; whether it takes events, only events show";
        verdict.redacted(&target.secrets()).into_probe(ready)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::HttpSettings;

    fn output(table: Value) -> Result<Http, BuildError> {
        Http::new(parse(table)?, Client::new(&HttpSettings::default())?)
    }

    fn verdict(output: &Http, status: u16) -> String {
        let answer =
            Answer { status, retry_after: None, body: "x".into(), cut: false, cookies: String::new() };
        match output.of_answer(&answer) {
            Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
            Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
            other => other.label().to_owned(),
        }
    }

    #[test]
    fn every_status_has_its_verdict() {
        let output = output(json!({"url": "https://c/in"})).unwrap();
        for (status, expected) in [
            (200, "accepted"),
            (202, "accepted"),
            (302, "hold misconfigured"),
            (400, "rejected"),
            (401, "hold credentials"),
            (403, "hold credentials"),
            (404, "hold not_found"),
            (408, "retry true"),
            (413, "too_large"),
            (415, "hold misconfigured"),
            (422, "rejected"),
            (425, "retry false"),
            (429, "retry false"),
            (500, "retry true"),
            (503, "retry false"),
        ] {
            assert_eq!(verdict(&output, status), expected, "{status}");
        }
    }

    #[test]
    fn configured_statuses_come_first() {
        let table = json!({"url": "https://c/in", "success": [204, 409], "retry": ["400-404", 429]});
        let output = output(table).unwrap();
        for (status, expected) in [
            (204, "accepted"),
            (409, "accepted"),
            (200, "hold misconfigured"),
            (401, "retry false"),
            (429, "retry false"),
            (500, "hold misconfigured"),
        ] {
            assert_eq!(verdict(&output, status), expected, "{status}");
        }
        let page =
            Answer { status: 200, retry_after: None, body: "<p>".into(), cut: false, cookies: String::new() };
        assert!(matches!(output.of_answer(&page), Verdict::Hold(_)), "what it says makes it no success");
    }

    #[test]
    fn a_body_is_lines_or_an_array_with_the_type_that_says_so() {
        for (body, framing, content_type) in [
            ("ndjson", Framing::LINES, "application/x-ndjson"),
            ("json_array", Framing::ARRAY, "application/json"),
        ] {
            let output = output(json!({"url": "https://c", "body": body})).unwrap();
            let target = output.target().unwrap();
            assert_eq!(
                (output.framing(), target.headers.get(CONTENT_TYPE).unwrap().to_str().unwrap()),
                (framing, content_type)
            );
        }
        let output = output(json!({"url": "https://c", "headers": {"content-type": "text/x"}})).unwrap();
        assert_eq!(output.target().unwrap().headers.get(CONTENT_TYPE).unwrap(), "text/x");
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_no_secret() {
        for (table, key) in [
            (json!({"url": "hunter2"}), "url: "),
            (json!({"url": "https://c", "headers": {"x y": "hunter2"}}), "headers.x y: "),
            (json!({"url": "https://c", "headers": {"x": "hunter2\n"}}), "headers.x: "),
            (json!({"url": "https://c", "success": []}), "success: "),
            (json!({"url": "https://c", "success": ["2xx"]}), "success: "),
            (json!({"url": "https://c", "retry": ["599-500"]}), "retry: "),
            (json!({"url": "https://c", "retry": [99]}), "retry: "),
            (json!({"url": "https://c", "method": "GET"}), "method: "),
        ] {
            let error = output(table).err().unwrap().to_string();
            assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn secrets_of_the_query_and_the_headers_are_known_and_hidden() {
        let table =
            json!({"url": "https://c/in?key=hunter2", "headers": {"authorization": "Bearer swordfish"}});
        let output = output(table).unwrap();
        let target = output.target().unwrap();
        assert!(!format!("{:?} {:?}", target.headers, output.config).contains("swordfish"));
        let said = Verdict::retry("no hunter2, no swordfish", None).redacted(&target.secrets());
        assert!(matches!(said, Verdict::Retry { cause, .. } if cause == "no ***, no ***"));
    }

    #[test]
    fn a_path_that_the_collector_repeats_is_a_secret() {
        let output = output(json!({"url": "https://hooks.example/services/T0/hunter2?v=1"})).unwrap();
        let target = output.target().unwrap();
        for said in ["Cannot POST /services/T0/hunter2", "no route for /services/T0/hunter2?v=1"] {
            let said = format!("{:?}", Verdict::retry(said, None).redacted(&target.secrets()));
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
