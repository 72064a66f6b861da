use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Mutex as StdMutex;
use tokio::task::JoinSet;

use super::*;
use crate::secret::Secret;

const RESOURCE: &str = "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg-data/providers/microsoft.databricks/workspaces/dbw-prod";

/// Entra ID and the Resource Manager in one.
struct Azure {
    workspaces: Workspaces,
    script: Arc<Script>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    answer: StdMutex<(u16, String)>,
    asked: StdMutex<Vec<String>>,
}

impl Azure {
    async fn start(status: u16, body: &str) -> Self {
        let script =
            Arc::new(Script { answer: StdMutex::new((status, body.to_owned())), ..Script::default() });
        let router = Router::new()
            .route(
                "/t/oauth2/v2.0/token",
                axum::routing::post(|| async { r#"{"access_token":"t1","expires_in":3600}"# }),
            )
            .fallback(answer)
            .with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async { axum::serve(listener, router).await.unwrap() });
        let identity = IdentitySettings {
            table: "azure",
            client_id: Some("app".to_owned()),
            tenant_id: Some("t".to_owned()),
            client_secret: Some(Secret::plain("s")),
            authority_host: Some(url.clone()),
            ..IdentitySettings::default()
        };
        let workspaces = Workspaces::configured(HashMap::from([("/configured".to_owned(), "7".to_owned())]));
        let workspaces =
            workspaces.asking(Some(&url), "endpoint", &identity, &HttpSettings::default()).unwrap();
        Self { workspaces, script, _task: task }
    }

    fn answer(&self, status: u16, body: &str) {
        *self.script.answer.lock().unwrap() = (status, body.to_owned());
    }

    async fn id(&self) -> Option<String> {
        self.workspaces.id(RESOURCE).await.map(|id| id.to_string())
    }

    fn asked(&self) -> Vec<String> {
        self.script.asked.lock().unwrap().clone()
    }
}

async fn answer(State(script): State<Arc<Script>>, request: axum::extract::Request) -> (StatusCode, String) {
    let bearer = request.headers()["authorization"].to_str().unwrap().to_owned();
    script.asked.lock().unwrap().push(format!("{} {bearer}", request.uri()));
    let (status, body) = script.answer.lock().unwrap().clone();
    (StatusCode::from_u16(status).unwrap(), body)
}

#[tokio::test]
async fn a_workspace_is_asked_for_once_with_a_token() {
    let azure = Azure::start(200, r#"{"properties":{"workspaceId":"7405611902334455"}}"#).await;
    for _ in 0..3 {
        assert_eq!(azure.id().await.as_deref(), Some("7405611902334455"));
    }
    assert_eq!(azure.asked(), [format!("{RESOURCE}?api-version={API_VERSION} Bearer t1")]);
    assert_eq!(azure.workspaces.id("/configured").await.as_deref(), Some("7"));
}

#[tokio::test]
async fn the_id_may_stand_in_the_workspaces_url_alone() {
    let azure =
        Azure::start(200, r#"{"properties":{"workspaceUrl":"adb-740561.9.azuredatabricks.net"}}"#).await;
    assert_eq!(azure.id().await.as_deref(), Some("740561"));
}

#[tokio::test]
async fn a_refusal_is_remembered_for_an_hour_and_a_failure_for_a_minute() {
    for (status, lasts) in [(403, REFUSED_FOR), (404, REFUSED_FOR), (503, FAILED_FOR)] {
        let azure = Azure::start(status, "no").await;
        assert_eq!(azure.id().await, None);
        assert_eq!(azure.id().await, None);
        assert_eq!(azure.asked().len(), 1, "{status}");
        azure.answer(200, r#"{"properties":{"workspaceId":"5"}}"#);
        match azure.workspaces.known.lock().await.get_mut(RESOURCE) {
            Some(Known::Unknown { until }) => {
                assert!(*until > Instant::now() + lasts - Duration::from_secs(30), "{status}");
                *until = Instant::now();
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(azure.id().await.as_deref(), Some("5"), "put right without a restart");
    }
}

#[tokio::test]
async fn what_is_no_workspace_is_never_asked_for() {
    let azure = Azure::start(200, r#"{"properties":{"workspaceId":"5"}}"#).await;
    for resource in [
        "",
        "/subscriptions/s/resourcegroups/g/providers/microsoft.keyvault/vaults/v",
        "/subscriptions/s/resourcegroups/g/providers/microsoft.databricks/workspaces/w/accessconnectors/x",
        "/subscriptions/s/resourcegroups/../providers/microsoft.databricks/workspaces/w",
        "/subscriptions/s/resourcegroups/g/providers/microsoft.databricks/workspaces/w?x=",
        "@evil.example/subscriptions/s/resourcegroups/g/providers/microsoft.databricks/workspaces/w",
    ] {
        assert_eq!(azure.workspaces.id(resource).await, None, "{resource}");
    }
    assert!(azure.asked().is_empty());
}

#[test]
fn resources_are_found_in_records_and_not_in_texts_within_them() {
    let text = br#"{"resourceId":"/A","x":"{\"resourceId\":\"/no\"}"}
        {"_ResourceId" : "/b","WorkspaceResourceId":"c","resourceId":null,"resourceId":"/cut"#;
    assert_eq!(resources(text).collect::<Vec<_>>(), [b"/A".as_slice(), b"/b"]);
}

#[tokio::test]
async fn an_origin_learns_the_workspaces_of_its_records() {
    let ids = HashMap::from([("/a".to_owned(), "1".to_owned()), ("/b".to_owned(), "2".to_owned())]);
    let workspaces = Workspaces::configured(ids);
    let mut known = workspaces.of_path(Arc::new(Origin::of_object("o")), "/a").await;
    assert_eq!(known.workspace.as_deref(), Some("1"));
    workspaces
        .of_records(&mut known, br#"{"_ResourceId":"/A"} {"_ResourceId":"/B"} {"_ResourceId":"/C"}"#)
        .await;
    assert_eq!(known.workspace_ids.get("/a").map(|id| &**id), Some("1"));
    assert_eq!(known.workspace_ids.get("/b").map(|id| &**id), Some("2"));
    assert_eq!((known.workspace_ids.len(), &*known.object), (2, "o"));
}
