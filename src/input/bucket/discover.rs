//! Finds objects that have changed: by listing, by events of the file system or of S3, and by trying again what failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hints::{self, Hint, Hints};
use super::layout::{Layout, date_of, workspace_of};
use super::object::{Found, ObjectReader};
use super::position::{ObjectPosition, Plan, plan};
use super::queue::{Queue, Queued};
use super::refusal;
use super::schedule::{Age, Schedule};
use crate::chunk::{Chunk, Note, Partition, Position};
use crate::input::{InputError, Read};
use crate::time::{Date, Millis};

/// Objects looked up in the state at once.
const LOOK_UP: usize = 1000;
/// Listings under way at once.
const LISTINGS: usize = 8;
/// Between two listings of a single run, where the first one failed.
const ONCE_PAUSE: Duration = Duration::from_secs(1);
/// Hinted objects looked at at once.
const LOOKS: usize = 16;
/// How often the workspaces are listed.
const WORKSPACES_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest time between two listings, however often somebody asks for one.
const RESCAN_INTERVAL: Duration = Duration::from_secs(1);
/// Where the beginning of the last complete pass is kept. Not a key any store could have: no part of a key is empty.
const PASS: &str = "//pass";

/// The task that finds work.
pub(super) struct Discovery {
    pub(super) reader: Arc<ObjectReader>,
    pub(super) layout: Layout,
    pub(super) schedule: Schedule,
    pub(super) prefix: Path,
    pub(super) local: bool,
    pub(super) poll_interval: Duration,
    /// After what failed, if that is shorter: with a queue, listings may be far apart.
    pub(super) retry_interval: Duration,
    pub(super) verify_on_close: bool,
    pub(super) once: bool,
    pub(super) clock: fn() -> Millis,
    pub(super) found: mpsc::Sender<Found>,
    pub(super) queue: Arc<Queue>,
    pub(super) hints: Arc<Hints>,
    pub(super) hinted: mpsc::Receiver<Hint>,
    pub(super) workspaces: Vec<String>,
    pub(super) workspaces_listed: Option<Instant>,
    /// Beginning of the last complete pass.
    pub(super) last: Option<Millis>,
    /// A pass that is complete once everything it found is committed.
    pub(super) passed: Option<Passed>,
}

/// A pass that has come to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    began: Millis,
    /// How many objects had been opened by then: what hints open afterwards may keep coming without end.
    opened: u64,
}

type Batches = Pin<Box<dyn Stream<Item = Result<Vec<ObjectMeta>, object_store::Error>> + Send>>;

impl Discovery {
    /// Looks for work until the pipeline ends; with `once`, until all there is has been found.
    pub(super) async fn run(mut self) {
        if let Ok(Some(position)) = self.reader.resume.position(&Partition::new(PASS)).await {
            self.last = position.as_str().parse().ok().and_then(Millis::new);
        }
        loop {
            let began = Instant::now();
            let passed = self.pass().await;
            let complete = passed.is_ok();
            if self.reader.reads.send(passed.map(|()| Read::Idle)).await.is_err() || (self.once && complete) {
                return;
            }
            // A single run whose listing failed must not end as if there were nothing: whoever reads tries again, and
            // says when to give up.
            let pause = match complete {
                _ if self.once => ONCE_PAUSE,
                true => self.poll_interval,
                false => self.poll_interval.min(self.retry_interval),
            };
            if !self.wait(began, pause).await {
                return;
            }
        }
    }

    /// Waits for the next poll and follows hints meanwhile; `false` if the pipeline has ended.
    async fn wait(&mut self, began: Instant, pause: Duration) -> bool {
        let hints = Arc::clone(&self.hints);
        let mut again = began + self.retry_interval;
        loop {
            if self.mark_passed().await.is_err() {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep_until(began + pause) => return true,
                () = async {
                    tokio::time::sleep_until(began + RESCAN_INTERVAL).await;
                    hints.rescan_wanted().await;
                } => return true,
                hints = hints::next(&mut self.hinted, LOOKS) => match hints.is_empty() {
                    false => self.follow(hints).await,
                    true => return false,
                },
                () = tokio::time::sleep_until(again) => {
                    self.try_again().await;
                    again = Instant::now() + self.retry_interval;
                }
                // The pass may be complete by now.
                () = tokio::time::sleep(Duration::from_secs(1)), if self.passed.is_some() => {}
            }
        }
    }

    /// Keeps the beginning of the last pass once all it found is committed: until then a restart looks everywhere.
    async fn mark_passed(&mut self) -> Result<(), ()> {
        let Some(passed) = self.passed else { return Ok(()) };
        if !self.reader.open.are_closed(passed.opened) || !self.hints.nothing_again() {
            return Ok(());
        }
        self.passed = None;
        let chunk = Chunk {
            partition: Partition::new(PASS),
            position: Position::new(&passed.began.get().to_string()),
            ..Chunk::default()
        };
        self.reader.reads.send(Ok(Read::Chunk(chunk))).await.map_err(|_| ())
    }

    async fn pass(&mut self) -> Result<(), InputError> {
        let now = (self.clock)();
        self.try_again().await;
        let prefixes = self.prefixes(now).await?;
        let mut batches = self.list(prefixes);
        let mut complete = true;
        loop {
            let batch = tokio::select! {
                batch = batches.next() => batch,
                // A listing may take long: what is new need not wait for its end.
                hints = hints::next(&mut self.hinted, LOOKS) => {
                    self.follow(hints).await;
                    continue;
                }
            };
            let Some(batch) = batch else { break };
            match batch {
                Ok(batch) => self.consider(batch, now).await?,
                Err(error) if self.local => {
                    // A name that is no text, a link to itself, a folder of somebody else: others go on.
                    complete = false;
                    let error = self.refused("list", &error);
                    let trouble = Read::Trouble { partition: Partition::default(), error };
                    let _ended = self.reader.reads.send(Ok(trouble)).await;
                }
                Err(error) => return Err(self.refused("list", &error)),
            }
        }
        if !complete {
            return Ok(());
        }
        self.last = Some(now);
        self.passed = Some(Passed { began: now, opened: self.reader.open.opened() });
        Ok(())
    }

    fn refused(&self, act: &str, error: &object_store::Error) -> InputError {
        let place = if self.prefix.as_ref().is_empty() { "the bucket" } else { self.prefix.as_ref() };
        refusal(format!("cannot {act} {place}"), error)
    }

    /// The folders to list now.
    async fn prefixes(&mut self, now: Millis) -> Result<Vec<Path>, InputError> {
        if let Layout::Any { .. } = self.layout {
            return Ok(vec![self.prefix.clone()]);
        }
        // Costs nothing where the directory is local, and little where nothing is known yet.
        let cheap = self.local || self.workspaces.is_empty();
        if cheap || self.workspaces_listed.is_none_or(|listed| listed.elapsed() >= WORKSPACES_INTERVAL) {
            let listed = folders(&*self.reader.store, &self.prefix).await;
            self.workspaces = listed.map_err(|error| self.refused("list", &error))?;
            self.workspaces_listed = Some(Instant::now());
        }
        let mut prefixes = Vec::new();
        for folder in &self.workspaces {
            if !workspace_of(folder).is_some_and(|workspace| self.layout.wants_workspace(workspace)) {
                continue;
            }
            let workspace = self.prefix.clone().join(folder.as_str());
            let mut dates: BTreeSet<Date> = self.schedule.open_dates(now).collect();
            // What came between the last look at a date and its closing.
            dates.extend(self.last.into_iter().flat_map(|last| self.schedule.open_dates(last)));
            let looks = self.schedule.looks(folder, now, self.last);
            if looks.any() {
                let listed = folders(&*self.reader.store, &workspace).await;
                let listed = listed.map_err(|error| self.refused("list", &error))?;
                let listed = listed.iter().filter_map(|folder| date_of(folder));
                dates.extend(
                    listed
                        .filter(|date| self.schedule.is_due(&format!("{folder}/{date}"), *date, now, looks)),
                );
            }
            let wanted = dates.into_iter().filter(|date| self.layout.wants_date(*date));
            prefixes.extend(wanted.map(|date| workspace.clone().join(format!("date={date}").as_str())));
        }
        Ok(prefixes)
    }

    /// Objects below these folders, in batches that are sorted by key.
    fn list(&self, prefixes: Vec<Path>) -> Batches {
        let store = Arc::clone(&self.reader.store);
        let local = self.local;
        let listings =
            stream::iter(prefixes).map(move |prefix| list_folder(Arc::clone(&store), prefix, local));
        Box::pin(listings.flatten_unordered(LISTINGS))
    }

    /// Looks at the objects that failed before.
    async fn try_again(&mut self) {
        self.follow(self.hints.take_again().into_iter().map(|key| (key, None)).collect()).await;
    }

    /// Looks at objects, several at once: a hint must not wait for the answers of all before it. One that fails is tried
    /// again later. A hint costs time when it is wrong, never data: the next listing finds what it missed.
    async fn follow(&mut self, hints: BTreeMap<Path, Option<ObjectMeta>>) {
        let reader = Arc::clone(&self.reader);
        let looks = stream::iter(hints).map(|(key, told)| {
            let reader = Arc::clone(&reader);
            async move { (look(&reader, &key, told).await, key) }
        });
        let mut looks = looks.buffer_unordered(LOOKS);
        while let Some((meta, key)) = looks.next().await {
            let considered = match meta {
                Ok(meta) => self.consider(vec![meta], (self.clock)()).await.is_ok(),
                Err(error) => matches!(error, object_store::Error::NotFound { .. }),
            };
            if !considered {
                self.hints.again(key);
            }
        }
    }

    /// Queues those of the objects that are not as they were committed.
    async fn consider(&mut self, mut batch: Vec<ObjectMeta>, now: Millis) -> Result<(), InputError> {
        batch.sort_by(|a, b| a.location.cmp(&b.location));
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let known = self.reader.resume.range(first.location.as_ref(), last.location.as_ref()).await?;
        let known: HashMap<_, _> = known.into_iter().collect();
        for meta in &batch {
            let Some(place) = self.layout.place(&self.prefix, &meta.location) else { continue };
            let mut found = Found::new(meta, place);
            let position = known.get(&found.partition()).and_then(ObjectPosition::parse);
            let date = found.place.date.or_else(|| found.modified.map(Millis::date));
            let age = date.map_or(Age::Open, |date| self.schedule.age(date, now));
            let mut changed =
                plan(position.as_ref(), &found.version, self.reader.verify_whole_below) != Plan::Nothing;
            if let Some(position) = &position {
                found.verify =
                    self.verify_on_close && age != Age::Open && !position.verified && !position.folded;
                changed |= found.verify || (position.waiting && self.reader.is_overdue(&found, now));
                if !changed && age == Age::Old && !position.folded {
                    self.fold(&found, position).await;
                }
            }
            if changed && self.reader.open.begin(&found.partition()) {
                found.queued = Some(Queued::new(&self.queue, found.version.size));
                // The channel is full while all readers are busy: the listing waits, memory stays bounded.
                let _ended = self.found.send(found).await;
            }
        }
        Ok(())
    }

    /// Drops the fingerprints of an object whose date closed long ago.
    async fn fold(&self, found: &Found, position: &ObjectPosition) {
        let partition = found.partition();
        if !self.reader.open.begin(&partition) {
            return;
        }
        // It may have been read and committed since it was looked up: only what is still true may be written.
        let now = self.reader.resume.position(&partition).await;
        if !now.is_ok_and(|now| now.as_ref().and_then(ObjectPosition::parse).as_ref() == Some(position)) {
            self.reader.open.finished(&partition);
            return;
        }
        let position = ObjectPosition { folded: true, ..position.clone() }.encode();
        self.reader.open.handed_on(&partition, &position);
        let chunk = Chunk { partition: partition.clone(), position, note: Note::Clear, ..Chunk::default() };
        let _ended = self.reader.reads.send(Ok(Read::Chunk(chunk))).await;
        self.reader.open.finished(&partition);
    }
}

/// An object as it is. One that was never read is taken as told, which spares a request: if that is out of date, the
/// store refuses the version, and the reader asks. Of a known one, an old version must not be taken for a change.
async fn look(
    reader: &ObjectReader,
    key: &Path,
    told: Option<ObjectMeta>,
) -> Result<ObjectMeta, object_store::Error> {
    if let Some(told) = told
        && told.size > 0
        && reader.resume.position(&Partition::new(key.as_ref())).await.is_ok_and(|known| known.is_none())
    {
        return Ok(told);
    }
    reader.store.head(key).await
}

/// Names of the folders right below a prefix.
async fn folders(store: &dyn ObjectStore, prefix: &Path) -> Result<Vec<String>, object_store::Error> {
    let listed = match store.list_with_delimiter(Some(prefix)).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
        listed => listed?,
    };
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
}

fn list_folder(store: Arc<dyn ObjectStore>, prefix: Path, local: bool) -> Batches {
    let listing: BoxStream<'static, _> = store.list(Some(&prefix));
    // A folder that went away between two looks holds nothing.
    let listing = listing.filter(|meta| {
        let gone = matches!(meta, Err(object_store::Error::NotFound { .. }));
        std::future::ready(!gone)
    });
    if !local {
        return Box::pin(listing.try_chunks(LOOK_UP).map_err(|error| error.1));
    }
    // A file system lists in any order: sorted, a batch spans few other objects of the state.
    let sorted = stream::once(async move {
        let listed: Vec<Result<ObjectMeta, object_store::Error>> = listing.collect().await;
        let (mut all, mut batches) = (Vec::new(), Vec::new());
        for listed in listed {
            match listed {
                Ok(meta) => all.push(meta),
                Err(error) => batches.push(Err(error)),
            }
        }
        all.sort_by(|a, b| a.location.cmp(&b.location));
        batches.extend(all.chunks(LOOK_UP).map(|batch| Ok(batch.to_vec())));
        stream::iter(batches)
    });
    Box::pin(sorted.flatten())
}
