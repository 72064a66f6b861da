use std::collections::HashMap;
use std::sync::Mutex as StdMutex;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::task::JoinSet;

use super::*;
use crate::secret::Secret;

const SCOPE: &str = "https://management.azure.com/.default";

/// A request as the server saw it: path, query or form, and headers.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    fields: HashMap<String, String>,
    headers: HeaderMap,
}

/// Gives the answers it is told, the last one again and again, and keeps what it was asked.
struct Authority {
    url: String,
    script: Arc<Script>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    answers: StdMutex<Vec<(u16, String)>>,
    seen: StdMutex<Vec<Seen>>,
}

impl Authority {
    async fn start(answers: &[(u16, &str)]) -> Self {
        let answers = answers.iter().rev().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let script = Arc::new(Script { answers: StdMutex::new(answers), ..Script::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, script, _task: task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }
}

async fn answer(State(script): State<Arc<Script>>, request: axum::extract::Request) -> (StatusCode, String) {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let fields = form_urlencoded::parse(query)
        .chain(form_urlencoded::parse(&body))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let path = parts.uri.path().to_owned();
    script.seen.lock().unwrap().push(Seen { path, fields, headers: parts.headers });
    let mut answers = script.answers.lock().unwrap();
    let (status, body) = if answers.len() > 1 { answers.pop() } else { answers.first().cloned() }.unwrap();
    (StatusCode::from_u16(status).unwrap(), body)
}

fn settings(authority: &Authority) -> IdentitySettings {
    IdentitySettings {
        table: "azure",
        client_id: Some("the-app".to_owned()),
        tenant_id: Some("the-tenant".to_owned()),
        authority_host: Some(authority.url.clone()),
        ..IdentitySettings::default()
    }
}

fn tokens(settings: &IdentitySettings, environment: &[(&str, &str)]) -> Result<AzureToken, BuildError> {
    let find = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    AzureToken::choose(settings, SCOPE, &HttpSettings::default(), &find)
}

fn token(text: &str, ends: SystemTime) -> Result<Token, TokenError> {
    Ok(Token { text: text.into(), ends })
}

fn lost() -> TokenError {
    TokenError::Unavailable { place: "login".to_owned(), reason: "connection reset".to_owned() }
}

async fn get(kept: &mut Kept, now: SystemTime, fetched: Result<Token, TokenError>) -> String {
    kept.get(now, async { fetched }).await.unwrap().reveal().to_owned()
}

#[tokio::test]
async fn a_client_secret_is_exchanged_once_for_all_who_ask_at_the_same_time() {
    let authority = Authority::start(&[(200, r#"{"access_token":"t1","expires_in":3600}"#)]).await;
    let settings = IdentitySettings { client_secret: Some(Secret::plain("hunter2")), ..settings(&authority) };
    let tokens = tokens(&settings, &[]).unwrap();
    let tokens = Arc::new(tokens);
    let mut asking = JoinSet::new();
    for _ in 0..3 {
        let tokens = Arc::clone(&tokens);
        asking.spawn(async move { tokens.get().await });
    }
    for token in asking.join_all().await {
        let token = token.unwrap();
        assert_eq!(token.reveal(), "t1");
        assert!(token.ends > SystemTime::now() + Duration::from_secs(3500));
        assert!(!format!("{token:?}").contains("t1"));
    }
    let seen = authority.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "/the-tenant/oauth2/v2.0/token");
    for (name, value) in [
        ("client_id", "the-app"),
        ("client_secret", "hunter2"),
        ("scope", SCOPE),
        ("grant_type", "client_credentials"),
    ] {
        assert_eq!(seen[0].fields[name], value);
    }
    assert!(!format!("{tokens:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_expired_secret_is_refused_by_its_key_and_a_new_one_needs_no_restart() {
    let expired = r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys for app 'the-app' are expired.\r\nTrace ID: 1"}"#;
    let authority =
        Authority::start(&[(401, expired), (200, r#"{"access_token":"t2","expires_in":"3600"}"#)]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "old").unwrap();
    let settings = IdentitySettings { client_secret: Some(Secret::file(&file)), ..settings(&authority) };
    let tokens = tokens(&settings, &[]).unwrap();
    let error = tokens.get().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no access token from 127.0.0.1: AADSTS7000222: The provided client secret keys for app 'the-app' are \
         expired; make a new one and put it in azure.client_secret"
    );
    std::fs::write(&file, "the new one").unwrap();
    tokens.kept.lock().await.renew = None;
    assert_eq!(tokens.get().await.unwrap().reveal(), "t2");
    assert_eq!(authority.seen()[1].fields["client_secret"], "the new one");
}

#[tokio::test]
async fn a_token_that_was_refused_is_fetched_anew_once() {
    let answers =
        [r#"{"access_token":"t1","expires_in":3600}"#, r#"{"access_token":"t2","expires_in":3600}"#];
    let authority = Authority::start(&answers.map(|answer| (200, answer))).await;
    let settings = IdentitySettings { client_secret: Some(Secret::plain("hunter2")), ..settings(&authority) };
    let tokens = tokens(&settings, &[]).unwrap();
    let first = tokens.get().await.unwrap();
    tokens.forget(&first).await;
    assert_eq!(tokens.get().await.unwrap().reveal(), "t2");
    tokens.forget(&first).await;
    assert_eq!((tokens.get().await.unwrap().reveal(), authority.seen().len()), ("t2", 2));
}

#[tokio::test]
async fn an_overloaded_authority_is_no_refusal() {
    let authority = Authority::start(&[(503, "busy")]).await;
    let settings = IdentitySettings { client_secret: Some(Secret::plain("s")), ..settings(&authority) };
    let error = tokens(&settings, &[]).unwrap().get().await.unwrap_err();
    assert!(matches!(&error, TokenError::Unavailable { reason, .. } if reason.contains("503")), "{error}");
}

#[tokio::test]
async fn a_managed_identity_is_asked_for_the_resource_at_the_metadata_service() {
    let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 7200;
    let answers = [
        format!(r#"{{"access_token":"m","expires_in":"86399","expires_on":"{ends}"}}"#),
        format!(r#"{{"access_token":"a","expires_on":"{ends}"}}"#),
    ];
    let authority = Authority::start(&[(200, &answers[0]), (200, &answers[1])]).await;
    let user_assigned = IdentitySettings {
        table: "azure",
        client_id: Some("its-id".to_owned()),
        ..IdentitySettings::default()
    };
    let metadata = tokens(&user_assigned, &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &authority.url)]).unwrap();
    assert_eq!(metadata.get().await.unwrap().reveal(), "m");
    let endpoint = format!("{}/msi/token", authority.url);
    let environment = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "key")];
    let app_service = tokens(&IdentitySettings::default(), &environment).unwrap();
    let token = app_service.get().await.unwrap();
    assert_eq!(token.ends, UNIX_EPOCH + Duration::from_secs(ends));

    let seen = authority.seen();
    assert_eq!(seen[0].path, "/metadata/identity/oauth2/token");
    assert_eq!(seen[0].headers["metadata"], "true");
    assert_eq!(seen[0].fields["resource"], "https://management.azure.com");
    assert_eq!(seen[0].fields["client_id"], "its-id");
    assert_eq!(
        (seen[1].path.as_str(), &seen[1].headers["x-identity-header"]),
        ("/msi/token", &"key".parse().unwrap())
    );
    assert!(!seen[1].fields.contains_key("client_id"));
}

#[tokio::test]
async fn a_machine_without_an_identity_says_what_to_set() {
    let unknown = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    let authority = Authority::start(&[(400, unknown)]).await;
    let nobody = IdentitySettings { table: "azure", ..IdentitySettings::default() };
    for url in [authority.url.as_str(), "http://127.0.0.1:1"] {
        let tokens = tokens(&nobody, &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)]).unwrap();
        let error = tokens.get().await.unwrap_err();
        assert!(matches!(error, TokenError::Refused { .. }), "{error}");
        assert!(error.to_string().ends_with("or set azure.client_id and azure.client_secret"), "{error}");
        assert!(!error.to_string().contains("`url`"), "{error}");
    }
}

#[tokio::test]
async fn a_federated_token_is_read_again_for_each_request() {
    let authority = Authority::start(&[(200, r#"{"access_token":"w","expires_in":1}"#)]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let settings = settings(&authority);
    let tokens = tokens(&settings, &[("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap())]).unwrap();
    let error = tokens.get().await.unwrap_err().to_string();
    assert!(error.ends_with("check AZURE_FEDERATED_TOKEN_FILE"), "{error}");
    for text in ["first", "second"] {
        std::fs::write(&file, format!("{text}\n")).unwrap();
        tokens.kept.lock().await.renew = None;
        tokens.get().await.unwrap();
        let seen = authority.seen().pop().unwrap();
        assert_eq!(seen.fields["client_assertion"], text);
        assert!(seen.fields["client_assertion_type"].ends_with("jwt-bearer"));
    }
}

#[tokio::test]
async fn a_token_is_kept_until_shortly_before_it_ends() {
    let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let ends = start + Duration::from_secs(3600);
    let mut kept = Kept::default();
    assert_eq!(get(&mut kept, start, token("first", ends)).await, "first");
    assert_eq!(get(&mut kept, ends - EARLY - Duration::from_secs(1), token("unused", ends)).await, "first");
    assert_eq!(get(&mut kept, ends - EARLY, token("second", ends + EARLY)).await, "second");
}

#[tokio::test]
async fn the_old_token_serves_while_it_lasts_when_a_renewal_fails() {
    let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let ends = start + Duration::from_secs(3600);
    let mut kept = Kept::default();
    get(&mut kept, start, token("first", ends)).await;
    assert_eq!(get(&mut kept, ends - EARLY, Err(lost())).await, "first");
    // No second attempt right away, but one before it ends.
    assert_eq!(get(&mut kept, ends - EARLY, token("early", ends)).await, "first");
    assert_eq!(get(&mut kept, ends - EARLY + RETRY, token("second", ends + EARLY)).await, "second");
}

#[tokio::test]
async fn a_failure_is_shared_by_those_who_wait_and_then_tried_again() {
    let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let ends = start + Duration::from_secs(3600);
    let mut kept = Kept::default();
    assert_eq!(kept.get(start, async { Err(lost()) }).await.unwrap_err(), lost());
    assert_eq!(kept.get(start, async { token("unasked", ends) }).await.unwrap_err(), lost());
    assert_eq!(get(&mut kept, start + FAILED, token("first", ends)).await, "first");
}

#[tokio::test]
async fn a_proof_that_is_repeated_is_in_no_message() {
    // Cut in its middle: half a secret is one.
    let long = format!("{{\"error\":\"x\",\"error_description\":\"*** {}hunter2/3\"}}", "x ".repeat(146));
    for (status, body) in [
        (400, r#"{"error":"invalid_client","error_description":"who is hunter2/3?"}"#),
        (401, r#"{"error":"who is hunter2\/3?"}"#),
        (502, "<html>client_secret=hunter2%2F3</html>"),
        (400, &long),
    ] {
        let authority = Authority::start(&[(status, body)]).await;
        let settings =
            IdentitySettings { client_secret: Some(Secret::plain("hunter2/3")), ..settings(&authority) };
        let said = tokens(&settings, &[]).unwrap().get().await.unwrap_err().to_string();
        assert!(said.contains("***") && !said.contains("hunter2"), "{said}");
    }
}
