//! Databricks audit records of every route, recognised record by record and mapped to the one schema.
//!
//! | shape | recognised by |
//! |---|---|
//! | envelope | a `records` array, or a bare array: each element is a record of its own |
//! | GCP Cloud Logging wrapper | a `jsonPayload` object: unwrapped, `insertId` is the fallback id |
//! | Azure diagnostic setting | a `properties` object and `time` |
//! | Log Analytics row | `TimeGenerated` |
//! | system table row | `event_time` and `service_name` |
//! | delivery to S3 or GCS | `timestamp` and `serviceName` |
//! | unknown | anything else: all 17 columns null, everything under `_source` |
//!
//! A record of one of the last four known shapes is none of the first two, whatever else it holds.
//! Top-level keys are matched without regard to case, keys within `request_params` as they are. Ids stay text from
//! beginning to end. A record is validated once; what needs no change is copied from its bytes.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::chunk::Origin;
use crate::decode::{Decoder, Gaps, Undecodable};
use crate::event::AuditEvent;
use crate::json::scan::Seen;
use crate::json::{self, Kind, Text};

mod columns;
mod event_id;
mod mapping;
mod repair;
mod values;

use mapping::Mapping;

/// Envelopes are opened so deep, a batch of envelopes included; a record could nest more than the stack can take.
const MAX_ENVELOPES: usize = 4;

/// Records of one envelope. Azure sends some thousands at most; ten thousand times as many, of two bytes each, would be as
/// many events all the same.
const MOST_RECORDS: usize = 50_000;

/// Decodes audit records.
#[derive(Clone, Debug, Default)]
pub struct AuditDecoder {
    /// What the records leave out.
    pub gaps: Gaps,
}

/// The shapes of a single record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Delivery,
    AzureDiagnostic,
    LogAnalytics,
    TableRow,
    Unknown,
}

/// The members of a record: keys, values as they stand in the text, and what they hold.
type Members<'a> = SmallVec<[(Text<'a>, &'a str, Seen); 32]>;

impl Decoder for AuditDecoder {
    fn decode(
        &self,
        record: &[u8],
        occurrence: u32,
        origin: &Origin,
        scratch: &mut Vec<u8>,
        each: &mut dyn FnMut(&mut AuditEvent<'_>),
    ) -> Result<(), Undecodable> {
        // The `compat` flavour says as the standard library does where the text ends, and takes a quarter of the time.
        let text = simdutf8::compat::from_utf8(record).map_err(|error| Undecodable {
            reason: "invalid_utf8",
            detail: format!("the record is not UTF-8 from byte {} on", error.valid_up_to()),
        })?;
        let seen = HashMap::new();
        let mut reader =
            Reader { decoder: self, origin, scratch, each, seen, records: 0, record: text, raw: None };
        let Err(error) = reader.value(text, occurrence) else { return Ok(()) };
        // Databricks' writers let invalid escapes through; a second, lenient pass costs only the broken lines.
        if error.reason == "not_json"
            && let Some(repaired) = repair::repair(text)
        {
            reader.raw = Some(text);
            return reader.value(&repaired, occurrence).map_err(|_| error);
        }
        Err(error)
    }
}

/// Walks one record, which may hold several.
struct Reader<'r> {
    decoder: &'r AuditDecoder,
    origin: &'r Origin,
    scratch: &'r mut Vec<u8>,
    each: &'r mut dyn FnMut(&mut AuditEvent<'_>),
    /// How often a derived id came up in this record's envelope.
    seen: HashMap<[u8; 32], u32>,
    /// Records of envelopes met so far.
    records: usize,
    /// The record as it was read.
    record: &'r str,
    /// The same, where `value` is given a repaired text.
    raw: Option<&'r str>,
}

impl Reader<'_> {
    fn value(&mut self, text: &str, occurrence: u32) -> Result<(), Undecodable> {
        match json::kind(text.trim_start()) {
            Kind::Object => {
                let mut members = Members::new();
                parse_members(text, &mut members)?;
                self.object(text, &members, occurrence, 0)
            }
            Kind::Array => {
                serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
                self.envelope(text, occurrence, 0)
            }
            _ => {
                serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
                Err(Undecodable {
                    reason: "not_an_object",
                    detail: "the record is JSON but no object".to_owned(),
                })
            }
        }
    }

    fn object<'t>(
        &mut self,
        text: &'t str,
        members: &Members<'t>,
        occurrence: u32,
        envelopes: usize,
    ) -> Result<(), Undecodable> {
        let outline = Outline::of(members);
        // What is a record itself is no wrapper of others: of an envelope, nothing but its records is shipped.
        let wraps = outline.shape == Shape::Unknown;
        if let Some(records) = outline.records.filter(|_| wraps && envelopes < MAX_ENVELOPES) {
            return self.envelope(records, occurrence, envelopes);
        }
        let mut mapping = Mapping::new(self.raw.unwrap_or(text));
        if let Some(payload) = outline.payload.filter(|_| wraps) {
            for (key, value, seen) in members {
                if !std::ptr::eq(*value, payload) {
                    mapping.wrapper_member(key, value, *seen);
                }
            }
            let mut inner = Members::new();
            parse_members(payload, &mut inner)?;
            mapping.members(Outline::of(&inner).shape, &inner);
        } else {
            mapping.members(outline.shape, members);
        }
        if self.raw.is_some() {
            mapping.flag("\"repaired\"");
        }
        let enveloped = envelopes > 0;
        let event = mapping.finish(
            &self.decoder.gaps,
            self.origin,
            occurrence,
            self.scratch,
            enveloped,
            &mut self.seen,
        );
        event.span = span(self.record.as_bytes(), event.raw);
        (self.each)(event);
        Ok(())
    }

    /// Each element is a record. One that is no object does not lose the others: it is shipped as an unknown record.
    fn envelope(&mut self, array: &str, occurrence: u32, outer: usize) -> Result<(), Undecodable> {
        let mut any = false;
        for element in json::elements(array) {
            any = true;
            self.records += 1;
            if self.records > MOST_RECORDS {
                return Err(Undecodable {
                    reason: "too_many_records",
                    detail: format!("the envelope holds more than {MOST_RECORDS} records"),
                });
            }
            let mut members = Members::new();
            match json::kind(element) {
                Kind::Object => parse_members(element, &mut members)?,
                _ => members.push((Text::from_static("\"value\""), element, Seen::UNKNOWN)),
            }
            self.object(element, &members, occurrence, outer + 1)?;
        }
        if any {
            return Ok(());
        }
        Err(Undecodable { reason: "empty_envelope", detail: "the envelope holds no record".to_owned() })
    }
}

/// Where a slice lies in the one it was taken from; all of it, where it was not.
fn span(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr());
    match start.map(|start| start..start + part.len()) {
        Some(span) if span.end <= whole.len() => span,
        _ => 0..whole.len(),
    }
}

/// What a record is by the names of its members: found in one look at them, by their lengths first.
struct Outline<'t> {
    shape: Shape,
    /// The records of an envelope.
    records: Option<&'t str>,
    /// The record in GCP's wrapper.
    payload: Option<&'t str>,
}

impl<'t> Outline<'t> {
    fn of(members: &Members<'t>) -> Self {
        let (mut records, mut payload) = (None, None);
        let [mut time, mut timestamp, mut event_time, mut time_generated] = [false; 4];
        let [mut properties, mut service, mut service_name] = [false; 3];
        for (key, value, _) in members {
            let key = key.escaped();
            let is = |name: &str| key.eq_ignore_ascii_case(name);
            match key.len() {
                4 => time |= is("time"),
                7 if records.is_none() && is("records") && json::kind(value) == Kind::Array => {
                    records = Some(*value);
                }
                9 => timestamp |= is("timestamp"),
                10 => {
                    properties |= is("properties") && json::kind(value) == Kind::Object;
                    event_time |= is("event_time");
                }
                11 if payload.is_none() && is("jsonPayload") && json::kind(value) == Kind::Object => {
                    payload = Some(*value);
                }
                11 => service |= is("serviceName"),
                12 => service_name |= is("service_name"),
                13 => time_generated |= is("TimeGenerated"),
                _ => {}
            }
        }
        let shape = match () {
            () if properties && time => Shape::AzureDiagnostic,
            () if time_generated => Shape::LogAnalytics,
            () if event_time && service_name => Shape::TableRow,
            () if timestamp && service => Shape::Delivery,
            () => Shape::Unknown,
        };
        Self { shape, records, payload }
    }
}

fn not_json(error: serde_json::Error) -> Undecodable {
    Undecodable { reason: "not_json", detail: format!("the record is not JSON: {error}") }
}

/// Fills in place: the array is more than a kilobyte, and would be moved once for each function it is returned from.
fn parse_members<'t>(text: &'t str, members: &mut Members<'t>) -> Result<(), Undecodable> {
    if json::scan::object(text, |key, value, seen| members.push((Text::from_canonical(key), value, seen))) {
        return Ok(());
    }
    // Rare: it is no JSON, or spelled in a way of its own. Here is decided which, and said why. The keys are read as all other
    // strings are, half a surrogate pair included: `serde_json` would refuse the record for it.
    members.clear();
    serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
    members.extend(json::members(text).map(|(key, value)| (Text::from_json(key), value, Seen::UNKNOWN)));
    Ok(())
}

#[cfg(test)]
mod tests;
