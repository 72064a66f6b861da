//! The table `system.access.audit`, read with SQL over the Statement Execution API of a workspace.
//!
//! ```text
//!   Plan ──window──► Warehouse ──rows──► Reading ──► chunks ──► SystemTable::read
//!     ▲   what to read   a statement        what is new: Lanes     │
//!     └─── read, or too large ◄─────────────────┘                  └─ committed: ids may leave memory
//! ```
//!
//! The table has neither an order of arrival nor a mark that a reader could set: rows may appear hours late. So a poll
//! reads the newest two hours again and tells by the ids it keeps which rows are new; older hours are counted. A crash
//! at any point leaves hours whose position did not move: they are read again, less the ids that were committed.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::chunk::{Chunk, Origin, Partition, Position, ReadCounts};
use crate::component::{BuildError, Probe};
use crate::decode::Gaps;
use crate::http::Client;
use crate::input::{Backlog, Input, InputContext, InputError, InputKind, Read, Resume};
use crate::time::Millis;

mod answer;
mod chunks;
mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod lanes;
mod login;
mod plan;
mod reading;
mod refusal;
mod rows;
mod warehouse;

use config::{Checked, Config, Schedule, parse};
use lanes::{InFlight, Lanes};
use plan::{Plan, Window};
use reading::{Batch, Reading, Tools};
use warehouse::{Disposition, Warehouse};

/// The system table input.
pub const KIND: InputKind = InputKind {
    name: "system_table",
    about: "The table system.access.audit, by a SQL warehouse",
    schema: || schemars::schema_for!(Config),
    check,
    gaps: |_| Gaps::default(),
    build,
};

/// What partitions, records and dead letters call the table.
const TABLE: &str = "system.access.audit";

fn check(table: Value) -> Result<String, BuildError> {
    let Checked { endpoints, schedule, http, .. } = parse(table)?;
    Client::new(&http)?;
    let mut through = Vec::new();
    for endpoint in &endpoints {
        endpoint.credentials.check()?;
        through.push(format!("warehouse {} of {}", endpoint.warehouse_id, endpoint.url));
    }
    let every = humantime::format_duration(schedule.poll_interval);
    Ok(format!("{TABLE} by {}, polled every {every}", through.join(" and ")))
}

fn build(table: Value, context: InputContext) -> Result<Box<dyn Input>, BuildError> {
    let Checked { endpoints, start_time, schedule, deduplicate, http } = parse(table)?;
    let client = Client::new(&http)?;
    let mut regions = Vec::new();
    for endpoint in endpoints {
        endpoint.credentials.check()?;
        let cloud = endpoint.cloud;
        let warehouse = Warehouse::new(client.clone(), endpoint, context.budget.clone(), context.clock);
        regions.push(Region {
            warehouse: Arc::new(warehouse),
            origin: Arc::new(Origin { cloud, ..Origin::of_object(TABLE) }),
            plan: None,
            begin: None,
            reading: None,
            external: false,
            failing: false,
            polled: None,
            due: Instant::now(),
        });
    }
    let warehouses = regions.iter().map(|region| Arc::clone(&region.warehouse)).collect();
    let in_flight = Arc::<InFlight>::default();
    let table = Table {
        regions,
        lanes: Vec::new(),
        settings: Settings { start_time, schedule, deduplicate },
        resume: context.resume,
        budget: context.budget,
        once: context.once,
        in_flight: Arc::clone(&in_flight),
        counts: ReadCounts::default(),
        turn: 0,
        failed: false,
        resting: false,
        recovered: None,
    };
    Ok(Box::new(SystemTable { table: AsyncMutex::new(table), warehouses, in_flight }))
}

/// The system table input.
struct SystemTable {
    table: AsyncMutex<Table>,
    warehouses: Vec<Arc<Warehouse>>,
    in_flight: Arc<InFlight>,
}

#[async_trait]
impl Input for SystemTable {
    async fn read(&self) -> Result<Read, InputError> {
        self.table.lock().await.read().await
    }

    async fn committed(&self, partition: &Partition, _: &Position) {
        self.in_flight.remove(partition);
    }

    async fn close(&self) {
        for warehouse in &self.warehouses {
            warehouse.cancel().await;
        }
    }

    /// Starts no warehouse: that takes minutes and costs money.
    async fn probe(&self) -> Probe {
        let mut seen = Vec::new();
        for warehouse in &self.warehouses {
            match warehouse.probe().await {
                Ok(what) => seen.push(what),
                Err(error) => return Probe::Failed(error.to_string()),
            }
        }
        Probe::Ready(seen.join("; "))
    }

    fn backlog(&self) -> Backlog {
        Backlog { open: self.in_flight.partitions() as u64, ..Backlog::default() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    start_time: Option<Millis>,
    schedule: Schedule,
    deduplicate: bool,
}

/// What the reader works with.
struct Table {
    regions: Vec<Region>,
    /// Of each region, once they are loaded.
    lanes: Vec<Lanes>,
    settings: Settings,
    resume: Resume,
    budget: Budget,
    once: bool,
    in_flight: Arc<InFlight>,
    /// Not yet told by a chunk.
    counts: ReadCounts,
    /// The region that is read.
    turn: usize,
    /// A region failed in this round.
    failed: bool,
    /// All has been read for now.
    resting: bool,
    /// The first chunk after a failure.
    recovered: Option<Chunk>,
}

/// The table of one region.
struct Region {
    warehouse: Arc<Warehouse>,
    origin: Arc<Origin>,
    plan: Option<Plan>,
    /// The hour to begin with, at the first start of all.
    begin: Option<Millis>,
    reading: Option<(Window, Reading)>,
    /// The next window comes from cloud storage: it cannot be any shorter.
    external: bool,
    /// It could not be read the last time.
    failing: bool,
    /// When the poll that is under way began.
    polled: Option<Instant>,
    /// When the next one begins.
    due: Instant,
}

impl Table {
    /// Reads the regions in turn. One that fails does not keep the others from being read, but the round is not good.
    async fn read(&mut self) -> Result<Read, InputError> {
        if self.resting {
            if let Some(due) = self.regions.iter().map(|region| region.due).min() {
                tokio::time::sleep_until(due).await;
            }
            self.resting = false;
        }
        loop {
            while self.turn < self.regions.len() {
                let read = match self.recovered.take() {
                    Some(chunk) => Ok(Some(chunk)),
                    None => self.read_region(self.turn).await,
                };
                let failing = self.set_failing(read.is_err());
                match read {
                    Ok(Some(chunk)) if failing == Some(false) => {
                        // A back-fill may go on for hours: that it goes on is told at once.
                        self.recovered = Some(chunk);
                        return Ok(Read::Idle);
                    }
                    Ok(Some(chunk)) => return Ok(Read::Chunk(chunk)),
                    Ok(None) => self.turn += 1,
                    Err(error) => {
                        self.turn += 1;
                        self.failed = true;
                        return Err(error);
                    }
                }
            }
            self.turn = 0;
            if std::mem::take(&mut self.failed) {
                // The engine has waited since; only what failed is due.
                continue;
            }
            if self.once {
                return Ok(Read::End);
            }
            self.resting = true;
            return Ok(Read::Idle);
        }
    }

    /// Notes whether the region that is read fails; tells whether any does, if that has changed.
    fn set_failing(&mut self, failing: bool) -> Option<bool> {
        let region = self.regions.get_mut(self.turn)?;
        if std::mem::replace(&mut region.failing, failing) == failing {
            return None;
        }
        Some(self.regions.iter().any(|region| region.failing))
    }

    async fn read_region(&mut self, index: usize) -> Result<Option<Chunk>, InputError> {
        // In the order of the regions: the lanes of one are told from those of another by their place.
        while self.lanes.len() < self.regions.len() {
            let Some(region) = self.regions.get_mut(self.lanes.len()) else { break };
            let prefix = match &region.warehouse.endpoint().region {
                None => TABLE.to_owned(),
                Some(name) => format!("{TABLE}@{name}"),
            };
            let (lanes, read) = Lanes::load(prefix, self.resume.clone(), Arc::clone(&self.in_flight)).await?;
            let Settings { schedule, start_time, .. } = self.settings;
            if read.is_empty() {
                // What lies before the first hour is never read: a clock that is ahead must not choose it.
                region.warehouse.learn_time().await?;
            }
            let now = region.warehouse.now();
            let plan = Plan::resume(schedule, &read, start_time, now);
            region.begin = read.is_empty().then(|| plan.origin());
            region.plan = Some(plan);
            self.lanes.push(lanes);
        }
        let Some(region) = self.regions.get_mut(index) else { return Ok(None) };
        let warehouse = Arc::clone(&region.warehouse);
        let origin = Arc::clone(&region.origin);
        let mut tools = Tools {
            warehouse: &warehouse,
            lanes: &mut self.lanes,
            region: index,
            budget: &self.budget,
            origin: &origin,
            deduplicate: self.settings.deduplicate,
            counts: &mut self.counts,
        };
        region.read(&mut tools, self.settings.schedule).await
    }
}

impl Region {
    /// The next chunk; none when all has been read for now.
    async fn read(&mut self, tools: &mut Tools<'_>, schedule: Schedule) -> Result<Option<Chunk>, InputError> {
        let Some(plan) = &mut self.plan else { return Ok(None) };
        let begin = self.begin.take();
        if let (Some(hour), Some(own)) = (begin, tools.lanes.get_mut(tools.region)) {
            let step = own.begin(hour, tools.warehouse.now());
            return Ok(Some(tools.chunk(step, Batch::default())));
        }
        loop {
            if let Some((window, mut reading)) = self.reading.take() {
                // Where this fails the window is read again, less what was handed on of it.
                if let Some(chunk) = reading.next(tools).await? {
                    self.reading = Some((window, reading));
                    return Ok(Some(chunk));
                }
                let filled = if std::mem::take(&mut self.external) { 1.0 } else { filled(&reading, tools) };
                plan.read(window, filled);
                for lanes in tools.lanes.iter_mut() {
                    lanes.let_go(plan.overlap_begins());
                }
            }
            if let Some(step) = tools.close(plan.overlap_begins(), plan.look_back()) {
                return Ok(Some(tools.chunk(step, Batch::default())));
            }
            let polled = match self.polled {
                Some(polled) => polled,
                None if Instant::now() < self.due => return Ok(None),
                None => {
                    plan.poll(tools.warehouse.now());
                    *self.polled.insert(Instant::now())
                }
            };
            if let Some(window) = plan.window() {
                let disposition =
                    if self.external { Disposition::ExternalLinks } else { Disposition::Inline };
                let asked = tools.warehouse.now();
                let rows = tools.warehouse.run(&reading::rows_of(window), disposition).await?;
                // The answer says what time it is.
                let now = tools.warehouse.now();
                if window.to > now {
                    plan.cut(now);
                    continue;
                }
                let asked = asked.min(now);
                match rows {
                    Some(rows) => self.reading = Some((window, Reading::new(window, asked, rows))),
                    None if self.external => {
                        let text = "a minute of the table is larger than any result may be";
                        return Err(tools.warehouse.transient(text.to_owned()));
                    }
                    None => self.external = !plan.narrow(window),
                }
                continue;
            }
            let (now, oldest) =
                (tools.warehouse.now(), tools.lanes.get(tools.region).and_then(Lanes::oldest));
            if let (Some(count), Some(look_back)) = (plan.count(now, oldest), plan.look_back()) {
                let rows = count_rows(count.window, tools).await?;
                let now = now.min(tools.warehouse.now());
                let own = tools.lanes.get_mut(tools.region);
                let changed = own.map(|own| own.compare(count.window, &rows, now, look_back));
                plan.counted(count, now, changed.unwrap_or_default());
                continue;
            }
            self.polled = None;
            self.due = polled + schedule.poll_interval;
            return Ok(None);
        }
    }
}

/// How much of an answer a reading took.
#[allow(clippy::cast_precision_loss)] // a share, to double or to halve by
fn filled(reading: &Reading, tools: &Tools<'_>) -> f64 {
    reading.bytes() as f64 / tools.warehouse.answer_bytes() as f64
}

/// How many rows the hours of a window have.
async fn count_rows(window: Window, tools: &Tools<'_>) -> Result<HashMap<Millis, u64>, InputError> {
    match tools.warehouse.run(&reading::count_of(window), Disposition::Inline).await? {
        Some(rows) => reading::counts(rows, tools.warehouse).await,
        None => Err(tools.warehouse.transient("the counts of the hours do not fit into memory".to_owned())),
    }
}
