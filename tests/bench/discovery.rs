//! What finding work costs in a bucket of years: the real client against a server that makes up its listings.
//!
//! `cargo bench --bench discovery -- [--workspaces N] [--days N] [--objects N] [--polls N]`. The objects are empty, so that
//! nothing but finding and remembering them is measured. Four million, the default, take some minutes and 1 GB of disk.

#![allow(dead_code, reason = "shared with other benchmarks, which use more of it")]

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use auditferry::time::{Date, Millis};
use clap::Parser;

mod ferry;
mod service;
mod store;

use service::Service;
use store::{Asked, Body, Contents, Listed, Manners, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// So long without a request, and a pass is over.
const QUIET: Duration = Duration::from_secs(2);
/// CPU time that a poll may take.
const MOST_OF_A_POLL: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 500)]
    workspaces: u64,
    #[arg(long, default_value_t = 400)]
    days: i64,
    /// Objects of a workspace and day
    #[arg(long, default_value_t = 20)]
    objects: u64,
    /// Polls that are measured
    #[arg(long, default_value_t = 5)]
    polls: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A bucket that is nowhere.
struct MadeUp {
    workspaces: Vec<String>,
    dates: Vec<String>,
    objects: u64,
}

impl MadeUp {
    fn new(args: &Args, today: Date) -> Self {
        Self {
            workspaces: (0..args.workspaces)
                .map(|number| format!("workspaceId={}/", 7_405_611_902_334_455 + number))
                .collect(),
            dates: (1 - args.days..=0).map(|day| format!("date={}/", today.plus_days(day))).collect(),
            objects: args.objects,
        }
    }
}

impl Contents for MadeUp {
    /// Below a workspace's folder or a date's.
    fn keys<'c>(&'c self, prefix: &'c str, after: &'c str) -> Box<dyn Iterator<Item = Listed> + 'c> {
        let workspace = prefix.split_inclusive('/').next().unwrap_or_default();
        let folders = self.dates.iter().map(move |date| format!("{workspace}{date}"));
        // The last of a date's keys comes before this.
        let folders =
            folders.filter(move |folder| folder.starts_with(prefix) && format!("{folder}z").as_str() > after);
        let keys = folders.flat_map(|folder| {
            (0..self.objects).map(move |number| format!("{folder}auditlogs_{number:016x}.json"))
        });
        Box::new(keys.filter(move |key| key.as_str() > after).map(|key| Listed {
            key,
            size: 0,
            etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        }))
    }

    fn folders<'c>(&'c self, prefix: &'c str, after: &'c str) -> Box<dyn Iterator<Item = String> + 'c> {
        let names = if prefix.is_empty() { &self.workspaces } else { &self.dates };
        Box::new(
            names.iter().map(move |name| format!("{prefix}{name}")).filter(move |name| name.as_str() > after),
        )
    }

    /// Nobody has to ask for what is empty.
    fn object(&self, _key: &str) -> Option<(Listed, Body)> {
        None
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let today = Millis::new(jiff::Timestamp::now().as_millisecond()).map_or(Date::EPOCH, Millis::date);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let store = Store::start(Arc::new(MadeUp::new(&args, today)), Manners::default())?;
    let config = directory.path().join("auditferry.toml");
    let text = format!(
        "state_dir = {:?}\nserver.listen = \"none\"\n[inputs.bucket]\ntype = \"bucket\"\n{}poll_interval = \"{}s\"\n\
         [outputs.nowhere]\ntype = \"file\"\npath = {:?}\n",
        directory.path().join("state"),
        store.input(),
        POLL_INTERVAL.as_secs(),
        directory.path().join("events.ndjson"),
    );
    fs::write(&config, text)?;

    let mut command = Command::new(ferry::binary());
    command.args(["run", "--once", "--config"]).arg(&config).stdout(Stdio::null());
    let cost = ferry::measure(command)?;
    let (requests, keys) = counted(&store.asked);
    let mut out = io::stdout();
    writeln!(
        out,
        "first start, nothing known: {requests} listings, {keys} keys, {:.1} CPU s, {:.1} s, peak RSS {} MB",
        cost.cpu.as_secs_f64(),
        cost.wall.as_secs_f64(),
        cost.peak_bytes / 1_000_000,
    )?;

    let service = Service::start(&config)?;
    let all = args.workspaces * args.days.unsigned_abs() * args.objects;
    while counted(&store.asked).1 < keys + all {
        pause(QUIET);
    }
    until_quiet(&store.asked);
    let now = counted(&store.asked);
    writeln!(
        out,
        "next start, all looked at once more: {} listings, {} keys, {:.1} CPU s",
        now.0 - requests,
        now.1 - keys,
        service.cpu()?.as_secs_f64(),
    )?;
    let (mut polled, mut costs) = ((0, 0), Vec::new());
    for _ in 0..args.polls {
        let cpu = service.cpu()?;
        let asked = counted(&store.asked);
        while counted(&store.asked) == asked {
            pause(Duration::from_millis(50));
        }
        until_quiet(&store.asked);
        let now = counted(&store.asked);
        polled = (now.0 - asked.0, now.1 - asked.1);
        costs.push(service.cpu()?.saturating_sub(cpu));
    }
    costs.sort_unstable();
    let half = costs.get(costs.len() / 2).copied().unwrap_or_default();
    let met = half <= MOST_OF_A_POLL;
    writeln!(
        out,
        "a poll: {} listings, {} keys, {:.2} CPU s, half of {} polls took at most that (at most {:.0}: {})",
        polled.0,
        polled.1,
        half.as_secs_f64(),
        args.polls,
        MOST_OF_A_POLL.as_secs_f64(),
        if met { "met" } else { "MISSED" },
    )?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Listings and keys so far.
fn counted(asked: &Asked) -> (u64, u64) {
    (asked.listings.load(Ordering::Relaxed), asked.keys.load(Ordering::Relaxed))
}

/// Waits until nothing was asked for some time.
fn until_quiet(asked: &Asked) {
    loop {
        let before = counted(asked);
        pause(QUIET);
        if before.0 > 0 && counted(asked) == before {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "waits on a thread of its own, for another process")]
fn pause(time: Duration) {
    thread::sleep(time);
}
