//! Collectors that fail now and then, and keep book of what arrived.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Result;
use crate::collector::{Received, read_request};
use crate::ledger::{Audit, Ledger};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    Hec,
    Sumo,
    /// `_bulk`: knows a document by its id, and keeps it once.
    Bulk,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    behaves: bool,
    away_until: Option<Instant>,
    ledger: Ledger,
    /// `_bulk`: the ids of the documents.
    documents: HashSet<String>,
    faults: BTreeMap<&'static str, u64>,
}

/// A running collector; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Faulty {
    protocol: Protocol,
    url: String,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

impl Faulty {
    pub(crate) async fn start(protocol: Protocol, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State {
            rng: Rng::with_seed(seed),
            behaves: false,
            away_until: None,
            ledger: Ledger::default(),
            documents: HashSet::new(),
            faults: BTreeMap::new(),
        }));
        let shared = Arc::clone(&state);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(protocol, stream, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { protocol, url, state, _server: server })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.protocol {
            Protocol::Hec => "splunk_hec",
            Protocol::Sumo => "sumo",
            Protocol::Bulk => "elastic",
        }
    }

    /// Its table in the configuration.
    pub(crate) fn output(&self) -> String {
        let (name, url) = (self.name(), &self.url);
        let rest = match self.protocol {
            Protocol::Hec => format!("url = \"{url}\"\ntoken = \"soak\""),
            Protocol::Sumo => format!("url = \"{url}/receiver/v1/http/soak\""),
            Protocol::Bulk => format!("url = \"{url}\"\nindex = \"audit\""),
        };
        format!("[outputs.{name}]\ntype = \"{name}\"\nbatch.max_age = \"500ms\"\ntimeout = \"10s\"\n{rest}\n")
    }

    /// Answers 503 for a while.
    pub(crate) fn go_away_for(&self, length: Duration) {
        self.state().away_until = Some(Instant::now() + length);
    }

    /// The process that sends has ended.
    pub(crate) fn note_end(&self, gently: bool) {
        if !gently {
            self.state().ledger.note_kill();
        }
    }

    /// Fails no more.
    pub(crate) fn behave(&self) {
        let mut state = self.state();
        state.behaves = true;
        state.away_until = None;
    }

    /// Different lines that arrived.
    pub(crate) fn count(&self) -> usize {
        self.state().ledger.count()
    }

    pub(crate) fn audit(&self, written: &[String]) -> Audit {
        self.state().ledger.audit(written)
    }

    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.state().faults.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a request ends.
enum Reply {
    Answer {
        status: u16,
        headers: &'static str,
        body: String,
        delay: Duration,
    },
    /// Nothing, and the connection is closed.
    HangUp,
    Garbage,
}

impl Reply {
    fn of(status: u16, headers: &'static str, body: &str) -> Self {
        Self::Answer { status, headers, body: body.to_owned(), delay: Duration::ZERO }
    }

    fn delayed(mut self, length: Duration) -> Self {
        if let Self::Answer { delay, .. } = &mut self {
            *delay = length;
        }
        self
    }
}

async fn serve(protocol: Protocol, stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let reply = lock(&state).reply(protocol, &request);
        let (text, goes_on) = match reply {
            Reply::HangUp => return,
            Reply::Garbage => ("\u{1}\u{2}not http\r\n\r\n".to_owned(), false),
            Reply::Answer { status, headers, body, delay } => {
                tokio::time::sleep(delay).await;
                (
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()),
                    true,
                )
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() || !goes_on {
            return;
        }
    }
}

impl State {
    fn reply(&mut self, protocol: Protocol, request: &Received) -> Reply {
        if request.path.ends_with("/health") {
            return Reply::of(200, "", "{\"text\":\"HEC is healthy\",\"code\":17}");
        }
        if self.away_until.is_some_and(|until| Instant::now() < until) {
            return self.fault("503 while away", Reply::of(503, "", "away"));
        }
        let dice = if self.behaves { u32::MAX } else { self.rng.u32(..1000) };
        match dice {
            0..60 => self.fault("503", Reply::of(503, "", "busy")),
            60..100 => self.fault("429", Reply::of(429, "retry-after: 1\r\n", "too much")),
            100..130 => self.fault("hung up before", Reply::HangUp),
            130..190 => {
                self.keep(protocol, request, false);
                self.fault("hung up after", Reply::HangUp)
            }
            190..220 => {
                self.keep(protocol, request, false);
                self.fault("garbage", Reply::Garbage)
            }
            // Longer than the output waits.
            220..230 => {
                let reply = self.keep(protocol, request, false).delayed(Duration::from_secs(12));
                self.fault("too late", reply)
            }
            230..280 => {
                let reply = self.keep(protocol, request, true).delayed(Duration::from_secs(2));
                self.fault("late", reply)
            }
            _ => self.keep(protocol, request, true),
        }
    }

    fn fault(&mut self, name: &'static str, reply: Reply) -> Reply {
        *self.faults.entry(name).or_default() += 1;
        reply
    }

    /// Keeps what came, and answers as the protocol does.
    fn keep(&mut self, protocol: Protocol, request: &Received, answered: bool) -> Reply {
        let values = serde_json::Deserializer::from_str(&request.body).into_iter::<Value>();
        let values: Vec<Value> = values.map_while(std::result::Result::ok).collect();
        if protocol == Protocol::Bulk {
            return self.keep_documents(&values, answered);
        }
        for value in &values {
            let event = if protocol == Protocol::Hec { &value["event"] } else { value };
            let id = event["request_id"].as_str().unwrap_or_default();
            self.ledger.arrive(id, event.to_string().len(), answered);
        }
        let body = if protocol == Protocol::Hec { "{\"text\":\"Success\",\"code\":0}" } else { "" };
        Reply::of(200, "", body)
    }

    fn keep_documents(&mut self, values: &[Value], answered: bool) -> Reply {
        let (mut items, mut errors) = (String::new(), false);
        let (pairs, _) = values.as_chunks::<2>();
        // Of some requests, every third document is refused for a while.
        let busy = answered && !self.behaves && self.rng.u32(..50) == 0;
        for (number, [action, document]) in pairs.iter().enumerate() {
            let id = action.pointer("/create/_id").and_then(Value::as_str).unwrap_or_default();
            let status = match () {
                () if busy && number % 3 == 0 => 429,
                () if self.documents.insert(id.to_owned()) => {
                    let request_id = document["request_id"].as_str().unwrap_or_default();
                    // A line that came under two ids would be there twice.
                    self.ledger.arrive(request_id, document.to_string().len(), true);
                    201
                }
                () => 409,
            };
            errors |= status >= 300;
            let item = match status {
                429 => {
                    *self.faults.entry("documents refused for a while").or_default() += 1;
                    json!({"create": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "busy"}}})
                }
                409 => {
                    json!({"create": {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "there"}}})
                }
                _ => json!({"create": {"status": 201}}),
            };
            let _ = write!(items, "{}{item}", if items.is_empty() { "" } else { "," });
        }
        let body = format!("{{\"errors\":{errors},\"items\":[{items}]}}");
        Reply::of(200, "content-type: application/json\r\n", &body)
    }
}
