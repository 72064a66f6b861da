use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::json;
use tokio::task::JoinSet;

use super::super::azure_path::AzureLayout;
use super::super::store::{self, Store, StoreSettings};
use super::*;
use crate::input::InputError;

/// A storage account with two containers, until it is told to answer otherwise. Keeps what it was asked.
struct Server {
    address: String,
    script: Arc<Script>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    answer: Mutex<Option<(u16, String)>>,
    asked: Mutex<Vec<String>>,
}

impl Server {
    async fn start() -> Self {
        let script = Arc::<Script>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { address, script, _task: task }
    }

    fn refuse(&self, status: u16, code: &str, message: &str, detail: &str) {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}\nRequestId:1\nTime:2</Message>{detail}</Error>"
        );
        *self.script.answer.lock().unwrap() = Some((status, body));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.asked.lock().unwrap())
    }

    fn store(&self, url: &str, mut azure: serde_json::Value, named: &[&str]) -> Store {
        azure["endpoint"] = self.address.clone().into();
        azure["allow_http"] = true.into();
        let settings: StoreSettings = serde_json::from_value(json!({ "azure": azure })).unwrap();
        let named = named.iter().map(|name| (*name).to_owned()).collect();
        let containers = Containers { layout: AzureLayout::Diagnostic, named };
        store::open(url, &settings, Some(&containers), std::path::Path::new("/")).unwrap()
    }
}

async fn answer(State(script): State<Arc<Script>>, request: axum::extract::Request) -> (StatusCode, String) {
    let signed = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let uri = request.uri().to_string();
    script.asked.lock().unwrap().push(format!("{uri} {}", signed.unwrap_or_default()));
    if let Some((status, body)) = script.answer.lock().unwrap().clone() {
        return (StatusCode::from_u16(status).unwrap(), body);
    }
    let container = |name: &str| format!("<Container><Name>{name}</Name><Properties /></Container>");
    let body = match uri.as_str() {
        _ if uri.contains("restype=container") => {
            let name = "resourceId=/A/y=2026/PT1H.json";
            format!(
                "<EnumerationResults><Blobs><Blob><Name>{name}</Name><Properties>\
                 <Last-Modified>Mon, 05 Jan 2026 10:00:00 GMT</Last-Modified><Etag>e1</Etag>\
                 <Content-Length>7</Content-Length><Content-Type>x</Content-Type></Properties></Blob>\
                 <BlobPrefix><Name>resourceId=/A/</Name></BlobPrefix></Blobs><NextMarker /></EnumerationResults>"
            )
        }
        _ if uri.contains("marker=next") => format!(
            "<EnumerationResults><Containers>{}</Containers><NextMarker /></EnumerationResults>",
            container("insights-logs-ssh")
        ),
        _ => format!(
            "<EnumerationResults><Prefix>insights-logs-</Prefix><Containers>{}</Containers><NextMarker>next</NextMarker></EnumerationResults>",
            container("insights-logs-jobs")
        ),
    };
    (StatusCode::OK, body)
}

fn key() -> serde_json::Value {
    json!({ "access_key": "c2VjcmV0" })
}

async fn names(store: &Store, prefix: &str) -> Vec<String> {
    let listed = store.store.list_with_delimiter(Some(&Path::from(prefix))).await.unwrap();
    listed.common_prefixes.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_account_is_a_store_whose_folders_are_its_containers() {
    let server = Server::start().await;
    let store = server.store("az://acme", key(), &[]);
    assert_eq!(names(&store, "").await, ["insights-logs-jobs", "insights-logs-ssh"]);
    let asked = server.asked();
    assert!(asked[0].starts_with("/?comp=list&prefix=insights-logs- SharedKey acme:"), "{asked:?}");
    assert!(
        asked[1].starts_with("/?comp=list&prefix=insights-logs-&marker=next SharedKey acme:"),
        "{asked:?}"
    );

    assert_eq!(names(&store, "insights-logs-jobs/resourceId=").await, ["insights-logs-jobs/resourceId=/A"]);
    let asked = server.asked().concat();
    assert!(asked.starts_with("/insights-logs-jobs?"), "{asked}");
    assert!(asked.contains("delimiter=%2F") && asked.contains("prefix=resourceId%3D%2F"), "{asked}");
    let blobs: Vec<_> = store.store.list(Some(&Path::from("insights-logs-jobs"))).collect().await;
    let location = blobs[0].as_ref().unwrap().location.to_string();
    assert_eq!(location, "insights-logs-jobs/resourceId=/A/y=2026/PT1H.json");
    let other = store.store.head(&Path::from("other/blob")).await.unwrap_err();
    assert!(matches!(other, object_store::Error::NotFound { .. }), "{other}");
}

#[tokio::test]
async fn named_containers_are_not_listed_and_a_sas_signs_in_the_query() {
    let server = Server::start().await;
    let store = server.store("az://acme", json!({ "sas_token": "?sv=1&sig=a%2Bb" }), &["insights-logs-dbfs"]);
    assert_eq!(names(&store, "").await, ["insights-logs-dbfs"]);
    assert!(server.asked().is_empty());
    let all = server.store("az://acme", json!({ "sas_token": "?sv=1&sig=a%2Bb" }), &[]);
    names(&all, "").await;
    let asked = server.asked();
    assert!(asked[0].starts_with("/?comp=list&prefix=insights-logs-&sv=1&sig=a%2Bb"), "{asked:?}");
}

#[tokio::test]
async fn a_new_secret_is_used_for_the_next_request() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sas");
    let table = |text: &str| {
        std::fs::write(&file, text).unwrap();
    };
    table("sig=first");
    let store = server.store("az://acme", json!({ "sas_token": { "file": file } }), &[]);
    names(&store, "").await;
    table("sig=the-second");
    names(&store, "").await;
    let asked = server.asked();
    assert!(asked[0].contains("sig=first") && asked[2].contains("sig=the-second"), "{asked:?}");
    std::fs::remove_file(&file).unwrap();
    let error = store.store.list_with_delimiter(None).await.unwrap_err();
    let refused = super::super::refusal("cannot list".to_owned(), &error).to_string();
    assert!(refused.ends_with("give the SAS in azure.sas_token the permissions Read and List"), "{refused}");
}

#[tokio::test]
async fn a_refusal_says_in_a_sentence_which_right_is_missing_and_which_key_to_change() {
    let server = Server::start().await;
    let sas = || json!({ "sas_token": "sig=x" });
    let time = "<AuthenticationErrorDetail>Signature not valid in the specified time frame: Start [1] - Expiry [2] - Current [3]</AuthenticationErrorDetail>";
    for (azure, status, code, detail, expected) in [
        (
            key(),
            404,
            "ContainerNotFound",
            "",
            "cannot list x: the container insights-logs-jobs does not exist; check `containers` and `url`; Azure makes \
             a container with the first record of its category",
        ),
        (
            sas(),
            403,
            "AuthorizationPermissionMismatch",
            "",
            "cannot list x: the credentials lack a right; give the SAS in azure.sas_token the permissions Read and List",
        ),
        (
            sas(),
            403,
            "AuthenticationFailed",
            time,
            "cannot list x: the SAS is not valid now: Signature not valid in the specified time frame: Start [1] - \
             Expiry [2] - Current [3]; put a new one in azure.sas_token",
        ),
        (
            json!({ "sas_token": "se=2020-01-01T00%3A00%3A00Z&sig=x" }),
            403,
            "AuthorizationFailure",
            "",
            "cannot list x: the SAS expired at 2020-01-01T00:00:00Z; put a new one in azure.sas_token",
        ),
        (
            sas(),
            403,
            "AuthorizationResourceTypeMismatch",
            "",
            "cannot list x: the SAS does not cover this; make an account SAS in azure.sas_token for the service Blob \
             and the resource types Service, Container and Object, or name the `containers`",
        ),
        (
            key(),
            403,
            "AuthenticationFailed",
            "",
            "cannot list x: It is said; check azure.access_key, that it is of this account and not expired, and the \
             machine's clock",
        ),
        (
            key(),
            403,
            "KeyBasedAuthenticationNotPermitted",
            "",
            "cannot list x: the storage account takes no access keys; remove azure.access_key and use an identity \
             (azure.client_id, or a managed one)",
        ),
        (key(), 403, "SomethingNew", "", "cannot list x: SomethingNew: It is said; check azure.access_key"),
    ] {
        server.refuse(status, code, "It is said.", detail);
        let store = server.store("az://acme", azure, &[]);
        let error =
            store.store.list_with_delimiter(Some(&Path::from("insights-logs-jobs"))).await.unwrap_err();
        let refused = super::super::refusal("cannot list x".to_owned(), &error);
        assert!(matches!(refused, InputError::Refused { .. }), "{code}: {refused}");
        assert_eq!(refused.to_string(), expected);
        if status == 403 {
            // The same where the containers are listed.
            let error = store.store.list_with_delimiter(None).await.unwrap_err();
            assert_eq!(super::super::refusal("cannot list x".to_owned(), &error).to_string(), expected);
        }
    }
    server.refuse(503, "ServerBusy", "Busy.", "");
    let store = server.store("az://acme", key(), &[]);
    let error = store.store.list_with_delimiter(None).await.unwrap_err();
    let busy = super::super::refusal("cannot list x".to_owned(), &error);
    assert!(matches!(busy, InputError::Transient { .. }), "{busy}");
}

#[tokio::test]
async fn an_expired_client_secret_is_told_by_entra_id() {
    let server = Server::start().await;
    let refusal =
        r#"{"error":"invalid_client","error_description":"AADSTS7000222: The secret has expired."}"#;
    *server.script.answer.lock().unwrap() = Some((401, refusal.to_owned()));
    let azure = json!({
        "client_id": "app", "tenant_id": "t", "client_secret": "hunter2", "authority_host": server.address,
    });
    let store = server.store("az://acme", azure, &[]);
    let error = store.store.list_with_delimiter(Some(&Path::from("insights-logs-jobs"))).await.unwrap_err();
    assert_eq!(
        super::super::refusal("cannot list x".to_owned(), &error).to_string(),
        "cannot list x: no access token from 127.0.0.1: AADSTS7000222: The secret has expired; make a new one and put \
         it in azure.client_secret"
    );
}

#[test]
fn an_account_is_named_once_and_its_url_names_no_container() {
    let open = |url: &str, azure: serde_json::Value, named: &[&str]| {
        let settings: StoreSettings = serde_json::from_value(json!({ "azure": azure })).unwrap();
        let named = named.iter().map(|name| (*name).to_owned()).collect();
        let containers = Containers { layout: AzureLayout::Diagnostic, named };
        store::open(url, &settings, Some(&containers), std::path::Path::new("/")).map(|_| ())
    };
    let connection = "AccountName=acme;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net";
    open("az://acme/", key(), &["insights-logs-jobs"]).unwrap();
    open("az://acme", json!({ "connection_string": connection }), &[]).unwrap();
    for (url, azure, named, key) in [
        ("az://insights-logs-jobs", key(), &[][..], "url"),
        ("az://acme/insights-logs-jobs", key(), &[], "url"),
        ("az://", key(), &[], "url"),
        ("az://acme_x", key(), &[], "azure.account"),
        ("az://acme", json!({ "access_key": "c2VjcmV0", "account": "other" }), &[], "azure.account"),
        ("az://other", json!({ "connection_string": connection }), &[], "azure.connection_string"),
        ("az://acme", json!({ "connection_string": "hunter2" }), &[], "azure.connection_string"),
        ("az://acme", key(), &["a/b"], "containers"),
    ] {
        let error = open(url, azure, named).unwrap_err();
        assert_eq!(error.key, key, "{url}: {error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn the_resource_manager_is_asked_where_an_identity_reads_the_account() {
    let asks = |table: serde_json::Value| {
        let config = super::super::config::parse(table).unwrap().config;
        workspaces(&config)
            .unwrap()
            .map(|workspaces| format!("{workspaces:?}").contains("management.azure.com"))
    };
    let identity = json!({ "client_id": "a", "tenant_id": "t", "client_secret": "s" });
    let table = |url: &str, layout: &str, azure: serde_json::Value| json!({ "url": url, "layout": layout, "azure": azure });
    assert_eq!(asks(table("az://acme", "azure_diagnostic", identity.clone())), Some(true));
    assert_eq!(asks(table("az://acme", "azure_diagnostic", key())), Some(false));
    assert_eq!(asks(table("/tmp", "azure_diagnostic", identity.clone())), Some(false));
    assert_eq!(asks(table("az://container", "any", identity.clone())), None);
    let mut off = identity.clone();
    off["resolve_workspace_ids"] = false.into();
    assert_eq!(asks(table("az://acme", "log_analytics_export", off)), Some(false));
    let mut on = identity;
    on["resolve_workspace_ids"] = true.into();
    assert_eq!(asks(table("/tmp", "azure_diagnostic", on)), Some(true));
}
