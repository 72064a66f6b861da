//! A decoder that takes the secrets out of a record before another one decodes it.
//!
//! Ids are those of the record as it was: they must not change with the rules or the key, or what was delivered would
//! be delivered again under another id. Dead letters keep the record as it was too, since they never leave.

use crate::chunk::Origin;
use crate::decode::{Decoder, Undecodable};
use crate::event::AuditEvent;
use crate::json::Text;
use crate::redact::Redactor;

/// Takes secrets out, and has the rest decoded.
pub struct RedactingDecoder {
    /// Decodes.
    pub decoder: Box<dyn Decoder>,
    /// Finds the secrets.
    pub redactor: Redactor,
}

impl std::fmt::Debug for RedactingDecoder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RedactingDecoder").field("redactor", &self.redactor).finish_non_exhaustive()
    }
}

impl Decoder for RedactingDecoder {
    fn decode(
        &self,
        record: &[u8],
        occurrence: u32,
        origin: &Origin,
        scratch: &mut Vec<u8>,
        each: &mut dyn FnMut(&mut AuditEvent<'_>),
    ) -> Result<(), Undecodable> {
        let Some(redacted) = self.redactor.redact(record) else {
            return self.decoder.decode(record, occurrence, origin, scratch, each);
        };
        // Decoded twice, which is rare enough: first for what the events are known by.
        let mut known = Vec::new();
        self.decoder.decode(record, occurrence, origin, scratch, &mut |event| {
            known.push((event.event_id.take().map(Text::into_owned), event.span.clone()));
        })?;
        let mut known = known.into_iter();
        let mut count = redacted.count;
        self.decoder.decode(&redacted.text, occurrence, origin, scratch, &mut |event| {
            if let Some((id, span)) = known.next() {
                event.event_id = id;
                event.span = span;
            }
            event.redactions = std::mem::take(&mut count);
            each(event);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical;
    use crate::decode::audit::AuditDecoder;
    use crate::generate::{Bucket, Options};
    use crate::time::Date;

    fn decoded(decoder: &dyn Decoder, record: &str) -> Vec<(String, String, std::ops::Range<usize>, u32)> {
        let mut events = Vec::new();
        decoder
            .decode(record.as_bytes(), 0, &Origin::default(), &mut Vec::new(), &mut |event| {
                let mut text = Vec::new();
                canonical::write(event, &mut text);
                let id = event.event_id.as_ref().unwrap().plain().into_owned();
                events.push((id, String::from_utf8(text).unwrap(), event.span.clone(), event.redactions));
            })
            .unwrap();
        events
    }

    #[test]
    fn an_event_without_its_secret_keeps_its_id_and_its_place() {
        let record = |password: &str| {
            format!(
                r#"{{"records":[{{"timestamp":1,"serviceName":"a","actionName":"b","requestParams":{{"x":"1"}}}},{{"timestamp":2,"serviceName":"a","actionName":"b","requestParams":{{"password":"{password}"}}}}]}}"#
            )
        };
        let plain = AuditDecoder::default();
        let redacting = RedactingDecoder {
            decoder: Box::<AuditDecoder>::default(),
            redactor: Redactor::new(b"key", &[], &[]).unwrap(),
        };
        let record = record("correct horse");
        let (before, after) = (decoded(&plain, &record), decoded(&redacting, &record));
        assert!(before[1].1.contains("correct horse"));
        assert!(!after[1].1.contains("correct horse") && after[1].1.contains("[redacted:"), "{}", after[1].1);
        assert!(after[1].1.contains(&after[1].0), "the id that is told is the one that is written");
        let place = |events: &[(String, String, std::ops::Range<usize>, u32)]| {
            events.iter().map(|(id, _, span, _)| (id.clone(), span.clone())).collect::<Vec<_>>()
        };
        assert_eq!(place(&before), place(&after));
        assert!(record[after[1].2.clone()].starts_with("{\"timestamp\":2"));
        assert_eq!(after.iter().map(|event| event.3).sum::<u32>(), 1);
    }

    /// Allocations of decoding and writing each of these lines once the buffers have grown.
    fn allocations(lines: &[Vec<u8>]) -> Vec<u64> {
        let decoder = RedactingDecoder {
            decoder: Box::<AuditDecoder>::default(),
            redactor: Redactor::new(b"key", &[], &[]).unwrap(),
        };
        let origin = Origin::of_object("a/b.json");
        let (mut scratch, mut out) = (Vec::with_capacity(1 << 20), Vec::with_capacity(1 << 20));
        let mut count = |line: &Vec<u8>| {
            out.clear();
            let mut each = |event: &mut AuditEvent<'_>| canonical::write(event, &mut out);
            let mut decode = || decoder.decode(line, 0, &origin, &mut scratch, &mut each).unwrap();
            allocation_counter::measure(&mut decode).count_total
        };
        lines.iter().map(&mut count).collect()
    }

    /// What still takes memory: an escape that is not canonical, in a tenth of these lines, and a secret.
    #[test]
    fn an_event_is_decoded_and_written_without_an_allocation() {
        let bucket = Bucket::new(Options::new(3, 1, 1000, Date::parse("2026-01-31").unwrap())).unwrap();
        let lines: Vec<_> = bucket.lines().map(|line| line.trim_ascii_end().to_vec()).collect();
        let counts = allocations(&lines);
        for (count, line) in counts.iter().zip(&lines) {
            let text = String::from_utf8_lossy(line);
            assert!(*count == 0 || text.contains("\\u"), "{count} allocations: {text}");
        }
        let (all, most) = (counts.iter().sum::<u64>(), counts.iter().max().unwrap());
        assert!(all < 500 && *most <= 4, "{all} allocations of 1000 lines, at most {most} of one");
    }
}
