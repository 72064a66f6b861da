//! The contract of a decoder: pure and total, from a record to its events.

use crate::chunk::Origin;
use crate::event::AuditEvent;

pub mod audit;

/// Why a record is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// In one word, for metrics.
    pub reason: &'static str,
    /// In a sentence.
    pub detail: String,
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
        each: &mut dyn FnMut(&AuditEvent<'_>),
    ) -> Result<(), Undecodable>;
}
