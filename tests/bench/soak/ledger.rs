//! What arrived at a collector, how often, and why.
//!
//! A repeat is explained by the answer that did not come the time before, or by a kill soon after it: within the bytes
//! that may be read and not committed.

use std::collections::HashMap;

use crate::MEMORY_BYTES;

/// What came of a line so far.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Bytes of lines that had arrived before it, the last time.
    at_bytes: u64,
    /// Whether it was told to be in.
    answered: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    lines: HashMap<String, Line>,
    bytes: u64,
    /// Where the process was killed.
    kills: Vec<u64>,
    after_ambiguous: u64,
    after_kill: u64,
    unexplained: u64,
}

/// Both sides compared.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) arrived: usize,
    pub(crate) missing: usize,
    /// Never written.
    pub(crate) unknown: usize,
    pub(crate) after_ambiguous: u64,
    pub(crate) after_kill: u64,
    pub(crate) unexplained: u64,
}

impl Ledger {
    /// A line of so many bytes arrives; whether it is new.
    pub(crate) fn arrive(&mut self, id: &str, bytes: usize, answered: bool) -> bool {
        let (at_bytes, kills) = (self.bytes, &self.kills);
        self.bytes += bytes as u64;
        let Some(line) = self.lines.get_mut(id) else {
            self.lines.insert(id.to_owned(), Line { at_bytes, answered });
            return true;
        };
        // Events are half as large again as the lines that memory is counted in.
        let window = line.at_bytes..=line.at_bytes + 2 * MEMORY_BYTES;
        let killed_soon_after = || kills.iter().any(|kill| window.contains(kill));
        match () {
            () if !line.answered => self.after_ambiguous += 1,
            () if killed_soon_after() => self.after_kill += 1,
            () => self.unexplained += 1,
        }
        *line = Line { at_bytes, answered };
        false
    }

    /// The process was killed.
    pub(crate) fn note_kill(&mut self) {
        self.kills.push(self.bytes);
    }

    pub(crate) fn count(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn audit(&self, written: &[String]) -> Audit {
        let missing = written.iter().filter(|id| !self.lines.contains_key(*id)).count();
        Audit {
            arrived: self.lines.len(),
            missing,
            unknown: self.lines.len() + missing - written.len(),
            after_ambiguous: self.after_ambiguous,
            after_kill: self.after_kill,
            unexplained: self.unexplained,
        }
    }
}
