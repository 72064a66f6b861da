//! Elastic Common Schema, with the canonical record under `databricks.audit`.
//!
//! Elastic has no integration for Databricks to be compatible with; the mapping follows its other cloud audit
//! integrations. Objects are nested: dotted keys would be mapped alike, but not be found by ingest pipelines.

use crate::action;
use crate::canonical::{self, TimeText, write_integer};
use crate::event::{AuditEvent, Outcome};
use crate::format::Format;
use crate::json::object::Object;
use crate::json::{Text, write_quoted};
use crate::principal::Principal;

const ECS_VERSION: &str = "8.17.0";

/// Writes the record in the Elastic Common Schema.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ecs {
    /// Adds the record as it was as `event.original`; it nearly doubles what is stored.
    pub original: bool,
}

impl Format for Ecs {
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        let targets = Targets::of(event);
        Object::write(out, |root| {
            if event.event_time.is_some() {
                root.value("@timestamp", |out| TimeText::of(event).write(out));
            }
            root.object("ecs", |ecs| ecs.plain("version", ECS_VERSION));
            root.object("event", |about| self.write_event(event, about));
            write_outcome_details(event, root);
            write_client(event, root);
            root.object("user", |user| write_user(event, &targets, user));
            root.object("group", |group| group.text("name", targets.group.as_ref()));
            write_place(event, root);
            root.object("related", |related| write_related(event, &targets, related));
            root.object("databricks", |databricks| {
                databricks.value("audit", |out| canonical::write(event, out));
            });
        });
    }
}

/// Whom the action changes.
struct Targets<'a> {
    user: Option<Text<'a>>,
    group: Option<Text<'a>>,
}

impl<'a> Targets<'a> {
    fn of(event: &'a AuditEvent<'_>) -> Self {
        Self { user: event.parameter(&["targetUserName"]), group: event.parameter(&["targetGroupName"]) }
    }
}

impl Ecs {
    fn write_event(self, event: &AuditEvent<'_>, about: &mut Object<'_>) {
        let class = action::of(event);
        about.plain("kind", "event");
        about.plain("module", "databricks");
        about.plain("dataset", "databricks.audit");
        about.text("id", event.event_id.as_ref());
        about.text("provider", event.service_name.as_ref());
        about.text("action", event.action_name.as_ref());
        about.plains("category", class.categories);
        about.plains("type", class.types);
        about.plain(
            "outcome",
            match event.outcome() {
                Outcome::Success => "success",
                Outcome::Failure => "failure",
                Outcome::Unknown => "unknown",
            },
        );
        if let Some(code) = event.response.value().and_then(|response| response.status_code) {
            about.value("code", |out| {
                out.push(b'"');
                write_integer(Some(code), out);
                out.push(b'"');
            });
        }
        if self.original {
            about.value("original", |out| write_quoted(&String::from_utf8_lossy(event.raw), out));
        }
    }
}

fn write_outcome_details(event: &AuditEvent<'_>, root: &mut Object<'_>) {
    root.object("error", |error| {
        error.text("message", event.response.value().and_then(|response| response.error_message.as_ref()));
    });
    root.object("http", |http| {
        http.object("request", |request| request.text("id", event.request_id.as_ref()));
        if let Some(status) = event.http_status() {
            http.object("response", |response| response.integer("status_code", status));
        }
    });
}

fn write_client(event: &AuditEvent<'_>, root: &mut Object<'_>) {
    root.object("source", |source| {
        source.text("address", event.source_ip_address.as_ref());
        source.text("ip", ip(event));
    });
    root.object("user_agent", |agent| agent.text("original", event.user_agent.as_ref()));
}

/// The address where Elasticsearch would take it as one: a document with any other text in an `ip` field is refused.
fn ip<'a>(event: &'a AuditEvent<'_>) -> Option<&'a Text<'a>> {
    event.source_ip().and(event.source_ip_address.as_ref())
}

fn write_user(event: &AuditEvent<'_>, targets: &Targets<'_>, user: &mut Object<'_>) {
    write_principal(event.user(), user);
    let run_as = event.identity_metadata.value().and_then(|metadata| metadata.run_as.as_ref());
    user.object("effective", |effective| write_principal(run_as, effective));
    user.object("target", |target| target.text("name", targets.user.as_ref()));
}

fn write_principal(identity: Option<&Text<'_>>, user: &mut Object<'_>) {
    let Some(identity) = identity else { return };
    let key = match Principal::of(identity) {
        Principal::Email => "email",
        Principal::Uuid => "id",
        Principal::System | Principal::Name => "name",
    };
    user.text(key, Some(identity));
}

fn write_place(event: &AuditEvent<'_>, root: &mut Object<'_>) {
    root.object("cloud", |cloud| {
        cloud.text("provider", event.cloud().as_ref());
        cloud.object("account", |account| account.text("id", event.account_id.as_ref()));
        cloud.object("service", |service| service.plain("name", "databricks"));
    });
    root.object("organization", |organization| organization.text("id", event.workspace_id.as_ref()));
}

fn write_related(event: &AuditEvent<'_>, targets: &Targets<'_>, related: &mut Object<'_>) {
    let metadata = event.identity_metadata.value();
    let candidates = [
        event.user(),
        metadata.and_then(|metadata| metadata.run_by.as_ref()),
        metadata.and_then(|metadata| metadata.run_as.as_ref()),
        targets.user.as_ref(),
    ];
    let users = candidates.iter().enumerate().filter_map(|(at, candidate)| {
        let known = candidates.iter().take(at).any(|earlier| earlier == candidate);
        candidate.filter(|text| !known && !text.is_empty())
    });
    related.texts("user", users);
    related.texts("ip", ip(event));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::*;
    use crate::event::samples;

    fn line(format: Ecs, event: &AuditEvent<'_>) -> String {
        let mut out = Vec::new();
        format.encode(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The document without the canonical record, which has tests of its own.
    fn mapped(event: &AuditEvent<'_>) -> Value {
        let mut document: Value = serde_json::from_str(&line(Ecs::default(), event)).unwrap();
        document["databricks"]["audit"].take();
        document
    }

    #[test]
    fn a_login_is_an_authentication_that_starts() {
        assert!(
            line(Ecs::default(), &samples::login())
                .starts_with(r#"{"@timestamp":"2026-01-05T10:34:56.123Z","#)
        );
        let expected = json!({
            "@timestamp": "2026-01-05T10:34:56.123Z",
            "ecs": {"version": "8.17.0"},
            "event": {
                "kind": "event",
                "module": "databricks",
                "dataset": "databricks.audit",
                "id": "b16ae5f9-5adc-8976-a950-8f554d185403",
                "provider": "accounts",
                "action": "login",
                "category": ["authentication"],
                "type": ["start"],
                "outcome": "success",
                "code": "200",
            },
            "http": {"request": {"id": "ServiceMain-7f31c0aa91d20002"}, "response": {"status_code": 200}},
            "source": {"address": "198.51.100.24", "ip": "198.51.100.24"},
            "user_agent": {"original": "Mozilla/5.0 (X11; Linux x86_64)"},
            "user": {"email": "dana@example.com"},
            "cloud": {
                "provider": "aws",
                "account": {"id": "5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10"},
                "service": {"name": "databricks"},
            },
            "organization": {"id": "2748391056473829"},
            "related": {"user": ["dana@example.com"], "ip": ["198.51.100.24"]},
            "databricks": {"audit": null},
        });
        assert_eq!(mapped(&samples::login()), expected);
    }

    #[test]
    fn a_refused_read_is_a_failed_access_with_its_reason() {
        let document = mapped(&samples::refused_read());
        assert_eq!(document["event"]["category"], json!(["database", "api"]));
        assert_eq!(document["event"]["type"], json!(["access"]));
        assert_eq!(document["event"]["outcome"], "failure");
        assert_eq!(document["http"]["response"]["status_code"], 403);
        let reason = "PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'main.sales'.";
        assert_eq!(document["error"]["message"], reason);
        assert_eq!(document["cloud"].get("provider"), None, "the route does not tell");
    }

    #[test]
    fn an_exit_code_is_no_http_status_and_an_absent_address_leaves_no_source() {
        let document = mapped(&samples::command());
        assert_eq!(document["event"]["code"], "1");
        assert_eq!(document["event"]["outcome"], "failure");
        assert_eq!(document["http"].get("response"), None);
        assert_eq!(document.get("source"), None);
        assert_eq!(
            document["user"],
            json!({"name": "data-eng-group", "effective": {"name": "data-eng-group"}})
        );
        assert_eq!(document["related"], json!({"user": ["data-eng-group", "dana@example.com"]}));
    }

    #[test]
    fn an_empty_event_keeps_what_is_always_true() {
        let expected = json!({
            "ecs": {"version": "8.17.0"},
            "event": {
                "kind": "event", "module": "databricks", "dataset": "databricks.audit",
                "category": ["api"], "type": ["info"], "outcome": "unknown",
            },
            "cloud": {"service": {"name": "databricks"}},
            "databricks": {"audit": null},
        });
        assert_eq!(mapped(&AuditEvent::default()), expected);
    }

    #[test]
    fn a_column_that_held_no_json_is_kept_in_the_canonical_record() {
        let document: Value =
            serde_json::from_str(&line(Ecs::default(), &samples::unreadable_columns())).unwrap();
        assert_eq!(document["databricks"]["audit"]["response"], json!({"_raw": "{\"email\":\"da"}));
        assert_eq!(document["event"]["outcome"], "unknown");
        assert_eq!(document.get("user"), None);
    }

    #[test]
    fn a_user_goes_where_its_form_says() {
        for (user, expected) in [
            ("dana@example.com", json!({"email": "dana@example.com"})),
            ("8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f", json!({"id": "8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f"})),
            ("System-User", json!({"name": "System-User"})),
        ] {
            assert_eq!(mapped(&samples::call("jobs", "runNow", Some(user), "{}"))["user"], expected);
        }
        assert_eq!(mapped(&samples::call("jobs", "runNow", Some(""), "{}")).get("user"), None);
    }

    #[test]
    fn a_change_names_its_user_and_its_group() {
        let params = r#"{"targetUserName":"erin@example.com","targetGroupName":"admins","endpoint":"scim"}"#;
        let document =
            mapped(&samples::call("accounts", "addPrincipalToGroup", Some("dana@example.com"), params));
        assert_eq!(document["user"]["target"]["name"], "erin@example.com");
        assert_eq!(document["group"]["name"], "admins");
        assert_eq!(document["event"]["type"], json!(["group", "change"]));
        assert_eq!(document["related"]["user"], json!(["dana@example.com", "erin@example.com"]));
    }

    #[test]
    fn an_address_that_is_none_stays_out_of_the_ip_fields() {
        for (address, valid) in
            [("fe80::1", true), ("198.51.100.24", true), ("unknown", false), ("1.2.3.4:5", false)]
        {
            let event = AuditEvent {
                source_ip_address: Some(Text::from_plain(address)),
                ..samples::call("jobs", "runNow", None, "{}")
            };
            let document = mapped(&event);
            assert_eq!(document["source"]["address"], address);
            assert_eq!(document["source"].get("ip").is_some(), valid, "{address}");
            assert_eq!(document.get("related").is_some(), valid, "{address}");
        }
    }

    #[test]
    fn the_original_is_there_only_when_asked_for() {
        let read =
            |original| -> Value { serde_json::from_str(&line(Ecs { original }, &samples::login())).unwrap() };
        assert_eq!(read(false)["event"].get("original"), None);
        assert_eq!(read(true)["event"]["original"], r#"{"actionName":"login"}"#);
    }

    proptest! {
        /// Whatever the event holds: one line of JSON, and the canonical record survives in it.
        #[test]
        fn any_event_is_one_line_that_holds_the_canonical_record(event in samples::any_event()) {
            let line = line(Ecs { original: true }, &event);
            prop_assert!(!line.contains('\n'));
            let document: Value = serde_json::from_str(&line).unwrap();
            let mut out = Vec::new();
            canonical::write(&event, &mut out);
            prop_assert_eq!(&document["databricks"]["audit"], &serde_json::from_slice::<Value>(&out).unwrap());
            let plain = |text: &Option<Text<'_>>| text.as_ref().map_or(Value::Null, |text| text.plain().into());
            prop_assert_eq!(&document["event"]["action"], &plain(&event.action_name));
            prop_assert_eq!(&document["source"]["address"], &plain(&event.source_ip_address));
        }
    }
}
