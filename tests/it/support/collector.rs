//! Scripted collectors: servers on a local port that keep what they are sent and answer as a test tells them.
//!
//! Plain TCP instead of a server library, since a collector has to misbehave: hang up, talk garbage, stop half-way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

// Named by their paths, since the end-to-end tests take this file from elsewhere.
#[path = "collector/apis.rs"]
pub(crate) mod apis;
#[path = "collector/kept.rs"]
mod kept;
#[path = "collector/request.rs"]
mod request;
#[path = "collector/script.rs"]
mod script;

use kept::{Event, State, events};
pub(crate) use request::{Received, read_request};
use script::Fault;
pub(crate) use script::{Item, Step};

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
        let mut is_safe = |event: &Event| match owed.iter().position(|id| *id == event.id) {
            Some(index) => {
                owed.swap_remove(index);
                false
            }
            None => true,
        };
        let State { events, brought_by, .. } = &mut *state;
        let kept = std::mem::take(events).into_iter().zip(std::mem::take(brought_by));
        (*events, *brought_by) = kept.filter(|(event, _)| is_safe(event)).unzip();
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

    /// Keeps what comes and answers nothing, until told otherwise.
    pub(crate) fn set_withholding(&self, withholding: bool) {
        self.state().withholding = withholding;
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

    /// The same, each with a header of the request that brought it.
    pub(crate) fn events_by(&self, header: &str) -> Vec<(String, Value)> {
        let state = self.state();
        let brought_by =
            |request: &usize| state.received[*request].header(header).unwrap_or_default().to_owned();
        let events = state.events.iter().map(|event| event.document.clone());
        state.brought_by.iter().map(brought_by).zip(events).collect()
    }

    /// How many events it keeps.
    pub(crate) fn count_events(&self) -> usize {
        self.state().events.len()
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
        if shared.state.lock().unwrap().withholding {
            // Whoever waits for the answer has gone when this ends.
            let _gone = stream.read_u8().await;
            return;
        }
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
        let delay = match state.script.pop_front() {
            Some(step) if step.fault != Fault::Usual => {
                state.keep_all(events.into_iter().take(step.keep));
                return step;
            }
            usual => usual.map_or(Duration::ZERO, |step| step.delay),
        };
        let answer = match self.protocol {
            Protocol::Hec => state.answer_hec(request, events),
            Protocol::Bulk => state.answer_bulk(events),
            Protocol::Loki => state.answer_loki(events),
            _ if events.iter().any(|event| state.is_poison(event)) => apis::refusal(self.protocol),
            _ => {
                state.keep_all(events);
                apis::success(self.protocol)
            }
        };
        answer.delayed(delay)
    }
}
