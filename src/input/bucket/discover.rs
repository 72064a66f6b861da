//! Finds objects that have changed: by listing, by events of the file system or of S3, and by trying again what failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hints::{self, Hint, Hints};
use super::lanes::{Lanes, Refused, date_folder, dates};
use super::layout::{Layout, below};
use super::listing::{Batches, Listing};
use super::mark::{self, Mark, Scope, UncommittedPass};
use super::object::{Found, ObjectReader};
use super::position::{ObjectPosition, Plan, plan};
use super::queue::{Queue, Queued};
use super::refusal;
use super::schedule::{Age, Looks, Schedule};
use crate::chunk::{Chunk, Note, Partition};
use crate::input::{InputError, Read};
use crate::time::{Date, Millis};

/// Listings under way at once.
const LISTINGS: usize = 8;
/// Between two listings of a single run, where the first one failed.
const ONCE_PAUSE: Duration = Duration::from_secs(1);
/// Hinted objects looked at at once.
const LOOKS: usize = 16;
/// Shortest time between two listings, however often somebody asks for one.
const RESCAN_INTERVAL: Duration = Duration::from_secs(1);

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
    pub(super) lanes: Lanes,
    /// What a pass looks at.
    pub(super) scope: Scope,
    /// Beginning of the last complete pass.
    pub(super) last: Option<Millis>,
    /// Folders that the last pass could not look into, where others could be.
    pub(super) missed: Vec<Path>,
    /// The last pass that has no mark yet.
    pub(super) unmarked: Option<UncommittedPass>,
}

/// How a pass came to its end.
#[derive(Debug)]
enum PassEnd {
    Whole,
    /// A part could not be looked at until a human acts, the rest was.
    Partly(InputError),
}

impl Discovery {
    /// Looks for work until the pipeline ends; with `once`, until all there is has been found.
    pub(super) async fn run(mut self) {
        if let Ok(Some(position)) = self.reader.resume.position(&Partition::new(mark::PARTITION)).await {
            let mark = Mark::parse(&position).filter(|mark| mark.scope == self.scope);
            self.last = mark.map(|mark| mark.began);
        }
        loop {
            let began = Instant::now();
            let end = self.make_pass().await;
            let (ended, whole) = (end.is_ok(), matches!(end, Ok(PassEnd::Whole)));
            let read = end.map(|end| match end {
                PassEnd::Whole => Read::Idle,
                PassEnd::Partly(error) => Read::Withheld(error),
            });
            let reads = &self.reader.reads;
            if reads.send(read).await.is_err() || (self.once && ended) {
                return;
            }
            if !ended {
                // Whoever reads waits after each error: errors in a row would keep it from hearing that all is well.
                let _heard = reads.reserve_many(reads.max_capacity()).await;
            }
            // A single run whose listing failed must not end as if there were nothing: whoever reads tries again, and
            // says when to give up.
            let pause = match whole {
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
            if self.mark_pass().await.is_err() {
                return false;
            }
            tokio::select! {
                biased;
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
                () = tokio::time::sleep(Duration::from_secs(1)), if self.unmarked.is_some() => {}
            }
        }
    }

    /// Marks the last pass as complete once all it found is committed: until then a restart looks everywhere.
    async fn mark_pass(&mut self) -> Result<(), ()> {
        let Some(UncommittedPass { began, opened }) = self.unmarked else { return Ok(()) };
        if !self.reader.open.are_closed(opened) || !self.hints.nothing_again() {
            return Ok(());
        }
        self.unmarked = None;
        let chunk = Chunk {
            partition: Partition::new(mark::PARTITION),
            position: Mark { began, scope: self.scope }.encode(),
            ..Chunk::default()
        };
        self.reader.reads.send(Ok(Read::Chunk(chunk))).await.map_err(|_| ())
    }

    /// Looks once at all that is open or due.
    async fn make_pass(&mut self) -> Result<PassEnd, InputError> {
        let now = (self.clock)();
        if self.hints.take_overflow() {
            // Nobody knows any more which objects failed.
            (self.last, self.unmarked) = (None, None);
        }
        self.try_again().await;
        let (listings, mut refused) = self.listings(now).await?;
        let (mut listed, mut complete) = (listings.len(), true);
        let mut batches = self.list(listings);
        loop {
            let batch = tokio::select! {
                biased;
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
                Err(failure) if self.local => {
                    // A name that is no text, a link to itself, a folder of somebody else: others go on.
                    complete = false;
                    let error = self.refused("list", &failure);
                    let trouble = Read::Trouble { partition: Partition::default(), error };
                    let _ended = self.reader.reads.send(Ok(trouble)).await;
                }
                Err(failure) if self.layout.is_several() => {
                    listed = listed.saturating_sub(1);
                    refused.push(failure);
                }
                Err(failure) => return Err(self.refused("list", &failure)),
            }
        }
        let errors = refused.iter().map(|failure| self.refused("list", failure));
        // What passes by itself is tried again soon; it must not hide behind what does not.
        let error = errors.min_by_key(InputError::needs_a_human);
        if complete && (listed > 0 || error.is_none()) {
            self.last = Some(now);
            self.missed = refused.into_iter().map(|(folder, _)| folder).collect();
        }
        match error {
            Some(error) if listed > 0 && error.needs_a_human() => Ok(PassEnd::Partly(error)),
            Some(error) => Err(error),
            None => {
                if complete {
                    let opened = self.reader.open.opened();
                    self.unmarked = Some(UncommittedPass { began: now, opened });
                }
                Ok(PassEnd::Whole)
            }
        }
    }

    fn refused(&self, act: &str, (folder, error): &Refused) -> InputError {
        let place = match folder.as_ref() {
            "" if self.layout.is_several() => "the containers",
            "" => "the bucket",
            folder => folder,
        };
        refusal(format!("cannot {act} {place}"), error)
    }

    /// The listings to make now, and the folders that could not be looked into for more.
    async fn listings(&mut self, now: Millis) -> Result<(Vec<Listing>, Vec<Refused>), InputError> {
        if let Layout::Any { .. } = self.layout {
            return Ok((vec![Listing::whole(self.prefix.clone())], Vec::new()));
        }
        let store = Arc::clone(&self.reader.store);
        let learned = self.lanes.learn(&*store, &self.prefix, &self.layout, self.local).await;
        let (lanes, mut refused) = learned.map_err(|failure| self.refused("list", &failure))?;
        let looked = lanes.into_iter().map(|lane| {
            let name = below(&self.prefix, &lane).unwrap_or_default();
            let looks = match self.was_missed(&lane) {
                true => Looks::First,
                false => self.schedule.looks(&name, now, self.last),
            };
            // Where all of a lane is listed at once, which dates it has need not be asked.
            let asks = looks.any() && !(looks == Looks::First && self.lists_lanes());
            let (store, layout) = (Arc::clone(&store), &self.layout);
            async move {
                let listed = if asks { dates(&*store, layout, &lane).await } else { Ok(Vec::new()) };
                (lane, name, looks, listed)
            }
        });
        let mut looked = stream::iter(looked).buffer_unordered(LISTINGS);
        let mut listings = Vec::new();
        while let Some((lane, name, looks, listed)) = looked.next().await {
            let listed = match listed {
                Ok(listed) => listed,
                Err(error) if self.layout.is_several() => {
                    refused.push((lane, error));
                    continue;
                }
                Err(error) => return Err(self.refused("list", &(lane, error))),
            };
            let due = |date: &Date| self.schedule.is_due(&format!("{name}/{date}"), *date, now, looks);
            let listed = listed.into_iter().filter(due).collect();
            listings.extend(self.listings_of(&lane, looks, listed, now));
        }
        drop(looked);
        listings.sort_unstable();
        Ok((listings, refused))
    }

    /// The listings that show the open dates of a lane and `due`, which are closed.
    fn listings_of(&self, lane: &Path, looks: Looks, due: BTreeSet<Date>, now: Millis) -> Vec<Listing> {
        let wanted = |date: &Date| self.layout.wants_date(*date);
        // And what came between the last look at a date and its closing.
        let open: BTreeSet<Date> = self.schedule.open_since(self.last, now).filter(wanted).collect();
        let folder = |date| date_folder(&self.layout, lane, date);
        let mut listings = Vec::new();
        if !self.lists_lanes() {
            listings
                .extend(open.union(&due).copied().filter(wanted).map(|date| Listing::whole(folder(date))));
            return listings;
        }
        let first = match looks {
            Looks::First => self.layout.start_date(),
            Looks::Days { .. } => open.first().copied(),
        };
        // Dates of a lane lie in their order: one request shows all since one of them, where a folder has few objects.
        match (first, looks) {
            (None, Looks::Days { .. }) => {}
            (first, _) => listings.push(Listing { folder: lane.clone(), after: first.map(folder) }),
        }
        let closed = due.into_iter().filter(|date| first.is_some_and(|first| *date < first));
        listings.extend(closed.filter(wanted).map(|date| Listing::whole(folder(date))));
        listings
    }

    /// True where several dates of a lane are shown by one listing: its folders have the dates' order, and a request costs
    /// more than what it shows.
    fn lists_lanes(&self) -> bool {
        !self.local && matches!(self.layout, Layout::DatabricksDelivery { .. })
    }

    /// True if the last pass could not look into a lane or a part of it.
    fn was_missed(&self, lane: &Path) -> bool {
        self.missed.iter().any(|folder| lane.prefix_matches(folder) || folder.prefix_matches(lane))
    }

    /// The objects that these listings show, in batches.
    fn list(&self, listings: Vec<Listing>) -> Batches {
        let store = Arc::clone(&self.reader.store);
        let local = self.local;
        let listings = stream::iter(listings).map(move |listing| listing.batches(&store, local));
        Box::pin(listings.flatten_unordered(LISTINGS))
    }

    /// Looks at the objects that failed before.
    async fn try_again(&mut self) {
        let again = self.hints.take_again();
        if again.is_empty() {
            return;
        }
        self.follow(again.into_iter().map(|key| (key, None)).collect()).await;
        if let Some(pass) = &mut self.unmarked {
            // Those that the pass found are open anew, and count as opened after it.
            pass.opened = self.reader.open.opened();
        }
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
                Err(object_store::Error::NotFound { .. }) => {
                    self.hints.not_archived(&key);
                    true
                }
                Err(_) => false,
            };
            if !considered {
                self.hints.again(key);
            }
        }
    }

    /// Queues those of the objects that are not as they were committed.
    async fn consider(&mut self, mut batch: Vec<ObjectMeta>, now: Millis) -> Result<(), InputError> {
        batch.retain(|meta| !self.reader.is_left_out(meta));
        // By key, which is the order they lie in.
        batch.sort_by(|a, b| a.location.cmp(&b.location));
        let asked = batch.iter().map(|meta| Partition::new(meta.location.as_ref())).collect();
        let known: HashMap<_, _> = self.reader.resume.positions(asked).await?.into_iter().collect();
        for meta in &batch {
            let Some(place) = self.layout.place(&self.prefix, &meta.location) else { continue };
            let mut found = Found::new(meta, place);
            let position = known.get(&found.partition()).and_then(ObjectPosition::parse);
            let date = found.place.date.or_else(|| found.modified.map(Millis::date));
            let age = date.map_or(Age::Open, |date| self.schedule.age(date, now));
            let mut changed =
                plan(position.as_ref(), &found.version, self.reader.verify_whole_below) != Plan::Nothing;
            let verified = position.as_ref().is_some_and(|position| position.verified);
            found.fold = age == Age::Old && (verified || !self.verify_on_close);
            if let Some(position) = &position {
                found.verify =
                    self.verify_on_close && age != Age::Open && !position.verified && !position.folded;
                found.fold |= found.verify && age == Age::Old;
                changed |= found.verify || (position.waiting && self.reader.is_overdue(&found, now));
                if !changed && age == Age::Old && !position.folded {
                    self.fold(&found, position).await;
                }
            }
            // Whoever asks for an archived object every minute pays for it.
            changed &= !self.hints.rests(&found.key, &found.version.name);
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
