//! Reads one object: what of it is new, in chunks of whole lines.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::de::IgnoredAny;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use super::assemble::Assembler;
use super::fingerprint::{self, Key, Repeats, Room, Shipped};
use super::layout::{Layout, Place};
use super::open::OpenObjects;
use super::position::{ObjectPosition, Plan, SEAM_BYTES, Version, plan};
use super::queue::Queued;
use super::ranges::{Pieces, ReadAhead};
use super::refusal::is_archived;
use super::turns::Turns;
use crate::azure_workspace::Workspaces;
use crate::budget::Budget;
use crate::buffer::Pool;
use crate::chunk::Partition;
use crate::input::{InputError, Read, Resume};
use crate::state::StateError;
use crate::time::Millis;

/// Times an object may be overwritten under the reader's hands before it waits for the next look.
const MOVES_FOLLOWED: usize = 3;
/// Times a read that broke off is taken up again at once; after that the object waits for the next look.
const FAILURES_BORNE: u32 = 3;
/// Pause before the first of them; the second waits twice as long.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether what was handed on is committed.
const COMMITTED_LOOK: Duration = Duration::from_millis(50);
/// Bytes read from a local file at once.
const FILE_BLOCK_BYTES: usize = 256 << 10;

/// An object with more than so many bytes to read is large.
const LARGE_BYTES: u64 = 1 << 20;

/// An object as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: Path,
    pub(super) place: Place,
    pub(super) version: Version,
    /// The version's real ETag, for `If-Match`; none where it is weak, which no `If-Match` is ever true of. What is read
    /// then may be another version of the same size: the next look finds that there is one.
    pub(super) etag: Option<String>,
    pub(super) modified: Option<Millis>,
    /// Read it whole whatever the position says: its date has closed.
    pub(super) verify: bool,
    /// Keep no fingerprints of it once it is read: its date closed long ago.
    pub(super) fold: bool,
    /// Its part of what lies ahead.
    pub(super) queued: Option<Queued>,
}

impl Found {
    pub(super) fn new(meta: &ObjectMeta, place: Place) -> Self {
        let modified = Millis::new(meta.last_modified.timestamp_millis());
        let name = match &meta.e_tag {
            Some(etag) => etag.clone(),
            None => format!("{}-{}", meta.size, meta.last_modified.timestamp_millis()),
        };
        Self {
            key: meta.location.clone(),
            place,
            version: Version { name, size: meta.size },
            etag: meta.e_tag.clone().filter(|etag| !etag.starts_with("W/")),
            modified,
            verify: false,
            fold: false,
            queued: None,
        }
    }

    pub(super) fn partition(&self) -> Partition {
        Partition::new(self.key.as_ref())
    }
}

/// Why an object was not read.
#[derive(Debug, Error)]
pub(super) enum ObjectError {
    /// Another version took its place.
    #[error("the object was overwritten while it was read")]
    Moved,
    /// It is gone.
    #[error("the object is gone")]
    Gone,
    /// The seam is not what it was.
    #[error("the shipped part of the object has changed")]
    SeamDiffers,
    #[error(transparent)]
    Store(object_store::Error),
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    State(#[from] StateError),
    /// The pipeline has ended.
    #[error("the pipeline has ended")]
    Closed,
}

impl ObjectError {
    /// True for what may go by itself within seconds.
    fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => {
                let denied = matches!(
                    error,
                    object_store::Error::PermissionDenied { .. }
                        | object_store::Error::Unauthenticated { .. }
                );
                !denied && !is_archived(error)
            }
            _ => false,
        }
    }
}

impl From<object_store::Error> for ObjectError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::Precondition { .. } => Self::Moved,
            object_store::Error::NotFound { .. } => Self::Gone,
            other => Self::Store(other),
        }
    }
}

/// What all readers of a bucket share.
#[derive(Debug)]
pub(super) struct ObjectReader {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) cloud: Option<&'static str>,
    pub(super) key: Key,
    pub(super) resume: Resume,
    pub(super) budget: Budget,
    pub(super) long_line: Arc<Semaphore>,
    pub(super) open: Arc<OpenObjects>,
    pub(super) reads: mpsc::Sender<Result<Read, InputError>>,
    pub(super) chunk_bytes: usize,
    /// One for each object that may be read at once. Whoever waits for a store's answer needs none.
    pub(super) reading: Turns,
    /// One for each large object that may be asked for at once: some hundred kilobytes of it lie in its connection's buffers
    /// until it is read.
    pub(super) large: Turns,
    /// For the fingerprints of large objects. Whoever waits for it holds nothing else.
    pub(super) fingerprints: Room,
    /// How large objects are read ahead; `None` where they are near.
    pub(super) read_ahead: Option<ReadAhead>,
    pub(super) max_line_bytes: usize,
    pub(super) verify_whole_below: u64,
    /// How long a last line without its end may stay unfinished; `None` where objects appear whole.
    pub(super) partial_line_wait: Option<Duration>,
    /// True where objects may be documents of records.
    pub(super) documents: bool,
    /// Objects changed at this time or later are left out.
    pub(super) until: Option<Millis>,
    /// Workspace ids of Azure's resources, where its records may come.
    pub(super) workspaces: Option<Arc<Workspaces>>,
}

impl ObjectReader {
    /// Reads what is new in an object and hands it on.
    pub(super) async fn read(&self, mut found: Found, now: Millis) -> Result<(), ObjectError> {
        let mut mismatch = false;
        let (mut moves, mut failures) = (0, 0);
        loop {
            let position = self.resume.position(&found.partition()).await?;
            let known = position.as_ref().and_then(ObjectPosition::parse);
            let mut planned = plan(known.as_ref(), &found.version, self.verify_whole_below);
            if let Some(known) = &known {
                let overdue = known.waiting && self.is_overdue(&found, now);
                match planned {
                    Plan::Nothing if overdue => {
                        let whole = (known.compare || known.compressed) && !known.folded;
                        planned = if whole { Plan::Compare } else { Plan::Append }
                    }
                    Plan::Nothing | Plan::Append if found.verify && !known.folded && !known.verified => {
                        planned = Plan::Compare;
                    }
                    Plan::Append if mismatch => {
                        planned = if known.folded { Plan::Fresh } else { Plan::Compare }
                    }
                    _ => {}
                }
            }
            if planned == Plan::Nothing {
                return Ok(());
            }
            let result = self.read_version(&found, known.as_ref(), planned, mismatch, now).await;
            // What is committed by the next turn may be of the new content, whose seam is another one: without
            // fingerprints, reading all of it once more would ship it twice.
            mismatch = matches!(result, Err(ObjectError::SeamDiffers)) && !mismatch;
            match result {
                Err(ObjectError::SeamDiffers) if mismatch => {}
                Err(ObjectError::Moved) if moves < MOVES_FOLLOWED => {
                    moves += 1;
                    self.until_committed(&found.partition()).await;
                    let now = self.store.head(&found.key).await?;
                    if self.is_left_out(&now) {
                        return Ok(());
                    }
                    found = Found {
                        verify: found.verify,
                        fold: found.fold,
                        queued: found.queued,
                        ..Found::new(&now, found.place)
                    };
                }
                Err(error) if error.is_transient() && failures < FAILURES_BORNE => {
                    failures += 1;
                    self.until_committed(&found.partition()).await;
                    tokio::time::sleep(FAILURE_PAUSE * failures).await;
                }
                result => return result,
            }
        }
    }

    /// True for an object that was changed too late to be read.
    pub(super) fn is_left_out(&self, meta: &ObjectMeta) -> bool {
        self.until.is_some_and(|until| meta.last_modified.timestamp_millis() >= until.get())
    }

    /// Waits until what was handed on of an object is committed: only then does the state tell where to go on. Reading
    /// on from an older position would ship the same lines again.
    async fn until_committed(&self, partition: &Partition) {
        while !self.open.is_settled(partition) {
            tokio::time::sleep(COMMITTED_LOOK).await;
        }
    }

    pub(super) fn is_overdue(&self, found: &Found, now: Millis) -> bool {
        // A blob of Azure is appended to until its hour is over, and for some time after.
        match (self.partial_line_wait, found.modified.max(found.place.until)) {
            (Some(wait), Some(since)) => {
                u128::try_from(now.get() - since.get()).is_ok_and(|age| age >= wait.as_millis())
            }
            _ => true,
        }
    }

    async fn read_version(
        &self,
        found: &Found,
        known: Option<&ObjectPosition>,
        planned: Plan,
        mismatch: bool,
        now: Millis,
    ) -> Result<(), ObjectError> {
        let mut origin = Layout::origin(&found.key, &found.place, self.cloud);
        if let (Some(workspaces), Some(resource)) = (&self.workspaces, &found.place.resource) {
            origin = workspaces.of_path(origin, resource).await;
        }
        let fingerprints = match (planned, known) {
            (Plan::Append | Plan::Compare, Some(known)) if !known.folded => known.shipped,
            _ => 0,
        };
        let room = self.fingerprints.take(fingerprints).await;
        let start = match (planned, known) {
            (Plan::Append, Some(known)) => known.offset.saturating_sub(u64::from(known.seam_bytes)),
            _ => 0,
        };
        let large = found.version.size.saturating_sub(start) > LARGE_BYTES;
        let waits = || self.reads.capacity() == self.reads.max_capacity();
        let _connection = if large { Some(self.large.take(waits).await?) } else { None };
        let mut pieces = self.open(found, start).await?;
        // Asked for, it may take its time: only then does it take a turn, memory and fingerprints.
        let _turn = self.reading.take(waits).await?;
        let mut assembler = match (planned, known) {
            (Plan::Append, Some(known)) => {
                let total = if known.folded { 0 } else { known.shipped };
                let notes =
                    if known.folded { Vec::new() } else { self.resume.notes(&found.partition()).await? };
                Assembler::append(
                    self,
                    found,
                    origin,
                    known,
                    Repeats::after(total, fingerprint::decode(&notes)),
                )
            }
            (Plan::Compare, Some(known)) => {
                let notes = self.resume.notes(&found.partition()).await?;
                let shipped = Shipped::new(fingerprint::decode_all(&notes));
                Assembler::compare(self, found, origin, known, shipped)
            }
            (_, known) => Assembler::fresh(self, found, origin, known),
        };
        // What is appended to is done with all but the last of them.
        let _room = room.filter(|_| planned == Plan::Compare);
        let mut received = start;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            received += piece.len() as u64;
            if let Some(queued) = &found.queued {
                queued.read(piece.len() as u64);
            }
            assembler.push(&piece).await?;
        }
        if received < found.version.size {
            return Err(ObjectError::Moved);
        }
        let complete = self.is_overdue(found, now);
        assembler
            .finish(mismatch, |unterminated| {
                complete || serde_json::from_slice::<IgnoredAny>(unterminated).is_ok()
            })
            .await
    }

    /// Opens the object's bytes from `start` on, of exactly the version that was found.
    async fn open(&self, found: &Found, start: u64) -> Result<Pieces, ObjectError> {
        let span = start..found.version.size;
        if span.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        // Without an ETag, nothing would keep the ranges to one version.
        if let (Some(ahead), Some(etag)) = (&self.read_ahead, &found.etag)
            && ahead.is_worth_it(&span)
        {
            let (store, key) = (Arc::clone(&self.store), found.key.clone());
            return ahead.open(store, key, etag.clone(), span).await;
        }
        let options = GetOptions {
            if_match: found.etag.clone(),
            range: (start > 0).then_some(GetRange::Bounded(span)),
            ..GetOptions::default()
        };
        let result = self.store.get_opts(&found.key, options).await?;
        if found.etag.is_none() && result.meta.size != found.version.size {
            // Another version, for certain: where it ends, or breaks off, could not be told by the size that was found.
            return Err(ObjectError::Moved);
        }
        Ok(match result.payload {
            GetResultPayload::File(file, _) => {
                file_pieces(file, result.range.start, result.range.end, self.budget.pool().clone())
            }
            GetResultPayload::Stream(stream) => stream.map(|piece| piece.map_err(ObjectError::from)).boxed(),
        })
    }
}

/// A local file in large blocks: the store's own stream goes through the blocking pool every 8 KiB.
fn file_pieces(file: std::fs::File, start: u64, end: u64, pool: Pool) -> Pieces {
    let blocks = futures::stream::try_unfold((file, start, pool), move |(mut file, at, pool)| async move {
        let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(FILE_BLOCK_BYTES);
        if wanted == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            use std::io::{Read, Seek, SeekFrom};
            let mut block = pool.take(FILE_BLOCK_BYTES);
            block.resize(wanted, 0);
            file.seek(SeekFrom::Start(at))?;
            let mut filled = 0;
            while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read(rest)? {
                    0 => break,
                    read => filled += read,
                }
            }
            block.truncate(filled);
            Ok::<_, io::Error>((file, block.freeze(), pool))
        });
        let (file, block, pool) = read.await.map_err(io::Error::other)??;
        if block.is_empty() {
            return Ok(None);
        }
        let next = at + block.len() as u64;
        Ok(Some((block, (file, next, pool))))
    });
    blocks.boxed()
}

/// The last bytes of a stream, as many as a seam takes.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(SEAM_BYTES)..).unwrap_or_default();
        let surplus = (self.0.len() + bytes.len()).saturating_sub(SEAM_BYTES);
        self.0.drain(..surplus.min(self.0.len()));
        self.0.extend_from_slice(bytes);
    }

    /// Length and digest.
    pub(super) fn seam(&self, key: &Key) -> (u32, u64) {
        (u32::try_from(self.0.len()).unwrap_or(u32::MAX), key.fingerprint(&self.0))
    }
}
