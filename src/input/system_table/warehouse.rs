//! A SQL warehouse behind the Statement Execution API: starts a statement, waits for it, hands out its rows.
//!
//! | state | then |
//! |---|---|
//! | `PENDING`, `RUNNING` | asked again; a stopped warehouse takes minutes to start |
//! | `SUCCEEDED` | the rows; too large if the manifest says `truncated` |
//! | `FAILED` | too large if the inline limit is the reason, else an error that says what to do |
//! | `CANCELED`, `CLOSED`, gone | started again at the next try |

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{Answer, ErrorBody, Link, Part, State, WarehouseState};
use super::chunks::{Chunks, Source};
use super::config::{Endpoint, is_loopback};
use super::login::Login;
use super::refusal::{self, Refusal};
use crate::budget::Budget;
use crate::http::{self, Client};
use crate::input::InputError;
use crate::time::Millis;

/// Longest wait for a statement: minutes for a warehouse to start, the rest for the query.
const LONGEST_WAIT: Duration = Duration::from_secs(1800);
/// Waits between looks at a statement; the first look follows at once.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for a cancelled statement.
const CANCEL: Duration = Duration::from_secs(3);
/// Most bytes of an answer: somewhat more than the 25 MiB that a result inline may have.
const LARGEST_ANSWER: usize = 32 << 20;
/// How often a link that expired is asked for again.
const LINK_TRIES: u32 = 3;
/// So far ahead of the workspace's clock, this machine's is wrong; less is the way of the answer, and whole seconds.
const CLOCKS_DIFFER: Duration = Duration::from_secs(30);
const STATEMENTS: &str = "/api/2.0/sql/statements";
const WAREHOUSES: &str = "/api/2.0/sql/warehouses";
/// The table in Unity Catalog's own API, which needs no warehouse and asks for the same rights as reading does.
const THE_TABLE: &str = "/api/2.1/unity-catalog/tables/system.access.audit";

/// A query. Its text is always the same: what changes is bound.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) text: String,
    /// Name, value and SQL type.
    pub(super) parameters: Vec<(&'static str, String, &'static str)>,
}

/// How rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    Inline,
    ExternalLinks,
}

/// Why there are no rows.
enum Failure {
    TooLarge,
    Error(InputError),
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::Error(error)
    }
}

/// A warehouse of one workspace.
#[derive(Debug)]
pub(super) struct Warehouse {
    client: Client,
    endpoint: Endpoint,
    login: Login,
    budget: Budget,
    clock: fn() -> Millis,
    /// By how many milliseconds this machine's clock is ahead of the workspace's, where it is wrong.
    ahead: AtomicU64,
    /// The statement under way: cancelled where nobody waits for it any more.
    running: Mutex<Option<String>>,
}

impl Warehouse {
    pub(super) fn new(client: Client, endpoint: Endpoint, budget: Budget, clock: fn() -> Millis) -> Self {
        let login = Login::new(&endpoint.url, endpoint.credentials.clone());
        Self { client, endpoint, login, budget, clock, ahead: AtomicU64::new(0), running: Mutex::new(None) }
    }

    /// The time of day; by the workspace's clock where this machine's is ahead of it. With the time of the machine, hours
    /// would be read before their rows are there. A clock that is behind only makes rows wait.
    pub(super) fn now(&self) -> Millis {
        (self.clock)().minus(Duration::from_millis(self.ahead.load(Ordering::Relaxed)))
    }

    /// Notes what time it is by the workspace's clock.
    fn note_time(&self, said: Millis) {
        let ahead = said.until((self.clock)());
        let wrong = if ahead > CLOCKS_DIFFER { ahead } else { Duration::ZERO };
        let millis = u64::try_from(wrong.as_millis()).unwrap_or(u64::MAX);
        let before = self.ahead.swap(millis, Ordering::Relaxed);
        match (before, millis) {
            (0, 1..) => tracing::warn!(
                workspace = self.endpoint.url,
                "this machine's clock is {} ahead of the workspace's, by whose time the table is read; set this machine's clock",
                humantime::format_duration(Duration::from_secs(wrong.as_secs()))
            ),
            (1.., 0) => {
                tracing::info!(workspace = self.endpoint.url, "this machine's clock is no longer ahead");
            }
            _ => {}
        }
    }

    /// Asks what time it is by the workspace's clock. Starts no warehouse.
    ///
    /// # Errors
    /// [`InputError`] if the workspace cannot be asked.
    pub(super) async fn learn_time(&self) -> Result<(), InputError> {
        let path = format!("{WAREHOUSES}/{}", self.endpoint.warehouse_id);
        let answer = self.send(Method::GET, &path, Bytes::new()).await?;
        match (answer.status, self.failure(answer.status, "", "", answer.retry_after)) {
            (429 | 500.., Failure::Error(error)) => Err(error),
            // Whatever is wrong, the statement will say it better.
            _ => Ok(()),
        }
    }

    /// The workspace it is in.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Most bytes of an answer: half of the memory, so that what was read before can be on its way meanwhile.
    pub(super) fn answer_bytes(&self) -> usize {
        (self.budget.total() / 2).clamp(1, LARGEST_ANSWER)
    }

    /// Runs a statement until it has rows; gives none if they are more than an answer can hold.
    ///
    /// # Errors
    /// [`InputError`] if it has none; the next try starts over.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        disposition: Disposition,
    ) -> Result<Option<Chunks>, InputError> {
        // One that was left behind by an error.
        self.cancel().await;
        match self.rows(statement, disposition).await {
            Ok(chunks) => Ok(Some(chunks)),
            Err(Failure::TooLarge) => {
                self.cancel().await;
                Ok(None)
            }
            Err(Failure::Error(error)) => Err(error),
        }
    }

    async fn rows(&self, statement: &Statement, disposition: Disposition) -> Result<Chunks, Failure> {
        // Taken before the statement is started: a result must not expire while it waits for memory.
        let credit = self.budget.take(self.answer_bytes()).await;
        let mut body = self.call(Method::POST, STATEMENTS, self.request(statement, disposition)).await?;
        let (started, mut wait) = (Instant::now(), Duration::ZERO);
        loop {
            let answer: Answer<'_> = self.parse(&body)?;
            let id = answer.statement_id;
            match answer.status.state {
                State::Pending | State::Running => {}
                State::Succeeded => {
                    self.set_running(None);
                    let manifest = answer.manifest.unwrap_or_default();
                    if manifest.truncated {
                        return Err(Failure::TooLarge);
                    }
                    let (source, next) = self.open(&id, 0, &body, answer.result.unwrap_or_default()).await?;
                    // Further chunks may be as large as the answer.
                    if next.is_none() || matches!(source, Source::Pieces(_)) {
                        credit.shrink_to(source.bytes());
                    }
                    return Ok(Chunks::new(id, source, next, manifest.total_row_count, credit));
                }
                State::Failed | State::Canceled | State::Closed => {
                    self.set_running(None);
                    let error = answer.status.error.unwrap_or_default();
                    let message = match answer.status.state {
                        State::Canceled => "somebody cancelled the statement",
                        _ if error.message.is_empty() => "the statement ended without a result",
                        _ => &error.message,
                    };
                    return Err(self.failure(200, &error.error_code, message, None));
                }
            }
            if started.elapsed() > LONGEST_WAIT {
                let wait = humantime::format_duration(LONGEST_WAIT);
                return Err(self.transient(format!("the statement did not end within {wait}")).into());
            }
            let path = format!("{STATEMENTS}/{id}");
            self.set_running(Some(id));
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            wait = (wait * 2).clamp(FIRST_WAIT, LAST_WAIT);
            body = self.call(Method::GET, &path, Bytes::new()).await?;
        }
    }

    fn request(&self, statement: &Statement, disposition: Disposition) -> Bytes {
        let parameters: Vec<Value> = statement
            .parameters
            .iter()
            .map(|(name, value, kind)| json!({ "name": name, "value": value, "type": kind }))
            .collect();
        let mut request = json!({
            "warehouse_id": self.endpoint.warehouse_id,
            "statement": statement.text,
            "parameters": parameters,
            // At once, so that its id is known and it can be cancelled.
            "wait_timeout": "0s",
            "format": "JSON_ARRAY",
            "disposition": "EXTERNAL_LINKS",
        });
        if disposition == Disposition::Inline
            && let Some(request) = request.as_object_mut()
        {
            // The server counts its own form of the rows; as JSON they are somewhat longer.
            request.insert("byte_limit".to_owned(), json!(self.answer_bytes() / 4 * 3));
            request.insert("disposition".to_owned(), json!("INLINE"));
        }
        request.to_string().into()
    }

    /// The rows of a chunk, or their beginning, and the number of the next chunk.
    pub(super) async fn chunk(&self, id: &str, index: u64) -> Result<(Source, Option<u64>), InputError> {
        let body = self.chunk_body(id, index).await?;
        let part: Part<'_> = self.parse(&body)?;
        self.open(id, index, &body, part).await
    }

    async fn chunk_body(&self, id: &str, index: u64) -> Result<Bytes, InputError> {
        let path = format!("{STATEMENTS}/{id}/result/chunks/{index}");
        self.call(Method::GET, &path, Bytes::new()).await.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::TooLarge => self.transient(format!("chunk {index} of the result is too large")),
        })
    }

    async fn open(
        &self,
        id: &str,
        index: u64,
        body: &Bytes,
        part: Part<'_>,
    ) -> Result<(Source, Option<u64>), InputError> {
        if let Some(rows) = part.data_array {
            return Ok((Source::Text(body.slice_ref(rows.get().as_bytes())), part.next_chunk_index));
        }
        let mut links = part.external_links;
        for tried in 0..LINK_TRIES {
            let Some(link) = links.and_then(|links| links.into_iter().next()) else {
                return Ok((Source::Text(Bytes::new()), part.next_chunk_index));
            };
            // What was asked for just now has expired by a wrong clock only.
            let expires = link.expiration.as_deref().and_then(Millis::parse).filter(|_| tried == 0);
            let expired = expires.is_some_and(|expires| expires <= self.now());
            if !expired && let Some(source) = self.follow(&link).await? {
                return Ok((source, link.next_chunk_index.or(part.next_chunk_index)));
            }
            let body = self.chunk_body(id, index).await?;
            links = self.parse::<Part<'_>>(&body)?.external_links;
        }
        Err(self.transient("the links to the result expire before they can be followed".to_owned()))
    }

    /// Begins to read what a link points to; none if it has expired. The link is in no message, and the credentials are
    /// in no request to it.
    async fn follow(&self, link: &Link) -> Result<Option<Source>, InputError> {
        let url = &link.external_link;
        let safe = url.starts_with("https://") || (self.endpoint.loopback && is_loopback(url));
        if !safe {
            return Err(self.transient("a link to the result does not begin with https://".to_owned()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in link.http_headers.iter().flatten() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        let pieces = self
            .client
            .open(url, headers)
            .await
            .map_err(|failure| refusal::no_answer(self.action(), &failure))?;
        match pieces.status {
            200 => Ok(Some(Source::Pieces(pieces))),
            400..=499 => Ok(None),
            status => Err(self.transient(format!("the storage of the result answered {status}"))),
        }
    }

    /// Cancels what is under way, if anything is.
    pub(super) async fn cancel(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(id) = running {
            let path = format!("{STATEMENTS}/{id}/cancel");
            // It ends by itself if it cannot be cancelled; the rows are read again in any case.
            let _ = tokio::time::timeout(CANCEL, self.call(Method::POST, &path, Bytes::new())).await;
        }
    }

    fn set_running(&self, id: Option<String>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    /// Makes a request; gives the body of a successful answer. A token that is no longer taken is renewed once.
    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let asked = method == Method::GET;
        let mut answer = self.send(method.clone(), path, body.clone()).await?;
        if answer.status == 401 && self.login.renew().await {
            answer = self.send(method, path, body).await?;
        }
        if answer.is_success() {
            return if answer.cut { Err(Failure::TooLarge) } else { Ok(answer.body) };
        }
        if asked && answer.status == 404 {
            let text = "the workspace no longer knows the statement";
            return Err(self.transient(text.to_owned()).into());
        }
        let error: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = self.login.blot(error.message).await;
        Err(self.failure(answer.status, &error.error_code, &message, answer.retry_after))
    }

    /// Whether the warehouse may be used and the table be read, as the workspace says without starting the warehouse.
    ///
    /// # Errors
    /// [`InputError`] if either may not.
    pub(super) async fn probe(&self) -> Result<String, InputError> {
        let id = &self.endpoint.warehouse_id;
        let body = self.look(&format!("{WAREHOUSES}/{id}")).await?;
        let found: WarehouseState = self.parse(&body)?;
        self.look(THE_TABLE).await?;
        Ok(format!("the table can be seen, and warehouse {id} is {}", found.state.to_ascii_lowercase()))
    }

    async fn look(&self, path: &str) -> Result<Bytes, InputError> {
        let mut answer = self.send(Method::GET, path, Bytes::new()).await?;
        if answer.status == 401 && self.login.renew().await {
            answer = self.send(Method::GET, path, Bytes::new()).await?;
        }
        if answer.is_success() {
            return Ok(answer.body);
        }
        let error: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = self.login.blot(error.message).await;
        match self.failure(answer.status, &error.error_code, &message, answer.retry_after) {
            Failure::Error(error) => Err(error),
            Failure::TooLarge => Err(self.transient(message)),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<http::Answer, InputError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.login.header(&self.client).await?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let url = format!("{}{path}", self.endpoint.url);
        let answer = self.client.ask_at(method, &url, headers, body, self.answer_bytes()).await;
        let (answer, said) = answer.map_err(|failure| refusal::no_answer(self.action(), &failure))?;
        if let Some(said) = said {
            self.note_time(said);
        }
        Ok(answer)
    }

    fn parse<'b, T: Deserialize<'b>>(&self, body: &'b Bytes) -> Result<T, InputError> {
        serde_json::from_slice(body).map_err(|error| {
            self.transient(format!("the answer is not that of the API: {error}; check `url`"))
        })
    }

    fn failure(&self, status: u16, code: &str, message: &str, retry_after: Option<Duration>) -> Failure {
        let refusal = Refusal { action: self.action(), status, code, message, retry_after };
        if refusal.is_too_large() {
            return Failure::TooLarge;
        }
        Failure::Error(refusal.of_request(self.login.credentials().keys()))
    }

    pub(super) fn transient(&self, text: String) -> InputError {
        InputError::Transient { action: self.action(), source: text.into() }
    }

    fn action(&self) -> String {
        let Endpoint { url, warehouse_id, .. } = &self.endpoint;
        format!("cannot read system.access.audit with warehouse {warehouse_id} of {url}")
    }
}
