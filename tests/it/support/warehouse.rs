//! A Databricks workspace in process: OAuth, the Statement Execution API, the storage behind its links, and a table
//! whose rows arrive when a test says so. It follows the documented protocol and refuses what that does not allow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use auditferry::time::Millis;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The one warehouse there is.
pub(crate) const WAREHOUSE: &str = "4f2ab917c0de55e1";
/// The service principal and its secret.
pub(crate) const CLIENT: (&str, &str) = ("8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f", "hunter2-secret");
/// A personal access token.
pub(crate) const TOKEN: &str = "dapi-hunter2";

const STATEMENTS: &str = "/api/2.0/sql/statements";
const INLINE_LIMIT: usize = 26_214_400;
const COLUMNS: usize = 17;
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

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
        let Reply { status, headers, body, breaks_off } = shared.answer(&request);
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

impl State {
    fn token(&mut self, request: &Request, now: Millis) -> Reply {
        let wanted = format!("Basic {}", STANDARD.encode(format!("{}:{}", CLIENT.0, self.secret)));
        if request.body != b"grant_type=client_credentials&scope=all-apis" {
            self.faults.push(format!("token form {}", String::from_utf8_lossy(&request.body)));
        }
        if request.headers.get("authorization") != Some(&wanted) {
            let denied =
                json!({ "error": "invalid_client", "error_description": "Client authentication failed" });
            return reply(401, &denied);
        }
        self.granted += 1;
        let token = format!("hunter2-token-{}", self.granted);
        self.tokens.insert(token.clone(), now.plus(TOKEN_LIFE));
        let life = TOKEN_LIFE.as_secs();
        reply(200, &json!({ "access_token": token, "token_type": "Bearer", "expires_in": life }))
    }

    fn start(&mut self, request: &Request, now: Millis) -> Reply {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let known = [
            "warehouse_id",
            "statement",
            "parameters",
            "wait_timeout",
            "on_wait_timeout",
            "disposition",
            "format",
            "byte_limit",
        ];
        for key in asked.as_object().unwrap().keys().filter(|key| !known.contains(&key.as_str())) {
            self.faults.push(format!("unknown field {key}"));
        }
        if asked["warehouse_id"] != WAREHOUSE {
            let message = format!("{} is not a valid endpoint id.", asked["warehouse_id"].as_str().unwrap());
            return refuse(400, "INVALID_PARAMETER_VALUE", &message);
        }
        if self.rights.no_can_use {
            let message = "You do not have permission to use the SQL Warehouse.";
            return refuse(403, "PERMISSION_DENIED", message);
        }
        let external = asked["disposition"] == "EXTERNAL_LINKS";
        if asked["format"] != "JSON_ARRAY" || asked["wait_timeout"] != "0s" {
            self.faults.push(format!("{} with {}", asked["format"], asked["wait_timeout"]));
        }
        let run = self.run(&asked, external, now);
        let id = format!("01f0ea20-1111-1222-8333-{:012}", self.statements.len());
        self.statements.insert(id.clone(), run);
        reply(200, &json!({ "statement_id": id, "status": { "state": "PENDING" } }))
    }

    fn run(&mut self, asked: &Value, external: bool, now: Millis) -> Statement {
        let mut run = Statement {
            external,
            pending: self.pending,
            canceled: false,
            error: None,
            rows: Vec::new(),
            truncated: false,
        };
        let denied = |privilege: &str, object: &str| {
            let message = format!(
                "[INSUFFICIENT_PERMISSIONS] Insufficient privileges:\nUser does not have {privilege} on {object}. \
                 SQLSTATE: 42501"
            );
            Some(("BAD_REQUEST", message))
        };
        run.error = match self.rights {
            Rights { no_table: true, .. } => Some((
                "BAD_REQUEST",
                "[TABLE_OR_VIEW_NOT_FOUND] The table or view `system`.`access`.`audit` cannot be found. Verify the \
                 spelling. SQLSTATE: 42P01"
                    .to_owned(),
            )),
            Rights { no_use_schema: true, .. } => denied("USE SCHEMA", "Schema 'system.access'"),
            Rights { no_select: true, .. } => denied("SELECT", "Table 'system.access.audit'"),
            _ => None,
        };
        if run.error.is_some() {
            return run;
        }
        let text = asked["statement"].as_str().unwrap();
        let parameter = |name: &str, kind: &str| {
            let all = asked["parameters"].as_array().unwrap();
            let one = all.iter().find(|one| one["name"] == name).unwrap();
            assert_eq!(one["type"], kind);
            assert!(text.contains(&format!(":{name}")));
            one["value"].as_str().unwrap().to_owned()
        };
        assert!(
            text.contains("FROM system.access.audit WHERE") && !text.contains('*') && !text.contains('\'')
        );
        let (first, last) = (parameter("first_date", "DATE"), parameter("last_date", "DATE"));
        let from: i64 = parameter("from_millis", "BIGINT").parse().unwrap();
        let to: i64 = parameter("to_millis", "BIGINT").parse().unwrap();
        let begin = self.rows.partition_point(|row| row.time.get() < from);
        let end = self.rows.partition_point(|row| row.time.get() < to);
        let seen = self.rows[begin..end].iter().filter(|row| row.arrives <= now);
        let dated = |row: &&TableRow| {
            (first.as_str()..=last.as_str()).contains(&row.time.date().to_string().as_str())
        };
        let seen: Vec<&TableRow> = seen.filter(dated).collect();
        if text.contains("GROUP BY hour") {
            let mut hours: Vec<(i64, u64)> = Vec::new();
            for row in seen {
                let hour = row.time.get() / 3_600_000;
                match hours.last_mut() {
                    Some((last, count)) if *last == hour => *count += 1,
                    _ => hours.push((hour, 1)),
                }
            }
            run.rows = hours
                .iter()
                .map(|(hour, count)| json!([hour.to_string(), count.to_string()]).to_string())
                .collect();
            return run;
        }
        assert!(text.contains("ORDER BY event_time, event_id"));
        let limit = asked["byte_limit"]
            .as_u64()
            .filter(|_| self.honours_byte_limit)
            .map(|limit| usize::try_from(limit).unwrap());
        let mut bytes = 0;
        for row in seen {
            bytes += row.text.len() + 1;
            if limit.is_some_and(|limit| bytes > limit) {
                run.truncated = true;
                break;
            }
            if !external && bytes > INLINE_LIMIT {
                let message = format!(
                    "Inline byte limit exceeded. Statements executed with disposition=INLINE can have a result size of \
                     at most {INLINE_LIMIT} bytes. Please execute the statement with disposition=EXTERNAL_LINKS if you \
                     want to download the full result."
                );
                run.error = Some(("BAD_REQUEST", message));
                run.rows.clear();
                break;
            }
            run.rows.push(row.text.clone());
        }
        run
    }

    fn look(&mut self, id: &str, now: Millis, url: &str) -> Reply {
        let Some(run) = self.statements.get_mut(id) else {
            return refuse(404, "NOT_FOUND", &format!("The statement {id} was not found."));
        };
        if run.canceled {
            return reply(200, &json!({ "statement_id": id, "status": { "state": "CANCELED" } }));
        }
        if run.pending > 0 {
            run.pending -= 1;
            let state = if run.pending > 1 { "PENDING" } else { "RUNNING" };
            return reply(200, &json!({ "statement_id": id, "status": { "state": state } }));
        }
        if let Some((code, message)) = &run.error {
            let error = json!({ "error_code": code, "message": message });
            return reply(
                200,
                &json!({ "statement_id": id, "status": { "state": "FAILED", "error": error } }),
            );
        }
        let (rows, truncated) = (run.rows.len(), run.truncated);
        let chunks = rows.div_ceil(self.chunk_rows.min(rows.max(1)));
        let manifest = json!({
            "format": "JSON_ARRAY", "schema": { "column_count": COLUMNS }, "total_row_count": rows,
            "total_chunk_count": chunks, "truncated": truncated
        });
        let result = if rows == 0 { "{}".to_owned() } else { self.chunk(id, 0, now, url) };
        let status = json!({ "state": "SUCCEEDED" });
        text(format!(
            r#"{{"statement_id":"{id}","status":{status},"manifest":{manifest},"result":{result}}}"#
        ))
    }

    fn chunk(&mut self, id: &str, index: usize, now: Millis, url: &str) -> String {
        let run = &self.statements[id];
        let size = self.chunk_rows.min(run.rows.len().max(1));
        let rows = run.rows.chunks(size).nth(index).unwrap_or_default();
        let next = ((index + 1) * size < run.rows.len()).then_some(index + 1);
        let mut part = json!({ "chunk_index": index, "row_offset": index * size, "row_count": rows.len() });
        if let Some(next) = next {
            part["next_chunk_index"] = json!(next);
            part["next_chunk_internal_link"] = json!(format!("{STATEMENTS}/{id}/result/chunks/{next}"));
        }
        if !run.external {
            // The rows are text already, and many.
            let part = part.to_string();
            return format!(r#"{},"data_array":[{}]}}"#, part.trim_end_matches('}'), rows.join(","));
        }
        self.links_given += 1;
        let name = format!("/storage/{}", self.links_given);
        let expired = self.expired_links > 0;
        self.expired_links = self.expired_links.saturating_sub(1);
        let until = if expired { now } else { now.plus(self.link_life) };
        self.links.insert(name.clone(), (id.to_owned(), index, until));
        let mut expiration = Vec::new();
        // What the server says of a link's life is not always what the storage thinks of it.
        now.plus(self.link_life).write_rfc3339(&mut expiration);
        let mut link = part.clone();
        link["external_link"] = json!(format!("{url}{name}?sig=hunter2-signature"));
        link["expiration"] = json!(String::from_utf8(expiration).unwrap());
        link["http_headers"] = json!({ "x-amz-server-side-encryption-customer-algorithm": "AES256" });
        part["external_links"] = json!([link]);
        part.to_string()
    }

    fn storage(&mut self, path: &str, request: &Request, now: Millis) -> Reply {
        if request.headers.contains_key("authorization") {
            self.faults.push("credentials were sent to the storage".to_owned());
        }
        if !request.headers.contains_key("x-amz-server-side-encryption-customer-algorithm") {
            self.faults.push("a link's own headers were left out".to_owned());
        }
        if !request.path.ends_with("?sig=hunter2-signature") {
            self.faults.push(format!("{} is not what was given", request.path));
        }
        let Some((id, index, until)) = self.links.get(path).cloned() else {
            return refuse(404, "", "");
        };
        if now >= until {
            return Reply {
                body: "<Error><Code>AccessDenied</Code></Error>".to_owned(),
                ..refuse(403, "", "")
            };
        }
        let run = &self.statements[&id];
        let size = self.chunk_rows.min(run.rows.len().max(1));
        let rows = run.rows.chunks(size).nth(index).unwrap_or_default();
        let breaks_off = self.broken_links > 0;
        self.broken_links = self.broken_links.saturating_sub(1);
        Reply { status: 200, headers: String::new(), body: format!("[{}]", rows.join(",")), breaks_off }
    }
}
