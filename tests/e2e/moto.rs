//! A moto server (S3, STS, SQS, SNS, EventBridge) of its own for each test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::runtime::{Builder, Runtime};

/// The bucket that every test uses.
pub(crate) const BUCKET: &str = "audit";

/// How the bucket's notifications come to the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Direct,
    Sns { raw: bool },
    EventBridge,
}

pub(crate) struct Moto {
    pub(crate) address: SocketAddr,
    process: Child,
    pub(crate) store: Arc<AmazonS3>,
    pub(crate) runtime: Runtime,
}

impl Moto {
    /// Starts a server and makes an empty bucket in it.
    pub(crate) fn start() -> Self {
        let program = std::env::var_os("AUDITFERRY_E2E_MOTO").unwrap_or_else(|| "moto_server".into());
        let mut process = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {program:?}: {error}; pip install 'moto[server]', or set AUDITFERRY_E2E_MOTO")
            });
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("moto_server ended before it listened").unwrap();
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().parse().unwrap();
            }
        };
        // Its log must be read on, or it blocks when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = AmazonS3Builder::new()
            .with_endpoint(format!("http://{address}"))
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .build()
            .unwrap();
        let moto = Self { address, process, store: Arc::new(store), runtime };
        moto.create_bucket();
        moto
    }

    /// Making a bucket is the one thing that the S3 client cannot do.
    fn create_bucket(&self) {
        self.ask("PUT", &format!("/{BUCKET}"), "s3", "", "");
    }

    /// Makes the queue `audit` and gives its URL.
    pub(crate) fn create_queue(&self) -> String {
        let target = "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.CreateQueue\r\n";
        self.ask("POST", "/", "sqs", target, r#"{"QueueName":"audit"}"#);
        self.queue_url()
    }

    /// The URL that the queue has, or will have.
    pub(crate) fn queue_url(&self) -> String {
        format!("http://{}/123456789012/audit", self.address)
    }

    /// Lets the bucket tell the queue of its objects.
    pub(crate) fn notify(&self, way: Way) {
        const QUEUE: &str = "arn:aws:sqs:us-east-1:123456789012:audit";
        const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:audit";
        let configuration = match way {
            Way::Direct => format!(
                "<QueueConfiguration><Queue>{QUEUE}</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>"
            ),
            Way::Sns { raw } => {
                self.query("sns", "Action=CreateTopic&Name=audit");
                let raw = if raw {
                    "&Attributes.entry.1.key=RawMessageDelivery&Attributes.entry.1.value=true"
                } else {
                    ""
                };
                self.query(
                    "sns",
                    &format!("Action=Subscribe&TopicArn={TOPIC}&Protocol=sqs&Endpoint={QUEUE}{raw}"),
                );
                format!(
                    "<TopicConfiguration><Topic>{TOPIC}</Topic><Event>s3:ObjectCreated:*</Event></TopicConfiguration>"
                )
            }
            Way::EventBridge => {
                let rule = r#"{"Name":"audit","EventPattern":"{\"source\":[\"aws.s3\"]}"}"#;
                let targets = format!(r#"{{"Rule":"audit","Targets":[{{"Id":"1","Arn":"{QUEUE}"}}]}}"#);
                for (act, body) in [("PutRule", rule), ("PutTargets", &targets)] {
                    let target = format!(
                        "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: AWSEvents.{act}\r\n"
                    );
                    self.ask("POST", "/", "events", &target, body);
                }
                "<EventBridgeConfiguration></EventBridgeConfiguration>".to_owned()
            }
        };
        let body = format!("<NotificationConfiguration>{configuration}</NotificationConfiguration>");
        self.ask("PUT", &format!("/{BUCKET}?notification"), "s3", "", &body);
    }

    fn query(&self, service: &str, body: &str) {
        self.ask("POST", "/", service, "Content-Type: application/x-www-form-urlencoded\r\n", body);
    }

    /// Number of messages in the queue, those that somebody has received included.
    pub(crate) fn queued(&self) -> u64 {
        let target =
            "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.GetQueueAttributes\r\n";
        let body = format!(r#"{{"QueueUrl":"{}","AttributeNames":["All"]}}"#, self.queue_url());
        let answer = self.ask("POST", "/", "sqs", target, &body);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            .iter()
            .map(|name| answer["Attributes"][name].as_str().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// One request, answered with 200; gives the answer's body.
    fn ask(&self, method: &str, path: &str, service: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // The signature is not checked, but tells moto which service is meant.
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260105/us-east-1/{service}/aws4_request, \
             SignedHeaders=host, Signature=0\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{method} {path} {body}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    pub(crate) fn put(&self, key: &str, content: &str) {
        let path = Path::from(key);
        self.runtime.block_on(self.store.put(&path, PutPayload::from(content.to_owned()))).unwrap();
    }

    /// Puts many objects, several at once.
    pub(crate) fn put_all(&self, objects: impl IntoIterator<Item = (String, String)>) {
        let puts = futures::stream::iter(objects).for_each_concurrent(16, async |(key, content)| {
            let path = Path::from(key);
            self.store.put(&path, PutPayload::from(content)).await.unwrap();
        });
        self.runtime.block_on(puts);
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
