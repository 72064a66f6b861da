//! AWS credentials as AWS users have them.

use crate::ferry::{Ferry, KEYS, content, key, succeeded};
use crate::metadata::Metadata;
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
    // What `aws sso login` leaves behind: the name is the SHA-1 of the session's, `acme`.
    std::fs::create_dir_all(home.join("sso/cache")).unwrap();
    std::fs::write(home.join("sso/cache/293abb6b76d7791c0732cc517d38c4b5c734b87f.json"), SIGNED_IN).unwrap();
    let sts_url = format!("http://{}", sts.address);
    let mut all = vec![("AWS_ENDPOINT_URL_STS", sts_url.as_str())];
    all.extend_from_slice(environment);
    succeeded(&ferry.run_with(&all));
    ferry.assert_delivered_once(1..=3);
    Calls { sts: sts.asked(), s3: bucket.asked() }
}

/// A session of `aws sso login`.
const SIGNED_IN: &str = r#"{
    "startUrl": "https://acme.awsapps.com/start", "region": "eu-central-1",
    "accessToken": "token-of-dana", "expiresAt": "2096-01-05T10:00:00Z"
}"#;

/// Keys as a metadata server gives them: they last for years.
const TEMPORARY: &str = r#"{
    "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-05T10:00:00Z",
    "AccessKeyId": "ASIAMETADATA", "SecretAccessKey": "secret", "Token": "session-of-the-machine",
    "Expiration": "2096-01-05T10:00:00Z", "AccountId": "123456789012", "RoleArn": "ignored"
}"#;

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

#[test]
fn a_web_identity_assumes_its_role() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "token-of-the-pod").unwrap();
    let file = file.display().to_string();
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.as_str()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ROLE_SESSION_NAME", "pod-7"),
    ];
    let calls = ship("", "", "", &environment);
    for expected in [
        "action=assumerolewithwebidentity",
        "webidentitytoken=token-of-the-pod",
        "rolesessionname=pod-7",
        "role%2faudit-reader",
    ] {
        assert!(calls.sts.contains(expected), "{expected}: {}", calls.sts);
    }
    assert!(signed_by(&calls.s3, "ASIA") && calls.s3.contains("x-amz-security-token"), "{}", calls.s3);
}

#[test]
fn a_container_has_its_keys_from_its_agent() {
    // As in ECS and, with the token in a file, in EKS with pod identity.
    let agent = Metadata::start(|asked, headers| {
        let may = headers.get("authorization").is_some_and(|token| token == "token-of-the-task");
        (asked == "GET /keys" && may).then(|| TEMPORARY.to_owned())
    });
    let url = format!("http://{}/keys", agent.address);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "token-of-the-task").unwrap();
    let file = file.display().to_string();
    for token in [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token-of-the-task"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.as_str()),
    ] {
        let calls = ship("", "", "", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url), token]);
        assert!(signed_by(&calls.s3, "ASIAMETADATA/"), "{}", calls.s3);
        assert!(calls.s3.contains("session-of-the-machine"), "{}", calls.s3);
    }
}

#[test]
fn an_instance_has_its_keys_from_its_metadata_with_a_session_token() {
    let metadata = Metadata::start(|asked, headers| {
        let session = headers.get("x-aws-ec2-metadata-token").is_some_and(|token| token == "imds-session");
        let answer = match asked {
            "PUT /latest/api/token" => return Some("imds-session".to_owned()),
            "GET /latest/meta-data/iam/security-credentials/" => "audit-reader",
            "GET /latest/meta-data/iam/security-credentials/audit-reader" => TEMPORARY,
            _ => return None,
        };
        session.then(|| answer.to_owned())
    });
    let endpoint = format!("http://{}", metadata.address);
    let environment =
        [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.as_str())];
    let calls = ship("", "", "", &environment);
    assert!(signed_by(&calls.s3, "ASIAMETADATA/"), "{}", calls.s3);
    assert_eq!(metadata.asked().first().map(String::as_str), Some("PUT /latest/api/token"));
}

#[test]
fn a_signed_in_user_has_the_keys_of_the_role_that_the_profile_names() {
    let portal = Metadata::start(|asked, headers| {
        let signed_in = headers.get("x-amz-sso_bearer_token").is_some_and(|token| token == "token-of-dana");
        (asked == "GET /federation/credentials" && signed_in).then(|| {
            r#"{"roleCredentials":{"accessKeyId":"ASIASSO","secretAccessKey":"secret","sessionToken":"session-of-dana",
                "expiration":3976595200000}}"#
                .to_owned()
        })
    });
    let config = "[profile dana]\nsso_session = acme\nsso_account_id = 123456789012\n\
                  sso_role_name = audit-reader\nregion = eu-central-1\n\
                  [sso-session acme]\nsso_region = eu-central-1\nsso_start_url = https://acme.awsapps.com/start\n";
    let endpoint = format!("http://{}", portal.address);
    let calls = ship("profile = \"dana\"", config, "", &[("AWS_ENDPOINT_URL_SSO", &endpoint)]);
    assert!(signed_by(&calls.s3, "ASIASSO/"), "{}", calls.s3);
    assert!(calls.s3.contains("session-of-dana"), "{}", calls.s3);
}
