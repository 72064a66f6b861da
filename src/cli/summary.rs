//! What `run --once` shows: a progress bar while it works, a table at the end.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressStyle};
use tokio::task::JoinSet;

use crate::app::App;
use crate::input::Input;
use crate::metrics::PipelineMetrics;

/// A bar over the bytes of all pipelines, until dropped.
pub(super) struct ProgressBar {
    bar: indicatif::ProgressBar,
    _task: JoinSet<()>,
}

impl ProgressBar {
    /// Starts it, if somebody can see it.
    pub(super) fn start(app: &App) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let style = ProgressStyle::with_template(
            "{spinner} {bytes} of {total_bytes} read, {msg} events shipped, {binary_bytes_per_sec}, {eta} left [{bar:30}]",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = indicatif::ProgressBar::new(0).with_style(style);
        let routes: Vec<(Arc<dyn Input>, PipelineMetrics)> =
            app.routes.iter().map(|route| (Arc::clone(&route.input), route.metrics.clone())).collect();
        let shown = bar.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let read: u64 = routes.iter().map(|(_, metrics)| metrics.bytes_fetched.get()).sum();
                let ahead: u64 = routes.iter().map(|(input, _)| input.backlog().bytes).sum();
                let events: u64 = routes.iter().map(|(_, metrics)| metrics.events_delivered.get()).sum();
                shown.set_length(read + ahead);
                shown.set_position(read);
                shown.set_message(HumanCount(events).to_string());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Some(Self { bar, _task: task })
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Prints the table to stderr: stdout may carry events.
pub(super) fn print(app: &App) -> io::Result<()> {
    let mut out = io::stderr().lock();
    writeln!(
        out,
        "{:<24} {:>9} {:>10} {:>10} {:>11} {:>11} {:>11} {:>9} {:>6}",
        "pipeline", "objects", "lines", "events", "read", "sent", "compressed", "skipped", "dead"
    )?;
    for route in &app.routes {
        let metrics = &route.metrics;
        writeln!(
            out,
            "{:<24} {:>9} {:>10} {:>10} {:>11} {:>11} {:>11} {:>9} {:>6}",
            format!("{}/{}", route.input_name, route.output_name),
            metrics.objects_read.get(),
            metrics.records_read.get(),
            metrics.events_delivered.get() + metrics.events_duplicate.get(),
            HumanBytes(metrics.bytes_read.get()).to_string(),
            HumanBytes(metrics.bytes_encoded.get()).to_string(),
            HumanBytes(metrics.bytes_sent.get()).to_string(),
            metrics.records_skipped.get(),
            metrics.dead_letters(),
        )?;
    }
    writeln!(
        out,
        "skipped: lines of overwritten objects that were shipped before; dead: see `auditferry dead-letters list`"
    )
}
