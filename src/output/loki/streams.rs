//! The labels of streams. Each set of values is a lane, since a request holds one stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::component::BuildError;
use crate::event::AuditEvent;
use crate::json;
use crate::template::Template;

/// Labels a stream may have, unless Loki is told otherwise.
const MAX_LABELS: usize = 15;
/// Bytes that Loki takes in a label's value, unless it is told otherwise: of a stream with a longer one it refuses every
/// entry. The line has the whole value.
const MAX_VALUE_BYTES: usize = 2048;
/// Most lanes; events of further ones go in lane 0, whose places say `unknown`.
const MAX_LANES: usize = 200;

/// The templates of the labels, and the sets that came of them so far.
#[derive(Debug)]
pub(super) struct Streams {
    templates: BTreeMap<String, Template>,
    /// Some template differs from event to event.
    vary: bool,
    known: Mutex<Known>,
}

/// Sets of labels, as the JSON objects they are sent as.
#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<Vec<u8>, u32>,
    labels: Vec<Vec<u8>>,
}

impl Streams {
    /// Checks the labels.
    ///
    /// # Errors
    /// [`BuildError`] naming the label that Loki would not take, or could not bear.
    pub(super) fn new(templates: BTreeMap<String, Template>) -> Result<Self, BuildError> {
        check(&templates)?;
        let vary = templates.values().any(|template| template.fixed().is_none());
        let rest = written(&templates, &AuditEvent::default());
        let known = Known { numbers: HashMap::new(), labels: vec![rest] };
        Ok(Self { templates, vary, known: Mutex::new(known) })
    }

    /// True if there is a label of this name.
    pub(super) fn has_label(&self, name: &str) -> bool {
        self.templates.contains_key(name)
    }

    /// The lane of an event.
    pub(super) fn lane(&self, event: &AuditEvent<'_>) -> u32 {
        if !self.vary {
            return 0;
        }
        let labels = written(&self.templates, event);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(&labels) {
            return *number;
        }
        let next = known.labels.len();
        let Some(number) = u32::try_from(next).ok().filter(|_| next <= MAX_LANES) else { return 0 };
        known.labels.push(labels.clone());
        known.numbers.insert(labels, number);
        number
    }

    /// The labels of a lane, as a JSON object.
    pub(super) fn labels(&self, lane: u32) -> Vec<u8> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(lane).unwrap_or_default();
        known.labels.get(index).cloned().unwrap_or_default()
    }
}

fn written(templates: &BTreeMap<String, Template>, event: &AuditEvent<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut before = b'{';
    for (name, template) in templates {
        out.push(before);
        json::write_quoted(name, &mut out);
        out.extend_from_slice(b":\"");
        let value = out.len();
        template.write_escaped(event, &mut out);
        if out.len() - value > MAX_VALUE_BYTES {
            cut_value(value, &mut out);
        }
        out.push(b'"');
        before = b',';
    }
    out.push(b'}');
    out
}

/// Leaves of the escaped text that begins at `start` as many whole characters as a label takes.
fn cut_value(start: usize, out: &mut Vec<u8>) {
    let escaped = String::from_utf8_lossy(out.get(start..).unwrap_or_default());
    let value = json::unescape(&format!("\"{escaped}\"")).into_owned();
    out.truncate(start);
    let kept = value.get(..value.floor_char_boundary(MAX_VALUE_BYTES)).unwrap_or_default();
    json::write_escaped(kept, out);
}

fn check(labels: &BTreeMap<String, Template>) -> Result<(), BuildError> {
    if !(1..=MAX_LABELS).contains(&labels.len()) {
        return Err(BuildError::new(
            "labels",
            format!("Loki wants 1 to {MAX_LABELS} labels, here are {}", labels.len()),
        ));
    }
    for (name, template) in labels {
        let key = format!("labels.{name}");
        let (mut bytes, text) = (name.bytes(), template.as_str());
        let begins = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
        if !begins || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(BuildError::new(
                &key,
                "a label's name has letters, digits and _, and begins with no digit",
            ));
        }
        if let Some(place) = ["{event_id}", "{object}"].iter().find(|place| text.contains(**place)) {
            let message = format!("{place} would make a stream of nearly every event; Loki cannot bear that");
            return Err(BuildError::new(&key, message));
        }
        if text.is_empty() {
            return Err(BuildError::new(&key, "is empty: leave the label out"));
        }
        if text.len() > MAX_VALUE_BYTES {
            return Err(BuildError::new(
                &key,
                format!("is longer than the {MAX_VALUE_BYTES} bytes Loki takes"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Text;

    fn streams(label: &str) -> Streams {
        let template = Template::parse(label).unwrap();
        Streams::new(BTreeMap::from([("a".to_owned(), template)])).unwrap()
    }

    fn of_workspace(id: &str) -> AuditEvent<'static> {
        AuditEvent { workspace_id: Some(Text::from_plain(id)), ..AuditEvent::default() }
    }

    #[test]
    fn each_set_of_labels_is_a_lane_and_fixed_ones_are_one() {
        let streams = streams("w\"{workspace_id}");
        let lane = streams.lane(&of_workspace("7"));
        assert_eq!(streams.labels(lane), br#"{"a":"w\"7"}"#);
        assert_eq!(streams.lane(&of_workspace("7")), lane);
        assert_ne!(streams.lane(&of_workspace("8")), lane);
        let fixed = self::streams("x");
        assert_eq!((fixed.lane(&of_workspace("7")), fixed.labels(0)), (0, br#"{"a":"x"}"#.to_vec()));
    }

    #[test]
    fn a_value_is_cut_to_what_loki_takes_at_a_whole_character_and_counted_without_its_escapes() {
        let value_of = |id: &str| {
            let streams = streams("{workspace_id}");
            let labels = streams.labels(streams.lane(&of_workspace(id)));
            let labels: serde_json::Value = serde_json::from_slice(&labels).unwrap();
            labels["a"].as_str().unwrap().to_owned()
        };
        let quotes = "\"".repeat(MAX_VALUE_BYTES);
        assert_eq!(value_of(&quotes), quotes);
        assert_eq!(value_of(&format!("{quotes}x")), quotes);
        let odd = format!("x{}", "é".repeat(MAX_VALUE_BYTES));
        assert_eq!(value_of(&odd), odd[..MAX_VALUE_BYTES - 1]);
    }

    #[test]
    fn lanes_are_bounded_and_the_rest_share_one() {
        let streams = streams("{workspace_id}");
        let lanes: Vec<u32> = (0..300).map(|id| streams.lane(&of_workspace(&id.to_string()))).collect();
        assert_eq!((lanes[0], lanes[199], lanes[200], lanes[299]), (1, 200, 0, 0));
        assert_eq!(streams.labels(0), br#"{"a":"unknown"}"#);
        assert_eq!(streams.lane(&of_workspace("5")), 6, "those that are known keep theirs");
    }
}
