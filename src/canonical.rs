//! The canonical record as text: what the `canonical` format prints and what a derived event id is a digest of.
//!
//! Keys are in alphabetical order and always all there. The order is part of the id's definition: never change it.

use crate::event::{AuditEvent, Nested};
use crate::json::Text;
use crate::time::Millis;

/// Appends `{"account_id":…,…,"workspace_id":…}` with `_source` at its end where there are extras.
pub fn write(event: &AuditEvent<'_>, out: &mut Vec<u8>) {
    let write_id = |out: &mut Vec<u8>| {
        out.extend_from_slice(b",\"event_id\":");
        write_text(event.event_id.as_ref(), out);
    };
    match event.written {
        Some(written) => {
            out.extend_from_slice(written.head);
            write_id(out);
            out.extend_from_slice(written.tail);
        }
        None => {
            let time = TimeText::of(event);
            write_head(event, time, out);
            write_id(out);
            write_tail(event, time, out);
        }
    }
    write_source(event, out);
    out.push(b'}');
}

/// Appends the 16 columns without `event_id` and without `_source`: what a derived id is a digest of. Gives back where
/// the id would stand, and where the last column ends.
pub fn write_identity(event: &AuditEvent<'_>, out: &mut Vec<u8>) -> (usize, usize) {
    let time = TimeText::of(event);
    write_head(event, time, out);
    let head_end = out.len();
    write_tail(event, time, out);
    let tail_end = out.len();
    out.push(b'}');
    (head_end, tail_end)
}

fn write_head(event: &AuditEvent<'_>, time: TimeText, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"account_id\":");
    write_text(event.account_id.as_ref(), out);
    out.extend_from_slice(b",\"action_name\":");
    write_text(event.action_name.as_ref(), out);
    out.extend_from_slice(b",\"audit_level\":");
    write_text(event.audit_level.as_ref(), out);
    out.extend_from_slice(b",\"event_date\":");
    time.write_date(out);
}

fn write_tail(event: &AuditEvent<'_>, time: TimeText, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"event_time\":");
    time.write(out);
    out.extend_from_slice(b",\"identity_metadata\":");
    write_nested(&event.identity_metadata, out, |metadata, out| {
        out.extend_from_slice(b"{\"run_by\":");
        write_text(metadata.run_by.as_ref(), out);
        out.extend_from_slice(b",\"run_as\":");
        write_text(metadata.run_as.as_ref(), out);
        out.extend_from_slice(b",\"acting_resource\":");
        write_text(metadata.acting_resource.as_ref(), out);
        out.push(b'}');
    });
    out.extend_from_slice(b",\"request_id\":");
    write_text(event.request_id.as_ref(), out);
    out.extend_from_slice(b",\"request_params\":");
    write_nested(&event.request_params, out, |params, out| out.extend_from_slice(params.0.as_bytes()));
    out.extend_from_slice(b",\"response\":");
    write_nested(&event.response, out, |response, out| {
        out.extend_from_slice(b"{\"status_code\":");
        write_integer(response.status_code, out);
        out.extend_from_slice(b",\"error_message\":");
        write_text(response.error_message.as_ref(), out);
        out.extend_from_slice(b",\"result\":");
        write_text(response.result.as_ref(), out);
        out.push(b'}');
    });
    out.extend_from_slice(b",\"service_name\":");
    write_text(event.service_name.as_ref(), out);
    out.extend_from_slice(b",\"session_id\":");
    write_text(event.session_id.as_ref(), out);
    out.extend_from_slice(b",\"source_ip_address\":");
    write_text(event.source_ip_address.as_ref(), out);
    out.extend_from_slice(b",\"user_agent\":");
    write_text(event.user_agent.as_ref(), out);
    out.extend_from_slice(b",\"user_identity\":");
    write_nested(&event.user_identity, out, |identity, out| {
        out.extend_from_slice(b"{\"email\":");
        write_text(identity.email.as_ref(), out);
        out.extend_from_slice(b",\"subject_name\":");
        write_text(identity.subject_name.as_ref(), out);
        out.push(b'}');
    });
    out.extend_from_slice(b",\"version\":");
    write_text(event.version.as_ref(), out);
    out.extend_from_slice(b",\"workspace_id\":");
    write_text(event.workspace_id.as_ref(), out);
}

/// Appends `,"_source":{…}`, or nothing where there are no extras.
pub fn write_source(event: &AuditEvent<'_>, out: &mut Vec<u8>) {
    let mut open: &[u8] = b",\"_source\":{";
    for extra in &event.extras {
        out.extend_from_slice(open);
        open = b",";
        out.extend_from_slice(extra.key.quoted().as_bytes());
        out.push(b':');
        out.extend_from_slice(extra.value.as_bytes());
    }
    if !event.extras.is_empty() {
        out.push(b'}');
    }
}

/// Appends a string, or `null`.
pub fn write_text(text: Option<&Text<'_>>, out: &mut Vec<u8>) {
    match text {
        Some(text) => out.extend_from_slice(text.quoted().as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends an integer, or `null`.
pub fn write_integer(number: Option<i64>, out: &mut Vec<u8>) {
    match number {
        Some(number) => {
            if number < 0 {
                out.push(b'-');
            }
            crate::json::write_number(number.unsigned_abs(), out);
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// When an event happened, as text: worked out once, written as time and as date.
#[derive(Clone, Copy, Debug)]
pub struct TimeText(Option<[u8; 24]>);

impl TimeText {
    /// That of this event.
    pub fn of(event: &AuditEvent<'_>) -> Self {
        Self(event.event_time.map(Millis::rfc3339))
    }

    /// Appends `"2026-01-05T10:34:56.123Z"`, or `null`.
    pub fn write(&self, out: &mut Vec<u8>) {
        Self::write_part(self.0.as_ref().map(<[u8; 24]>::as_slice), out);
    }

    /// Appends `"2026-01-05"`, or `null`.
    pub fn write_date(&self, out: &mut Vec<u8>) {
        Self::write_part(self.0.as_ref().and_then(|text| text.get(..10)), out);
    }

    fn write_part(text: Option<&[u8]>, out: &mut Vec<u8>) {
        let Some(text) = text else { return out.extend_from_slice(b"null") };
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }
}

fn write_nested<T>(nested: &Nested<'_, T>, out: &mut Vec<u8>, value: impl FnOnce(&T, &mut Vec<u8>)) {
    match nested {
        Nested::Null => out.extend_from_slice(b"null"),
        Nested::Value(inner) => value(inner, out),
        Nested::Raw(text) => {
            out.extend_from_slice(b"{\"_raw\":");
            out.extend_from_slice(text.quoted().as_bytes());
            out.push(b'}');
        }
    }
}
