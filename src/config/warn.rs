//! What works but should not stay so.

use std::collections::BTreeMap;

use serde_json::Value;
use url::{Host, Url};

use super::describe::word;
use super::error::below;
use super::layers::ENVIRONMENT;
use super::{Config, is_key, schema};
use crate::format::{FormatName, OcsfVersion};

/// The warnings, a line each, naming the key.
pub(super) fn warnings(config: &Config, environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.is_empty() {
        warnings.push(config.nothing_to_do());
    }
    if let (Some(address), None) = (config.server.listen, &config.server.token)
        && !address.ip().is_loopback()
    {
        warnings.push(format!(
            "server.listen: others can reach {address}, so /status and the page stay closed until server.token is set"
        ));
    }
    for (name, settings) in &config.inputs {
        let path = below("inputs", name);
        plain_secrets(config, &settings.table, &schema::input(settings.kind), &path, &mut warnings);
        if settings.table.get("layout").and_then(Value::as_str) == Some("log_analytics_export") {
            warnings.push(format!(
                "{path}.layout: Log Analytics takes export rules for the tables DatabricksSQL and DatabricksDatabricksSQL \
                 and never exports them; read their categories with layout = \"azure_diagnostic\""
            ));
        }
        if settings.table.pointer("/tls/insecure") == Some(&Value::Bool(true)) {
            warnings.push(insecure(&path));
        }
        if !config.pipelines.iter().any(|pipeline| pipeline.input == *name) {
            warnings.push(format!("{path}: no pipeline reads it"));
        }
    }
    for (name, settings) in &config.outputs {
        let path = below("outputs", name);
        plain_secrets(config, &settings.table, &schema::output(settings.kind), &path, &mut warnings);
        let (format, options) = (settings.common.format, settings.common.format_options);
        let idle = [
            ("event_original", options.event_original, FormatName::Ecs),
            ("ocsf_version", options.ocsf_version != OcsfVersion::default(), FormatName::Ocsf),
        ];
        for (key, _, _) in idle.into_iter().filter(|(_, given, of)| *given && *of != format) {
            warnings.push(format!("{path}.{key}: does nothing with format = \"{}\"", word(&format)));
        }
        if settings.common.http.tls.insecure {
            warnings.push(insecure(&path));
        }
        in_the_clear(settings.table.get("url"), &below(&path, "url"), &mut warnings);
        if settings.common.batch.max_bytes > config.memory {
            let (batch, memory) = (settings.common.batch.max_bytes, config.memory);
            warnings.push(format!(
                "{path}.batch.max_bytes: a batch of {batch} never fills, since memory is {memory}; raise memory"
            ));
        }
        if !config.pipelines.iter().any(|pipeline| pipeline.output == *name) {
            warnings.push(format!("{path}: no pipeline sends to it"));
        }
    }
    for name in environment.keys().filter(|name| !is_key(name) && !is_of_kubernetes(name)) {
        // A secret may be taken from a variable of any name. The failpoints' is a debug build's.
        if name != "AUDITFERRY_ABORT_AT" && !names_variable(&config.written.0, name) {
            let meant = of_two_underscores(name, config);
            warnings.push(format!(
                "{ENVIRONMENT}: {name} does nothing; a key of the configuration has two underscores before each of its parts, \
                 as {meant}"
            ));
        }
    }
    warnings
}

/// What Kubernetes tells every container of a service whose name begins with `auditferry`.
fn is_of_kubernetes(name: &str) -> bool {
    let of_port = |at: usize| {
        name.get(at + "_PORT_".len()..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.find("_PORT_").is_some_and(of_port)
}

/// A variable of the same words with two underscores where, by what the configuration holds, a part ends.
fn of_two_underscores(name: &str, config: &Config) -> String {
    let mut rest = name.trim_start_matches("AUDITFERRY_");
    let mut meant = "AUDITFERRY__".to_owned();
    let sections = ["INPUTS_", "OUTPUTS_", "SERVER_", "LOG_", "REDACTION_"];
    let components = config.inputs.keys().chain(config.outputs.keys()).map(|name| name.to_uppercase() + "_");
    let components: Vec<_> = components.collect();
    for part in sections.into_iter().chain(components.iter().map(String::as_str)) {
        if let Some(behind) = rest.strip_prefix(part) {
            meant += &format!("{part}_");
            rest = behind;
        }
    }
    meant + rest
}

/// Whether a secret is `{ env = "NAME" }` of this name.
fn names_variable(written: &Value, name: &str) -> bool {
    match written {
        Value::Object(table) => {
            let named = table.get("env").and_then(Value::as_str) == Some(name);
            named || table.values().any(|value| names_variable(value, name))
        }
        Value::Array(items) => items.iter().any(|value| names_variable(value, name)),
        _ => false,
    }
}

fn insecure(path: &str) -> String {
    format!(
        "{path}.tls.insecure: certificates are not verified; anybody in between can read and change the audit trail; \
         use tls.ca_file instead"
    )
}

/// Addresses without TLS of another machine.
fn in_the_clear(url: Option<&Value>, path: &str, warnings: &mut Vec<String>) {
    match url {
        Some(Value::String(text)) if Url::parse(text).is_ok_and(|url| is_read_along(&url)) => {
            warnings.push(format!(
                "{path}: http:// shows the token and the audit trail to anybody in between; use https://"
            ));
        }
        Some(Value::Array(several)) => {
            for (index, url) in several.iter().enumerate() {
                in_the_clear(Some(url), &format!("{path}[{index}]"), warnings);
            }
        }
        _ => {}
    }
}

fn is_read_along(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Domain(name)) => name != "localhost" && !name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => !address.is_loopback(),
            Some(Host::Ipv6(address)) => !address.is_loopback(),
            None => false,
        }
}

/// Secrets that stand in a file that others may read, back up or commit.
fn plain_secrets(config: &Config, value: &Value, schema: &Value, path: &str, warnings: &mut Vec<String>) {
    match value {
        Value::String(text) if schema::is_secret(schema) && seems_secret(path, text) => {
            let origin = config.origins.find(path);
            if origin != ENVIRONMENT {
                warnings.push(format!(
                    "{path}: the secret stands in {origin}; move it to a file of its own: {{ file = \"/path\" }}"
                ));
            }
        }
        Value::Object(table) => {
            let known = schema::properties(schema);
            for (key, item) in table {
                if let Some(schema) = known.get(key).or_else(|| schema::free(schema)) {
                    plain_secrets(config, item, schema, &below(path, key), warnings);
                }
            }
        }
        _ => {}
    }
}

/// Whether a text under a key that may hold a secret is one. An address and a header are secret in some cases only, and who
/// is warned where nothing is wrong learns to read over it.
fn seems_secret(path: &str, text: &str) -> bool {
    if let Some((_, header)) = path.rsplit_once(".headers.") {
        return names_a_secret(header);
    }
    match Url::parse(text) {
        Ok(url) if path.ends_with(".url") => holds_a_secret(&url),
        _ => true,
    }
}

fn names_a_secret(header: &str) -> bool {
    let name = header.to_ascii_lowercase();
    ["auth", "token", "secret", "cookie", "password", "credential"].iter().any(|part| name.contains(part))
        || name.ends_with("key")
}

fn holds_a_secret(url: &Url) -> bool {
    let user = !url.username().is_empty() || url.password().is_some();
    user || url.query().is_some() || url.path().split('/').any(is_opaque)
}

/// Whether a part of a path is a token rather than a name.
fn is_opaque(part: &str) -> bool {
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+=%".contains(&byte);
    part.len() >= 20
        && part.bytes().all(of_token)
        && part.bytes().any(|byte| byte.is_ascii_digit())
        && part.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_holds_something_of_its_own_is_a_secret() {
        for (url, secret) in [
            ("https://es.corp.example:9200", false),
            ("https://api-acme.xdr.eu.paloaltonetworks.com/logs/v1/event", false),
            ("https://collector.example/services/collector/event", false),
            ("https://collector.example/databricks-audit-events-of-acme", false),
            ("https://collector.example/20260131120000000000000", false),
            ("https://user:pw@es.corp.example", true),
            ("https://user@es.corp.example", true),
            ("https://es.corp.example/in?token=abc", true),
            ("https://collector.example/receiver/v1/http/ZaVnC4dhaV39Tn37", false),
            ("https://collector.example/receiver/v1/http/ZaVnC4dhaV39Tn37xQ-_==", true),
            ("is no address", true),
        ] {
            assert_eq!(seems_secret("outputs.o.url", url), secret, "{url}");
        }
    }

    #[test]
    fn only_a_header_whose_name_says_so_is_a_secret() {
        for name in
            ["authorization", "Proxy-Authorization", "x-api-key", "X-Sumo-Token", "client-secret-2", "Cookie"]
        {
            assert!(seems_secret(&format!("outputs.o.headers.{name}"), "a"), "{name}");
        }
        for name in ["content-type", "Accept", "x-scope-orgid", "user-agent", "x-keyspace"] {
            assert!(!seems_secret(&format!("outputs.o.headers.{name}"), "a"), "{name}");
        }
        assert!(seems_secret("outputs.o.token", "https://es.corp.example"), "under any other key");
    }

    #[test]
    fn what_others_can_read_along_is_told_from_what_stays_on_the_machine() {
        for (url, told) in [
            ("http://splunk.example:8088", true),
            ("http://10.0.0.7:8088", true),
            ("http://[2001:db8::1]", true),
            ("https://splunk.example:8088", false),
            ("http://localhost:4318", false),
            ("http://127.1.2.3", false),
            ("http://[::1]:8088", false),
        ] {
            let mut warnings = Vec::new();
            in_the_clear(Some(&url.into()), "outputs.s.url", &mut warnings);
            let all = [
                "outputs.s.url: http:// shows the token and the audit trail to anybody in between; use https://",
            ];
            assert_eq!(warnings, if told { &all[..] } else { &[] }, "{url}");
        }
        let (mut warnings, several) = (Vec::new(), serde_json::json!(["https://a", "http://b"]));
        in_the_clear(Some(&several), "outputs.s.url", &mut warnings);
        assert!(warnings.len() == 1 && warnings[0].starts_with("outputs.s.url[1]: "), "{warnings:?}");
    }
}
