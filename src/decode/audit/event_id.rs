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
    let id = digest(scratch, |hash| {
        if occurrence > 0 {
            hash.update(b"#");
            hash.update(occurrence.to_string());
        }
    });
    complete(event, id, scratch, ends);
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
    let id = digest(scratch, |hash| {
        if occurrence > 0 || repeat > 0 {
            hash.update(format!("#{occurrence}#{repeat}"));
        }
    });
    complete(event, id, scratch, ends);
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

/// The id goes behind what was digested, so that it needs no memory of its own.
fn complete<'s>(
    event: &mut AuditEvent<'s>,
    id: [u8; ID_LENGTH],
    scratch: &'s mut Vec<u8>,
    (head_end, tail_end): (usize, usize),
) {
    let id_start = scratch.len();
    scratch.extend_from_slice(&id);
    let scratch: &'s [u8] = scratch;
    let id = scratch.get(id_start..).and_then(|id| std::str::from_utf8(id).ok());
    event.event_id = id.map(Text::from_canonical);
    event.written = scratch
        .get(..head_end)
        .zip(scratch.get(head_end..tail_end))
        .map(|(head, tail)| Written { head, tail });
}

fn digest(identity: &[u8], more: impl FnOnce(&mut Sha256)) -> [u8; ID_LENGTH] {
    let mut hash = Sha256::new();
    hash.update(identity);
    more(&mut hash);
    uuid(hash.finalize().into())
}

/// Characters of a UUID and its quotes.
const ID_LENGTH: usize = 38;

/// `"xxxxxxxx-xxxx-8xxx-yxxx-xxxxxxxxxxxx"`, after RFC 9562 section 5.8.
fn uuid(digest: [u8; 32]) -> [u8; ID_LENGTH] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    /// Where the two digits of each byte stand.
    const PLACES: [usize; 16] = [1, 3, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 29, 31, 33, 35];
    let mut text = *b"\"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx\"";
    for (index, (place, byte)) in PLACES.into_iter().zip(digest).enumerate() {
        let byte = match index {
            6 => (byte & 0x0f) | 0x80,
            8 => (byte & 0x3f) | 0x80,
            _ => byte,
        };
        for (place, nibble) in text.iter_mut().skip(place).zip([byte >> 4, byte & 0x0f]) {
            *place = HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
    text
}
