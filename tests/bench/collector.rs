//! A collector that takes everything, at once or after a while, and costs next to nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use zstd::zstd_safe;

/// Read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// What has arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    pub(crate) requests: u64,
    /// Bytes of the bodies as they came.
    pub(crate) body_bytes: u64,
    /// Bytes of the bodies before they were compressed.
    pub(crate) uncompressed_bytes: u64,
}

/// Listens until the process ends.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    /// Each answer comes this long after the request.
    pub(crate) fn start(latency: Duration) -> io::Result<Self> {
        Self::telling(latency, mpsc::channel().0)
    }

    /// The same; tells besides when each request was there to its end.
    pub(crate) fn telling(latency: Duration, arrived: mpsc::Sender<Instant>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let received = Arc::<Mutex<Received>>::default();
        let shared = Arc::clone(&received);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (received, arrived) = (Arc::clone(&shared), arrived.clone());
                // A connection that breaks is the shipper's to tell: its run fails.
                thread::spawn(move || serve(connection, latency, &received, &arrived));
            }
        });
        Ok(Self { address, received })
    }

    pub(crate) fn received(&self) -> Received {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "sleeps on a thread of its own")]
fn serve(
    mut connection: TcpStream,
    latency: Duration,
    received: &Mutex<Received>,
    arrived: &mpsc::Sender<Instant>,
) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(BLOCK_BYTES, connection.try_clone()?);
    while let Some(head) = read_head(&mut reader)? {
        let uncompressed_bytes = drain(&mut reader, head.content_length)?;
        // Mostly nobody wants to know.
        let _ignored = arrived.send(Instant::now());
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        received.requests += 1;
        received.body_bytes += head.content_length;
        received.uncompressed_bytes += uncompressed_bytes;
        drop(received);
        thread::sleep(latency);
        let (body, length) = (head.answer, head.answer.len());
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        connection.write_all(answer.as_bytes())?;
    }
    Ok(())
}

struct Head {
    content_length: u64,
    /// What this kind of collector says when all is well.
    answer: &'static str,
}

/// Reads a request up to its body; `None` when the connection has ended.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let answer = if line.contains("/_bulk") {
        r#"{"took":1,"errors":false,"items":[]}"#
    } else {
        r#"{"text":"Success","code":0}"#
    };
    let mut content_length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(Some(Head { content_length, answer }));
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            content_length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
}

/// Longest beginning of a zstd frame that says how long its content is.
const ZSTD_HEAD_BYTES: u64 = 18;

/// Reads a body to its end, and from it how long it is uncompressed: zstd says so at its beginning, gzip at its end.
fn drain(reader: &mut impl BufRead, bytes: u64) -> io::Result<u64> {
    let mut head = Vec::new();
    reader.take(ZSTD_HEAD_BYTES.min(bytes)).read_to_end(&mut head)?;
    let (mut rest, mut length) = (head.clone(), [0; 4]);
    let middle = bytes.saturating_sub(ZSTD_HEAD_BYTES + 4);
    io::copy(&mut reader.take(middle), &mut io::sink())?;
    reader.take(bytes - head.len() as u64 - middle).read_to_end(&mut rest)?;
    if let Ok(Some(length)) = zstd_safe::get_frame_content_size(&head) {
        return Ok(length);
    }
    if let Some(end) = rest.last_chunk() {
        length = *end;
    }
    Ok(u32::from_le_bytes(length).into())
}
