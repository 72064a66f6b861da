//! A template that an event fills breaks nothing of what it is put into: a string of JSON, a header.

use std::borrow::Cow;

use crate::event::{AuditEvent, Extra};
use crate::json::Text;
use crate::template::Template;
use crate::time::Millis;

/// `data`: the template, and behind a NUL the values of the event, a NUL between them.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut values = text.split('\0');
    let Ok(template) = Template::parse(values.next().unwrap_or_default()) else { return };
    let value = |text: &str| Some(Text::from_plain(text));
    let next = |values: &mut std::str::Split<'_, char>| values.next().and_then(value);
    let mut event = AuditEvent {
        account_id: next(&mut values),
        workspace_id: next(&mut values),
        event_id: next(&mut values),
        service_name: next(&mut values),
        action_name: next(&mut values),
        audit_level: next(&mut values),
        ..AuditEvent::default()
    };
    event.event_time = values.next().and_then(Millis::parse);
    if let Some(object) = values.next() {
        let value = if object.starts_with('{') {
            Cow::Borrowed("{}")
        } else {
            Cow::Owned(serde_json::to_string(object).unwrap())
        };
        event.extras.push(Extra { key: Text::from_plain("object"), value });
    }
    let mut quoted = b"\"".to_vec();
    template.write_escaped(&event, &mut quoted);
    quoted.push(b'"');
    let filled: String =
        serde_json::from_slice(&quoted).unwrap_or_else(|error| panic!("{error}: {}", quoted.escape_ascii()));
    if let Some(fixed) = template.fixed() {
        assert_eq!(filled, fixed);
    }
    crate::output::sumo::fuzzing(&template, &event);
    let same = Template::parse(template.as_str()).unwrap();
    assert_eq!(same, template);
}
