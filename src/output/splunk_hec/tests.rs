use serde_json::json;

use super::*;
use crate::http::HttpSettings;
use crate::json::Text;
use crate::time::Millis;

struct Fixed;

impl Format for Fixed {
    fn encode(&self, _: &AuditEvent<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"a":1}"#);
    }
}

fn output(table: Value) -> Result<SplunkHec, BuildError> {
    let context =
        OutputContext { name: "splunk".into(), format: FormatName::Canonical, http: HttpSettings::default() };
    SplunkHec::new(parse(table)?, context)
}

fn frame(table: Value, event: &AuditEvent<'_>) -> String {
    let mut frame = Vec::new();
    output(table).unwrap().encode(event, &Fixed, &mut frame);
    String::from_utf8(frame).unwrap()
}

#[test]
fn an_event_is_wrapped_in_the_keys_that_hec_knows() {
    let event = AuditEvent {
        event_time: Millis::new(1_767_609_296_007),
        workspace_id: Some(Text::from_plain("77")),
        service_name: Some(Text::from_plain("say \"hi\"")),
        action_name: Some(Text::from_plain("")),
        event_id: Some(Text::from_plain("e1")),
        ..AuditEvent::default()
    };
    assert_eq!(
        frame(json!({"url": "https://s:8088", "token": "t", "index": "main"}), &event),
        concat!(
            r#"{"time":1767609296.007,"host":"77","source":"unknown","sourcetype":"databricks:audit","#,
            r#""index":"main","event":{"a":1},"#,
            r#""fields":{"workspace_id":"77","service_name":"say \"hi\"","event_id":"e1"}}"#
        )
    );
}

#[test]
fn a_missing_time_and_missing_fields_are_left_out() {
    let table =
        json!({"url": "https://s:8088", "token": "t", "source": "a", "host": "h\"", "sourcetype": "x"});
    let expected = r#"{"host":"h\"","source":"a","sourcetype":"x","event":{"a":1}}"#;
    assert_eq!(frame(table.clone(), &AuditEvent::default()), expected);
    let event = AuditEvent { event_id: Some(Text::from_plain("e")), ..AuditEvent::default() };
    let mut without_fields = table;
    without_fields["fields"] = json!(false);
    assert_eq!(frame(without_fields, &event), expected);
}

#[test]
fn a_wrong_configuration_names_its_key_and_never_the_token() {
    for (table, key) in [
        (json!({"url": "splunk:8088", "token": "hunter2"}), "url: "),
        (json!({"url": "https://s/services/collector/event", "token": "hunter2"}), "url: "),
        (json!({"url": "https://s", "token": "hunter2", "index": ""}), "index: "),
        (json!({"url": "https://s", "token": "hunter2\n3"}), "token: "),
        (json!({"url": "https://s", "token": {"env": "AUDITFERRY_NO_SUCH_VARIABLE"}}), "token: "),
        (json!({"url": "https://s", "token": "hunter2", "source": "{nothing}"}), "source: "),
        (json!({"url": "https://s", "token": "hunter2", "ack_timeout": "0s"}), "ack_timeout: "),
        (json!({"url": [], "token": "hunter2"}), "url: "),
        (json!({"url": ["https://s", "https://t/services/collector"], "token": "hunter2"}), "url: "),
    ] {
        let error = output(table).err().unwrap().to_string();
        assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
    }
    let config: Config = parse(json!({"url": "https://s", "token": "hunter2"})).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}
