//! Lanes: the hours of event time, each with how far it was read and the ids of the rows shipped from it.
//!
//! | position of a lane | means | notes |
//! |---|---|---|
//! | none | nothing of the hour is committed | none |
//! | `2026-01-05T10:35:00.000Z 5211` | read up to there; 5211 ids | those ids, 16 bytes each |
//! | `closed` | done with: read, and looked at again when nothing more was to come | none |
//!
//! An id after [`LEFT_OUT`] is of a row that was left out because another region shipped it. Ids that were shipped are told
//! from those, for two regions must not both rely on the other: one could crash before it has shipped the row.
//!
//! One lane for the whole table was rejected: its ids could be forgotten only all at once, and a look at one old hour
//! would load those of three days. A row never changes its hour, so a lane knows all of its own repeats.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::plan::{HOUR, Window};
use crate::chunk::{Note, Partition, Position};
use crate::input::Resume;
use crate::state::StateError;
use crate::time::Millis;

const CLOSED: &str = "closed";
/// Stands in the notes before the id of a row that was left out. No row has it for its own id.
const LEFT_OUT: u128 = u128::MAX;

/// The id of a row in 16 bytes: that of a UUID is itself, with or without dashes; of anything else, its digest.
pub(super) fn id_of(text: &str) -> u128 {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let is_uuid = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(&hex, 16) {
        Ok(id) if is_uuid && id != LEFT_OUT => id,
        _ => digest(text.as_bytes()),
    }
}

/// The first 16 bytes of a digest.
pub(super) fn digest(bytes: &[u8]) -> u128 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest.first_chunk().copied().map(u128::from_be_bytes).unwrap_or_default()
}

/// Chunks handed on and not committed, by partition. Shared with the committer.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<Partition, u32>>);

impl InFlight {
    fn add(&self, partition: &Partition) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(partition.clone()).or_default() += 1;
    }

    /// A chunk was committed.
    pub(super) fn remove(&self, partition: &Partition) {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = chunks.get_mut(partition) {
            *count -= 1;
            if *count == 0 {
                chunks.remove(partition);
            }
        }
    }

    /// Partitions with uncommitted chunks.
    pub(super) fn partitions(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn has(&self, partition: &Partition) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(partition)
    }
}

/// A step forward of one lane, to be committed with its rows.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) partition: Partition,
    pub(super) position: Position,
    pub(super) note: Note,
}

/// Ids of rows of one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) shipped: HashSet<u128>,
    /// Another region shipped them.
    pub(super) left_out: HashSet<u128>,
}

impl Ids {
    /// True for a row that was seen, whatever became of it.
    pub(super) fn contains(&self, id: u128) -> bool {
        self.shipped.contains(&id) || self.left_out.contains(&id)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.shipped.len() + self.left_out.len()
    }

    fn extend(&mut self, more: &Self) {
        self.shipped.extend(&more.shipped);
        self.left_out.extend(&more.left_out);
    }

    /// As notes keep them.
    fn encode(&self) -> Bytes {
        let left_out = self.left_out.iter().flat_map(|id| [LEFT_OUT, *id]);
        self.shipped.iter().copied().chain(left_out).flat_map(u128::to_be_bytes).collect()
    }

    fn decode(notes: &[Bytes]) -> Self {
        let mut ids = Self::default();
        let mut left_out = false;
        // Only the concatenation is kept, but a note is never cut.
        for id in notes.concat().chunks_exact(16) {
            let id = id.try_into().map(u128::from_be_bytes).unwrap_or_default();
            match id {
                LEFT_OUT => {
                    left_out = true;
                    continue;
                }
                id if left_out => ids.left_out.insert(id),
                id => ids.shipped.insert(id),
            };
            left_out = false;
        }
        ids
    }
}

#[derive(Debug)]
struct Lane {
    read_to: Millis,
    /// How many ids there are, in memory or not.
    count: u64,
    /// Kept in memory while the hour is read, and until what was read of it is committed.
    ids: Option<Ids>,
    /// When the first statement that read it was made; unknown for one from the state.
    since: Option<Millis>,
    /// It was counted when nothing more was to come, and nothing had come.
    counted: bool,
}

impl Lane {
    fn new(hour: Millis, since: Millis) -> Self {
        Self { read_to: hour, count: 0, ids: Some(Ids::default()), since: Some(since), counted: false }
    }

    /// True if it was read or counted a look-back after its end. Where hours are not counted, having been read is enough.
    fn is_done(&self, hour: Millis, look_back: Option<Duration>) -> bool {
        let end = hour.plus(HOUR);
        let late = look_back.is_none_or(|look_back| {
            self.counted || self.since.is_some_and(|since| since >= end.plus(look_back))
        });
        self.read_to >= end && late
    }
}

/// The open lanes of one region's table.
#[derive(Debug)]
pub(super) struct Lanes {
    prefix: String,
    resume: Resume,
    in_flight: Arc<InFlight>,
    lanes: BTreeMap<Millis, Lane>,
}

impl Lanes {
    /// Reads the positions; gives the lanes, and for each hour that was ever read how far, closed ones included.
    pub(super) async fn load(
        prefix: String,
        resume: Resume,
        in_flight: Arc<InFlight>,
    ) -> Result<(Self, Vec<(Millis, Millis)>), StateError> {
        let known = resume.range(&format!("{prefix}/"), &format!("{prefix}/~")).await?;
        let mut lanes = BTreeMap::new();
        let mut read = Vec::with_capacity(known.len());
        for (partition, position) in known {
            // Foreign rows are none of ours: nobody else writes here.
            let Some(hour) = hour_of(&prefix, &partition) else { continue };
            match position_of(&position) {
                Some((read_to, count)) => {
                    lanes.insert(hour, Lane { read_to, count, ids: None, since: None, counted: false });
                    read.push((hour, read_to));
                }
                None => read.push((hour, hour.plus(HOUR))),
            }
        }
        Ok((Self { prefix, resume, in_flight, lanes }, read))
    }

    fn partition(&self, hour: Millis) -> Partition {
        let mut name = format!("{}/", self.prefix).into_bytes();
        hour.write_rfc3339(&mut name);
        // `2026-01-05T10:00:00.000Z` to the hour.
        let name = String::from_utf8_lossy(&name);
        Partition::new(name.strip_suffix(":00:00.000Z").unwrap_or(&name))
    }

    /// Brings the ids of an hour into memory, if it has any.
    pub(super) async fn open(&mut self, hour: Millis) -> Result<(), StateError> {
        let partition = self.partition(hour);
        if let Some(lane) = self.lanes.get_mut(&hour)
            && lane.ids.is_none()
        {
            let ids = Ids::decode(&self.resume.notes(&partition).await?);
            lane.count = ids.len() as u64;
            lane.ids = Some(ids);
        }
        Ok(())
    }

    /// Those of an hour that was opened.
    pub(super) fn ids(&self, hour: Millis) -> Option<&Ids> {
        self.lanes.get(&hour)?.ids.as_ref()
    }

    /// The step that makes durable where reading begins: a start after a crash must not begin later.
    pub(super) fn begin(&mut self, hour: Millis, now: Millis) -> Step {
        let partition = self.partition(hour);
        self.lanes.insert(hour, Lane::new(hour, now));
        self.in_flight.add(&partition);
        Step { partition, position: position(hour, 0), note: Note::Keep }
    }

    /// Takes in the ids of new rows of an hour, asked for at this time, and how far the hour is read by now; none if
    /// nothing changed.
    pub(super) fn step(
        &mut self,
        hour: Millis,
        ids: &Ids,
        asked: Millis,
        window: Option<Window>,
    ) -> Option<Step> {
        let partition = self.partition(hour);
        let lane = self.lanes.entry(hour).or_insert_with(|| Lane::new(hour, asked));
        let before = lane.read_to;
        // What lies before the window must have been read for the lane to go on to the window's end.
        if let Some(window) = window.filter(|window| window.from <= before) {
            lane.read_to = before.max(window.to.min(hour.plus(HOUR)));
        }
        if ids.is_empty() && lane.read_to == before {
            return None;
        }
        if let Some(known) = &mut lane.ids {
            known.extend(ids);
        }
        lane.count += ids.len() as u64;
        let position = position(lane.read_to, lane.count);
        self.in_flight.add(&partition);
        let note = if ids.is_empty() { Note::Keep } else { Note::Append(ids.encode()) };
        Some(Step { partition, position, note })
    }

    /// The open hours that no poll reads again, since they end before the overlap, and that are done with.
    pub(super) fn done(&self, overlap: Millis, look_back: Option<Duration>) -> Vec<Millis> {
        let past = self.lanes.iter().take_while(|(hour, _)| hour.plus(HOUR) <= overlap);
        past.filter(|(hour, lane)| lane.is_done(**hour, look_back)).map(|(hour, _)| *hour).collect()
    }

    /// True if an hour is done with here, or closed already.
    pub(super) fn has_done(&self, hour: Millis, look_back: Option<Duration>) -> bool {
        match self.lanes.get(&hour) {
            Some(lane) => lane.is_done(hour, look_back),
            None => self.oldest().is_some_and(|oldest| hour < oldest),
        }
    }

    /// Closes an hour that is done with.
    pub(super) fn close(&mut self, hour: Millis) -> Step {
        self.lanes.remove(&hour);
        let partition = self.partition(hour);
        self.in_flight.add(&partition);
        Step { partition, position: Position::new(CLOSED), note: Note::Clear }
    }

    /// The first hour that is not done with.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.lanes.keys().next().copied()
    }

    /// Lets go of the ids of hours that end before this instant: what is committed can be read from the state.
    pub(super) fn let_go(&mut self, before: Millis) {
        let past: Vec<Millis> = self
            .lanes
            .iter()
            .take_while(|(hour, _)| hour.plus(HOUR) <= before)
            .filter(|(_, lane)| lane.ids.is_some())
            .map(|(hour, _)| *hour)
            .filter(|hour| !self.in_flight.has(&self.partition(*hour)))
            .collect();
        for hour in past {
            if let Some(lane) = self.lanes.get_mut(&hour) {
                lane.ids = None;
            }
        }
    }

    /// Compares the rows of the hours of a window, counted at this time, with what was read; gives the hours that
    /// differ. The others are done with if they ended a look-back before.
    pub(super) fn compare(
        &mut self,
        window: Window,
        rows: &HashMap<Millis, u64>,
        counted_at: Millis,
        look_back: Duration,
    ) -> Vec<Millis> {
        let mut changed = Vec::new();
        for (hour, lane) in self.lanes.range_mut(window.from..window.to) {
            if rows.get(hour).copied().unwrap_or_default() != lane.count {
                changed.push(*hour);
            } else if hour.plus(HOUR).plus(look_back) <= counted_at {
                lane.counted = true;
            }
        }
        changed
    }
}

fn hour_of(prefix: &str, partition: &Partition) -> Option<Millis> {
    let hour = partition.as_str().strip_prefix(prefix)?.strip_prefix('/')?;
    Millis::parse(&format!("{hour}:00:00Z"))
}

fn position(read_to: Millis, count: u64) -> Position {
    let mut text = Vec::with_capacity(40);
    read_to.write_rfc3339(&mut text);
    Position::new(&format!("{} {count}", String::from_utf8_lossy(&text)))
}

fn position_of(position: &Position) -> Option<(Millis, u64)> {
    let (read_to, count) = position.as_str().split_once(' ')?;
    Some((Millis::parse(read_to)?, count.parse().ok()?))
}

/// For the fuzzer: a position and notes as they stand in the state are read, and written as they were read.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzzing(text: &str, notes: &[u8]) {
    let parsed = position_of(&Position::new(text));
    if let Some((read_to, count)) = parsed {
        assert_eq!(position_of(&position(read_to, count)), parsed);
    }
    let _ = hour_of("account/region", &Partition::new(text));
    let ids = Ids::decode(&[Bytes::copy_from_slice(notes)]);
    assert_eq!(Ids::decode(&[ids.encode()]), ids);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::sqlite::SqliteState;
    use crate::state::{Change, State};

    fn at(text: &str) -> Millis {
        Millis::parse(&format!("2026-01-05T{text}:00Z")).unwrap()
    }

    fn ids<const N: usize>(shipped: [u128; N]) -> Ids {
        Ids { shipped: shipped.into(), ..Ids::default() }
    }

    fn knows(lanes: &Lanes, id: u128) -> bool {
        lanes.ids(at("10:00")).is_some_and(|ids| ids.contains(id))
    }

    struct Place {
        state: Arc<dyn State>,
        in_flight: Arc<InFlight>,
        _directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let state = Arc::new(SqliteState::open(directory.path()).unwrap());
            Self { state, in_flight: Arc::default(), _directory: directory }
        }

        async fn lanes(&self) -> (Lanes, Vec<(Millis, Millis)>) {
            let resume = Resume::new(Arc::clone(&self.state), "a/b");
            Lanes::load("table".to_owned(), resume, Arc::clone(&self.in_flight)).await.unwrap()
        }

        async fn commit(&self, step: Step) {
            let Step { partition, position, note } = step;
            let change = Change { partition: partition.clone(), position, note };
            self.state.commit("a/b", vec![change], Vec::new()).await.unwrap();
            self.in_flight.remove(&partition);
        }
    }

    #[tokio::test]
    async fn what_is_committed_of_a_lane_is_found_again() {
        let place = Place::new();
        let (mut lanes, read) = place.lanes().await;
        assert_eq!(read, []);
        lanes.open(at("10:00")).await.unwrap();
        let window = Window { from: at("10:00"), to: at("10:35") };
        let step = lanes.step(at("10:00"), &ids([1, 2]), at("10:30"), Some(window)).unwrap();
        assert_eq!(step.partition.as_str(), "table/2026-01-05T10");
        assert_eq!(step.position.as_str(), "2026-01-05T10:35:00.000Z 2");
        place.commit(step).await;
        let uncommitted = lanes.step(at("10:00"), &ids([3]), at("10:30"), None).unwrap();
        drop(uncommitted);
        let (mut again, read) = place.lanes().await;
        assert_eq!(read, [(at("10:00"), at("10:35"))]);
        again.open(at("10:00")).await.unwrap();
        let known = [1, 2, 3].map(|id| knows(&again, id));
        assert_eq!(known, [true, true, false]);
    }

    #[tokio::test]
    async fn ids_leave_memory_only_when_they_are_in_the_state() {
        let place = Place::new();
        let (mut lanes, _) = place.lanes().await;
        lanes.open(at("10:00")).await.unwrap();
        let step = lanes.step(at("10:00"), &ids([1]), at("10:30"), None).unwrap();
        lanes.let_go(at("12:00"));
        assert!(knows(&lanes, 1), "it is not committed yet");
        place.commit(step).await;
        lanes.let_go(at("10:59"));
        assert!(knows(&lanes, 1), "the hour is not over");
        lanes.let_go(at("12:00"));
        assert!(!knows(&lanes, 1));
        lanes.open(at("10:00")).await.unwrap();
        assert!(knows(&lanes, 1));
    }

    /// A lane of ten o'clock with one row, first read at this time.
    async fn one_lane(place: &Place, asked: &str) -> Lanes {
        let (mut lanes, _) = place.lanes().await;
        let whole = Window { from: at("10:00"), to: at("11:00") };
        let step = lanes.step(at("10:00"), &ids([7]), at(asked), Some(whole)).unwrap();
        place.commit(step).await;
        lanes
    }

    #[tokio::test]
    async fn a_lane_is_closed_when_it_was_read_late_enough_and_leaves_no_ids() {
        let (place, look_back) = (Place::new(), Some(3 * HOUR));
        let mut lanes = one_lane(&place, "14:00").await;
        let half = Window { from: at("09:00"), to: at("09:30") };
        place.commit(lanes.step(at("09:00"), &ids([7]), at("14:00"), Some(half)).unwrap()).await;
        assert_eq!(lanes.done(at("10:59"), look_back), [], "polls still read it");
        assert_eq!(lanes.done(at("11:00"), look_back), [at("10:00")]);
        let step = lanes.close(at("10:00"));
        assert_eq!((step.partition.as_str(), step.position.as_str()), ("table/2026-01-05T10", "closed"));
        place.commit(step).await;
        assert_eq!(lanes.done(at("12:00"), look_back), [], "half an hour waits for its rest");
        let done = ["08:00", "09:00", "10:00"].map(|hour| lanes.has_done(at(hour), look_back));
        assert_eq!(done, [true, false, false], "what is older than all that is open is closed");
        let (_, read) = place.lanes().await;
        assert_eq!(read, [(at("09:00"), at("09:30")), (at("10:00"), at("11:00"))]);
        let left = place.state.notes("a/b", &Partition::new("table/2026-01-05T10")).await.unwrap();
        assert!(left.is_empty());
        assert_eq!(place.in_flight.partitions(), 0);
    }

    #[tokio::test]
    async fn a_lane_that_was_read_early_waits_for_a_late_count() {
        let (place, look_back) = (Place::new(), 3 * HOUR);
        let mut lanes = one_lane(&place, "13:59").await;
        let day = Window { from: at("00:00"), to: at("23:00") };
        let (one, two) = (HashMap::from([(at("10:00"), 1)]), HashMap::from([(at("10:00"), 2)]));
        let after = |lanes: &mut Lanes, rows, counted_at| {
            lanes.compare(day, rows, at(counted_at), look_back);
            !lanes.done(at("12:00"), Some(look_back)).is_empty()
        };
        assert!(!after(&mut lanes, &one, "13:59"), "a row may still come");
        assert!(!after(&mut lanes, &two, "14:00"), "one has come");
        // A start in between does not make it any more certain.
        let (mut again, _) = place.lanes().await;
        assert_eq!(again.done(at("12:00"), Some(look_back)), []);
        assert!(after(&mut again, &one, "14:00"));
        assert_eq!(
            lanes.done(at("12:00"), None),
            [at("10:00")],
            "without counts there is nothing to wait for"
        );
    }

    #[tokio::test]
    async fn a_lane_does_not_pass_what_was_not_read() {
        let (mut lanes, _) = Place::new().lanes().await;
        let gap = Window { from: at("10:20"), to: at("11:00") };
        assert!(lanes.step(at("10:00"), &Ids::default(), at("10:30"), Some(gap)).is_none());
        let next = Window { from: at("09:30"), to: at("10:20") };
        assert!(lanes.step(at("10:00"), &Ids::default(), at("10:30"), Some(next)).is_some());
        assert!(lanes.step(at("10:00"), &Ids::default(), at("10:30"), Some(gap)).is_some());
        let rows = HashMap::from([(at("10:00"), 0)]);
        let day = Window { from: at("00:00"), to: at("23:00") };
        assert_eq!(lanes.compare(day, &rows, at("10:30"), HOUR), []);
        assert_eq!(lanes.compare(day, &HashMap::from([(at("10:00"), 1)]), at("10:30"), HOUR), [at("10:00")]);
    }

    #[test]
    fn what_was_left_out_is_told_from_what_was_shipped() {
        let written = Ids { shipped: [1, 2].into(), left_out: [3, 4].into() };
        let notes = [written.encode(), ids([5]).encode()];
        let read = Ids::decode(&notes);
        assert_eq!(read, Ids { shipped: [1, 2, 5].into(), left_out: [3, 4].into() });
        assert_eq!(read.len(), 5);
        assert_ne!(id_of("ffffffff-ffff-ffff-ffff-ffffffffffff"), LEFT_OUT);
    }

    #[test]
    fn an_id_is_told_by_its_digits_whatever_their_form() {
        let id = id_of("5d1f0b6e-2c3d-3e4f-8a5b-6c7d8e9f0a1b");
        assert_eq!(id, 0x5d1f_0b6e_2c3d_3e4f_8a5b_6c7d_8e9f_0a1b);
        assert_eq!(id, id_of("5D1F0B6E2C3D3E4F8A5B6C7D8E9F0A1B"));
        assert_ne!(id_of("ServiceMain-1"), id_of("ServiceMain-2"));
        assert_ne!(id_of("+d1f0b6e2c3d3e4f8a5b6c7d8e9f0a1b"), 0x0d1f_0b6e_2c3d_3e4f_8a5b_6c7d_8e9f_0a1b);
    }
}
