//! The HTTP client of the stores. The library's own follows redirects, ten of them and to anywhere; whoever answers in a
//! store's place, or may set one up, could have any address asked from here. Nothing but what is configured is.

use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService,
};
use object_store::{ClientOptions, Error, Result};
use thiserror::Error;

use crate::connection::{Connections, ObjectTraffic};
use crate::http::{HttpSettings, innermost, remedy};

/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes clients that ask nobody else.
#[derive(Clone, Debug)]
pub(in crate::input::bucket) struct Connector(pub(in crate::input::bucket) HttpSettings);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        // The machine's metadata is asked for credentials in the clear whatever the configuration says, and is there at
        // once or not at all.
        let option = |key| options.get_config_value(&key);
        let allow_http = option(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let timeout =
            option(ClientConfigKey::ConnectTimeout).and_then(|text| humantime::parse_duration(&text).ok());
        let objects = ObjectTraffic {
            allow_http,
            connect_timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
            read_timeout: READ_TIMEOUT,
        };
        let connections = Connections::open(&HttpSettings { objects: Some(objects), ..self.0.clone() });
        let connections =
            connections.map_err(|error| Error::Generic { store: "HTTP client", source: Box::new(error) })?;
        Ok(HttpClient::new(Asking(connections)))
    }
}

/// Clients of one store, made anew when a file they were made with changes.
#[derive(Debug)]
struct Asking(Connections);

#[async_trait]
impl HttpService for Asking {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.client().call(request).await;
        answer.map_err(|error| HttpError::new(error.kind(), NoAnswer::of(&error)))
    }
}

/// Why a store did not answer, and what to do. The library only tells that a request failed.
#[derive(Debug, Error)]
#[error("{0}")]
struct NoAnswer(String);

impl NoAnswer {
    fn of(error: &HttpError) -> Self {
        let cause = innermost(error);
        let reached = error.kind() != HttpErrorKind::Connect && !cause.contains("received fatal alert");
        let remedy = remedy(&cause, reached).replace("`url`", "the endpoint");
        Self(cause + &remedy)
    }
}
