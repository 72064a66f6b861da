//! Requests as a collector reads them off a connection.

use std::io::Read;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(super) headers: Vec<(String, String)>,
    /// Decompressed.
    pub(crate) bytes: Vec<u8>,
    /// The same as text.
    pub(crate) body: String,
    /// The body as it was sent.
    pub(crate) sent: Vec<u8>,
}

impl Received {
    /// A header by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The next request of a connection; none when the client is done.
pub(crate) async fn read_request(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Received> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut request =
        Received { method, path, headers, bytes: Vec::new(), body: String::new(), sent: Vec::new() };
    // The outputs never send chunks: Elasticsearch advises against them.
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.bytes = decompress(request.header("content-encoding"), body.clone());
    request.body = String::from_utf8_lossy(&request.bytes).into_owned();
    request.sent = body;
    Some(request)
}

fn decompress(encoding: Option<&str>, body: Vec<u8>) -> Vec<u8> {
    match encoding {
        None => body,
        Some("zstd") => zstd::decode_all(body.as_slice()).unwrap(),
        Some("deflate") => {
            let mut plain = Vec::new();
            flate2::read::ZlibDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
            plain
        }
        Some("gzip") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
            plain
        }
        Some(other) => panic!("no collector takes {other}"),
    }
}
