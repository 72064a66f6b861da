//! Category, name, host and fields of a request. Where they differ from event to event, each set of values is a lane of
//! its own, since a request has one of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::component::BuildError;
use crate::event::AuditEvent;
use crate::template::Template;

/// Sumo silently drops fields beyond these limits.
const MAX_FIELDS: usize = 30;
const MAX_FIELD_CHARACTERS: usize = 200;
/// Longest value of another header.
const MAX_CHARACTERS: usize = 1024;
/// Most lanes; events of further ones go in lane 0, whose places say `unknown`.
const MAX_LANES: usize = 200;

/// The templates of the headers, and the lanes that came of them so far.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Header and template; the fields last.
    named: Vec<(HeaderName, Template)>,
    fields: BTreeMap<String, Template>,
    /// Some template differs from event to event.
    vary: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<Vec<String>, u32>,
    headers: Vec<HeaderMap>,
}

impl Lanes {
    /// Checks the templates: `(key, header, template)`, and the fields by name.
    ///
    /// # Errors
    /// [`BuildError`] naming the key that Sumo would not take.
    pub(super) fn new(
        named: [(&str, &'static str, Option<Template>); 3],
        fields: BTreeMap<String, Template>,
    ) -> Result<Self, BuildError> {
        let mut templates = Vec::new();
        for (key, header, template) in named {
            let Some(template) = template else { continue };
            if template.as_str().chars().any(char::is_control) {
                let message = format!("the value of {header} holds a line break or control character");
                return Err(BuildError::new(key, message));
            }
            templates.push((HeaderName::from_static(header), template));
        }
        check_fields(&fields)?;
        let vary = templates
            .iter()
            .map(|(_, template)| template)
            .chain(fields.values())
            .any(|it| it.fixed().is_none());
        let lanes = Self { named: templates, fields, vary, known: Mutex::default() };
        let rest = lanes.headers_of(&lanes.values(&AuditEvent::default()));
        lanes.known.lock().unwrap_or_else(PoisonError::into_inner).headers.push(rest);
        Ok(lanes)
    }

    /// The lane of an event.
    pub(super) fn of(&self, event: &AuditEvent<'_>) -> u32 {
        if !self.vary {
            return 0;
        }
        let values = self.values(event);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(&values) {
            return *number;
        }
        let next = known.headers.len();
        let Some(number) = u32::try_from(next).ok().filter(|_| next <= MAX_LANES) else { return 0 };
        let headers = self.headers_of(&values);
        known.headers.push(headers);
        known.numbers.insert(values, number);
        number
    }

    /// The headers of a lane.
    pub(super) fn headers(&self, lane: u32) -> HeaderMap {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(lane).unwrap_or_default();
        known.headers.get(index).cloned().unwrap_or_default()
    }

    fn values(&self, event: &AuditEvent<'_>) -> Vec<String> {
        let named = self.named.iter().map(|(_, template)| filled(template, event, MAX_CHARACTERS));
        let fields = self.fields.iter().map(|(name, template)| {
            // A comma would begin another field.
            let value = filled(template, event, MAX_FIELD_CHARACTERS).replace(',', "_");
            format!("{name}={value}")
        });
        named.chain(fields).collect()
    }

    fn headers_of(&self, values: &[String]) -> HeaderMap {
        let (named, fields) = values.split_at(self.named.len().min(values.len()));
        let mut headers = HeaderMap::new();
        let names = self.named.iter().map(|(name, _)| name.clone());
        for (name, value) in names.zip(named) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        }
        if let (false, Ok(value)) = (fields.is_empty(), HeaderValue::from_bytes(fields.join(",").as_bytes()))
        {
            headers.insert("x-sumo-fields", value);
        }
        headers
    }
}

/// The text for an event, as a header can carry it.
fn filled(template: &Template, event: &AuditEvent<'_>, most_characters: usize) -> String {
    let mut quoted = vec![b'"'];
    template.write_escaped(event, &mut quoted);
    quoted.push(b'"');
    let text: String = serde_json::from_slice(&quoted).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { '_' } else { c }).take(most_characters).collect()
}

fn check_fields(fields: &BTreeMap<String, Template>) -> Result<(), BuildError> {
    if fields.len() > MAX_FIELDS {
        let message = format!("Sumo takes at most {MAX_FIELDS}, here are {}", fields.len());
        return Err(BuildError::new("fields", message));
    }
    for (name, template) in fields {
        let key = format!("fields.{name}");
        let text = template.as_str();
        if template.fixed().is_some_and(|text| text.chars().count() > MAX_FIELD_CHARACTERS) {
            return Err(BuildError::new(&key, format!("is longer than {MAX_FIELD_CHARACTERS} characters")));
        }
        if name.contains([',', '=']) || text.contains(',') {
            return Err(BuildError::new(&key, "must not contain a comma, nor its name a comma or `=`"));
        }
        if name.chars().chain(text.chars()).any(char::is_control) {
            return Err(BuildError::new(&key, "holds a line break or control character"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Text;

    fn lanes(category: &str, field: &str) -> Lanes {
        let template = |text| Template::parse(text).unwrap();
        let named = [("category", "x-sumo-category", Some(template(category)))];
        let [category] = named;
        let none = |key, header| (key, header, None);
        Lanes::new(
            [category, none("name", "x-sumo-name"), none("host", "x-sumo-host")],
            BTreeMap::from([("service".to_owned(), template(field))]),
        )
        .unwrap()
    }

    fn of_workspace(id: &str) -> AuditEvent<'static> {
        AuditEvent { workspace_id: Some(Text::from_plain(id)), ..AuditEvent::default() }
    }

    fn text(headers: &HeaderMap, name: &str) -> String {
        String::from_utf8(headers.get(name).unwrap().as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn events_with_the_same_values_share_a_lane_and_its_headers() {
        let lanes = lanes("db/{workspace_id}", "x");
        let (first, second) = (lanes.of(&of_workspace("7")), lanes.of(&of_workspace("8")));
        assert_ne!(first, second);
        assert_eq!(lanes.of(&of_workspace("7")), first);
        assert_eq!(text(&lanes.headers(first), "x-sumo-category"), "db/7");
        assert_eq!(text(&lanes.headers(second), "x-sumo-category"), "db/8");
        assert_eq!(text(&lanes.headers(second), "x-sumo-fields"), "service=x");
        assert_eq!(lanes.headers(second).get("x-sumo-name"), None);
    }

    #[test]
    fn without_places_there_is_one_lane() {
        let lanes = lanes("db", "x");
        assert_eq!((lanes.of(&of_workspace("7")), lanes.of(&of_workspace("8"))), (0, 0));
        assert_eq!(text(&lanes.headers(0), "x-sumo-category"), "db");
    }

    #[test]
    fn what_an_event_puts_into_a_header_cannot_break_it() {
        let lanes = lanes("{workspace_id}", "{workspace_id}");
        let headers = lanes.headers(lanes.of(&of_workspace("ä\r\nx: \"y\", z")));
        assert_eq!(text(&headers, "x-sumo-category"), "ä__x: \"y\", z");
        assert_eq!(text(&headers, "x-sumo-fields"), "service=ä__x: \"y\"_ z");
        let headers = lanes.headers(lanes.of(&of_workspace(&"x".repeat(2000))));
        assert_eq!(text(&headers, "x-sumo-category").len(), MAX_CHARACTERS);
        assert_eq!(text(&headers, "x-sumo-fields").len(), "service=".len() + MAX_FIELD_CHARACTERS);
    }

    #[test]
    fn there_are_not_more_lanes_than_can_be_kept_open() {
        let lanes = lanes("{workspace_id}", "x");
        let numbers: Vec<u32> = (0..300).map(|id| lanes.of(&of_workspace(&id.to_string()))).collect();
        assert_eq!(numbers.iter().filter(|number| **number == 0).count(), 100);
        assert_eq!(text(&lanes.headers(0), "x-sumo-category"), "unknown");
    }
}
