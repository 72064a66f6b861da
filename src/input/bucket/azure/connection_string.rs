//! Connection strings, as the Azure portal shows them:
//! `DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net`.

/// What a connection string says.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct ConnectionString {
    pub(super) account: Option<String>,
    pub(super) key: Option<String>,
    pub(super) sas: Option<String>,
    endpoint: Option<String>,
    protocol: Option<String>,
    suffix: Option<String>,
}

impl ConnectionString {
    /// Reads one; the message of an error repeats nothing of it.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parsed = Self::default();
        for part in text.trim().split(';').filter(|part| !part.trim().is_empty()) {
            // Values hold `=` at their end, and in a SAS in between.
            let (name, value) =
                part.split_once('=').ok_or("is no connection string: a part of it has no =")?;
            let slot = match name.trim().to_ascii_lowercase().as_str() {
                "accountname" => &mut parsed.account,
                "accountkey" => &mut parsed.key,
                "sharedaccesssignature" => &mut parsed.sas,
                "blobendpoint" => &mut parsed.endpoint,
                "defaultendpointsprotocol" => &mut parsed.protocol,
                "endpointsuffix" => &mut parsed.suffix,
                "usedevelopmentstorage" => {
                    return Err(
                        "is that of the emulator; write out its AccountName, AccountKey and BlobEndpoint",
                    );
                }
                // Of queues, tables and files.
                _ => continue,
            };
            *slot = Some(value.trim().to_owned());
        }
        if parsed.key.is_none() && parsed.sas.is_none() {
            return Err("holds neither AccountKey nor SharedAccessSignature");
        }
        Ok(parsed)
    }

    /// The address of the blob service, where the string names one.
    pub(super) fn blob_endpoint(&self, account: &str) -> Option<String> {
        if self.endpoint.is_some() {
            return self.endpoint.clone();
        }
        let suffix = self.suffix.as_deref()?;
        let protocol = self.protocol.as_deref().unwrap_or("https");
        Some(format!("{protocol}://{account}.blob.{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_names_account_key_and_address() {
        let parsed = ConnectionString::parse(
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a2V5==;EndpointSuffix=core.chinacloudapi.cn",
        )
        .unwrap();
        assert_eq!((parsed.account.as_deref(), parsed.key.as_deref()), (Some("acme"), Some("a2V5==")));
        assert_eq!(parsed.blob_endpoint("acme").as_deref(), Some("https://acme.blob.core.chinacloudapi.cn"));
        let sas = "BlobEndpoint=https://acme.blob.core.windows.net/;QueueEndpoint=https://q/;SharedAccessSignature=sv=1&sig=a%3D";
        let parsed = ConnectionString::parse(sas).unwrap();
        assert_eq!(parsed.sas.as_deref(), Some("sv=1&sig=a%3D"));
        assert_eq!(parsed.blob_endpoint("acme").as_deref(), Some("https://acme.blob.core.windows.net/"));
    }

    #[test]
    fn what_is_no_connection_string_is_refused_without_repeating_it() {
        for text in ["hunter2", "AccountName=hunter2", "UseDevelopmentStorage=true"] {
            assert!(!ConnectionString::parse(text).map(|_| ()).unwrap_err().contains("hunter2"), "{text}");
        }
    }
}
