//! A server that speaks as much of S3 as is read with, costs little, answers late if told so, and counts. Listings and
//! objects are whatever is given as [`Contents`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::time::Instant;

/// The bucket's name.
pub(crate) const BUCKET: &str = "audit";
/// Keys and folders of a page, as S3 has it.
const PAGE: usize = 1000;
/// Bytes written at once where a connection is slow.
const SLICE_BYTES: u64 = 64 << 10;

/// What is in the bucket.
pub(crate) trait Contents: Send + Sync + 'static {
    /// The keys behind this one that begin so, in order.
    fn keys<'c>(&'c self, prefix: &'c str, after: &'c str) -> Box<dyn Iterator<Item = Listed> + 'c>;
    /// The folders right below a prefix behind this one, in order, each with its slash.
    fn folders<'c>(&'c self, prefix: &'c str, after: &'c str) -> Box<dyn Iterator<Item = String> + 'c>;
    /// An object's version and what is in it.
    fn object(&self, key: &str) -> Option<(Listed, Body)>;
}

/// An object in a listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
    /// Without quotes.
    pub(crate) etag: String,
}

/// What is in an object.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// Each answer comes this long after its request.
    pub(crate) latency: Duration,
    /// Bytes a second that a connection carries; as many as it can where this is none.
    pub(crate) bytes_a_second: Option<u64>,
}

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) listings: AtomicU64,
    /// Keys in the answers.
    pub(crate) keys: AtomicU64,
    pub(crate) objects: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// Listens until the process ends.
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Asked>,
}

impl Store {
    pub(crate) fn start(contents: Arc<dyn Contents>, manners: Manners) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, asked) = (listener.local_addr()?, Arc::<Asked>::default());
        let shared = Arc::clone(&asked);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let serving =
                    Serving { contents: Arc::clone(&contents), manners, asked: Arc::clone(&shared) };
                shared.connections.fetch_add(1, Ordering::Relaxed);
                // A connection that breaks is the reader's to tell: its run fails, or it asks again.
                thread::spawn(move || serving.serve(connection));
            }
        });
        Ok(Self { address, asked })
    }

    /// The lines of an input's table that make it read from here.
    pub(crate) fn input(&self) -> String {
        format!(
            "url = \"s3://{BUCKET}\"\ns3.endpoint = \"http://{}\"\ns3.allow_http = true\n\
             s3.access_key_id = \"benchmark\"\ns3.secret_access_key = \"benchmark\"\n",
            self.address
        )
    }
}

struct Serving {
    contents: Arc<dyn Contents>,
    manners: Manners,
    asked: Arc<Asked>,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    range: Option<(u64, u64)>,
    if_match: Option<String>,
}

impl Serving {
    #[expect(clippy::disallowed_methods, reason = "sleeps on a thread of its own")]
    fn serve(&self, connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let mut writer = connection.try_clone()?;
        let mut reader = BufReader::new(connection);
        while let Some(request) = read_request(&mut reader)? {
            thread::sleep(self.manners.latency);
            let key = request.path.strip_prefix('/').and_then(|path| path.strip_prefix(BUCKET));
            match key.unwrap_or_default().trim_start_matches('/') {
                "" => answer(&mut writer, 200, "", self.list(&request.query).as_bytes())?,
                key => self.object(&mut writer, key, &request)?,
            }
        }
        Ok(())
    }

    /// One page.
    fn list(&self, query: &BTreeMap<String, String>) -> String {
        self.asked.listings.fetch_add(1, Ordering::Relaxed);
        let value = |name: &str| query.get(name).map_or("", String::as_str);
        let prefix = value("prefix");
        let after = [value("continuation-token"), value("start-after")].into_iter().max().unwrap_or_default();
        let (mut page, mut last, mut count) = ("<ListBucketResult>".to_owned(), String::new(), 0);
        // None of the buckets has objects beside folders: a listing by folder is one of folders.
        if query.contains_key("delimiter") {
            for folder in self.contents.folders(prefix, after).take(PAGE) {
                let _ = write!(page, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
                (last, count) = (folder, count + 1);
            }
        } else {
            for Listed { key, size, etag } in self.contents.keys(prefix, after).take(PAGE) {
                let _ = write!(
                    page,
                    "<Contents><Key>{key}</Key><LastModified>2026-01-31T12:00:00.000Z</LastModified>\
                     <ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                );
                (last, count) = (key, count + 1);
                self.asked.keys.fetch_add(1, Ordering::Relaxed);
            }
        }
        if count == PAGE {
            let _ = write!(
                page,
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            );
        }
        page + "</ListBucketResult>"
    }

    fn object(&self, connection: &mut TcpStream, key: &str, request: &Request) -> io::Result<()> {
        self.asked.objects.fetch_add(1, Ordering::Relaxed);
        let Some((Listed { size, etag, .. }, body)) = self.contents.object(key) else {
            return answer(connection, 404, "", b"<Error><Code>NoSuchKey</Code></Error>");
        };
        if request.if_match.as_ref().is_some_and(|wanted| wanted.trim_matches('"') != etag) {
            return answer(connection, 412, "", b"<Error><Code>PreconditionFailed</Code></Error>");
        }
        let range = request.range.map_or(0..size, |(first, last)| first..size.min(last.saturating_add(1)));
        let mut headers = format!("etag: \"{etag}\"\r\nlast-modified: Sat, 31 Jan 2026 12:00:00 GMT\r\n");
        if request.range.is_some() {
            let _ = write!(headers, "content-range: bytes {}-{}/{size}\r\n", range.start, range.end - 1);
        }
        let status = if request.range.is_some() { 206 } else { 200 };
        let length = range.end - range.start;
        write!(connection, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{headers}\r\n")?;
        if request.method == "HEAD" {
            return Ok(());
        }
        match body {
            Body::File(path) => self.copy(File::open(path)?, connection, range),
            Body::Memory(bytes) => self.copy(Cursor::new(bytes), connection, range),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "sleeps on a thread of its own")]
    fn copy(&self, mut body: impl Read + Seek, to: &mut TcpStream, range: Range<u64>) -> io::Result<()> {
        body.seek(SeekFrom::Start(range.start))?;
        let mut left = range.end - range.start;
        let Some(bytes_a_second) = self.manners.bytes_a_second else {
            return io::copy(&mut body.take(left), to).map(drop);
        };
        let mut due = Instant::now();
        while left > 0 {
            let slice = left.min(SLICE_BYTES);
            io::copy(&mut body.by_ref().take(slice), to)?;
            left -= slice;
            due += Duration::from_micros(slice * 1_000_000 / bytes_a_second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

fn answer(connection: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    connection.write_all(&[head.as_bytes(), body].concat())
}

/// Reads a request, which has no body; `None` when the connection has ended.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut request = Request {
        method: method.to_owned(),
        path: decoded(path),
        query: pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect(),
        range: None,
        if_match: None,
    };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(Some(request));
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        let value = value.trim();
        if name.eq_ignore_ascii_case("if-match") {
            request.if_match = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("range") {
            let range = value.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
            request.range =
                range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().unwrap_or(u64::MAX))));
        }
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The lines of an input's table that make it read a directory, or the same from such a server.
pub(crate) fn input(directory: &Path, manners: Option<Manners>) -> io::Result<String> {
    match manners {
        None => Ok(format!("url = {directory:?}\n")),
        Some(manners) => Ok(Store::start(Arc::new(Objects::of_directory(directory)?), manners)?.input()),
    }
}

/// Objects that are written down one by one: those of a directory, and what is put.
#[derive(Debug, Default)]
pub(crate) struct Objects(Mutex<BTreeMap<String, (Listed, Body)>>);

impl Objects {
    /// All files of a directory.
    pub(crate) fn of_directory(root: &Path) -> io::Result<Self> {
        let objects = Self::default();
        objects.walk(root, root)?;
        Ok(objects)
    }

    fn walk(&self, root: &Path, directory: &Path) -> io::Result<()> {
        for entry in directory.read_dir()? {
            let path = entry?.path();
            if path.is_dir() {
                self.walk(root, &path)?;
                continue;
            }
            let key = path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy().into_owned();
            let size = path.metadata()?.len();
            self.insert(Listed { key, size, etag: format!("{size:x}") }, Body::File(path));
        }
        Ok(())
    }

    /// Puts an object in place of what was there.
    pub(crate) fn put(&self, key: &str, content: &[u8]) {
        let size = content.len() as u64;
        let listed = Listed { key: key.to_owned(), size, etag: format!("{size:x}") };
        self.insert(listed, Body::Memory(content.into()));
    }

    fn insert(&self, listed: Listed, body: Body) {
        self.lock().insert(listed.key.clone(), (listed, body));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Listed, Body)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below(&self, prefix: &str, after: &str, most: usize) -> Vec<Listed> {
        let objects = self.lock();
        let from = prefix.max(after).to_owned();
        let below = objects.range(from..).skip_while(|(key, _)| key.as_str() <= after);
        let below = below.take_while(|(key, _)| key.starts_with(prefix));
        below.take(most).map(|(_, (listed, _))| listed.clone()).collect()
    }
}

impl Contents for Objects {
    fn keys<'c>(&'c self, prefix: &'c str, after: &'c str) -> Box<dyn Iterator<Item = Listed> + 'c> {
        Box::new(self.below(prefix, after, PAGE).into_iter())
    }

    fn folders<'c>(&'c self, prefix: &'c str, after: &'c str) -> Box<dyn Iterator<Item = String> + 'c> {
        let mut folders: Vec<String> = Vec::new();
        for Listed { key, .. } in self.below(prefix, "", usize::MAX) {
            let rest = key.get(prefix.len()..).unwrap_or_default();
            if let Some((name, _)) = rest.split_once('/') {
                folders.push(format!("{prefix}{name}/"));
            }
        }
        folders.dedup();
        folders.retain(|folder| folder.as_str() > after);
        Box::new(folders.into_iter())
    }

    fn object(&self, key: &str) -> Option<(Listed, Body)> {
        self.lock().get(key).cloned()
    }
}
