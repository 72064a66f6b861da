//! The shape of the Sumo Logic Databricks Audit app: the 17 columns, their nested values as JSON strings.
//!
//! `event_time` comes first: Sumo Logic takes a message's time from its first characters.

use crate::canonical::{TimeText, write_source, write_text};
use crate::event::{AuditEvent, Nested};
use crate::format::Format;
use crate::json::{Text, write_escaped, write_number};

/// Writes the record as the Sumo Logic Databricks Audit app reads it.
#[derive(Clone, Copy, Debug)]
pub struct Sumo;

impl Format for Sumo {
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"event_time\":");
        let time = TimeText::of(event);
        time.write(out);
        column("account_id", event.account_id.as_ref(), out);
        column("action_name", event.action_name.as_ref(), out);
        column("audit_level", event.audit_level.as_ref(), out);
        out.extend_from_slice(b",\"event_date\":");
        time.write_date(out);
        column("event_id", event.event_id.as_ref(), out);
        nested_column("identity_metadata", &event.identity_metadata, out, |metadata, out| {
            inner_text(br#"{\"run_by\":"#, metadata.run_by.as_ref(), out);
            inner_text(br#",\"run_as\":"#, metadata.run_as.as_ref(), out);
            inner_text(br#",\"acting_resource\":"#, metadata.acting_resource.as_ref(), out);
            out.push(b'}');
        });
        column("request_id", event.request_id.as_ref(), out);
        nested_column("request_params", &event.request_params, out, |params, out| {
            write_escaped(&params.0, out);
        });
        nested_column("response", &event.response, out, |response, out| {
            inner_status(response.status_code, out);
            inner_text(br#",\"error_message\":"#, response.error_message.as_ref(), out);
            inner_text(br#",\"result\":"#, response.result.as_ref(), out);
            out.push(b'}');
        });
        column("service_name", event.service_name.as_ref(), out);
        column("session_id", event.session_id.as_ref(), out);
        column("source_ip_address", event.source_ip_address.as_ref(), out);
        column("user_agent", event.user_agent.as_ref(), out);
        nested_column("user_identity", &event.user_identity, out, |identity, out| {
            inner_text(br#"{\"email\":"#, identity.email.as_ref(), out);
            inner_text(br#",\"subject_name\":"#, identity.subject_name.as_ref(), out);
            out.push(b'}');
        });
        column("version", event.version.as_ref(), out);
        column("workspace_id", event.workspace_id.as_ref(), out);
        write_source(event, out);
        out.push(b'}');
    }
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn column(name: &str, text: Option<&Text<'_>>, out: &mut Vec<u8>) {
    key(name, out);
    write_text(text, out);
}

/// Appends a column whose value is a string that holds JSON; `write` escapes that JSON as it goes.
fn nested_column<T>(
    name: &str,
    nested: &Nested<'_, T>,
    out: &mut Vec<u8>,
    write: impl FnOnce(&T, &mut Vec<u8>),
) {
    key(name, out);
    if matches!(nested, Nested::Null) {
        return out.extend_from_slice(b"null");
    }
    out.push(b'"');
    match nested {
        Nested::Null => {}
        Nested::Value(value) => write(value, out),
        Nested::Raw(text) => {
            inner_text(br#"{\"_raw\":"#, Some(text), out);
            out.push(b'}');
        }
    }
    out.push(b'"');
}

/// Appends a member inside a JSON string; what stands before its value is given as it is written there.
fn inner_text(before: &[u8], text: Option<&Text<'_>>, out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    write_escaped(text.map_or("null", Text::quoted), out);
}

/// The status is a text there: `"status_code":"200"`.
fn inner_status(status_code: Option<i64>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{\"status_code\":"#);
    let Some(status_code) = status_code else { return out.extend_from_slice(b"null") };
    out.extend_from_slice(b"\\\"");
    if status_code < 0 {
        out.push(b'-');
    }
    write_number(status_code.unsigned_abs(), out);
    out.extend_from_slice(b"\\\"");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use serde_json::Value;

    use super::*;
    use crate::canonical;
    use crate::event::samples;

    fn encoded(event: &AuditEvent<'_>) -> String {
        let mut out = Vec::new();
        Sumo.encode(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_login_is_written_as_the_app_reads_it() {
        let expected = r#"{"event_time":"2026-01-05T10:34:56.123Z","account_id":"5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10","action_name":"login","audit_level":"WORKSPACE_LEVEL","event_date":"2026-01-05","event_id":"b16ae5f9-5adc-8976-a950-8f554d185403","identity_metadata":null,"request_id":"ServiceMain-7f31c0aa91d20002","request_params":"{\"user\":\"dana@example.com\",\"authenticationMethod\":\"SSO\"}","response":"{\"status_code\":\"200\",\"error_message\":null,\"result\":null}","service_name":"accounts","session_id":"6d4c2b7e-11aa-4f0e-8f0a-1d2e3f4a5b6c","source_ip_address":"198.51.100.24","user_agent":"Mozilla/5.0 (X11; Linux x86_64)","user_identity":"{\"email\":\"dana@example.com\",\"subject_name\":null}","version":"2.0","workspace_id":"2748391056473829","_source":{"shardName":"example-shard-1","cloud":"aws"}}"#;
        assert_eq!(encoded(&samples::login()), expected);
    }

    #[test]
    fn a_refused_read_keeps_its_reason_inside_the_response_text() {
        let expected = r#"{"event_time":"2026-01-05T10:35:12.001Z","account_id":"5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10","action_name":"getTable","audit_level":"ACCOUNT_LEVEL","event_date":"2026-01-05","event_id":"65442c80-824f-818c-854f-bb58527bf15d","identity_metadata":null,"request_id":"b2a7c1d4-5e6f-4a8b-9c0d-112233445566","request_params":"{\"full_name_arg\":\"main.sales.orders\",\"workspace_id\":\"2748391056473829\",\"metastore_id\":\"0d9c8b7a-6f5e-4d3c-2b1a-09f8e7d6c5b4\"}","response":"{\"status_code\":\"403\",\"error_message\":\"PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'main.sales'.\",\"result\":null}","service_name":"unityCatalog","session_id":null,"source_ip_address":"10.20.30.40","user_agent":null,"user_identity":"{\"email\":\"erin@example.com\",\"subject_name\":null}","version":"2.0","workspace_id":"0"}"#;
        assert_eq!(encoded(&samples::refused_read()), expected);
    }

    #[test]
    fn a_command_without_an_address_is_escaped_twice_inside_its_parameters() {
        let line = encoded(&samples::command());
        assert!(line.contains(r#""request_params":"{\"notebookId\":\"4471920038815526\",\"commandText\":\"SELECT \\\"a\\\"\\n... truncated\"}""#), "{line}");
        assert!(line.contains(r#""identity_metadata":"{\"run_by\":\"dana@example.com\",\"run_as\":\"data-eng-group\",\"acting_resource\":null}""#), "{line}");
        assert!(line.contains(r#""source_ip_address":null"#), "{line}");
    }

    #[test]
    fn an_empty_event_has_all_columns_as_null() {
        let expected = r#"{"event_time":null,"account_id":null,"action_name":null,"audit_level":null,"event_date":null,"event_id":null,"identity_metadata":null,"request_id":null,"request_params":null,"response":null,"service_name":null,"session_id":null,"source_ip_address":null,"user_agent":null,"user_identity":null,"version":null,"workspace_id":null}"#;
        assert_eq!(encoded(&AuditEvent::default()), expected);
    }

    #[test]
    fn a_column_that_held_no_json_is_still_a_string_that_holds_json() {
        let line: Value = serde_json::from_str(&encoded(&samples::unreadable_columns())).unwrap();
        assert_eq!(line["response"], r#"{"_raw":"{\"email\":\"da"}"#);
    }

    proptest! {
        /// Whatever the event holds, unwrapping the nested strings gives the canonical record but for the status.
        #[test]
        fn unwrapping_gives_the_canonical_record(event in samples::any_event()) {
            let line = encoded(&event);
            prop_assert!(!line.contains('\n'));
            let mut unwrapped: Value = serde_json::from_str(&line).unwrap();
            for column in ["identity_metadata", "request_params", "response", "user_identity"] {
                if let Value::String(text) = &unwrapped[column] {
                    unwrapped[column] = serde_json::from_str(text).unwrap();
                }
            }
            if let Some(Value::String(status)) = unwrapped.pointer("/response/status_code").cloned() {
                unwrapped["response"]["status_code"] = status.parse::<i64>().unwrap().into();
            }
            let mut out = Vec::new();
            canonical::write(&event, &mut out);
            prop_assert_eq!(unwrapped, serde_json::from_slice::<Value>(&out).unwrap());
        }
    }
}
