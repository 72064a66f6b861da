use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{Notify, mpsc};

use super::*;
use crate::input::bucket::hints::Hint;

const LATENCY: Duration = Duration::from_millis(20);

/// A queue as far away as SQS, whose messages are given out once.
#[derive(Debug, Default)]
struct FakeQueue {
    messages: Mutex<VecDeque<Message>>,
    arrived: Notify,
    deleted: Mutex<Vec<String>>,
    receives: AtomicUsize,
    under_way: AtomicUsize,
    refusing: AtomicBool,
    /// Does not wait for messages, whatever it is asked.
    hasty: AtomicBool,
}

impl FakeQueue {
    fn put(&self, body: impl Into<String>) {
        let mut messages = self.messages.lock().unwrap();
        let body = body.into();
        messages.push_back(Message { id: "id".to_owned(), receipt: body.clone(), body });
        self.arrived.notify_one();
    }

    fn put_object(&self, bucket: &str, key: &str) {
        self.put(format!(
            r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"{key}"}}}}}}]}}"#
        ));
    }

    async fn answer(&self) -> Result<Vec<Message>, InputError> {
        tokio::time::sleep(LATENCY).await;
        if self.refusing.load(Ordering::Relaxed) {
            return Err(InputError::Refused {
                action: "cannot receive".to_owned(),
                source: "AccessDenied".into(),
                remedy: "check".to_owned(),
            });
        }
        if self.messages.lock().unwrap().is_empty() && !self.hasty.load(Ordering::Relaxed) {
            let _none_came = tokio::time::timeout(Duration::from_secs(20), self.arrived.notified()).await;
        }
        let mut messages = self.messages.lock().unwrap();
        let count = messages.len().min(MOST_MESSAGES);
        Ok(messages.drain(..count).collect())
    }
}

#[async_trait]
impl MessageQueue for FakeQueue {
    async fn receive(&self) -> Result<Vec<Message>, InputError> {
        self.receives.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer().await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    async fn delete(&self, receipts: Vec<String>) -> Result<(), InputError> {
        tokio::time::sleep(LATENCY).await;
        self.deleted.lock().unwrap().extend(receipts);
        Ok(())
    }
}

/// A pipeline of the process that listens to a queue.
struct Pipeline {
    hinted: mpsc::Receiver<Hint>,
    _subscription: Subscription,
}

impl Pipeline {
    fn listen(receivers: &Receivers, queue: &Arc<FakeQueue>, prefix: &str) -> Self {
        let queue = BucketQueue {
            url: "https://sqs.eu-central-1.amazonaws.com/123456789012/audit".to_owned(),
            bucket: "acme".to_owned(),
            queue: Arc::clone(queue) as Arc<dyn MessageQueue>,
        };
        let (sender, hinted) = mpsc::channel(100_000);
        let hints = Arc::new(Hints::new(sender, 100));
        Self { hinted, _subscription: receivers.subscribe(&queue, Path::from(prefix), hints) }
    }

    async fn next(&mut self) -> String {
        self.hinted.recv().await.unwrap().key().to_string()
    }
}

#[tokio::test(start_paused = true)]
async fn every_pipeline_of_a_process_hears_what_its_queue_says_once() {
    let (receivers, queue) = (Receivers::default(), Arc::<FakeQueue>::default());
    let mut pipelines: Vec<_> = (0..3).map(|_| Pipeline::listen(&receivers, &queue, "logs")).collect();
    queue.put_object("acme", "logs/a");
    queue.put_object("acme", "logs/b");
    for pipeline in &mut pipelines {
        assert_eq!(
            (pipeline.next().await, pipeline.next().await),
            ("logs/a".to_owned(), "logs/b".to_owned())
        );
        assert!(pipeline.hinted.is_empty());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(queue.deleted.lock().unwrap().len(), 2);
    assert_eq!(queue.under_way.load(Ordering::Relaxed), 1, "one receiver waits for all of them");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_ends_with_the_last_of_its_pipelines() {
    let (receivers, queue) = (Receivers::default(), Arc::<FakeQueue>::default());
    let first = Pipeline::listen(&receivers, &queue, "logs");
    let mut second = Pipeline::listen(&receivers, &queue, "logs");
    drop(first);
    queue.put_object("acme", "logs/a");
    assert_eq!(second.next().await, "logs/a");
    drop(second);
    tokio::time::sleep(LATENCY).await;
    let received = queue.receives.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(queue.receives.load(Ordering::Relaxed), received);
    let mut third = Pipeline::listen(&receivers, &queue, "logs");
    queue.put_object("acme", "logs/b");
    assert_eq!(third.next().await, "logs/b");
}

#[tokio::test(start_paused = true)]
async fn each_pipeline_hears_of_its_own_prefix_only_and_what_is_nobodys_goes_too() {
    let (receivers, queue) = (Receivers::default(), Arc::<FakeQueue>::default());
    let mut logs = Pipeline::listen(&receivers, &queue, "logs");
    let mut all = Pipeline::listen(&receivers, &queue, "");
    queue.put_object("other", "logs/a");
    queue.put_object("acme", "logs-too/a");
    queue.put_object("acme", "logs/a%3Db+c");
    assert_eq!(logs.next().await, "logs/a=b c");
    assert_eq!(all.next().await, "logs-too/a");
    assert_eq!(all.next().await, "logs/a=b c");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(logs.hinted.is_empty() && all.hinted.is_empty());
    assert_eq!(queue.deleted.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn messages_that_s3_does_not_send_stay_in_the_queue() {
    let (receivers, queue) = (Receivers::default(), Arc::<FakeQueue>::default());
    let mut pipeline = Pipeline::listen(&receivers, &queue, "logs");
    for _ in 0..20 {
        queue.put("an order of somebody else");
    }
    let start = Instant::now();
    queue.put_object("acme", "logs/a");
    assert_eq!(pipeline.next().await, "logs/a");
    assert!(start.elapsed() >= PAUSE, "they come back: no hurry");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let deleted = queue.deleted.lock().unwrap();
    assert!(deleted.len() == 1 && deleted[0].contains("logs/a"), "{deleted:?}");
}

#[tokio::test(start_paused = true)]
async fn rounds_become_more_while_answers_are_full_and_one_again_when_they_are_not() {
    let (receivers, queue) = (Receivers::default(), Arc::<FakeQueue>::default());
    for number in 0..5000 {
        queue.put_object("acme", &format!("logs/{number}"));
    }
    let start = Instant::now();
    let mut pipeline = Pipeline::listen(&receivers, &queue, "logs");
    for _ in 0..5000 {
        pipeline.next().await;
    }
    // One round after the other takes ten messages in two latencies: 20 seconds.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(queue.under_way.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_refuses_is_asked_ever_less_often_and_followed_once_it_answers() {
    let (receivers, queue) = (Receivers::default(), Arc::<FakeQueue>::default());
    queue.refusing.store(true, Ordering::Relaxed);
    let mut pipeline = Pipeline::listen(&receivers, &queue, "logs");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = queue.receives.load(Ordering::Relaxed);
    assert!((25..80).contains(&asked), "{asked} times in an hour");
    queue.refusing.store(false, Ordering::Relaxed);
    queue.put_object("acme", "logs/a");
    let start = Instant::now();
    assert_eq!(pipeline.next().await, "logs/a");
    assert!(start.elapsed() < Duration::from_secs(130), "{:?}", start.elapsed());
    queue.put_object("acme", "logs/b");
    let start = Instant::now();
    assert_eq!(pipeline.next().await, "logs/b");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

fn settings(sqs_queue_url: &str) -> S3Settings {
    let keys = serde_json::json!({
        "region": "eu-central-1", "access_key_id": "AKIA", "secret_access_key": "secret",
        "sqs_queue_url": sqs_queue_url,
    });
    serde_json::from_value(keys).unwrap()
}

#[test]
fn a_queue_that_cannot_be_is_an_error_at_start() {
    let good = "https://sqs.eu-central-1.amazonaws.com/123456789012/audit";
    assert!(BucketQueue::open("s3://acme/logs", &S3Settings::default()).unwrap().is_none());
    let refused = |bucket: &str, settings: &S3Settings| {
        let error = BucketQueue::open(bucket, settings).err().unwrap();
        assert_eq!(error.key, "s3.sqs_queue_url");
        error.message
    };
    assert!(refused("gs://acme/logs", &settings(good)).contains("s3://"));
    for url in ["https://sqs.eu-central-1.amazonaws.com", "https://sqs.eu-central-1.amazonaws.com/audit"] {
        assert!(refused("s3://acme", &settings(url)).contains("is no queue"), "{url}");
    }
    assert!(refused("s3://acme", &settings("audit")).contains("is no URL"));
    assert!(refused("s3://acme", &settings("http://127.0.0.1:1/1/audit")).contains("allow_http"));
    let anonymous = S3Settings { anonymous: true, ..settings(good) };
    assert!(refused("s3://acme", &anonymous).contains("anonymous"));
    if cfg!(feature = "aws") {
        assert_eq!(BucketQueue::open("s3://acme/logs", &settings(good)).unwrap().unwrap().bucket, "acme");
        let s3 = serde_json::json!({ "region": "eu-central-1", "sqs_queue_url": good });
        let described =
            super::super::check(serde_json::json!({ "url": "s3://acme/logs", "s3": s3 })).unwrap();
        assert!(described.ends_with("polled every 1m, notified through SQS"), "{described}");
    } else {
        assert!(refused("s3://acme", &settings(good)).contains("feature `aws`"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_does_not_wait_for_messages_is_asked_once_a_second() {
    let (receivers, queue) = (Receivers::default(), Arc::<FakeQueue>::default());
    queue.hasty.store(true, Ordering::Relaxed);
    let mut pipeline = Pipeline::listen(&receivers, &queue, "logs");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let receives = queue.receives.swap(0, Ordering::Relaxed);
    assert!((500..=600).contains(&receives), "{receives} requests in ten minutes");
    // What comes in numbers is not slowed down.
    for number in 0..1000 {
        queue.put_object("acme", &format!("logs/{number}"));
    }
    let began = Instant::now();
    for _ in 0..1000 {
        pipeline.next().await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
