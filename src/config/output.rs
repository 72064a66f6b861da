//! The keys every output has, apart from its own.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::error::{Report, below};
use super::schema;
use crate::component;
use crate::compress::Encoding;
use crate::format::{FormatName, OcsfVersion};
use crate::http::HttpSettings;
use crate::output::{BatchMost, OutputDefaults};
use crate::registry::FormatOptions;
use crate::units::{ByteSize, Period};

/// How an output is fed, whatever its kind.
#[derive(Clone, Debug)]
pub struct OutputCommon {
    /// How events are written.
    pub format: FormatName,
    /// What the format is told.
    pub format_options: FormatOptions,
    /// Whether secrets are taken out of events.
    pub redact: bool,
    /// Whether events that another input sends to this output too are counted.
    pub count_overlap: bool,
    /// How bodies are compressed.
    pub compression: Encoding,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// Requests under way at once.
    pub in_flight: usize,
    /// Refusals in a row that become dead letters before the output holds.
    pub hold_after_refusals: usize,
    /// How connections are made.
    pub http: HttpSettings,
}

/// When a batch is full: at whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Uncompressed bytes.
    pub max_bytes: ByteSize,
    /// Events.
    pub max_events: usize,
    /// Time since its first event.
    pub max_age: Period,
}

/// The common keys as they stand in the file. What is not set comes from the kind's defaults.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Common {
    /// How events are written.
    #[schemars(with = "FormatName")]
    format: Option<FormatName>,
    /// With `format = "ecs"`: add the record as it was as `event.original`. It nearly doubles what is stored.
    event_original: bool,
    /// With `format = "ocsf"`: the release of the schema that is written.
    ocsf_version: OcsfVersion,
    /// Whether secrets are taken out of events on their way to this output, as `redaction` says. Default true.
    redact: bool,
    /// Counts the events that another input sends to this output too, as `overlap_total`: by workspace, second, service,
    /// action, request and status, since ids differ by route. Takes about 10 MB. Default false.
    count_overlap: bool,
    /// How the body of a request is compressed.
    #[schemars(with = "Encoding")]
    compression: Option<Encoding>,
    /// When a batch is full and sent: at whichever limit comes first.
    batch: Batch,
    /// Most requests under way at once, from 1 to 256, all pipelines to the output together. It begins with four and becomes
    /// more only while that makes it faster, as on a distant collector; fewer while the collector is strained. After a
    /// crash at most so many batches are sent again.
    #[schemars(with = "usize", range(min = 1, max = 256))]
    in_flight: Option<usize>,
    /// Events that become dead letters when the collector refuses one after the other and takes none; then the output
    /// holds, since a wrong setting is likelier than so many bad events. 0 never holds for that.
    hold_after_refusals: usize,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            format: None,
            event_original: false,
            ocsf_version: OcsfVersion::default(),
            redact: true,
            count_overlap: false,
            compression: None,
            batch: Batch::default(),
            in_flight: None,
            hold_after_refusals: 100,
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Batch {
    /// Most bytes of a batch, before compression, with what the protocol puts around its events. A single larger event makes a
    /// batch of its own.
    #[schemars(with = "ByteSize")]
    max_bytes: Option<ByteSize>,
    /// Most events of a batch.
    #[schemars(with = "usize", range(min = 1))]
    max_events: Option<usize>,
    /// Longest wait of an event for its batch to fill.
    #[schemars(with = "Period")]
    max_age: Option<Period>,
}

/// Takes the common keys out of an output's table and reads them; the component's own keys stay.
pub(super) fn take(
    table: &mut Value,
    defaults: &OutputDefaults,
    path: &str,
    report: &mut Report,
) -> Option<OutputCommon> {
    let mut common = split(table, &schema::common_keys());
    let http = split(&mut common, &schema::http_keys());
    let common: Option<Common> = report.each(common, path, component::parse);
    let http: Option<HttpSettings> = report.each(http, path, component::parse);
    let common = resolve(common?, http?, defaults);
    must_not_be_zero(&common, path, report);
    must_be_taken(&common.batch, defaults.most, path, report);
    Some(common)
}

fn split(table: &mut Value, keys: &[String]) -> Value {
    let Some(table) = table.as_object_mut() else { return Value::Null };
    Value::Object(keys.iter().filter_map(|key| table.remove_entry(key)).collect())
}

fn resolve(common: Common, http: HttpSettings, defaults: &OutputDefaults) -> OutputCommon {
    let Common {
        format,
        event_original,
        ocsf_version,
        redact,
        count_overlap,
        compression,
        batch,
        in_flight,
        hold_after_refusals,
    } = common;
    OutputCommon {
        format: format.unwrap_or(defaults.format),
        format_options: FormatOptions { event_original, ocsf_version },
        redact,
        count_overlap,
        compression: compression.unwrap_or(defaults.compression),
        batch: BatchLimits {
            max_bytes: batch.max_bytes.unwrap_or(ByteSize(defaults.max_bytes)),
            max_events: batch.max_events.unwrap_or(defaults.max_events),
            max_age: batch.max_age.unwrap_or(Period(defaults.max_age)),
        },
        in_flight: in_flight.unwrap_or(defaults.in_flight),
        hold_after_refusals,
        http,
    }
}

/// Counts have their range in the schema; texts with a unit have not.
fn must_not_be_zero(common: &OutputCommon, path: &str, report: &mut Report) {
    if common.batch.max_bytes.0 == 0 {
        report.error(&below(path, "batch.max_bytes"), "must be more than 0, such as \"1MiB\"");
    }
    if common.batch.max_age.0.is_zero() {
        report.error(&below(path, "batch.max_age"), "must be longer than 0, such as \"1s\"");
    }
    if common.http.connection_age.0.is_zero() {
        report.error(&below(path, "connection_age"), "must be longer than 0, such as \"5m\"");
    }
    if common.http.timeout.0.is_zero() {
        report.error(&below(path, "timeout"), "must be longer than 0, such as \"30s\"");
    }
}

/// A batch that the collector takes in no case would be refused again and again, and halved each time.
fn must_be_taken(batch: &BatchLimits, most: Option<BatchMost>, path: &str, report: &mut Report) {
    let Some(BatchMost { bytes, events, why }) = most else { return };
    if batch.max_bytes.0 > bytes {
        let most = ByteSize(bytes);
        report.error(&below(path, "batch.max_bytes"), format!("must be at most \"{most}\": {why}"));
    }
    if let Some(events) = events.filter(|events| batch.max_events > *events) {
        report.error(&below(path, "batch.max_events"), format!("must be at most {events}: {why}"));
    }
}
