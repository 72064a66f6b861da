//! The connections to the server: few at once, and none for long on which nothing happens.
//!
//! Whoever reaches the address could otherwise hold open so many that no file and no connection to a collector can be
//! opened any more: a scanner that never says what it wants, or a network that forgets connections without an end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Most connections at once; further ones wait until one ends.
const MOST: usize = 64;
/// After so long without a byte in either direction a connection is closed. Prometheus, which asks about as often, makes a
/// new one then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Accepts connections.
#[derive(Debug)]
pub(super) struct Connections {
    listener: TcpListener,
    free: Arc<Semaphore>,
    patience: Duration,
}

impl Connections {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self::limited(listener, MOST, PATIENCE)
    }

    fn limited(listener: TcpListener, most: usize, patience: Duration) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(most)), patience }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Never closed, so there is always one at last.
        let place = Arc::clone(&self.free).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let silence = Box::pin(sleep(self.patience));
        (Connection { stream, silence, patience: self.patience, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails where nothing was read and nothing written for too long.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    patience: Duration,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn watched<T>(&mut self, done: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.silence.as_mut().reset(Instant::now() + self.patience);
            return done;
        }
        self.silence.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, out);
        self.watched(read, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watched(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    async fn connections(most: usize, patience: Duration) -> (Connections, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Connections::limited(listener, most, patience), address)
    }

    const LONG: &[u8] = &[b'x'; 8 << 20];

    async fn asked(address: SocketAddr, said: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn who_says_nothing_or_takes_nothing_makes_room_for_the_next() {
        let (connections, address) = connections(3, Duration::from_millis(50)).await;
        let routes =
            Router::new().route("/long", get(|| async { LONG })).route("/short", get(|| async { "short" }));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(connections, routes).await });
        let _holding = [
            asked(address, "").await,
            asked(address, "GET /lo").await,
            asked(address, "GET /long HTTP/1.1\r\n\r\n").await,
        ];
        let mut next = asked(address, "GET /short HTTP/1.1\r\n\r\n").await;
        let mut answer = String::new();
        // One that is kept alive is closed too once it is silent.
        timeout(Duration::from_secs(60), next.read_to_string(&mut answer))
            .await
            .expect("it is closed")
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("short"), "{answer}");
    }

    #[tokio::test]
    async fn no_more_are_accepted_than_may_be_open() {
        let (mut connections, address) = connections(1, PATIENCE).await;
        let _clients = [asked(address, "").await, asked(address, "").await];
        let (first, _) = connections.accept().await;
        assert!(timeout(Duration::from_millis(50), connections.accept()).await.is_err());
        drop(first);
        connections.accept().await;
    }
}
