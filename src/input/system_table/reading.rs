//! One window: from the rows of a statement to chunks of the rows that are new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::chunks::Chunks;
use super::lanes::{Ids, Lanes, Step};
use super::plan::{HOUR, Window, hour_down};
use super::rows::{COLUMNS, Element, LONGEST_ROW, Row};
use super::warehouse::{Statement, Warehouse};
use crate::budget::{Budget, Credit};
use crate::chunk::{Chunk, Malformed, Origin, ReadCounts, Record};
use crate::input::InputError;
use crate::time::Millis;

/// Chunks are handed on when they are as long as this, or an eighth of the memory.
const CHUNK_BYTES: usize = 1 << 20;

/// The rows of a window, in order.
pub(super) fn rows_of(window: Window) -> Statement {
    let columns: Vec<String> =
        COLUMNS.iter().map(|(name, expression)| format!("{expression} AS {name}")).collect();
    let text = format!(
        "SELECT {} FROM system.access.audit WHERE event_date BETWEEN :first_date AND :last_date \
         AND event_time >= timestamp_millis(:from_millis) AND event_time < timestamp_millis(:to_millis) \
         ORDER BY event_time, event_id",
        columns.join(", ")
    );
    Statement { text, parameters: parameters(window) }
}

/// How many rows each hour of a window has.
pub(super) fn count_of(window: Window) -> Statement {
    let text = "SELECT hour_number, count(DISTINCT event_id) + count_if(event_id IS NULL) AS row_count FROM \
                (SELECT unix_millis(event_time) DIV 3600000 AS hour_number, event_id FROM system.access.audit \
                WHERE event_date BETWEEN :first_date AND :last_date \
                AND event_time >= timestamp_millis(:from_millis) AND event_time < timestamp_millis(:to_millis)) \
                GROUP BY hour_number ORDER BY hour_number"
        .to_owned();
    Statement { text, parameters: parameters(window) }
}

fn parameters(window: Window) -> Vec<(&'static str, String, &'static str)> {
    // The date prunes files; it is that of another time zone where the session has one.
    let (first, last) = (window.from.date().plus_days(-1), window.to.date().plus_days(1));
    vec![
        ("first_date", first.to_string(), "DATE"),
        ("last_date", last.to_string(), "DATE"),
        ("from_millis", window.from.get().to_string(), "BIGINT"),
        ("to_millis", window.to.get().to_string(), "BIGINT"),
    ]
}

/// Reads the answer to [`count_of`].
pub(super) async fn counts(
    mut rows: Chunks,
    warehouse: &Warehouse,
) -> Result<HashMap<Millis, u64>, InputError> {
    let mut counts = HashMap::new();
    while let Some(element) = rows.next(warehouse).await? {
        let Element::Row(text) = element else { continue };
        let pair: Option<(String, String)> = serde_json::from_slice(&text).ok();
        let hour = |hour: &str| Millis::new(hour.parse::<i64>().ok()?.checked_mul(3_600_000)?);
        let pair = pair.and_then(|(start, rows)| Some((hour(&start)?, rows.parse().ok()?)));
        let Some((hour, rows)) = pair else {
            return Err(warehouse.transient("an hour's count is no pair of numbers".to_owned()));
        };
        counts.insert(hour, rows);
    }
    Ok(counts)
}

/// What a reading works with.
pub(super) struct Tools<'r> {
    pub(super) warehouse: &'r Warehouse,
    /// Of all regions.
    pub(super) lanes: &'r mut [Lanes],
    /// Which of them is read.
    pub(super) region: usize,
    pub(super) budget: &'r Budget,
    pub(super) origin: &'r Arc<Origin>,
    /// Leave out what another region gave already.
    pub(super) deduplicate: bool,
    /// Not yet told by a chunk.
    pub(super) counts: &'r mut ReadCounts,
}

impl Tools<'_> {
    fn own(&mut self) -> Option<&mut Lanes> {
        self.lanes.get_mut(self.region)
    }

    /// True if the row was read before.
    async fn knows(&mut self, hour: Millis, id: u128) -> Result<bool, InputError> {
        let Some(lanes) = self.own() else { return Ok(false) };
        lanes.open(hour).await?;
        Ok(lanes.ids(hour).is_some_and(|ids| ids.contains(id)))
    }

    /// True if the row was shipped from another region's table.
    async fn knows_elsewhere(&mut self, hour: Millis, id: u128) -> Result<bool, InputError> {
        for (index, lanes) in self.lanes.iter_mut().enumerate() {
            if index != self.region {
                lanes.open(hour).await?;
                if lanes.ids(hour).is_some_and(|ids| ids.shipped.contains(&id)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Closes an hour that is done with in all regions: as long as a row may still come up in one of them, the others
    /// have to know whether they shipped it.
    pub(super) fn close(&mut self, overlap: Millis, look_back: Option<Duration>) -> Option<Step> {
        let own = self.lanes.get(self.region)?;
        let everywhere = |hour: &Millis| self.lanes.iter().all(|lanes| lanes.has_done(*hour, look_back));
        let hour = own.done(overlap, look_back).into_iter().find(everywhere)?;
        Some(self.own()?.close(hour))
    }

    fn chunk_bytes(&self) -> usize {
        (self.budget.total() / 8).clamp(1, CHUNK_BYTES)
    }

    /// A chunk of a step and of the rows that go with it.
    pub(super) fn chunk(&mut self, step: Step, batch: Batch) -> Chunk {
        batch.credit.shrink_to(batch.payload.len());
        Chunk {
            partition: step.partition,
            position: step.position,
            note: step.note,
            payload: batch.payload.into(),
            records: batch.records,
            malformed: batch.malformed,
            origin: Arc::clone(self.origin),
            counts: std::mem::take(self.counts),
            credit: batch.credit,
            ..Chunk::default()
        }
    }
}

/// New rows of one hour.
#[derive(Debug, Default)]
pub(super) struct Batch {
    payload: Vec<u8>,
    records: Vec<Record>,
    malformed: Vec<Malformed>,
    ids: Ids,
    credit: Credit,
}

impl Batch {
    fn push(&mut self, record: &[u8]) {
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let start = length(self.payload.len());
        self.payload.extend_from_slice(record);
        let line = length(self.records.len());
        self.records.push(Record { start, end: length(self.payload.len()), line, occurrence: 0 });
    }
}

/// A window being read.
#[derive(Debug)]
pub(super) struct Reading {
    window: Window,
    /// When its rows were asked for.
    asked: Millis,
    rows: Chunks,
    /// The hour that rows are awaited of.
    hour: Millis,
    /// A row of a later hour.
    ahead: Option<Row>,
    ended: bool,
    told: u64,
    /// Dropped with the reading where that fails: its ids are not known before they are handed on.
    batch: Batch,
}

impl Reading {
    pub(super) fn new(window: Window, asked: Millis, rows: Chunks) -> Self {
        let hour = hour_down(window.from);
        Self { window, asked, rows, hour, ahead: None, ended: false, told: 0, batch: Batch::default() }
    }

    /// Bytes of the answer read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    /// The next chunk; none at the end of the window.
    pub(super) async fn next(&mut self, tools: &mut Tools<'_>) -> Result<Option<Chunk>, InputError> {
        while self.hour < self.window.to {
            if self.ahead.is_none() && !self.ended {
                self.ahead = self.row(tools).await?;
                self.ended = self.ahead.is_none();
            }
            match self.ahead.take() {
                Some(row) if hour_down(row.time) == self.hour => self.place(row, tools).await?,
                later => {
                    self.ahead = later;
                    let chunk = self.hand_on(Some(self.window), tools);
                    self.hour = self.hour.plus(HOUR);
                    if chunk.is_some() {
                        return Ok(chunk);
                    }
                }
            }
            if self.batch.payload.len() >= tools.chunk_bytes() {
                return Ok(self.hand_on(None, tools));
            }
        }
        Ok(None)
    }

    /// The next row that belongs to the window.
    async fn row(&mut self, tools: &mut Tools<'_>) -> Result<Option<Row>, InputError> {
        let element = self.rows.next(tools.warehouse).await?;
        let bytes = self.rows.bytes();
        tools.counts.bytes_fetched += bytes - std::mem::replace(&mut self.told, bytes);
        let row = match element {
            None => return Ok(None),
            Some(Element::Row(text)) => Row::parse(&text),
            Some(Element::TooLong(beginning)) => Row::too_long(&beginning),
        };
        let row = row.map_err(|error| tools.warehouse.transient(error))?;
        if row.time < self.window.from.max(self.hour) || row.time >= self.window.to {
            let text = "a row is not of the time that was asked for, or out of order";
            return Err(tools.warehouse.transient(text.to_owned()));
        }
        Ok(Some(row))
    }

    async fn place(&mut self, row: Row, tools: &mut Tools<'_>) -> Result<(), InputError> {
        if self.batch.ids.contains(row.id) || tools.knows(self.hour, row.id).await? {
            tools.counts.records_skipped += 1;
            return Ok(());
        }
        if row.account_level && tools.knows_elsewhere(self.hour, row.id).await? {
            tools.counts.records_duplicate += 1;
            if tools.deduplicate {
                self.batch.ids.left_out.insert(row.id);
                return Ok(());
            }
        }
        if row.too_long {
            self.batch.ids.shipped.insert(row.id);
            self.batch.malformed.push(Malformed {
                record: row.record.into(),
                reason: "too_long",
                detail: format!("the row is longer than {LONGEST_ROW} bytes"),
                offset: 0,
                line: 0,
            });
            return Ok(());
        }
        if self.batch.records.is_empty() {
            self.batch.credit = tools.budget.take(tools.chunk_bytes()).await;
        }
        self.batch.ids.shipped.insert(row.id);
        self.batch.push(&row.record);
        Ok(())
    }

    /// Hands on what was gathered of the hour, and with a window that the hour has been read in it.
    fn hand_on(&mut self, window: Option<Window>, tools: &mut Tools<'_>) -> Option<Chunk> {
        let step = tools.own()?.step(self.hour, &self.batch.ids, self.asked, window)?;
        let batch = std::mem::take(&mut self.batch);
        Some(tools.chunk(step, batch))
    }
}
