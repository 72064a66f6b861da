//! How the state does with millions of objects: what it takes on disk, how long commits, look-ups and the start take.
//!
//! `cargo bench --bench state -- [--objects N]`. A million objects take some seconds, ten million some minutes; for their
//! sake it is no part of a plain `cargo bench`. Ends with 1 where a promise is not kept.
//!
//! How long a commit takes is the disk's to say: beside each, as many bytes are written to a file and synced, and nothing
//! else. A commit that takes more than a millisecond keeps its promise where that alone takes most of it. In the same way a
//! look-up is measured against handing nothing to another thread and waiting for it, which takes long on a busy machine.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use auditferry::chunk::{Note, Partition, Position};
use auditferry::state::sqlite::SqliteState;
use auditferry::state::{Change, State};
use auditferry::time::Date;
use clap::Parser;
use tokio::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Dates, of each workspace.
const DATES: i64 = 400;
/// Objects of a workspace and date.
const OBJECTS_A_DATE: u64 = 20;
/// Bytes that a million objects may take.
const MOST_BYTES_A_MILLION: u64 = 200_000_000;
/// Objects of a commit while the state is filled.
const FILLED_AT_ONCE: usize = 1000;
/// Commits and look-ups that are timed.
const TIMED: u32 = 2000;
/// Longest that 99 of 100 of them may take.
const MOST_OF_99: Duration = Duration::from_millis(1);
/// Longest start.
const MOST_TO_START: Duration = Duration::from_secs(1);
/// How much longer a commit may take than the bare write, and a look-up than the bare hand-over, where that alone takes long.
const MOST_OF_BARE: f64 = 2.0;
/// Size of the file that is written and synced without a database: about that of its log.
const BARE_BYTES: u64 = 4 << 20;
const NAMESPACE: &str = "audit/splunk";

#[derive(Parser)]
struct Args {
    /// Objects that are known
    #[arg(long, default_value_t = 1_000_000)]
    objects: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn key(workspace: u64, date: Date, object: u64) -> Partition {
    Partition::new(&format!(
        "audit/workspaceId={}/date={date}/auditlogs_{:016x}.json",
        7_405_611_902_334_455 + workspace,
        object.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    ))
}

/// What is kept of an object whose date is closed.
fn folded(number: u64) -> Position {
    let seam = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Position::new(&format!("2 df 1048000 1000 0 65536 {seam:x} \"{:032x}\"", u128::from(seam) << 32))
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(args.objects))
}

async fn measure(objects: u64) -> Result<ExitCode> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let first = Date::parse("2025-01-01").ok_or("date")?;
    let workspaces = (objects / OBJECTS_A_DATE / DATES.unsigned_abs()).max(1);
    let state = SqliteState::open(directory.path())?;
    let begun = Instant::now();
    let mut known = 0;
    // Day after day, as they come.
    let mut changes = Vec::new();
    for day in 0..DATES {
        for workspace in 0..workspaces {
            for number in known..known + OBJECTS_A_DATE {
                let partition = key(workspace, first.plus_days(day), number);
                changes.push(Change { partition, position: folded(number), note: Note::Keep });
            }
            known += OBJECTS_A_DATE;
            if changes.len() >= FILLED_AT_ONCE || workspace + 1 == workspaces {
                state.commit(NAMESPACE, std::mem::take(&mut changes), Vec::new()).await?;
            }
        }
    }
    let filled = begun.elapsed();
    drop(state);
    let bytes = fs::metadata(directory.path().join("state.db"))?.len();
    let begun = Instant::now();
    let state = SqliteState::open(directory.path())?;
    let started = begun.elapsed();

    let today = first.plus_days(DATES);
    let (mut commits, mut lookups, mut bares) = (Vec::new(), Vec::new(), Vec::new());
    let mut handovers = Vec::new();
    let mut bare = Bare::new(&directory.path().join("bare"))?;
    for number in 0..u64::from(TIMED) {
        let workspace = number * 7919 % workspaces;
        let partition = key(workspace, today, number / workspaces);
        let change = Change { partition, position: folded(number), note: Note::Append(vec![7; 80].into()) };
        let (before, begun) = (written()?, Instant::now());
        state.commit(NAMESPACE, vec![change], vec![("events_delivered", 1)]).await?;
        commits.push(begun.elapsed());
        bares.push(bare.write(written()? - before)?);
        // Any object, of any date.
        let any = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % known;
        let of_date = any / OBJECTS_A_DATE;
        let date = first.plus_days(i64::try_from(of_date / workspaces)?);
        let begun = Instant::now();
        let found = state.positions(NAMESPACE, vec![key(of_date % workspaces, date, any)]).await?;
        lookups.push(begun.elapsed());
        let begun = Instant::now();
        tokio::task::spawn_blocking(|| ()).await?;
        handovers.push(begun.elapsed());
        if found.len() != 1 {
            return Err("an object that was kept is not known".into());
        }
    }
    let (commit, lookup) = (within(99, &mut commits), within(99, &mut lookups));
    let of_bare = commit.as_secs_f64() / within(99, &mut bares).as_secs_f64();
    let of_handover = lookup.as_secs_f64() / within(99, &mut handovers).as_secs_f64();
    let a_million = bytes.saturating_mul(1_000_000) / known;
    let kept = [
        a_million <= MOST_BYTES_A_MILLION,
        started <= MOST_TO_START,
        commit <= MOST_OF_99 || of_bare <= MOST_OF_BARE,
        lookup <= MOST_OF_99 || of_handover <= MOST_OF_BARE,
    ];
    let word = |kept: bool| if kept { "met" } else { "MISSED" };
    let mut out = io::stdout();
    writeln!(
        out,
        "{known} objects of {workspaces} workspaces and {DATES} dates, committed in {:.0} s:\n\
         {} MB, {} MB a million ({}); start {started:.1?} ({})",
        filled.as_secs_f64(),
        bytes / 1_000_000,
        a_million / 1_000_000,
        word(kept[0]),
        word(kept[1]),
    )?;
    writeln!(
        out,
        "99 of 100 commits within {commit:.2?}, {of_bare:.2} times the bare write and fsync of as many bytes ({}), half \
         within {:.2?}, {:.2} times",
        word(kept[2]),
        within(50, &mut commits),
        within(50, &mut commits).as_secs_f64() / within(50, &mut bares).as_secs_f64(),
    )?;
    writeln!(
        out,
        "99 of 100 look-ups within {lookup:.2?}, {of_handover:.2} times a bare hand-over to another thread ({}), half within \
         {:.2?}",
        word(kept[3]),
        within(50, &mut lookups),
    )?;
    Ok(if kept == [true; 4] { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Bytes that this process has written so far, to anything.
fn written() -> Result<u64> {
    let counts = fs::read_to_string("/proc/self/io")?;
    let line = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.ok_or("wchar")?.parse()?)
}

/// A file that is written round and round, as a database's log is.
struct Bare(File);

impl Bare {
    fn new(path: &Path) -> Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(&vec![0; usize::try_from(BARE_BYTES)?])?;
        file.sync_all()?;
        file.rewind()?;
        Ok(Self(file))
    }

    /// How long it takes to have so many bytes on disk.
    fn write(&mut self, bytes: u64) -> Result<Duration> {
        let content = vec![7; usize::try_from(bytes)?];
        let begun = Instant::now();
        if self.0.stream_position()? + bytes > BARE_BYTES {
            self.0.seek(SeekFrom::Start(0))?;
        }
        self.0.write_all(&content)?;
        self.0.sync_data()?;
        Ok(begun.elapsed())
    }
}

/// What so many of 100 are within; sorts them.
fn within(percent: usize, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() * percent / 100).copied().unwrap_or_default()
}
