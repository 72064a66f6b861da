//! A Databricks workspace in process: OAuth, the Statement Execution API, the storage behind its links, and a table
//! whose rows arrive when a test says so. It follows the documented protocol and refuses what that does not allow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use auditferry::time::Millis;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

mod answers;

/// The one warehouse there is.
pub(crate) const WAREHOUSE: &str = "4f2ab917c0de55e1";
/// The service principal and its secret.
pub(crate) const CLIENT: (&str, &str) = ("8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f", "hunter2-secret");
/// A personal access token.
pub(crate) const TOKEN: &str = "dapi-hunter2";

const STATEMENTS: &str = "/api/2.0/sql/statements";

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct TableRow {
    pub(crate) time: Millis,
    /// When a query can see it.
    pub(crate) arrives: Millis,
    pub(crate) id: String,
    text: String,
}

impl TableRow {
    /// A small row.
    pub(crate) fn new(time: Millis, arrives: Millis, number: u64) -> Self {
        Self::padded(time, arrives, number, 0, false)
    }

    /// A row with a parameter of so many bytes.
    pub(crate) fn padded(
        time: Millis,
        arrives: Millis,
        number: u64,
        pad: usize,
        account_level: bool,
    ) -> Self {
        // A UUID, as far from the order of time as real ones are.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = format!("{:08x}-{:04x}-3000-8000-{number:012x}", mixed >> 32, mixed >> 16 & 0xffff);
        let (workspace, level) =
            if account_level { ("0", "ACCOUNT_LEVEL") } else { ("2748391056473829", "WORKSPACE_LEVEL") };
        let params =
            json!({ "user": "dana@example.com", "number": number.to_string(), "pad": "x".repeat(pad) });
        let cells = json!([
            "5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10",
            workspace,
            "2.0",
            time.get().to_string(),
            time.date().to_string(),
            "198.51.100.24",
            "Mozilla/5.0",
            null,
            r#"{"email":"dana@example.com"}"#,
            "accounts",
            "login",
            format!("ServiceMain-{number}"),
            params.to_string(),
            r#"{"status_code":200}"#,
            level,
            id,
            null
        ]);
        Self { time, arrives, id, text: cells.to_string() }
    }
}

/// What a user has forgotten to grant, or got wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rights {
    pub(crate) no_can_use: bool,
    pub(crate) no_use_schema: bool,
    pub(crate) no_select: bool,
    /// The schema is not enabled, or the table is gone.
    pub(crate) no_table: bool,
}

#[derive(Debug)]
struct Statement {
    external: bool,
    /// Looks until it is done: a warehouse that starts.
    pending: u32,
    canceled: bool,
    error: Option<(&'static str, String)>,
    rows: Vec<String>,
    truncated: bool,
}

#[derive(Debug)]
struct State {
    rows: Vec<TableRow>,
    rights: Rights,
    secret: String,
    tokens: HashMap<String, Millis>,
    granted: u64,
    statements: HashMap<String, Statement>,
    pending: u32,
    chunk_rows: usize,
    links: HashMap<String, (String, usize, Millis)>,
    links_given: u64,
    expired_links: u32,
    link_life: Duration,
    busy: Vec<(u16, String)>,
    broken_links: u32,
    short_links: u32,
    link_address: Option<String>,
    /// Answers say what time it is.
    dated: bool,
    end: Option<&'static str>,
    honours_byte_limit: bool,
    /// Paths as they were asked for, without what signs a link.
    log: Vec<String>,
    faults: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    url: String,
    now: fn() -> Millis,
    state: Mutex<State>,
}

/// A running workspace; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl Workspace {
    /// Starts one on a free local port, with its own idea of the time.
    pub(crate) async fn start(now: fn() -> Millis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            rows: Vec::new(),
            rights: Rights::default(),
            secret: CLIENT.1.to_owned(),
            tokens: HashMap::new(),
            granted: 0,
            statements: HashMap::new(),
            pending: 0,
            chunk_rows: usize::MAX,
            links: HashMap::new(),
            links_given: 0,
            expired_links: 0,
            link_life: Duration::from_secs(900),
            busy: Vec::new(),
            broken_links: 0,
            short_links: 0,
            link_address: None,
            dated: false,
            end: None,
            honours_byte_limit: true,
            log: Vec::new(),
            faults: Vec::new(),
        };
        let shared = Arc::new(Shared { url, now, state: Mutex::new(state) });
        let mut server = JoinSet::new();
        let serving = Arc::clone(&shared);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { shared, _server: server }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub(crate) fn url(&self) -> &str {
        &self.shared.url
    }

    /// Adds rows to the table.
    pub(crate) fn insert(&self, rows: impl IntoIterator<Item = TableRow>) {
        let mut state = self.state();
        state.rows.extend(rows);
        state.rows.sort_by(|a, b| (a.time.get(), &a.id).cmp(&(b.time.get(), &b.id)));
    }

    pub(crate) fn set_rights(&self, rights: Rights) {
        self.state().rights = rights;
    }

    /// Takes another secret than the usual one from now on, and no token given for that.
    pub(crate) fn set_secret(&self, secret: &str) {
        let mut state = self.state();
        state.secret = secret.to_owned();
        state.tokens.clear();
    }

    /// Takes no token that was given so far: as after a revocation.
    pub(crate) fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// How many tokens were given.
    pub(crate) fn tokens_given(&self) -> u64 {
        self.state().granted
    }

    /// Statements stay `PENDING` for so many looks: the warehouse was stopped.
    pub(crate) fn set_pending(&self, looks: u32) {
        self.state().pending = looks;
    }

    /// Most rows of a chunk of a result.
    pub(crate) fn set_chunk_rows(&self, rows: usize) {
        self.state().chunk_rows = rows;
    }

    /// So many links have expired when they are given.
    pub(crate) fn expire_links(&self, links: u32) {
        self.state().expired_links = links;
    }

    /// So many of the files behind links break off in the middle.
    pub(crate) fn break_links(&self, links: u32) {
        self.state().broken_links = links;
    }

    /// Says nothing of a `byte_limit` and aborts what is larger than an answer may be, as servers do without one.
    pub(crate) fn ignore_byte_limit(&self) {
        self.state().honours_byte_limit = false;
    }

    /// So many of the files behind links lack their last row, and look whole all the same.
    pub(crate) fn shorten_links(&self, links: u32) {
        self.state().short_links = links;
    }

    /// Links begin like this in place of the workspace's own address.
    pub(crate) fn link_to(&self, address: &str) {
        self.state().link_address = Some(address.to_owned());
    }

    /// Answers say what time it is, as those of real servers do.
    pub(crate) fn say_the_time(&self) {
        self.state().dated = true;
    }

    /// The next statement ends like this: `CANCELED`, `CLOSED`, or `GONE`.
    pub(crate) fn end_next(&self, state: &'static str) {
        self.state().end = Some(state);
    }

    /// Answers the next requests of the API with these statuses and `Retry-After`.
    pub(crate) fn be_busy(&self, answers: &[(u16, &str)]) {
        self.state().busy.extend(answers.iter().map(|(status, after)| (*status, (*after).to_owned())));
    }

    /// What was asked for, `METHOD /path`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Requests whose log line contains this.
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.state().log.iter().filter(|line| line.contains(what)).count()
    }

    /// Statements that were started and neither ended nor were cancelled.
    pub(crate) fn left_running(&self) -> usize {
        self.state().statements.values().filter(|run| run.pending > 0 && !run.canceled).count()
    }

    /// Statements that were cancelled.
    pub(crate) fn canceled(&self) -> usize {
        self.state().statements.values().filter(|run| run.canceled).count()
    }

    /// Fails the test if the protocol was violated.
    pub(crate) fn was_spoken_to_properly(&self) {
        let state = self.state();
        assert!(state.faults.is_empty(), "{:#?}", state.faults);
    }
}

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Reply {
    status: u16,
    headers: String,
    body: String,
    breaks_off: bool,
}

fn reply(status: u16, body: &Value) -> Reply {
    Reply { status, headers: String::new(), body: body.to_string(), breaks_off: false }
}

fn text(body: String) -> Reply {
    Reply { status: 200, headers: String::new(), body, breaks_off: false }
}

fn refuse(status: u16, code: &str, message: &str) -> Reply {
    reply(status, &json!({ "error_code": code, "message": message }))
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let Reply { status, mut headers, body, breaks_off } = shared.answer(&request);
        if shared.state.lock().unwrap().dated {
            let now = jiff::Timestamp::from_millisecond((shared.now)().get()).unwrap();
            headers.push_str(&now.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string());
        }
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        let sent = if breaks_off { &body[..body.len() / 2] } else { &body };
        if stream.write_all(head.as_bytes()).await.is_err()
            || stream.write_all(sent.as_bytes()).await.is_err()
        {
            return;
        }
        if stream.flush().await.is_err() || breaks_off {
            return;
        }
    }
}

async fn read_request(stream: &mut BufStream<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, path, headers, body })
}

impl Shared {
    fn answer(&self, request: &Request) -> Reply {
        let mut state = self.state.lock().unwrap();
        let path = request.path.split('?').next().unwrap().to_owned();
        state.log.push(format!("{} {path}", request.method));
        let now = (self.now)();
        if path.starts_with("/storage/") {
            return state.storage(&path, request, now);
        }
        if path == "/oidc/v1/token" {
            return state.token(request, now);
        }
        let bearer = request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let valid = |token: &str| token == TOKEN || state.tokens.get(token).is_some_and(|until| now < *until);
        if !bearer.is_some_and(valid) {
            return refuse(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type.");
        }
        if let Some((status, after)) = (!state.busy.is_empty()).then(|| state.busy.remove(0)) {
            let busy = refuse(status, "REQUEST_LIMIT_EXCEEDED", "too many requests");
            return Reply { headers: format!("retry-after: {after}\r\n"), ..busy };
        }
        if request.method == "GET" && !path.starts_with(STATEMENTS) {
            return state.described(&path);
        }
        let below = path.strip_prefix(STATEMENTS).unwrap_or("?");
        let parts: Vec<&str> = below.split('/').skip(1).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", []) if below.is_empty() => state.start(request, now),
            ("GET", [id]) => state.look(id, now, &self.url),
            ("GET", [id, "result", "chunks", index]) => {
                let index = index.parse().unwrap();
                match state.statements.contains_key(*id) {
                    true => text(state.chunk(id, index, now, &self.url)),
                    false => refuse(404, "NOT_FOUND", &format!("The statement {id} was not found.")),
                }
            }
            ("POST", [id, "cancel"]) => {
                if let Some(statement) = state.statements.get_mut(*id) {
                    statement.canceled = statement.pending > 0;
                }
                reply(200, &json!({}))
            }
            _ => refuse(404, "ENDPOINT_NOT_FOUND", &format!("No API found for '{} {path}'", request.method)),
        }
    }
}
