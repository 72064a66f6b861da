//! What goes over the wire to the collectors that are services, as whole requests, file by file; `UPDATE_GOLDEN=1`
//! writes them anew.

use auditferry::chunk::Origin;
use auditferry::decode::audit::AuditDecoder;
use auditferry::decode::{Decoder, Gaps};
use auditferry::event::AuditEvent;
use auditferry::format::FormatName;
use auditferry::format::canonical::Canonical;
use auditferry::http::HttpSettings;
use auditferry::output::{Output, OutputContext};
use auditferry::registry;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;

use crate::support::collector::{Protocol, apis};
use crate::support::process::repository;

fn build(protocol: Protocol) -> Box<dyn Output> {
    let mut table: toml::Table = toml::from_str(&apis::table(protocol, "https://collector.example")).unwrap();
    let name = table.remove("type").unwrap();
    table.remove("format");
    let kind = registry::OUTPUTS.iter().find(|kind| Some(kind.name) == name.as_str()).unwrap();
    let context = OutputContext {
        name: "out".to_owned(),
        format: FormatName::Canonical,
        http: HttpSettings::default(),
    };
    (kind.build)(serde_json::to_value(table).unwrap(), context).unwrap()
}

/// The body of one request with the records of a delivered object, those of its first lane.
fn body(output: &dyn Output) -> Vec<u8> {
    let framing = output.framing();
    let text = std::fs::read_to_string(repository("tests/golden/delivery.in.ndjson")).unwrap();
    let decoder = AuditDecoder { gaps: Gaps::default() };
    let mut frames = Vec::new();
    let mut first = None;
    for line in text.lines() {
        let mut each = |event: &mut AuditEvent<'_>| {
            let lane = output.lane(event);
            if lane != *first.get_or_insert(lane) {
                return;
            }
            output.encode(event, &Canonical, &mut frames);
            frames.extend_from_slice(framing.terminator);
        };
        decoder.decode(line.as_bytes(), 0, &Origin::default(), &mut Vec::new(), &mut each).unwrap();
    }
    let mut body = output.envelope(first.unwrap(), frames.len());
    body.extend_from_slice(framing.open);
    body.extend_from_slice(&frames);
    if !framing.keep_last {
        body.truncate(body.len() - framing.terminator.len());
    }
    body.extend_from_slice(framing.close);
    body
}

fn check(name: &str, text: &str) {
    let path = repository("tests/golden/bodies").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{name} differs; if this is meant: UPDATE_GOLDEN=1 cargo test --test it bodies"
    );
}

#[tokio::test]
async fn requests_as_json() {
    for (protocol, name) in [
        (Protocol::Datadog, "datadog.json"),
        (Protocol::Sentinel, "sentinel.json"),
        (Protocol::Loki, "loki.json"),
        (Protocol::SecOps, "google_secops.json"),
    ] {
        let body = String::from_utf8(body(&*build(protocol))).unwrap();
        serde_json::from_str::<serde::de::IgnoredAny>(&body).unwrap();
        check(name, &(body + "\n"));
    }
}

/// Protobuf is compared as the official definitions read it.
#[tokio::test]
async fn requests_as_protobuf() {
    let request = ExportLogsServiceRequest::decode(body(&*build(Protocol::Otlp)).as_slice()).unwrap();
    // A release changes nothing else here.
    let text = format!("{request:#?}\n")
        .replace(&format!("version: {:?}", env!("CARGO_PKG_VERSION")), "version: \"…\"");
    check("otlp.txt", &text);
}
