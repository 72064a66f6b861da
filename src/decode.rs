//! The contract of a decoder: pure and total, from a record to its events.

use std::collections::HashMap;

use crate::chunk::Origin;
use crate::event::AuditEvent;

pub mod audit;
pub mod redacting;

/// Why a record is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// In one word, for metrics.
    pub reason: &'static str,
    /// In a sentence.
    pub detail: String,
}

/// What some routes leave out of their records and only the user knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Account of records that name none (Azure).
    pub account_id: Option<String>,
    /// Workspace id by Azure resource id in lower case.
    pub workspace_ids: HashMap<String, String>,
}

/// Turns records into events.
pub trait Decoder: Send + Sync {
    /// Hands each event of the record to `each`, in order; an envelope holds several. The `occurrence` tells equal
    /// records of one partition apart; `scratch` is a buffer to be used again.
    ///
    /// # Errors
    /// [`Undecodable`] if the record holds no event at all; `each` has not been called then.
    fn decode(
        &self,
        record: &[u8],
        occurrence: u32,
        origin: &Origin,
        scratch: &mut Vec<u8>,
        each: &mut dyn FnMut(&mut AuditEvent<'_>),
    ) -> Result<(), Undecodable>;
}
