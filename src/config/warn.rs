//! What works but should not stay so.

use serde_json::Value;

use super::describe::word;
use super::error::below;
use super::layers::ENVIRONMENT;
use super::{Config, schema};
use crate::format::{FormatName, OcsfVersion};

/// The warnings, a line each, naming the key.
pub(super) fn warnings(config: &Config) -> Vec<String> {
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
    warnings
}

fn insecure(path: &str) -> String {
    format!(
        "{path}.tls.insecure: certificates are not verified; anybody in between can read and change the audit trail; \
         use tls.ca_file instead"
    )
}

/// Secrets that stand in a file that others may read, back up or commit.
fn plain_secrets(config: &Config, value: &Value, schema: &Value, path: &str, warnings: &mut Vec<String>) {
    match value {
        Value::String(_) if schema::is_secret(schema) => {
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
