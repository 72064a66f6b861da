use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::canonical;
use crate::chunk::Origin;
use crate::decode::Decoder;
use crate::decode::audit::AuditDecoder;

mod rounds;

const LAYOUTS: [Layout; 3] =
    [Layout::DatabricksDelivery, Layout::AzureDiagnostic, Layout::LogAnalyticsExport];

fn options(events: u64) -> Options {
    Options::new(3, 2, events, Date::parse("2026-01-06").unwrap())
}

fn of_layout(layout: Layout, events: u64) -> Options {
    Options { layout, ..options(events) }
}

/// Every file below a directory, by its key.
fn read(directory: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let key = path.strip_prefix(directory).unwrap().to_str().unwrap().replace('\\', "/");
                files.insert(key, fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

fn written(options: Options, round: u32) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    Bucket::new(options).unwrap().write_round(directory.path(), round).unwrap();
    read(directory.path())
}

fn sorted_lines(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines: Vec<_> = files.values().flat_map(|text| text.lines().map(str::to_owned)).collect();
    lines.sort();
    lines
}

fn expected_lines(bucket: &Bucket) -> Vec<String> {
    let mut lines: Vec<_> = bucket.lines().map(|line| String::from_utf8(line).unwrap()).collect();
    lines.sort();
    lines
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_same_options_give_the_same_bytes_and_another_seed_gives_others() {
    for layout in LAYOUTS {
        let once = written(of_layout(layout, 400), 0);
        assert_eq!(once, written(of_layout(layout, 400), 0));
        let other = written(Options { seed: 2, ..of_layout(layout, 400) }, 0);
        assert!(sorted_lines(&once).iter().all(|line| !sorted_lines(&other).contains(line)));
    }
}

#[test]
fn every_line_of_a_delivery_bucket_is_json_with_the_documented_keys() {
    let documented = BTreeSet::from([
        "version",
        "auditLevel",
        "timestamp",
        "orgId",
        "shardName",
        "accountId",
        "sourceIPAddress",
        "userAgent",
        "sessionId",
        "userIdentity",
        "serviceName",
        "actionName",
        "requestId",
        "requestParams",
        "response",
        "MAX_LOG_MESSAGE_LENGTH",
    ]);
    for (key, text) in written(options(3000), 0) {
        let folder = key.strip_prefix("workspaceId=").unwrap().split('/').next().unwrap();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(keys(&record), documented);
            assert_eq!(keys(&record["userIdentity"]), BTreeSet::from(["email", "subjectName"]));
            assert_eq!(record["orgId"], folder);
            assert_eq!(record["auditLevel"] == "ACCOUNT_LEVEL", folder == "0");
            assert!(record["requestParams"].as_object().unwrap().values().all(Value::is_string));
            assert!(record["response"].is_null() || keys(&record["response"]).len() == 3);
        }
    }
}

#[test]
fn azure_lines_hold_json_texts_within_json() {
    for layout in [Layout::AzureDiagnostic, Layout::LogAnalyticsExport] {
        let lines = sorted_lines(&written(of_layout(layout, 3000), 0));
        assert_eq!(lines.len(), 3000);
        for line in lines {
            let record: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let nested = match layout {
                Layout::AzureDiagnostic => {
                    assert_eq!(keys(&record).len(), 8);
                    assert_eq!(keys(&record["properties"]).len(), 9);
                    vec![
                        &record["identity"],
                        &record["properties"]["requestParams"],
                        &record["properties"]["response"],
                    ]
                }
                _ => {
                    assert_eq!(keys(&record).len(), 19);
                    vec![&record["Identity"], &record["RequestParams"], &record["Response"]]
                }
            };
            for value in nested.into_iter().filter(|value| !value.is_null() && *value != "") {
                let inner = match value.as_str() {
                    Some(text) => {
                        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
                    }
                    None => value.clone(),
                };
                assert!(inner.is_object(), "{line}");
            }
        }
    }
}

#[test]
fn lines_are_about_a_kilobyte_long() {
    for (layout, allowed) in LAYOUTS.into_iter().zip([1000..=1100, 1000..=1400, 1000..=1400]) {
        let bucket = Bucket::new(of_layout(layout, 20_000)).unwrap();
        let bytes: usize = bucket.lines().map(|line| line.len() + 1).sum();
        assert!(allowed.contains(&(bytes / 20_000)), "{layout:?}: {}", bytes / 20_000);
    }
}

#[test]
fn objects_lie_where_each_layout_has_them() {
    let delivery = written(options(300), 0);
    let folders: BTreeSet<_> = delivery.keys().map(|key| key.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(folders.len(), 3);
    assert!(folders.contains("workspaceId=0"));
    assert!(delivery.keys().all(|key| {
        let parts: Vec<_> = key.split('/').collect();
        ["date=2026-01-05", "date=2026-01-06"].contains(&parts[1])
            && parts[2].starts_with("auditlogs_")
            && parts[2].ends_with(".json")
    }));
    let diagnostic = written(of_layout(Layout::AzureDiagnostic, 300), 0);
    assert!(diagnostic.contains_key(
        "insights-logs-unitycatalog/resourceId=/SUBSCRIPTIONS/11111111-2222-3333-4444-555555555555/RESOURCEGROUPS/RG-DATA/PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/DBW-0001/y=2026/m=01/d=05/h=08/m=00/PT1H.json"
    ));
    let export = written(of_layout(Layout::LogAnalyticsExport, 300), 0);
    assert!(export.contains_key(
        "am-databricksunitycatalog/WorkspaceResourceId=/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg-logs/providers/microsoft.operationalinsights/workspaces/log-0001/y=2026/m=01/d=05/h=08/m=00/PT05M.json"
    ));
    assert!(!export.keys().any(|key| key.contains("databrickssql")), "data export leaves that table out");
}

#[test]
fn no_two_objects_share_a_key_even_at_the_most_objects_a_day() {
    for layout in LAYOUTS {
        let most = layout.most_objects_per_day().min(3000);
        let objects = u64::from(most) * 6;
        let bucket =
            Bucket::new(Options { objects_per_day: Some(most), ..of_layout(layout, objects) }).unwrap();
        let keys: BTreeSet<_> = bucket.keys().collect();
        assert_eq!(u64::try_from(keys.len()).unwrap(), objects, "{layout:?}");
    }
}

#[test]
fn events_lie_in_the_hour_of_their_blob_or_come_late() {
    let files = written(of_layout(Layout::AzureDiagnostic, 5000), 0);
    let (mut inside, mut late) = (0, 0);
    for (key, text) in files {
        let (_, time) = key.split_once("/y=").unwrap();
        let start = format!("{}-{}-{}T{}", &time[..4], &time[7..9], &time[12..14], &time[17..19]);
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            if record["time"].as_str().unwrap().starts_with(&start) { inside += 1 } else { late += 1 }
        }
    }
    assert_eq!(inside + late, 5000);
    assert!((1..50).contains(&late), "{late}");
}

#[test]
fn exported_rows_lie_in_the_five_minutes_of_their_blob() {
    for (key, text) in written(of_layout(Layout::LogAnalyticsExport, 5000), 0) {
        let (_, time) = key.split_once("/y=").unwrap();
        let first = format!(
            "{}-{}-{}T{}:{}:00Z",
            &time[..4],
            &time[7..9],
            &time[12..14],
            &time[17..19],
            &time[22..24]
        );
        let first = Millis::parse(&first).unwrap().get();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let time = Millis::parse(record["TimeGenerated"].as_str().unwrap()).unwrap().get();
            assert!((first..first + 300_000).contains(&time), "{line}");
        }
    }
}

#[test]
fn delivered_lines_follow_each_other_in_time_but_for_the_late_ones() {
    let (mut backwards, mut of_another_date) = (0, 0);
    for (key, text) in written(options(12_000), 0) {
        let mut last = 0;
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let time = record["timestamp"].as_i64().unwrap();
            let date = Millis::new(time).unwrap().date();
            of_another_date += i32::from(!key.contains(&format!("/date={date}/")));
            backwards += i32::from(time < last);
            last = time.max(last);
        }
    }
    assert!((10..60).contains(&backwards), "{backwards}");
    assert!((1..20).contains(&of_another_date), "{of_another_date}");
}

#[test]
fn a_day_that_is_not_over_holds_nothing_of_the_future_and_one_that_is_over_does_not_change() {
    let now = Millis::parse("2026-01-06T07:30:00Z").unwrap();
    for layout in LAYOUTS {
        let over = of_layout(layout, 3000);
        let whole = written(over.clone(), 0);
        let tomorrow = Millis::parse("2026-01-07T00:00:00Z");
        assert_eq!(written(Options { now: tomorrow, ..over.clone() }, 0), whole);
        let until_now = written(Options { now: Some(now), ..over }, 0);
        assert_eq!(until_now.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
        let times = |files: &BTreeMap<String, String>| -> Vec<Millis> {
            let mut times: Vec<_> = sorted_lines(files).iter().map(|line| time_of(line)).collect();
            times.sort();
            times
        };
        let (whole, until_now) = (times(&whole), times(&until_now));
        assert!(whole.last().unwrap().get() > now.get() + 8 * 3_600_000);
        let last = until_now.last().unwrap();
        // In Azure the last objects of a day begin some hours before its end.
        let near = if layout == Layout::DatabricksDelivery { 60_000 } else { 4 * 3_600_000 };
        assert!(*last < now && last.get() > now.get() - near, "{layout:?}: {last:?}");
        let before = |times: &[Millis]| times.iter().take_while(|time| time.date() < now.date()).count();
        assert_eq!(whole[..before(&whole)], until_now[..before(&until_now)], "{layout:?}: the day before");
    }
}

fn time_of(line: &str) -> Millis {
    let mut times = Vec::new();
    let mut scratch = Vec::new();
    AuditDecoder::default()
        .decode(line.as_bytes(), 0, &Origin::default(), &mut scratch, &mut |event| {
            times.extend(event.event_time);
        })
        .unwrap();
    times[0]
}

#[test]
fn oddities_occur_and_are_rare() {
    let bucket = Bucket::new(options(20_000)).unwrap();
    let lines = expected_lines(&bucket);
    for (oddity, rarest, most) in [
        ("\"response\":null", 50, 4000),
        ("\"statusCode\":1,", 50, 400),
        ("\"userAgent\":\"\"", 100, 1200),
        ("\"userAgent\":null", 50, 600),
        ("\"sourceIPAddress\":null", 100, 4000),
        ("\"email\":\"System-User\"", 100, 2000),
        ("\"email\":\"8c0f7f0e-", 500, 4000),
        ("... truncated\"", 30, 400),
        ("\"requestParams\":{\"TRUNCATED\":\"\"}", 5, 200),
        ("東京", 100, 9000),
        (r"\ud83d\ude80", 100, 9000),
        ("{\\\"job_id\\\":", 50, 1000),
        ("\"statusCode\":403", 50, 600),
    ] {
        let count = lines.iter().filter(|line| line.contains(oddity)).count();
        assert!((rarest..=most).contains(&count), "{oddity}: {count}");
    }
}

#[test]
fn request_ids_are_those_of_the_lines_and_never_repeat() {
    let bucket = Bucket::new(options(10_000)).unwrap();
    let ids: Vec<_> = bucket.request_ids().collect();
    let in_lines: Vec<_> = bucket
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_slice(&line).unwrap();
            record["requestId"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids, in_lines);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 10_000);
}

#[test]
fn repeats_are_exact_few_and_not_among_the_request_ids() {
    let bucket = Bucket::new(Options { repeats: 20_000, ..options(10_000) }).unwrap();
    let lines = expected_lines(&bucket);
    let distinct: BTreeSet<_> = lines.iter().collect();
    let repeats = lines.len() - distinct.len();
    assert!((100..=300).contains(&repeats), "{repeats}");
    assert_eq!(bucket.request_ids().count(), distinct.len());
}

#[test]
fn an_option_out_of_range_is_named_with_what_is_allowed() {
    for (options, expected) in [
        (Options { workspaces: 0, ..options(1) }, "--workspaces must be 1 to 1000000, not 0"),
        (Options { days: 0, ..options(1) }, "--days must be 1 to 36500, not 0"),
        (Options { objects_per_day: Some(0), ..options(1) }, "--objects-per-day must be 1 to 100000, not 0"),
        (Options { repeats: 100_001, ..options(1) }, "--repeats must be 0 to 100000, not 100001"),
    ] {
        assert_eq!(Bucket::new(options).unwrap_err().to_string(), expected);
    }
}

#[test]
fn more_objects_than_events_leave_the_rest_out() {
    let bucket = Bucket::new(options(5)).unwrap();
    assert_eq!(bucket.keys().count(), 5);
    assert_eq!(bucket.lines().count(), 5);
}

#[test]
fn the_bucket_of_the_quick_start_is_what_the_generator_writes() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/delivery");
    assert!(
        read(&samples) == written(options(300), 0),
        "write it anew: auditferry generate --out samples/delivery --events 300 --end-date 2026-01-06"
    );
}

#[test]
fn every_generated_record_maps_to_one_event_with_an_id_of_its_own() {
    let decoder = AuditDecoder::default();
    let mut scratch = Vec::new();
    for layout in LAYOUTS {
        let bucket = Bucket::new(of_layout(layout, 3000)).unwrap();
        let mut ids = BTreeSet::new();
        for line in bucket.lines() {
            let decoded = decoder.decode(&line, 0, &Origin::default(), &mut scratch, &mut |event| {
                let mut canonical = Vec::new();
                canonical::write(event, &mut canonical);
                let event: Value = serde_json::from_slice(&canonical).unwrap();
                ids.insert(event["event_id"].to_string());
                assert!(event["event_time"].as_str().unwrap().starts_with("2026-01-0"));
                for column in ["service_name", "action_name", "request_id"] {
                    assert!(event[column].is_string(), "{column}: {event}");
                }
                assert!(event["user_identity"]["email"].is_string(), "{event}");
                let parameters = event["request_params"].as_object().unwrap();
                assert!(parameters.values().all(Value::is_string), "{event}");
                let response = &event["response"];
                assert!(response.is_null() || response["status_code"].is_number(), "{event}");
            });
            assert_eq!(decoded, Ok(()), "{}", String::from_utf8_lossy(&line));
        }
        assert_eq!(ids.len(), 3000, "{layout:?}");
    }
}
