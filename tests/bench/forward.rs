//! How much CPU it takes to forward audit logs: the release binary, a local bucket, and a collector that takes all.
//!
//! `cargo bench --bench forward -- [--megabytes N] [--only hec]`

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use auditferry::generate::{Bucket, Options};
use auditferry::time::Date;
use clap::{Parser, ValueEnum};

mod collector;
mod ferry;
mod floor;

use collector::{Collector, Received};
use ferry::{Cost, Destination};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a generated line, on the average.
const LINE_BYTES: u64 = 1040;
/// Input bytes, in millions, that a CPU-second has to be enough for on the way to Splunk.
const HEC_TARGET: f64 = 100.0;

#[derive(Parser)]
struct Args {
    /// Size of the bucket
    #[arg(long, default_value_t = 300)]
    megabytes: u64,
    /// Run these only
    #[arg(long, value_delimiter = ',')]
    only: Vec<Destination>,
    /// Do the least that any forwarder has to do with this bucket, and nothing else (the benchmark starts itself so)
    #[arg(long, hide = true)]
    floor: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(bucket) = args.floor {
        return floor::walk(&bucket);
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bucket = directory.path().join("bucket");
    let options = Options {
        objects_per_day: Some(4),
        ..Options::new(
            10,
            1,
            args.megabytes * 1_000_000 / LINE_BYTES,
            Date::parse("2026-01-31").ok_or("date")?,
        )
    };
    let input = Bucket::new(options)?.write_round(&bucket, 0)?;
    let mut table = Table { lines: input.lines, bytes: input.bytes, floor: None };
    table.head()?;
    table.row("floor", &floor::run(&bucket)?, Received::default())?;
    let mut hec = None;
    for destination in Destination::value_variants() {
        if args.only.is_empty() || args.only.contains(destination) {
            let collector = Collector::start()?;
            let cost = ferry::run(*destination, &bucket, directory.path(), collector.address)?;
            table.row(destination.title(), &cost, collector.received())?;
            if *destination == Destination::Hec {
                hec = Some(table.speed(&cost));
            }
            remove(&directory.path().join(ferry::STATE))?;
            remove(&directory.path().join(ferry::OUT))?;
        }
    }
    if let Some(speed) = hec {
        let judged = if speed >= HEC_TARGET { "met" } else { "MISSED" };
        writeln!(
            io::stdout(),
            "Splunk HEC: {speed:.0} MB per CPU-second; at least {HEC_TARGET:.0}: {judged}"
        )?;
    }
    Ok(())
}

fn remove(directory: &Path) -> io::Result<()> {
    if directory.exists() { fs::remove_dir_all(directory) } else { Ok(()) }
}

/// Prints what the runs cost. MB are millions of bytes as they lie in the bucket.
struct Table {
    lines: u64,
    bytes: u64,
    /// CPU seconds of the floor.
    floor: Option<f64>,
}

impl Table {
    fn head(&self) -> io::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{} events, {} bytes", self.lines, self.bytes)?;
        writeln!(
            out,
            "{:<14}{:>8}{:>8}{:>12}{:>11}{:>13}{:>12}{:>10}{:>9}",
            "", "wall s", "CPU s", "MB/CPU s", "events/s", "compressed", "peak RSS", "requests", "× floor"
        )
    }

    fn row(&mut self, title: &str, cost: &Cost, received: Received) -> io::Result<()> {
        let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
        let floor = *self.floor.get_or_insert(cpu);
        let compressed = match received.uncompressed_bytes {
            0 => "-".to_owned(),
            whole => format!("{:.1} %", 100.0 * ratio(received.body_bytes, whole)),
        };
        let mut out = io::stdout();
        writeln!(
            out,
            "{title:<14}{wall:>8.2}{cpu:>8.2}{:>12.0}{:>11.0}{compressed:>13}{:>9} MB{:>10}{:>9.2}",
            self.speed(cost),
            ratio(self.lines, 1) / wall,
            cost.peak_bytes / 1_000_000,
            received.requests,
            cpu / floor,
        )?;
        out.flush()
    }

    /// Input bytes, in millions, per CPU-second.
    fn speed(&self, cost: &Cost) -> f64 {
        ratio(self.bytes, 1_000_000) / cost.cpu.as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
