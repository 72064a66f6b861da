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
    /// The rows it had by the last such count, and the ids, where they were not as many: then it was read again.
    differed: Option<(u64, u64)>,
}

impl Lane {
    fn new(hour: Millis, since: Millis) -> Self {
        Self {
            read_to: hour,
            count: 0,
            ids: Some(Ids::default()),
            since: Some(since),
            counted: false,
            differed: None,
        }
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
                    let (ids, since, counted, differed) = (None, None, false, None);
                    lanes.insert(hour, Lane { read_to, count, ids, since, counted, differed });
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
    /// differ. The others are done with if they ended a look-back before, and so are those that differ as they did
    /// before they were read again: rows went with their workspace, or one without an id stands twice in the table.
    pub(super) fn compare(
        &mut self,
        window: Window,
        rows: &HashMap<Millis, u64>,
        counted_at: Millis,
        look_back: Duration,
    ) -> Vec<Millis> {
        let mut changed = Vec::new();
        for (hour, lane) in self.lanes.range_mut(window.from..window.to) {
            let counts = (rows.get(hour).copied().unwrap_or_default(), lane.count);
            let late = hour.plus(HOUR).plus(look_back) <= counted_at;
            if counts.0 == counts.1 || (late && lane.differed == Some(counts)) {
                lane.counted |= late;
            } else {
                lane.differed = late.then_some(counts);
                changed.push(*hour);
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
mod tests;
