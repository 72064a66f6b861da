//! One audit event in the one schema: the 17 columns of `system.access.audit`, and whatever else the record held.
//!
//! An event borrows from the record it was read from. Its texts are JSON strings in canonical escapes, so that a
//! format copies them instead of encoding them.

use std::net::IpAddr;
use std::ops::Range;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::json::{Kind, Text, kind};
use crate::time::Millis;

#[cfg(test)]
pub(crate) mod samples;

/// A decoded audit record. Shapes are those of the canonical record; `None` is written as `null`.
#[derive(Clone, Debug, Default)]
pub struct AuditEvent<'a> {
    /// Databricks account (UUID); absent on Azure diagnostic routes.
    pub account_id: Option<Text<'a>>,
    /// Workspace id as text; `0` for account level.
    pub workspace_id: Option<Text<'a>>,
    /// Schema version of the route: `2.0`, or `1.0.0` on Azure.
    pub version: Option<Text<'a>>,
    /// When it happened, UTC; absent only where the record has no readable time.
    pub event_time: Option<Millis>,
    /// `WORKSPACE_LEVEL` or `ACCOUNT_LEVEL`.
    pub audit_level: Option<Text<'a>>,
    /// The record's own id, or one derived from the canonical record. Never absent after decoding.
    pub event_id: Option<Text<'a>>,
    /// For instance `unityCatalog`.
    pub service_name: Option<Text<'a>>,
    /// For instance `getTable`.
    pub action_name: Option<Text<'a>>,
    /// Client address without its port; text that is no address is kept.
    pub source_ip_address: Option<Text<'a>>,
    /// Client software.
    pub user_agent: Option<Text<'a>>,
    /// Session of the caller.
    pub session_id: Option<Text<'a>>,
    /// Request; shared by the request and the response event of a long action.
    pub request_id: Option<Text<'a>>,
    /// Who did it.
    pub user_identity: Nested<'a, Identity<'a>>,
    /// Parameters of the call: an object of strings, as compact JSON text.
    pub request_params: Nested<'a, Params<'a>>,
    /// How it ended.
    pub response: Nested<'a, Response<'a>>,
    /// On whose behalf it ran.
    pub identity_metadata: Nested<'a, RunIdentity<'a>>,
    /// Everything else the record held, in reading order: written under `_source`.
    pub extras: Extras<'a>,
    /// The record as it was read.
    pub raw: &'a [u8],
    /// Where it lies in the record that was decoded, which may be an envelope of several.
    pub span: Range<usize>,
    /// Secrets that were taken out of it.
    pub redactions: u32,
    /// The columns as canonical text, where the decoder has written them already; whoever changes a column takes it away.
    pub written: Option<Written<'a>>,
}

impl AuditEvent<'_> {
    /// A number that events of one action share, and hardly any others.
    pub fn kind(&self) -> u64 {
        let digest =
            |name: &Option<Text<'_>>| name.as_ref().map_or(0, |name| xxh3_64(name.escaped().as_bytes()));
        // Actions of one service are neighbours.
        digest(&self.service_name) & !u64::from(u32::MAX) | digest(&self.action_name) >> 32
    }
}

/// Canonical text of an event: all columns but the id, which stands between these two.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// From the opening brace to `event_date`.
    pub head: &'a [u8],
    /// From the comma before `event_time` to `workspace_id`.
    pub tail: &'a [u8],
}

/// A column with members of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Nested<'a, T> {
    /// The column is null.
    #[default]
    Null,
    /// The column as it should be.
    Value(T),
    /// A text that should have held JSON and does not; written as `{"_raw": text}`.
    Raw(Text<'a>),
}

impl<T> Nested<'_, T> {
    /// The value, where there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Null | Self::Raw(_) => None,
        }
    }
}

/// `user_identity`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity<'a> {
    /// An e-mail address, a service principal's UUID, a group's name or `System-User`.
    pub email: Option<Text<'a>>,
    /// Normally null.
    pub subject_name: Option<Text<'a>>,
}

/// `request_params`: compact JSON text of an object whose values are strings or null.
#[derive(Clone, Debug, PartialEq)]
pub struct Params<'a>(pub std::borrow::Cow<'a, str>);

impl<'a> Params<'a> {
    /// The first of the named parameters that is there and not null. Keys are matched as they are spelled.
    pub fn get(&'a self, names: &[&str]) -> Option<Text<'a>> {
        crate::json::members(&self.0)
            .find(|(key, value)| kind(value) == Kind::String && names.contains(&key.trim_matches('"')))
            .map(|(_, value)| Text::from_json(value))
    }
}

/// `response`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response<'a> {
    /// An HTTP status, or 0 or 1 where the service uses an exit code.
    pub status_code: Option<i64>,
    /// Why it failed.
    pub error_message: Option<Text<'a>>,
    /// What it gave: JSON text, not unwrapped.
    pub result: Option<Text<'a>>,
}

/// `identity_metadata`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunIdentity<'a> {
    /// Who started it.
    pub run_by: Option<Text<'a>>,
    /// As whom it ran.
    pub run_as: Option<Text<'a>>,
    /// The resource that acted.
    pub acting_resource: Option<Text<'a>>,
}

/// Members of `_source`. Delivered records have three, which then take no memory of their own.
pub type Extras<'a> = SmallVec<[Extra<'a>; 4]>;

/// A member of `_source`.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra<'a> {
    /// Its key.
    pub key: Text<'a>,
    /// Its value: valid compact JSON text.
    pub value: std::borrow::Cow<'a, str>,
}

impl Identity<'_> {
    /// Gives up the borrow.
    pub fn into_owned(self) -> Identity<'static> {
        Identity {
            email: self.email.map(Text::into_owned),
            subject_name: self.subject_name.map(Text::into_owned),
        }
    }
}

impl Response<'_> {
    /// Gives up the borrow.
    pub fn into_owned(self) -> Response<'static> {
        Response {
            status_code: self.status_code,
            error_message: self.error_message.map(Text::into_owned),
            result: self.result.map(Text::into_owned),
        }
    }
}

impl RunIdentity<'_> {
    /// Gives up the borrow.
    pub fn into_owned(self) -> RunIdentity<'static> {
        RunIdentity {
            run_by: self.run_by.map(Text::into_owned),
            run_as: self.run_as.map(Text::into_owned),
            acting_resource: self.acting_resource.map(Text::into_owned),
        }
    }
}

impl Extra<'_> {
    /// Gives up the borrow.
    pub fn into_owned(self) -> Extra<'static> {
        Extra { key: self.key.into_owned(), value: self.value.into_owned().into() }
    }
}

/// Whether the action succeeded, as far as the record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Status 200 to 399.
    Success,
    /// Any other status, 0 and 1 included.
    Failure,
    /// No status.
    Unknown,
}

impl AuditEvent<'_> {
    /// The outcome by `response.status_code`.
    pub fn outcome(&self) -> Outcome {
        match self.response.value().and_then(|response| response.status_code) {
            Some(200..=399) => Outcome::Success,
            Some(_) => Outcome::Failure,
            None => Outcome::Unknown,
        }
    }

    /// The status code where it is an HTTP status and no exit code.
    pub fn http_status(&self) -> Option<i64> {
        self.response.value()?.status_code.filter(|code| (100..=599).contains(code))
    }

    /// The client's address where the text is one.
    pub fn source_ip(&self) -> Option<IpAddr> {
        self.source_ip_address.as_ref()?.escaped().parse().ok()
    }

    /// Who did it, where the record says so.
    pub fn user(&self) -> Option<&Text<'_>> {
        self.user_identity.value()?.email.as_ref().filter(|email| !email.is_empty())
    }

    /// The first of the named request parameters that is a text with something in it.
    pub fn parameter(&self, names: &[&str]) -> Option<Text<'_>> {
        names
            .iter()
            .find_map(|name| self.request_params.value()?.get(&[*name]).filter(|text| !text.is_empty()))
    }

    /// Whether Databricks had cut the parameters, as the decoder marked it.
    pub fn is_truncated(&self) -> bool {
        self.extra("truncated") == Some("true")
    }

    /// The cloud the record comes from (`aws`, `azure`, `gcp`), where the route tells.
    pub fn cloud(&self) -> Option<Text<'_>> {
        let cloud = self.extra("cloud").filter(|value| kind(value) == Kind::String)?;
        Some(Text::from_json(cloud)).filter(|cloud| !cloud.is_empty())
    }

    /// The value of an extra member (JSON text) by its key; the last of several, since our own come after the record's.
    pub fn extra(&self, key: &str) -> Option<&str> {
        self.extras.iter().rfind(|extra| extra.key.is(key)).map(|extra| extra.value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_service_and_of_an_action_are_of_one_kind() {
        let kind = |service: &str, action: &str| {
            let names = (Some(Text::from_plain(service)), Some(Text::from_plain(action)));
            AuditEvent { service_name: names.0, action_name: names.1, ..AuditEvent::default() }.kind()
        };
        assert_eq!(kind("jobs", "create"), kind("jobs", "create"));
        assert_ne!(kind("jobs", "create"), kind("jobs", "delete"));
        assert_ne!(kind("jobs", "create"), kind("clusters", "create"));
        assert_ne!(kind("jobs", "create"), AuditEvent::default().kind());
        let of_jobs = |action| kind("jobs", action) >> 32;
        assert_eq!(of_jobs("create"), of_jobs("delete"), "actions of one service are neighbours");
    }
}
