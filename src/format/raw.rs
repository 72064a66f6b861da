//! The record as it was.

use crate::event::AuditEvent;
use crate::format::Format;

/// Writes the record's own text.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Format for Raw {
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        // A record inside a pretty-printed envelope can span lines; between JSON tokens a line break is a blank.
        out.extend(event.raw.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    }
}
