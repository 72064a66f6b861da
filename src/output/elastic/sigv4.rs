//! Signs requests to Amazon OpenSearch, the service and the serverless one.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::login::NoLogin;
use super::{AwsService, AwsSettings};
use crate::aws;
use crate::component::BuildError;

#[derive(Debug)]
pub(super) struct Signer {
    provider: AwsCredentialProvider,
    region: String,
    service: &'static str,
}

impl Signer {
    /// The signer for a cluster at this address.
    pub(super) fn new(settings: &AwsSettings, address: &str) -> Result<Self, BuildError> {
        let login = settings.login();
        login.check()?;
        let host = url::Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned));
        let place = host.as_deref().and_then(place);
        let region = settings
            .region
            .clone()
            .or_else(|| place.map(|(region, _)| region.to_owned()))
            .or_else(|| aws::region(settings.profile.as_deref()))
            .ok_or_else(|| {
                let message = "neither `url` nor AWS_REGION, the profile or the instance name a region; set the cluster's";
                BuildError::new("aws.region", message)
            })?;
        let provider = aws::provider(&login, &region)?
            .ok_or_else(|| BuildError::new("aws", "signing wants credentials"))?;
        let service = settings.service.or(place.map(|(_, service)| service)).unwrap_or(AwsService::Es);
        Ok(Self { provider, region, service: service.as_str() })
    }

    /// Adds the signature of a request; gives the secrets in it.
    pub(super) async fn add_to(
        &self,
        method: &str,
        url: &str,
        headers: &mut HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<String>, NoLogin> {
        let keys = self.provider.get_credential().await.map_err(|error| match error {
            object_store::Error::Unauthenticated { .. } => NoLogin::Refused(error.to_string()),
            _ => NoLogin::Unreachable(error.to_string()),
        })?;
        let signed = self.signature(&keys, method, url, headers, body, now);
        for (name, value) in signed.map_err(|error| NoLogin::Refused(error.to_string()))? {
            headers.insert(name, value);
        }
        Ok(keys.token.clone().into_iter().collect())
    }

    fn signature(
        &self,
        keys: &AwsCredential,
        method: &str,
        url: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Box<dyn std::error::Error + Send + Sync>> {
        let identity =
            Credentials::new(&keys.key_id, &keys.secret_key, keys.token.clone(), None, "auditferry").into();
        let mut settings = SigningSettings::default();
        // The serverless service refuses a request without its digest; the other one takes it.
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(now)
            .settings(settings)
            .build()?
            .into();
        let texts = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let request = SignableRequest::new(method, url, texts, SignableBody::Bytes(body))?;
        let (instructions, _) = sign(request, &parameters)?.into_parts();
        let mut added = Vec::new();
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            added.push((HeaderName::from_bytes(name.as_bytes())?, value));
        }
        Ok(added)
    }
}

/// Region and service of an address that Amazon gave: `search-audit-x.eu-west-1.es.amazonaws.com`.
fn place(host: &str) -> Option<(&str, AwsService)> {
    let name = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let (rest, service) = name.rsplit_once('.')?;
    let service = match service {
        "es" => AwsService::Es,
        "aoss" => AwsService::Aoss,
        _ => return None,
    };
    Some((rest.rsplit_once('.')?.1, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_amazon_names_region_and_service() {
        for (host, expected) in [
            ("search-audit-x.eu-west-1.es.amazonaws.com", Some(("eu-west-1", AwsService::Es))),
            ("vpc-a.cn-north-1.es.amazonaws.com.cn", Some(("cn-north-1", AwsService::Es))),
            ("abc.us-east-1.aoss.amazonaws.com", Some(("us-east-1", AwsService::Aoss))),
            ("es.example", None),
            ("es.amazonaws.com", None),
            ("s3.eu-west-1.amazonaws.com", None),
        ] {
            assert_eq!(place(host), expected, "{host}");
        }
    }
}
