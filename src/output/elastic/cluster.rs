//! Requests to a cluster: to the node whose turn it is, with the login.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::Config;
use super::login::{Login, NoLogin};
use super::nodes::Nodes;
use crate::batch::Request;
use crate::component::BuildError;
use crate::http::{Answer, Client, HttpSettings, NoAnswer};

/// Well below what load balancers in front of a cluster keep idle connections for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Cluster {
    nodes: Nodes,
    login: Login,
    client: Client,
}

/// What came of a request, and the secrets that went with it: what is told of the one must not show the others.
pub(super) struct Exchange {
    pub(super) answer: Result<Answer, NoAnswer>,
    pub(super) secrets: Vec<String>,
}

impl Cluster {
    pub(super) fn new(config: &Config, mut http: HttpSettings) -> Result<Self, BuildError> {
        http.idle_timeout = Some(IDLE_TIMEOUT);
        let nodes = Nodes::new(&config.url)?;
        let (_, address) = nodes.pick(Instant::now());
        let login = Login::of(config, address)?;
        Ok(Self { login, nodes, client: Client::new(&http)? })
    }

    /// Makes one request of a path, which begins with a slash.
    ///
    /// # Errors
    /// [`NoLogin`] if the credentials cannot be had now.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        request: &Request,
    ) -> Result<Exchange, NoLogin> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let (node, address) = self.nodes.pick(Instant::now());
        let url = format!("{address}{path}");
        let secrets = self.login.add_to(&mut headers, &method, &url, &request.body).await?;
        let answer = self.client.send(method, &url, headers, request).await;
        match &answer {
            // A gateway that does not reach its node, and a node that knows no master or shuts down.
            Err(_) | Ok(Answer { status: 502..=504, .. }) => self.nodes.failed(node, Instant::now()),
            Ok(_) => self.nodes.works(node),
        }
        Ok(Exchange { answer, secrets })
    }
}
