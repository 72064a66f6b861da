use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::canonical;

fn decode_with(decoder: &AuditDecoder, record: &str, occurrence: u32, origin: &Origin) -> Vec<Value> {
    let mut events = Vec::new();
    let mut scratch = Vec::new();
    decoder
        .decode(record.as_bytes(), occurrence, origin, &mut scratch, &mut |event| {
            let mut out = Vec::new();
            canonical::write(event, &mut out);
            events.push(serde_json::from_slice(&out).expect("canonical text is JSON"));
        })
        .unwrap();
    events
}

fn decode(record: &str) -> Value {
    let mut events = decode_with(&AuditDecoder::default(), record, 0, &Origin::default());
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn refuse(record: &[u8]) -> Undecodable {
    let mut scratch = Vec::new();
    AuditDecoder::default()
        .decode(record, 0, &Origin::default(), &mut scratch, &mut |_| panic!("no event"))
        .unwrap_err()
}

const DELIVERED: &str = r#"{"version":"2.0","auditLevel":"WORKSPACE_LEVEL","timestamp":1767609296123,"orgId":"2748391056473829","accountId":"5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10","sourceIPAddress":"198.51.100.24","userAgent":"ua","sessionId":null,"userIdentity":{"email":"dana@example.com","subjectName":null},"serviceName":"accounts","actionName":"login","requestId":"r-1","requestParams":{"user":"dana@example.com"},"response":{"statusCode":200,"errorMessage":null,"result":null}}"#;

fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut record: Value = serde_json::from_str(DELIVERED).unwrap();
    change(&mut record);
    record.to_string()
}

#[test]
fn ids_beyond_64_bits_stay_what_they_are() {
    let record = DELIVERED.replace("\"2748391056473829\"", "1234567890123456789012");
    assert_eq!(decode(&record)["workspace_id"], "1234567890123456789012");
    let params = DELIVERED.replace("\"dana@example.com\"}", "18446744073709551617}");
    assert_eq!(decode(&params)["request_params"]["user"], "18446744073709551617");
}

#[test]
fn parameters_become_strings_and_their_keys_keep_their_case() {
    let record = with(|record| {
        record["requestParams"] =
            json!({"DataSourceId": 1, "dataSourceId": true, "x": {"a": [1, "b"]}, "n": null});
    });
    let expected = json!({"DataSourceId": "1", "dataSourceId": "true", "x": r#"{"a":[1,"b"]}"#, "n": null});
    assert_eq!(decode(&record)["request_params"], expected);
}

#[test]
fn a_nested_text_that_is_no_json_is_kept_as_it_is() {
    let record = with(|record| {
        record["requestParams"] = json!("{\"cut\": \"off");
        record["response"] = json!("oops");
        record["userIdentity"] = json!([1]);
    });
    let event = decode(&record);
    assert_eq!(event["request_params"], json!({"_raw": "{\"cut\": \"off"}));
    assert_eq!(event["response"], json!({"_raw": "oops"}));
    assert_eq!(event["user_identity"], json!({"_raw": "[1]"}));
}

#[test]
fn what_nobody_knows_is_kept_under_source() {
    let record = with(|record| {
        record["newKey"] = json!({"a": 1});
        record["userIdentity"]["agent"] = json!("bot");
        record["response"]["statusCode"] = json!("two hundred");
        record["shardName"] = json!("s-1");
        record["MAX_LOG_MESSAGE_LENGTH"] = json!(16384);
    });
    let event = decode(&record);
    assert_eq!(event["response"]["status_code"], Value::Null);
    assert_eq!(
        event["_source"],
        json!({"user_identity.agent": "bot", "response.statusCode": "two hundred", "newKey": {"a": 1},
               "shard_name": "s-1", "MAX_LOG_MESSAGE_LENGTH": 16384})
    );
}

#[test]
fn an_unknown_record_is_shipped_whole_under_source() {
    let event = decode(r#"{"hello": {"a": [1, 2]}, "n": 1.5}"#);
    assert_eq!(event["event_time"], Value::Null);
    assert_eq!(event["_source"].to_string(), r#"{"hello":{"a":[1,2]},"n":1.5}"#);
    assert_eq!(event.as_object().unwrap().len(), 18, "17 columns and _source");
    assert!(event["event_id"].is_string());
}

#[test]
fn a_status_is_a_number_or_null_whatever_the_record_has() {
    for (status, expected) in [(json!("404"), json!(404)), (json!(-1), json!(-1)), (Value::Null, Value::Null)]
    {
        assert_eq!(
            decode(&with(|record| record["response"]["statusCode"] = status))["response"]["status_code"],
            expected
        );
    }
    let event = decode(&with(|record| record["response"] = json!({})));
    assert_eq!(event["response"], json!({"status_code": null, "error_message": null, "result": null}));
    assert_eq!(decode(&with(|record| record["response"] = Value::Null))["response"], Value::Null);
}

#[test]
fn the_workspace_is_the_records_then_the_paths_and_a_conflict_shows() {
    let origin = Origin { workspace: Some("42".into()), ..Origin::of_object("workspaceId=42/x.json") };
    let decoder = AuditDecoder::default();
    let event = decode_with(
        &decoder,
        &with(|record| {
            record.as_object_mut().unwrap().remove("orgId");
        }),
        0,
        &origin,
    );
    assert_eq!(event[0]["workspace_id"], "42");
    assert_eq!(event[0]["_source"], json!({"object": "workspaceId=42/x.json"}));
    let event = decode_with(&decoder, DELIVERED, 0, &origin);
    assert_eq!(event[0]["workspace_id"], "2748391056473829");
    assert_eq!(event[0]["_source"]["path_workspace_id"], "42");
    let event = decode(&with(|record| record["workspaceId"] = json!(7)));
    assert_eq!(
        (&event["workspace_id"], &event["_source"]["org_id"]),
        (&json!("7"), &json!("2748391056473829"))
    );
}

#[test]
fn addresses_lose_their_port_and_junk_stays() {
    for (text, address, port) in [
        ("203.0.113.9:0", "203.0.113.9", json!(0)),
        ("[2001:db8::1]:443", "2001:db8::1", json!(443)),
        ("2001:db8::1", "2001:db8::1", Value::Null),
    ] {
        let event = decode(&with(|record| record["sourceIPAddress"] = json!(text)));
        assert_eq!((&event["source_ip_address"], &event["_source"]["source_port"]), (&json!(address), &port));
    }
    let event = decode(&with(|record| record["sourceIPAddress"] = json!("unknown:host")));
    assert_eq!(event["source_ip_address"], "unknown:host");
    assert_eq!(event["_source"]["source_ip_invalid"], true);
    assert_eq!(
        decode(&with(|record| record["sourceIPAddress"] = json!("")))["source_ip_address"],
        Value::Null
    );
}

#[test]
fn parameters_of_one_name_are_told_apart_and_so_is_what_is_kept_of_a_record() {
    let with_params =
        |params: &str| with(|record| record["requestParams"] = json!("HERE")).replace("\"HERE\"", params);
    let expected = json!({"user#1": "a", "path": "p", "user": "b"});
    for params in [
        r#"{"user":"a","path":"p","user":"b"}"#,
        r#"{"user":"a", "path":"p","user":"b"}"#,
        r#"{"user":"a","path":"p","\u0075ser":"b"}"#,
        r#""{\"user\":\"a\",\"path\":\"p\",\"user\":\"b\"}""#,
    ] {
        assert_eq!(decode(&with_params(params))["request_params"], expected, "{params}");
    }
    let nested = decode(&with_params(r#"{"user":{"a":1,"a":2}}"#));
    assert_eq!(nested["request_params"]["user"], r#"{"a":1,"a":2}"#, "what became a text is as it was");
    let kept = with(|record| record["more"] = json!("HERE")).replace("\"HERE\"", r#"[{"a":{"b":1, "b":2}}]"#);
    assert_eq!(decode(&kept)["_source"]["more"], json!([{"a": {"b#1": 1, "b": 2}}]));
}

#[test]
fn cut_parameters_are_flagged() {
    for params in [json!({"commandText": "SELECT ... truncated"}), json!({"TRUNCATED": ""})] {
        assert_eq!(decode(&with(|record| record["requestParams"] = params))["_source"]["truncated"], true);
    }
}

#[test]
fn top_level_keys_are_read_in_any_case_and_a_second_spelling_is_not_lost() {
    let record =
        r#"{"TIMESTAMP":"2026-01-05T10:00:00Z","servicename":"a","ServiceName":"b","ACTIONNAME":"c"}"#;
    let event = decode(record);
    assert_eq!((&event["service_name"], &event["action_name"]), (&json!("a"), &json!("c")));
    assert_eq!(event["_source"]["ServiceName"], "b");
}

#[test]
fn half_a_surrogate_pair_loses_no_record_wherever_it_stands() {
    let event = decode(&with(|_| {}).replacen('{', r#"{"\ud800":1,"x\u0041":"\udc00","#, 1));
    assert_eq!(event["action_name"], "login");
    assert_eq!(event["_source"], json!({"\u{fffd}": 1, "xA": "\u{fffd}"}));
}

#[test]
fn what_is_spelled_with_escapes_is_what_it_would_be_without() {
    let spelled = DELIVERED
        .replace("actionName", r"action\u004eame")
        .replace("email", r"em\u0061il")
        .replace("statusCode", r"status\u0043ode")
        .replace(":200", r#":"\u0032\u00300""#)
        .replace("1767609296123", r#""2026-01-05T10:34:56.123\u005a""#);
    assert_eq!(decode(&spelled), decode(DELIVERED));
    let record = r#"{"time":"2026-01-05T10:00:00Z","operationName":"Microsoft.Databricks\/a\"b/c\\d","properties":{}}"#;
    let event = decode(record);
    assert_eq!((&event["service_name"], &event["action_name"]), (&json!("a\"b"), &json!("c\\d")));
    assert_eq!(event["_source"]["azure.operation_name"], "Microsoft.Databricks/a\"b/c\\d");
}

#[test]
fn invalid_escapes_are_mended_and_said() {
    let record = DELIVERED.replace("\"ua\"", r#""C:\Program""#);
    let event = decode(&record);
    assert_eq!(event["user_agent"], "C:Program");
    assert_eq!(event["_source"]["repaired"], true);
}

#[test]
fn what_is_no_record_is_refused_with_its_reason() {
    assert_eq!(refuse(b"{\"a\":1").reason, "not_json");
    assert_eq!(refuse(b"{\"a\":1} trailing").reason, "not_json");
    assert_eq!(refuse(b"{\"a\":\"\xff\"}").reason, "invalid_utf8");
    assert_eq!(refuse(b"42").reason, "not_an_object");
    assert_eq!(refuse(b"{\"records\":[]}").reason, "empty_envelope");
}

#[test]
fn an_envelope_holds_one_event_a_record() {
    let one = r#"{"timestamp":1,"serviceName":"a","actionName":"b"}"#;
    let envelope = format!(r#"{{ "records": [ {one}, {one} , {{"timestamp":2,"serviceName":"a"}}, 7 ] }}"#);
    let events = decode_with(&AuditDecoder::default(), &envelope, 0, &Origin::default());
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["event_id"], decode(one)["event_id"], "an envelope does not change an id");
    assert_ne!(events[0]["event_id"], events[1]["event_id"], "equal records of one envelope stay apart");
    assert_eq!(events[3]["_source"], json!({"value": 7}));
}

#[test]
fn a_record_that_holds_others_is_a_record_all_the_same() {
    for (name, others) in
        [("records", json!([{"a": 1}])), ("records", json!([])), ("jsonPayload", json!({"a": 1}))]
    {
        let event = decode(&with(|record| record[name] = others.clone()));
        assert_eq!((&event["action_name"], &event["_source"][name]), (&json!("login"), &others));
    }
}

#[test]
fn derived_ids_tell_repeats_apart_and_ignore_extras() {
    let id = |record: &str, occurrence| {
        decode_with(&AuditDecoder::default(), record, occurrence, &Origin::default())[0]["event_id"].clone()
    };
    let extra = with(|record| record["shardName"] = json!("x"));
    assert_eq!(id(DELIVERED, 0), id(&extra, 0));
    assert_ne!(id(DELIVERED, 0), id(DELIVERED, 1));
    let escaped = DELIVERED.replace("login", r"l\u006fgin");
    assert_eq!(id(DELIVERED, 0), id(&escaped, 0), "one event in two spellings");
    // The definition must not drift: an upgrade would send everything in the look-back again.
    assert_eq!(id(DELIVERED, 0), "8e5f8563-ddcd-8f3c-be3b-f0f95315c91f");
    assert_eq!(id(DELIVERED, 1), "8b0a5116-1808-8bf9-a835-077d3ed62677");
}

#[test]
fn records_that_cannot_be_read_have_ids_of_their_own() {
    let id = |record: &str, origin: &Origin| {
        decode_with(&AuditDecoder::default(), record, 0, origin)[0]["event_id"].clone()
    };
    let (here, there) = (Origin::of_object("a.json"), Origin::of_object("b.json"));
    assert_ne!(id(r#"{"a":1}"#, &here), id(r#"{"a":2}"#, &here), "a collector that knows ids would lose one");
    assert_eq!(id(r#"{"a":1}"#, &here), id(r#"{ "a": 1 }"#, &there), "wherever it lies");
    let at = |time: &str| with(|record| record["timestamp"] = json!(time));
    assert_ne!(id(&at("yesterday"), &here), id(&at("tomorrow"), &here));
    let envelope = r#"{"records":[{"a":1},{"a":2}]}"#;
    let events = decode_with(&AuditDecoder::default(), envelope, 0, &here);
    assert_ne!(events[0]["event_id"], events[1]["event_id"]);
}

#[test]
fn gcp_wrappers_are_opened() {
    let record = format!(
        r#"{{"insertId":"abc","receiveTimestamp":"2026-01-05T10:00:00Z","jsonPayload":{DELIVERED}}}"#
    );
    let event = decode(&record);
    assert_eq!((&event["event_id"], &event["action_name"]), (&json!("abc"), &json!("login")));
    assert_eq!(event["_source"]["gcp.receiveTimestamp"], "2026-01-05T10:00:00Z");
}

#[test]
fn deprecated_sql_actions_get_their_present_name_beside() {
    let record = r#"{"timestamp":1,"serviceName":"databrickssql","actionName":"startEndpoint"}"#;
    let event = decode(record);
    assert_eq!(
        (&event["action_name"], &event["_source"]["action_alias"]),
        (&json!("startEndpoint"), &json!("startWarehouse"))
    );
}

#[test]
fn columns_azure_lacks_are_derived_and_said_to_be() {
    let gaps = Gaps {
        account_id: Some("acc".to_owned()),
        workspace_ids: HashMap::from([("/subscriptions/x".to_owned(), "99".to_owned())]),
    };
    let decoder = AuditDecoder { gaps };
    let record = r#"{"time":"2026-01-05T10:00:00Z","resourceId":"/SUBSCRIPTIONS/X","operationName":"Microsoft.Databricks/unityCatalog/getTable","properties":{"logId":""}}"#;
    let event = &decode_with(&decoder, record, 0, &Origin::default())[0];
    assert_eq!(event["account_id"], "acc");
    assert_eq!(event["workspace_id"], "99");
    assert_eq!((&event["service_name"], &event["action_name"]), (&json!("unityCatalog"), &json!("getTable")));
    assert_eq!(event["audit_level"], "ACCOUNT_LEVEL");
    assert_eq!(event["_source"]["audit_level_derived"], true);
    assert_eq!(event["event_id"].as_str().unwrap().len(), 36);
    assert_eq!(event["_source"]["cloud"], "azure");
}

#[test]
fn a_workspace_of_azure_is_the_configured_one_else_the_inputs_else_that_of_the_request() {
    let record = r#"{"time":"2026-01-05T10:00:00Z","resourceId":"/SUBSCRIPTIONS/X","properties":{"logId":"1","serviceName":"s","requestParams":"{\"workspace_id\":\"3\"}"}}"#;
    let configured = Gaps {
        account_id: None,
        workspace_ids: HashMap::from([("/subscriptions/x".to_owned(), "1".to_owned())]),
    };
    let found = Origin {
        workspace_ids: BTreeMap::from([("/subscriptions/x".to_owned(), "2".into())]),
        ..Origin::default()
    };
    let of_path = Origin { workspace: Some("4".into()), ..Origin::default() };
    for (gaps, origin, expected) in [
        (configured, &found, "1"),
        (Gaps::default(), &found, "2"),
        (Gaps::default(), &of_path, "4"),
        (Gaps::default(), &Origin::default(), "3"),
    ] {
        let event = &decode_with(&AuditDecoder { gaps }, record, 0, origin)[0];
        assert_eq!(event["workspace_id"], expected);
        assert_eq!(event["_source"]["azure.resource_id"], "/SUBSCRIPTIONS/X");
        assert_eq!(event["_source"].get("path_workspace_id"), None);
    }
}

#[test]
fn no_two_members_of_source_have_the_same_name() {
    let record = with(|record| {
        record["object"] = json!({"id": 7});
        record["cloud"] = json!("theirs");
    });
    let record = record.replacen('{', r#"{"twice":1,"twice":2,"twice":3,"#, 1);
    let origin = Origin { cloud: Some("aws"), ..Origin::of_object("logs/a.json") };
    let mut text = String::new();
    AuditDecoder::default()
        .decode(record.as_bytes(), 0, &origin, &mut Vec::new(), &mut |event| {
            let mut out = Vec::new();
            canonical::write(event, &mut out);
            text = String::from_utf8(out).unwrap();
        })
        .unwrap();
    let source = serde_json::from_str::<Value>(&text).unwrap()["_source"].clone();
    assert_eq!(source["object"], "logs/a.json", "the name is ours");
    assert_eq!(source["cloud"], "aws");
    assert_eq!((&source["object#1"], &source["cloud#1"]), (&json!({"id": 7}), &json!("theirs")));
    assert_eq!(source["twice"], 3);
    assert_eq!((&source["twice#1"], &source["twice#2"]), (&json!(1), &json!(2)));
    for name in ["object", "cloud", "twice"] {
        assert_eq!(text.matches(&format!("\"{name}\":")).count(), 1, "{text}");
    }
}

#[test]
fn envelopes_within_envelopes_end_before_the_stack_does() {
    let deep = format!("{}{DELIVERED}{}", r#"{"records":["#.repeat(3_000), "]}".repeat(3_000));
    let mut events = Vec::new();
    AuditDecoder::default()
        .decode(deep.as_bytes(), 0, &Origin::default(), &mut Vec::new(), &mut |event| {
            events.push(event.extra("records").map(str::len));
        })
        .unwrap();
    assert!(matches!(events[..], [Some(10_000..)]), "kept as an unknown record: {events:?}");
    let batches = format!(r#"[{{"records":[{DELIVERED}]}},{{"records":[{DELIVERED}]}}]"#);
    assert_eq!(decode_with(&AuditDecoder::default(), &batches, 0, &Origin::default()).len(), 2);
}

#[test]
fn properties_within_properties_end_before_the_stack_does() {
    let levels = 100_000;
    let deep = r#"{"properties":"#.repeat(levels) + r#"{"actionName":"c"}"# + &"}".repeat(levels);
    let record =
        format!(r#"{{"time":"2026-01-05T10:00:00Z","properties":{{"actionName":"b","properties":{deep}}}}}"#);
    let mut seen = Vec::new();
    AuditDecoder::default()
        .decode(record.as_bytes(), 0, &Origin::default(), &mut Vec::new(), &mut |event| {
            let action = event.action_name.as_ref().map(|action| action.plain().into_owned());
            seen.push((action, event.extra("properties").map(str::len)));
        })
        .unwrap();
    assert_eq!(seen, [(Some("b".to_owned()), Some(deep.len()))], "the inner ones are kept as they are");
}

#[test]
fn a_member_in_both_spellings_loses_neither_value() {
    let record = with(|record| {
        record["response"] =
            json!({"statusCode": 403, "status_code": 200, "errorMessage": "no", "error_message": null});
        record["userIdentity"] = json!({"subjectName": "a", "subject_name": "b"});
        record["identityMetadata"] = json!({"runBy": "a", "run_by": "b"});
    });
    let event = decode(&record);
    assert_eq!(event["response"], json!({"status_code": 403, "error_message": "no", "result": null}));
    assert_eq!(event["_source"]["response.status_code"], 200);
    assert_eq!(event["user_identity"]["subject_name"], "a");
    assert_eq!(event["_source"]["user_identity.subject_name"], "b");
    assert_eq!(event["identity_metadata"]["run_by"], "a");
    assert_eq!(event["_source"]["identity_metadata.run_by"], "b");
}

#[test]
fn a_date_without_a_readable_time_is_kept() {
    let record =
        r#"{"event_time":"later","event_date":"2026-01-05","service_name":"jobs","action_name":"runNow"}"#;
    let event = decode(record);
    assert_eq!(event["_source"]["event_date"], "2026-01-05");
    assert_eq!(event["_source"]["event_time"], "later");
    let without = decode(&record.replace("\"2026-01-05\"", "null"));
    assert_eq!(without["_source"].get("event_date"), None);
}

#[test]
fn of_a_date_or_a_payload_that_comes_twice_both_are_kept() {
    let row = r#"{"event_time":0,"service_name":"jobs","event_date":"2026-01-05","event_date":"2026-01-06"}"#;
    let source = decode(row)["_source"].clone();
    assert_eq!(
        (&source["event_date#1"], &source["event_date"]),
        (&json!("2026-01-06"), &json!("2026-01-05"))
    );
    let wrapped = decode(&format!(r#"{{"jsonPayload":{DELIVERED},"jsonPayload":"more"}}"#));
    assert_eq!(wrapped["action_name"], "login");
    assert_eq!(wrapped["_source"]["gcp.jsonPayload"], "more");
}
