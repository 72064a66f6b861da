use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;
use crate::event::samples;

fn line(version: OcsfVersion, event: &AuditEvent<'_>) -> String {
    let mut out = Vec::new();
    Ocsf { version }.encode(event, &mut out);
    String::from_utf8(out).unwrap()
}

fn encoded(event: &AuditEvent<'_>) -> Value {
    serde_json::from_str(&line(OcsfVersion::default(), event)).unwrap()
}

#[test]
fn a_login_is_an_authentication_logon() {
    let dana =
        json!({"name": "dana@example.com", "email_addr": "dana@example.com", "type_id": 1, "type": "User"});
    let expected = json!({
        "time": 1_767_609_296_123_i64,
        "category_uid": 3,
        "category_name": "Identity & Access Management",
        "class_uid": 3002,
        "class_name": "Authentication",
        "type_uid": 300_201,
        "activity_id": 1,
        "activity_name": "Logon",
        "severity_id": 1,
        "status_id": 1,
        "status": "Success",
        "status_code": "200",
        "metadata": {
            "version": "1.7.0",
            "product": {"name": "Databricks", "vendor_name": "Databricks"},
            "profiles": ["cloud"],
            "uid": "b16ae5f9-5adc-8976-a950-8f554d185403",
            "event_code": "login",
            "log_name": "accounts",
            "log_version": "2.0",
            "correlation_uid": "ServiceMain-7f31c0aa91d20002",
            "tenant_uid": "5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10",
            "original_time": "2026-01-05T10:34:56.123Z",
        },
        "cloud": {"provider": "aws"},
        "actor": {"user": dana, "session": {"uid": "6d4c2b7e-11aa-4f0e-8f0a-1d2e3f4a5b6c"}},
        "user": dana,
        "service": {"name": "Databricks", "uid": "2748391056473829"},
        "src_endpoint": {"ip": "198.51.100.24"},
        "api": {
            "operation": "login",
            "service": {"name": "accounts"},
            "request": {"uid": "ServiceMain-7f31c0aa91d20002"},
        },
        "http_request": {"user_agent": "Mozilla/5.0 (X11; Linux x86_64)"},
        "http_response": {"code": 200},
        "unmapped": {
            "workspace_id": "2748391056473829",
            "audit_level": "WORKSPACE_LEVEL",
            "request_params": {"user": "dana@example.com", "authenticationMethod": "SSO"},
            "_source": {"shardName": "example-shard-1", "cloud": "aws"},
        },
    });
    assert_eq!(encoded(&samples::login()), expected);
}

#[test]
fn a_refused_read_is_a_failed_api_read_with_its_reason() {
    let event = encoded(&samples::refused_read());
    assert_eq!((&event["type_uid"], &event["activity_name"]), (&json!(600_302), &json!("Read")));
    assert_eq!((&event["status_id"], &event["status_code"]), (&json!(2), &json!("403")));
    let reason = "PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'main.sales'.";
    assert_eq!(event["status_detail"], reason);
    assert_eq!(event["http_response"], json!({"code": 403}));
    assert_eq!(event["api"]["operation"], "getTable");
    assert_eq!(event.get("cloud"), None);
    assert_eq!(event["metadata"].get("profiles"), None, "the cloud profile requires a provider");
}

#[test]
fn a_command_from_nowhere_has_its_service_as_endpoint_and_its_exit_code_is_no_http_status() {
    let event = encoded(&samples::command());
    assert_eq!((&event["activity_id"], &event["activity_name"]), (&json!(99), &json!("runCommand")));
    assert_eq!(event["src_endpoint"], json!({"svc_name": "notebook"}));
    assert_eq!((&event["status_id"], &event["status_code"]), (&json!(2), &json!("1")));
    assert_eq!(event.get("http_response"), None);
    let run = json!({"run_by": "dana@example.com", "run_as": "data-eng-group"});
    assert_eq!(event["unmapped"]["identity_metadata"], run);
}

#[test]
fn an_empty_event_still_has_what_the_class_requires() {
    let expected = json!({
        "time": 0,
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "type_uid": 600_399,
        "activity_id": 99,
        "activity_name": "Other",
        "severity_id": 1,
        "status_id": 0,
        "status": "Unknown",
        "metadata": {"version": "1.7.0", "product": {"name": "Databricks", "vendor_name": "Databricks"}},
        "actor": {"app_name": "unknown"},
        "src_endpoint": {"name": "unknown"},
        "api": {"operation": "unknown"},
    });
    assert_eq!(encoded(&AuditEvent::default()), expected);
}

#[test]
fn columns_that_held_no_json_are_unmapped() {
    let event = encoded(&samples::unreadable_columns());
    for column in ["request_params", "response", "user_identity", "identity_metadata"] {
        assert_eq!(event["unmapped"][column], json!({"_raw": "{\"email\":\"da"}), "{column}");
    }
    assert_eq!(event["user"], json!({"name": "unknown", "type_id": 0, "type": "Unknown"}));
}

#[test]
fn a_user_is_typed_by_its_form_as_far_as_the_version_knows() {
    let uuid = "8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f";
    for (version, user, expected) in [
        (OcsfVersion::V1_7, uuid, json!({"name": uuid, "uid": uuid, "type_id": 4, "type": "Service"})),
        (OcsfVersion::V1_5, uuid, json!({"name": uuid, "uid": uuid, "type_id": 99, "type": "Service"})),
        (OcsfVersion::V1_7, "System-User", json!({"name": "System-User", "type_id": 3, "type": "System"})),
        (OcsfVersion::V1_7, "data-eng", json!({"name": "data-eng", "type_id": 0, "type": "Unknown"})),
    ] {
        let event = samples::call("jobs", "runNow", Some(user), "{}");
        let event: Value = serde_json::from_str(&line(version, &event)).unwrap();
        assert_eq!(event["actor"]["user"], expected);
    }
}

#[test]
fn the_version_decides_what_metadata_says() {
    for (version, spelled, truncated) in [
        (OcsfVersion::V1_5, "1.5.0", None),
        (OcsfVersion::V1_6, "1.6.0", Some(&Value::Bool(true))),
        (OcsfVersion::V1_8, "1.8.0", Some(&Value::Bool(true))),
    ] {
        let event: Value = serde_json::from_str(&line(version, &samples::command())).unwrap();
        assert_eq!(event["metadata"]["version"], spelled);
        assert_eq!(event["metadata"].get("is_truncated"), truncated);
    }
    let whole = encoded(&samples::login());
    assert_eq!(whole["metadata"].get("is_truncated"), None);
}

#[test]
fn identity_classes_name_whom_they_change() {
    let admin = Some("dana@example.com");
    let erin = json!({
        "name": "erin@example.com", "uid": "42", "email_addr": "erin@example.com", "type_id": 1, "type": "User",
    });
    let target = r#"{"targetUserName":"erin@example.com","targetUserId":"42","targetGroupName":"admins"}"#;
    for (action, type_uid) in [
        ("add", 300_101),
        ("activateUser", 300_102),
        ("deactivateUser", 300_105),
        ("delete", 300_106),
        ("setAdmin", 300_501),
        ("removeAdmin", 300_502),
        ("addPrincipalToGroup", 300_603),
        ("removePrincipalFromGroup", 300_604),
    ] {
        let event = encoded(&samples::call("accounts", action, admin, target));
        assert_eq!((&event["type_uid"], &event["user"]), (&json!(type_uid), &erin), "{action}");
        assert_eq!(event["actor"]["user"]["name"], "dana@example.com");
        assert_eq!(event.get("api"), None, "without a cloud these classes have no api attribute");
    }
    let group = encoded(&samples::call("accounts", "createGroup", admin, r#"{"targetGroupId":"7"}"#));
    assert_eq!((&group["group"], group.get("user")), (&json!({"uid": "7"}), None));
    let nameless = encoded(&samples::call("accounts", "deleteGroup", admin, "{}"));
    assert_eq!(nameless["group"], json!({"name": "unknown"}));
}

#[test]
fn a_factor_is_added_by_its_owner_but_nobody_deletes_himself_unnamed() {
    let owner = encoded(&samples::call("accounts", "mfaAddKey", Some("dana@example.com"), "{}"));
    assert_eq!(owner["user"]["name"], "dana@example.com");
    let deleted = encoded(&samples::call("accounts", "delete", Some("dana@example.com"), "{}"));
    assert_eq!(deleted["user"]["name"], "unknown");
    let by_id =
        encoded(&samples::call("accounts", "changePassword", Some("a@b"), r#"{"targetUserId":"42"}"#));
    assert_eq!(by_id["user"], json!({"uid": "42", "type_id": 0, "type": "Unknown"}));
}

#[test]
fn a_refused_address_is_a_logon_of_the_user_in_the_parameters() {
    let event = AuditEvent {
        source_ip_address: Some(Text::from_plain("1.2.3.4:5")),
        ..samples::call("accounts", "IpAccessDenied", None, r#"{"path":"/","userName":"erin@example.com"}"#)
    };
    let event = encoded(&event);
    assert_eq!((&event["type_uid"], &event["user"]["name"]), (&json!(300_201), &json!("erin@example.com")));
    assert_eq!(event["src_endpoint"], json!({"name": "1.2.3.4:5"}));
    assert_eq!(event["actor"], json!({"app_name": "accounts"}));
}

#[test]
fn a_grant_names_the_privilege_which_its_class_requires_until_1_9() {
    for (service, action, params, type_uid, privileges) in [
        ("secrets", "putAcl", r#"{"principal":"a@b","permission":"READ"}"#, 300_501, "READ"),
        ("clusters", "changeClusterAcl", r#"{"aclPermissionSet":"[\"Attach\"]"}"#, 300_501, "[\"Attach\"]"),
        ("accounts", "setAdmin", r#"{"targetUserName":"erin@example.com"}"#, 300_501, "admin"),
        ("secrets", "deleteAcl", r#"{"principal":"a@b"}"#, 300_502, "unknown"),
        // Its number of 1.9 is none of 1.5 to 1.8.
        ("workspace", "updateRoleAssignment", r#"{"principal_id":"7"}"#, 300_599, "unknown"),
    ] {
        let event = encoded(&samples::call(service, action, Some("dana@example.com"), params));
        assert_eq!((&event["type_uid"], &event["privileges"]), (&json!(type_uid), &json!([privileges])));
    }
    assert_eq!(encoded(&samples::login()).get("privileges"), None);
}

fn any_version() -> impl Strategy<Value = OcsfVersion> {
    prop_oneof![
        Just(OcsfVersion::V1_5),
        Just(OcsfVersion::V1_6),
        Just(OcsfVersion::V1_7),
        Just(OcsfVersion::V1_8)
    ]
}

fn has_one_of(object: &Value, keys: &[&str]) -> bool {
    keys.iter().any(|key| object.get(key).is_some())
}

proptest! {
    /// Whatever the event holds: one line of JSON with all that the schema requires of its class.
    #[test]
    fn any_event_has_what_its_class_requires(version in any_version(), event in samples::any_event()) {
        let line = line(version, &event);
        prop_assert!(!line.contains('\n'));
        let event: Value = serde_json::from_str(&line).unwrap();
        let number = |key: &str| event[key].as_i64().unwrap();
        prop_assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
        prop_assert_eq!(number("category_uid"), number("class_uid") / 1000);
        prop_assert!(event["time"].is_i64() && event["severity_id"].is_i64());
        prop_assert!(event["metadata"]["version"].is_string() && event["metadata"]["product"].is_object());
        prop_assert!(has_one_of(&event["actor"], &["user", "session", "app_name"]));
        prop_assert!(has_one_of(&event["src_endpoint"], &["ip", "name", "svc_name"]));
        match number("class_uid") {
            3001 | 3002 | 3005 => prop_assert!(has_one_of(&event["user"], &["name", "uid"])),
            3006 => prop_assert!(has_one_of(&event["group"], &["name", "uid"])),
            _ => prop_assert!(event["api"]["operation"].is_string()),
        }
        prop_assert_eq!(number("class_uid") == 3002, event["service"]["name"].is_string());
        prop_assert_eq!(number("class_uid") == 3005, event["privileges"][0].is_string());
        prop_assert_eq!(event.get("cloud").is_some(), event["metadata"].get("profiles").is_some());
    }

    /// Every column is in the event, under its attribute or unmapped.
    #[test]
    fn any_column_is_found_again(event in samples::any_event()) {
        let found = encoded(&event);
        let plain = |text: &Option<Text<'_>>| text.as_ref().map_or(Value::Null, |text| text.plain().into());
        for (column, pointer) in [
            (&event.account_id, "/metadata/tenant_uid"),
            (&event.workspace_id, "/unmapped/workspace_id"),
            (&event.version, "/metadata/log_version"),
            (&event.audit_level, "/unmapped/audit_level"),
            (&event.event_id, "/metadata/uid"),
            (&event.service_name, "/metadata/log_name"),
            (&event.action_name, "/metadata/event_code"),
            (&event.user_agent, "/http_request/user_agent"),
            (&event.session_id, "/actor/session/uid"),
            (&event.request_id, "/metadata/correlation_uid"),
        ] {
            prop_assert_eq!(found.pointer(pointer).cloned().unwrap_or_default(), plain(column), "{}", pointer);
        }
        let mut out = Vec::new();
        crate::canonical::write(&event, &mut out);
        let record: Value = serde_json::from_slice(&out).unwrap();
        for column in ["request_params", "_source"] {
            let unmapped = found["unmapped"].get(column).cloned().unwrap_or_default();
            let expected = record.get(column).cloned().unwrap_or_default();
            prop_assert_eq!(unmapped, expected, "{}", column);
        }
        let at = |pointer: &str| record.pointer(pointer).cloned().unwrap_or_default();
        prop_assert_eq!(found.get("status_detail").cloned().unwrap_or_default(), at("/response/error_message"));
        let result = found.pointer("/unmapped/response/result").cloned().unwrap_or_default();
        prop_assert_eq!(result, at("/response/result"));
    }
}
