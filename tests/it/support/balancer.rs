//! A load balancer without stickiness: each request goes to the next backend in turn that takes a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A running balancer; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    url: String,
    _server: JoinSet<()>,
}

impl Balancer {
    /// Starts one in front of these backends, given by their URLs.
    pub(crate) async fn start(backends: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let backends: Arc<[String]> =
            backends.iter().map(|url| url.trim_start_matches("http://").to_owned()).collect();
        let turn = Arc::new(AtomicUsize::new(0));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&backends), Arc::clone(&turn)));
            }
        });
        Self { url, _server: server }
    }

    /// Its address, without a path.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

async fn serve(stream: TcpStream, backends: Arc<[String]>, turn: Arc<AtomicUsize>) {
    let mut client = BufReader::new(stream);
    while let Some(request) = message(&mut client).await {
        let first = turn.fetch_add(1, Ordering::Relaxed);
        let answer = forward(&request, &backends, first).await;
        let answer = answer.unwrap_or_else(|| b"HTTP/1.1 502 x\r\ncontent-length: 0\r\n\r\n".to_vec());
        if client.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The answer of the first backend that takes a connection; none if that breaks off, or none does.
async fn forward(request: &[u8], backends: &[String], first: usize) -> Option<Vec<u8>> {
    for number in 0..backends.len() {
        let backend = &backends[(first + number) % backends.len()];
        let Ok(mut stream) = TcpStream::connect(backend).await else { continue };
        stream.write_all(request).await.ok()?;
        return message(&mut BufReader::new(stream)).await;
    }
    None
}

/// A whole request or answer, as it came; none at the end of the connection.
async fn message(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut length = 0;
    loop {
        let start = bytes.len();
        stream.read_until(b'\n', &mut bytes).await.ok().filter(|read| *read > 0)?;
        let line = String::from_utf8_lossy(&bytes[start..]).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    stream.read_exact(&mut bytes[start..]).await.ok()?;
    Some(bytes)
}
