//! Makes audit-log buckets that look and grow like real ones, for tests, benches and for trying the product.
//!
//! Every line is a pure function of the options, its object and its number in it. So a bucket of any size is written
//! and rewritten in little memory, and what must arrive in the end is known without reading it back ([`Bucket::lines`]).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use fastrand::Rng;

use crate::time::{Date, Millis};

mod catalog;
pub mod command;
mod event;
mod layout;
mod options;
mod record;
mod rounds;
#[cfg(test)]
mod tests;
mod text;

use catalog::Pool;
use event::{Event, Scene, scramble};
pub use layout::Layout;
use layout::{MILLIS_PER_DAY, Slot};
pub use options::{GenerateError, Options};
use options::{out_of_range, within};
use record::{Owner, Recorder};
pub use rounds::Rewrite;
use rounds::{Contents, Life};

/// Written to the file whenever this much is ready.
const FLUSH_BYTES: usize = 512 * 1024;
/// One event in so many is delivered in a later object than its time belongs to.
const LATE_ONE_IN: u32 = 400;
const LATE_MILLIS: i64 = 3 * 3_600_000;

/// What a round wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundSummary {
    /// Objects written or rewritten.
    pub objects: u64,
    /// Lines in them.
    pub lines: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Lines that no earlier round held.
    pub new_lines: u64,
    /// Their bytes.
    pub new_bytes: u64,
}

/// A bucket to be written, round by round.
#[derive(Debug)]
pub struct Bucket {
    options: Options,
    folders: Vec<Folder>,
    pools: Vec<Pool>,
    objects_per_day: u32,
    rewrites: Vec<Rewrite>,
}

/// The folder of a workspace.
#[derive(Debug)]
struct Folder {
    workspace_id: String,
    workspace_number: String,
    account: bool,
}

/// An object's place, and how many lines it has in the end.
#[derive(Clone, Debug)]
struct Object<'a> {
    number: u64,
    folder: &'a Folder,
    date: Date,
    slot: Slot,
    lines: u32,
    pool: &'a Pool,
}

/// The buffers of a writer.
#[derive(Debug, Default)]
struct Scratch {
    event: Event,
    recorder: Recorder,
}

impl Bucket {
    /// Checks the options.
    ///
    /// # Errors
    /// [`GenerateError::Option`] names the flag that is out of its range.
    pub fn new(options: Options) -> Result<Self, GenerateError> {
        let objects_per_day = options.objects_per_day.unwrap_or(options.layout.objects_per_day());
        let most = options.layout.most_objects_per_day();
        within("--workspaces", options.workspaces, 1, 1_000_000)?;
        within("--days", options.days, 1, 36_500)?;
        within("--objects-per-day", objects_per_day, 1, most)?;
        within("--repeats", options.repeats, 0, 100_000)?;
        let objects = u64::from(options.workspaces) * u64::from(options.days) * u64::from(objects_per_day);
        // An object and a line number share 64 bits, which makes every request id unique.
        if objects > u64::from(u32::MAX) {
            return Err(out_of_range(
                "--workspaces × --days × --objects-per-day",
                "at most 2^32 objects",
                &objects,
            ));
        }
        if options.events.div_ceil(objects) > u64::from(u32::MAX) {
            return Err(out_of_range("--events", "at most 2^32 per object", &options.events));
        }
        let with_account = options.layout == Layout::DatabricksDelivery && options.workspaces > 1;
        let folders =
            (0..options.workspaces).map(|number| folder(number, with_account, options.seed)).collect();
        let pools = options.layout.pools();
        let rewrites = match options.rewrites.as_slice() {
            [] => options.layout.rewrites().to_vec(),
            given => given.to_vec(),
        };
        Ok(Self { options, folders, pools, objects_per_day, rewrites })
    }

    /// Number of the last round; the first is 0.
    pub fn last_round(&self) -> u32 {
        self.options.overwrite_rounds
    }

    /// Writes all objects as they are after this round, each one in place of the file that was there. Rounds may be
    /// written in any order, or skipped.
    ///
    /// # Errors
    /// [`GenerateError::Write`] names the file. What was written before it stays.
    pub fn write_round(&self, directory: &Path, round: u32) -> Result<RoundSummary, GenerateError> {
        let mut summary = RoundSummary::default();
        let mut scratch = Scratch::default();
        for object in self.objects() {
            self.write_object(&object, directory, round, &mut scratch, &mut summary)?;
        }
        Ok(summary)
    }

    /// Keys of all objects, in the order they are written.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.objects().map(|object| self.key(&object))
    }

    /// Every line that the bucket holds after the last round, without its end, repeats included; in the order of
    /// their making, which is not that of the files once they were reordered.
    pub fn lines(&self) -> impl Iterator<Item = Vec<u8>> {
        let mut scratch = Scratch::default();
        self.numbers().map(move |(object, number)| {
            let mut line = Vec::with_capacity(2048);
            self.write_line(&object, number, &mut scratch, &mut line);
            line
        })
    }

    /// The request id of every distinct line: the same ones, in the same order, as in [`lines`](Self::lines) less the
    /// repeats.
    pub fn request_ids(&self) -> impl Iterator<Item = String> {
        self.numbers().filter(|(object, number)| self.source_of(object, *number) == *number).map(
            |(object, number)| {
                let unique = self.unique(&object, number);
                let mut id = String::new();
                event::push_request_id(unique, &mut Rng::with_seed(unique), &mut id);
                id
            },
        )
    }

    fn numbers(&self) -> impl Iterator<Item = (Object<'_>, u32)> {
        self.objects().flat_map(|object| {
            let lines = object.lines;
            (0..lines).map(move |number| (object.clone(), number))
        })
    }

    /// Objects that get at least one line.
    fn objects(&self) -> impl Iterator<Item = Object<'_>> {
        let count = u64::from(self.options.workspaces)
            * u64::from(self.options.days)
            * u64::from(self.objects_per_day);
        let (each, rest) = (self.options.events / count, self.options.events % count);
        let days = (0..i64::from(self.options.days)).rev().map(|back| self.options.end_date.plus_days(-back));
        days.flat_map(move |date| self.folders.iter().map(move |folder| (date, folder)))
            .flat_map(|(date, folder)| (0..self.objects_per_day).map(move |slot| (date, folder, slot)))
            .zip(0_u64..)
            .filter_map(move |((date, folder, slot), number)| {
                let slot = Slot { number: slot, of: self.objects_per_day };
                let lines = u32::try_from(each + u64::from(number < rest)).ok().filter(|lines| *lines > 0)?;
                let pool = self.pools.get(self.options.layout.pool(folder.account, slot))?;
                Some(Object { number, folder, date, slot, lines, pool })
            })
    }

    fn key(&self, object: &Object<'_>) -> String {
        let id = scramble(scramble(self.options.seed) ^ object.number);
        self.options.layout.key(object.folder.owner(), object.date, object.slot, id)
    }

    fn contents(&self, object: &Object<'_>, round: u32) -> Contents {
        let life = Life {
            lines: object.lines,
            last_round: self.options.overwrite_rounds,
            rewrites: &self.rewrites,
            number: object.number,
        };
        life.after(round)
    }

    fn write_object(
        &self,
        object: &Object<'_>,
        directory: &Path,
        round: u32,
        scratch: &mut Scratch,
        summary: &mut RoundSummary,
    ) -> Result<(), GenerateError> {
        let path = directory.join(self.key(object));
        let contents = self.contents(object, round);
        summary.objects += 1;
        replace_file(&path, |file| {
            let mut buffer = Vec::with_capacity(FLUSH_BYTES + 64 * 1024);
            for number in contents.lines() {
                let before = buffer.len();
                self.write_line(object, number, scratch, &mut buffer);
                buffer.push(b'\n');
                let bytes = u64::try_from(buffer.len() - before).unwrap_or(0);
                summary.lines += 1;
                summary.bytes += bytes;
                if number >= contents.first_new {
                    summary.new_lines += 1;
                    summary.new_bytes += bytes;
                }
                if buffer.len() >= FLUSH_BYTES {
                    file.write_all(&buffer)?;
                    buffer.clear();
                }
            }
            file.write_all(&buffer)
        })
    }

    fn write_line(&self, object: &Object<'_>, number: u32, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let number = self.source_of(object, number);
        let unique = self.unique(object, number);
        let owner = object.folder.owner();
        let scene = Scene {
            pool: object.pool,
            workspace_id: self.acting_workspace(object.folder, unique),
            time: self.time(object, number, unique),
            azure: self.options.layout == Layout::AzureDiagnostic,
        };
        scratch.event.fill(unique, scene);
        match self.options.layout {
            Layout::DatabricksDelivery => scratch.recorder.delivery(&scratch.event, owner, out),
            Layout::AzureDiagnostic => scratch.recorder.diagnostic(&scratch.event, owner, out),
            Layout::LogAnalyticsExport => scratch.recorder.log_analytics(&scratch.event, owner, out),
        }
    }

    /// A number that no other event of the bucket has, and no event of most other seeds.
    fn unique(&self, object: &Object<'_>, number: u32) -> u64 {
        scramble(scramble(self.options.seed) ^ (object.number << 32 | u64::from(number)))
    }

    /// The line whose bytes a line has: its own number, or that of an earlier line it repeats.
    fn source_of(&self, object: &Object<'_>, number: u32) -> u32 {
        let repeats = u64::from(self.options.repeats);
        let is_repeat = |number: u32| scramble(!self.unique(object, number)) % 1_000_000 < repeats;
        let mut source = number;
        while source > 0 && is_repeat(source) {
            source -= 1;
        }
        source
    }

    /// Whose action an event is: account-level events are caused in one of the workspaces.
    fn acting_workspace<'a>(&'a self, folder: &'a Folder, unique: u64) -> &'a str {
        let others = self.folders.len().saturating_sub(1).max(1);
        let acting = if folder.account {
            let at = unique % u64::try_from(others).unwrap_or(1);
            self.folders.get(usize::try_from(at).unwrap_or(0) + 1)
        } else {
            None
        };
        &acting.unwrap_or(folder).workspace_id
    }

    /// Lines follow each other in time; a few come late. A Log Analytics export sorts by the time of the event, so
    /// that there none does.
    fn time(&self, object: &Object<'_>, number: u32, unique: u64) -> Millis {
        let (start, length) = self.options.layout.span(object.date, object.slot);
        let lines = i64::from(object.lines.max(1));
        let mut rng = Rng::with_seed(!unique);
        let step = rng.i64(0..(length / lines).max(1));
        let mut millis = start.get() + length * i64::from(number) / lines + step;
        if self.options.layout != Layout::LogAnalyticsExport && rng.u32(..LATE_ONE_IN) == 0 {
            millis -= rng.i64(0..LATE_MILLIS);
        }
        self.by_now(Millis::new(millis).unwrap_or(start))
    }
}

impl Bucket {
    /// Where a day that is not over has come to: all of its times in the part of it that has passed.
    fn by_now(&self, time: Millis) -> Millis {
        let Some(now) = self.options.now else { return time };
        let midnight = self.options.end_date.start();
        let (passed, at) = (now.get() - midnight.get(), time.get() - midnight.get());
        if !(0..MILLIS_PER_DAY).contains(&passed) || !(0..MILLIS_PER_DAY).contains(&at) {
            return time;
        }
        Millis::new(midnight.get() + at * passed / MILLIS_PER_DAY).unwrap_or(time)
    }
}

impl Folder {
    fn owner(&self) -> Owner<'_> {
        Owner { workspace_id: &self.workspace_id, workspace_number: &self.workspace_number }
    }
}

fn folder(number: u32, with_account: bool, seed: u64) -> Folder {
    // A step that shares no factor with the range: no id comes twice.
    const RANGE: u64 = 9_000_000_000_000_000;
    const STEP: u64 = 7_919_010_101;
    let offset = (scramble(seed) % RANGE + u64::from(number) * STEP) % RANGE;
    let id = 1_000_000_000_000_000 + offset;
    let account = with_account && number == 0;
    let workspace_id = match number {
        0 if account => "0".to_owned(),
        // The documentation's own sample has 22 digits: more than 64 bits hold.
        _ if number % 8 == 7 => format!("{id}650424"),
        _ => id.to_string(),
    };
    Folder { workspace_id, workspace_number: format!("{number:04}"), account }
}

/// Writes a file beside its place and moves it there: a reader sees the old bytes or the new ones.
fn replace_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), GenerateError> {
    let failed = |source| GenerateError::Write { path: path.to_owned(), source };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    File::create(&partial).and_then(|mut file| write(&mut file)).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)
}
