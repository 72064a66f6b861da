//! A record is decoded to the same events each time, and every format and every output writes each of them as JSON.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::canonical;
use crate::chunk::Origin;
use crate::decode::audit::AuditDecoder;
use crate::decode::redacting::RedactingDecoder;
use crate::decode::{Decoder, Gaps, Undecodable};
use crate::event::AuditEvent;
use crate::format::{Format, FormatName, OcsfVersion};
use crate::http::HttpSettings;
use crate::output::{Output, OutputContext};
use crate::redact::Redactor;
use crate::registry::{self, FormatOptions};
use crate::time::Date;

const COLUMNS: [&str; 17] = [
    "account_id",
    "action_name",
    "audit_level",
    "event_date",
    "event_id",
    "event_time",
    "identity_metadata",
    "request_id",
    "request_params",
    "response",
    "service_name",
    "session_id",
    "source_ip_address",
    "user_agent",
    "user_identity",
    "version",
    "workspace_id",
];

/// Outputs that frame an event as lines of JSON, with what they are built of.
const FRAMED: [(&str, &str); 9] = [
    (
        "splunk_hec",
        r#"{"url":"http://127.0.0.1:8088","token":"t","index":"i-{workspace_id}","source":"{object}"}"#,
    ),
    ("sumo", r#"{"url":"http://127.0.0.1/","category":"{service_name}","fields":{"a":"{action_name}"}}"#),
    ("elastic", r#"{"url":"http://127.0.0.1","api_key":"k","index":"i-{event_date}-{service_name}"}"#),
    ("datadog", r#"{"api_key":"k","hostname":"{object}"}"#),
    (
        "sentinel",
        r#"{"url":"https://a.ingest.monitor.azure.com","rule_id":"dcr-1","stream":"Custom-A","azure":{"tenant_id":"t","client_id":"c","client_secret":"s"}}"#,
    ),
    ("loki", r#"{"url":"http://127.0.0.1"}"#),
    (
        "google_secops",
        r#"{"project":"p","location":"us","instance":"1f2e","log_type":"DATABRICKS","labels":{"a":"{object}"}}"#,
    ),
    ("http", r#"{"url":"http://127.0.0.1"}"#),
    ("file", r#"{"path":"-"}"#),
];

struct Tools {
    formats: Vec<(FormatName, Box<dyn Format>)>,
    outputs: Vec<(&'static str, Box<dyn Output>)>,
    redacting: RedactingDecoder,
    plain: AuditDecoder,
}

impl Tools {
    fn get() -> &'static Self {
        static TOOLS: OnceLock<Tools> = OnceLock::new();
        TOOLS.get_or_init(Self::new)
    }

    fn new() -> Self {
        let mut formats: Vec<_> = FormatName::value_variants()
            .iter()
            .map(|name| (*name, registry::format(*name, FormatOptions::default())))
            .collect();
        let other = FormatOptions { event_original: true, ocsf_version: OcsfVersion::V1_5 };
        formats.push((FormatName::Ecs, registry::format(FormatName::Ecs, other)));
        formats.push((FormatName::Ocsf, registry::format(FormatName::Ocsf, other)));
        let built = FRAMED.into_iter().map(|(name, table)| {
            let kind = registry::OUTPUTS.iter().find(|kind| kind.name == name).unwrap();
            let context = OutputContext {
                name: name.to_owned(),
                format: kind.defaults.format,
                http: HttpSettings::default(),
            };
            let mut table: Value = serde_json::from_str(table).unwrap();
            if name == "google_secops" {
                let pem = include_str!("../azure_identity/test_certificate.pem");
                let key = &pem[pem.find("-----BEGIN PRIVATE KEY-----").unwrap()..];
                let account = json!({ "type": "service_account", "private_key": key, "private_key_id": "k", "client_email": "a@b" });
                table["service_account_key"] = account.to_string().into();
            }
            let output = (kind.build)(table, context);
            (name, output.unwrap_or_else(|error| panic!("{name}: {error}")))
        });
        let outputs: Vec<_> = built.collect();
        let gaps = Gaps {
            account_id: Some("gap".to_owned()),
            workspace_ids: [("/subscriptions/s".to_owned(), "7".to_owned())].into(),
        };
        Self {
            formats,
            outputs,
            redacting: RedactingDecoder {
                decoder: Box::new(AuditDecoder { gaps: gaps.clone() }),
                redactor: Redactor::new(b"key", &[], &[]).unwrap(),
            },
            plain: AuditDecoder { gaps },
        }
    }
}

fn origin(how: u8) -> Origin {
    if how & 1 == 0 {
        return Origin::default();
    }
    Origin {
        workspace: Some("7".into()),
        date: Date::parse("2026-01-05"),
        workspace_ids: BTreeMap::from([("/subscriptions/s".to_owned(), Arc::from("7"))]),
        cloud: Some("aws"),
        ..Origin::of_object("logs/workspaceId=7/date=2026-01-05/\"a\n\u{1b}[2J\".json")
    }
}

/// What is told of an event.
#[derive(Debug, PartialEq)]
struct Told {
    id: String,
    span: std::ops::Range<usize>,
    canonical: String,
}

fn decoded(
    decoder: &dyn Decoder,
    record: &[u8],
    how: u8,
    each: &mut dyn FnMut(&AuditEvent<'_>),
) -> Result<Vec<Told>, Undecodable> {
    let mut told = Vec::new();
    decoder.decode(record, u32::from(how >> 1), &origin(how), &mut Vec::new(), &mut |event| {
        let mut text = Vec::new();
        canonical::write(event, &mut text);
        let id = event.event_id.as_ref().expect("an event has an id").plain().into_owned();
        told.push(Told { id, span: event.span.clone(), canonical: String::from_utf8(text).unwrap() });
        each(event);
    })?;
    assert!(!told.is_empty(), "no event and no reason");
    Ok(told)
}

/// `data`: where the record comes from, and the record.
pub fn records(data: &[u8]) {
    let Some((&how, record)) = data.split_first() else { return };
    let tools = Tools::get();
    let plain = decoded(&tools.plain, record, how, &mut |event| written(event, tools));
    let redacted = decoded(&tools.redacting, record, how, &mut |_| ());
    let (plain, redacted) = match (plain, redacted) {
        (Ok(plain), Ok(redacted)) => (plain, redacted),
        (plain, redacted) => {
            assert_eq!(plain.err(), redacted.err());
            return;
        }
    };
    assert_eq!(plain.len(), redacted.len());
    for (plain, redacted) in plain.iter().zip(&redacted) {
        assert_eq!((&plain.id, &plain.span), (&redacted.id, &redacted.span));
        assert!(plain.span.end <= record.len());
    }
    assert_eq!(decoded(&tools.plain, record, how, &mut |_| ()).unwrap(), plain, "decoding is no function");
    for told in &plain {
        read_again(&told.canonical, tools);
    }
}

/// A canonical record is a record: it is read as the event that it is.
fn read_again(text: &str, tools: &Tools) {
    let columns: Map<String, Value> = match serde_json::from_str(text) {
        Ok(columns) => columns,
        // JSON all the same: it is this reader that has no room for the number.
        Err(error) if error.to_string().starts_with("number out of range") => return,
        Err(error) => panic!("{error}: {text}"),
    };
    let names: Vec<_> = columns.keys().map(String::as_str).filter(|name| *name != "_source").collect();
    assert_eq!(names, COLUMNS, "{text}");
    // Without a time it is recognised as no row of the table.
    if columns["event_time"].is_null() || columns["service_name"].is_null() || columns.contains_key("_source")
    {
        return;
    }
    let again = decoded(&tools.plain, text.as_bytes(), 0, &mut |_| ()).unwrap();
    assert_eq!(again.len(), 1);
    if columns["event_id"] != json!("") {
        assert_eq!(columns["event_id"], json!(again[0].id), "{text}\n{}", again[0].canonical);
    }
}

fn written(event: &AuditEvent<'_>, tools: &Tools) {
    let mut out = Vec::new();
    for (name, format) in &tools.formats {
        out.clear();
        format.encode(event, &mut out);
        one_line_of_json(&out, &format!("{name:?}"));
    }
    for (name, output) in &tools.outputs {
        for (format_name, format) in &tools.formats {
            out.clear();
            output.encode(event, &**format, &mut out);
            let _ = output.fits(&out);
            let lane = output.lane(event);
            let _ = output.envelope(lane, out.len());
            let name = format!("{name} with {format_name:?}");
            let text = std::str::from_utf8(&out).unwrap_or_else(|error| panic!("{name}: {error}"));
            // `_bulk` has a line for what is done and one for what is done it with.
            for part in text.split('\n') {
                one_line_of_json(part.as_bytes(), &name);
            }
        }
    }
}

fn one_line_of_json(text: &[u8], name: &str) {
    let shown = || String::from_utf8_lossy(text).into_owned();
    assert!(!text.contains(&b'\n'), "{name}: {}", shown());
    let value: &RawValue =
        serde_json::from_slice(text).unwrap_or_else(|error| panic!("{name}: {error}: {}", shown()));
    // An element of an envelope that is no object is passed on as it is.
    assert!(value.get().starts_with(['{', '[']) || name.ends_with("Raw"), "{name}: {}", shown());
}
