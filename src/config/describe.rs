//! What `auditferry check` prints.

use std::fmt::Write;

use super::{Config, OutputSettings};
use crate::format::FormatName;

/// The configuration in words, without secrets: pipelines, what each input reads, how each output is fed, warnings.
pub fn describe(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(config, &mut text);
    text
}

fn write(config: &Config, out: &mut String) -> std::fmt::Result {
    writeln!(out, "state: {}", config.state_dir.display())?;
    match config.server.listen {
        Some(address) => writeln!(out, "status: http://{address}/")?,
        None => writeln!(out, "status: off")?,
    }
    writeln!(out, "memory: {} per pipeline", config.memory)?;
    writeln!(out, "pipelines:")?;
    for pipeline in &config.pipelines {
        writeln!(out, "  {} -> {}", pipeline.input, pipeline.output)?;
    }
    writeln!(out, "inputs:")?;
    for (name, settings) in &config.inputs {
        match (settings.kind.check)(settings.table.clone()) {
            Ok(reads) => writeln!(out, "  {name} ({}): {reads}", settings.kind.name)?,
            Err(_) => writeln!(out, "  {name} ({})", settings.kind.name)?,
        }
    }
    writeln!(out, "outputs:")?;
    for (name, settings) in &config.outputs {
        writeln!(out, "  {name} ({}): {}", settings.kind.name, feeding(settings))?;
    }
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

fn feeding(settings: &OutputSettings) -> String {
    let common = &settings.common;
    let batch = &common.batch;
    let format = match common.format {
        FormatName::Ecs if common.format_options.event_original => "ecs with event.original".to_owned(),
        FormatName::Ocsf => format!("ocsf {}", word(&common.format_options.ocsf_version)),
        format => word(&format),
    };
    let compression = match word(&common.compression) {
        none if none == "none" => "not compressed".to_owned(),
        compression => compression,
    };
    format!(
        "{format}, {compression}, batches of up to {}, {} events or {}, {} in flight",
        batch.max_bytes,
        batch.max_events,
        word(&batch.max_age),
        common.in_flight,
    )
}

/// A value as it is written in the configuration.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
