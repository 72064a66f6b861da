use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::batch::{Framing, Request};
use crate::chunk::{Chunk, Partition, Position, Record};
use crate::input::{InputError, Read};
use crate::output::{HoldReason, Verdict};
use crate::state::Change;
use crate::state::none::NoState;

/// An input of one record, which writes down what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<&'static str>>);

impl Told {
    fn count(&self, what: &'static str) -> usize {
        let mut told = self.0.lock().unwrap();
        told.push(what);
        told.iter().filter(|one| **one == what).count()
    }
}

#[async_trait]
impl Input for Told {
    async fn read(&self) -> Result<Read, InputError> {
        if self.count("read") > 1 {
            return Ok(Read::End);
        }
        let payload = Bytes::from_static(br#"{"timestamp":1,"serviceName":"a","actionName":"b"}"#);
        let records = vec![Record { start: 0, end: 50, line: 0, occurrence: 0 }];
        Ok(Read::Chunk(Chunk { payload, records, ..Chunk::default() }))
    }

    async fn committed(&self, _: &Partition, _: &Position) {
        self.count("committed");
    }

    async fn close(&self) {
        self.count("close");
    }
}

/// A disk that takes no commit.
struct Full;

#[async_trait]
impl State for Full {
    async fn range(&self, _: &str, _: &str, _: &str) -> Result<Vec<(Partition, Position)>, StateError> {
        Ok(Vec::new())
    }

    async fn positions(&self, _: &str, _: Vec<Partition>) -> Result<Vec<(Partition, Position)>, StateError> {
        Ok(Vec::new())
    }

    async fn notes(&self, _: &str, _: &Partition) -> Result<Vec<Bytes>, StateError> {
        Ok(Vec::new())
    }

    async fn commit(&self, _: &str, _: Vec<Change>, _: Vec<(&'static str, u64)>) -> Result<(), StateError> {
        let source = "database or disk is full".into();
        let (path, remedy) = ("state.db".to_owned(), "free space on its disk");
        Err(StateError::Database { action: "write", path, source, remedy })
    }

    async fn counters(&self, _: &str) -> Result<Vec<(String, u64)>, StateError> {
        Ok(Vec::new())
    }

    async fn key(&self) -> Result<[u8; 192], StateError> {
        Ok([0; 192])
    }
}

/// A single run from this input to a file, with this state.
fn single_run(directory: &Path, told: &Arc<Told>, state: Arc<dyn State>) -> Pipeline {
    let file = directory.join("a.toml");
    let text = "[inputs.in]\ntype = 'bucket'\nurl = '/none'\n[outputs.out]\ntype = 'file'\npath = ";
    std::fs::write(&file, format!("{text}{:?}", directory.join("events"))).unwrap();
    let config = Config::load(&[file], &BTreeMap::new()).unwrap();
    let input = Arc::clone(told) as Arc<dyn Input>;
    let source = Source { name: "in/out", input, budget: Budget::new(1000), state, once: true };
    let metrics = Metrics::new().unwrap().pipeline("in", "out");
    pipeline(&config, "out", source, directory, metrics).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_single_run_ends_where_the_state_cannot_be_written_and_says_why() {
    let (directory, told) = (tempfile::tempdir().unwrap(), Arc::<Told>::default());
    let pipeline = single_run(directory.path(), &told, Arc::new(Full));
    let ended = tokio::time::timeout(Duration::from_secs(60), pipeline.run(CancellationToken::new())).await;
    let error = ended.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("in/out: cannot write the state in state.db") && error.contains("free"),
        "{error}"
    );
    assert!(!told.0.lock().unwrap().contains(&"committed"), "nothing is let go");
}

#[tokio::test]
async fn an_input_takes_leave_after_the_last_commit() {
    let (directory, told) = (tempfile::tempdir().unwrap(), Arc::<Told>::default());
    let state = Arc::new(SqliteState::open(directory.path()).unwrap());
    single_run(directory.path(), &told, state).run(CancellationToken::new()).await.unwrap();
    assert_eq!(*told.0.lock().unwrap(), ["read", "read", "committed", "close"]);
}

/// An input of so many records, each a chunk of its own; then it waits for more, as one that is not all read yet.
struct Growing(Mutex<u32>);

#[async_trait]
impl Input for Growing {
    async fn read(&self) -> Result<Read, InputError> {
        let left = std::mem::replace(&mut *self.0.lock().unwrap(), 0);
        if left == 0 {
            std::future::pending::<()>().await;
        }
        *self.0.lock().unwrap() = left - 1;
        let payload = Bytes::from(format!(r#"{{"timestamp":{left},"serviceName":"a","actionName":"b"}}"#));
        let end = u32::try_from(payload.len()).unwrap();
        let record = Record { start: 0, end, line: 0, occurrence: 0 };
        let (partition, position) = (Partition::new(&left.to_string()), Position::new("1"));
        Ok(Read::Chunk(Chunk { payload, records: vec![record], partition, position, ..Chunk::default() }))
    }

    async fn committed(&self, _: &Partition, _: &Position) {}
}

/// A collector that gives its first answer after a while, and this one to all else at once.
struct Answering {
    first: Mutex<Option<(Duration, Verdict)>>,
    then: Verdict,
}

impl Answering {
    fn always(then: Verdict) -> Arc<Self> {
        Arc::new(Self { first: Mutex::default(), then })
    }
}

#[async_trait]
impl Output for Answering {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, _: &Request) -> Verdict {
        let first = self.first.lock().unwrap().take();
        let Some((wait, verdict)) = first else { return self.then.clone() };
        tokio::time::sleep(wait).await;
        verdict
    }
}

/// The state as it is on a disk that works, without one.
fn working_state(directory: &Path) -> Arc<dyn State> {
    Arc::new(SqliteState::open(directory).unwrap())
}

/// Runs a pipeline and stops it after a while; how it ended, and how long after the stop.
async fn stopped(pipeline: Pipeline, after: Duration) -> (Result<(), PipelineError>, Duration) {
    let stop = CancellationToken::new();
    let mut run = std::pin::pin!(pipeline.run(stop.clone()));
    let ended = tokio::time::timeout(after, &mut run).await;
    assert!(ended.is_err(), "ended by itself: {ended:?}");
    stop.cancel();
    let began = tokio::time::Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(600), run).await.unwrap();
    (ended, began.elapsed())
}

const ACCEPTED: Verdict = Verdict::Accepted { slow_down: false };

#[tokio::test(start_paused = true)]
async fn a_stop_has_one_grace_period_also_where_the_disk_refuses_what_was_delivered_in_it() {
    let (directory, told) = (tempfile::tempdir().unwrap(), Arc::<Told>::default());
    let mut pipeline = single_run(directory.path(), &told, Arc::new(Full));
    (pipeline.once, pipeline.grace) = (false, Duration::from_secs(30));
    let first = Mutex::new(Some((Duration::from_secs(30), ACCEPTED)));
    pipeline.output = Arc::new(Answering { first, then: ACCEPTED });
    let (ended, took) = stopped(pipeline, Duration::from_secs(1)).await;
    assert!(matches!(ended, Err(PipelineError::Unfinished { .. })), "{ended:?}");
    // A service manager is told to wait 15 s longer than the grace period.
    assert!(took < Duration::from_secs(40), "{took:?}");
}

#[tokio::test]
async fn a_single_run_that_is_stopped_before_all_is_read_says_so_and_keeps_what_it_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let mut pipeline = single_run(directory.path(), &Arc::default(), working_state(directory.path()));
    pipeline.input = Arc::new(Growing(Mutex::new(1)));
    let metrics = pipeline.metrics.clone();
    let (ended, _) = stopped(pipeline, Duration::from_millis(500)).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("in/out: stopped before everything was read"), "{error}");
    assert_eq!((metrics.events_delivered.get(), metrics.commits.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_a_collector_that_fails_and_not_for_one_that_waits_for_a_human() {
    let hold = Verdict::hold(HoldReason::Credentials, "403");
    for (verdict, waits) in [(Verdict::retry("500", None), 30), (hold, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let mut pipeline = single_run(directory.path(), &Arc::default(), Arc::new(Full));
        (pipeline.once, pipeline.grace) = (false, Duration::from_secs(30));
        pipeline.input = Arc::new(Growing(Mutex::new(3)));
        pipeline.output = Answering::always(verdict);
        let (ended, took) = stopped(pipeline, Duration::from_secs(20)).await;
        assert!(matches!(ended, Err(PipelineError::Unfinished { .. })), "{ended:?}");
        assert_eq!(took.as_secs(), waits, "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_when_a_held_pipeline_is_stopped_is_still_delivered_and_committed() {
    let (directory, told) = (tempfile::tempdir().unwrap(), Arc::<Told>::default());
    let mut pipeline = single_run(directory.path(), &told, Arc::new(NoState));
    (pipeline.once, pipeline.grace) = (false, Duration::from_secs(30));
    pipeline.input = Arc::new(Growing(Mutex::new(3)));
    pipeline.limits.max_events = 1;
    let first = Mutex::new(Some((Duration::from_secs(10), ACCEPTED)));
    pipeline.output = Arc::new(Answering { first, then: Verdict::hold(HoldReason::NotFound, "404") });
    let metrics = pipeline.metrics.clone();
    let (ended, took) = stopped(pipeline, Duration::from_secs(2)).await;
    assert!(matches!(ended, Err(PipelineError::Unfinished { .. })), "{ended:?}");
    assert_eq!((metrics.events_delivered.get(), metrics.commits.get()), (1, 1));
    assert_eq!(took.as_secs(), 8);
}

/// A configuration of one input and these outputs.
fn to_files(directory: &Path, outputs: &[&str]) -> Config {
    let file = directory.join("a.toml");
    let (state, bucket) = (directory.join("state"), directory.join("bucket"));
    std::fs::create_dir_all(&bucket).unwrap();
    let mut text = format!("state_dir = {state:?}\n[inputs.in]\ntype = 'bucket'\nurl = {bucket:?}\n");
    for output in outputs {
        text += &format!("[outputs.{output}]\ntype = 'file'\npath = {:?}\n", directory.join(output));
    }
    std::fs::write(&file, text).unwrap();
    Config::load(&[file], &BTreeMap::new()).unwrap()
}

#[tokio::test]
async fn a_configuration_that_is_refused_leaves_no_metrics_of_pipelines_that_never_ran() {
    let directory = tempfile::tempdir().unwrap();
    let old = to_files(directory.path(), &["one"]);
    let mut app = App::build(&old, false).unwrap();
    let letters = directory.path().join("state/dead-letters");
    std::fs::remove_dir_all(&letters).unwrap();
    std::fs::write(&letters, "").unwrap();
    app.plan(&old, &to_files(directory.path(), &["one", "two"])).unwrap_err();
    let metrics = app.metrics.render().unwrap();
    assert!(metrics.contains(r#"output="one""#) && !metrics.contains(r#"output="two""#), "{metrics}");
}
