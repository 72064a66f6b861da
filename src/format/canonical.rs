//! The canonical record: 17 columns, nested values as objects, extras under `_source`.

use crate::canonical;
use crate::event::AuditEvent;
use crate::format::Format;

/// Writes the canonical record.
#[derive(Clone, Copy, Debug)]
pub struct Canonical;

impl Format for Canonical {
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        canonical::write(event, out);
    }
}
