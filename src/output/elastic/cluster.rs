//! Requests to a cluster: to the node whose turn it is, with the login.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::Config;
use super::login::{Login, NoLogin};
use crate::batch::Request;
use crate::component::BuildError;
use crate::endpoints::{Endpoint, Endpoints};
use crate::http::{Answer, Client, HttpSettings, NoAnswer};
use crate::output::Verdict;

/// Well below what load balancers in front of a cluster keep idle connections for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Cluster {
    nodes: Endpoints,
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
        let nodes = Endpoints::new("url", &config.url)?;
        let address = nodes.all().first().map_or("", Endpoint::url);
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
        let Some(node) = self.nodes.pick() else {
            let cause = "no node is configured".to_owned();
            let nowhere = NoAnswer { cause, remedy: "", ambiguous: false, human: true };
            return Ok(Exchange { answer: Err(nowhere), secrets: Vec::new() });
        };
        let url = format!("{}{path}", node.url());
        let secrets = self.login.add_to(&mut headers, &method, &url, &request.body).await?;
        let began = Instant::now();
        let answer = self.client.send(method, &url, headers, request).await;
        match &answer {
            // A gateway that does not reach its node, and a node that knows no master or shuts down.
            Err(_) | Ok(Answer { status: 502..=504, .. }) => node.failed(began),
            Ok(_) => node.works(),
        }
        Ok(Exchange { answer, secrets })
    }

    /// Learns from the verdict on a request with these secrets which of them the cluster knows.
    pub(super) fn rotated(&self, verdict: Verdict, secrets: &[String]) -> Verdict {
        match self.login.secret().zip(secrets.first()) {
            Some((secret, text)) => verdict.rotated(&[(secret, text.clone())]),
            None => verdict,
        }
    }
}
