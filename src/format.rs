//! The contract of a format: how an event is written for a collector.

use serde::{Deserialize, Serialize};

use crate::event::AuditEvent;

pub mod canonical;
pub mod ecs;
pub mod ocsf;
pub mod raw;
pub mod sumo;

/// Writes events. Pure; cannot fail.
pub trait Format: Send + Sync {
    /// Appends the event as one JSON object on one line, without a line end.
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>);
}

/// The formats by their configured names.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    /// The 17 columns of `system.access.audit`, nested values as objects, extras under `_source`.
    Canonical,
    /// The same keys with nested values as JSON strings: the shape of the Sumo Logic Databricks Audit app.
    Sumo,
    /// Elastic Common Schema.
    Ecs,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
    /// The record as it was.
    Raw,
}

/// The releases of OCSF that the `ocsf` format can write.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Deserialize,
    Serialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
pub enum OcsfVersion {
    /// 1.5.0: has no `is_truncated` and no service accounts yet.
    #[serde(rename = "1.5.0")]
    #[value(name = "1.5.0")]
    V1_5,
    /// 1.6.0
    #[serde(rename = "1.6.0")]
    #[value(name = "1.6.0")]
    V1_6,
    /// 1.7.0
    #[default]
    #[serde(rename = "1.7.0")]
    #[value(name = "1.7.0")]
    V1_7,
    /// 1.8.0
    #[serde(rename = "1.8.0")]
    #[value(name = "1.8.0")]
    V1_8,
}

impl OcsfVersion {
    /// The version as `metadata.version` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_5 => "1.5.0",
            Self::V1_6 => "1.6.0",
            Self::V1_7 => "1.7.0",
            Self::V1_8 => "1.8.0",
        }
    }
}
