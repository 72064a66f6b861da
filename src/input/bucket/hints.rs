//! Reasons to look at an object before the next listing does: file events, notifications, changes under the reader's
//! hands, and what failed.
//!
//! A hint costs time when it is late, repeated, wrong or lost, never data: the state decides what of an object is new,
//! and the listing finds what no hint told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Objects that failed and are remembered, to be tried again; where there are more, everything is looked at again.
pub(super) const MOST_AGAIN: usize = 10_000;

/// Archived objects that are remembered, for each other one that failed. Further ones are tried when they are listed.
const ARCHIVED_FOR_EACH: usize = 10;
/// The first wait for an archived object, which doubles up to the longest: it takes hours to restore one, and then it can be
/// read for a day at least.
const FIRST_REST: Duration = Duration::from_secs(600);
const LONGEST_REST: Duration = Duration::from_secs(6 * 3600);

/// A reason to look at an object.
#[derive(Debug)]
pub(super) struct Hint {
    key: Path,
    /// The object as whoever gave the hint knows it.
    told: Option<ObjectMeta>,
}

impl Hint {
    #[cfg(test)]
    pub(super) fn key(&self) -> &Path {
        &self.key
    }
}

/// Reasons to look at an object outside the listings. Shared with whoever has one.
#[derive(Debug)]
pub(super) struct Hints {
    hints: mpsc::Sender<Hint>,
    /// More changed than fits: list everything open.
    rescan: Notify,
    /// To be tried again at the next poll, or sooner where polls are far apart.
    again: Mutex<Again>,
    most_again: usize,
}

/// Objects that failed.
#[derive(Debug, Default)]
struct Again {
    keys: BTreeSet<Path>,
    /// There were more than are remembered.
    overflowed: bool,
    /// Objects in an archive, which are asked for ever more rarely.
    archived: BTreeMap<Path, Rest>,
}

/// An archived object is left alone for a while.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Digest of the version's name: another version need not be archived.
    version: u64,
    wait: Duration,
    until: Instant,
}

impl Hints {
    /// Hints that go this way; of what failed, so many are remembered.
    pub(super) fn new(hints: mpsc::Sender<Hint>, most_again: usize) -> Self {
        Self { hints, rescan: Notify::new(), again: Mutex::default(), most_again }
    }

    /// Look at this object now.
    pub(super) fn look(&self, key: Path) {
        self.hint(Hint { key, told: None });
    }

    /// Look at this object now; it is said to be so.
    pub(super) fn look_at(&self, meta: ObjectMeta) {
        self.hint(Hint { key: meta.location.clone(), told: Some(meta) });
    }

    fn hint(&self, hint: Hint) {
        if self.hints.try_send(hint).is_err() {
            self.rescan();
        }
    }

    /// List everything open.
    pub(super) fn rescan(&self) {
        self.rescan.notify_one();
    }

    /// Look at this object later.
    pub(super) fn again(&self, key: Path) {
        let mut again = self.lock();
        if again.keys.len() < self.most_again || again.keys.contains(&key) {
            again.keys.insert(key);
        } else {
            again.overflowed = true;
        }
    }

    /// This version of the object lies in an archive: look at it much later. Gives how long.
    pub(super) fn archived(&self, key: Path, version: &str) -> Duration {
        let mut again = self.lock();
        let version = xxh3_64(version.as_bytes());
        let before = again.archived.get(&key).filter(|rest| rest.version == version);
        let wait = before.map_or(FIRST_REST, |rest| (rest.wait * 2).min(LONGEST_REST));
        let room = again.archived.len() < ARCHIVED_FOR_EACH * self.most_again;
        if room || again.archived.contains_key(&key) {
            again.archived.insert(key, Rest { version, wait, until: Instant::now() + wait });
        }
        wait
    }

    /// True if this version of the object lies in an archive and was asked for not long ago.
    pub(super) fn rests(&self, key: &Path, version: &str) -> bool {
        let again = self.lock();
        again
            .archived
            .get(key)
            .is_some_and(|rest| Instant::now() < rest.until && rest.version == xxh3_64(version.as_bytes()))
    }

    /// The object is in no archive: it was read, or is gone.
    pub(super) fn not_archived(&self, key: &Path) {
        self.lock().archived.remove(key);
    }

    /// Waits until somebody wants everything open listed.
    pub(super) async fn rescan_wanted(&self) {
        self.rescan.notified().await;
    }

    /// Takes the objects that are to be tried again.
    pub(super) fn take_again(&self) -> BTreeSet<Path> {
        let mut again = self.lock();
        if again.overflowed && again.keys.len() < self.most_again {
            // The next poll may be far away.
            self.rescan();
        }
        let mut keys = std::mem::take(&mut again.keys);
        let now = Instant::now();
        keys.extend(again.archived.iter().filter(|(_, rest)| rest.until <= now).map(|(key, _)| key.clone()));
        keys
    }

    /// True, and that once, if more objects failed than are remembered, and there is room for them by now. While all that
    /// are remembered fail, the others would as well, and be listed for nothing.
    pub(super) fn take_overflow(&self) -> bool {
        let mut again = self.lock();
        let room = again.keys.len() < self.most_again;
        room && std::mem::take(&mut again.overflowed)
    }

    /// True if no object is to be tried again.
    pub(super) fn nothing_again(&self) -> bool {
        let again = self.lock();
        again.keys.is_empty() && again.archived.is_empty() && !again.overflowed
    }

    fn lock(&self) -> MutexGuard<'_, Again> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a hint, and takes with it those that are there already, up to so many; none if nobody is left to give any.
pub(super) async fn next(
    hints: &mut mpsc::Receiver<Hint>,
    most: usize,
) -> BTreeMap<Path, Option<ObjectMeta>> {
    let mut next = Vec::with_capacity(most);
    hints.recv_many(&mut next, most).await;
    next.into_iter().map(|hint| (hint.key, hint.told)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_archived_object_is_asked_for_ever_more_rarely_until_it_is_another_one() {
        let hints = Hints::new(mpsc::channel(1).0, 2);
        let key = Path::from("a");
        let mut tries = 0;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30 * 86_400) {
            let due = !hints.take_again().is_empty();
            assert_eq!(due, !hints.rests(&key, "v1") && tries > 0);
            if due || tries == 0 {
                hints.archived(key.clone(), "v1");
                tries += 1;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!((115..=130).contains(&tries), "{tries} tries in 30 days");
        assert!(!hints.rests(&key, "v2"), "another version is looked at at once");
        assert_eq!(hints.archived(key.clone(), "v2"), FIRST_REST);
        assert!(!hints.nothing_again(), "a restart has to look everywhere");
        hints.not_archived(&key);
        assert!(hints.nothing_again() && !hints.rests(&key, "v2"));
        for number in 0..100 {
            hints.archived(Path::from(format!("{number}")), "v1");
        }
        assert_eq!(hints.lock().archived.len(), 2 * ARCHIVED_FOR_EACH, "so many are remembered");
    }

    #[test]
    fn more_failed_objects_than_are_remembered_are_told_once_there_is_room() {
        let hints = Hints::new(mpsc::channel(1).0, 2);
        for key in ["a", "b", "a"] {
            hints.again(Path::from(key));
        }
        assert!(!hints.take_overflow() && !hints.nothing_again(), "no more than two");
        hints.again(Path::from("c"));
        assert!(!hints.take_overflow(), "none of the two has been read yet");
        assert_eq!(hints.take_again().len(), 2);
        assert!(!hints.nothing_again(), "the third is left");
        assert!(hints.take_overflow() && !hints.take_overflow());
        assert!(hints.nothing_again());
    }
}
