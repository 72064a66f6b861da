//! Azure as the binary meets it: Entra ID, the Resource Manager and a storage account in one scripted server.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use tokio::task::JoinSet;

use crate::support::place::{ONCE, RUN, configured, json_lines};
use crate::support::process::{Process, repository, run};

/// Answers for everything of Azure that a test needs.
struct Azure {
    url: String,
    cloud: Arc<Cloud>,
    _task: JoinSet<()>,
}

struct Cloud {
    /// The client secret that is valid now.
    secret: Mutex<&'static str>,
    /// What the Resource Manager answers for any workspace.
    workspace: Mutex<(u16, &'static str)>,
    asked: Mutex<Vec<String>>,
}

impl Azure {
    async fn start() -> Self {
        let cloud = Arc::new(Cloud {
            secret: Mutex::new("the secret"),
            workspace: Mutex::new((200, r#"{"properties":{"workspaceId":"7405611902334455"}}"#)),
            asked: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&cloud));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, cloud, _task: task }
    }

    /// Keys below `azure` of an input that authenticates here with the secret in the file `secret`.
    fn identity(&self) -> String {
        format!(
            "azure.client_id = \"app\"\nazure.tenant_id = \"tenant\"\nazure.client_secret = {{ file = \"secret\" }}\n\
             azure.authority_host = \"{0}\"\nazure.resource_manager_endpoint = \"{0}\"\n",
            self.url
        )
    }
}

async fn answer(State(cloud): State<Arc<Cloud>>, request: Request) -> (StatusCode, String) {
    let path = request.uri().path().to_owned();
    let authorization =
        request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    cloud.asked.lock().unwrap().push(format!("{path} {}", authorization.unwrap_or_default()));
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = String::from_utf8_lossy(&body).replace('+', " ");
    if path == "/tenant/oauth2/v2.0/token" {
        let valid = format!("client_secret={}", cloud.secret.lock().unwrap());
        return match body.contains(&valid) {
            true => (StatusCode::OK, r#"{"access_token":"the-token","expires_in":3600}"#.to_owned()),
            false => (
                StatusCode::UNAUTHORIZED,
                r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired."}"#
                    .to_owned(),
            ),
        };
    }
    if path.starts_with("/subscriptions/") {
        let (status, body) = *cloud.workspace.lock().unwrap();
        return (StatusCode::from_u16(status).unwrap(), body.to_owned());
    }
    // A storage account without containers.
    (StatusCode::OK, "<EnumerationResults><Containers /><NextMarker /></EnumerationResults>".to_owned())
}

/// A directory with the blobs of a diagnostic setting, read with these keys of the input.
fn with_blobs(input: &str) -> tempfile::TempDir {
    let directory = configured(&format!(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"blobs\"\nlayout = \"azure_diagnostic\"\n{input}\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n"
    ));
    let folder = directory.path().join(
        "blobs/insights-logs-accounts/resourceId=/SUBSCRIPTIONS/11111111-2222-3333-4444-555555555555/RESOURCEGROUPS/RG-DATA/\
         PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/DBW-PROD/y=2026/m=01/d=05/h=10/m=00",
    );
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(repository("tests/golden/azure_diagnostic.in.ndjson"), folder.join("PT1H.json")).unwrap();
    std::fs::write(directory.path().join("secret"), "the secret").unwrap();
    directory
}

fn workspaces(directory: &std::path::Path) -> Vec<serde_json::Value> {
    let events = json_lines(&std::fs::read_to_string(directory.join("out.ndjson")).unwrap());
    events.iter().map(|event| event["workspace_id"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn workspace_ids_are_asked_of_the_resource_manager_once() {
    let azure = Azure::start().await;
    let keys = format!("azure.resolve_workspace_ids = true\n{}", azure.identity());
    let directory = with_blobs(&keys);
    run(&ONCE, directory.path()).with(0);
    let found = workspaces(directory.path());
    assert!(found.len() >= 4 && found.iter().all(|id| id == "7405611902334455"), "{found:?}");
    let asked = azure.cloud.asked.lock().unwrap().clone();
    let resource = "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg-data/providers/microsoft.databricks/workspaces/dbw-prod";
    assert_eq!(asked, ["/tenant/oauth2/v2.0/token ".to_owned(), format!("{resource} Bearer the-token")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_resource_manager_that_refuses_is_said_once_and_stops_nothing() {
    let azure = Azure::start().await;
    *azure.cloud.workspace.lock().unwrap() = (403, "no");
    let keys = format!("azure.resolve_workspace_ids = true\n{}", azure.identity());
    let directory = with_blobs(&keys);
    let ended = run(&ONCE, directory.path()).with(0);
    let found = workspaces(directory.path());
    // The request of one of them names the workspace.
    assert!(
        found.iter().any(|id| id == "7405611902334455") && found.iter().any(|id| id.is_null()),
        "{found:?}"
    );
    let said = ended.stderr.matches("give the identity the role Reader on the workspace").count();
    assert_eq!(said, 1, "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_expired_client_secret_holds_until_a_new_one_is_in_its_file() {
    let azure = Azure::start().await;
    *azure.cloud.secret.lock().unwrap() = "the new secret";
    let directory = configured(&format!(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"az://acmelogs\"\nlayout = \"azure_diagnostic\"\n\
         poll_interval = \"1s\"\nazure.endpoint = \"{}\"\nazure.allow_http = true\n{}\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n[server]\nlisten = \"none\"\n",
        azure.url,
        azure.identity()
    ));
    std::fs::write(directory.path().join("secret"), "the secret").unwrap();
    let mut process = Process::start(&RUN, directory.path());
    process.until_logged(
        "cannot list the containers: no access token from 127.0.0.1: AADSTS7000222: The provided client secret keys are \
         expired; make a new one and put it in azure.client_secret; waiting, nothing is lost",
    );
    std::fs::write(directory.path().join("secret"), "the new secret").unwrap();
    process.until_logged("the input can be read again");
    process.signal("TERM");
    process.end().with(0);
}
