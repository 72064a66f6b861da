//! Metrics, health and status over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus text |
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200, or 503 and the reason while an output or input waits for a human; one that is retried does not |
//! | `/status` | JSON: how the last reload ended, and each pipeline's phase, reason, totals and lags |
//! | `/` | the same as a page for people; the list of these for who asks for no HTML |
//!
//! `/status` and the page name inputs, workspaces and errors. Where others can reach the address they want `server.token`,
//! as bearer token or as the password of any user, and without one in the configuration they are closed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Reloaded, ShownRoute, View};
use crate::metrics::Metrics;
use crate::recent::RecentEvent;
use crate::secret::Secret;
use crate::status::Phase;
use crate::time::Millis;

mod connections;

use connections::Connections;

/// Why the server cannot listen.
#[derive(Debug, Error)]
#[error(
    "cannot listen on server.listen = \"{address}\": {source}; choose a free port, \"127.0.0.1:0\" for any, or \"none\""
)]
pub struct ServerError {
    address: SocketAddr,
    source: io::Error,
}

/// The page at `/`: one file, nothing from elsewhere.
const PAGE: &str = include_str!("server/page.html");

/// What the server shows, and to whom.
#[derive(Clone, Debug)]
struct Shown {
    metrics: Metrics,
    view: watch::Receiver<View>,
    door: Arc<Door>,
    state_dir: PathBuf,
}

/// Who may see the status.
#[derive(Debug)]
enum Door {
    /// Everybody who can reach it: users of this machine.
    Open,
    /// Who knows the token.
    Locked(Secret),
    /// Nobody.
    Closed,
}

/// What is answered to who may not.
type Refused = (StatusCode, [(HeaderName, &'static str); 1], &'static str);

impl Door {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        let token = match self {
            Self::Open => return Ok(()),
            Self::Closed => {
                let why =
                    "others can reach this address: set server.token, or let server.listen be on 127.0.0.1\n";
                return Err((StatusCode::FORBIDDEN, plain, why));
            }
            Self::Locked(token) => token,
        };
        let Ok(token) = token.reveal() else {
            return Err((StatusCode::SERVICE_UNAVAILABLE, plain, "cannot read server.token\n"));
        };
        // Digests are compared: how long that takes tells nothing of the token.
        let same = |given: &str| Sha256::digest(given) == Sha256::digest(&token);
        match given(headers).is_some_and(|given| same(&given)) {
            true => Ok(()),
            false => {
                let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"auditferry\"")];
                Err((StatusCode::UNAUTHORIZED, ask, "wants server.token, as bearer token or as password\n"))
            }
        }
    }
}

/// The token of a request: a bearer token, or the password of any user.
fn given(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(value.trim().to_owned()),
        "basic" => {
            let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
            pair.split_once(':').map(|(_, password)| password.to_owned())
        }
        _ => None,
    }
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shown: Shown,
}

impl Server {
    /// Binds the address. The token opens the status to others than users of this machine.
    ///
    /// # Errors
    /// [`ServerError`] naming the key.
    pub async fn bind(address: SocketAddr, token: Option<Secret>, app: &App) -> Result<Self, ServerError> {
        let listener = TcpListener::bind(address).await.map_err(|source| ServerError { address, source })?;
        let door = match token {
            Some(token) => Door::Locked(token),
            None if address.ip().is_loopback() => Door::Open,
            None => Door::Closed,
        };
        let shown = Shown {
            metrics: app.metrics.clone(),
            view: app.view(),
            door: Arc::new(door),
            state_dir: app.state_dir.clone(),
        };
        Ok(Self { listener, shown })
    }

    /// The address it listens on: the chosen port, where the configured one was 0.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers until the stop.
    ///
    /// # Errors
    /// What the listening socket reports.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let routes = Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/status", get(status))
            .with_state(self.shown);
        axum::serve(Connections::new(self.listener), routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }
}

/// What is at `/` for who asks for no HTML.
const INDEX: &str = concat!(
    "auditferry ",
    env!("CARGO_PKG_VERSION"),
    "\n\n/metrics  for Prometheus\n/healthz  the process lives\n\
     /readyz   nothing waits for a human (a collector that is down is retried: see /status)\n\
     /status   each pipeline, as JSON\n"
);

async fn index(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let wants_html = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")));
    if !wants_html {
        return INDEX.into_response();
    }
    if let Err(refused) = shown.door.admit(&headers) {
        return refused.into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy(PAGE)),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, PAGE).into_response()
}

/// Lets the page run its own script and style, by their digests, ask its own server, and nothing else.
fn policy(page: &str) -> String {
    let digest = |tag: &str| {
        let within =
            page.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        STANDARD.encode(Sha256::digest(within.map_or("", |(within, _)| within)))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest("script"),
        digest("style")
    )
}

async fn metrics(State(shown): State<Shown>) -> Response {
    // Beside the other answers: a network's disk may keep its asker waiting.
    let state_dir = shown.state_dir.clone();
    if let Ok(Ok(disk)) = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&state_dir)).await {
        shown.metrics.state_disk(
            disk.f_bavail.saturating_mul(disk.f_frsize),
            disk.f_blocks.saturating_mul(disk.f_frsize),
        );
    }
    match shown.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let reasons = shown.view.borrow().waits_for();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

#[derive(Serialize)]
struct StatusPage<'a> {
    version: &'static str,
    /// Why there is no pipeline, where nothing is configured.
    idle: Option<&'a str>,
    /// How the last reload of the configuration ended, if there was one.
    reload: Option<ReloadRow<'a>>,
    pipelines: Vec<StatusRow<'a>>,
}

#[derive(Serialize)]
struct ReloadRow<'a> {
    at: String,
    result: &'static str,
    /// Why the old configuration goes on.
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct StatusRow<'a> {
    input: &'a str,
    output: &'a str,
    phase: Phase,
    reason: Option<String>,
    records_read: u64,
    events_delivered: u64,
    events_duplicate: u64,
    records_skipped: u64,
    dead_letters: u64,
    dead_letters_by_reason: BTreeMap<String, u64>,
    redactions: u64,
    bytes_read: u64,
    bytes_sent: u64,
    oldest_unacknowledged_seconds: f64,
    lag_seconds_by_workspace: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recent_events: Vec<RecentEvent>,
}

fn rfc3339(time: Millis) -> String {
    let mut text = Vec::new();
    time.write_rfc3339(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

async fn status(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    if let Err(refused) = shown.door.admit(&headers) {
        return refused.into_response();
    }
    let view = shown.view.borrow().clone();
    let row = |route| {
        let ShownRoute { input, output, metrics, status, recent }: &ShownRoute = route;
        let snapshot = status.snapshot();
        StatusRow {
            input,
            output,
            phase: snapshot.phase,
            reason: snapshot.reason,
            records_read: metrics.records_read.get(),
            events_delivered: metrics.events_delivered.get(),
            events_duplicate: metrics.events_duplicate.get(),
            records_skipped: metrics.records_skipped.get(),
            dead_letters: metrics.dead_letters(),
            dead_letters_by_reason: metrics.dead_letters_by_reason().into_iter().collect(),
            redactions: metrics.redactions.get(),
            bytes_read: metrics.bytes_read.get(),
            bytes_sent: metrics.bytes_sent.get(),
            oldest_unacknowledged_seconds: metrics.oldest_unacknowledged.get(),
            lag_seconds_by_workspace: metrics.lags().into_iter().collect(),
            recent_events: recent.list(),
        }
    };
    let reload = view.reloaded.as_ref().map(|Reloaded { at, refused }| ReloadRow {
        at: rfc3339(*at),
        result: if refused.is_none() { "ok" } else { "refused" },
        reason: refused.as_deref(),
    });
    let pipelines = view.routes.iter().map(row).collect();
    let page =
        StatusPage { version: env!("CARGO_PKG_VERSION"), idle: view.idle.as_deref(), reload, pipelines };
    match serde_json::to_string_pretty(&page) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
