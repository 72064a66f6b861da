use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::Value;

use super::*;
use crate::generate::{Bucket, Options};
use crate::time::Date;

fn redactor() -> Redactor {
    Redactor::new(b"key", &[], &[]).unwrap()
}

/// The text with `***` in the place of each mark.
fn redacted(text: &str) -> String {
    let Some(redacted) = redactor().redact(text.as_bytes()) else { return text.to_owned() };
    let text = String::from_utf8(redacted.text).unwrap();
    let mark = regex::Regex::new(r"\[redacted:[0-9a-f]{12}\]").unwrap();
    assert_eq!(mark.find_iter(&text).count(), redacted.count as usize);
    mark.replace_all(&text, "***").into_owned()
}

const HEX_32: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn tokens_are_known_by_how_they_begin() {
    for token in [
        format!("dapi{HEX_32}"),
        format!("dapi{HEX_32}-2"),
        format!("dose{HEX_32}"),
        format!("ghp_{HEX_32}"),
        format!("github_pat_{HEX_32}"),
        format!("glpat-{HEX_32}"),
        format!("xoxb-{HEX_32}"),
        format!("AIza{HEX_32}abc"),
        format!("sk-proj-{HEX_32}"),
        format!("hf_{HEX_32}"),
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P".to_owned(),
    ] {
        for (before, after) in [("\"", "\""), ("curl -H 'x: ", "'"), ("\\n", "\\n"), ("\\u00e9", ". Then")] {
            let text = format!("{{\"commandText\":\"{before}{token}{after}\"}}");
            assert_eq!(redacted(&text), format!("{{\"commandText\":\"{before}***{after}\"}}"), "{text}");
        }
    }
}

#[test]
fn the_key_of_a_storage_account_is_taken_whatever_code_stands_between_its_name_and_it() {
    let key = format!("{}==", "aB3+/x".repeat(15).get(..86).unwrap());
    for (before, after) in [
        (r#"spark.conf.set(f\"fs.azure.account.key.{account}.dfs.core.windows.net\", \""#, r#"\")"#),
        (r#"spark.conf.set('fs.azure.account.key.' + name + '.blob.core.windows.net', '"#, "')"),
        ("spark.hadoop.fs.azure.account.key.acme.dfs.core.windows.net ", r"\n"),
        ("SET fs.azure.account.key.acme.dfs.core.windows.net = ", ";"),
    ] {
        let text = format!(r#"{{"commandText":"{before}{key}{after}"}}"#);
        assert_eq!(redacted(&text), format!(r#"{{"commandText":"{before}***{after}"}}"#));
    }
    let two = format!(r#"{{"q":"fs.azure.account.key.{{x}} {key} {key}"}}"#);
    let once = redactor().redact(two.as_bytes()).unwrap();
    assert_eq!((once.count, redactor().redact(&once.text)), (1, None), "what was found is found no more");
    let within = format!(r#"{{"q":"fs.azure.account.key.{{x}}","client_secret":"hunter2%{key}"}}"#);
    assert_eq!(redacted(&within), r#"{"q":"fs.azure.account.key.{x}","client_secret":"***"}"#);
    for harmless in [
        format!(r#"{{"q":"fs.azure.account.key.{{x}} {}"}}"#, "a".repeat(172 + 1 + 86)),
        format!(r#"{{"q":"fs.azure.account.key.{{x}} [redacted:0123456789ab] {key}"}}"#),
        format!(r#"{{"q":"fs.azure.account.key{}{key}"}}"#, "{x}, ".repeat(100)),
        format!(r#"{{"q":"fs.azure.account.key.{{x}} {}"}}"#, "a".repeat(64)),
        format!(r#"{{"q":"{key}"}}"#),
    ] {
        assert_eq!(redacted(&harmless), harmless);
    }
}

#[test]
fn values_of_telling_names_are_taken_however_they_are_written() {
    for (text, expected) in [
        (r#"{"password":"hunter2"}"#, r#"{"password":"***"}"#),
        (r#"{"client_secret" : "a\"b\\"}"#, r#"{"client_secret" : "***"}"#),
        ("{\"password\"\t:\r\n\t\"hunter2\"}", "{\"password\"\t:\r\n\t\"***\"}"),
        (r#"{"a":"{\"token_value\":\"abcd\",\"b\":1}"}"#, r#"{"a":"{\"token_value\":\"***\",\"b\":1}"}"#),
        (r#"{"a":"{\\\"apiKey\\\":\\\"abcd\\\"}"}"#, r#"{"a":"{\\\"apiKey\\\":\\\"***\\\"}"}"#),
        (r#"{"q":"... PASSWORD = 'it is long' ..."}"#, r#"{"q":"... PASSWORD = '***' ..."}"#),
        (r#"{"q":"jdbc:x;user=a;password=hunter2;x=1"}"#, r#"{"q":"jdbc:x;user=a;password=***;x=1"}"#),
        (r#"{"q":".option(\"sfPassword\", \"hunter2\")"}"#, r#"{"q":".option(\"sfPassword\", \"***\")"}"#),
        (r#"{"q":"dict('api_key' => 'hunter2')"}"#, r#"{"q":"dict('api_key' => '***')"}"#),
        (
            r#"{"q":"fs.azure.account.key.acme.dfs.core.windows.net=AbCd+/=="}"#,
            r#"{"q":"fs.azure.account.key.acme.dfs.core.windows.net=***"}"#,
        ),
        (r#"{"q":"AccountName=a;AccountKey=AbCd+/==;E=f"}"#, r#"{"q":"AccountName=a;AccountKey=***;E=f"}"#),
        (
            r#"{"u":"https://a.blob/c?sv=1&sig=Ab%2Fcd%3D&x=1"}"#,
            r#"{"u":"https://a.blob/c?sv=1&sig=***&x=1"}"#,
        ),
        (r#"{"u":"postgres://app:hunter2@db:5432/x"}"#, r#"{"u":"postgres://app:***@db:5432/x"}"#),
        (r#"{"h":"Authorization: Bearer abcdef0123456789xyz"}"#, r#"{"h":"Authorization: Bearer ***"}"#),
        (r#"{"h":{"Authorization":"Basic dXNlcjpwYXNz"}}"#, r#"{"h":{"Authorization":"***"}}"#),
        (
            r#"{"scope":"s","key":"k","string_value":"hunter2"}"#,
            r#"{"scope":"s","key":"k","string_value":"***"}"#,
        ),
        (
            r#"{"k":"-----BEGIN RSA PRIVATE KEY-----\nMIIE\nowIB\n-----END RSA PRIVATE KEY-----"}"#,
            r#"{"k":"-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----"}"#,
        ),
        (
            r#"{"k":"-----BEGIN PRIVATE KEY-----\nMIIE","b":"c"}"#,
            r#"{"k":"-----BEGIN PRIVATE KEY-----***","b":"c"}"#,
        ),
        (r#"{"q":"password='cut off"}"#, r#"{"q":"password='***"}"#),
    ] {
        assert_eq!(redacted(text), expected);
    }
}

#[test]
fn ids_references_and_words_stay() {
    for text in [
        r#"{"tokenId":"4f2ab917c0de55e14f2ab917c0de55e1","token_id":"x123","authenticationMethod":"API_INT_PAT_TOKEN","user":"a"}"#,
        r#"{"actionName":"generateDbToken","serviceName":"accounts"}"#,
        r#"{"a":"{\"kind\":\"OAUTH_TOKEN\",\"name\":\"value\"}"}"#,
        r#"{"password":null,"secret":true,"token":12345678,"passwords":["abcdef"],"secret_scope":"prod"}"#,
        r#"{"page_token":"abcdefgh","nextPageToken":"abcdefgh"}"#,
        r#"{"spark_conf":"{\"spark.password\":\"{{secrets/scope/key}}\"}"}"#,
        r#"{"q":"password = dbutils.secrets.get(\"scope\", \"key\")"}"#,
        r#"{"q":"password=get_password(x)","r":"CREATE TABLE t (password STRING, token STRING)"}"#,
        r#"{"q":"the bearer of this","u":"https://example.com:443/a@b","e":"mailto://a@b"}"#,
        r#"{"q":"skypi_dapi0123, a_dapi0123456789abcdef0123456789abcdef, eyJx.y"}"#,
        r#"{"q":"design=1&config=2 $(pwd)"}"#,
        r#"{"aws_access_key_id":"AKIAIOSFODNN7EXAMPLE"}"#,
        r#"{"a":"password","b":"hunter2"}"#,
        r#"{"password":"[redacted:0123456789ab]"}"#,
    ] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn equal_secrets_have_equal_marks_and_the_key_decides_which() {
    let mark =
        |key: &[u8], text: &str| Redactor::new(key, &[], &[]).unwrap().redact(text.as_bytes()).unwrap().text;
    let text = r#"{"password":"hunter2"}"#;
    assert_eq!(mark(b"a", text), mark(b"a", text));
    assert_ne!(mark(b"a", text), mark(b"b", text));
    assert_ne!(mark(b"a", text), mark(b"a", r#"{"password":"hunter3"}"#));
    assert!(!format!("{:?}", redactor()).contains("key"));
}

#[test]
fn names_and_patterns_can_be_added() {
    let redactor = Redactor::new(
        b"",
        &["customer_number".to_owned()],
        &[r"card (\d{4})".to_owned(), r#"k.y""#.to_owned()],
    )
    .unwrap();
    let text = r#"{"customer_number":"C-1234","CUSTOMER_NUMBER":"C-1235","q":"card 4711","key":1}"#;
    let redacted = redactor.redact(text.as_bytes()).unwrap();
    assert_eq!(redacted.count, 3);
    let text = String::from_utf8(redacted.text).unwrap();
    assert!(
        !text.contains("C-12") && text.contains("card [redacted:") && text.contains("\"key\":1"),
        "{text}"
    );
    assert!(Redactor::new(b"", &[], &["(".to_owned()]).unwrap_err().contains("`(`"));
}

#[test]
fn an_added_name_is_known_in_every_spelling() {
    for name in ["customerNumber", "CUSTOMER-NUMBER", "customernumber"] {
        let redactor = Redactor::new(b"", &["pin".to_owned(), name.to_owned()], &[]).unwrap();
        for spelled in [
            "customerNumber",
            "CustomerNumber",
            "customer_number",
            "CUSTOMER.NUMBER",
            "Customer-Number",
            "pIn",
            "p_i_n",
        ] {
            let text = format!(
                r#"{{"password":"hunter2","q":"{spelled}='C-1234' and {spelled}s='C-1234'","x_{spelled}":"a"}}"#
            );
            let redacted = redactor.redact(text.as_bytes()).unwrap();
            let text = String::from_utf8(redacted.text).unwrap();
            assert!(redacted.count == 2 && text.contains("s='C-1234'"), "{name}: {text}");
        }
    }
}

#[test]
fn a_name_that_no_text_can_hold_is_refused() {
    for name in ["", "--", "Kennwörter", "customer number"] {
        let error = Redactor::new(b"", &[name.to_owned()], &[]).unwrap_err();
        assert!(error.starts_with(&format!("`{name}` cannot be looked for: ")), "{error}");
    }
}

#[test]
fn generated_audit_logs_hold_no_secret_that_is_not_one() {
    let options = Options::new(3, 1, 2000, Date::parse("2026-01-31").unwrap());
    let redactor = redactor();
    for line in Bucket::new(options).unwrap().lines() {
        let redacted = redactor.redact(&line).map(|redacted| String::from_utf8(redacted.text).unwrap());
        assert_eq!(redacted, None);
    }
}

/// JSON with names and values that look like secrets, nested in strings.
fn suspicious() -> impl Strategy<Value = Value> {
    let names = ["password", "client_secret", "x", "token", "a:b", "sig=", "Bearer ", "'", "\\"];
    let text = suspicious_text();
    let leaf = (prop::sample::select(names.to_vec()), text)
        .prop_map(|(name, text)| serde_json::json!({ name: text }));
    leaf.prop_recursive(3, 8, 2, |inner| {
        (inner, any::<bool>()).prop_map(|(inner, wrap)| {
            if wrap {
                serde_json::json!({ "secret": inner.to_string() })
            } else {
                serde_json::json!({ "in": [inner] })
            }
        })
    })
}

fn suspicious_text() -> impl Strategy<Value = String> {
    let pieces = [
        "password",
        "=",
        ": ",
        "'",
        "\"",
        "\\",
        "hunter2",
        "\n",
        "(",
        ",",
        "dapi",
        HEX_32,
        "://u:",
        "@",
        "é",
        "-----BEGIN PRIVATE KEY-----",
        "-----END",
        "eyJ",
        ".",
        "Bearer ",
        "token_value",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// The rare ends of the names find what the whole names would.
    #[test]
    fn nothing_is_lost_by_looking_for_the_rare_ends_of_names(
        pieces in prop::collection::vec(prop_oneof![
            prop::sample::select(NAMES).prop_map(|name| name.text),
            prop::sample::select(NAMES).prop_map(|name| name.rare()),
            prop::sample::select(TOKENS).prop_map(|token| token.prefix),
            prop::sample::select(&["a", "P", "client_", "=", "\":\"", "'", " ", "hunter2hunter2", "0123456789abcdef0123456789abcdef", ".", ";"][..]),
        ], 0..14),
    ) {
        let whole = Redactor::searching(|name| name.text, b"key", &[], &[]).unwrap();
        let text = pieces.concat();
        prop_assert_eq!(redactor().redact(text.as_bytes()), whole.redact(text.as_bytes()), "{}", text);
    }

    /// Whatever is taken out, the rest is still JSON of the same shape.
    #[test]
    fn what_is_left_is_json_of_the_same_shape(value in suspicious()) {
        let text = value.to_string();
        if let Some(redacted) = redactor().redact(text.as_bytes()) {
            let after: Value = serde_json::from_slice(&redacted.text).unwrap();
            prop_assert_eq!(shape(&value), shape(&after));
            prop_assert!(redacted.count > 0);
        }
    }
}

fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(elements) => elements.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        other => other.clone(),
    }
}

#[test]
fn a_token_right_behind_another_one_is_found_too() {
    let [first, second] =
        ["dapi0123456789abcdef0123456789abcdef", "ghp_0123456789abcdef0123456789abcdef0123"];
    let redacted =
        Redactor::new(b"key", &[], &[]).unwrap().redact(format!("{first}{second}").as_bytes()).unwrap();
    let text = String::from_utf8(redacted.text).unwrap();
    assert!(redacted.count == 2 && !text.contains("ghp_"), "{text}");
}

#[test]
fn a_name_right_behind_a_secret_is_a_name_of_its_own() {
    let text = "dapi0123456789abcdef0123456789abcdef-2sig=planted";
    let redacted = Redactor::new(b"key", &[], &[]).unwrap().redact(text.as_bytes()).unwrap();
    let text = String::from_utf8(redacted.text).unwrap();
    assert!(redacted.count == 2 && !text.contains("planted"), "{text}");
}

#[test]
fn a_mark_between_a_scheme_and_an_at_is_no_password() {
    let redactor = Redactor::new(b"key", &[], &[]).unwrap();
    for text in ["s://x&sig=planted]s@host", "s://host:1&sig=plan/ted]s@host"] {
        let once = redactor.redact(text.as_bytes()).unwrap();
        assert_eq!(once.count, 1, "{text}");
        assert_eq!(redactor.redact(&once.text), None, "{}", String::from_utf8_lossy(&once.text));
    }
}

#[test]
fn a_token_right_behind_what_a_pattern_takes_is_found_too() {
    let redactor = Redactor::new(b"key", &[], &["ACME-[0-9]{6}".to_owned()]).unwrap();
    let redacted = redactor.redact(b"ACME-123456dapi0123456789abcdef0123456789abcdef").unwrap();
    let text = String::from_utf8(redacted.text).unwrap();
    assert!(redacted.count == 2 && !text.contains("dapi"), "{text}");
}

#[test]
fn a_token_within_the_name_of_a_secret_is_found_too() {
    let redactor = Redactor::new(b"key", &[], &[]).unwrap();
    let jwt = format!("eyJ{}.eyJ{}.x", "a".repeat(20), "b".repeat(20));
    for name in [format!("secret.{jwt}"), format!("secret_token.{jwt}_key")] {
        let redacted = redactor.redact(format!(r#"{{"{name}_token":"planted"}}"#).as_bytes()).unwrap();
        let text = String::from_utf8(redacted.text).unwrap();
        assert!(redacted.count == 2 && !text.contains("eyJ") && !text.contains("planted"), "{text}");
    }
}

/// Where each hit looked at the whole word that it lies in, most of these took minutes.
#[test]
fn a_long_text_of_nothing_but_hits_is_looked_through_in_a_moment() {
    let redactor = Redactor::new(b"key", &["pin".to_owned()], &[]).unwrap();
    for (piece, end) in [
        ("token", ""),
        ("pin.", ""),
        ("fs.azure.account.key.", ""),
        ("fs.azure.account.key ", "A"),
        ("fs.azure.account.key{AbCdEfGhIjKlMnOpQrStUvWxYz", ""),
        ("eyJ-", ""),
        ("token=<", ""),
        ("token=", "("),
        ("-----BEGIN PRIVATE KEY----------END", ""),
        ("\",\"-----BEGIN PRIVATE KEY-----x", ""),
        ("dapi0123456789abcdef0123456789abcdef.token.", ""),
    ] {
        let text = format!("{{\"a\":[\"{}{end}\"]}}", piece.repeat(1_000_000 / piece.len()));
        let redacted = redactor.redact(text.as_bytes());
        assert!(redacted.is_none_or(|redacted| redacted.count > 0));
    }
}
