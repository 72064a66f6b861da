//! A forward proxy that connects to where it is told, and remembers where that was.

use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A running proxy; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    url: String,
    targets: Arc<Mutex<Vec<String>>>,
    _server: JoinSet<()>,
}

impl Proxy {
    /// Starts one, that is spoken to over TLS if it has a certificate.
    pub(crate) async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let targets: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut server = JoinSet::new();
        let seen = Arc::clone(&targets);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, seen) = (tls.clone(), Arc::clone(&seen));
                connections.spawn(async move {
                    match tls {
                        None => tunnel(stream, &seen).await,
                        Some(config) => {
                            tunnel(TlsAcceptor::from(config).accept(stream).await.ok()?, &seen).await
                        }
                    }
                });
            }
        });
        Self { url, targets, _server: server }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it was told to connect to.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }
}

async fn tunnel(stream: impl AsyncRead + AsyncWrite + Unpin, targets: &Mutex<Vec<String>>) -> Option<()> {
    let mut client = BufStream::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        client.read_line(&mut head).await.ok().filter(|read| *read > 0)?;
    }
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    targets.lock().unwrap().push(target.clone());
    let mut server = TcpStream::connect(target).await.ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    client.flush().await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
