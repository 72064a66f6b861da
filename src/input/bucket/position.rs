//! Where a reader stands in an object, and what to read when the object has changed.
//!
//! ```text
//!   known position                          object now              plan
//!   ------------------------------------    --------------------    -------------------------------------------
//!   none                                    any                     fresh: read it all
//!   read to its end, same version           same                    nothing
//!   any                                     <= verify_whole_below   compare: read it all, line by line
//!   lines shipped that are not in it        any                     compare
//!   compressed                              any                     compare (no ranges in a compressed object)
//!   read up to `offset`                     larger than offset      append: seam, then what follows it
//!   read up to `offset`                     not larger              compare
//!
//!   append, but the seam differs                                    compare, and count a mismatch
//!   compare, but the fingerprints are gone                          append if it is not smaller, else fresh
//! ```

use serde::{Deserialize, Serialize};

use crate::chunk::Position;

/// Bytes before the offset that must be unchanged for the rest to be taken as new.
pub(super) const SEAM_BYTES: usize = 64 << 10;

/// What is committed for an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ObjectPosition {
    /// Version of the object that was read: its ETag, or size and time where the store has none.
    pub(super) version: String,
    /// Bytes of whole lines shipped, in the decompressed object.
    pub(super) offset: u64,
    /// Lines before the offset, blank ones included: numbers the lines of dead letters.
    pub(super) lines: u64,
    /// Fingerprints kept for the object.
    pub(super) shipped: u64,
    /// Length of the seam before the offset.
    pub(super) seam_bytes: u32,
    /// Digest of the seam.
    pub(super) seam: u64,
    /// All of that version was read.
    pub(super) done: bool,
    /// A last line without its end waits to be completed.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) waiting: bool,
    /// Lines were shipped that this version does not hold: growth must be compared line by line.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) compare: bool,
    /// The object is compressed; `offset` does not count stored bytes.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) compressed: bool,
    /// It is a document of records, not lines.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) document: bool,
    /// Its fingerprints were dropped: its date is closed, or it has too many lines.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) folded: bool,
    /// It was read whole once more after its date closed.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) verified: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl ObjectPosition {
    /// Reads a committed position; one that cannot be read counts as none, and the object is read anew.
    pub(super) fn parse(position: &Position) -> Option<Self> {
        serde_json::from_str(position.as_str()).ok()
    }

    pub(super) fn encode(&self) -> Position {
        Position::new(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Its ETag, or what stands in for it.
    pub(super) name: String,
    /// Stored bytes.
    pub(super) size: u64,
}

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing has changed.
    Nothing,
    /// All of it is new.
    Fresh,
    /// What follows the offset, if the seam before it is unchanged.
    Append,
    /// All of it, leaving out the lines that were shipped.
    Compare,
}

/// Decides by the table above.
pub(super) fn plan(known: Option<&ObjectPosition>, now: &Version, verify_whole_below: u64) -> Plan {
    let Some(known) = known else { return Plan::Fresh };
    let same = known.version == now.name;
    if same && known.done {
        return Plan::Nothing;
    }
    // A read that was cut short goes on where it stopped.
    let resumes = same && !known.compare && !known.compressed;
    let grows = !known.compressed && now.size > known.offset;
    if known.folded {
        return if grows || (!known.compressed && now.size == known.offset) {
            Plan::Append
        } else {
            Plan::Fresh
        };
    }
    let small = now.size <= verify_whole_below && !resumes;
    if small || known.compare || known.compressed || !grows {
        return Plan::Compare;
    }
    Plan::Append
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u64 = 100;

    fn known() -> ObjectPosition {
        ObjectPosition { version: "v1".to_owned(), offset: 1000, done: true, ..ObjectPosition::default() }
    }

    fn planned(known: &ObjectPosition, version: &str, size: u64) -> Plan {
        plan(Some(known), &Version { name: version.to_owned(), size }, SMALL)
    }

    #[test]
    fn the_plan_follows_the_table() {
        assert_eq!(plan(None, &Version { name: "v1".to_owned(), size: 5 }, SMALL), Plan::Fresh);
        assert_eq!(planned(&known(), "v1", 1000), Plan::Nothing);
        assert_eq!(planned(&known(), "v2", 1500), Plan::Append);
        assert_eq!(planned(&known(), "v2", 1000), Plan::Compare);
        assert_eq!(planned(&known(), "v2", 900), Plan::Compare);
        assert_eq!(planned(&ObjectPosition { offset: 50, ..known() }, "v2", 80), Plan::Compare, "small");
        assert_eq!(planned(&ObjectPosition { compare: true, ..known() }, "v2", 1500), Plan::Compare);
        assert_eq!(planned(&ObjectPosition { compressed: true, ..known() }, "v2", 1500), Plan::Compare);
    }

    #[test]
    fn a_read_that_was_cut_short_goes_on_where_it_stopped() {
        let cut = ObjectPosition { done: false, ..known() };
        assert_eq!(planned(&cut, "v1", 5000), Plan::Append);
        assert_eq!(
            planned(&ObjectPosition { offset: 20, ..cut.clone() }, "v1", 80),
            Plan::Append,
            "even if small"
        );
        assert_eq!(planned(&ObjectPosition { compare: true, ..cut }, "v1", 5000), Plan::Compare);
    }

    #[test]
    fn without_fingerprints_a_seam_must_do() {
        let folded = ObjectPosition { folded: true, ..known() };
        assert_eq!(planned(&folded, "v2", 1000), Plan::Append);
        assert_eq!(planned(&folded, "v2", 1500), Plan::Append);
        assert_eq!(planned(&folded, "v2", 900), Plan::Fresh);
    }

    #[test]
    fn positions_survive_being_written() {
        let position =
            ObjectPosition { seam: u64::MAX, seam_bytes: 7, compare: true, waiting: true, ..known() };
        assert_eq!(ObjectPosition::parse(&position.encode()), Some(position));
        assert_eq!(ObjectPosition::parse(&Position::new("garbage")), None);
    }
}
