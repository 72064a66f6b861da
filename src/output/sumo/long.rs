//! Events that are longer than a message may be: Sumo Logic slices them, and no slice is an event.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::event::{AuditEvent, Extra, Nested, Params};
use crate::json::Text;

/// Longest message that Sumo Logic keeps in one piece, in bytes.
pub(super) const MAX_MESSAGE: usize = 65_536;
/// What the marks may add at most.
const MARKS: usize = 512;
/// Stands at the end of a parameter that was cut.
const CUT: &str = "… (cut)";

/// The event with its longest request parameters cut so that `excess` bytes less are written, and marked: the value ends
/// in `… (cut)`, and `_source` has `truncated` and the whole lengths in `truncated_parameters`. None if there is nothing
/// to cut.
pub(super) fn shortened<'a>(event: &AuditEvent<'a>, excess: usize) -> Option<AuditEvent<'a>> {
    let mut params: Map<String, Value> = serde_json::from_str(&event.request_params.value()?.0).ok()?;
    let mut excess = excess + MARKS;
    let mut whole = Map::new();
    while excess > 0 {
        let not_cut = params.iter_mut().filter(|(name, _)| !whole.contains_key(*name));
        let longest = not_cut
            .filter_map(|(name, value)| Some((name, value.as_str()?.len(), value)))
            .filter(|(_, length, _)| *length > CUT.len())
            .max_by_key(|(_, length, _)| *length);
        let Some((name, length, value)) = longest else { break };
        let text = value.as_str().unwrap_or_default();
        // Written, a text is at least as long as it is here: what is cut here is at least as much there.
        let kept = text.get(..text.floor_char_boundary(length.saturating_sub(excess))).unwrap_or_default();
        excess = excess.saturating_sub(length - kept.len());
        whole.insert(name.clone(), json!(length));
        *value = json!(format!("{kept}{CUT}"));
    }
    if whole.is_empty() {
        return None;
    }
    let extra =
        |key: &'static str, value: String| Extra { key: Text::from_plain(key), value: Cow::Owned(value) };
    let mut short = event.clone();
    short.written = None;
    short.request_params = Nested::Value(Params(Cow::Owned(Value::Object(params).to_string())));
    short.extras.push(extra("truncated", "true".to_owned()));
    short.extras.push(extra("truncated_parameters", Value::Object(whole).to_string()));
    Some(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::format::sumo::Sumo;

    fn with_params(params: &Value) -> AuditEvent<'static> {
        AuditEvent {
            event_id: Some(Text::from_plain("e1")),
            request_params: Nested::Value(Params(Cow::Owned(params.to_string()))),
            ..AuditEvent::default()
        }
    }

    fn written(event: &AuditEvent<'_>) -> Value {
        let mut out = Vec::new();
        Sumo.encode(event, &mut out);
        assert!(out.len() <= MAX_MESSAGE, "{}", out.len());
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn the_longest_parameters_are_cut_as_far_as_needed_and_marked() {
        // Quotes are escaped twice, and ä takes two bytes: both are counted as they are written.
        for unit in ["x", "\"", "ä"] {
            let params = json!({ "commandText": unit.repeat(70_000), "language": "sql", "nothing": null });
            let mut out = Vec::new();
            let event = with_params(&params);
            Sumo.encode(&event, &mut out);
            let line = written(&shortened(&event, out.len() - MAX_MESSAGE).unwrap());
            let kept: Value = serde_json::from_str(line["request_params"].as_str().unwrap()).unwrap();
            assert!(kept["commandText"].as_str().unwrap().ends_with(CUT), "{unit}");
            assert_eq!((&kept["language"], &kept["nothing"]), (&json!("sql"), &Value::Null));
            assert_eq!(line["_source"]["truncated"], true);
            let length = 70_000 * unit.len();
            assert_eq!(line["_source"]["truncated_parameters"], json!({ "commandText": length }));
            assert_eq!(line["event_id"], "e1");
        }
    }

    #[test]
    fn a_second_parameter_is_cut_where_the_first_is_not_enough() {
        let event = with_params(&json!({ "a": "x".repeat(60_000), "b": "y".repeat(70_000), "c": "z" }));
        let line = written(&shortened(&event, 130_500 - 5_000).unwrap());
        assert_eq!(line["_source"]["truncated_parameters"], json!({ "b": 70_000, "a": 60_000 }));
    }

    #[test]
    fn an_event_without_parameters_has_nothing_to_cut() {
        assert!(shortened(&AuditEvent::default(), 1).is_none());
        assert!(shortened(&with_params(&json!({ "a": null })), 1).is_none());
    }
}
