//! Who asks Microsoft Entra ID for access tokens, and how it proves who it is.
//!
//! | credentials | asks | proves itself by |
//! |---|---|---|
//! | client secret | `<authority>/<tenant>/oauth2/v2.0/token` | the secret |
//! | client certificate | the same | a JWT signed with the certificate's key |
//! | workload identity | the same | the token that Kubernetes keeps in a file |
//! | managed identity | the machine's metadata service, or App Service's | running there |
//!
//! Secrets and files are read for each request, so that a new one needs no restart.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::header::{HeaderName, HeaderValue};
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::component::BuildError;
use crate::http::base_url;
use crate::secret::Secret;

/// Entra ID of the public cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The metadata service of a virtual machine, or of what stands in for it in a cluster.
const METADATA: &str = "http://169.254.169.254";

/// Whose tokens to get. What is left out is taken from the environment (`AZURE_CLIENT_ID` and the like), as Azure's own
/// tools do; without any secret there, the workload identity of the pod or the managed identity of the machine is used.
#[derive(Clone, Debug, Default)]
pub struct IdentitySettings {
    /// Table of the configuration that the keys below stand in, for messages: `azure`.
    pub table: &'static str,
    /// Application (client) id of a service principal or of a user-assigned managed identity.
    pub client_id: Option<String>,
    /// Directory (tenant) id of the service principal.
    pub tenant_id: Option<String>,
    /// Client secret of the service principal.
    pub client_secret: Option<Secret>,
    /// PEM file with the service principal's certificate and its RSA key.
    pub client_certificate_file: Option<PathBuf>,
    /// Entra ID of a sovereign cloud. Default: `AZURE_AUTHORITY_HOST`, or the public cloud's.
    pub authority_host: Option<String>,
}

/// Who asks for tokens, and whom.
#[derive(Debug)]
pub(crate) enum Identity {
    Application { client_id: String, token_url: String, proof: Proof },
    Managed { url: String, client_id: Option<String>, header: (HeaderName, HeaderValue) },
}

/// How an application proves that it is one. `named` is the key or variable that the user set.
#[derive(Debug)]
pub(crate) enum Proof {
    Secret { secret: Secret, named: String },
    Certificate { file: PathBuf, named: String },
    Federated { file: PathBuf },
}

impl Identity {
    pub(crate) fn choose(
        settings: &IdentitySettings,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        let key = |name: &str| format!("{}.{name}", settings.table);
        let client_id = settings.client_id.clone().or_else(|| environment("AZURE_CLIENT_ID"));
        let Some(proof) = Proof::choose(settings, environment) else {
            return Self::managed(client_id, environment);
        };
        let authority = settings.authority_host.clone().or_else(|| environment("AZURE_AUTHORITY_HOST"));
        let authority =
            base_url(&key("authority_host"), &authority.unwrap_or_else(|| AUTHORITY.to_owned()), false)?;
        let needed = |value: Option<String>, name: &str| {
            let message = format!("missing; {} needs it", proof.named());
            value.ok_or_else(|| BuildError::new(&key(name), message))
        };
        let tenant_id = settings.tenant_id.clone().or_else(|| environment("AZURE_TENANT_ID"));
        let tenant_id = needed(tenant_id, "tenant_id")?;
        if !tenant_id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
            return Err(BuildError::new(
                &key("tenant_id"),
                format!("`{tenant_id}` is no id or domain of a tenant"),
            ));
        }
        let token_url = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
        Ok(Self::Application { client_id: needed(client_id, "client_id")?, token_url, proof })
    }

    fn managed(
        client_id: Option<String>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        if let (Some(endpoint), Some(secret)) =
            (environment("IDENTITY_ENDPOINT"), environment("IDENTITY_HEADER"))
        {
            let url = format!("{endpoint}?api-version=2019-08-01&");
            let header = crate::http::header("IDENTITY_HEADER", "x-identity-header", &secret, true)?;
            return Ok(Self::Managed { url, client_id, header });
        }
        let host = environment("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| METADATA.to_owned());
        let host = host.trim_end_matches('/');
        let url = format!("{host}/metadata/identity/oauth2/token?api-version=2018-02-01&");
        let header = crate::http::header("", "metadata", "true", false)?;
        Ok(Self::Managed { url, client_id, header })
    }

    pub(crate) fn place(&self) -> String {
        let (Self::Application { token_url: url, .. } | Self::Managed { url, .. }) = self;
        let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let host = host.unwrap_or_else(|| url.clone());
        match self {
            Self::Application { .. } => host,
            Self::Managed { .. } => format!("the managed identity at {host}"),
        }
    }
}

impl Proof {
    /// The proof that the configuration or else the environment has.
    fn choose(settings: &IdentitySettings, environment: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let key = |name: &str| format!("{}.{name}", settings.table);
        if let Some(secret) = settings.client_secret.clone() {
            return Some(Self::Secret { secret, named: key("client_secret") });
        }
        if let Some(file) = settings.client_certificate_file.clone() {
            return Some(Self::Certificate { file, named: key("client_certificate_file") });
        }
        if let Some(secret) = environment("AZURE_CLIENT_SECRET") {
            let named = "AZURE_CLIENT_SECRET".to_owned();
            return Some(Self::Secret { secret: Secret::plain(&secret), named });
        }
        if let Some(file) = environment("AZURE_CLIENT_CERTIFICATE_PATH") {
            let named = "AZURE_CLIENT_CERTIFICATE_PATH".to_owned();
            return Some(Self::Certificate { file: file.into(), named });
        }
        environment("AZURE_FEDERATED_TOKEN_FILE").map(|file| Self::Federated { file: file.into() })
    }

    pub(crate) fn named(&self) -> &str {
        match self {
            Self::Secret { named, .. } | Self::Certificate { named, .. } => named,
            Self::Federated { .. } => "AZURE_FEDERATED_TOKEN_FILE",
        }
    }

    /// The fields of the form that prove who asks, or why there are none.
    pub(crate) fn fields(
        &self,
        client_id: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<Vec<(&'static str, String)>, String> {
        let assertion = match self {
            Self::Secret { secret, .. } => {
                let secret = secret.reveal().map_err(|error| error.to_string())?;
                return Ok(vec![("client_secret", secret)]);
            }
            Self::Certificate { file, .. } => {
                signed_assertion(&read(file)?, client_id, audience, now).map_err(|why| why.to_owned())?
            }
            Self::Federated { file } => String::from_utf8_lossy(&read(file)?).trim().to_owned(),
        };
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
        Ok(vec![("client_assertion_type", kind), ("client_assertion", assertion)])
    }
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// A JWT by which the holder of a certificate's key shows that it is the application `client_id`
/// (learn.microsoft.com, "Microsoft identity platform application authentication certificate credentials").
fn signed_assertion(
    pem: &[u8],
    client_id: &str,
    audience: &str,
    now: SystemTime,
) -> Result<String, &'static str> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| "the file holds no PEM certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "the file holds no PEM private key")?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key);
    let signer = key.ok().and_then(|key| key.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]));
    let signer = signer.ok_or("the private key is no RSA key, which Entra ID wants")?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let unique = getrandom::u64().map_err(|_| "the system gives no random numbers")?;
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate));
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint });
    let claims = json!({
        "aud": audience, "iss": client_id, "sub": client_id, "jti": format!("{unique:016x}"),
        "nbf": now.saturating_sub(60), "exp": now + 600,
    });
    let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = signer.sign(signed.as_bytes()).map_err(|_| "the private key does not sign")?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests;
