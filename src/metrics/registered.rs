//! The families of pipelines once more, for what is done to all of them: taking out a pipeline that is no more.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

#[derive(Debug, Default)]
pub(super) struct Registered {
    pub(super) counters: Vec<IntCounterVec>,
    pub(super) gauges: Vec<GaugeVec>,
    pub(super) whole_gauges: Vec<IntGaugeVec>,
    pub(super) durations: Vec<HistogramVec>,
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
