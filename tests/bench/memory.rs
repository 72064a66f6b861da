//! How much memory it takes, where the bucket is large: one object of gigabytes, and very many small ones.
//!
//! `cargo bench --bench memory -- [--gigabytes N] [--objects N] [--to hec]`. It needs that much room below the target directory,
//! takes some minutes, and is therefore no part of a plain `cargo bench`. Ends with 1 where a run needs too much.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use auditferry::generate::{Bucket, Options};
use auditferry::time::Date;
use clap::Parser;

mod collector;
mod ferry;
#[allow(dead_code, reason = "shared with other benchmarks, which use more of it")]
mod store;

use collector::Collector;
use ferry::Destination;
use store::Manners;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a generated line, on the average.
const LINE_BYTES: u64 = 1040;
/// Memory that no run may need more of.
const MOST_BYTES: u64 = 150_000_000;
/// Objects of one workspace and day, where there are many.
const OBJECTS_PER_DAY: u32 = 1000;

#[derive(Parser)]
struct Args {
    /// Size of the one object
    #[arg(long, default_value_t = 5)]
    gigabytes: u64,
    /// Number of the many objects
    #[arg(long, default_value_t = 100_000)]
    objects: u32,
    /// Where to ship to
    #[arg(long, default_value = "hec")]
    to: Destination,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let date = Date::parse("2026-01-31").ok_or("date")?;
    let one = Options {
        objects_per_day: Some(1),
        ..Options::new(1, 1, args.gigabytes * 1_000_000_000 / LINE_BYTES, date)
    };
    let days = args.objects.div_ceil(OBJECTS_PER_DAY);
    let many = Options {
        objects_per_day: Some(OBJECTS_PER_DAY),
        ..Options::new(1, days, u64::from(days * OBJECTS_PER_DAY) * 2, date)
    };
    let fits = [run("one object", one, args.to)?, run("many objects", many, args.to)?];
    Ok(if fits == [true, true] { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes a bucket, ships it, and tells whether that took little enough memory.
fn run(title: &str, options: Options, destination: Destination) -> Result<bool> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bucket = directory.path().join("bucket");
    let written = Bucket::new(options)?.write_round(&bucket, 0)?;
    let collector = Collector::start(Duration::ZERO)?;
    let manners = (destination == Destination::S3).then(Manners::default);
    let input = store::input(&bucket, manners)?;
    let cost = ferry::run(destination, &input, directory.path(), collector.address, false)?;
    let fits = cost.peak_bytes <= MOST_BYTES;
    writeln!(
        io::stdout(),
        "{title} to {}: {} objects, {} MB: peak RSS {} MB (at most {}: {}), {:.1} s, {:.1} CPU s, {} requests",
        destination.title(),
        written.objects,
        written.bytes / 1_000_000,
        cost.peak_bytes / 1_000_000,
        MOST_BYTES / 1_000_000,
        if fits { "met" } else { "MISSED" },
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        collector.received().requests,
    )?;
    Ok(fits)
}
