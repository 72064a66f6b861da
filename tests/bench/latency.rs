//! How long a line takes from the bucket to the collector, when nothing else is to be done.
//!
//! `cargo bench --bench latency -- [--events N] [--only directory,defaults,s3]`

#![allow(dead_code, reason = "shared with other benchmarks, which use more of it")]

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use auditferry::generate::{Bucket, Options};
use auditferry::time::{Date, Millis};
use clap::{Parser, ValueEnum};
use tokio::time::Instant;

mod collector;
mod ferry;
mod service;
mod store;

use collector::Collector;
use service::Service;
use store::{Manners, Objects, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Longest wait for a line; more than any takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between a request and the next line, at least: so long that nothing is under way any more.
const IDLE: Duration = Duration::from_millis(150);

#[derive(Parser)]
struct Args {
    /// Lines that are timed, of each kind
    #[arg(long, default_value_t = 200)]
    events: usize,
    /// Run these only
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is read, and how it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A local directory, batches sent soon.
    Directory,
    /// The same with the defaults.
    Defaults,
    /// A store that speaks S3, listed once a second, batches sent soon.
    S3,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Directory => "directory, batch.max_age 5ms",
            Self::Defaults => "directory, defaults",
            Self::S3 => "S3 polled each 1s, batch.max_age 5ms",
        }
    }

    /// Further keys of the input and of the output.
    fn settings(self) -> (&'static str, &'static str) {
        match self {
            Self::Directory => ("", "batch.max_age = \"5ms\"\n"),
            Self::Defaults => ("", ""),
            Self::S3 => ("poll_interval = \"1s\"\n", "batch.max_age = \"5ms\"\n"),
        }
    }

    /// Longest that 95 of 100 may take.
    fn most(self) -> Option<Duration> {
        match self {
            Self::Directory => Some(Duration::from_millis(50)),
            Self::Defaults => None,
            // A poll, and a second.
            Self::S3 => Some(Duration::from_secs(2)),
        }
    }
}

/// The object that grows.
enum Growing {
    File(std::path::PathBuf),
    Stored(Arc<Objects>, String, Vec<u8>),
}

impl Growing {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let line = [line, b"\n"].concat();
        match self {
            Self::File(path) => OpenOptions::new().append(true).create(true).open(path)?.write_all(&line),
            Self::Stored(objects, key, content) => {
                content.extend_from_slice(&line);
                objects.put(key, content);
                Ok(())
            }
        }
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut met = true;
    for kind in Kind::value_variants() {
        if args.only.is_empty() || args.only.contains(kind) {
            met &= run(*kind, args.events)?;
        }
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::disallowed_methods, reason = "waits on a thread of its own, for another process")]
fn run(kind: Kind, events: usize) -> Result<bool> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let today = Millis::new(jiff::Timestamp::now().as_millisecond()).map_or(Date::EPOCH, Millis::date);
    let key = format!("workspaceId=7/date={today}/auditlogs_1.json");
    let (mut object, input) = growing(kind, directory.path(), &key)?;
    let (arrived, arrivals) = mpsc::channel();
    let collector = Collector::telling(Duration::ZERO, arrived)?;
    let (of_input, of_output) = kind.settings();
    let config = directory.path().join("auditferry.toml");
    let text = format!(
        "state_dir = {:?}\nserver.listen = \"none\"\n[inputs.bucket]\ntype = \"bucket\"\n{input}{of_input}\
         [outputs.splunk]\ntype = \"splunk_hec\"\nurl = \"http://{}\"\ntoken = \"benchmark\"\n{of_output}",
        directory.path().join("state"),
        collector.address,
    );
    fs::write(&config, text)?;
    let service = Service::start(&config)?;
    let lines = Bucket::new(Options::new(3, 1, u64::try_from(events + 1)?, today))?;
    let mut times = Vec::with_capacity(events);
    for (number, line) in lines.lines().enumerate().take(events + 1) {
        let begun = Instant::now();
        object.append(&line)?;
        let arrival = arrivals.recv_timeout(PATIENCE).map_err(|_| {
            let log = fs::read_to_string(config.with_extension("log")).unwrap_or_default();
            format!("line {number} did not come\n{log}")
        })?;
        // The first shows that it has started.
        if number > 0 {
            times.push(arrival - begun);
        }
        // At any moment of the time between two polls.
        let spread = u64::try_from(number * 37 % 100)? * if kind == Kind::S3 { 10 } else { 1 };
        thread::sleep(IDLE + Duration::from_millis(spread));
    }
    drop(service);
    let (half, most, longest) = (within(50, &mut times), within(95, &mut times), within(99, &mut times));
    let judged = kind.most().map(|allowed| (allowed, most <= allowed));
    let word = judged.map_or(String::new(), |(allowed, met)| {
        format!(" (at most {allowed:?}: {})", if met { "met" } else { "MISSED" })
    });
    writeln!(
        io::stdout(),
        "{}: {} lines, half within {half:.1?}, 95 of 100 within {most:.1?}{word}, 99 within {longest:.1?}",
        kind.title(),
        times.len(),
    )?;
    Ok(judged.is_none_or(|(_, met)| met))
}

/// The object, and the part of the input's table that says where it is.
fn growing(kind: Kind, directory: &Path, key: &str) -> Result<(Growing, String)> {
    if kind == Kind::S3 {
        let objects = Arc::<Objects>::default();
        let contents = Arc::clone(&objects) as Arc<dyn store::Contents>;
        let input = Store::start(contents, Manners::default())?.input();
        return Ok((Growing::Stored(objects, key.to_owned(), Vec::new()), input));
    }
    let bucket = directory.join("bucket");
    let path = bucket.join(key);
    fs::create_dir_all(path.parent().ok_or("parent")?)?;
    Ok((Growing::File(path), store::input(&bucket, None)?))
}

/// What so many of 100 are within; sorts them.
fn within(percent: usize, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() * percent / 100).copied().unwrap_or_default()
}
