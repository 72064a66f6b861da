//! auditferry in process, configured as a user configures it, between a directory and scripted collectors.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use auditferry::app::{App, AppError, Route};
use auditferry::config::Config;
use auditferry::dead_letter::file::{self as dead_letters, KeptLetter};
use auditferry::pipeline::PipelineError;
use auditferry::state::StateError;
use auditferry::time::{Date, Millis};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, Protocol, apis};

/// Longest wait for anything: far more than it takes, so that a busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until a condition holds; fails the test, saying what did not come, if it never does.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Today, whose folder is looked at with every poll.
pub(crate) fn today() -> Date {
    Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap().date()
}

/// An audit record as Databricks delivers it, small, told apart by its request id.
pub(crate) fn record(request_id: &str) -> String {
    format!(
        r#"{{"version":"2.0","timestamp":1767609296007,"orgId":"7","serviceName":"accounts","actionName":"login","requestId":"{request_id}"}}"#
    )
}

/// A directory that is a bucket, and a state directory beside it.
pub(crate) struct Place {
    directory: TempDir,
    /// Short, so that readers wait for commits.
    pub(crate) memory: &'static str,
    /// Further lines of the whole configuration.
    pub(crate) settings: &'static str,
    /// The bucket, where it is not the directory.
    pub(crate) url: Option<String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        Self { directory, memory: "1MiB", settings: "", url: None }
    }

    pub(crate) fn bucket(&self) -> PathBuf {
        self.directory.path().join("bucket")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A file beside the bucket.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The key of an object of today.
    pub(crate) fn key(name: &str) -> String {
        format!("workspaceId=7/date={}/auditlogs_{name}", today())
    }

    /// Puts an object of today in place of what was there, as a store does: at once.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.bucket().join(Self::key(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let partial = path.with_file_name(format!(".{name}.partial"));
        std::fs::write(&partial, content).unwrap();
        std::fs::rename(partial, path).unwrap();
    }

    /// All dead letters.
    pub(crate) fn letters(&self) -> Vec<KeptLetter> {
        let files = dead_letters::list(&self.state()).unwrap();
        files
            .iter()
            .flat_map(|file| dead_letters::read(&file.path).unwrap())
            .map(|letter| letter.unwrap())
            .collect()
    }

    /// The configuration with these keys of the input and these outputs.
    pub(crate) fn config(&self, input: &str, outputs: &[String]) -> Config {
        let text = format!(
            "state_dir = '{}'\nmemory = '{}'\nshutdown_grace = '5s'\nserver.listen = 'none'\n{}\n[inputs.audit]\ntype = 'bucket'\n\
             url = '{}'\npoll_interval = '1s'\n{input}\n{}",
            self.state().display(),
            self.memory,
            self.settings,
            self.url.clone().unwrap_or_else(|| self.bucket().display().to_string()),
            outputs.concat()
        );
        let path = self.beside("auditferry.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&[path], &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Starts auditferry here.
    pub(crate) async fn start(&self, input: &str, outputs: &[String]) -> Ferry {
        self.start_with(input, outputs, |_| {}).await
    }

    /// Starts auditferry here after a change to its parts.
    pub(crate) async fn start_with(
        &self,
        input: &str,
        outputs: &[String],
        change: impl FnOnce(&mut App),
    ) -> Ferry {
        let config = self.config(input, outputs);
        let until = Instant::now() + PATIENCE;
        let mut app = loop {
            // What blocking threads of a run before this one hold, they let go of soon.
            match App::build(&config, false) {
                Err(AppError::State(StateError::InUse { .. })) if Instant::now() < until => {
                    tokio::time::sleep(LOOK).await;
                }
                built => break built.unwrap(),
            }
        };
        change(&mut app);
        let stop = CancellationToken::new();
        let tasks = app.start(&stop);
        Ferry { app, stop, tasks }
    }
}

/// An output that sends to a collector, named after its protocol, with further keys. Batches do not wait long.
pub(crate) fn output(collector: &Collector, keys: &str) -> String {
    let url = collector.url();
    let own = match collector.protocol() {
        Protocol::Hec => format!("[outputs.splunk]\ntype = 'splunk_hec'\nurl = '{url}'\n"),
        Protocol::Sumo => {
            format!("[outputs.sumo]\ntype = 'sumo'\nurl = '{url}/receiver/v1/http/hunter2'\n")
        }
        Protocol::Bulk => {
            format!("[outputs.elastic]\ntype = 'elastic'\nurl = '{url}'\nindex = 'audit'\n")
        }
        Protocol::Any => format!("[outputs.http]\ntype = 'http'\nurl = '{url}'\n"),
        service => format!("[outputs.{}]\n{}", apis::name(service), apis::table(service, url)),
    };
    let secret = match collector.protocol() {
        Protocol::Hec if !keys.contains("token") => "token = 'hunter2'\n",
        Protocol::Bulk if !keys.contains("api_key") => "api_key = 'hunter2'\n",
        _ => "",
    };
    format!("{own}{secret}proxy = 'none'\nbatch.max_age = '50ms'\n{keys}\n")
}

/// The three collectors of the tests.
pub(crate) struct Collectors {
    pub(crate) hec: Collector,
    pub(crate) sumo: Collector,
    pub(crate) bulk: Collector,
}

impl Collectors {
    pub(crate) async fn start() -> Self {
        Self {
            hec: Collector::start(Protocol::Hec).await,
            sumo: Collector::start(Protocol::Sumo).await,
            bulk: Collector::start(Protocol::Bulk).await,
        }
    }

    pub(crate) fn all(&self) -> [&Collector; 3] {
        [&self.hec, &self.sumo, &self.bulk]
    }

    /// An output for each of them.
    pub(crate) fn outputs(&self, keys: &str) -> Vec<String> {
        self.all().iter().map(|collector| output(collector, keys)).collect()
    }

    /// Waits until each of them has events with so many ids.
    pub(crate) async fn have(&self, count: usize) {
        for collector in self.all() {
            has(collector, count).await;
        }
    }

    /// Fails unless each of them has so many events, each once.
    pub(crate) fn have_exactly(&self, count: usize) {
        for collector in self.all() {
            has_exactly(collector, count);
        }
    }
}

/// Waits until a collector has events with so many ids.
pub(crate) async fn has(collector: &Collector, count: usize) {
    let what = format!("{count} events in {:?}", collector.protocol());
    eventually(&what, || distinct(collector) >= count).await;
}

/// How many ids a collector knows.
pub(crate) fn distinct(collector: &Collector) -> usize {
    collector.ids().iter().collect::<HashSet<_>>().len()
}

/// Fails unless a collector has so many events, each once, and nothing was offered to it twice.
pub(crate) fn has_exactly(collector: &Collector, count: usize) {
    let protocol = collector.protocol();
    assert_eq!((collector.ids().len(), distinct(collector)), (count, count), "{protocol:?}");
    assert_eq!(offered(collector), count, "events offered to {protocol:?}");
}

/// How many events were sent to a collector, whatever it answered.
pub(crate) fn offered(collector: &Collector) -> usize {
    let mark = match collector.protocol() {
        Protocol::Hec => "{\"time\":",
        Protocol::Bulk => "{\"create\":",
        Protocol::Sumo | Protocol::Any => "\n",
        service => apis::mark(service),
    };
    collector.requests().iter().map(|request| request.body.matches(mark).count()).sum()
}

/// The request ids a collector knows.
pub(crate) fn request_ids(collector: &Collector) -> HashSet<String> {
    collector
        .events()
        .iter()
        .map(|event| event["request_id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// auditferry at work.
pub(crate) struct Ferry {
    pub(crate) app: App,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), PipelineError>>,
}

impl Ferry {
    /// The pipeline to an output.
    pub(crate) fn route(&self, output: &str) -> &Route {
        self.app.routes.iter().find(|route| route.output_name == output).unwrap()
    }

    /// Waits until nothing is under way: every object that was found is read and committed.
    pub(crate) async fn rests(&self) {
        eventually("nothing under way", || {
            self.app.routes.iter().all(|route| {
                let backlog = route.input.backlog();
                backlog.objects == 0 && backlog.open == 0
            })
        })
        .await;
    }

    /// Stops in order; fails the test if something was left undone.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    /// Ends at once, wherever it is: as near to a crash as a process can come that goes on.
    pub(crate) async fn crash(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The value of a metric, its labels written out.
pub(crate) fn metric(app: &App, name: &str) -> f64 {
    let text = app.metrics.render().unwrap();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no metric {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The lines of an object as they lie in the bucket.
pub(crate) fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
