//! Ids of records that have none: a UUID v8 of the SHA-256 of the canonical record.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::canonical;
use crate::event::{AuditEvent, Written};
use crate::json::Text;

/// Derives the id of an event that is complete but for it.
///
/// The digest covers the 16 other columns as the canonical record prints them, without `_source`: the same event
/// delivered a second time, by another object or route configuration, gets the same id. An `occurrence` above 0 is
/// part of the digest, so that true repeats within one object stay apart. Columns say too little of an event without a
/// time (no known shape, or one that cannot be read): there what the record has under `_source` is covered too, so the
/// extras that say where it lay must not be among them yet.
///
/// The canonical text is left in `scratch` and in the event, which need not be written a second time.
pub(super) fn derive<'s>(event: &mut AuditEvent<'s>, occurrence: u32, scratch: &'s mut Vec<u8>) {
    let ends = identity(event, scratch);
    event.event_id = Some(digest(scratch, |hash| {
        if occurrence > 0 {
            hash.update(b"#");
            hash.update(occurrence.to_string());
        }
    }));
    event.written = written(scratch, ends);
}

/// The same for a record of an envelope: equal records of one envelope are counted in `seen`.
pub(super) fn derive_enveloped<'s>(
    event: &mut AuditEvent<'s>,
    occurrence: u32,
    scratch: &'s mut Vec<u8>,
    seen: &mut HashMap<[u8; 32], u32>,
) {
    let ends = identity(event, scratch);
    let count = seen.entry(Sha256::digest(&*scratch).into()).or_default();
    let repeat = *count;
    *count += 1;
    event.event_id = Some(digest(scratch, |hash| {
        if occurrence > 0 || repeat > 0 {
            hash.update(format!("#{occurrence}#{repeat}"));
        }
    }));
    event.written = written(scratch, ends);
}

/// Writes what is digested; gives back where the columns before the id end, and those after it.
fn identity(event: &AuditEvent<'_>, scratch: &mut Vec<u8>) -> (usize, usize) {
    scratch.clear();
    let ends = canonical::write_identity(event, scratch);
    if event.event_time.is_none() {
        canonical::write_source(event, scratch);
    }
    ends
}

fn written(scratch: &[u8], (head_end, tail_end): (usize, usize)) -> Option<Written<'_>> {
    Some(Written { head: scratch.get(..head_end)?, tail: scratch.get(head_end..tail_end)? })
}

fn digest(identity: &[u8], more: impl FnOnce(&mut Sha256)) -> Text<'static> {
    let mut hash = Sha256::new();
    hash.update(identity);
    more(&mut hash);
    let digest: [u8; 32] = hash.finalize().into();
    uuid(digest)
}

/// `"xxxxxxxx-xxxx-8xxx-yxxx-xxxxxxxxxxxx"`, after RFC 9562 section 5.8.
fn uuid(digest: [u8; 32]) -> Text<'static> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(38);
    text.push('"');
    for (index, byte) in digest.into_iter().take(16).enumerate() {
        let byte = match index {
            6 => (byte & 0x0f) | 0x80,
            8 => (byte & 0x3f) | 0x80,
            _ => byte,
        };
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 0x0f] {
            text.push(char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0')));
        }
    }
    text.push('"');
    Text::from_canonical(text)
}
