use std::time::Duration;

use super::*;

fn identity(settings: &IdentitySettings, environment: &[(&str, &str)]) -> Result<Identity, BuildError> {
    let find = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    Identity::choose(settings, &find)
}

#[test]
fn a_certificate_signs_what_entra_id_checks() {
    let pem = include_bytes!("test_certificate.pem");
    let now = UNIX_EPOCH + Duration::from_secs(1_767_609_296);
    let assertion = signed_assertion(pem, "the-app", "https://login/token", now).unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    let parts: Vec<serde_json::Value> =
        signed.split('.').map(|part| serde_json::from_slice(&decode(part)).unwrap()).collect();
    assert_eq!((&parts[0]["alg"], &parts[0]["typ"]), (&json!("PS256"), &json!("JWT")));
    // openssl x509 -in test_certificate.pem -outform der | sha256sum, as URL-safe base64
    assert_eq!(parts[0]["x5t#S256"], "Txjo6GOca5NzTTpqQ45ARelZ1_4_RKCoHwnZgLxEe3g");
    assert_eq!((&parts[1]["iss"], &parts[1]["sub"]), (&json!("the-app"), &json!("the-app")));
    assert_eq!(parts[1]["aud"], "https://login/token");
    assert_eq!((&parts[1]["nbf"], &parts[1]["exp"]), (&json!(1_767_609_236), &json!(1_767_609_896)));

    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let public = key.public_key().unwrap();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let algorithm = algorithms.mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PSS_SHA256);
    // The first 24 bytes of the key's DER say that it is one of RSA with 2048 bits.
    let verified =
        algorithm.unwrap().1[0].verify_signature(&public[24..], signed.as_bytes(), &decode(signature));
    assert!(verified.is_ok());
    assert!(signed_assertion(b"no pem", "a", "b", now).unwrap_err().contains("certificate"));
}

#[test]
fn what_is_configured_goes_before_the_environment_and_what_is_missing_is_named() {
    let none = IdentitySettings { table: "azure", ..IdentitySettings::default() };
    let error = identity(&none, &[("AZURE_CLIENT_SECRET", "s")]).unwrap_err();
    assert_eq!(error.to_string(), "azure.tenant_id: missing; AZURE_CLIENT_SECRET needs it");
    let tenant = IdentitySettings { tenant_id: Some("t/../x".to_owned()), ..none.clone() };
    let error = identity(&tenant, &[("AZURE_CLIENT_SECRET", "s"), ("AZURE_CLIENT_ID", "i")]).unwrap_err();
    assert_eq!(error.key, "azure.tenant_id");
    let configured = IdentitySettings { client_secret: Some(Secret::plain("s")), ..none };
    let environment = [
        ("AZURE_CLIENT_ID", "i"),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", "/c.pem"),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
    ];
    let chosen = identity(&configured, &environment).unwrap();
    let Identity::Application { client_id, token_url, proof } = chosen else { panic!("{chosen:?}") };
    assert_eq!(client_id, "i");
    assert_eq!(token_url, "https://login.microsoftonline.us/t/oauth2/v2.0/token");
    assert_eq!(proof.named(), "azure.client_secret");
}
