//! JSON that is read without `serde_json` is what `serde_json` takes it for.

use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::{self, Text, edit, elements, envelope, kind, members, scan, unescape, write_compact};

/// `data`: a text that may be JSON.
pub fn json(data: &[u8]) {
    cut(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    quoted(text);
    let mut found = Vec::new();
    let scanned = scan::object(text, |key, value, _| found.push((key, value)));
    let valid = serde_json::from_str::<&RawValue>(text).is_ok();
    assert!(valid || !scanned, "not JSON, and taken: {text}");
    if !valid {
        return;
    }
    let walked: Vec<_> = members(text).collect();
    if scanned {
        assert_eq!(found, walked, "{text}");
    }
    // A number or a nesting that only a raw value can keep is none of a tree's.
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    if let Value::Object(object) = &value {
        let last =
            |name: &str| walked.iter().rfind(|(key, _)| unescape(key) == name).map(|(_, value)| *value);
        for (key, value) in object.iter().filter(|(key, _)| !key.contains('\u{fffd}')) {
            assert_eq!(
                last(key).and_then(|text| serde_json::from_str(text).ok()).as_ref(),
                Some(value),
                "{key}"
            );
        }
    }
    if let Value::Array(array) = &value {
        let found: Vec<Value> =
            elements(text).map(|element| serde_json::from_str(element).unwrap()).collect();
        assert_eq!(&found, array);
    }
    if let Value::String(plain) = &value {
        let read = Text::from_json(text.trim());
        assert_eq!(&read.plain(), plain);
        assert_eq!(read.quoted(), Text::from_plain(plain).quoted());
    }
    let mut compact = Vec::new();
    write_compact(text, &mut compact);
    let compact = String::from_utf8(compact).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&compact).ok(), Some(value), "{compact}");
    let _ = kind(text.trim_start());
    edited(&compact);
}

/// Any text becomes a JSON string and comes back.
fn quoted(text: &str) {
    let quoted = Text::from_plain(text);
    assert_eq!(quoted.quoted(), serde_json::to_string(text).unwrap());
    assert_eq!(quoted.plain(), text);
    let mut out = b"x".to_vec();
    out.extend_from_slice(text.as_bytes());
    json::quote_from(1, &mut out);
    assert_eq!(out[1..], *quoted.quoted().as_bytes());
}

/// An object stays one when it is joined with another, and when a member of it is renamed.
fn edited(compact: &str) {
    let mut out = br#"{"first":1"#.to_vec();
    let second = out.len();
    out.extend_from_slice(compact.as_bytes());
    edit::join_objects(0, second, &mut out);
    assert!(serde_json::from_slice::<IgnoredAny>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
    edit::rename_member("\"a\"", "\"renamed\"", 0, &mut out);
    assert!(serde_json::from_slice::<IgnoredAny>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
}

/// The records of a message lie in it, in order, and an envelope that is JSON is cut into its elements.
fn cut(message: &[u8]) {
    let records = envelope::records(message);
    let mut end = 0;
    for record in &records {
        assert!(record.start >= end && record.start < record.end && record.end <= message.len());
        end = record.end;
    }
    if let Ok(array) = serde_json::from_slice::<Vec<&RawValue>>(message)
        && !array.is_empty()
    {
        let found: Vec<_> = records.iter().map(|record| &message[record.clone()]).collect();
        assert_eq!(found, array.iter().map(|element| element.get().as_bytes()).collect::<Vec<_>>());
    }
}
