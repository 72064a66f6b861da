//! Steps at which a process of a debug build can be made to die, for the tests that then look whether anything is missing.
//!
//! `AUDITFERRY_ABORT_AT=committing:3` ends the process with SIGABRT when it comes to that step for the third time: no
//! destructor runs and nothing is flushed, as with `kill -9`, which from outside cannot be aimed so well. A release build
//! knows nothing of it.

/// A step that is worth dying at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The tables of the state are made or changed, and that is not committed.
    Migrating,
    /// An object is read on from where it was left, and what is new comes next.
    ReadingSeam,
    /// The collector has answered, and nobody has been told.
    Answered,
    /// Dead letters are written and not synced.
    KeepingDeadLetters,
    /// They are on disk, and their events are not settled.
    KeptDeadLetters,
    /// Positions are written and the transaction is open.
    Committing,
    /// The transaction is on disk, and nobody has been told.
    Committed,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Migrating,
        Self::ReadingSeam,
        Self::Answered,
        Self::KeepingDeadLetters,
        Self::KeptDeadLetters,
        Self::Committing,
        Self::Committed,
    ];

    /// As the environment variable names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Migrating => "migrating",
            Self::ReadingSeam => "reading_seam",
            Self::Answered => "answered",
            Self::KeepingDeadLetters => "keeping_dead_letters",
            Self::KeptDeadLetters => "kept_dead_letters",
            Self::Committing => "committing",
            Self::Committed => "committed",
        }
    }
}

/// Whether the tests can choose a step in this build.
pub const CAN_ABORT: bool = cfg!(debug_assertions);

/// Told when the process has come to a step.
#[cfg(not(debug_assertions))]
pub fn reached(_: Step) {}

/// Told when the process has come to a step: it may be its last one.
#[cfg(debug_assertions)]
pub fn reached(step: Step) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static DOOM: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let text = std::env::var("AUDITFERRY_ABORT_AT").ok()?;
        let (step, times) = text.split_once(':')?;
        Some((step.to_owned(), times.parse::<u32>().ok()?.into()))
    });

    let Some((doomed, left)) = &*DOOM else { return };
    if doomed == step.name() && left.fetch_sub(1, Ordering::Relaxed) == 1 {
        std::process::abort();
    }
}
