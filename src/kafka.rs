//! Brokers of Kafka, or of Event Hubs over its Kafka endpoint: where they are, how to log in, and over what TLS. Shared by
//! whatever reads from them and whatever writes to them.

use std::path::PathBuf;
use std::sync::Arc;
#[cfg(feature = "kafka")]
use std::{error::Error, time::UNIX_EPOCH};

#[cfg(feature = "kafka")]
use rdkafka::{ClientConfig, client::OAuthToken, config::RDKafkaLogLevel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
#[cfg(feature = "kafka")]
use tokio::runtime::Handle;

use crate::azure_token::{AzureToken, IdentitySettings};
use crate::component::BuildError;
use crate::secret::Secret;
#[cfg(feature = "kafka")]
use crate::secret::SecretError;

/// Port of the Kafka endpoint of Event Hubs.
const EVENT_HUBS_PORT: u16 = 9093;
/// Longest name of a topic.
pub const MAX_TOPIC_BYTES: usize = 249;
/// Azure closes connections that are idle for four minutes without a word.
#[cfg(feature = "kafka")]
const IDLE_MS: u32 = 180_000;

/// What is said where the client was left out of the build.
pub fn missing() -> BuildError {
    BuildError::new(
        "type",
        "this build has no Kafka client: build with --features kafka, which wants make and perl besides a C compiler",
    )
}

/// True for what may stand in the name of a topic.
pub fn is_of_topic(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// `azure`: whose tokens to log in with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Azure {
    /// Application (client) id of a service principal or of a user-assigned managed identity.
    pub client_id: Option<String>,
    /// Directory (tenant) id of the service principal.
    pub tenant_id: Option<String>,
    /// Client secret of the service principal.
    pub client_secret: Option<Secret>,
    /// PEM file with the service principal's certificate and its RSA key, in place of a secret.
    pub client_certificate_file: Option<PathBuf>,
    /// Entra ID of a sovereign cloud. Default: the public cloud's.
    pub authority_host: Option<String>,
}

impl Azure {
    /// True where nothing is said.
    pub fn is_empty(&self) -> bool {
        let Self { client_id, tenant_id, client_secret, client_certificate_file, authority_host } = self;
        let texts = [client_id, tenant_id, authority_host];
        texts.iter().all(|text| text.is_none())
            && client_secret.is_none()
            && client_certificate_file.is_none()
    }

    /// Tokens for the namespace at this host.
    fn token(&self, host: &str) -> Result<AzureToken, BuildError> {
        let identity = IdentitySettings {
            table: "azure",
            client_id: self.client_id.clone(),
            tenant_id: self.tenant_id.clone(),
            client_secret: self.client_secret.clone(),
            client_certificate_file: self.client_certificate_file.clone(),
            authority_host: self.authority_host.clone(),
        };
        AzureToken::new(&identity, &format!("https://{host}/.default"))
    }
}

/// `sasl`: how to log in to a broker that is not Event Hubs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sasl {
    /// How the password is shown to the broker.
    pub mechanism: Mechanism,
    /// The user. Default: no login.
    pub username: Option<String>,
    /// The password; goes with `username`.
    pub password: Option<Secret>,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mechanism {
    /// As it is.
    #[default]
    #[serde(rename = "plain")]
    Plain,
    /// By a challenge with SHA-256.
    #[serde(rename = "scram_sha_256")]
    ScramSha256,
    /// By a challenge with SHA-512.
    #[serde(rename = "scram_sha_512")]
    ScramSha512,
}

/// `tls` of the connections to the brokers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Off for brokers that speak no TLS: everything is then readable on the way. Event Hubs always speaks it.
    pub enabled: bool,
    /// PEM file of the certificate authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, for brokers that want one. Goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<PathBuf>,
    /// Accept any certificate. Default false; anybody in between can then read the audit trail, and the login.
    pub insecure: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self { enabled: true, ca_file: None, cert_file: None, key_file: None, insecure: false }
    }
}

/// How to log in. Secrets are read anew for each login.
#[derive(Clone, Debug)]
pub enum Login {
    /// Not at all, or by the client certificate.
    None,
    /// A user and a password.
    Password { mechanism: Mechanism, username: String, password: Secret, key: &'static str },
    /// A token of Entra ID.
    Azure(Arc<AzureToken>),
}

/// The keys that say how to log in.
#[derive(Clone, Copy, Debug)]
pub struct LoginKeys<'a> {
    /// `connection_string` of Event Hubs.
    pub connection_string: Option<&'a Secret>,
    /// `sasl`
    pub sasl: &'a Sasl,
    /// `azure`, where an identity of Entra ID logs in if nothing else does.
    pub azure: Option<&'a Azure>,
}

impl LoginKeys<'_> {
    /// The login at these brokers.
    ///
    /// # Errors
    /// [`BuildError`] naming the key that is missing or one too many.
    pub fn login(self, servers: &[String]) -> Result<Login, BuildError> {
        let Self { connection_string, sasl, azure } = self;
        if let Some(connection_string) = connection_string {
            if sasl.username.is_some() || sasl.password.is_some() {
                return Err(BuildError::new("sasl", "must be left out beside connection_string"));
            }
            return Ok(Login::Password {
                mechanism: Mechanism::Plain,
                username: "$ConnectionString".to_owned(),
                password: connection_string.clone(),
                key: "connection_string",
            });
        }
        match (&sasl.username, &sasl.password) {
            (Some(username), Some(password)) => Ok(Login::Password {
                mechanism: sasl.mechanism,
                username: username.clone(),
                password: password.clone(),
                key: "sasl.password",
            }),
            (None, None) => {
                let Some(azure) = azure else { return Ok(Login::None) };
                let server = servers.first().and_then(|server| server.rsplit_once(':'));
                Ok(Login::Azure(Arc::new(azure.token(server.map_or("", |(host, _)| host))?)))
            }
            (Some(_), None) => Err(BuildError::new("sasl.password", "is missing beside sasl.username")),
            (None, Some(_)) => Err(BuildError::new("sasl.username", "is missing beside sasl.password")),
        }
    }
}

impl Login {
    /// What to check where the login is refused: the keys, in words.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::None => "`sasl`: the broker may want a user",
            Self::Password { key: "connection_string", .. } => {
                "`connection_string`: it may be of another namespace, or its key may have been renewed"
            }
            Self::Password { .. } => "`sasl.username` and `sasl.password`",
            Self::Azure(_) => "`azure`",
        }
    }
}

/// The brokers to ask first: those of `bootstrap_servers`, or the namespace of the connection string.
///
/// # Errors
/// [`BuildError`] naming the key that is missing or wrong.
pub fn servers(
    bootstrap_servers: &[String],
    connection_string: Option<&Secret>,
) -> Result<Vec<String>, BuildError> {
    for server in bootstrap_servers {
        let port = server.rsplit_once(':').and_then(|(host, port)| {
            let plain = !host.is_empty() && !host.contains(['/', ',', ' ']);
            port.parse::<u16>().ok().filter(|_| plain)
        });
        if port.is_none() {
            let message =
                format!("`{server}` is not host:port, such as \"acme.servicebus.windows.net:9093\"");
            return Err(BuildError::new("bootstrap_servers", message));
        }
    }
    if !bootstrap_servers.is_empty() {
        return Ok(bootstrap_servers.to_vec());
    }
    let Some(secret) = connection_string else {
        return Err(BuildError::new(
            "bootstrap_servers",
            "is missing: name at least one broker as host:port",
        ));
    };
    let text = secret.reveal().map_err(|error| BuildError::new("connection_string", error))?;
    let host = namespace(&text).ok_or_else(|| {
        // What was found is not repeated: it may be a secret of another kind.
        BuildError::new(
            "connection_string",
            "must begin with Endpoint=sb://<namespace>.servicebus.windows.net/;",
        )
    })?;
    Ok(vec![format!("{host}:{EVENT_HUBS_PORT}")])
}

/// The host of `Endpoint=sb://<host>/` in a connection string.
fn namespace(connection_string: &str) -> Option<&str> {
    connection_string.split(';').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        let host = value.strip_prefix("sb://")?.trim_end_matches('/');
        let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
        (name.eq_ignore_ascii_case("Endpoint") && plain && !host.is_empty()).then_some(host)
    })
}

/// The properties of a client that connects to these brokers. Secrets are read now: whoever connects anew gets what they
/// are by then.
///
/// # Errors
/// [`SecretError`] if the login's secret cannot be had.
#[cfg(feature = "kafka")]
pub fn client(servers: &[String], login: &Login, tls: &Tls) -> Result<ClientConfig, SecretError> {
    let mut client = ClientConfig::new();
    // Its own idea of what is logged comes from the crate `log`, which nobody listens to here.
    client.set_log_level(RDKafkaLogLevel::Info);
    client.set("bootstrap.servers", servers.join(","));
    client.set("client.id", "auditferry");
    client.set("metadata.max.age.ms", IDLE_MS.to_string());
    client.set("connections.max.idle.ms", IDLE_MS.to_string());
    client.set("topic.metadata.refresh.interval.ms", "60000");
    client.set("socket.keepalive.enable", "true");
    client.set("log.connection.close", "false");
    let protocol = match (login, tls.enabled) {
        (Login::None, true) => "ssl",
        (Login::None, false) => "plaintext",
        (_, true) => "sasl_ssl",
        (_, false) => "sasl_plaintext",
    };
    client.set("security.protocol", protocol);
    if tls.enabled {
        tls.set(&mut client);
    }
    match login {
        Login::None => {}
        Login::Azure(_) => {
            client.set("sasl.mechanisms", "OAUTHBEARER");
        }
        Login::Password { mechanism, username, password, .. } => {
            let mechanism = match mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            client.set("sasl.mechanisms", mechanism);
            client.set("sasl.username", username);
            client.set("sasl.password", password.reveal()?);
        }
    }
    Ok(client)
}

#[cfg(feature = "kafka")]
impl Tls {
    fn set(&self, client: &mut ClientConfig) {
        // OpenSSL is built in and knows no system's certificates: `probe` looks where systems keep them.
        let authorities = self.ca_file.as_ref().map_or("probe".to_owned(), |path| path.display().to_string());
        client.set("ssl.ca.location", authorities);
        if let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) {
            client.set("ssl.certificate.location", certificate.display().to_string());
            client.set("ssl.key.location", key.display().to_string());
        }
        if self.insecure {
            client.set("enable.ssl.certificate.verification", "false");
        }
    }
}

/// What the client logs in with where it calls back for a token. Blocks: the client calls from threads of its own.
///
/// # Errors
/// Whatever keeps the token from being had; the client tries again.
#[cfg(feature = "kafka")]
pub fn oauth_token(token: Option<&AzureToken>, runtime: &Handle) -> Result<OAuthToken, Box<dyn Error>> {
    let Some(token) = token else { return Err("no identity is configured".into()) };
    let token = runtime.block_on(token.get())?;
    let ends = token.ends.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(OAuthToken {
        token: token.reveal().to_owned(),
        principal_name: "auditferry".to_owned(),
        lifetime_ms: i64::try_from(ends.as_millis()).unwrap_or(i64::MAX),
    })
}
