//! Runs the binary as a user would, and tells what the process cost.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use wait4::Wait4;

use super::Result;

/// Directory of the state, below the working directory.
pub(crate) const STATE: &str = "state";
/// Directory that the file output writes to, below the working directory.
pub(crate) const OUT: &str = "out";

/// How often the peak of the memory is read. It never falls, so that only what a process takes in its very last
/// moments is missed.
const PEAK_INTERVAL: Duration = Duration::from_millis(10);

/// Where to ship to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Destination {
    Hec,
    /// With zstd, the default there.
    Sumo,
    SumoGzip,
    Bulk,
    File,
    /// To Splunk, and read from a server that speaks S3.
    S3,
}

impl Destination {
    /// Its name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Hec => "Splunk HEC",
            Self::Sumo => "Sumo, zstd",
            Self::SumoGzip => "Sumo, gzip",
            Self::Bulk => "Elastic _bulk",
            Self::File => "file",
            Self::S3 => "S3 to Splunk",
        }
    }

    fn output(self, collector: SocketAddr, directory: &Path) -> String {
        match self {
            Self::Hec | Self::S3 => {
                format!("type = \"splunk_hec\"\nurl = \"http://{collector}\"\ntoken = \"benchmark\"")
            }
            Self::Sumo => format!("type = \"sumo\"\nurl = \"http://{collector}/receiver/v1/http/benchmark\""),
            Self::SumoGzip => format!("{}\ncompression = \"gzip\"", Self::Sumo.output(collector, directory)),
            Self::Bulk => format!("type = \"elastic\"\nurl = \"http://{collector}\"\nindex = \"audit\""),
            Self::File => format!("type = \"file\"\npath = {:?}", directory.join(OUT).join("events.ndjson")),
        }
    }
}

/// The binary that was built with the benchmark, or another to compare it with.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("AUDITFERRY_BENCH_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_auditferry").into(), PathBuf::from)
}

/// What a process cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time of all its threads.
    pub(crate) cpu: Duration,
    /// The most memory it held at once.
    pub(crate) peak_bytes: u64,
}

/// Ships a bucket from its beginning; `input` is the part of the input's table that says where it is. State and log lie in
/// `directory`.
pub(crate) fn run(
    destination: Destination,
    input: &str,
    directory: &Path,
    collector: SocketAddr,
    one_core: bool,
) -> Result<Cost> {
    let (config, log) = (directory.join("auditferry.toml"), directory.join("log"));
    let text = format!(
        "state_dir = {:?}\n[inputs.bucket]\ntype = \"bucket\"\n{input}layout = \"databricks_delivery\"\n\
         [outputs.collector]\n{}\n",
        directory.join(STATE),
        destination.output(collector, directory),
    );
    fs::write(&config, text)?;
    let binary = binary();
    let mut command = match one_core {
        true => Command::new("taskset"),
        false => Command::new(&binary),
    };
    if one_core {
        command.args(["-c", "0"]).arg(&binary);
    }
    command.args(["run", "--once", "--config"]).arg(&config);
    command.stdout(Stdio::null()).stderr(File::create(&log)?);
    measure(command)
        .map_err(|error| format!("{error}\n{}", fs::read_to_string(&log).unwrap_or_default()).into())
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn measure(command: Command) -> Result<Cost> {
    let shown = format!("{command:?}");
    let (cost, code) = measure_any(command)?;
    if code != Some(0) {
        return Err(format!("{shown} ended with {code:?}").into());
    }
    Ok(cost)
}

/// Runs a command to its end, whatever that is; its exit code besides.
pub(crate) fn measure_any(mut command: Command) -> Result<(Cost, Option<i32>)> {
    let started = Instant::now();
    let mut child = command.spawn()?;
    let (used, sampled) = wait(&mut child)?;
    let usage = used.rusage;
    let cost = Cost {
        wall: started.elapsed(),
        cpu: usage.utime + usage.stime,
        peak_bytes: sampled.unwrap_or(usage.maxrss),
    };
    Ok((cost, used.status.code()))
}

/// Waits for the process while a thread reads its peak: the one that the kernel reports in the end counts what this
/// process held when it started the other.
fn wait(child: &mut Child) -> io::Result<(wait4::ResUse, Option<u64>)> {
    let status = format!("/proc/{}/status", child.id());
    let (ended, running) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let sampler = scope.spawn(move || {
            let mut peak = None;
            while running.recv_timeout(PEAK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                peak = fs::read_to_string(&status).ok().as_deref().and_then(high_water).or(peak);
            }
            peak
        });
        let used = child.wait4();
        drop(ended);
        Ok((used?, sampler.join().unwrap_or_default()))
    })
}

/// The line `VmHWM:   12345 kB` of a process's status.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
