//! Two configurations of one process: what a reload may change, and what it leaves as it is.

use super::error::ConfigErrors;
use super::{Config, Pipeline};

/// Keys at the top of the file that a pipeline is built with.
const OF_ALL_PIPELINES: [&str; 3] = ["memory", "shutdown_grace", "redaction"];

impl Config {
    /// True if neither an input nor an output is configured yet.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }

    /// What to tell of a configuration that is empty.
    pub(super) fn nothing_to_do(&self) -> String {
        format!(
            "nothing is configured to be shipped: add one of the `inputs` and one of the `outputs` to {}, then reload the \
             service",
            self.origins.find("")
        )
    }

    /// What cannot become of a process with this configuration while it runs.
    ///
    /// # Errors
    /// Everything that wants a restart, a line each.
    pub fn can_become(&self, new: &Self) -> Result<(), ConfigErrors> {
        let changed = [
            ("state_dir", self.state_dir != new.state_dir),
            ("server.listen", self.server.listen != new.server.listen),
            ("server.token", self.differs(new, "/server/token")),
            ("server.recent_events", self.server.recent_events != new.server.recent_events),
            ("log", self.log != new.log),
        ];
        let restart = "cannot change while auditferry runs; restart it, or take the change back";
        let mut errors: Vec<_> =
            changed.iter().filter(|(_, changed)| *changed).map(|(key, _)| new.error(key, restart)).collect();
        if new.is_empty() && !self.is_empty() {
            // A file that was emptied by mistake must not end what is shipped.
            errors.push(new.error("", "names no input and no output any more; stop the service instead"));
        }
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }

    /// True if a pipeline of this configuration is built from the same keys in a new one. Keys are compared as they were
    /// written: at worst a pipeline starts anew whose keys are only spelled in another way.
    pub fn runs_alike(&self, new: &Self, pipeline: &Pipeline) -> bool {
        let own = [format!("/inputs/{}", pipeline.input), format!("/outputs/{}", pipeline.output)];
        let common = OF_ALL_PIPELINES.iter().map(|key| format!("/{key}"));
        self.pipelines.contains(pipeline)
            && own.into_iter().chain(common).all(|path| !self.differs(new, &path))
    }

    /// True if the output is built from the same keys.
    pub fn feeds_alike(&self, new: &Self, output: &str) -> bool {
        !self.differs(new, &format!("/outputs/{output}"))
    }

    fn differs(&self, new: &Self, path: &str) -> bool {
        self.written.0.pointer(path) != new.written.0.pointer(path)
    }
}
