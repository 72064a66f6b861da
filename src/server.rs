//! Metrics, health and status over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus text |
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200, or 503 and the reason while an output or input waits for a human |
//! | `/status` | JSON: each pipeline's phase, reason, totals and lags |
//! | `/` | the list of these |

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::metrics::{Metrics, PipelineMetrics};
use crate::status::{Phase, Status};

/// Why the server cannot listen.
#[derive(Debug, Error)]
#[error(
    "cannot listen on server.listen = \"{address}\": {source}; choose a free port, \"127.0.0.1:0\" for any, or \"none\""
)]
pub struct ServerError {
    address: SocketAddr,
    source: io::Error,
}

/// What the server shows.
#[derive(Clone, Debug)]
struct Shown {
    metrics: Metrics,
    routes: Arc<Vec<ShownRoute>>,
}

#[derive(Debug)]
struct ShownRoute {
    input: String,
    output: String,
    metrics: PipelineMetrics,
    status: Status,
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shown: Shown,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// [`ServerError`] naming the key.
    pub async fn bind(address: SocketAddr, app: &App) -> Result<Self, ServerError> {
        let listener = TcpListener::bind(address).await.map_err(|source| ServerError { address, source })?;
        let routes = app.routes.iter().map(|route| ShownRoute {
            input: route.input_name.clone(),
            output: route.output_name.clone(),
            metrics: route.metrics.clone(),
            status: route.status.clone(),
        });
        let shown = Shown { metrics: app.metrics.clone(), routes: Arc::new(routes.collect()) };
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
        axum::serve(self.listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

async fn index() -> &'static str {
    concat!(
        "auditferry ",
        env!("CARGO_PKG_VERSION"),
        "\n\n/metrics  for Prometheus\n/healthz  the process lives\n/readyz   everything can be read and delivered\n\
         /status   each pipeline, as JSON\n"
    )
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let mut reasons = String::new();
    for route in shown.routes.iter() {
        let snapshot = route.status.snapshot();
        if snapshot.phase != Phase::Running && snapshot.phase != Phase::Retrying {
            let reason = snapshot.reason.as_deref().unwrap_or("not running");
            reasons.push_str(&format!("{}/{}: {reason}\n", route.input, route.output));
        }
    }
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
}

#[derive(Serialize)]
struct StatusPage<'a> {
    version: &'static str,
    pipelines: Vec<StatusRow<'a>>,
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
    bytes_read: u64,
    bytes_sent: u64,
    oldest_unacknowledged_seconds: f64,
    lag_seconds_by_workspace: std::collections::BTreeMap<String, f64>,
}

async fn status(State(shown): State<Shown>) -> Response {
    let row = |route| {
        let ShownRoute { input, output, metrics, status }: &ShownRoute = route;
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
            bytes_read: metrics.bytes_read.get(),
            bytes_sent: metrics.bytes_sent.get(),
            oldest_unacknowledged_seconds: metrics.oldest_unacknowledged.get(),
            lag_seconds_by_workspace: metrics.lags().into_iter().collect(),
        }
    };
    let page =
        StatusPage { version: env!("CARGO_PKG_VERSION"), pipelines: shown.routes.iter().map(row).collect() };
    match serde_json::to_string_pretty(&page) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
