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
//!
//! There are millions of positions, so they are written short, in words with a blank between them: a 2, the flags by
//! letter, the numbers in the order of the fields, the version. Earlier releases wrote JSON, which is still read.

use serde::Deserialize;

use crate::chunk::Position;

/// Bytes before the offset that must be unchanged for the rest to be taken as new.
pub(super) const SEAM_BYTES: usize = 64 << 10;

/// More bytes or lines than any object has.
const MOST: u64 = 1 << 60;

/// What is committed for an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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
    pub(super) waiting: bool,
    /// Lines were shipped that this version does not hold: growth must be compared line by line.
    pub(super) compare: bool,
    /// The object is compressed; `offset` does not count stored bytes.
    pub(super) compressed: bool,
    /// It is a document of records, not lines.
    pub(super) document: bool,
    /// Its fingerprints were dropped: its date is closed, or it has too many lines.
    pub(super) folded: bool,
    /// It was read whole once more after its date closed.
    pub(super) verified: bool,
}

/// Begins a position that is not JSON.
const SHORT_FORM: &str = "2";

impl ObjectPosition {
    /// Reads a committed position; one that cannot be read counts as none, and the object is read anew.
    pub(super) fn parse(position: &Position) -> Option<Self> {
        Self::read(position.as_str()).filter(Self::is_plausible)
    }

    /// False for what no object can have, and what counting on from would overflow.
    fn is_plausible(&self) -> bool {
        let counts = [self.offset, self.lines, self.shipped];
        counts.iter().all(|count| *count <= MOST) && self.seam_bytes as usize <= SEAM_BYTES
    }

    fn read(text: &str) -> Option<Self> {
        if text.starts_with('{') {
            return serde_json::from_str(text).ok();
        }
        let mut words = text.splitn(8, ' ');
        if words.next()? != SHORT_FORM {
            return None;
        }
        let mut position = Self::default();
        let mut flags = words.next()?.to_owned();
        for (letter, flag) in position.flags_mut() {
            *flag = flags.contains(letter);
            flags.retain(|other| other != letter);
        }
        position.offset = words.next()?.parse().ok()?;
        position.lines = words.next()?.parse().ok()?;
        position.shipped = words.next()?.parse().ok()?;
        position.seam_bytes = words.next()?.parse().ok()?;
        position.seam = u64::from_str_radix(words.next()?, 16).ok()?;
        position.version = words.next()?.to_owned();
        flags.is_empty().then_some(position)
    }

    pub(super) fn encode(&self) -> Position {
        let Self { version, offset, lines, shipped, seam_bytes, seam, .. } = self;
        let mut copy = self.clone();
        let set = copy.flags_mut().into_iter().filter(|(_, flag)| **flag);
        let flags: String = set.map(|(letter, _)| letter).collect();
        Position::new(&format!(
            "{SHORT_FORM} {flags} {offset} {lines} {shipped} {seam_bytes} {seam:x} {version}"
        ))
    }

    fn flags_mut(&mut self) -> [(char, &mut bool); 7] {
        [
            ('d', &mut self.done),
            ('w', &mut self.waiting),
            ('c', &mut self.compare),
            ('z', &mut self.compressed),
            ('j', &mut self.document),
            ('f', &mut self.folded),
            ('v', &mut self.verified),
        ]
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
        assert_eq!(
            planned(&ObjectPosition { offset: 50, ..known() }, "v2", SMALL),
            Plan::Compare,
            "as small"
        );
        assert_eq!(planned(&ObjectPosition { offset: 50, ..known() }, "v2", SMALL + 1), Plan::Append);
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
        let position = ObjectPosition {
            version: "W/\"a b\" 1".to_owned(),
            seam: u64::MAX,
            seam_bytes: 7,
            compare: true,
            waiting: true,
            ..known()
        };
        assert_eq!(position.encode().as_str(), "2 dwc 1000 0 0 7 ffffffffffffffff W/\"a b\" 1");
        let mut all = known();
        all.flags_mut().into_iter().for_each(|(_, flag)| *flag = true);
        assert_eq!(all.encode().as_str(), "2 dwczjfv 1000 0 0 0 0 v1");
        let document = ObjectPosition { document: true, ..known() };
        assert_eq!(document.encode().as_str(), "2 dj 1000 0 0 0 0 v1", "read by later releases too");
        let whole_seam = u32::try_from(SEAM_BYTES).unwrap();
        for position in [
            position,
            ObjectPosition::default(),
            ObjectPosition { verified: true, ..known() },
            ObjectPosition { offset: MOST, seam_bytes: whole_seam, ..known() },
        ] {
            assert_eq!(ObjectPosition::parse(&position.encode()), Some(position));
        }
    }

    #[test]
    fn a_position_of_an_earlier_release_is_read_and_what_is_none_is_not() {
        let json = r#"{"version":"\"v\"","offset":357,"lines":3,"shipped":3,"seam_bytes":357,"seam":8008333007351973277,"done":true,"folded":true}"#;
        let expected = ObjectPosition {
            version: "\"v\"".to_owned(),
            offset: 357,
            lines: 3,
            shipped: 3,
            seam_bytes: 357,
            seam: 8_008_333_007_351_973_277,
            done: true,
            folded: true,
            ..ObjectPosition::default()
        };
        assert_eq!(ObjectPosition::parse(&Position::new(json)), Some(expected));
        for text in
            ["", "garbage", "2", "2 d 1 2 3 4 5", "2 dx 1 2 3 4 5 v", "2 d 1 2 3 4 g v", "3 d 1 2 3 4 5 v"]
        {
            assert_eq!(ObjectPosition::parse(&Position::new(text)), None, "{text}");
        }
        for wrong in [
            ObjectPosition { shipped: u64::MAX, ..known() },
            ObjectPosition { offset: MOST + 1, ..known() },
            ObjectPosition { lines: u64::MAX, ..known() },
            ObjectPosition { seam_bytes: u32::try_from(SEAM_BYTES + 1).unwrap(), ..known() },
            ObjectPosition { seam_bytes: u32::MAX, ..known() },
        ] {
            assert_eq!(ObjectPosition::parse(&wrong.encode()), None, "{wrong:?}");
        }
    }
}
