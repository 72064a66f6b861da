//! Reasons to look at an object before the next listing does: file events, notifications, changes under the reader's
//! hands, and what failed.
//!
//! A hint costs time when it is late, repeated, wrong or lost, never data: the state decides what of an object is new,
//! and the listing finds what no hint told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::sync::{Notify, mpsc};

/// Objects that failed and are tried again; what goes beyond is found again by its folder's next listing.
const MAX_AGAIN: usize = 10_000;

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
    again: Mutex<BTreeSet<Path>>,
}

impl Hints {
    pub(super) fn new(hints: mpsc::Sender<Hint>) -> Self {
        Self { hints, rescan: Notify::new(), again: Mutex::default() }
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
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        if again.len() < MAX_AGAIN {
            again.insert(key);
        }
    }

    /// Waits until somebody wants everything open listed.
    pub(super) async fn rescan_wanted(&self) {
        self.rescan.notified().await;
    }

    /// Takes the objects that are to be tried again.
    pub(super) fn take_again(&self) -> BTreeSet<Path> {
        std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// True if no object is to be tried again.
    pub(super) fn nothing_again(&self) -> bool {
        self.again.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
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
