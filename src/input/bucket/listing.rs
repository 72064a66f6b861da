//! One listing of a store: all below a folder, or what of it comes behind a name.

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::lanes::Refused;

/// Objects looked up in the state at once.
const LOOK_UP: usize = 1000;

/// Objects that were listed.
pub(super) type Batches = Pin<Box<dyn Stream<Item = Result<Vec<ObjectMeta>, Refused>> + Send>>;

/// A listing to make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listing {
    pub(super) folder: Path,
    /// Only what comes behind it.
    pub(super) after: Option<Path>,
}

impl Listing {
    /// All below a folder.
    pub(super) fn whole(folder: Path) -> Self {
        Self { folder, after: None }
    }

    /// Makes it.
    pub(super) fn batches(self, store: &Arc<dyn ObjectStore>, local: bool) -> Batches {
        let Self { folder, after } = self;
        let listing: BoxStream<'static, _> = match &after {
            Some(after) => store.list_with_offset(Some(&folder), after),
            None => store.list(Some(&folder)),
        };
        let refused = move |error| (folder.clone(), error);
        // A folder that went away between two looks holds nothing.
        let listing = listing.filter(|meta| {
            let gone = matches!(meta, Err(object_store::Error::NotFound { .. }));
            std::future::ready(!gone)
        });
        if !local {
            return Box::pin(listing.try_chunks(LOOK_UP).map_err(move |error| refused(error.1)));
        }
        // In a directory, each name that cannot be looked at is a failure of its own, which must not hide those before it.
        let batches = listing.ready_chunks(LOOK_UP).flat_map(move |listed| {
            let (mut found, mut batches) = (Vec::with_capacity(listed.len()), Vec::new());
            for listed in listed {
                match listed {
                    Ok(meta) => found.push(meta),
                    Err(error) => batches.push(Err(refused(error))),
                }
            }
            batches.push(Ok(found));
            stream::iter(batches)
        });
        Box::pin(batches)
    }
}
