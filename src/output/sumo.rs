//! Sumo Logic's HTTP source. Its address is the secret: neither a message nor a log line may show it.

use std::collections::BTreeMap;
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
use crate::http::{Answer, Client, Shown, base_url, header};
use crate::output::{HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::{Rotating, Secret, excerpt};
use crate::template::Template;

mod lanes;
mod long;

use lanes::Lanes;

/// Sumo Logic.
pub const KIND: OutputKind = OutputKind {
    name: "sumo",
    about: "A Sumo Logic HTTP source",
    defaults: OutputDefaults {
        format: FormatName::Sumo,
        compression: Encoding::Zstd,
        compressions: &[Encoding::None, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd],
        max_bytes: 1_000_000,
        max_events: 5_000,
        most: None,
        max_age: Duration::from_secs(1),
        // A source is not made for many connections.
        in_flight: 8,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Sumo's load balancers close an idle connection after 30 s: ours is closed first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(25);
const _: () = assert!(IDLE_TIMEOUT.as_secs() < 30);
/// Remarks of one answer that are told.
const MOST_REMARKS: usize = 3;
/// Longest remark that is told.
const MOST_REMARK_CHARACTERS: usize = 300;
/// A larger body that was not read within Sumo's 30 s goes in halves.
const SLOW_BYTES: usize = 100_000;

/// `type = "sumo"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the HTTP source as Sumo shows it. It is a secret: whoever has it can write. Its file is read for each
    /// request; while Sumo does not know a new address yet, the one before it is used. In the source, switch off "Enable One Message Per Request" and multiline detection.
    url: Secret,
    /// Token of a source with token authentication (header `x-sumo-token`); `url` then ends in `/receiver/v1/http`.
    /// Default: none.
    #[serde(default)]
    token: Option<Secret>,
    /// Source category (`X-Sumo-Category`); a template such as `databricks/{workspace_id}`. A request has one category, so
    /// events of different ones travel apart: choose what has few values, 200 at most. Default: the source's own.
    #[serde(default)]
    category: Option<Template>,
    /// Source name (`X-Sumo-Name`); a template. Default: the source's own.
    #[serde(default)]
    name: Option<Template>,
    /// Source host (`X-Sumo-Host`); a template. Default: the source's own.
    #[serde(default)]
    host: Option<Template>,
    /// Fields for every event (`X-Sumo-Fields`), templates: at most 30, values of at most 200 characters. Sumo ignores
    /// fields that its schema does not list. Default: none.
    #[serde(default)]
    fields: BTreeMap<String, Template>,
    /// What becomes of an event of more than 64 KB, which Sumo slices into messages that are no JSON.
    #[serde(default)]
    split_long: SplitLong,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SplitLong {
    /// Cut its longest request parameters, and mark that. Where that does not help, as in format `raw`, it is sent.
    #[default]
    Truncate,
    /// Send it as it is.
    Send,
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(Sumo::new(parse(table)?, context)?))
}

struct Sumo {
    url: Rotating,
    token: Option<Rotating>,
    lanes: Lanes,
    split_long: SplitLong,
    client: Client,
}

/// Where to send to, with which headers, and the secrets in them.
struct Target<'a> {
    url: String,
    headers: HeaderMap,
    shown: Vec<Shown<'a>>,
    /// All that must not be shown.
    secrets: Vec<String>,
}

impl Sumo {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        let output = Self {
            lanes: Lanes::new(
                [
                    ("category", "x-sumo-category", config.category),
                    ("name", "x-sumo-name", config.name),
                    ("host", "x-sumo-host", config.host),
                ],
                config.fields,
            )?,
            url: Rotating::new(config.url),
            token: config.token.map(Rotating::new),
            split_long: config.split_long,
            client: Client::new(&http)?,
        };
        output.target(0)?;
        Ok(output)
    }

    fn target(&self, lane: u32) -> Result<Target<'_>, BuildError> {
        let address = self.url.reveal().map_err(|error| BuildError::new("url", error))?;
        let url = base_url("url", &address, true)?;
        let mut headers = self.lanes.headers(lane);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert("x-sumo-client", HeaderValue::from_static("auditferry"));
        let mut secrets = vec![url.clone()];
        // With token authentication the path is the same for everybody and ends here.
        secrets.extend(url.rsplit('/').next().filter(|code| *code != "http").map(str::to_owned));
        let mut shown = vec![(&self.url, address)];
        if let Some(secret) = &self.token {
            let text = secret.reveal().map_err(|error| BuildError::new("token", error))?;
            let (name, value) = header("token", "x-sumo-token", &text, true)?;
            headers.insert(name, value);
            secrets.push(text.clone());
            shown.push((secret, text));
        }
        Ok(Target { url, headers, shown, secrets })
    }

    /// Posts a body and learns from the answer which secrets Sumo knows.
    async fn post(&self, lane: u32, request: &Request) -> Verdict {
        let target = match self.target(lane) {
            Ok(target) => target,
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        };
        let verdict = match self.client.send(Method::POST, &target.url, target.headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => of_answer(&answer, request),
        };
        let secrets: Vec<_> = target.secrets.iter().map(String::as_str).collect();
        verdict.rotated(&target.shown).redacted(&secrets)
    }
}

#[async_trait]
impl Output for Sumo {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    fn any_order(&self) -> bool {
        true
    }

    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        let start = frame.len();
        format.encode(event, frame);
        let excess = (frame.len() - start).saturating_sub(long::MAX_MESSAGE);
        if excess == 0 || self.split_long == SplitLong::Send {
            return;
        }
        if let Some(short) = long::shortened(event, excess) {
            frame.truncate(start);
            format.encode(&short, frame);
        }
    }

    fn lane(&self, event: &AuditEvent<'_>) -> u32 {
        self.lanes.of(event)
    }

    async fn send(&self, request: &Request) -> Verdict {
        self.post(0, request).await
    }

    async fn send_in_lane(&self, lane: u32, request: &Request) -> Verdict {
        self.post(lane, request).await
    }

    /// An empty body is no message.
    async fn probe(&self) -> Probe {
        let nothing = Request::question(b"");
        self.post(0, &nothing).await.into_probe("the address is that of a source that takes events")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Remark {
    code: String,
    message: String,
    errors: Vec<Remark>,
    warnings: Vec<Remark>,
}

/// What the body of an answer 200 remarks on. Its `id` is left out: it differs each time.
fn remark(answer: &Answer) -> Option<String> {
    let text = answer.excerpt();
    if text.is_empty() || text == "{}" {
        return None;
    }
    let remark: Remark = serde_json::from_slice(&answer.body).unwrap_or_default();
    let all = [vec![Remark { errors: vec![], warnings: vec![], ..remark }], remark.errors, remark.warnings];
    let said: Vec<String> = all
        .iter()
        .flatten()
        .filter(|remark| !remark.code.is_empty() || !remark.message.is_empty())
        .take(MOST_REMARKS)
        .map(|Remark { code, message, .. }| {
            excerpt(format!("{code} {message}").trim(), MOST_REMARK_CHARACTERS)
        })
        .collect();
    Some(if said.is_empty() { text } else { said.join("; ") })
}

/// Sumo looks at no single event, so a 400 is about the whole request.
fn of_answer(answer: &Answer, request: &Request) -> Verdict {
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{}; {advice}", answer.summary()));
    match answer.status {
        200..=299 => match remark(answer) {
            Some(remark) => Verdict::AcceptedWithRemark(remark),
            None => Verdict::Accepted { slow_down: false },
        },
        400 | 422 => {
            hold(HoldReason::Misconfigured, "check `url`: it must be the address of an HTTP source for logs")
        }
        401 | 403 => hold(
            HoldReason::Credentials,
            "check `url` and `token`; an address generated anew is refused for some minutes",
        ),
        408 if request.events > 1 && request.uncompressed_bytes > SLOW_BYTES => {
            Verdict::TooSlow { cause: answer.summary() }
        }
        _ => Verdict::from_status(answer),
    }
}

/// The verdict on an answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub fn judge(answer: &Answer, request: &Request) -> Verdict {
    of_answer(answer, request)
}

/// For the fuzzer: whatever fills a template, it makes one value of a header.
#[cfg(any(test, fuzzing))]
pub fn fuzzing(template: &Template, event: &AuditEvent<'_>) {
    let fields = BTreeMap::from([("field".to_owned(), template.clone())]);
    let named = [
        ("category", "x-sumo-category", Some(template.clone())),
        ("name", "x-sumo-name", None),
        ("host", "x-sumo-host", None),
    ];
    let Ok(lanes) = Lanes::new(named, fields) else { return };
    let headers = lanes.headers(lanes.of(event));
    assert_eq!(headers.len(), 2, "a value that is no header's is lost with its header");
    for value in headers.values() {
        assert!(!value.as_bytes().iter().any(|byte| *byte < 0x20 || *byte == 0x7f), "{value:?}");
    }
    let fields = headers.get("x-sumo-fields").map(|value| value.as_bytes().to_vec()).unwrap_or_default();
    assert!(!fields.contains(&b','), "a value begins another field");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::http::HttpSettings;

    const URL: &str = "https://endpoint.sumo.example/receiver/v1/http/ZaVnC4dhaV39";

    fn output(table: Value) -> Result<Sumo, BuildError> {
        let context =
            OutputContext { name: "sumo".into(), format: FormatName::Sumo, http: HttpSettings::default() };
        Sumo::new(parse(table)?, context)
    }

    fn request(events: usize, uncompressed_bytes: usize) -> Request {
        Request { body: Bytes::new(), encoding: Encoding::None, events, uncompressed_bytes }
    }

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer { status, retry_after: None, body: body.into(), cut: false, cookies: String::new() }
    }

    #[test]
    fn a_body_that_was_not_read_in_time_goes_in_halves_if_it_is_large() {
        let label = |request| of_answer(&answer(408, "timeout"), &request).label();
        assert_eq!(label(request(2, 100_001)), "too_slow");
        assert_eq!((label(request(2, 100_000)), label(request(1, 200_000))), ("retry", "retry"));
    }

    #[test]
    fn what_a_success_remarks_on_is_told_without_what_changes_each_time() {
        for (body, expected) in [
            (
                r#"{"status":200,"id":"YCSAI-3Z4LZ-RGWJC","code":"bad.http.header.fields","message":"X-Sumo-Fields Warning: 1 dropped"}"#,
                "bad.http.header.fields X-Sumo-Fields Warning: 1 dropped",
            ),
            (r#"{"id":"A","errors":[{"code":"a","message":"b"}],"warnings":[{"message":"c"}]}"#, "a b; c"),
            ("<html>Welcome to the hotel</html>", "<html>Welcome to the hotel</html>"),
        ] {
            let expected = Verdict::AcceptedWithRemark(expected.to_owned());
            assert_eq!(of_answer(&answer(200, body), &request(1, 1)), expected);
        }
        for body in ["", "{}", " \n"] {
            let accepted = Verdict::Accepted { slow_down: false };
            assert_eq!(of_answer(&answer(200, body), &request(1, 1)), accepted);
        }
    }

    #[test]
    fn headers_carry_category_name_host_fields_and_token() {
        let table = json!({
            "url": URL, "token": "hunter2", "category": "sec/db", "name": "audit", "host": "h",
            "fields": {"env": "prod", "team": "sec"}
        });
        let Target { url, headers, .. } = output(table).unwrap().target(0).unwrap();
        assert_eq!(url, URL);
        for (name, value) in [
            ("x-sumo-category", "sec/db"),
            ("x-sumo-name", "audit"),
            ("x-sumo-host", "h"),
            ("x-sumo-fields", "env=prod,team=sec"),
            ("x-sumo-client", "auditferry"),
            ("x-sumo-token", "hunter2"),
        ] {
            assert_eq!(headers.get(name).unwrap(), value, "{name}");
        }
        assert!(!format!("{headers:?}").contains("hunter2"));
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_neither_the_url_nor_the_token() {
        let many: BTreeMap<_, _> = (0..31).map(|number| (format!("f{number}"), "v")).collect();
        for (table, key) in [
            (json!({"url": "hunter2"}), "url: "),
            (json!({"url": "hunter2://x"}), "url: "),
            (json!({"url": format!("{URL}?hunter2")}), "url: "),
            (json!({"url": URL, "token": "hunter2\n"}), "token: "),
            (json!({"url": URL, "fields": many}), "fields: "),
            (json!({"url": URL, "fields": {"a": "b,c"}}), "fields.a: "),
            (json!({"url": URL, "fields": {"a": "x".repeat(201)}}), "fields.a: "),
            (json!({"url": URL, "category": "a\nb"}), "category: "),
        ] {
            let error = output(table).err().unwrap().to_string();
            assert!(error.starts_with(key) && !error.contains("hunter2") && !error.contains(URL), "{error}");
        }
        let config: Config = parse(json!({"url": URL})).unwrap();
        assert!(!format!("{config:?}").contains("ZaVnC4dhaV39"));
    }

    #[test]
    fn the_code_of_the_url_is_blotted_out_of_what_the_collector_says() {
        let output = output(json!({"url": URL})).unwrap();
        let secrets = output.target(0).unwrap().secrets;
        let body = "no such path /receiver/v1/http/ZaVnC4dhaV39".into();
        let answer = Answer { status: 404, retry_after: None, body, cut: false, cookies: String::new() };
        let verdict = of_answer(&answer, &request(1, 1))
            .redacted(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!format!("{verdict:?}").contains("ZaVnC4dhaV39"), "{verdict:?}");
    }
}
