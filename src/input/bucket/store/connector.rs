//! The HTTP client of the stores. The library's own follows redirects, ten of them and to anywhere; whoever answers in a
//! store's place, or may set one up, could have any address asked from here. Nothing but what is configured is.

use std::time::Duration;

use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::{ClientOptions, Error, Result};
use reqwest::redirect::Policy;

/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a byte. A limit of the whole request would cut off a large object, or a slow collector's.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes clients that ask nobody else.
#[derive(Clone, Copy, Debug)]
pub(in crate::input::bucket) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        // The machine's metadata is asked for credentials in the clear whatever the configuration says, and is there at
        // once or not at all.
        let option = |key| options.get_config_value(&key);
        let allow_http = option(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let timeout =
            option(ClientConfigKey::ConnectTimeout).and_then(|text| humantime::parse_duration(&text).ok());
        let client = reqwest::Client::builder()
            .user_agent(concat!("auditferry/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .https_only(!allow_http)
            .connect_timeout(timeout.unwrap_or(CONNECT_TIMEOUT))
            .read_timeout(READ_TIMEOUT)
            // Slower with many objects at once, the library says: ranges of one connection wait for each other.
            .http1_only()
            .build();
        let client =
            client.map_err(|error| Error::Generic { store: "HTTP client", source: Box::new(error) })?;
        Ok(HttpClient::new(client))
    }
}
