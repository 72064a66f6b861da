//! Sumo Logic's HTTP source. Its address is the secret: neither a message nor a log line may show it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, parse};
use crate::compress::Encoding;
use crate::format::FormatName;
use crate::http::{Answer, Client, base_url, header};
use crate::output::{HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};
use crate::secret::Secret;

/// Sumo Logic.
pub const KIND: OutputKind = OutputKind {
    name: "sumo",
    about: "A Sumo Logic HTTP source",
    defaults: OutputDefaults {
        format: FormatName::Sumo,
        compression: Encoding::Gzip,
        compressions: &[Encoding::None, Encoding::Gzip, Encoding::Zstd],
        max_bytes: 1_000_000,
        max_events: 5_000,
        max_age: Duration::from_secs(1),
        // A source is not made for many connections.
        in_flight: 2,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// Sumo's load balancers close an idle connection after 30 s: ours is closed first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(25);
/// Sumo silently drops fields beyond these limits.
const MAX_FIELDS: usize = 30;
const MAX_FIELD_CHARACTERS: usize = 200;

/// `type = "sumo"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the HTTP source as Sumo shows it. It is a secret: whoever has it can write. Read again when its
    /// file changes. In the source, switch off "Enable One Message Per Request" and multiline detection.
    url: Secret,
    /// Token of a source with token authentication (header `x-sumo-token`); `url` then ends in `/receiver/v1/http`.
    /// Default: none.
    #[serde(default)]
    token: Option<Secret>,
    /// Source category (`X-Sumo-Category`). Default: the source's own.
    #[serde(default)]
    category: Option<String>,
    /// Source name (`X-Sumo-Name`). Default: the source's own.
    #[serde(default)]
    name: Option<String>,
    /// Source host (`X-Sumo-Host`). Default: the source's own.
    #[serde(default)]
    host: Option<String>,
    /// Fields for every event (`X-Sumo-Fields`): at most 30, values of at most 200 characters. Sumo ignores fields
    /// that its schema does not list. Default: none.
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(Sumo::new(parse(table)?, context)?))
}

struct Sumo {
    url: Secret,
    token: Option<Secret>,
    headers: HeaderMap,
    client: Client,
}

impl Sumo {
    fn new(config: Config, context: OutputContext) -> Result<Self, BuildError> {
        let mut http = context.http;
        http.idle_timeout = Some(IDLE_TIMEOUT);
        let output = Self {
            headers: static_headers(&config)?,
            url: config.url,
            token: config.token,
            client: Client::new(&http)?,
        };
        output.address()?;
        Ok(output)
    }

    /// Where to send to, with which headers, and the secrets in them.
    fn address(&self) -> Result<(String, HeaderMap, Vec<String>), BuildError> {
        let url = self.url.reveal().map_err(|error| BuildError::new("url", error))?;
        let url = base_url("url", &url, true)?;
        let mut headers = self.headers.clone();
        let mut secrets = vec![url.clone()];
        // With token authentication the path is the same for everybody and ends here.
        secrets.extend(url.rsplit('/').next().filter(|code| *code != "http").map(str::to_owned));
        if let Some(token) = &self.token {
            let token = token.reveal().map_err(|error| BuildError::new("token", error))?;
            let (name, value) = header("token", "x-sumo-token", &token, true)?;
            headers.insert(name, value);
            secrets.push(token);
        }
        Ok((url, headers, secrets))
    }
}

fn static_headers(config: &Config) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-sumo-client", HeaderValue::from_static("auditferry"));
    let named = [
        ("category", "x-sumo-category", &config.category),
        ("name", "x-sumo-name", &config.name),
        ("host", "x-sumo-host", &config.host),
    ];
    for (key, name, value) in named {
        if let Some(value) = value {
            let (name, value) = header(key, name, value, false)?;
            headers.insert(name, value);
        }
    }
    if !config.fields.is_empty() {
        let (name, value) = header("fields", "x-sumo-fields", &fields_header(&config.fields)?, false)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn fields_header(fields: &BTreeMap<String, String>) -> Result<String, BuildError> {
    if fields.len() > MAX_FIELDS {
        return Err(BuildError::new(
            "fields",
            format!("Sumo takes at most {MAX_FIELDS}, here are {}", fields.len()),
        ));
    }
    for (name, value) in fields {
        let key = format!("fields.{name}");
        if value.chars().count() > MAX_FIELD_CHARACTERS {
            return Err(BuildError::new(&key, format!("is longer than {MAX_FIELD_CHARACTERS} characters")));
        }
        if name.contains([',', '=']) || value.contains(',') {
            return Err(BuildError::new(&key, "must not contain a comma, nor its name a comma or `=`"));
        }
    }
    Ok(fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
}

#[async_trait]
impl Output for Sumo {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, request: &Request) -> Verdict {
        let (url, headers, secrets) = match self.address() {
            Ok(address) => address,
            Err(error) => return Verdict::hold(HoldReason::Credentials, error.to_string()),
        };
        let verdict = match self.client.send(Method::POST, &url, headers, request).await {
            Err(failure) => failure.into(),
            Ok(answer) => of_answer(&answer),
        };
        verdict.redacted(&secrets.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Sumo looks at no single event, so a 400 is about the whole request.
fn of_answer(answer: &Answer) -> Verdict {
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{}; {advice}", answer.summary()));
    match answer.status {
        400 | 422 => {
            hold(HoldReason::Misconfigured, "check `url`: it must be the address of an HTTP source for logs")
        }
        401 | 403 => hold(
            HoldReason::Credentials,
            "check `url` and `token`; an address generated anew is refused for some minutes",
        ),
        _ => Verdict::from_status(answer),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::HttpSettings;

    const URL: &str = "https://endpoint.sumo.example/receiver/v1/http/ZaVnC4dhaV39";

    fn output(table: Value) -> Result<Sumo, BuildError> {
        let context =
            OutputContext { name: "sumo".into(), format: FormatName::Sumo, http: HttpSettings::default() };
        Sumo::new(parse(table)?, context)
    }

    #[test]
    fn every_status_has_its_verdict() {
        for (status, expected) in [
            (200, "accepted"),
            (303, "hold misconfigured"),
            (400, "hold misconfigured"),
            (401, "hold credentials"),
            (403, "hold credentials"),
            (404, "hold not_found"),
            (408, "retry true"),
            (413, "too_large"),
            (429, "retry false"),
            (500, "retry true"),
            (502, "retry true"),
            (503, "retry false"),
            (504, "retry true"),
        ] {
            let answer =
                Answer { status, retry_after: None, body: "x".into(), cut: false, cookies: String::new() };
            let verdict = match of_answer(&answer) {
                Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
                Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
                other => other.label().to_owned(),
            };
            assert_eq!(verdict, expected, "{status}");
        }
    }

    #[test]
    fn headers_carry_category_name_host_fields_and_token() {
        let table = json!({
            "url": URL, "token": "hunter2", "category": "sec/db", "name": "audit", "host": "h",
            "fields": {"env": "prod", "team": "sec"}
        });
        let (url, headers, _) = output(table).unwrap().address().unwrap();
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
        let (_, _, secrets) = output.address().unwrap();
        let body = "no such path /receiver/v1/http/ZaVnC4dhaV39".into();
        let answer = Answer { status: 404, retry_after: None, body, cut: false, cookies: String::new() };
        let verdict = of_answer(&answer).redacted(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!format!("{verdict:?}").contains("ZaVnC4dhaV39"), "{verdict:?}");
    }
}
