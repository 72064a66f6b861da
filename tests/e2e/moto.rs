//! A moto server (S3, STS) of its own for each test.

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
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
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
