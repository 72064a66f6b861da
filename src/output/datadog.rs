//! Datadog's log intake.
//!
//! The event is the `message`, as JSON text: Datadog makes attributes of it. It answers 202 before it looks, and two
//! things then go wrong in silence: an entry longer than 1 MB is cut, and one whose date is older than 18 hours is
//! dropped. Against the first, such an event becomes a dead letter; against the second, its date is that of its arrival
//! unless the configuration wants it otherwise.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Answer, Client, base_url, blots, header};
use crate::json;
use crate::output::{
    BatchMost, HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Oversized, Rejection, Verdict,
};
use crate::secret::{Rotating, Secret};
use crate::template::Template;

/// Datadog.
pub const KIND: OutputKind = OutputKind {
    name: "datadog",
    about: "Datadog's log intake",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::Zstd,
        compressions: &[Encoding::None, Encoding::Gzip, Encoding::Zstd],
        // It takes 5 MB and 1,000 entries.
        max_bytes: 4_000_000,
        max_events: 1_000,
        most: Some(BatchMost { bytes: 5_000_000, events: Some(1_000), why: "Datadog takes no more" }),
        max_age: Duration::from_secs(1),
        in_flight: 32,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Well below what load balancers keep idle connections for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A longer entry is accepted, and cut.
const MAX_ENTRY_BYTES: usize = 1_000_000;

/// `type = "datadog"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// API key of the organisation. Read again when its file changes.
    api_key: Secret,
    /// Site of the organisation, as `datadoghq.eu` or `us5.datadoghq.com`.
    #[serde(default = "default_site")]
    site: String,
    /// Address of the intake where it is not that of `site`, for instance of a proxy or a private link;
    /// `/api/v2/logs` is added. Default: `https://http-intake.logs.<site>`.
    #[serde(default)]
    url: Option<String>,
    /// `ddsource` of each event, which chooses the pipeline in Datadog; a template.
    #[serde(default = "default_source")]
    source: Template,
    /// `service` of each event; a template.
    #[serde(default = "default_service")]
    service: Template,
    /// `hostname` of each event; a template.
    #[serde(default = "default_hostname")]
    hostname: Template,
    /// `ddtags` of each event, separated by commas; a template.
    #[serde(default = "default_tags")]
    tags: Template,
    /// Which date an event gets in Datadog. `event` is the time it happened; Datadog drops events that are then older
    /// than 18 hours, and says so to nobody, which hits late deliveries and everything that lies in the bucket at the
    /// start.
    #[serde(default)]
    date: Dating,
    /// What becomes of an event of more than 1 MB, which Datadog would cut.
    #[serde(default)]
    oversized: Oversized,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Dating {
    /// When Datadog received it.
    #[default]
    Arrival,
    /// When it happened.
    Event,
}

fn default_site() -> String {
    "datadoghq.com".to_owned()
}

fn default_source() -> Template {
    Template::parse("databricks").unwrap_or_default()
}

fn default_service() -> Template {
    Template::parse("{service_name}").unwrap_or_default()
}

fn default_hostname() -> Template {
    Template::parse("{workspace_id}").unwrap_or_default()
}

fn default_tags() -> Template {
    Template::parse("account_id:{account_id},workspace_id:{workspace_id}").unwrap_or_default()
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(Datadog::new(parse(table)?, context)?))
}

struct Datadog {
    config: Config,
    url: String,
    api_key: Rotating,
    client: Client,
}

impl Datadog {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let url = match &config.url {
            Some(url) => base_url("url", url, false)?,
            None => base_url("site", &format!("https://http-intake.logs.{}", config.site), false)?,
        };
        if url.ends_with("/api/v2/logs") {
            return Err(BuildError::new("url", "the path /api/v2/logs is added here: leave it out"));
        }
        if config.date == Dating::Arrival && matches!(context.format, FormatName::Raw | FormatName::Ecs) {
            return Err(BuildError::new(
                "date",
                "this format has a member that Datadog takes for the date, and it drops what is older than 18 hours; \
                 choose the format canonical, or write date = \"event\" where that is wanted",
            ));
        }
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        let output = Self {
            url: format!("{url}/api/v2/logs"),
            api_key: Rotating::new(config.api_key.clone()),
            client: Client::new(&http)?,
            config,
        };
        output.headers()?;
        Ok(output)
    }

    /// The headers of a request, and the key that is in them.
    fn headers(&self) -> Result<(HeaderMap, String), BuildError> {
        let key = self.api_key.reveal().map_err(|error| BuildError::new("api_key", error))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend([header("api_key", "dd-api-key", &key, true)?]);
        Ok((headers, key))
    }

    /// Makes a request and says what its answer means.
    async fn judged(&self, request: &Request, judge: impl Fn(&Answer) -> Verdict) -> Verdict {
        let (headers, key) = match self.headers() {
            Ok(headers) => headers,
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        };
        let verdict = match self.client.send(Method::POST, &self.url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => judge(&answer),
        };
        let shown = [(&self.api_key, key)];
        verdict.rotated(&shown).redacted(&blots(&shown))
    }
}

#[async_trait]
impl Output for Datadog {
    fn framing(&self) -> Framing {
        Framing::ARRAY
    }

    fn any_order(&self) -> bool {
        true
    }

    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        let config = &self.config;
        let members: [(&[u8], &Template); 4] = [
            (b"{\"ddsource\":\"", &config.source),
            (b"\",\"ddtags\":\"", &config.tags),
            (b"\",\"hostname\":\"", &config.hostname),
            (b"\",\"service\":\"", &config.service),
        ];
        for (before, template) in members {
            frame.extend_from_slice(before);
            template.write_escaped(event, frame);
        }
        frame.push(b'"');
        if let Some(time) = event.event_time.filter(|_| config.date == Dating::Event) {
            frame.extend_from_slice(b",\"timestamp\":\"");
            time.write_rfc3339(frame);
            frame.push(b'"');
        }
        if let Some(id) = &event.event_id {
            frame.extend_from_slice(b",\"event_id\":");
            frame.extend_from_slice(id.quoted().as_bytes());
        }
        frame.extend_from_slice(b",\"message\":");
        let document = frame.len();
        format.encode(event, frame);
        json::quote_from(document, frame);
        frame.push(b'}');
    }

    fn fits(&self, frame: &[u8]) -> Result<(), Rejection> {
        if frame.len() <= MAX_ENTRY_BYTES || self.config.oversized == Oversized::Send {
            return Ok(());
        }
        let reason =
            format!("Datadog would cut an entry of {} bytes: it keeps {MAX_ENTRY_BYTES}", frame.len());
        Err(Rejection { reason })
    }

    async fn send(&self, request: &Request) -> Verdict {
        self.judged(request, of_answer).await
    }

    /// A list without entries stores nothing. The intake looks at the key first; what it makes of the list is not
    /// documented, and a complaint about it is as good an answer.
    async fn probe(&self) -> Probe {
        let judge = |answer: &Answer| match answer.status {
            400 if answer.is_json() => Verdict::Accepted { slow_down: false },
            _ => of_answer(answer),
        };
        let ready = "it answers and does not refuse the key; what becomes of events shows in Datadog alone";
        self.judged(&Request::question(b"[]"), judge).await.into_probe(ready)
    }
}

fn of_answer(answer: &Answer) -> Verdict {
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{}; {advice}", answer.summary()));
    match answer.status {
        400 if !answer.is_json() => {
            hold(HoldReason::Misconfigured, "this is not Datadog's answer: check `site`, `url` and proxies")
        }
        401 | 403 => hold(
            HoldReason::Credentials,
            "set `api_key` to an API key (not an application key) of the organisation at `site`",
        ),
        404 | 410 => hold(HoldReason::NotFound, "check `site` and `url`"),
        _ => Verdict::from_status(answer),
    }
}

/// The verdict on an answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub fn judge(answer: &Answer, _request: &Request) -> Verdict {
    of_answer(answer)
}

#[cfg(test)]
mod tests {
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

    fn output(table: Value, format: FormatName) -> Result<Datadog, BuildError> {
        let context = OutputContext { name: "datadog".into(), format, http: HttpSettings::default() };
        Datadog::new(parse(table)?, context)
    }

    fn frame(table: Value, document: &str, event: &AuditEvent<'_>) -> String {
        let mut frame = Vec::new();
        let output = output(table, FormatName::Canonical).unwrap();
        output.encode(event, &Fixed(document.to_owned()), &mut frame);
        String::from_utf8(frame).unwrap()
    }

    #[test]
    fn every_status_has_its_verdict() {
        for (status, body, expected) in [
            (200, "{}", "accepted"),
            (202, "{}", "accepted"),
            (400, r#"{"errors":[{"detail":"Bad Request"}]}"#, "rejected"),
            (400, "<html>Bad Request</html>", "hold misconfigured"),
            (401, "{}", "hold credentials"),
            (403, r#"{"errors":["Forbidden"]}"#, "hold credentials"),
            (404, "", "hold not_found"),
            (408, "{}", "retry true"),
            (413, "{}", "too_large"),
            (415, "{}", "hold misconfigured"),
            (429, "{}", "retry false"),
            (500, "{}", "retry true"),
            (502, "", "retry true"),
            (503, "{}", "retry false"),
            (504, "", "retry true"),
        ] {
            let answer =
                Answer { status, retry_after: None, body: body.into(), cut: false, cookies: String::new() };
            let verdict = match of_answer(&answer) {
                Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
                Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
                other => other.label().to_owned(),
            };
            assert_eq!(verdict, expected, "{status} {body}");
        }
    }

    #[test]
    fn the_document_is_the_message_and_carries_no_date_that_datadog_would_drop_it_for() {
        let event = AuditEvent {
            event_time: Millis::new(1_767_609_296_007),
            event_id: Some(Text::from_plain("e\"1")),
            workspace_id: Some(Text::from_plain("7")),
            service_name: Some(Text::from_plain("accounts")),
            ..AuditEvent::default()
        };
        let head = concat!(
            r#"{"ddsource":"databricks","ddtags":"account_id:unknown,workspace_id:7","hostname":"7","#,
            r#""service":"accounts""#
        );
        let tail = r#","event_id":"e\"1","message":"{\"a\":\"\\\"\"}"}"#;
        let document = r#"{"a":"\""}"#;
        let table = json!({"api_key": "k"});
        assert_eq!(frame(table, document, &event), format!("{head}{tail}"));
        let table = json!({"api_key": "k", "date": "event"});
        let date = r#","timestamp":"2026-01-05T10:34:56.007Z""#;
        assert_eq!(frame(table, document, &event), format!("{head}{date}{tail}"));
    }

    #[test]
    fn an_entry_that_would_be_cut_does_not_fit_unless_that_is_wanted() {
        let table = json!({"api_key": "k"});
        let keeps = output(table.clone(), FormatName::Canonical).unwrap();
        assert_eq!(keeps.fits(&vec![b'x'; MAX_ENTRY_BYTES]), Ok(()));
        let rejection = keeps.fits(&vec![b'x'; MAX_ENTRY_BYTES + 1]).unwrap_err();
        assert!(rejection.reason.contains("1000001 bytes"), "{}", rejection.reason);
        let mut sending = table;
        sending["oversized"] = json!("send");
        let sends = output(sending, FormatName::Canonical).unwrap();
        assert_eq!(sends.fits(&vec![b'x'; MAX_ENTRY_BYTES + 1]), Ok(()));
    }

    #[test]
    fn the_address_follows_from_the_site() {
        let of = |table| output(table, FormatName::Canonical).unwrap().url;
        assert_eq!(of(json!({"api_key": "k"})), "https://http-intake.logs.datadoghq.com/api/v2/logs");
        assert_eq!(
            of(json!({"api_key": "k", "site": "datadoghq.eu"})),
            "https://http-intake.logs.datadoghq.eu/api/v2/logs"
        );
        assert_eq!(of(json!({"api_key": "k", "url": "http://proxy:1/dd/"})), "http://proxy:1/dd/api/v2/logs");
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_never_the_api_key() {
        let canonical = FormatName::Canonical;
        for (table, format, key) in [
            (json!({"api_key": "hunter2\n3"}), canonical, "api_key: "),
            (json!({"api_key": {"env": "AUDITFERRY_NO_SUCH_VARIABLE"}}), canonical, "api_key: "),
            (json!({"api_key": "hunter2", "site": "not a host"}), canonical, "site: "),
            (json!({"api_key": "hunter2", "url": "ftp://x"}), canonical, "url: "),
            (json!({"api_key": "hunter2", "url": "https://x/api/v2/logs"}), canonical, "url: "),
            (json!({"api_key": "hunter2", "tags": "{nothing}"}), canonical, "tags: "),
            (json!({"api_key": "hunter2"}), FormatName::Raw, "date: "),
            (json!({"api_key": "hunter2"}), FormatName::Ecs, "date: "),
        ] {
            let error = output(table, format).err().unwrap().to_string();
            assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
        }
        assert!(output(json!({"api_key": "k", "date": "event"}), FormatName::Ecs).is_ok());
    }
}
