//! A metadata server, as containers and instances have one, that answers as a test tells it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use tokio::runtime::Runtime;

/// The answer to a request: `GET /path` and its headers. Without one it is 404.
type Answer = fn(&str, &HeaderMap) -> Option<String>;

pub(crate) struct Metadata {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl Metadata {
    pub(crate) fn start(answer: Answer) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let router = Router::new().fallback(serve).with_state((answer, Arc::clone(&asked)));
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, _runtime: runtime }
    }

    /// All requests so far, as `GET /path`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    State((answer, asked)): State<(Answer, Arc<Mutex<Vec<String>>>)>,
    request: Request,
) -> (StatusCode, HeaderMap, String) {
    let what = format!("{} {}", request.method(), request.uri().path());
    asked.lock().unwrap().push(what.clone());
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    // What EC2 says with the token that it gives.
    headers.insert("x-aws-ec2-metadata-token-ttl-seconds", "21600".parse().unwrap());
    match answer(&what, request.headers()) {
        Some(body) => (StatusCode::OK, headers, body),
        None => (StatusCode::NOT_FOUND, headers, String::new()),
    }
}
