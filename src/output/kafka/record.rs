//! An event between encoding and sending: topic, key, headers and document of one message, each behind its length.

use crate::event::AuditEvent;
use crate::format::Format;
use crate::json;
use crate::kafka::{self, MAX_TOPIC_BYTES};
use crate::output::kafka::Plan;
use crate::template::Template;

/// Bytes of a length.
const LENGTH: usize = 4;

/// One message.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// Empty where the configuration fixes it.
    pub(super) topic: &'a str,
    pub(super) key: &'a [u8],
    /// In the order of the configuration.
    pub(super) headers: Vec<&'a [u8]>,
    pub(super) document: &'a [u8],
}

/// Appends an event.
pub(super) fn write(plan: &Plan, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
    field(frame, |frame| {
        if plan.topic.fixed().is_none() {
            frame.extend_from_slice(topic(&plain(&plan.topic, event)).as_bytes());
        }
    });
    for template in std::iter::once(&plan.key).chain(plan.headers.iter().map(|(_, template)| template)) {
        field(frame, |frame| frame.extend_from_slice(plain(template, event).as_bytes()));
    }
    field(frame, |frame| format.encode(event, frame));
}

/// The messages of a body, in order.
pub(super) fn read(mut body: &[u8], headers: usize) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let mut next = || {
            let (length, rest) = body.split_first_chunk::<LENGTH>()?;
            let (field, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            body = rest;
            Some(field)
        };
        Some(Record {
            topic: std::str::from_utf8(next()?).ok()?,
            key: next()?,
            headers: (0..headers).map_while(|_| next()).collect(),
            document: next()?,
        })
    })
}

fn field(frame: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = frame.len();
    frame.extend_from_slice(&[0; LENGTH]);
    fill(frame);
    let length = u32::try_from(frame.len() - start - LENGTH).unwrap_or_default();
    if let Some(place) = frame.get_mut(start..start + LENGTH) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// The text of a template, as it is.
fn plain(template: &Template, event: &AuditEvent<'_>) -> String {
    let mut quoted = vec![b'"'];
    template.write_escaped(event, &mut quoted);
    quoted.push(b'"');
    json::unescape(&String::from_utf8_lossy(&quoted)).into_owned()
}

/// A name that a topic may have.
fn topic(text: &str) -> String {
    let allowed = |c: char| if kafka::is_of_topic(c) { c } else { '_' };
    let name: String = text.chars().map(allowed).take(MAX_TOPIC_BYTES).collect();
    if matches!(name.as_str(), "." | "..") { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpSettings;
    use crate::json::Text;

    struct Fixed;

    impl Format for Fixed {
        fn encode(&self, _: &AuditEvent<'_>, out: &mut Vec<u8>) {
            out.extend_from_slice(b"{\"a\":1}");
        }
    }

    fn plan(more: &serde_json::Value) -> Plan {
        let mut table = serde_json::json!({ "topic": "audit", "bootstrap_servers": ["k:1"] });
        table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Plan::new(crate::component::parse(table).unwrap(), &HttpSettings::default()).unwrap()
    }

    fn written(plan: &Plan, events: &[AuditEvent<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        events.iter().for_each(|event| write(plan, event, &Fixed, &mut body));
        body
    }

    fn event(id: &str, workspace: &str) -> AuditEvent<'static> {
        AuditEvent {
            event_id: Some(Text::from_plain(id)),
            workspace_id: Some(Text::from_plain(workspace)),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn what_is_written_is_read_message_by_message_and_without_escapes() {
        let plan = plan(&serde_json::json!({
            "topic": "audit-{workspace_id}", "headers": { "a": "{service_name}", "id": "{event_id}" }
        }));
        let body = written(&plan, &[event("e\"1", "7"), event("e2", "a/b\u{e4}")]);
        let records: Vec<Record<'_>> = read(&body, plan.headers.len()).collect();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].topic, records[0].key), ("audit-7", b"e\"1".as_slice()));
        assert_eq!(records[0].headers, [b"unknown".as_slice(), b"e\"1"]);
        assert_eq!(records[0].document, b"{\"a\":1}");
        assert_eq!((records[1].topic, records[1].key), ("audit-a_b_", b"e2".as_slice()));
    }

    #[test]
    fn a_topic_is_always_one_that_can_be() {
        for (text, name) in [("..", "_"), ("a b", "a_b"), (&"x".repeat(300), &"x".repeat(249))] {
            assert_eq!(topic(text), name);
        }
        let plan = plan(&serde_json::json!({ "key": "" }));
        let body = written(&plan, &[event("e1", "7")]);
        let record = read(&body, 1).next().unwrap();
        assert_eq!((record.topic, record.key), ("", b"".as_slice()), "the configuration says it");
    }
}
