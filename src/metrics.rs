//! Every metric family, once. Only the engine and the server touch them.
//!
//! Labels are `input` and `output`; `workspace` only where the number of workspaces is bounded by
//! [`MAX_WORKSPACES`]. Names end in their unit, counters in `_total`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{Encoder, Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::output::{HoldReason, Verdict};
use crate::time::Millis;

mod families;

use families::{Families, RELOADS};

/// Most values of the `workspace` label per pipeline; further workspaces share `other`.
pub const MAX_WORKSPACES: usize = 200;

/// The families of a process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
}

/// The counters of one pipeline.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    /// Records handed over by the input.
    pub records_read: IntCounter,
    /// Their bytes.
    pub bytes_read: IntCounter,
    /// Bytes fetched from the store.
    pub bytes_fetched: IntCounter,
    /// Records recognised as shipped before.
    pub records_skipped: IntCounter,
    /// Records met a second time, by another way of the same input.
    pub records_duplicate: IntCounter,
    /// Versions of objects read to their end.
    pub objects_read: IntCounter,
    /// Secrets taken out of events.
    pub redactions: IntCounter,
    /// Events that another input has sent to the same output.
    pub overlaps: IntCounter,
    /// Objects whose shipped part had changed.
    pub prefix_mismatch: IntCounter,
    /// Failed reads of the store or of an object.
    pub input_errors: IntCounter,
    /// Events a collector accepted.
    pub events_delivered: IntCounter,
    /// Events a collector had already.
    pub events_duplicate: IntCounter,
    /// Seconds of a request.
    pub request_duration: Histogram,
    /// Requests sent again.
    pub retries: IntCounter,
    /// Events sent again although the collector may have them.
    pub ambiguous_resends: IntCounter,
    /// Requests accepted that wait for their acknowledgement.
    pub acks_pending: IntGauge,
    /// Requests that may be under way at once just now.
    pub requests_limit: IntGauge,
    /// Compressed bytes accepted.
    pub bytes_sent: IntCounter,
    /// The same before compression.
    pub bytes_encoded: IntCounter,
    /// Durable commits of positions.
    pub commits: IntCounter,
    /// Age of the oldest chunk that is read and not committed.
    pub oldest_unacknowledged: Gauge,
    /// Bytes read and not committed.
    pub bytes_uncommitted: IntGauge,
    /// Objects being read or waiting for their acknowledgement.
    pub objects_open: IntGauge,
    labels: [String; 2],
    families: Arc<Families>,
    workspaces: Arc<Mutex<HashMap<String, WorkspaceGauges>>>,
}

/// What is shown of a workspace.
#[derive(Debug)]
struct WorkspaceGauges {
    lag_seconds: Gauge,
    newest_event: Gauge,
}

impl Metrics {
    /// All families, registered, with the process's own.
    ///
    /// # Errors
    /// [`prometheus::Error`] if a name is registered twice: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let build = IntGaugeVec::new(
            Opts::new("auditferry_build_info", "Version of this process; always 1."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self { registry, families: Arc::new(families) })
    }

    /// The counters of a pipeline, all of them visible at once with their zero.
    pub fn pipeline(&self, input: &str, output: &str) -> PipelineMetrics {
        let labels = [input, output];
        let families = &self.families;
        for reason in HoldReason::ALL {
            families.hold.with_label_values(&[input, output, reason.as_str()]);
        }
        for verdict in Verdict::LABELS {
            families.requests.with_label_values(&[input, output, verdict]);
        }
        PipelineMetrics {
            records_read: families.records_read.with_label_values(&labels),
            bytes_read: families.bytes_read.with_label_values(&labels),
            bytes_fetched: families.bytes_fetched.with_label_values(&labels),
            records_skipped: families.records_skipped.with_label_values(&labels),
            records_duplicate: families.records_duplicate.with_label_values(&labels),
            objects_read: families.objects_read.with_label_values(&labels),
            redactions: families.redactions.with_label_values(&labels),
            overlaps: families.overlaps.with_label_values(&labels),
            prefix_mismatch: families.prefix_mismatch.with_label_values(&labels),
            input_errors: families.input_errors.with_label_values(&labels),
            events_delivered: families.events_delivered.with_label_values(&labels),
            events_duplicate: families.events_duplicate.with_label_values(&labels),
            request_duration: families.request_duration.with_label_values(&labels),
            retries: families.retries.with_label_values(&labels),
            ambiguous_resends: families.ambiguous_resends.with_label_values(&labels),
            acks_pending: families.acks_pending.with_label_values(&labels),
            requests_limit: families.requests_limit.with_label_values(&labels),
            bytes_sent: families.bytes_sent.with_label_values(&labels),
            bytes_encoded: families.bytes_encoded.with_label_values(&labels),
            commits: families.commits.with_label_values(&labels),
            oldest_unacknowledged: families.oldest_unacknowledged.with_label_values(&labels),
            bytes_uncommitted: families.bytes_uncommitted.with_label_values(&labels),
            objects_open: families.objects_open.with_label_values(&labels),
            labels: labels.map(str::to_owned),
            families: Arc::clone(families),
            workspaces: Arc::default(),
        }
    }

    /// Sets the room of the disk that holds the state, in bytes.
    pub fn state_disk(&self, available: u64, size: u64) {
        self.families.state_disk_available.set(i64::try_from(available).unwrap_or(i64::MAX));
        self.families.state_disk_size.set(i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// Counts a reload of the configuration.
    pub fn reload(&self, taken: bool) {
        let [ok, refused] = RELOADS;
        self.families.reloads.with_label_values(&[if taken { ok } else { refused }]).inc();
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// [`prometheus::Error`] if the text cannot be written.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

impl PipelineMetrics {
    /// Counts a request by its verdict.
    pub fn request(&self, verdict: &Verdict) {
        let [input, output] = &self.labels;
        self.families.requests.with_label_values(&[input, output, verdict.label()]).inc();
    }

    /// Counts dead letters by reason. Reasons come from our own code, so the label is bounded.
    pub fn dead_letter(&self, reason: &str) {
        let [input, output] = &self.labels;
        self.families.dead_letters.with_label_values(&[input, output, reason]).inc();
    }

    /// Dead letters of all reasons.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters_by_reason().into_iter().map(|(_, count)| count).sum()
    }

    /// Dead letters, `(reason, how many)`.
    pub fn dead_letters_by_reason(&self) -> Vec<(String, u64)> {
        let [input, output] = &self.labels;
        let label = |metric: &prometheus::proto::Metric, name| {
            metric.get_label().iter().find(|pair| pair.name() == name).map(|pair| pair.value().to_owned())
        };
        let families = self.families.dead_letters.collect();
        let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a counter of whole things
        metrics
            .filter(|metric| label(metric, "input").as_ref() == Some(input))
            .filter(|metric| label(metric, "output").as_ref() == Some(output))
            .filter_map(|metric| Some((label(metric, "reason")?, metric.get_counter().get_value() as u64)))
            .collect()
    }

    /// Sets what tells of the moment to nothing: for a pipeline that starts where another of its name has ended.
    pub fn rest(&self) {
        for reason in HoldReason::ALL {
            self.hold(reason, false);
        }
        self.acks_pending.set(0);
        self.oldest_unacknowledged.set(0.0);
        self.bytes_uncommitted.set(0);
        self.objects_open.set(0);
    }

    /// Takes the pipeline out of what is scraped: it is configured no more, and alerts on it would never end.
    pub fn forget(&self) {
        let [input, output] = &self.labels;
        self.families.registered.forget(input, output);
    }

    /// Shows or clears a hold.
    pub fn hold(&self, reason: HoldReason, held: bool) {
        let [input, output] = &self.labels;
        self.families.hold.with_label_values(&[input, output, reason.as_str()]).set(i64::from(held));
    }

    /// Sets how far behind a workspace was when an event of this time was committed.
    #[allow(clippy::cast_precision_loss)] // milliseconds of this era are exact
    pub fn committed_event(&self, workspace: &str, time: Millis, now: Millis) {
        let mut known = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace =
            if known.contains_key(workspace) || known.len() < MAX_WORKSPACES { workspace } else { "other" };
        let [input, output] = &self.labels;
        let gauges = known.entry(workspace.to_owned()).or_insert_with(|| WorkspaceGauges {
            lag_seconds: self.families.input_lag.with_label_values(&[input, output, workspace]),
            newest_event: self.families.newest_event.with_label_values(&[input, output, workspace]),
        });
        // The clocks of where events are made and of this machine are never the same.
        gauges.lag_seconds.set((now.get() - time.get()).max(0) as f64 / 1000.0);
        // One of the year 9999 would stand here for ever, and tell that all is well when nothing comes any more.
        let seconds = time.get().min(now.get()) as f64 / 1000.0;
        if seconds > gauges.newest_event.get() {
            gauges.newest_event.set(seconds);
        }
    }

    /// The lags by workspace, in seconds.
    pub fn lags(&self) -> Vec<(String, f64)> {
        let known = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lags: Vec<_> =
            known.iter().map(|(workspace, gauges)| (workspace.clone(), gauges.lag_seconds.get())).collect();
        lags.sort_by(|a, b| a.0.cmp(&b.0));
        lags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_ahead_of_this_clock_lags_by_nothing() {
        let metrics = Metrics::new().unwrap();
        let pipeline = metrics.pipeline("in", "out");
        let now = Millis::parse("2026-01-06T10:00:00Z").unwrap();
        pipeline.committed_event("7", now.minus(std::time::Duration::from_secs(2)), now);
        pipeline.committed_event("8", now.plus(std::time::Duration::from_secs(7566)), now);
        assert_eq!(pipeline.lags(), [("7".to_owned(), 2.0), ("8".to_owned(), 0.0)]);
        assert!(metrics.render().unwrap().contains("workspace=\"8\"} 0\n"));
    }

    #[test]
    fn an_event_of_the_far_future_does_not_stay_the_newest() {
        let metrics = Metrics::new().unwrap();
        let pipeline = metrics.pipeline("in", "out");
        let day = std::time::Duration::from_secs(86_400);
        let now = Millis::new(86_400_000).unwrap();
        pipeline.committed_event("7", Millis::parse("9999-01-01T00:00:00Z").unwrap(), now);
        pipeline.committed_event("7", now.plus(day), now.plus(day));
        let text = metrics.render().unwrap();
        assert!(
            text.contains(
                "newest_event_timestamp_seconds{input=\"in\",output=\"out\",workspace=\"7\"} 172800\n"
            ),
            "{text}"
        );
    }
}
