//! Events for the tests of whatever reads an event.

use std::borrow::Cow;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};

use super::{AuditEvent, Extra, Identity, Nested, Params, Response, RunIdentity};
use smallvec::smallvec;

use crate::json::Text;
use crate::time::Millis;

fn text(plain: &str) -> Option<Text<'static>> {
    Some(Text::from_plain(plain))
}

fn status(status_code: i64, error_message: Option<&str>) -> Nested<'static, Response<'static>> {
    Nested::Value(Response {
        status_code: Some(status_code),
        error_message: error_message.map(Text::from_plain),
        result: None,
    })
}

/// An event of `service` and `action` by a user (or nobody) with these parameters.
pub(crate) fn call(
    service: &str,
    action: &str,
    user: Option<&str>,
    params: &'static str,
) -> AuditEvent<'static> {
    AuditEvent {
        account_id: text("5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10"),
        workspace_id: text("2748391056473829"),
        version: text("2.0"),
        audit_level: text("WORKSPACE_LEVEL"),
        service_name: text(service),
        action_name: text(action),
        user_identity: match user {
            Some(user) => Nested::Value(Identity { email: text(user), subject_name: None }),
            None => Nested::Null,
        },
        request_params: Nested::Value(Params(Cow::Borrowed(params))),
        ..AuditEvent::default()
    }
}

/// A successful login on the AWS route.
pub(crate) fn login() -> AuditEvent<'static> {
    AuditEvent {
        event_time: Millis::new(1_767_609_296_123),
        event_id: text("b16ae5f9-5adc-8976-a950-8f554d185403"),
        source_ip_address: text("198.51.100.24"),
        user_agent: text("Mozilla/5.0 (X11; Linux x86_64)"),
        session_id: text("6d4c2b7e-11aa-4f0e-8f0a-1d2e3f4a5b6c"),
        request_id: text("ServiceMain-7f31c0aa91d20002"),
        response: status(200, None),
        extras: smallvec![
            Extra { key: Text::from_plain("shardName"), value: Cow::Borrowed("\"example-shard-1\"") },
            Extra { key: Text::from_plain("cloud"), value: Cow::Borrowed("\"aws\"") },
        ],
        raw: br#"{"actionName":"login"}"#,
        ..call(
            "accounts",
            "login",
            Some("dana@example.com"),
            r#"{"user":"dana@example.com","authenticationMethod":"SSO"}"#,
        )
    }
}

/// A read that Unity Catalog refused.
pub(crate) fn refused_read() -> AuditEvent<'static> {
    AuditEvent {
        workspace_id: text("0"),
        audit_level: text("ACCOUNT_LEVEL"),
        event_time: Millis::new(1_767_609_312_001),
        event_id: text("65442c80-824f-818c-854f-bb58527bf15d"),
        source_ip_address: text("10.20.30.40"),
        request_id: text("b2a7c1d4-5e6f-4a8b-9c0d-112233445566"),
        response: status(
            403,
            Some("PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'main.sales'."),
        ),
        ..call(
            "unityCatalog",
            "getTable",
            Some("erin@example.com"),
            r#"{"full_name_arg":"main.sales.orders","workspace_id":"2748391056473829","metastore_id":"0d9c8b7a-6f5e-4d3c-2b1a-09f8e7d6c5b4"}"#,
        )
    }
}

/// A notebook command that failed with an exit code, from nowhere, run for a group.
pub(crate) fn command() -> AuditEvent<'static> {
    AuditEvent {
        event_time: Millis::new(1_767_609_333_990),
        event_id: text("95900b57-b240-8689-85bc-862877db666a"),
        request_id: text("c9d8e7f6-0011-4233-8455-66778899aabb"),
        response: status(1, Some("Command failed")),
        identity_metadata: Nested::Value(RunIdentity {
            run_by: text("dana@example.com"),
            run_as: text("data-eng-group"),
            acting_resource: None,
        }),
        extras: smallvec![Extra { key: Text::from_plain("truncated"), value: Cow::Borrowed("true") }],
        ..call(
            "notebook",
            "runCommand",
            Some("data-eng-group"),
            r#"{"notebookId":"4471920038815526","commandText":"SELECT \"a\"\n... truncated"}"#,
        )
    }
}

/// A record whose nested columns are texts that hold no JSON.
pub(crate) fn unreadable_columns() -> AuditEvent<'static> {
    let cut = || Text::from_plain("{\"email\":\"da");
    AuditEvent {
        user_identity: Nested::Raw(cut()),
        request_params: Nested::Raw(cut()),
        response: Nested::Raw(cut()),
        identity_metadata: Nested::Raw(cut()),
        ..login()
    }
}

fn any_text() -> impl Strategy<Value = Option<Text<'static>>> {
    let plain = prop_oneof![
        any::<String>(),
        Just("203.0.113.9".to_owned()),
        Just("dana@example.com".to_owned()),
        Just("8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f".to_owned()),
    ];
    prop::option::of(plain.prop_map(|plain| Text::from_plain(&plain)))
}

fn any_nested<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Nested<'static, T>> {
    prop_oneof![
        1 => Just(Nested::Null),
        3 => value.prop_map(Nested::Value),
        1 => any::<String>().prop_map(|plain| Nested::Raw(Text::from_plain(&plain))),
    ]
}

fn any_params() -> impl Strategy<Value = Params<'static>> {
    let key =
        prop_oneof![any::<String>(), Just("targetUserName".to_owned()), Just("targetGroupName".to_owned())];
    prop::collection::vec((key, prop::option::of(any::<String>())), 0..4).prop_map(|members| {
        let object: serde_json::Map<_, _> =
            members.into_iter().map(|(key, value)| (key, value.into())).collect();
        Params(Cow::Owned(serde_json::Value::Object(object).to_string()))
    })
}

fn any_extra() -> impl Strategy<Value = Extra<'static>> {
    (prop_oneof![any::<String>(), Just("cloud".to_owned())], any::<String>()).prop_map(|(key, value)| Extra {
        key: Text::from_plain(&key),
        value: Cow::Owned(serde_json::Value::String(value).to_string()),
    })
}

const ACTIONS: &[&str] =
    &["login", "getTable", "setAdmin", "deactivateUser", "createGroup", "runCommand", "addPrincipalToGroup"];

/// Any event at all, of an action that each format has a shape for.
pub(crate) fn any_event() -> impl Strategy<Value = AuditEvent<'static>> {
    let action = prop_oneof![
        3 => prop::sample::select(ACTIONS).prop_map(|name| Some(Text::from_plain(name))),
        1 => any_text(),
    ];
    let texts = prop::collection::vec(any_text(), 10);
    let identity = any_nested(
        (any_text(), any_text()).prop_map(|(email, subject_name)| Identity { email, subject_name }),
    );
    let response = any_nested(
        (prop::option::of(any::<i64>()), any_text(), any_text())
            .prop_map(|(status_code, error_message, result)| Response { status_code, error_message, result }),
    );
    let metadata = any_nested(
        (any_text(), any_text(), any_text()).prop_map(|(run_by, run_as, acting_resource)| RunIdentity {
            run_by,
            run_as,
            acting_resource,
        }),
    );
    let time = prop::option::of(any::<i64>());
    let extras = prop::collection::vec(any_extra(), 0..3);
    (action, texts, time, identity, any_nested(any_params()), response, metadata, extras).prop_map(
        |(
            action_name,
            mut texts,
            time,
            user_identity,
            request_params,
            response,
            identity_metadata,
            extras,
        )| {
            let mut next = || texts.pop().flatten();
            AuditEvent {
                account_id: next(),
                workspace_id: next(),
                version: next(),
                event_time: time.and_then(Millis::new),
                audit_level: next(),
                event_id: next(),
                service_name: next(),
                action_name,
                source_ip_address: next(),
                user_agent: next(),
                session_id: next(),
                request_id: next(),
                user_identity,
                request_params,
                response,
                identity_metadata,
                extras: extras.into(),
                raw: b"{\"a\":\n \"\xff\"}",
                span: 0..0,
                redactions: 0,
                written: None,
            }
        },
    )
}
