use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::*;
use crate::chunk::{Partition, Position};
use crate::metrics::Metrics;

/// Says what it is given to say.
struct Scripted(Mutex<mpsc::Receiver<Read>>);

#[async_trait]
impl Input for Scripted {
    async fn read(&self) -> Result<Read, InputError> {
        Ok(self.0.lock().await.recv().await.unwrap_or(Read::End))
    }

    async fn committed(&self, _: &Partition, _: &Position) {}
}

fn locked(object: &str) -> Read {
    let (action, source) = (format!("cannot read object {object}"), "403".into());
    let error = InputError::Refused { action, source, remedy: "check its permissions".to_owned() };
    Read::Trouble { partition: Partition::new(object), error }
}

fn busy(object: &str) -> Read {
    let error =
        InputError::Transient { action: format!("cannot read object {object}"), source: "503".into() };
    Read::Trouble { partition: Partition::new(object), error }
}

fn chunk() -> Read {
    Read::Chunk(Chunk::default())
}

/// A reader at work, with what it is told and what it shows.
struct Bench {
    say: mpsc::Sender<Read>,
    chunks: mpsc::Receiver<(Sequence, Chunk)>,
    status: Status,
    metrics: Metrics,
    tasks: JoinSet<Result<(), PipelineError>>,
    _news: mpsc::Receiver<Progress>,
}

impl Bench {
    fn new() -> Self {
        let (say, said) = mpsc::channel(1);
        let (chunks_in, chunks) = mpsc::channel(64);
        let (news, told) = mpsc::channel(64);
        let (status, metrics) = (Status::default(), Metrics::new().unwrap());
        status.enter(Phase::Running);
        let reader = Reader {
            input: Arc::new(Scripted(Mutex::new(said))),
            chunks: chunks_in,
            reporter: Reporter(news),
            status: status.clone(),
            metrics: metrics.pipeline("in", "out"),
            name: "in/out".into(),
            once: false,
            stop: CancellationToken::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(reader.run());
        Self { say, chunks, status, metrics, tasks, _news: told }
    }

    /// Whether it is held after these.
    async fn holds_after(&mut self, reads: impl IntoIterator<Item = Read>) -> bool {
        for read in reads {
            self.say.send(read).await.unwrap();
        }
        // All is heard once there is room for one more.
        tokio::time::sleep(Duration::from_millis(1)).await;
        while self.chunks.try_recv().is_ok() {}
        let held = self.status.snapshot().phase == Phase::Holding;
        let shown = r#"auditferry_hold{input="in",output="out",reason="input"} "#.to_owned();
        let metrics = self.metrics.render().unwrap();
        assert!(metrics.contains(&format!("{shown}{}", u8::from(held))), "{held}: {metrics}");
        held
    }
}

#[tokio::test(start_paused = true)]
async fn an_input_that_can_be_listed_and_gives_no_object_waits_for_a_human() {
    let mut bench = Bench::new();
    assert!(!bench.holds_after([locked("a"), locked("b")]).await, "others may be read yet");
    assert!(bench.holds_after([Read::Idle]).await);
    assert!(bench.status.snapshot().reason.unwrap().contains("check its permissions"));
    assert!(bench.holds_after([locked("a"), locked("b"), Read::Idle, locked("a")]).await);
    assert!(!bench.holds_after([chunk()]).await, "it was mended");
    assert!(!bench.holds_after([Read::Idle]).await);
    // Taken away again, while nothing but these is new.
    assert!(bench.holds_after([locked("c"), Read::Idle]).await);
    // Gone: nothing is refused any more.
    assert!(!bench.holds_after([Read::Idle]).await);
    drop(bench.say);
    bench.tasks.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_locked_object_among_others_that_can_be_read_holds_nothing_also_while_nothing_is_new() {
    let mut bench = Bench::new();
    assert!(!bench.holds_after([locked("a"), chunk(), locked("b"), chunk(), Read::Idle]).await);
    for _ in 0..3 {
        assert!(!bench.holds_after([locked("a"), locked("b"), Read::Idle]).await);
    }
    assert!(bench.holds_after([locked("a"), locked("c"), Read::Idle]).await);
}

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_holds_nothing() {
    let mut bench = Bench::new();
    assert!(!bench.holds_after([busy("a"), Read::Idle]).await);
    assert!(bench.holds_after([locked("a"), busy("b"), Read::Idle]).await);
}

/// Gives what stands here, and then its end.
struct Listed(Mutex<std::vec::IntoIter<Result<Read, InputError>>>);

#[async_trait]
impl Input for Listed {
    async fn read(&self) -> Result<Read, InputError> {
        self.0.lock().await.next().unwrap_or(Ok(Read::End))
    }

    async fn committed(&self, _: &Partition, _: &Position) {}
}

/// How a single run over these ends, and how long it waited on its way.
async fn once_over(reads: Vec<Result<Read, InputError>>) -> (Result<(), PipelineError>, Duration) {
    let ((chunks, mut taken), (news, mut told)) = (mpsc::channel(64), mpsc::channel(64));
    let reader = Reader {
        input: Arc::new(Listed(Mutex::new(reads.into_iter()))),
        chunks,
        reporter: Reporter(news),
        status: Status::default(),
        metrics: Metrics::new().unwrap().pipeline("in", "out"),
        name: "in/out".into(),
        once: true,
        stop: CancellationToken::new(),
    };
    let began = Instant::now();
    let drained = async { while taken.recv().await.is_some() && told.recv().await.is_some() {} };
    let (ended, ()) = tokio::join!(reader.run(), drained);
    (ended, began.elapsed())
}

fn failed() -> Result<Read, InputError> {
    Err(InputError::Transient { action: "cannot list the bucket".to_owned(), source: "503".into() })
}

#[tokio::test(start_paused = true)]
async fn a_single_run_gives_up_after_failures_in_a_row_and_not_after_as_many_on_a_long_way() {
    let now_and_then = (0..20).flat_map(|_| [failed(), Ok(chunk())]).collect();
    let (ended, waited) = once_over(now_and_then).await;
    ended.unwrap();
    assert!(waited < Duration::from_secs(40), "{waited:?}: each time it had been read again since");
    let (ended, _) = once_over((0..5).map(|_| failed()).collect()).await;
    assert!(matches!(ended, Err(PipelineError::Input { .. })), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_for_days_is_logged_every_hour_and_what_is_new_at_once() {
    let mut troubles = Troubles::default();
    let mut a_day_of_trouble = 0;
    for _ in 0..24 * 60 {
        a_day_of_trouble += (0..100).filter(|_| troubles.may_log()).count();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert!((230..=310).contains(&a_day_of_trouble), "{a_day_of_trouble} lines");
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    assert_eq!((0..100).filter(|_| troubles.may_log()).count(), 10);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(troubles.may_log(), "after a quiet time it is told every minute again");
}
