//! Redaction takes every secret that it knows out of a text, and nothing else of its shape.

use std::sync::OnceLock;

use regex::bytes::Regex;
use serde_json::Value;

use crate::redact::{Redacted, Redactor};

/// No secret of the corpus, and nothing that one could be mistaken for.
const PLANTED: &str = "pl4nted-s3cret-pl4nted";

fn redactor() -> &'static Redactor {
    static REDACTOR: OnceLock<Redactor> = OnceLock::new();
    REDACTOR.get_or_init(|| {
        Redactor::new(b"key", &["internal_code".to_owned()], &["ACME-[0-9]{6}".to_owned()]).unwrap()
    })
}

/// Tokens of known makers, looked for in another way than redaction does.
fn tokens() -> &'static Regex {
    static TOKENS: OnceLock<Regex> = OnceLock::new();
    TOKENS.get_or_init(|| {
        Regex::new(r"(?-u)(?:^|[^0-9A-Za-z_\\])(?:(?:dapi|dose|dkea)[0-9a-f]{32}|gh[pousr]_[0-9A-Za-z]{36}|glpat-[0-9A-Za-z]{20}|npm_[0-9A-Za-z]{36}|ACME-[0-9]{6})")
            .unwrap()
    })
}

/// `data`: a record as it is stored.
pub fn redaction(data: &[u8]) {
    let redacted = check(data);
    let before: Result<Value, _> = serde_json::from_slice(data);
    if let (Ok(before), Some(redacted)) = (&before, &redacted) {
        let after: Value = serde_json::from_slice(&redacted.text)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&redacted.text)));
        assert_eq!(shape(before), shape(&after));
    }
    // Whatever else the record holds, a secret under its name is found.
    if let Ok(text) = std::str::from_utf8(data) {
        let value = serde_json::json!({ "commandText": text, "requestParams": { "client_secret": PLANTED } });
        let redacted = check(value.to_string().as_bytes()).expect("a secret was planted");
        let text = String::from_utf8(redacted.text).unwrap();
        assert!(text.contains(PLANTED) == data_holds(data), "{text}");
    }
}

fn data_holds(data: &[u8]) -> bool {
    memchr::memmem::find(data, PLANTED.as_bytes()).is_some()
}

fn check(text: &[u8]) -> Option<Redacted> {
    let redacted = redactor().redact(text);
    let left = redacted.as_ref().map_or(text, |redacted| &redacted.text);
    if let Some(token) = tokens().find(left) {
        panic!(
            "{:?} is left of {:?}",
            token.as_bytes().escape_ascii().to_string(),
            String::from_utf8_lossy(text)
        );
    }
    if let Some(redacted) = &redacted {
        assert!(redacted.count > 0 && redacted.text != text);
        // What was found is found no more; a mark is no secret. What a configured pattern takes may be the beginning of a
        // name, whose rest is a name of its own then.
        let again = redactor().redact(&redacted.text).map(|again| again.count);
        let by_pattern = memchr::memmem::find(text, b"ACME-").is_some();
        assert!(again.is_none() || by_pattern, "{}", text.escape_ascii());
    }
    redacted
}

/// The same with no text in it.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.values().map(shape).collect(),
        Value::Array(elements) => elements.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        other => other.clone(),
    }
}
