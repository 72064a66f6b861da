//! The sample queries of Sumo Logic's Databricks Audit app, evaluated on what we send.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Place, has, output, record};
use crate::support::process::repository;

const TOTAL_ALERTS: &str = r#"
_sourceCategory="Labs/DatabricksAudit"
| json "action_name", "audit_level", "event_time", "response", "service_name", "source_ip_address", "user_identity", "workspace_id" as action_name, audit_level, event_time, response, service_name, ip_address, user_identity, workspace_id nodrop
| json field=response "status_code", "result", "error_message" as status_code, result, error_message nodrop
| json field=user_identity "email" as email_id nodrop

// global filters
| where email_id matches "{{email_id}}"
| where action_name matches "{{action_name}}"
| where audit_level matches "{{audit_level}}"
| where service_name matches "{{service_name}}"
| where ip_address matches "{{ip_address}}"
| where status_code matches "{{response_code}}"

// panel specific
| where !isNull(email_id)
| count by email_id
| count
"#;

const API_RESPONSE_CODE: &str = r#"
_sourceCategory="Labs/DatabricksAudit"
| json "action_name", "audit_level", "event_time", "response", "service_name", "source_ip_address", "user_identity", "workspace_id" as action_name, audit_level, event_time, response, service_name, ip_address, user_identity, workspace_id nodrop
| json field=response "status_code", "result", "error_message" as status_code, result, error_message nodrop
| json field=request_params "authenticationMethod" as authentication_method nodrop
| json field=user_identity "email" as email_id nodrop

// global filters
| where email_id matches "{{email_id}}"
| where action_name matches "{{action_name}}"
| where audit_level matches "{{audit_level}}"
| where service_name matches "{{service_name}}"
| where ip_address matches "{{ip_address}}"
| where status_code matches "{{response_code}}"

// panel specific
| where !isBlank(event_id) and !isBlank(status_code)
| count by event_id ,status_code
| count as frequency by status_code
| sort by frequency, status_code
"#;

/// The fields of a message.
type Row = BTreeMap<String, String>;

/// A message as Sumo sees it: the members of its JSON are fields, null is none.
fn message(line: &str) -> Row {
    let members: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
    members.into_iter().filter_map(|(name, value)| Some((name, text(&value)?))).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Evaluates a query; a parameter that is not given matches anything, as an app's filters do.
fn evaluate(query: &str, parameters: &[(&str, &str)], mut rows: Vec<Row>) -> Vec<Row> {
    let mut query = query.to_owned();
    for (name, value) in parameters {
        query = query.replace(&format!("{{{{{name}}}}}"), value);
    }
    for step in query.lines().filter_map(|line| line.strip_prefix("| ")) {
        let (operator, rest) = step.split_once(' ').unwrap_or((step, ""));
        match operator {
            "json" => rows.iter_mut().for_each(|row| extract(rest, row)),
            "where" => rows.retain(|row| rest.split(" and ").all(|condition| holds(condition, row))),
            "count" => rows = count(rest, rows),
            "sort" => {}
            other => panic!("{other} is not known here"),
        }
    }
    rows
}

fn words(list: &str) -> Vec<&str> {
    list.split(',').map(|word| word.trim().trim_matches('"')).collect()
}

/// `[field=F] "a", "b" as x, y nodrop`
fn extract(step: &str, row: &mut Row) {
    let step = step.strip_suffix(" nodrop").unwrap();
    let (step, source) = match step.strip_prefix("field=").and_then(|step| step.split_once(' ')) {
        Some((field, step)) => (step, row.get(field).cloned()),
        None => (step, Some(serde_json::to_string(row).unwrap())),
    };
    let (keys, names) = step.split_once(" as ").unwrap();
    let source: BTreeMap<String, Value> =
        source.and_then(|source| serde_json::from_str(&source).ok()).unwrap_or_default();
    for (key, name) in words(keys).into_iter().zip(words(names)) {
        if let Some(value) = source.get(key).and_then(text) {
            row.insert(name.to_owned(), value);
        }
    }
}

fn holds(condition: &str, row: &Row) -> bool {
    let field = |name: &str| row.get(name).map(String::as_str);
    if let Some((name, pattern)) = condition.split_once(" matches ") {
        let pattern = pattern.trim_matches('"');
        return pattern.starts_with("{{") || pattern == "*" || field(name) == Some(pattern);
    }
    let name = condition.split_once('(').unwrap().1.trim_end_matches(')');
    field(name).is_some_and(|value| condition.starts_with("!isNull") || !value.trim().is_empty())
}

/// `[as NAME] by a, b`
fn count(step: &str, rows: Vec<Row>) -> Vec<Row> {
    let by = step.split_once("by ").map(|(_, by)| words(by)).unwrap_or_default();
    let name = step.strip_prefix("as ").and_then(|rest| rest.split(' ').next()).unwrap_or("_count");
    let mut groups: BTreeMap<Row, usize> = BTreeMap::new();
    for row in rows {
        let group = by.iter().filter_map(|name| Some(((*name).to_owned(), row.get(*name)?.clone())));
        *groups.entry(group.collect()).or_default() += 1;
    }
    let counted = |(mut row, number): (Row, usize)| {
        row.insert(name.to_owned(), number.to_string());
        row
    };
    groups.into_iter().map(counted).collect()
}

fn lines(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(&format!("tests/golden/{name}"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What is sent to Sumo, and the same events in the canonical format, which the expectations are read from.
fn events() -> (Vec<Row>, Vec<Value>) {
    let of = |format: &str| {
        let shapes = ["delivery", "table_row", "azure_diagnostic"];
        shapes.map(|shape| lines(&format!("{shape}.{format}.ndjson"))).concat()
    };
    let messages: Vec<Row> = of("sumo").iter().map(|line| message(line)).collect();
    let canonical = of("canonical").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    (messages, canonical)
}

#[test]
fn the_panel_of_users_finds_every_user() {
    let (messages, canonical) = events();
    let emails: BTreeSet<&str> =
        canonical.iter().filter_map(|event| event["user_identity"]["email"].as_str()).collect();
    assert!(emails.len() > 2, "{emails:?}");
    let found = evaluate(TOTAL_ALERTS, &[], messages.clone());
    assert_eq!(found[0]["_count"], emails.len().to_string());
    let one = emails.first().unwrap();
    assert_eq!(evaluate(TOTAL_ALERTS, &[("email_id", one)], messages)[0]["_count"], "1");
}

#[test]
fn the_panel_of_response_codes_finds_every_code() {
    let (messages, canonical) = events();
    let mut codes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for event in &canonical {
        if let Some(code) = event["response"]["status_code"].as_i64() {
            codes.entry(code.to_string()).or_default().insert(event["event_id"].as_str().unwrap());
        }
    }
    assert!(codes.len() > 1, "{codes:?}");
    let found = evaluate(API_RESPONSE_CODE, &[], messages.clone());
    let found: BTreeMap<&str, usize> =
        found.iter().map(|row| (row["status_code"].as_str(), row["frequency"].parse().unwrap())).collect();
    assert_eq!(found, codes.iter().map(|(code, ids)| (code.as_str(), ids.len())).collect());
    // The app's filter of codes, too.
    let one = evaluate(API_RESPONSE_CODE, &[("response_code", "200")], messages);
    assert_eq!((one.len(), one[0]["frequency"].as_str()), (1, codes["200"].len().to_string().as_str()));
}

#[test]
fn how_somebody_logged_in_is_found_within_the_parameters() {
    let (mut messages, canonical) = events();
    let step = "field=request_params \"authenticationMethod\" as authentication_method nodrop";
    messages.iter_mut().for_each(|row| extract(step, row));
    let found: Vec<_> = messages.iter().filter_map(|row| row.get("authentication_method")).collect();
    let expected: Vec<_> = canonical
        .iter()
        .filter_map(|event| event["request_params"]["authenticationMethod"].as_str())
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_category_follows_the_workspace_and_no_request_mixes_two() {
    let (place, sumo) = (Place::new(), Collector::start(Protocol::Sumo).await);
    let of = |workspace: usize, number: usize| {
        record(&format!("w{workspace}-{number}"))
            .replace("\"orgId\":\"7\"", &format!("\"orgId\":\"{workspace}\""))
            + "\n"
    };
    place.put("a.json", (0..60).map(|number| of(number % 3, number)).collect::<String>());
    let keys = "category = 'databricks/{workspace_id}'\nfields = { service = '{service_name}' }";
    let ferry = place.start("", &[output(&sumo, keys)]).await;
    has(&sumo, 60).await;
    ferry.rests().await;
    ferry.stop().await;
    let requests = sumo.requests();
    assert!(requests.len() < 30, "{} requests", requests.len());
    for request in &requests {
        let workspace = request.header("x-sumo-category").unwrap().strip_prefix("databricks/").unwrap();
        assert_eq!(request.header("x-sumo-fields"), Some("service=accounts"));
        for line in request.body.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["workspace_id"], workspace);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_too_long_for_one_message_is_cut_or_sent_as_it_is() {
    for (policy, whole) in [("truncate", false), ("send", true)] {
        let (place, sumo) = (Place::new(), Collector::start(Protocol::Sumo).await);
        let long = format!("\"requestParams\":{{\"commandText\":\"{}\"}},\"requestId\"", "x".repeat(100_000));
        place.put("a.json", record("r1").replace("\"requestId\"", &long) + "\n" + &record("r2") + "\n");
        let ferry = place.start("", &[output(&sumo, &format!("split_long = '{policy}'"))]).await;
        has(&sumo, 2).await;
        ferry.rests().await;
        ferry.stop().await;
        let events = sumo.events();
        let cut = events.iter().find(|event| event["request_id"] == "r1").unwrap();
        assert_eq!(cut.to_string().len() > 65_536, whole);
        assert_eq!(cut["_source"]["truncated"] == true, !whole);
        assert!(place.letters().is_empty());
    }
}
