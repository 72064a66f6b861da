//! A fake-gcs-server of its own for each test, and what it lacks of the real service.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};

use crate::ferry::eventually;
use crate::moto::BUCKET;

/// Keys on a page of a listing, as the real service has them.
const PAGE: usize = 1000;

pub(crate) struct FakeGcs {
    /// Where the server is reached, with what it lacks.
    pub(crate) address: SocketAddr,
    process: Child,
    pub(crate) bucket: Bucket,
    pub(crate) runtime: Runtime,
}

/// Puts objects as Google's own clients do: the server takes no other way.
#[derive(Clone)]
pub(crate) struct Bucket {
    server: SocketAddr,
    client: reqwest::Client,
}

impl Bucket {
    async fn post(&self, path: &str, body: String) {
        let url = format!("http://{}{path}", self.server);
        let answer = self.client.post(url).body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    pub(crate) async fn put(&self, key: &str, content: String) {
        let name = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}");
        self.post(&path, content).await;
    }
}

impl FakeGcs {
    /// Starts a server and makes an empty bucket in it.
    pub(crate) fn start() -> Self {
        let program = std::env::var_os("AUDITFERRY_E2E_FAKE_GCS").unwrap_or_else(|| "fake-gcs-server".into());
        // It does not tell which port it has found by itself.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(&program)
            .args(["-scheme", "http", "-host", "127.0.0.1", "-public-host", "127.0.0.1"])
            .args(["-backend", "memory", "-port", &free.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start {program:?}: {error}; go install github.com/fsouza/fake-gcs-server, or set \
                     AUDITFERRY_E2E_FAKE_GCS"
                )
            });
        eventually("fake-gcs-server", || std::net::TcpStream::connect(free).is_ok());
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let address = runtime.block_on(serve(free));
        let bucket = Bucket { server: free, client: reqwest::Client::new() };
        runtime.block_on(bucket.post("/storage/v1/b", format!(r#"{{"name":"{BUCKET}"}}"#)));
        Self { address, process, bucket, runtime }
    }

    pub(crate) fn put(&self, key: &str, content: &str) {
        self.runtime.block_on(self.bucket.put(key, content.to_owned()));
    }

    /// Puts many objects, several at once.
    pub(crate) fn put_all(&self, objects: impl IntoIterator<Item = (String, String)>) {
        let puts = futures::stream::iter(objects).for_each_concurrent(16, async |(key, content)| {
            self.bucket.put(&key, content).await;
        });
        self.runtime.block_on(puts);
    }
}

impl Drop for FakeGcs {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Stands before the server and does what it does not: refuses `If-Match` of another version, pages listings.
async fn serve(server: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(pass_on).with_state((server, reqwest::Client::new()));
    #[expect(clippy::disallowed_methods, reason = "it lives as long as its runtime")]
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    address
}

async fn pass_on(
    State((server, client)): State<(SocketAddr, reqwest::Client)>,
    request: Request,
) -> Response {
    let url = format!("http://{server}{}", request.uri());
    let wanted = request.headers().get(header::IF_MATCH).map(|etag| unquoted(etag.to_str().unwrap()));
    if let Some(wanted) = wanted {
        let head = client.head(&url).send().await.unwrap();
        let etag = head.headers().get(header::ETAG).map(|etag| unquoted(etag.to_str().unwrap()));
        if etag.is_some_and(|etag| etag != wanted) {
            return Response::builder()
                .status(StatusCode::PRECONDITION_FAILED)
                .body(Body::from("<Error><Code>PreconditionFailed</Code></Error>"))
                .unwrap();
        }
    }
    let token = request.uri().query().unwrap_or_default().split('&').find_map(|pair| {
        let token = pair.strip_prefix("continuation-token=")?;
        Some(percent_encoding::percent_decode_str(token).decode_utf8().unwrap().into_owned())
    });
    let listing = request.uri().query().is_some_and(|query| query.contains("list-type=2"));
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let answer = client.request(parts.method.clone(), url).headers(headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        // A HEAD has the length of what it does not send; all else is measured anew.
        if parts.method == Method::HEAD
            || !matches!(name, &header::CONTENT_LENGTH | &header::TRANSFER_ENCODING)
        {
            response = response.header(name, value);
        }
    }
    let body = answer.bytes().await.unwrap();
    if !listing {
        return response.body(Body::from(body)).unwrap();
    }
    let page = page(std::str::from_utf8(&body).unwrap(), token.as_deref().unwrap_or_default());
    response.body(Body::from(page)).unwrap()
}

fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// A listing from the key after `after` on, up to a page of it.
fn page(listing: &str, after: &str) -> String {
    const END: &str = "</ListBucketResult>";
    let (head, rest) = listing.split_at(listing.find("<Contents>").unwrap_or(listing.len() - END.len()));
    let contents = rest.trim_end_matches(END).split_inclusive("</Contents>");
    let key = |content: &str| {
        content.split(['<', '>']).skip_while(|part| *part != "Key").nth(1).unwrap().to_owned()
    };
    let mut contents: Vec<(String, &str)> = contents.map(|content| (key(content), content)).collect();
    contents.sort_unstable();
    contents.retain(|(key, _)| key.as_str() > after);
    let more = match contents.get(PAGE - 1) {
        Some((last, _)) if contents.len() > PAGE => {
            format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>")
        }
        _ => String::new(),
    };
    contents.truncate(PAGE);
    let contents: String = contents.into_iter().map(|(_, content)| content).collect();
    format!("{head}{contents}{more}{END}")
}
