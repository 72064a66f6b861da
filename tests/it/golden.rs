//! What each shape of record becomes in each format, file by file; `UPDATE_GOLDEN=1` writes them anew.

use std::collections::HashMap;

use auditferry::chunk::Origin;
use auditferry::decode::audit::AuditDecoder;
use auditferry::decode::{Decoder, Gaps};
use auditferry::event::AuditEvent;
use auditferry::format::Format;
use auditferry::format::canonical::Canonical;
use auditferry::format::sumo::Sumo;
use serde_json::{Value, json};

use crate::support::process::{repository, run};

const FORMATS: [&str; 5] = ["canonical", "sumo", "ecs", "ocsf", "raw"];

/// The 17 columns of `system.access.audit`.
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

/// Compares what `simulate` prints for one shape with the files beside it.
fn check(shape: &str) {
    let directory = repository("tests/golden");
    let mut differing = Vec::new();
    for format in FORMATS {
        let input = format!("{shape}.in.ndjson");
        let printed = run(&["simulate", &input, "--format", format], &directory).with(0).stdout;
        for line in printed.lines().filter(|_| format != "raw") {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{format}: {error}: {line}"));
        }
        let name = format!("{shape}.{format}.ndjson");
        let path = directory.join(&name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &printed).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, (printed, expected)) in printed.lines().zip(expected.lines()).enumerate() {
            if printed != expected {
                differing.push(format!("{name}:{}\n  is       {printed}\n  expected {expected}", number + 1));
            }
        }
        if printed.lines().count() != expected.lines().count() {
            differing.push(format!(
                "{name} has {} lines, expected {}",
                printed.lines().count(),
                expected.lines().count()
            ));
        }
    }
    assert!(
        differing.is_empty(),
        "{}\nif this is meant: UPDATE_GOLDEN=1 cargo test --test it golden",
        differing.join("\n")
    );
}

#[test]
fn records_delivered_to_s3_and_gcs() {
    check("delivery");
}

#[test]
fn oddities_of_delivered_records() {
    check("oddities");
}

#[test]
fn records_of_an_azure_diagnostic_setting() {
    check("azure_diagnostic");
}

#[test]
fn an_event_hubs_message_of_several_records() {
    check("event_hubs_envelope");
}

#[test]
fn rows_of_a_log_analytics_export() {
    check("log_analytics");
}

#[test]
fn records_within_a_cloud_logging_wrapper() {
    check("gcp_wrapper");
}

#[test]
fn rows_of_the_system_table() {
    check("table_row");
}

#[test]
fn records_of_no_known_shape() {
    check("unknown");
}

#[test]
fn a_login_by_four_routes() {
    check("one_login");
}

/// What the files of these shapes become in a format, in their order, with the workspace of Azure's resource configured.
fn encoded(shapes: &[&str], format: &dyn Format) -> Vec<Value> {
    encoded_for("7405611902334455", shapes, format)
}

/// The same, with this id for the workspace.
fn encoded_for(workspace: &str, shapes: &[&str], format: &dyn Format) -> Vec<Value> {
    let resource = "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg-data/providers/microsoft.databricks/workspaces/dbw-prod";
    let workspaces = HashMap::from([(resource.to_owned(), workspace.to_owned())]);
    let decoder = AuditDecoder { gaps: Gaps { account_id: None, workspace_ids: workspaces } };
    let mut events = Vec::new();
    for shape in shapes {
        let text = std::fs::read_to_string(repository(&format!("tests/golden/{shape}.in.ndjson"))).unwrap();
        for line in text.lines() {
            let mut each = |event: &mut AuditEvent<'_>| {
                let mut out = Vec::new();
                format.encode(event, &mut out);
                events.push(serde_json::from_slice(&out).unwrap());
            };
            decoder.decode(line.as_bytes(), 0, &Origin::default(), &mut Vec::new(), &mut each).unwrap();
        }
    }
    events
}

/// Compares column by column with a file that was written by hand from the documentation. Ids that are derived are
/// left out: there they follow another rule.
fn assert_columns(events: &[Value], reference: &str) {
    let text = std::fs::read_to_string(repository(&format!("tests/golden/{reference}"))).unwrap();
    let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), expected.len());
    for (number, expected) in expected.iter().enumerate() {
        for column in COLUMNS {
            let found = &events[number][column];
            let id = expected[column].as_str().unwrap_or_default();
            let derived = column == "event_id" && id.as_bytes()[14] == b'8';
            assert!(derived || *found == expected[column], "{reference}:{}: {column}: {found}", number + 1);
        }
    }
}

#[test]
fn every_route_gives_the_columns_that_the_documentation_promises() {
    let shapes = ["delivery", "azure_diagnostic", "log_analytics", "table_row"];
    assert_columns(&encoded(&shapes, &Canonical), "columns.ndjson");
}

/// What each route leaves out or has in another precision, by its column; everything else is the same.
#[test]
fn a_login_by_four_routes_differs_only_in_what_a_route_lacks() {
    let azure = json!({
        "account_id": null,
        "event_time": "2026-01-05T10:34:56.000Z",
        "identity_metadata": null,
        "version": "1.0.0",
    });
    let lacks = [
        // The only id that is derived.
        (
            "delivery",
            json!({ "event_id": "139c85aa-15de-87cd-b40a-7c2b79395c35", "identity_metadata": null }),
        ),
        ("azure_diagnostic", azure.clone()),
        ("log_analytics", azure),
        ("table_row", json!({})),
    ];
    let events = encoded_for("2748391056473829", &["one_login"], &Canonical);
    let whole = &events[3];
    assert_eq!(events.len(), lacks.len());
    for (event, (route, lacks)) in events.iter().zip(lacks) {
        for column in COLUMNS {
            let expected = lacks.get(column).unwrap_or(&whole[column]);
            assert_eq!(event[column], *expected, "{route}: {column}");
        }
        let resource = event.pointer("/_source/azure.resource_id").and_then(Value::as_str);
        assert_eq!(resource.is_some(), matches!(route, "azure_diagnostic" | "log_analytics"), "{route}");
    }
}

#[test]
fn the_sumo_app_finds_its_columns() {
    assert_columns(&encoded(&["delivery", "table_row"], &Sumo), "sumo_columns.ndjson");
}

#[test]
fn an_event_has_the_same_id_in_every_format_that_has_one() {
    for shape in ["delivery", "azure_diagnostic", "table_row"] {
        let read = |format: &str| -> Vec<Value> {
            let path = repository(&format!("tests/golden/{shape}.{format}.ndjson"));
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let ids = |format: &str, pointer: &str| -> Vec<Value> {
            read(format).iter().map(|event| event.pointer(pointer).unwrap().clone()).collect()
        };
        let canonical = ids("canonical", "/event_id");
        assert_eq!(canonical, ids("sumo", "/event_id"));
        assert_eq!(canonical, ids("ecs", "/event/id"));
        assert_eq!(canonical, ids("ocsf", "/metadata/uid"));
    }
}
