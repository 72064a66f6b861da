//! How much CPU it takes to forward audit logs: the release binary, a local bucket, and a collector that takes all.
//!
//! `cargo bench --bench forward -- [--megabytes N] [--only hec] [--runs N] [--latency MS] [--store-latency MS] [--one-core]`

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use auditferry::generate::{Bucket, Options};
use auditferry::time::Date;
use clap::{Parser, ValueEnum};

mod collector;
mod ferry;
mod floor;
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod store;

use collector::{Collector, Received};
use ferry::{Cost, Destination};
use store::Manners;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a generated line, on the average.
const LINE_BYTES: u64 = 1040;
/// Workspaces that they are of, where there are as many objects.
const WORKSPACES: u32 = 10;
/// Input bytes, in millions, that a CPU-second has to be enough for on the way to Splunk.
const HEC_TARGET: f64 = 150.0;

#[derive(Parser)]
struct Args {
    /// Size of the bucket
    #[arg(long, default_value_t = 300)]
    megabytes: u64,
    /// Run these only
    #[arg(long, value_delimiter = ',')]
    only: Vec<Destination>,
    /// Run each so often, in turn; what is told are medians
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The collector answers this many milliseconds after a request
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// The store of `s3` answers this many milliseconds after a request
    #[arg(long, default_value_t = 0)]
    store_latency: u64,
    /// Each connection to the store of `s3` carries so many million bytes a second; default: as many as it can
    #[arg(long)]
    store_rate: Option<u64>,
    /// Objects the bucket consists of; from 10 on a multiple of 10
    #[arg(long, default_value_t = 40)]
    objects: u32,
    /// Measure the runs only, not what they are measured against
    #[arg(long)]
    no_floor: bool,
    /// Run each on one core besides
    #[arg(long)]
    one_core: bool,
    /// Do with this bucket what a run is measured against, and nothing else (the benchmark starts itself so)
    #[arg(long, hide = true)]
    floor: Option<PathBuf>,
    /// With `--floor`: for the bytes that go there
    #[arg(long, hide = true)]
    same_bytes: Option<Destination>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured; each is one line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// What any forwarder has to do.
    Floor,
    /// What this one has to do.
    SameBytes(Destination),
    Run(Destination),
    OneCore(Destination),
}

impl Subject {
    fn all(args: &Args) -> Vec<Self> {
        let wanted = |one: &&Destination| args.only.is_empty() || args.only.contains(one);
        let mut all = Vec::new();
        if !args.no_floor {
            all.push(Self::Floor);
        }
        for destination in Destination::value_variants().iter().filter(wanted) {
            if !args.no_floor {
                all.push(Self::SameBytes(*destination));
            }
            all.push(Self::Run(*destination));
            if args.one_core {
                all.push(Self::OneCore(*destination));
            }
        }
        all
    }

    fn title(self) -> String {
        match self {
            Self::Floor => "floor".to_owned(),
            Self::SameBytes(_) => "  its floor".to_owned(),
            Self::Run(destination) => destination.title().to_owned(),
            Self::OneCore(_) => "  on one core".to_owned(),
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(bucket) = args.floor {
        return floor::forward(&bucket, args.same_bytes);
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bucket = directory.path().join("bucket");
    let workspaces = WORKSPACES.min(args.objects);
    let options = Options {
        objects_per_day: Some(args.objects.div_ceil(workspaces)),
        ..Options::new(
            workspaces,
            1,
            args.megabytes * 1_000_000 / LINE_BYTES,
            Date::parse("2026-01-31").ok_or("date")?,
        )
    };
    let input = Bucket::new(options)?.write_round(&bucket, 0)?;
    let mut rows: Vec<Row> = Subject::all(&args).into_iter().map(Row::new).collect();
    // In turn, so that what else the machine does meets them all.
    for _ in 0..args.runs {
        for row in &mut rows {
            row.runs.push(run(row.subject, &bucket, directory.path(), &args)?);
        }
    }
    let table = Table { lines: input.lines, bytes: input.bytes, rows };
    table.print()?;
    Ok(())
}

fn run(subject: Subject, bucket: &Path, directory: &Path, args: &Args) -> Result<(Cost, Received)> {
    let (destination, one_core) = match subject {
        Subject::Floor => return Ok((floor::run(bucket, None)?, Received::default())),
        Subject::SameBytes(destination) => {
            return Ok((floor::run(bucket, Some(destination))?, Received::default()));
        }
        Subject::Run(destination) => (destination, false),
        Subject::OneCore(destination) => (destination, true),
    };
    let collector = Collector::start(Duration::from_millis(args.latency))?;
    let manners = Manners {
        latency: Duration::from_millis(args.store_latency),
        bytes_a_second: args.store_rate.map(|megabytes| megabytes * 1_000_000),
    };
    let input = store::input(bucket, (destination == Destination::S3).then_some(manners))?;
    let cost = ferry::run(destination, &input, directory, collector.address, one_core)?;
    remove(&directory.join(ferry::STATE))?;
    remove(&directory.join(ferry::OUT))?;
    Ok((cost, collector.received()))
}

fn remove(directory: &Path) -> io::Result<()> {
    if directory.exists() { fs::remove_dir_all(directory) } else { Ok(()) }
}

struct Row {
    subject: Subject,
    runs: Vec<(Cost, Received)>,
}

impl Row {
    fn new(subject: Subject) -> Self {
        Self { subject, runs: Vec::new() }
    }

    fn median(&self, value: impl Fn(&Cost) -> Duration) -> f64 {
        let mut values: Vec<Duration> = self.runs.iter().map(|(cost, _)| value(cost)).collect();
        values.sort();
        values.get(values.len() / 2).map_or(0.0, Duration::as_secs_f64)
    }

    fn wall(&self) -> f64 {
        self.median(|cost| cost.wall)
    }

    fn cpu(&self) -> f64 {
        self.median(|cost| cost.cpu)
    }

    /// The highest of all runs: a bound is no bound if it is kept on the average.
    fn peak_bytes(&self) -> u64 {
        self.runs.iter().map(|(cost, _)| cost.peak_bytes).max().unwrap_or_default()
    }

    fn received(&self) -> Received {
        self.runs.last().map_or_else(Received::default, |(_, received)| *received)
    }
}

/// What the runs cost. MB are millions of bytes as they lie in the bucket.
struct Table {
    lines: u64,
    bytes: u64,
    rows: Vec<Row>,
}

impl Table {
    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{} events, {} bytes", self.lines, self.bytes)?;
        writeln!(
            out,
            "{:<14}{:>8}{:>8}{:>10}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}{:>8}",
            "",
            "wall s",
            "CPU s",
            "MB/CPU s",
            "events/s",
            "of input",
            "of body",
            "peak RSS",
            "requests",
            "of its",
            "cores"
        )?;
        for row in &self.rows {
            self.row(row)?;
        }
        if let Some(hec) = self.find(Subject::Run(Destination::Hec)) {
            let speed = self.speed(hec);
            let judged = if speed >= HEC_TARGET { "met" } else { "MISSED" };
            writeln!(out, "Splunk HEC: {speed:.0} MB per CPU-second; at least {HEC_TARGET:.0}: {judged}")?;
        }
        Ok(())
    }

    fn row(&self, row: &Row) -> io::Result<()> {
        let received = row.received();
        let percent = |whole: u64| match received.uncompressed_bytes {
            0 => "-".to_owned(),
            _ => format!("{:.1} %", 100.0 * ratio(received.body_bytes, whole)),
        };
        let or_dash =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        // Share of the CPU that its floor takes, and how much more than one core does.
        let (of_floor, cores) = match row.subject {
            Subject::Run(destination) => (
                self.find(Subject::SameBytes(destination)).map(|floor| floor.cpu() / row.cpu()),
                self.find(Subject::OneCore(destination)).map(|one| one.wall() / row.wall()),
            ),
            _ => (None, None),
        };
        writeln!(
            io::stdout(),
            "{:<14}{:>8.2}{:>8.2}{:>10.0}{:>11.0}{:>10}{:>10}{:>7} MB{:>10}{:>10}{:>8}",
            row.subject.title(),
            row.wall(),
            row.cpu(),
            self.speed(row),
            ratio(self.lines, 1) / row.wall(),
            percent(self.bytes),
            percent(received.uncompressed_bytes),
            row.peak_bytes() / 1_000_000,
            received.requests,
            or_dash(of_floor),
            or_dash(cores),
        )
    }

    fn find(&self, subject: Subject) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject == subject)
    }

    /// Input bytes, in millions, per CPU-second.
    fn speed(&self, row: &Row) -> f64 {
        ratio(self.bytes, 1_000_000) / row.cpu()
    }
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
