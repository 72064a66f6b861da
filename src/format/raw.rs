//! The record as it was.

use serde::de::IgnoredAny;

use crate::event::AuditEvent;
use crate::format::Format;
use crate::json::object::Object;

/// Writes the record's own text.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Format for Raw {
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        // A record with a broken escape was read all the same and is no JSON: what it is put into would be none either.
        if event.extra("repaired").is_some() && serde_json::from_slice::<IgnoredAny>(event.raw).is_err() {
            Object::write(out, |object| object.plain("_raw", &String::from_utf8_lossy(event.raw)));
            return;
        }
        // A record inside a pretty-printed envelope can span lines; between JSON tokens a line break is a blank.
        out.extend(event.raw.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Extra;
    use crate::json::Text;

    #[test]
    fn a_record_that_is_no_json_is_put_into_a_string() {
        let mut event = AuditEvent { raw: b"{\"a\":\n\"b\"}", ..AuditEvent::default() };
        let mut out = Vec::new();
        Raw.encode(&event, &mut out);
        assert_eq!(out, b"{\"a\": \"b\"}");
        event.raw = br#"{"a":"\q"}"#;
        event.extras.push(Extra { key: Text::from_plain("repaired"), value: "true".into() });
        out.clear();
        Raw.encode(&event, &mut out);
        assert_eq!(out, br#"{"_raw":"{\"a\":\"\\q\"}"}"#);
    }
}
