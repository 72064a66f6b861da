//! File-system events of a local directory: a changed file is looked at without waiting for the next poll.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::hints::Hints;

/// Watches until dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    _watcher: RecommendedWatcher,
}

impl Watcher {
    /// Watches a directory and all below it. A directory that cannot be watched is polled alone, and says so.
    pub(super) fn start(root: &Path, hints: Arc<Hints>) -> Option<Self> {
        let root = root.to_owned();
        let below = root.clone();
        let handler = move |event: notify::Result<Event>| follow(&below, &hints, event);
        let started = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(&root, RecursiveMode::Recursive)?;
            Ok(Self { _watcher: watcher })
        });
        started
            .map_err(|error| {
                tracing::warn!(
                    directory = %root.display(), %error,
                    "cannot watch the directory: changes are noticed at the next poll; set watch = false to silence this"
                );
            })
            .ok()
    }
}

fn follow(root: &Path, hints: &Hints, event: notify::Result<Event>) {
    let Ok(event) = event else { return hints.rescan() };
    if event.need_rescan() {
        hints.rescan();
    }
    if matches!(event.kind, EventKind::Access(_) | EventKind::Remove(_)) {
        return;
    }
    for path in &event.paths {
        if path.is_dir() {
            // Files that were put into a new directory before it was watched have no events of their own.
            hints.rescan();
        } else if let Some(key) = key(root, path) {
            hints.look(key);
        }
    }
}

fn key(root: &Path, path: &Path) -> Option<object_store::path::Path> {
    let below: PathBuf = path.strip_prefix(root).ok()?.to_owned();
    object_store::path::Path::parse(below.to_str()?.replace(std::path::MAIN_SEPARATOR, "/")).ok()
}
