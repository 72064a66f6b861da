//! Connections to a collector: TLS, proxy, time-outs; how long they last, and what makes them be made anew.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::{Certificate, ClientBuilder, Identity, NoProxy, Proxy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::component::BuildError;
use crate::units::Period;

/// Where a machine in a cloud is told its credentials: on the machine itself, which no proxy knows.
const METADATA: &str = "169.254.169.254,metadata.google.internal";

/// How connections to a collector are made: keys every output over HTTP has.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Longest wait for one answer, from the first byte sent to the last byte read. A request that takes longer counts
    /// as ambiguous: it is sent again and may arrive twice.
    pub timeout: Period,
    /// TLS of the connection.
    pub tls: TlsSettings,
    /// Proxy for this output, as `http://[user:password@]host:port`. Default: `HTTPS_PROXY`, `HTTP_PROXY` and
    /// `NO_PROXY` of the environment; `"none"` goes direct.
    pub proxy: Option<String>,
    /// File of the authority of an https:// proxy, or of one that looks into TLS, in PEM. It is trusted besides the system's
    /// and `tls.ca_file`. Default: none.
    pub proxy_ca_file: Option<PathBuf>,
    /// Hosts that `proxy` is not used for: names, which stand for their subdomains too, addresses and networks, with
    /// commas. Default: `NO_PROXY` of the environment.
    pub no_proxy: Option<String>,
    /// Age at which connections are replaced by new ones, up to a fifth earlier. The host's name is resolved anew then, so
    /// that servers behind it that came or went are noticed.
    pub connection_age: Period,
    /// Set by the output, not by the user: connections idle for longer are closed before the server does it.
    #[serde(skip)]
    pub idle_timeout: Option<Duration>,
    /// Set by who reads objects, not by the user.
    #[serde(skip)]
    pub objects: Option<ObjectTraffic>,
}

/// Connections that objects are read over. They take as long as they take, while bytes come: a limit of the whole request
/// would cut off a large object, or a slow collector's.
#[derive(Clone, Copy, Debug)]
pub struct ObjectTraffic {
    /// Whether the store may be asked in the clear.
    pub allow_http: bool,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Time without a byte.
    pub read_timeout: Duration,
}

/// `tls` of an output. The files are read again when they change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, for collectors that want one. Goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<PathBuf>,
    /// Oldest version of TLS to speak.
    pub min_version: TlsVersion,
    /// Accept any certificate. Default false; anybody in between can then read and change the audit trail, and every
    /// start says so.
    pub insecure: bool,
}

/// Versions of TLS; older ones are not known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// 1.3
    #[serde(rename = "1.3")]
    V1_3,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            timeout: Period(Duration::from_secs(30)),
            tls: TlsSettings::default(),
            proxy: None,
            proxy_ca_file: None,
            no_proxy: None,
            connection_age: Period(Duration::from_secs(300)),
            idle_timeout: None,
            objects: None,
        }
    }
}

/// Without the proxy, whose address may hold a password.
impl std::fmt::Debug for HttpSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("HttpSettings")
            .field("timeout", &self.timeout)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy.as_ref().map(|_| "***"))
            .field("proxy_ca_file", &self.proxy_ca_file)
            .field("no_proxy", &self.no_proxy)
            .field("connection_age", &self.connection_age)
            .field("idle_timeout", &self.idle_timeout)
            .field("objects", &self.objects)
            .finish()
    }
}

/// The connections of one output. They are given up, for what is under way to end on them, when they are of age or when
/// one of the files they were made with has changed.
#[derive(Debug)]
pub struct Connections {
    settings: HttpSettings,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    client: reqwest::Client,
    /// When its connections are of age.
    until: Instant,
    stamps: Vec<Stamp>,
}

/// By which a changed file is told: its time and its length.
type Stamp = Option<(SystemTime, u64)>;

impl Connections {
    /// Reads the certificate files; connects to nobody.
    ///
    /// # Errors
    /// [`BuildError`] naming the key whose file or address is wrong.
    pub fn open(settings: &HttpSettings) -> Result<Self, BuildError> {
        // One provider per process; that it is set already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stamps = settings.stamps();
        let current = Current { client: settings.client()?, until: settings.until(), stamps };
        Ok(Self { settings: settings.clone(), current: Mutex::new(current) })
    }

    /// The client to make a request with.
    pub fn client(&self) -> reqwest::Client {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.settings.stamps();
        let changed = stamps != current.stamps;
        if changed || Instant::now() >= current.until {
            match self.settings.client() {
                Ok(client) => current.client = client,
                // Half of a pair was replaced, most likely: what worked goes on until the other half is there, too.
                Err(error) if changed => tracing::warn!("{error}; going on with what was read before"),
                Err(_) => {}
            }
            current.until = self.settings.until();
            current.stamps = stamps;
        }
        current.client.clone()
    }
}

impl HttpSettings {
    /// The same way to another server: through the proxy, and nothing of what is said about this one.
    pub fn elsewhere(&self, timeout: Duration) -> Self {
        Self {
            timeout: Period(timeout),
            proxy: self.proxy.clone(),
            proxy_ca_file: self.proxy_ca_file.clone(),
            no_proxy: self.no_proxy.clone(),
            ..Self::default()
        }
    }

    /// The end of connections made now. Not all at once: a fleet that was started together would reconnect together.
    fn until(&self) -> Instant {
        Instant::now() + self.connection_age.0.mul_f64(1.0 - fastrand::f64() / 5.0)
    }

    fn stamps(&self) -> Vec<Stamp> {
        let tls = &self.tls;
        let files = [&tls.ca_file, &tls.cert_file, &tls.key_file, &self.proxy_ca_file];
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        files.into_iter().flatten().map(stamp).collect()
    }

    fn client(&self) -> Result<reqwest::Client, BuildError> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("auditferry/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_nodelay(true);
        let mut builder = match self.objects {
            None => builder
                .connect_timeout(Duration::from_secs(10))
                .timeout(self.timeout.0)
                .pool_idle_timeout(self.idle_timeout.unwrap_or(Duration::from_secs(10))),
            Some(objects) => builder
                .connect_timeout(objects.connect_timeout)
                .read_timeout(objects.read_timeout)
                .https_only(!objects.allow_http)
                // Slower with many objects at once, the store's library says: ranges of one connection wait for each other.
                .http1_only(),
        };
        builder = builder.tls_version_min(match self.tls.min_version {
            TlsVersion::V1_2 => reqwest::tls::Version::TLS_1_2,
            TlsVersion::V1_3 => reqwest::tls::Version::TLS_1_3,
        });
        for (key, path) in [("tls.ca_file", &self.tls.ca_file), ("proxy_ca_file", &self.proxy_ca_file)] {
            if let Some(path) = path {
                builder = builder.tls_certs_merge(authorities(key, path)?);
            }
        }
        if let Some(identity) = self.tls.identity()? {
            builder = builder.identity(identity);
        }
        if self.tls.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        self.proxied(builder)?.build().map_err(|error| BuildError::new("tls", error))
    }

    fn proxied(&self, builder: ClientBuilder) -> Result<ClientBuilder, BuildError> {
        let proxy = match (self.proxy.as_deref(), &self.no_proxy) {
            (None | Some("none"), Some(_)) => {
                let message = "goes with `proxy`; proxies of the environment go with its NO_PROXY";
                return Err(BuildError::new("no_proxy", message));
            }
            (None, None) => return Ok(builder),
            (Some("none"), None) => return Ok(builder.no_proxy()),
            (Some(proxy), _) => proxy,
        };
        let proxy = Proxy::all(proxy)
            .map_err(|_| BuildError::new("proxy", "is not a URL; write http://host:port or \"none\""))?;
        let given = self
            .no_proxy
            .clone()
            .or_else(|| ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok()));
        let mut not_for = given.unwrap_or_default();
        if self.objects.is_some() {
            not_for = format!("{METADATA},{not_for}");
        }
        Ok(builder.proxy(proxy.no_proxy(NoProxy::from_string(&not_for))))
    }
}

impl TlsSettings {
    fn identity(&self) -> Result<Option<Identity>, BuildError> {
        let (cert, key) = match (&self.cert_file, &self.key_file) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => {
                return Err(BuildError::new("tls.key_file", "is missing: cert_file needs its key"));
            }
            (None, Some(_)) => return Err(BuildError::new("tls.cert_file", "is missing: key_file needs it")),
        };
        let mut pem = read("tls.cert_file", cert)?;
        pem.push(b'\n');
        pem.extend(read("tls.key_file", key)?);
        let identity = Identity::from_pem(&pem).map_err(|_| {
            BuildError::new("tls.cert_file", "the certificate and its key are not a pair of PEM files")
        });
        identity.map(Some)
    }
}

fn authorities(key: &str, path: &Path) -> Result<Vec<Certificate>, BuildError> {
    let certificates = Certificate::from_pem_bundle(&read(key, path)?).unwrap_or_default();
    if certificates.is_empty() {
        return Err(BuildError::new(key, format!("{} holds no PEM certificate", path.display())));
    }
    Ok(certificates)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path)
        .map_err(|error| BuildError::new(key, format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_proxy_is_not_in_debug() {
        let settings =
            HttpSettings { proxy: Some("http://u:hunter2@proxy:3128".to_owned()), ..HttpSettings::default() };
        let text = format!("{settings:?}");
        assert!(text.contains("proxy") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_wrong_setting_names_its_key() {
        let absent = || Some(PathBuf::from("/nowhere/a.pem"));
        let tls = |tls| HttpSettings { tls, ..HttpSettings::default() };
        let (proxy, no_proxy) = (Some("a proxy".to_owned()), Some("internal".to_owned()));
        for (settings, key) in [
            (tls(TlsSettings { ca_file: absent(), ..TlsSettings::default() }), "tls.ca_file"),
            (tls(TlsSettings { cert_file: absent(), ..TlsSettings::default() }), "tls.key_file"),
            (tls(TlsSettings { key_file: absent(), ..TlsSettings::default() }), "tls.cert_file"),
            (HttpSettings { proxy_ca_file: absent(), ..HttpSettings::default() }, "proxy_ca_file"),
            (HttpSettings { proxy, ..HttpSettings::default() }, "proxy"),
            (HttpSettings { no_proxy, ..HttpSettings::default() }, "no_proxy"),
        ] {
            assert_eq!(Connections::open(&settings).unwrap_err().key, key);
        }
    }
}
