//! Runs the binary as a service would, until it is dropped.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::ferry;

/// What the kernel counts a process's time in.
const TICK: Duration = Duration::from_millis(10);

/// A running `auditferry run`.
pub(crate) struct Service(Child);

impl Service {
    /// Starts it; the log lies beside the configuration.
    pub(crate) fn start(config: &Path) -> io::Result<Self> {
        let mut command = Command::new(ferry::binary());
        command.args(["run", "--config"]).arg(config).stdout(Stdio::null());
        command.stderr(File::create(config.with_extension("log"))?).spawn().map(Self)
    }

    /// User and system time of all its threads so far.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, which may hold blanks, ends with the last parenthesis; the times are the 12th and 13th word behind it.
        let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u32 = words.skip(11).take(2).filter_map(|word| word.parse::<u32>().ok()).sum();
        Ok(TICK * ticks)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself: then the figures tell.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
