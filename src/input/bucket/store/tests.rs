use object_store::ObjectStoreExt;
use serde_json::json;

use super::*;

fn settings(value: serde_json::Value) -> StoreSettings {
    serde_json::from_value(value).unwrap()
}

fn refused(url: &str, value: serde_json::Value) -> BuildError {
    open(url, &settings(value), None, FilePath::new("/")).unwrap_err()
}

#[test]
fn every_url_names_its_store() {
    let all = settings(json!({
        "s3": { "region": "eu-central-1", "access_key_id": "id", "secret_access_key": "secret" },
        "gcs": { "anonymous": true },
        "azure": { "account": "acme", "access_key": "c2VjcmV0" },
    }));
    for (url, scheme, cloud, prefix, shown) in [
        ("s3://acme-audit/logs/all/", Scheme::S3, "aws", "logs/all", "acme-audit"),
        ("s3://acme.audit", Scheme::S3, "aws", "", "acme.audit"),
        ("gs://acme_audit/logs", Scheme::Gcs, "gcp", "logs", "acme_audit"),
        ("az://insights-logs-jobs/resourceId=", Scheme::Azure, "azure", "resourceId=", "insights-logs-jobs"),
    ] {
        let store = open(url, &all, None, FilePath::new("/")).unwrap();
        assert_eq!(
            (store.scheme, store.cloud, store.prefix.as_ref()),
            (scheme, Some(cloud), prefix),
            "{url}"
        );
        assert!(store.store.to_string().contains(shown), "{url}: {}", store.store);
        assert_eq!(store.root, None);
    }
}

#[tokio::test]
async fn a_directory_is_named_by_url_or_path() {
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join("a b");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("x=1.json"), "{}").unwrap();
    let root = directory.canonicalize().unwrap();
    let url = Url::from_directory_path(&directory).unwrap();
    for spelled in [url.as_str(), "a b", "./a b/", directory.to_str().unwrap()] {
        let store = open(spelled, &StoreSettings::default(), None, base.path()).unwrap();
        assert_eq!(
            (store.scheme, store.cloud, store.root.as_ref()),
            (Scheme::Local, None, Some(&root)),
            "{spelled}"
        );
        store.store.head(&Path::from("x=1.json")).await.unwrap();
    }
}

#[test]
fn a_url_that_names_no_store_is_refused() {
    for (url, expected) in [
        ("http://acme.example/logs", "`http://` is no store"),
        ("s3:///logs", "names no bucket"),
        ("s3://acme//logs", "empty part"),
        ("s3://acme/a//logs", "cannot be a prefix"),
        ("file://relative/path", "file:///absolute/path"),
        ("no/such/directory", "/no/such/directory"),
        ("/proc/version", "not a directory"),
    ] {
        let error = refused(url, json!({}));
        assert!(error.key == "url" && error.message.contains(expected), "{url}: {error}");
    }
}

#[test]
fn keys_that_do_not_go_together_are_refused() {
    for (url, value, key) in [
        ("s3://b", json!({ "s3": { "access_key_id": "id" } }), "s3.secret_access_key"),
        ("s3://b", json!({ "s3": { "secret_access_key": "s" } }), "s3.access_key_id"),
        ("s3://b", json!({ "s3": { "session_token": "t" } }), "s3.session_token"),
        ("s3://b", json!({ "s3": { "external_id": "x" } }), "s3.external_id"),
        ("s3://b", json!({ "s3": { "role_session_name": "x" } }), "s3.role_session_name"),
        (
            "s3://b",
            json!({ "s3": { "access_key_id": "id", "secret_access_key": "s", "profile": "p" } }),
            "s3.profile",
        ),
        ("s3://b", json!({ "s3": { "anonymous": true, "role_arn": "arn" } }), "s3.anonymous"),
        ("s3://b", json!({ "s3": { "anonymous": true, "endpoint": "http://minio" } }), "s3.endpoint"),
        ("s3://b", json!({ "s3": { "anonymous": true, "endpoint": "minio:9000" } }), "s3.endpoint"),
        ("gs://b", json!({ "gcs": { "service_account_file": "/no/such/file" } }), "gcs.service_account_file"),
        ("az://b", json!({ "azure": { "account": "acme", "access_key": "no base64!" } }), "azure.access_key"),
        (
            "az://b",
            json!({ "azure": { "account": "acme", "access_key": "a", "sas_token": "b" } }),
            "azure.sas_token",
        ),
        ("az://b", json!({ "azure": { "account": "acme", "client_secret": "s" } }), "azure.tenant_id"),
        ("az://b", json!({ "azure": {} }), "azure.account"),
    ] {
        let error = refused(url, value.clone());
        assert_eq!(error.key, key, "{value}: {error}");
    }
}

#[test]
fn a_hint_of_a_secret_is_not_printed() {
    let all = settings(
        json!({ "s3": { "region": "x", "access_key_id": "hunter1", "secret_access_key": "hunter2" } }),
    );
    let store = open("s3://bucket", &all, None, FilePath::new("/")).unwrap();
    assert!(!format!("{all:?}").contains("hunter"), "{all:?}");
    assert!(!format!("{store:?}").contains("hunter2"));
}

/// A server that sends everybody elsewhere, and a listener there.
fn redirecting(tasks: &mut tokio::task::JoinSet<()>) -> (String, std::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, elsewhere) = (bind(), bind());
    for listener in [&server, &elsewhere] {
        listener.set_nonblocking(true).unwrap();
    }
    let endpoint = format!("http://{}", server.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        elsewhere.local_addr().unwrap()
    );
    let server = tokio::net::TcpListener::from_std(server).unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (endpoint, elsewhere)
}

#[tokio::test]
async fn no_store_goes_where_an_answer_sends_it() {
    let mut tasks = tokio::task::JoinSet::new();
    let (endpoint, elsewhere) = redirecting(&mut tasks);
    let settings = settings(json!({
        "s3": { "endpoint": endpoint, "allow_http": true, "access_key_id": "id", "secret_access_key": "secret" },
        "gcs": { "endpoint": endpoint, "allow_http": true, "anonymous": true },
        "azure": { "endpoint": endpoint, "allow_http": true, "account": "acme", "access_key": "c2VjcmV0" },
    }));
    for url in ["s3://audit/logs", "gs://audit/logs", "az://audit/logs"] {
        let store = open(url, &settings, None, FilePath::new("/")).unwrap().store;
        assert!(store.head(&Path::from("a")).await.is_err(), "{url}");
        assert!(store.get(&Path::from("a")).await.is_err(), "{url}");
        assert!(store.list_with_delimiter(None).await.is_err(), "{url}");
        let came = elsewhere.accept();
        assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{url}");
    }
}

#[tokio::test]
async fn a_refusal_of_s3_is_told_as_what_it_is_also_of_a_listing() {
    for (status, code, message, remedy) in [
        (
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            "clock",
        ),
        (403, "AccessDenied", "Access Denied", "check the credentials"),
        (
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist",
            "check the credentials",
        ),
        (400, "ExpiredToken", "The provided token has expired.", "check the credentials"),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let answer = (axum::http::StatusCode::from_u16(status).unwrap(), body);
        let router = axum::Router::new().fallback(move || std::future::ready(answer.clone()));
        let (endpoint, _server) = served(router).await;
        let s3 = json!({ "region": "eu-central-1", "access_key_id": "id", "secret_access_key": "s", "endpoint": endpoint, "allow_http": true });
        let store =
            open("s3://acme", &settings(json!({ "s3": s3 })), None, FilePath::new("/")).unwrap().store;
        let read = store.get(&Path::from("a.json")).await.unwrap_err();
        let listed = store.list_with_delimiter(None).await.unwrap_err();
        for error in [read, listed] {
            let error = crate::input::bucket::refusal("cannot read".to_owned(), &error);
            let text = error.to_string();
            assert!(error.needs_a_human() && text.contains(remedy) && text.contains(message), "{text}");
            assert!(remedy == "check the credentials" || !text.contains("check the credentials"), "{text}");
        }
    }
}

#[tokio::test]
async fn an_archived_object_is_told_as_such_and_is_nothing_to_hold_for() {
    let archived =
        [(403, "InvalidObjectState", "s3", "s3://acme"), (409, "BlobArchived", "azure", "az://acme")];
    for (status, code, table, url) in archived {
        let body = format!("<Error><Code>{code}</Code><Message>It is archived.</Message></Error>");
        let answer = (axum::http::StatusCode::from_u16(status).unwrap(), body);
        let router = axum::Router::new().fallback(move || std::future::ready(answer.clone()));
        let (endpoint, _server) = served(router).await;
        let s3 = json!({ "region": "eu-central-1", "access_key_id": "id", "secret_access_key": "s", "endpoint": endpoint, "allow_http": true });
        let azure =
            json!({ "account": "acme", "access_key": "c2VjcmV0", "endpoint": endpoint, "allow_http": true });
        let table = json!({ table: if table == "s3" { s3 } else { azure } });
        let store = open(url, &settings(table), None, FilePath::new("/")).unwrap().store;
        let error = store.get(&Path::from("a.json")).await.unwrap_err();
        assert!(crate::input::bucket::refusal::is_archived(&error), "{error}");
        let error = crate::input::bucket::refusal("cannot read".to_owned(), &error);
        assert!(!error.needs_a_human() && error.to_string().contains("restore it"), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_the_library_cannot_spell_is_told_with_what_to_do() {
    let page = |found: &str| {
        format!(
            r#"<ListBucketResult><Name>acme</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"#
        )
    };
    let object = "<Contents><Key>logs//a.json</Key><LastModified>2026-01-05T10:00:00.000Z</LastModified><ETag>\"1\"</ETag><Size>3</Size></Contents>";
    for found in [object, "<CommonPrefixes><Prefix>logs//</Prefix></CommonPrefixes>"] {
        let body = page(found);
        let router = axum::Router::new().fallback(move || std::future::ready(body.clone()));
        let (endpoint, _server) = served(router).await;
        let s3 = json!({ "region": "eu-central-1", "access_key_id": "id", "secret_access_key": "s", "endpoint": endpoint, "allow_http": true });
        let store = open("s3://acme/logs", &settings(json!({ "s3": s3 })), None, FilePath::new("/")).unwrap();
        let error = store.store.list_with_delimiter(Some(&store.prefix)).await.unwrap_err();
        let error = crate::input::bucket::refusal("cannot list logs".to_owned(), &error);
        let text = error.to_string();
        assert!(error.needs_a_human() && text.contains("logs//") && text.contains("`url`"), "{text}");
    }
}

/// A server that answers so, until the tasks are dropped, and its address.
async fn served(router: axum::Router) -> (String, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async { axum::serve(listener, router).await.unwrap() });
    (endpoint, server)
}

#[tokio::test]
async fn the_metadata_of_a_machine_are_asked_of_no_proxy() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    for no_proxy in [json!(null), json!("example.com")] {
        let settings = settings(json!({ "http": { "proxy": address, "no_proxy": no_proxy } }));
        let store = open("gs://audit/logs", &settings, None, FilePath::new("/")).unwrap().store;
        assert!(store.head(&Path::from("a")).await.is_err(), "there is no token to ask with");
        let came = proxy.accept();
        assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{no_proxy}");
    }
}

#[test]
fn a_file_of_certificates_that_is_not_there_is_told_by_its_key() {
    let settings = settings(json!({ "http": { "tls": { "ca_file": "/nowhere/ca.pem" } } }));
    for url in ["s3://audit", "gs://audit", "az://audit"] {
        let error = open(url, &settings, None, FilePath::new("/")).unwrap_err();
        assert_eq!(error.key, "tls.ca_file", "{url}");
    }
}
