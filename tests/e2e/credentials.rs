//! AWS credentials as AWS users have them.

use crate::ferry::{Ferry, KEYS, content, key, succeeded};
use crate::moto::Moto;
use crate::recorder::Recorder;

const ROLE: &str = "arn:aws:iam::123456789012:role/audit-reader";

/// What the calls of STS and S3 looked like when a bucket of one object was shipped.
struct Calls {
    sts: String,
    s3: String,
}

/// Ships an object with these settings, files in `~/.aws` and environment.
fn ship(s3: &str, aws_config: &str, aws_credentials: &str, environment: &[(&str, &str)]) -> Calls {
    let moto = Moto::start();
    moto.put(&key(1, "one"), &content(&[1, 2, 3]));
    let (sts, bucket) = (Recorder::start(moto.address), Recorder::start(moto.address));
    let ferry = Ferry::new(bucket.address, s3);
    let home = ferry.directory.path().join(".aws");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("config"), aws_config).unwrap();
    std::fs::write(home.join("credentials"), aws_credentials).unwrap();
    let sts_url = format!("http://{}", sts.address);
    let mut all = vec![("AWS_ENDPOINT_URL_STS", sts_url.as_str())];
    all.extend_from_slice(environment);
    succeeded(&ferry.run_with(&all));
    ferry.assert_delivered_once(1..=3);
    Calls { sts: sts.asked(), s3: bucket.asked() }
}

/// Who signed the requests.
fn signed_by(asked: &str, key_id: &str) -> bool {
    asked.contains(&format!("credential={}", key_id.to_lowercase()))
}

#[test]
fn static_keys_sign_the_requests() {
    let calls = ship(KEYS, "", "", &[]);
    assert!(signed_by(&calls.s3, "AKIDSTATIC/"), "{}", calls.s3);
    assert_eq!(calls.sts, "");
}

#[test]
fn a_role_is_assumed_with_external_id_and_session_name() {
    let s3 =
        format!("{KEYS}\nrole_arn = \"{ROLE}\"\nexternal_id = \"acme-42\"\nrole_session_name = \"ferry-7\"");
    let calls = ship(&s3, "", "", &[]);
    assert!(signed_by(&calls.sts, "AKIDSTATIC/"), "{}", calls.sts);
    for expected in
        ["action=assumerole", "externalid=acme-42", "rolesessionname=ferry-7", "role%2faudit-reader"]
    {
        assert!(calls.sts.contains(expected), "{expected}: {}", calls.sts);
    }
    // The temporary keys, not those that assumed the role, and the session's token.
    assert!(signed_by(&calls.s3, "ASIA") && !signed_by(&calls.s3, "AKIDSTATIC"), "{}", calls.s3);
    assert!(calls.s3.contains("x-amz-security-token"), "{}", calls.s3);
}

#[test]
fn a_profile_signs_with_its_keys() {
    let credentials = "[shipper]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = secret\n";
    let calls = ship("profile = \"shipper\"", "", credentials, &[]);
    assert!(signed_by(&calls.s3, "AKIDPROFILE/"), "{}", calls.s3);
}

#[test]
fn a_profile_assumes_its_role_with_the_keys_of_another() {
    let config = format!(
        "[profile reader]\nrole_arn = {ROLE}\nsource_profile = base\nexternal_id = acme-43\nregion = eu-central-1\n"
    );
    let credentials = "[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = secret\n";
    let calls = ship("", &config, credentials, &[("AWS_PROFILE", "reader")]);
    assert!(signed_by(&calls.sts, "AKIDBASE/"), "{}", calls.sts);
    assert!(calls.sts.contains("externalid=acme-43"), "{}", calls.sts);
    assert!(signed_by(&calls.s3, "ASIA"), "{}", calls.s3);
}

#[test]
fn keys_of_the_environment_sign_the_requests() {
    let environment = [("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let calls = ship("", "", "", &environment);
    assert!(signed_by(&calls.s3, "AKIDENVIRONMENT/"), "{}", calls.s3);
}

#[test]
fn a_process_gives_the_keys() {
    let answer = r#"{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "secret"}"#;
    let config = format!("[profile helped]\ncredential_process = echo '{answer}'\n");
    let calls = ship("profile = \"helped\"", &config, "", &[]);
    assert!(signed_by(&calls.s3, "AKIDPROCESS/"), "{}", calls.s3);
}
