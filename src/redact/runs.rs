//! What is known of the text around a hit. Whoever runs a command chooses its text: with thousands of hits in one long word,
//! looking at the whole word for each of them would take the square of its length.

use std::ops::Range;

use super::secrets::{in_name, is_bare};

/// The parts of a text that were looked at last.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Of bytes that names are made of.
    name: Range<usize>,
    /// Of bytes that values without quotes are made of.
    bare: Range<usize>,
    /// A name that has no secret.
    harmless: Option<Range<usize>>,
    /// A JSON web token that begins before this has too few parts.
    pub(super) no_jwt_before: usize,
}

impl Runs {
    /// The whole name that this is part of; it does not begin before `after`.
    pub(super) fn name_around(&mut self, text: &[u8], after: usize, part: Range<usize>) -> Range<usize> {
        // `earer ` and `sig=` end with what ends their name.
        let within = text.get(part.clone()).unwrap_or_default();
        let end = part.start + within.iter().rposition(|byte| in_name(*byte)).map_or(0, |last| last + 1);
        if self.name.start > part.start || self.name.end < end {
            let before = text.get(after..part.start).unwrap_or_default();
            let start = part.start - before.iter().rev().take_while(|byte| in_name(**byte)).count();
            self.name = start..end + length(text, end, in_name);
        }
        self.name.start.max(after)..self.name.end
    }

    /// Where the value without quotes ends that starts here.
    pub(super) fn bare_end(&mut self, text: &[u8], start: usize) -> usize {
        if self.bare.start > start || self.bare.end < start {
            self.bare = start..start + length(text, start, is_bare);
        }
        self.bare.end
    }

    /// Whether this name was found to have no secret.
    pub(super) fn is_harmless(&self, name: &Range<usize>) -> bool {
        self.harmless.as_ref() == Some(name)
    }

    /// This name has no secret.
    pub(super) fn note_harmless(&mut self, name: Range<usize>) {
        self.harmless = Some(name);
    }
}

/// How many bytes of a kind follow.
pub(super) fn length(text: &[u8], start: usize, kind: fn(u8) -> bool) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    rest.iter().position(|byte| !kind(*byte)).unwrap_or(rest.len())
}
