//! The families: their names, what they say of themselves, and their labels.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const PIPELINE: [&str; 2] = ["input", "output"];
/// Values of the label `result` of reloads.
pub(super) const RELOADS: [&str; 2] = ["ok", "refused"];

#[derive(Debug)]
pub(super) struct Families {
    pub(super) records_read: IntCounterVec,
    pub(super) bytes_read: IntCounterVec,
    pub(super) bytes_fetched: IntCounterVec,
    pub(super) records_skipped: IntCounterVec,
    pub(super) records_duplicate: IntCounterVec,
    pub(super) objects_read: IntCounterVec,
    pub(super) redactions: IntCounterVec,
    pub(super) overlaps: IntCounterVec,
    pub(super) prefix_mismatch: IntCounterVec,
    pub(super) input_errors: IntCounterVec,
    pub(super) events_delivered: IntCounterVec,
    pub(super) events_duplicate: IntCounterVec,
    pub(super) dead_letters: IntCounterVec,
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) retries: IntCounterVec,
    pub(super) ambiguous_resends: IntCounterVec,
    pub(super) acks_pending: IntGaugeVec,
    pub(super) requests_limit: IntGaugeVec,
    pub(super) bytes_sent: IntCounterVec,
    pub(super) bytes_encoded: IntCounterVec,
    pub(super) commits: IntCounterVec,
    pub(super) input_lag: GaugeVec,
    pub(super) newest_event: GaugeVec,
    pub(super) state_disk_available: IntGauge,
    pub(super) state_disk_size: IntGauge,
    pub(super) oldest_unacknowledged: GaugeVec,
    pub(super) bytes_uncommitted: IntGaugeVec,
    pub(super) hold: IntGaugeVec,
    pub(super) objects_open: IntGaugeVec,
    pub(super) reloads: IntCounterVec,
    pub(super) registered: Registered,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = |extra: &[&'static str]| [PIPELINE.as_slice(), extra].concat();
        let name = |name: &str| format!("auditferry_{name}");
        let keep = |family: Box<dyn Collector>| registry.register(family);
        let mut registered = Registered::default();
        let mut counter = |short: &str, help: &str, extra: &[&'static str]| {
            let family = IntCounterVec::new(Opts::new(name(short), help), &labels(extra))?;
            keep(Box::new(family.clone()))?;
            registered.counters.push(family.clone());
            Ok::<_, prometheus::Error>(family)
        };
        let mut gauge = |short: &str, help: &str, extra: &[&'static str]| {
            let family = GaugeVec::new(Opts::new(name(short), help), &labels(extra))?;
            keep(Box::new(family.clone()))?;
            registered.gauges.push(family.clone());
            Ok::<_, prometheus::Error>(family)
        };
        let mut whole = |short: &str, help: &str, extra: &[&'static str]| {
            let family = IntGaugeVec::new(Opts::new(name(short), help), &labels(extra))?;
            keep(Box::new(family.clone()))?;
            registered.whole_gauges.push(family.clone());
            Ok::<_, prometheus::Error>(family)
        };
        let duration = HistogramVec::new(
            HistogramOpts::new(
                name("request_duration_seconds"),
                "Time from sending a request to having its answer.",
            )
            .buckets(vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
            &PIPELINE,
        )?;
        keep(Box::new(duration.clone()))?;
        registered.durations.push(duration.clone());
        let disk = |short: &str, help: &str| {
            let gauge = IntGauge::new(name(short), help)?;
            keep(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let reloads = IntCounterVec::new(
            Opts::new(
                name("config_reloads_total"),
                "Reloads of the configuration: ok, or refused as a whole.",
            ),
            &["result"],
        )?;
        keep(Box::new(reloads.clone()))?;
        for result in RELOADS {
            reloads.with_label_values(&[result]);
        }
        Ok(Self {
            reloads,
            records_read: counter("records_read_total", "New records read.", &[])?,
            bytes_read: counter("bytes_read_total", "Bytes of new records read.", &[])?,
            bytes_fetched: counter("bytes_fetched_total", "Bytes fetched from the store.", &[])?,
            records_skipped: counter(
                "records_skipped_total",
                "Records of overwritten objects or of overlapping reads recognised as shipped before and left out.",
                &[],
            )?,
            records_duplicate: counter(
                "records_duplicate_total",
                "Account-level records that the system table of a second region holds too.",
                &[],
            )?,
            objects_read: counter("objects_read_total", "Versions of objects read to their end.", &[])?,
            redactions: counter("redactions_total", "Secrets taken out of events.", &[])?,
            overlaps: counter(
                "overlap_total",
                "Events that another input has sent to this output too, with count_overlap = true.",
                &[],
            )?,
            prefix_mismatch: counter(
                "prefix_mismatch_total",
                "Objects whose already shipped part had changed, so that they were compared line by line.",
                &[],
            )?,
            input_errors: counter(
                "input_errors_total",
                "Failed reads of the store or of one object; they are tried again.",
                &[],
            )?,
            events_delivered: counter("events_delivered_total", "Events the collector accepted.", &[])?,
            events_duplicate: counter("events_duplicate_total", "Events the collector had already.", &[])?,
            dead_letters: counter("dead_letters_total", "Records kept as dead letters.", &["reason"])?,
            requests: counter("requests_total", "Requests by verdict.", &["verdict"])?,
            request_duration: duration,
            retries: counter("retries_total", "Requests sent again.", &[])?,
            ambiguous_resends: counter(
                "ambiguous_resends_total",
                "Events sent again although the collector may have them: possible duplicates.",
                &[],
            )?,
            acks_pending: whole("acks_pending", "Accepted requests waiting for their acknowledgement.", &[])?,
            requests_limit: whole(
                "requests_limit",
                "Requests that may be under way to the collector at once; falls while it is strained.",
                &[],
            )?,
            bytes_sent: counter(
                "bytes_sent_total",
                "Bytes of accepted requests as sent, that is compressed.",
                &[],
            )?,
            bytes_encoded: counter(
                "bytes_encoded_total",
                "Bytes of accepted requests before compression.",
                &[],
            )?,
            commits: counter("commits_total", "Durable commits of positions.", &[])?,
            input_lag: gauge(
                "input_lag_seconds",
                "Age of the newest event of a workspace at the time it was committed.",
                &["workspace"],
            )?,
            newest_event: gauge(
                "newest_event_timestamp_seconds",
                "Time of the newest committed event of a workspace, in seconds since 1970.",
                &["workspace"],
            )?,
            state_disk_available: disk(
                "state_disk_available_bytes",
                "Room left on the disk that holds the state and the dead letters.",
            )?,
            state_disk_size: disk(
                "state_disk_size_bytes",
                "Size of the disk that holds the state and the dead letters.",
            )?,
            oldest_unacknowledged: gauge(
                "oldest_unacknowledged_seconds",
                "Time since the oldest uncommitted chunk was read.",
                &[],
            )?,
            bytes_uncommitted: whole("bytes_uncommitted", "Memory of what is read and uncommitted.", &[])?,
            hold: whole(
                "hold",
                "1 while the input or the output waits for a human, by reason.",
                &["reason"],
            )?,
            objects_open: whole(
                "objects_open",
                "Objects being read or waiting for their acknowledgement.",
                &[],
            )?,
            registered,
        })
    }
}

/// The families of pipelines once more, for what is done to all of them: taking out a pipeline that is no more.
#[derive(Debug, Default)]
pub(super) struct Registered {
    counters: Vec<IntCounterVec>,
    gauges: Vec<GaugeVec>,
    whole_gauges: Vec<IntGaugeVec>,
    durations: Vec<HistogramVec>,
}

impl Registered {
    /// Removes all series of a pipeline.
    pub(super) fn forget(&self, input: &str, output: &str) {
        for family in &self.counters {
            remove(family, input, output);
        }
        for family in &self.gauges {
            remove(family, input, output);
        }
        for family in &self.whole_gauges {
            remove(family, input, output);
        }
        for family in &self.durations {
            remove(family, input, output);
        }
    }
}

/// Removes all series of a pipeline, whatever other labels they have.
fn remove<T: MetricVecBuilder>(family: &MetricVec<T>, input: &str, output: &str) {
    for found in family.collect().iter().flat_map(prometheus::proto::MetricFamily::get_metric) {
        let labels: HashMap<&str, &str> =
            found.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        if labels.get("input") == Some(&input) && labels.get("output") == Some(&output) {
            // One that another has removed in the meantime is gone all the same.
            let _gone = family.remove(&labels);
        }
    }
}
