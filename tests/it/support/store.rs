//! A server that speaks S3 well enough to be read from, and misbehaves as servers and networks do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::collector::{Received, read_request};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    InternalError,
    SlowDown,
    /// The connection ends before the answer does.
    Reset,
    /// The answer has no length, and ends early: it looks whole.
    Truncated,
    /// More is announced than comes.
    TooLong,
    /// Less is announced than comes.
    TooShort,
    /// A pause in the middle.
    Stall,
    /// The object is said to be another one by now.
    Moved,
    /// A listing without its first object.
    Missing,
    /// A listing that has its first object twice.
    Repeated,
    /// A listing of the versions before.
    Stale,
}

impl Fault {
    const OF_LISTINGS: &[Self] =
        &[Self::Missing, Self::Repeated, Self::Stale, Self::InternalError, Self::SlowDown, Self::Reset];
    const OF_OBJECTS: &[Self] = &[
        Self::Reset,
        Self::Truncated,
        Self::TooLong,
        Self::TooShort,
        Self::Stall,
        Self::Moved,
        Self::InternalError,
        Self::SlowDown,
    ];
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 11;
}

/// A listing that was asked for, and how many keys and folders it showed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) after: String,
    pub(crate) shown: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Each object's versions.
    objects: BTreeMap<String, Vec<Vec<u8>>>,
    /// One request of so many fails; none if 0.
    one_of: usize,
    requests: usize,
    listings: Vec<Listing>,
    /// Faults of listings and of objects so far: they take turns.
    given: [usize; 2],
    seen: BTreeSet<Fault>,
}

/// A running server with the bucket `audit`; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Store {
    url: String,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

impl Store {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state, _server: server }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Puts a version in place.
    pub(crate) fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let mut state = self.state.lock().unwrap();
        let versions = state.objects.entry(key.to_owned()).or_default();
        versions.push(content.into());
        // Only the last can be read, and only the one before it is listed: a soak puts many.
        if let Some(older) = versions.len().checked_sub(3) {
            versions[older] = Vec::new();
        }
    }

    /// One request of so many fails; none with 0.
    pub(crate) fn fail_one_of(&self, requests: usize) {
        self.state.lock().unwrap().one_of = requests;
    }

    /// All listings so far.
    pub(crate) fn listings(&self) -> Vec<Listing> {
        self.state.lock().unwrap().listings.clone()
    }

    /// How many kinds of faults it has given.
    pub(crate) fn kinds_of_faults(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }
}

/// An answer before anything is done to it.
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: String::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let (answer, fault) = state.lock().unwrap().answer(&request);
        if write(&mut stream, &request, answer, fault).await.is_none() {
            return;
        }
    }
}

/// Writes an answer; `None` if the connection is of no use any more.
async fn write(
    stream: &mut BufStream<TcpStream>,
    request: &Received,
    answer: Answer,
    fault: Option<Fault>,
) -> Option<()> {
    let Answer { status, headers, body } = answer;
    let length = match fault {
        Some(Fault::TooLong) => body.len() + 100,
        Some(Fault::TooShort) => body.len() / 2,
        _ => body.len(),
    };
    let length = match fault {
        Some(Fault::Truncated) => "connection: close".to_owned(),
        _ => format!("content-length: {length}"),
    };
    let head = format!("HTTP/1.1 {status} x\r\n{length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let (first, second) = body.split_at(body.len() / 2);
    if request.method != "HEAD" {
        stream.write_all(first).await.ok()?;
        stream.flush().await.ok()?;
        match fault {
            Some(Fault::Reset | Fault::Truncated) => return None,
            Some(Fault::Stall) => tokio::time::sleep(Duration::from_millis(300)).await,
            _ => {}
        }
        stream.write_all(second).await.ok()?;
    }
    stream.flush().await.ok()?;
    (!matches!(fault, Some(Fault::TooLong | Fault::TooShort))).then_some(())
}

impl State {
    fn answer(&mut self, request: &Received) -> (Answer, Option<Fault>) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let path = decoded(path);
        let key = path.strip_prefix("/audit").unwrap_or_default().trim_start_matches('/').to_owned();
        let is_listing = key.is_empty();
        let fault = self.fault(is_listing).filter(|_| request.method != "HEAD");
        self.seen.extend(fault);
        let answer = match fault {
            Some(Fault::InternalError) => Answer::error(500, "InternalError"),
            Some(Fault::SlowDown) => Answer::error(503, "SlowDown"),
            Some(Fault::Moved) => Answer::error(412, "PreconditionFailed"),
            _ if is_listing => {
                let value = |name: &str| {
                    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                    pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).next()
                };
                let (prefix, after) = (value("prefix"), value("start-after"));
                let (prefix, after) = (prefix.unwrap_or_default(), after.unwrap_or_default());
                self.list(prefix, after, value("delimiter").is_some(), fault)
            }
            _ => self.object(&key, request),
        };
        (answer, fault)
    }

    /// What goes wrong with the next request.
    fn fault(&mut self, is_listing: bool) -> Option<Fault> {
        self.requests += 1;
        if self.one_of == 0 || !self.requests.is_multiple_of(self.one_of) {
            return None;
        }
        let kinds = if is_listing { Fault::OF_LISTINGS } else { Fault::OF_OBJECTS };
        let given = &mut self.given[usize::from(is_listing)];
        *given += 1;
        Some(kinds[*given % kinds.len()])
    }

    fn list(&mut self, prefix: String, after: String, by_folder: bool, fault: Option<Fault>) -> Answer {
        let (mut entries, mut folders) = (Vec::new(), BTreeSet::new());
        for (key, versions) in self.objects.range(prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&prefix) else { break };
            if *key <= after {
                continue;
            }
            if let (true, Some((folder, _))) = (by_folder, rest.split_once('/')) {
                folders.insert(format!("{prefix}{folder}/"));
                continue;
            }
            let shown = match fault {
                Some(Fault::Stale) => versions.len().saturating_sub(2),
                _ => versions.len() - 1,
            };
            entries.push(format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-05T12:00:00.000Z</LastModified>\
                 <ETag>&quot;v{shown}&quot;</ETag><Size>{}</Size></Contents>",
                versions[shown].len()
            ));
        }
        match (fault, entries.first().cloned()) {
            (Some(Fault::Missing), Some(_)) => drop(entries.remove(0)),
            (Some(Fault::Repeated), Some(first)) => entries.push(first),
            _ => {}
        }
        let mut body = format!("<ListBucketResult>{}", entries.concat());
        for folder in &folders {
            let _ = write!(body, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
        }
        self.listings.push(Listing { shown: entries.len() + folders.len(), prefix, after });
        Answer::new(200, body + "</ListBucketResult>")
    }

    fn object(&self, key: &str, request: &Received) -> Answer {
        let Some(versions) = self.objects.get(key) else { return Answer::error(404, "NoSuchKey") };
        let (content, etag) = (versions.last().unwrap(), format!("\"v{}\"", versions.len() - 1));
        if request.header("if-match").is_some_and(|wanted| wanted != etag) {
            return Answer::error(412, "PreconditionFailed");
        }
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes="));
        let range = range.and_then(|range| range.split_once('-')).map(|(first, last)| {
            let last = last.parse().unwrap_or(usize::MAX).min(content.len() - 1);
            (first.parse::<usize>().unwrap(), last)
        });
        let mut answer = match range {
            Some((first, last)) => Answer::new(206, &content[first..=last]),
            None => Answer::new(200, content.as_slice()),
        };
        let _ = write!(answer.headers, "etag: {etag}\r\nlast-modified: Mon, 05 Jan 2026 12:00:00 GMT\r\n");
        if let Some((first, last)) = range {
            let _ = write!(answer.headers, "content-range: bytes {first}-{last}/{}\r\n", content.len());
        }
        answer
    }
}
