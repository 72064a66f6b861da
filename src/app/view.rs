//! What is seen of the running pipelines from outside: by the server, and by the service manager.

use crate::metrics::PipelineMetrics;
use crate::recent::RecentEvents;
use crate::status::{Phase, Status};
use crate::time::Millis;

/// What there is to see.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The pipelines, in the order of the configuration.
    pub routes: Vec<ShownRoute>,
    /// Why there are none, where nothing is configured.
    pub idle: Option<String>,
    /// How the last reload of the configuration ended.
    pub reloaded: Option<Reloaded>,
}

/// A pipeline to be seen.
#[derive(Clone, Debug)]
pub struct ShownRoute {
    /// Name of its input.
    pub input: String,
    /// Name of its output.
    pub output: String,
    /// Its counters.
    pub metrics: PipelineMetrics,
    /// What it does.
    pub status: Status,
    /// Its newest events, where they are shown.
    pub recent: RecentEvents,
}

/// How a reload of the configuration ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// When.
    pub at: Millis,
    /// Why it was refused as a whole; nothing where it was taken.
    pub refused: Option<String>,
}

impl View {
    /// What waits for a human, a line each. What passes by itself, as a collector that is down, is not among it.
    pub fn waits_for(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.idle.iter().cloned().collect();
        for route in &self.routes {
            let snapshot = route.status.snapshot();
            if snapshot.phase != Phase::Running && snapshot.phase != Phase::Retrying {
                let reason = snapshot.reason.as_deref().unwrap_or("not running");
                reasons.push(format!("{}/{}: {reason}", route.input, route.output));
            }
        }
        reasons
    }

    /// The state of all of it in a line.
    pub fn summary(&self) -> String {
        let refused = self.reloaded.as_ref().and_then(|reloaded| reloaded.refused.as_deref());
        if let Some(why) = refused.and_then(|why| why.lines().next()) {
            return format!("the new configuration was refused, the old one goes on: {why}");
        }
        let waiting = self.waits_for();
        match (waiting.first(), self.routes.len()) {
            (Some(reason), _) => reason.clone(),
            (None, 1) => "the pipeline runs".to_owned(),
            (None, count) => format!("all {count} pipelines run"),
        }
    }
}
