//! Text with places that an event fills: `databricks-audit-{event_date}`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use crate::event::AuditEvent;
use crate::json::{Kind, Text, kind};

/// A text in which `{event_date}` and the like stand for the event's values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// With JSON's escapes.
    Fixed(String),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    AccountId,
    ActionName,
    AuditLevel,
    EventDate,
    EventId,
    Object,
    ServiceName,
    WorkspaceId,
}

const FIELDS: &[(&str, Field)] = &[
    ("account_id", Field::AccountId),
    ("action_name", Field::ActionName),
    ("audit_level", Field::AuditLevel),
    ("event_date", Field::EventDate),
    ("event_id", Field::EventId),
    ("object", Field::Object),
    ("service_name", Field::ServiceName),
    ("workspace_id", Field::WorkspaceId),
];

/// What stands for a value the event does not have.
pub const ABSENT: &str = "unknown";

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A sentence that names the place which is unknown or not closed, and the ones there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((fixed, after)) = rest.split_once('{') {
            let (name, tail) =
                after.split_once('}').ok_or_else(|| format!("`{text}` has a `{{` without its `}}`"))?;
            let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
                let known: Vec<_> = FIELDS.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                return Err(format!("`{{{name}}}` is unknown in `{text}`; there are {}", known.join(", ")));
            };
            if !fixed.is_empty() {
                pieces.push(Piece::Fixed(Text::from_plain(fixed).escaped().to_owned()));
            }
            pieces.push(Piece::Field(*field));
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Fixed(Text::from_plain(rest).escaped().to_owned()));
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, where no event changes it.
    pub fn fixed(&self) -> Option<&str> {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Fixed(_))).then_some(self.text.as_str())
    }

    /// Appends the text for an event with JSON's escapes, without quotes.
    pub fn write_escaped(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        let text = |text: &Option<Text<'_>>, out: &mut Vec<u8>| match text {
            Some(text) if !text.is_empty() => out.extend_from_slice(text.escaped().as_bytes()),
            _ => out.extend_from_slice(ABSENT.as_bytes()),
        };
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(fixed) => out.extend_from_slice(fixed.as_bytes()),
                Piece::Field(Field::AccountId) => text(&event.account_id, out),
                Piece::Field(Field::ActionName) => text(&event.action_name, out),
                Piece::Field(Field::AuditLevel) => text(&event.audit_level, out),
                Piece::Field(Field::EventId) => text(&event.event_id, out),
                Piece::Field(Field::ServiceName) => text(&event.service_name, out),
                Piece::Field(Field::WorkspaceId) => text(&event.workspace_id, out),
                Piece::Field(Field::EventDate) => match event.event_time {
                    Some(time) => time.date().write(out),
                    None => out.extend_from_slice(ABSENT.as_bytes()),
                },
                Piece::Field(Field::Object) => {
                    let object = event.extra("object").filter(|object| kind(object) == Kind::String);
                    match object.and_then(|object| object.get(1..object.len().saturating_sub(1))) {
                        Some(inner) if !inner.is_empty() => out.extend_from_slice(inner.as_bytes()),
                        _ => out.extend_from_slice(ABSENT.as_bytes()),
                    }
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(Error::custom)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;

    #[test]
    fn places_are_filled_from_the_event_and_unknown_ones_are_refused() {
        let template = Template::parse("audit-{event_date}-{workspace_id}\"").unwrap();
        let mut event = AuditEvent { event_time: Millis::new(0), ..AuditEvent::default() };
        let mut out = Vec::new();
        template.write_escaped(&event, &mut out);
        assert_eq!(out, br#"audit-1970-01-01-unknown\""#);
        event.workspace_id = Some(Text::from_plain("7"));
        out.clear();
        template.write_escaped(&event, &mut out);
        assert_eq!(out, br#"audit-1970-01-01-7\""#);
        let object = Template::parse("{object}").unwrap();
        let extra = |value: &'static str| crate::event::Extra {
            key: Text::from_plain("object"),
            value: value.into(),
        };
        event.extras = smallvec::smallvec![extra(r#"{"a":"b"}"#), extra(r#""logs/a.json""#)];
        out.clear();
        object.write_escaped(&event, &mut out);
        assert_eq!(out, b"logs/a.json", "a member of the record that has the name of ours");
        event.extras.pop();
        out.clear();
        object.write_escaped(&event, &mut out);
        assert_eq!(out, b"unknown", "what is no text would break the text it is put into");
        assert_eq!(template.fixed(), None);
        assert_eq!(Template::parse("main").unwrap().fixed(), Some("main"));
        assert!(Template::parse("{day}").unwrap_err().contains("{event_date}"));
        assert!(Template::parse("a{event_date").unwrap_err().contains("without"));
    }
}
