//! Scripted collectors: servers on a local port that keep what they are sent and answer as a test tells them.
//!
//! Plain TCP instead of a server library, since a collector has to misbehave: hang up, talk garbage, stop half-way.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

// Named by its path, since the end-to-end tests take this file from elsewhere.
#[path = "collector/apis.rs"]
pub(crate) mod apis;

/// What a collector speaks when its script is empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    Hec,
    Sumo,
    /// `_bulk` of Elasticsearch: a document created twice is answered with 409.
    Bulk,
    /// Lines or an array of JSON.
    Any,
    Datadog,
    /// The Logs Ingestion API; the tokens for it come from here too.
    Sentinel,
    Otlp,
    /// What it knows already, it ignores.
    Loki,
    SecOps,
}

/// One answer of a script.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    status: u16,
    body: String,
    headers: Vec<(String, String)>,
    keep: usize,
    delay: Duration,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// None at all: the protocol's own answer.
    Usual,
    HangUp,
    Garbage,
    HalfAnswer,
}

impl Step {
    /// This status and body; the events are not kept.
    pub(crate) fn answer(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            headers: Vec::new(),
            keep: 0,
            delay: Duration::ZERO,
            fault: Fault::None,
        }
    }

    /// What the protocol answers without a script.
    pub(crate) fn usual() -> Self {
        Self { fault: Fault::Usual, ..Self::answer(200, "") }
    }

    /// Closes the connection without an answer.
    pub(crate) fn hang_up() -> Self {
        Self { fault: Fault::HangUp, ..Self::answer(200, "") }
    }

    /// Answers with something that is not HTTP.
    pub(crate) fn garbage() -> Self {
        Self { fault: Fault::Garbage, ..Self::answer(200, "") }
    }

    /// Announces more body than it sends, then closes the connection.
    pub(crate) fn half_answer(body: impl Into<String>) -> Self {
        Self { fault: Fault::HalfAnswer, ..Self::answer(200, body) }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before it answers; what it keeps, it keeps at once.
    pub(crate) fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Keeps the events all the same: they have arrived, whatever the answer says.
    pub(crate) fn keeping(self) -> Self {
        self.keeping_first(usize::MAX)
    }

    /// Keeps the first events all the same.
    pub(crate) fn keeping_first(mut self, count: usize) -> Self {
        self.keep = count;
        self
    }
}

/// What `_bulk` says of one document.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    status: u16,
    kind: String,
    reason: String,
}

impl Item {
    pub(crate) fn new(status: u16, kind: &str, reason: &str) -> Self {
        Self { status, kind: kind.to_owned(), reason: reason.to_owned() }
    }

    /// A status with the error that usually comes with it.
    pub(crate) fn of(status: u16) -> Self {
        let kind = match status {
            409 => "version_conflict_engine_exception",
            429 => "es_rejected_execution_exception",
            _ => "document_parsing_exception",
        };
        Self::new(status, kind, "refused")
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
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

/// An event that arrived: as the collector's users see it, and what it was wrapped in.
#[derive(Clone, Debug)]
struct Event {
    id: String,
    document: Value,
    envelope: Value,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Step>,
    script_everything: bool,
    down: Option<u16>,
    /// A header and its value that requests must have.
    wanted: Option<(String, String)>,
    most_bytes: Option<usize>,
    poison: Option<String>,
    items: VecDeque<Vec<Item>>,
    acknowledging: Option<bool>,
    sticky: bool,
    /// By channel: the numbers it gave, in order.
    acks: HashMap<String, Vec<Promise>>,
    given_tokens: usize,
    received: Vec<Received>,
    events: Vec<Event>,
    ids: HashSet<String>,
}

/// HEC: the events of a request, and whether a poll was told that they are safe.
#[derive(Debug)]
struct Promise {
    ids: Vec<String>,
    told: bool,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    state: Mutex<State>,
    changed: Notify,
    connections: AtomicUsize,
}

/// A running collector; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    url: String,
    shared: Arc<Shared>,
    server: JoinSet<()>,
}

impl Collector {
    /// Starts one on a free local port.
    pub(crate) async fn start(protocol: Protocol) -> Self {
        Self::start_with(protocol, None).await
    }

    /// Starts one that speaks TLS.
    pub(crate) async fn start_tls(protocol: Protocol, tls: Arc<ServerConfig>) -> Self {
        Self::start_with(protocol, Some(tls)).await
    }

    async fn start_with(protocol: Protocol, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            protocol,
            state: Mutex::default(),
            changed: Notify::new(),
            connections: AtomicUsize::new(0),
        });
        let mut server = JoinSet::new();
        server.spawn(listen(listener, tls, Arc::clone(&shared)));
        Self { url, shared, server }
    }

    /// Ends it as `kill -9` does: nobody listens any more, and what is under way gets no answer. HEC: what no poll was told
    /// to be safe is lost with it, and so are its promises. Gives how many events that are.
    pub(crate) async fn crash(&mut self) -> usize {
        self.server.shutdown().await;
        let mut state = self.state();
        let acks = std::mem::take(&mut state.acks);
        let owed = acks.into_values().flatten().filter(|promise| !promise.told);
        let mut owed: Vec<String> = owed.flat_map(|promise| promise.ids).collect();
        let before = state.events.len();
        // An event that came twice may be safe once.
        state.events.retain(|event| match owed.iter().position(|id| *id == event.id) {
            Some(index) => {
                owed.swap_remove(index);
                false
            }
            None => true,
        });
        before - state.events.len()
    }

    /// Listens again where it did.
    pub(crate) async fn rise(&mut self) {
        let listener = TcpListener::bind(self.address()).await.unwrap();
        self.server.spawn(listen(listener, None, Arc::clone(&self.shared)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Its address, without a path.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, address)| address)
    }

    /// What it speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        self.shared.protocol
    }

    /// Adds an answer to the script. Each is given once, in order; then the protocol's own follow.
    pub(crate) fn push(&self, step: Step) {
        self.state().script.push_back(step);
    }

    /// The script answers health checks and polls too, not events alone.
    pub(crate) fn script_everything(&self) {
        self.state().script_everything = true;
    }

    /// Answers everything with this status, or, with none, is back.
    pub(crate) fn set_down(&self, status: Option<u16>) {
        self.state().down = status;
    }

    /// Refuses requests without this `Authorization`.
    pub(crate) fn want_authorization(&self, value: &str) {
        self.want_header("authorization", value);
    }

    /// Refuses requests without this header, named in lower case; `:path` stands for the path.
    pub(crate) fn want_header(&self, name: &str, value: &str) {
        self.state().wanted = Some((name.to_owned(), value.to_owned()));
    }

    /// Answers 413 to longer bodies (uncompressed).
    pub(crate) fn set_most_bytes(&self, bytes: usize) {
        self.state().most_bytes = Some(bytes);
    }

    /// Refuses events whose text contains this, in the protocol's way.
    pub(crate) fn set_poison(&self, text: &str) {
        self.state().poison = Some(text.to_owned());
    }

    /// `_bulk`: answers the first documents of a coming request with these.
    pub(crate) fn push_items(&self, items: Vec<Item>) {
        self.state().items.push_back(items);
    }

    /// HEC: promises acknowledgement, and says whether requests are acknowledged when asked.
    pub(crate) fn set_acknowledging(&self, done: bool) {
        self.state().acknowledging = Some(done);
    }

    /// HEC: sets a cookie, and knows a number only where the poll brings it back.
    pub(crate) fn set_sticky(&self) {
        self.state().sticky = true;
    }

    /// HEC: the ids of the events that a poll was told to be safe.
    pub(crate) fn safe_ids(&self) -> Vec<String> {
        let state = self.state();
        let promises = state.acks.values().flatten().filter(|promise| promise.told);
        promises.flat_map(|promise| promise.ids.clone()).collect()
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.state().received.clone()
    }

    /// How many connections were made so far.
    pub(crate) fn count_connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many requests came so far.
    pub(crate) fn count_requests(&self) -> usize {
        self.state().received.len()
    }

    /// The events it keeps, as its users see them, in the order of arrival.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.state().events.iter().map(|event| event.document.clone()).collect()
    }

    /// What the events were wrapped in: the HEC envelope, the `_bulk` action, or the event itself.
    pub(crate) fn envelopes(&self) -> Vec<Value> {
        self.state().events.iter().map(|event| event.envelope.clone()).collect()
    }

    /// The ids of the events it keeps, in the order of arrival.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.state().events.iter().map(|event| event.id.clone()).collect()
    }

    /// Waits until it keeps this many events.
    pub(crate) async fn keeps(&self, count: usize) {
        loop {
            let changed = self.shared.changed.notified();
            if self.state().events.len() >= count {
                return;
            }
            changed.await;
        }
    }
}

/// The address of a port that nothing listens on.
pub(crate) fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn listen(listener: TcpListener, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        shared.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(async move {
            match tls {
                None => serve(stream, shared).await,
                Some(config) => {
                    if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                        serve(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let step = shared.answer(&request);
        shared.changed.notify_waiters();
        tokio::time::sleep(step.delay).await;
        let extra: String = step.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let announced = step.body.len() + if step.fault == Fault::HalfAnswer { 100 } else { 0 };
        let text = match step.fault {
            Fault::HangUp => return,
            Fault::Garbage => "\u{1}\u{2}not http\r\n\r\n".to_owned(),
            Fault::None | Fault::Usual | Fault::HalfAnswer => {
                format!(
                    "HTTP/1.1 {} x\r\ncontent-length: {announced}\r\n{extra}\r\n{}",
                    step.status, step.body
                )
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if step.fault != Fault::None {
            return;
        }
    }
}

/// The next request of a connection; none when the client is done.
async fn read_request(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Received> {
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

impl Shared {
    fn answer(&self, request: &Received) -> Step {
        let mut state = self.state.lock().unwrap();
        if request.path.ends_with("/oauth2/v2.0/token") {
            state.given_tokens += 1;
            return apis::token(state.given_tokens);
        }
        state.received.push(request.clone());
        if let Some(status) = state.down {
            return Step::answer(status, "down");
        }
        let shows =
            |name: &str| if name == ":path" { Some(request.path.as_str()) } else { request.header(name) };
        if state.wanted.as_ref().is_some_and(|(name, value)| shows(name) != Some(value)) {
            return match self.protocol {
                Protocol::Hec => Step::answer(403, json!({"text": "Invalid token", "code": 4}).to_string()),
                _ => Step::answer(401, "who are you?"),
            };
        }
        if state.script_everything
            && let Some(step) = state.script.pop_front()
        {
            return step;
        }
        if self.protocol == Protocol::Hec && request.path.ends_with("/health") {
            return Step::answer(200, json!({"text": "HEC is healthy", "code": 17}).to_string());
        }
        if request.path.ends_with("/services/collector/ack") {
            return state.answer_poll(request);
        }
        if state.most_bytes.is_some_and(|most| request.body.len() > most) {
            return Step::answer(413, "<html>Request Entity Too Large</html>");
        }
        let events = events(self.protocol, request);
        match state.script.pop_front().filter(|step| step.fault != Fault::Usual) {
            Some(step) => {
                state.keep_all(events.into_iter().take(step.keep));
                step
            }
            None if self.protocol == Protocol::Hec => state.answer_hec(request, events),
            None if self.protocol == Protocol::Bulk => state.answer_bulk(events),
            None if self.protocol == Protocol::Loki => state.answer_loki(events),
            None if events.iter().any(|event| state.is_poison(event)) => apis::refusal(self.protocol),
            None => {
                state.keep_all(events);
                apis::success(self.protocol)
            }
        }
    }
}

impl State {
    /// Keeps an event; false if its id is there already and the protocol knows ids.
    fn keep(&mut self, event: Event) -> bool {
        let is_new = self.ids.insert(event.id.clone());
        // Loki's entries are arrays.
        let knows_ids = event.envelope.get("create").is_some() || event.envelope.is_array();
        if is_new || !knows_ids {
            self.events.push(event);
        }
        is_new
    }

    fn keep_all(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.keep(event);
        }
    }

    fn is_poison(&self, event: &Event) -> bool {
        self.poison.as_ref().is_some_and(|text| event.document.to_string().contains(text))
    }

    /// Like Loki: keeps what is good, and speaks of what is not.
    fn answer_loki(&mut self, events: Vec<Event>) -> Step {
        let total = events.len();
        let (bad, good): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| self.is_poison(event));
        self.keep_all(good);
        if bad.is_empty() { apis::success(Protocol::Loki) } else { apis::ignored(bad.len(), total) }
    }

    /// Like Splunk: keeps what comes before the first bad event, and nothing from it on.
    fn answer_hec(&mut self, request: &Received, events: Vec<Event>) -> Step {
        let ids = events.iter().map(|event| event.id.clone()).collect();
        for (number, event) in events.into_iter().enumerate() {
            if self.is_poison(&event) {
                let refusal =
                    json!({"text": "Invalid data format", "code": 6, "invalid-event-number": number});
                return Step::answer(400, refusal.to_string());
            }
            self.keep(event);
        }
        if self.acknowledging.is_none() {
            return Step::answer(200, json!({"text": "Success", "code": 0}).to_string());
        }
        let channel = request.header("x-splunk-request-channel").unwrap_or_default().to_owned();
        let promises = self.acks.entry(channel).or_default();
        let number = promises.len();
        promises.push(Promise { ids, told: false });
        let step = Step::answer(200, json!({"text": "Success", "code": 0, "ackId": number}).to_string());
        // As a load balancer does it: only with this cookie a poll finds the indexer that knows the number.
        if self.sticky { step.header("set-cookie", "indexer=1; Path=/; HttpOnly") } else { step }
    }

    /// Like Splunk: says that a request is safe once, and of what it does not know that it is not.
    fn answer_poll(&mut self, request: &Received) -> Step {
        let at_home = !self.sticky || request.header("cookie") == Some("indexer=1");
        let acknowledges = at_home && self.acknowledging == Some(true);
        let channel = request.header("x-splunk-request-channel").unwrap_or_default();
        let mut promises = self.acks.get_mut(channel);
        let asked: Value = serde_json::from_str(&request.body).unwrap();
        let mut acks = serde_json::Map::new();
        for number in asked["acks"].as_array().unwrap() {
            let index = usize::try_from(number.as_u64().unwrap()).unwrap();
            let promise = promises.as_mut().and_then(|promises| promises.get_mut(index));
            let safe =
                promise.is_some_and(|promise| acknowledges && !std::mem::replace(&mut promise.told, true));
            acks.insert(number.to_string(), json!(safe));
        }
        Step::answer(200, json!({ "acks": acks }).to_string())
    }

    fn answer_bulk(&mut self, events: Vec<Event>) -> Step {
        let mut errors = false;
        let mut items = Vec::new();
        let forced = self.items.pop_front().unwrap_or_default();
        for (index, event) in events.into_iter().enumerate() {
            let failure = match forced.get(index).filter(|item| item.status >= 300) {
                Some(item) => {
                    // It is there already, as after a request whose answer was lost.
                    if item.status == 409 {
                        self.keep(event);
                    }
                    Some(item.clone())
                }
                None if self.is_poison(&event) => Some(Item::of(400)),
                None => (!self.keep(event)).then(|| Item::of(409)),
            };
            errors |= failure.is_some();
            items.push(match failure {
                Some(Item { status, kind, reason }) => {
                    json!({"create": {"status": status, "error": {"type": kind, "reason": reason}}})
                }
                None => json!({"create": {"status": 201}}),
            });
        }
        Step::answer(200, json!({"errors": errors, "items": items}).to_string())
    }
}

/// The events of a body.
fn events(protocol: Protocol, request: &Received) -> Vec<Event> {
    if !matches!(protocol, Protocol::Hec | Protocol::Bulk | Protocol::Sumo | Protocol::Any) {
        return apis::events(protocol, request);
    }
    let values: Vec<Value> = serde_json::Deserializer::from_str(&request.body)
        .into_iter::<Value>()
        .map(|value| value.unwrap_or_else(|error| panic!("{error} in {}", request.body)))
        .collect();
    let id = |value: &Value| value["event_id"].as_str().unwrap_or_default().to_owned();
    match protocol {
        Protocol::Hec => values
            .into_iter()
            .map(|envelope| Event {
                id: id(&envelope["event"]),
                document: envelope["event"].clone(),
                envelope,
            })
            .collect(),
        Protocol::Bulk => values
            .chunks(2)
            .map(|pair| Event {
                id: pair[0]["create"]["_id"].as_str().unwrap_or_default().to_owned(),
                document: pair[1].clone(),
                envelope: pair[0].clone(),
            })
            .collect(),
        _ => values
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(values) => values,
                value => vec![value],
            })
            .map(|value| Event { id: id(&value), document: value.clone(), envelope: value })
            .collect(),
    }
}
