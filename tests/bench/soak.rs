//! Everything at once, for as long as one likes: objects that grow and are rewritten behind an S3 server that fails, three
//! collectors that fail, and a process that is killed again and again. In the end both sides are compared, line by line.
//!
//! `cargo bench --bench soak -- [--minutes 20] [--seed N]`. No part of a plain `cargo bench`. Ends with 1 where a line is
//! missing, or came twice for no reason.
//!
//! ```text
//!   writer ──► S3 server ──► auditferry ──► HEC, Sumo, _bulk ──► ledger: each line of the writer, how often, and why
//!              fails 0 to 1/3   kill -9, TERM   503, 429, hang up, garbage, late, gone for seconds
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use fastrand::Rng;
use tokio::time::Instant;
use wait4::Wait4;

#[path = "../it/support/collector/request.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "shared with the tests, where a surprise is a failure"
)]
mod collector;
#[path = "soak/collectors.rs"]
mod collectors;
#[path = "soak/ledger.rs"]
mod ledger;
#[path = "../it/support/store.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, where a surprise is a failure"
)]
mod store;
#[path = "soak/writer.rs"]
mod writer;

use collectors::{Faulty, Protocol};
use ledger::Audit;
use store::Store;
use writer::Writer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Between two changes to the bucket.
const TICK: Duration = Duration::from_millis(250);
/// How long the end may take: everything that is under way, after the last fault.
const PATIENCE: Duration = Duration::from_secs(300);
/// `memory` of the process: what may come twice after a kill.
const MEMORY_BYTES: u64 = 4 << 20;

#[derive(Parser)]
struct Args {
    /// How long faults are made
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// What happens when; another one each time without it
    #[arg(long)]
    seed: Option<u64>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(soak(Duration::from_secs(args.minutes * 60), seed))
}

async fn soak(length: Duration, seed: u64) -> Result<ExitCode> {
    writeln!(io::stdout(), "seed {seed}, {} minutes", length.as_secs() / 60)?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut rng = Rng::with_seed(seed);
    let store = Store::start().await;
    let mut writer = Writer::new(Rng::with_seed(rng.u64(..)))?;
    let mut collectors = Vec::new();
    for protocol in [Protocol::Hec, Protocol::Sumo, Protocol::Bulk] {
        collectors.push(Faulty::start(protocol, rng.u64(..)).await?);
    }
    configure(directory.path(), &store, &collectors)?;
    let mut ferry = Ferry::default();
    ferry.start(directory.path())?;
    let start = Instant::now();
    let mut next_end = start + Duration::from_secs(20);
    let mut told = start;
    while start.elapsed() < length {
        writer.write(&store)?;
        if rng.u32(..40) == 0 {
            store.fail_one_of(*[0, 20, 10, 3].get(rng.usize(..4)).unwrap_or(&0));
        }
        if rng.u32(..80) == 0 {
            let down = Duration::from_millis(rng.u64(500..6000));
            if let Some(collector) = collectors.get(rng.usize(..collectors.len())) {
                collector.go_away_for(down);
            }
        }
        if Instant::now() >= next_end {
            next_end = Instant::now() + Duration::from_secs(rng.u64(10..50));
            let gently = rng.u32(..5) == 0;
            ferry.end(gently)?;
            for collector in &collectors {
                collector.note_end(gently);
            }
            ferry.start(directory.path())?;
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            let arrived: Vec<String> = collectors.iter().map(|one| one.count().to_string()).collect();
            let minutes = start.elapsed().as_secs() / 60;
            writeln!(
                io::stdout(),
                "{minutes} min: {} lines, arrived {}",
                writer.count(),
                arrived.join(", ")
            )?;
        }
        tokio::time::sleep(TICK).await;
    }
    store.fail_one_of(0);
    collectors.iter().for_each(Faulty::behave);
    let rest = Instant::now();
    while collectors.iter().any(|collector| collector.count() < writer.count()) && rest.elapsed() < PATIENCE {
        ferry.alive()?;
        tokio::time::sleep(TICK).await;
    }
    // What comes twice, comes late.
    tokio::time::sleep(Duration::from_secs(5)).await;
    ferry.end(true)?;
    report(&writer, &store, &collectors, &ferry, directory.path())
}

fn configure(directory: &Path, store: &Store, collectors: &[Faulty]) -> Result<()> {
    let outputs: Vec<String> = collectors.iter().map(Faulty::output).collect();
    let text = format!(
        "state_dir = {:?}\nmemory = \"{}MiB\"\nserver.listen = \"none\"\n[inputs.audit]\ntype = \"bucket\"\n\
         url = \"s3://audit/logs\"\npoll_interval = \"1s\"\nlayout = \"databricks_delivery\"\n\
         s3 = {{ endpoint = {:?}, allow_http = true, anonymous = true }}\n{}",
        directory.join("state"),
        MEMORY_BYTES >> 20,
        store.url(),
        outputs.concat()
    );
    Ok(fs::write(directory.join("auditferry.toml"), text)?)
}

/// The process, again and again.
#[derive(Default)]
struct Ferry {
    running: Option<Child>,
    kills: u32,
    stops: u32,
    peak_bytes: u64,
    cpu: Duration,
}

impl Ferry {
    fn start(&mut self, directory: &Path) -> Result<()> {
        let log = File::options().create(true).append(true).open(directory.join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_auditferry"))
            .args(["run", "--config", "auditferry.toml"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.running = Some(child);
        Ok(())
    }

    /// Fails where it has ended of itself.
    fn alive(&mut self) -> Result<()> {
        match self.running.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => Ok(()),
            ended => Err(format!("it ended by itself: {ended:?}").into()),
        }
    }

    /// With SIGTERM, or at once.
    fn end(&mut self, gently: bool) -> Result<()> {
        self.alive()?;
        let Some(mut child) = self.running.take() else { return Ok(()) };
        // Not the kernel's peak of a child, which begins with that of its parent.
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok());
        self.peak_bytes = self.peak_bytes.max(peak.map_or(0, |kilobytes: u64| kilobytes * 1024));
        if gently {
            self.stops += 1;
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        } else {
            self.kills += 1;
            child.kill()?;
        }
        let cost = child.wait4()?.rusage;
        self.cpu += cost.utime + cost.stime;
        Ok(())
    }
}

impl Drop for Ferry {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn report(
    writer: &Writer,
    store: &Store,
    collectors: &[Faulty],
    ferry: &Ferry,
    directory: &Path,
) -> Result<ExitCode> {
    let mut out = io::stdout();
    writeln!(
        out,
        "{} lines in {} objects, written in {} versions; {} kills, {} stops; {} kinds of faults of the store; peak RSS {} MB, \
         {:.0} CPU s",
        writer.count(),
        writer.objects(),
        writer.versions(),
        ferry.kills,
        ferry.stops,
        store.kinds_of_faults(),
        ferry.peak_bytes / 1_000_000,
        ferry.cpu.as_secs_f64()
    )?;
    let mut good = true;
    for collector in collectors {
        let (audit, faults) = (collector.audit(writer.ids()), collector.faults());
        let Audit { arrived, missing, unknown, after_ambiguous, after_kill, unexplained } = audit;
        writeln!(
            out,
            "{}: {arrived} arrived, {missing} missing, {unknown} unknown; again after an answer that was lost: {after_ambiguous}, \
             after a kill: {after_kill}, for no reason: {unexplained}; faults: {}",
            collector.name(),
            listed(&faults)
        )?;
        good &= missing == 0 && unknown == 0 && unexplained == 0;
    }
    let dead = fs::read_dir(directory.join("state/dead-letters")).map_or(0, Iterator::count);
    writeln!(
        out,
        "{dead} files of dead letters; {}",
        if good && dead == 0 { "as promised" } else { "NOT AS PROMISED" }
    )?;
    if good && dead == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let kept = std::env::temp_dir().join("auditferry-soak.log");
    fs::copy(directory.join("log"), &kept)?;
    writeln!(out, "its log is {}", kept.display())?;
    Ok(ExitCode::FAILURE)
}

fn listed(faults: &BTreeMap<&'static str, u64>) -> String {
    faults.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}
