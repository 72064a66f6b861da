//! Microsoft Sentinel and other Log Analytics workspaces, by the Logs Ingestion API of Azure Monitor.
//!
//! A data collection rule takes an array of flat objects whose members are its stream's columns; members without a column
//! are dropped there, so that the rule must declare them all (`packaging/azure/sentinel.json` does). A field that is
//! longer than 64 KB is cut in silence: such an event becomes a dead letter instead.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::azure_token::{AzureToken, IdentitySettings, Token, TokenError};
use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Answer, Client, base_url, header};
use crate::json::{self, Kind, edit};
use crate::output::{
    BatchMost, HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Oversized, Rejection, Verdict,
};
use crate::secret::{LastTaken, Secret};

/// Microsoft Sentinel.
pub const KIND: OutputKind = OutputKind {
    name: "sentinel",
    about: "Microsoft Sentinel, or another Log Analytics workspace, by the Logs Ingestion API",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip],
        // A call takes 1 MB, before compression too; the headers may count.
        max_bytes: 999_000,
        max_events: 5_000,
        most: Some(BatchMost { bytes: 999_000, events: None, why: "a call of Azure's takes no more" }),
        max_age: Duration::from_secs(1),
        // A data collection rule takes 2 GB a minute: at a fifth of a second for a call, seven at once are as many.
        in_flight: 16,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Well below the four minutes after which Azure's load balancers close an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A longer field is accepted, and cut.
const MAX_FIELD_BYTES: usize = 64 << 10;

/// `type = "sentinel"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Logs ingestion endpoint of the data collection rule, or of the data collection endpoint where there is one:
    /// `https://<name>.<region>-1.ingest.monitor.azure.com`.
    url: String,
    /// Immutable id of the data collection rule: `dcr-` and 32 digits.
    rule_id: String,
    /// Stream that the rule declares, as `Custom-DatabricksAudit`.
    stream: String,
    /// What becomes of an event with a field of more than 64 KB, which Azure would cut.
    #[serde(default)]
    oversized: Oversized,
    /// Who sends. It needs the role Monitoring Metrics Publisher on the rule. Without a secret or certificate here or
    /// in the environment: the pod's workload identity, or the machine's managed identity.
    #[serde(default)]
    azure: Azure,
}

/// `azure` of the output.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Azure {
    /// Application (client) id of a service principal or of a user-assigned managed identity. Default:
    /// `AZURE_CLIENT_ID`.
    client_id: Option<String>,
    /// Directory (tenant) id of the service principal. Default: `AZURE_TENANT_ID`.
    tenant_id: Option<String>,
    /// Client secret of the service principal. Default: `AZURE_CLIENT_SECRET`.
    client_secret: Option<Secret>,
    /// PEM file with the service principal's certificate and its RSA key. Default: `AZURE_CLIENT_CERTIFICATE_PATH`.
    client_certificate_file: Option<std::path::PathBuf>,
    /// Entra ID of a sovereign cloud. Default: `AZURE_AUTHORITY_HOST`, or `https://login.microsoftonline.com`.
    authority_host: Option<String>,
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(Sentinel::new(parse(table)?, context)?))
}

struct Sentinel {
    url: String,
    oversized: Oversized,
    token: AzureToken,
    taken: LastTaken,
    client: Client,
}

impl Sentinel {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let base = base_url("url", &config.url, false)?;
        for (key, name) in [("rule_id", &config.rule_id), ("stream", &config.stream)] {
            if name.is_empty()
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            {
                return Err(BuildError::new(
                    key,
                    format!("`{name}` is no such name: it has letters, digits, - and _"),
                ));
            }
        }
        if !config.rule_id.starts_with("dcr-") {
            return Err(BuildError::new(
                "rule_id",
                format!("`{}` is not the immutable id of the rule, which begins with dcr-", config.rule_id),
            ));
        }
        let Config { azure, rule_id, stream, .. } = config;
        let identity = IdentitySettings {
            table: "azure",
            client_id: azure.client_id,
            tenant_id: azure.tenant_id,
            client_secret: azure.client_secret,
            client_certificate_file: azure.client_certificate_file,
            authority_host: azure.authority_host,
        };
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        Ok(Self {
            token: AzureToken::through(&identity, scope(&base), &http)?,
            url: format!("{base}/dataCollectionRules/{rule_id}/streams/{stream}?api-version=2023-01-01"),
            oversized: config.oversized,
            taken: LastTaken::default(),
            client: Client::new(&http)?,
        })
    }

    /// Makes a request and says what its answer means.
    async fn judged(&self, request: &Request, judge: impl Fn(&Answer) -> Verdict) -> Verdict {
        let token = match self.token.get().await {
            Ok(token) => token,
            Err(error @ TokenError::Refused { .. }) => {
                return Verdict::hold(HoldReason::Credentials, error.to_string());
            }
            Err(error @ TokenError::Unavailable { .. }) => return Verdict::retry(error.to_string(), None),
        };
        let headers = match headers(&token) {
            Ok(headers) => headers,
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        };
        let verdict = match self.client.send(Method::POST, &self.url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => {
                if answer.status == 401 {
                    self.token.forget(&token).await;
                }
                judge(&answer).renewed(&answer, token.reveal(), &self.taken)
            }
        };
        verdict.redacted(&[token.reveal()])
    }
}

/// What a field takes: a text without its quotes and escapes, anything else as it is written.
fn field_bytes(value: &str) -> usize {
    match json::kind(value) {
        // The value is never longer than it is written.
        Kind::String if value.len() > MAX_FIELD_BYTES => json::unescape(value).len(),
        _ => value.len(),
    }
}

/// The scope of the tokens that the cloud of this endpoint takes.
fn scope(url: &str) -> &'static str {
    let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
    match host.rsplit('.').next() {
        Some("us") => "https://monitor.azure.us/.default",
        Some("cn") => "https://monitor.azure.cn/.default",
        _ => "https://monitor.azure.com/.default",
    }
}

fn headers(token: &Token) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (_, value) = header("azure", "authorization", &format!("Bearer {}", token.reveal()), true)?;
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

#[async_trait]
impl Output for Sentinel {
    fn framing(&self) -> Framing {
        Framing::ARRAY
    }

    fn any_order(&self) -> bool {
        true
    }

    /// The time goes where every table has it. Azure replaces it in events older than two days by the time of arrival:
    /// the format's own columns keep the true one.
    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        let document = frame.len();
        if let Some(time) = event.event_time {
            frame.extend_from_slice(b"{\"TimeGenerated\":\"");
            time.write_rfc3339(frame);
            frame.push(b'"');
            let rest = frame.len();
            format.encode(event, frame);
            if edit::has_member("\"TimeGenerated\"", rest, frame) {
                // A row of Log Analytics in the format `raw`: of two members of one name, nobody says which Azure takes.
                frame.drain(document..rest);
            } else {
                edit::join_objects(document, rest, frame);
            }
        } else {
            format.encode(event, frame);
        }
        // A column's name begins with a letter.
        edit::rename_member("\"_source\"", "\"extras\"", document, frame);
    }

    fn fits(&self, frame: &[u8]) -> Result<(), Rejection> {
        if frame.len() <= MAX_FIELD_BYTES || self.oversized == Oversized::Send {
            return Ok(());
        }
        let text = std::str::from_utf8(frame).unwrap_or_default();
        for (name, value) in json::members(text) {
            let bytes = field_bytes(value);
            if bytes > MAX_FIELD_BYTES {
                return Err(Rejection {
                    reason: format!(
                        "Azure would cut the field {name} of {bytes} bytes: it keeps {MAX_FIELD_BYTES}"
                    ),
                });
            }
        }
        Ok(())
    }

    async fn send(&self, request: &Request) -> Verdict {
        self.judged(request, of_answer).await
    }

    /// A list without rows stores nothing. What Azure makes of it is not documented: that it complains of the list, and
    /// of neither token, rule nor stream, is as good an answer.
    async fn probe(&self) -> Probe {
        let judge = |answer: &Answer| match of_answer(answer) {
            Verdict::Rejected(_) => Verdict::Accepted { slow_down: false },
            verdict => verdict,
        };
        let ready =
            "the rule is there and the identity may send to it; whether rows fit the table, only events show";
        self.judged(&Request::question(b"[]"), judge).await.into_probe(ready)
    }
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Code,
}

#[derive(Default, Deserialize)]
struct Code {
    #[serde(default)]
    code: String,
}

fn of_answer(answer: &Answer) -> Verdict {
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{}; {advice}", answer.summary()));
    let misconfigured = |advice: &str| hold(HoldReason::Misconfigured, advice);
    let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status, refusal.error.code.as_str()) {
        (400, _) if !answer.is_json() => misconfigured("this is not Azure's answer: check `url` and proxies"),
        (400, "InvalidStream") => misconfigured("set `stream` to one that the data collection rule declares"),
        (400, "InvalidDcrImmutableId") => {
            misconfigured("set `rule_id` to the rule's immutable id, and `url` to an endpoint in its region")
        }
        (401, _) => hold(HoldReason::Credentials, "check the keys of `azure`"),
        (403, _) => hold(
            HoldReason::Credentials,
            "give this identity the role Monitoring Metrics Publisher on the data collection rule; that takes effect \
             within 30 minutes",
        ),
        (404, _) => hold(HoldReason::NotFound, "check `url`, `rule_id` and `stream`"),
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
