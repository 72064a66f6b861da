//! An Azurite server (Azure Blob Storage) of its own for each test, and what its writers do: containers, append blobs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::Method;
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};

/// The account that every Azurite has, and its key, known to everybody.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

pub(crate) struct Azurite {
    pub(crate) address: SocketAddr,
    process: Child,
    client: reqwest::Client,
    runtime: Runtime,
}

impl Azurite {
    pub(crate) fn start() -> Self {
        let program = std::env::var_os("AUDITFERRY_E2E_AZURITE").unwrap_or_else(|| "azurite-blob".into());
        let mut process = Command::new(&program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--silent"])
            .args(["--inMemoryPersistence", "--disableTelemetry"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start {program:?}: {error}; npm install azurite, or set AUDITFERRY_E2E_AZURITE"
                )
            });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("azurite-blob ended before it listened").unwrap();
            if let Some((_, address)) = line.split_once("listens on http://") {
                break address.trim().parse().unwrap();
            }
        };
        // Its log must be read on, or it blocks when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { address, process, client: reqwest::Client::builder().no_proxy().build().unwrap(), runtime }
    }

    /// Sends a signed request below the account, and it succeeds.
    fn put(&self, path: &str, headers: &[(&'static str, &str)], body: Vec<u8>) {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = format!("http://{}/{ACCOUNT}/{path}", self.address).parse().unwrap();
        let length = body.len().to_string();
        for (name, value) in headers.iter().chain([&("content-length", length.as_str())]) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(ACCOUNT_KEY).unwrap());
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).unwrap();
        let call = self.client.put(request.uri().to_string()).headers(request.headers().clone()).body(body);
        let answered = self.runtime.block_on(async {
            let answer = call.send().await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        });
        assert!(answered.0.is_success(), "{path}: {answered:?}");
    }

    pub(crate) fn create_container(&self, name: &str) {
        self.put(&format!("{name}?restype=container"), &[], Vec::new());
    }

    /// Makes an empty append blob.
    pub(crate) fn create_blob(&self, path: &str) {
        self.put(path, &[("x-ms-blob-type", "AppendBlob")], Vec::new());
    }

    /// Adds a block to an append blob.
    pub(crate) fn append(&self, path: &str, block: &[u8]) {
        self.put(&format!("{path}?comp=appendblock"), &[], block.to_vec());
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A shared access signature of the account for all containers and blobs, with these permissions until that time.
pub(crate) fn account_sas(permissions: &str, until: &str) -> String {
    let version = "2021-10-04";
    let signed = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{until}\n\nhttps,http\n{version}\n\n");
    let key = BASE64_STANDARD.decode(ACCOUNT_KEY).unwrap();
    let signature = BASE64_STANDARD.encode(hmac_sha256(&key, signed.as_bytes()));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("sv", version),
        ("ss", "b"),
        ("srt", "sco"),
        ("sp", permissions),
        ("se", until),
        ("spr", "https,http"),
        ("sig", &signature),
    ]);
    query.finish()
}

/// RFC 2104, for keys of up to a block.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
