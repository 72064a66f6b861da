//! A collector that takes lines over HTTP, each path an output of its own, and notes when an event came.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// When each event came to each output, by its request id.
type Arrivals = Arc<Mutex<HashMap<(String, String), Vec<Instant>>>>;

pub(crate) struct Collector {
    address: SocketAddr,
    arrivals: Arrivals,
    _runtime: Runtime,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let arrivals = Arrivals::default();
        let router = Router::new().route("/{output}", post(take)).with_state(Arc::clone(&arrivals));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { address, arrivals, _runtime: runtime }
    }

    /// The table of an output that sends here.
    pub(crate) fn output(&self, name: &str) -> String {
        format!(
            "[outputs.{name}]\ntype = \"http\"\nurl = \"http://{}/{name}\"\ncompression = \"none\"\n",
            self.address
        )
    }

    /// When an event came to an output: once, or the test fails; `None` if it has not come yet.
    pub(crate) fn arrived(&self, output: &str, request_id: &str) -> Option<Instant> {
        let arrivals = self.arrivals.lock().unwrap();
        let times = arrivals.get(&(output.to_owned(), request_id.to_owned()))?;
        assert_eq!(times.len(), 1, "{request_id} came to {output} more than once");
        times.first().copied()
    }
}

async fn take(State(arrivals): State<Arrivals>, Path(output): Path<String>, body: String) {
    let now = Instant::now();
    let mut arrivals = arrivals.lock().unwrap();
    for line in body.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let request_id = event["request_id"].as_str().unwrap().to_owned();
        arrivals.entry((output.clone(), request_id)).or_default().push(now);
    }
}
