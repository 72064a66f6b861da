use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::value::RawValue;

use super::*;

fn scanned(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut members = Vec::new();
    object(text, |key, value, _| members.push((key, value))).then_some(members)
}

#[test]
fn what_a_value_holds_is_told() {
    let text = r#"{ "a" : "\u00e9" , "b":[1],"c":{"x":"y\n","z":null},"d":{"x": "y"},"e":{"x":{}},"f":{"x":true},"g":{"\/":"y"}}"#;
    let mut told = Vec::new();
    assert!(object(text, |_, _, seen| told.push((seen.foreign_escapes, seen.spaces, seen.others))));
    let (t, f) = (true, false);
    let expected = [(t, f, f), (f, f, t), (f, f, f), (f, t, f), (f, f, t), (f, f, t), (t, f, f)];
    assert_eq!(told, expected);
}

#[test]
fn a_key_that_comes_twice_is_told_of_and_so_is_the_one_that_is_watched() {
    let doubtful = |value: &str| {
        let mut told = None;
        assert!(object(&format!("{{\"p\":{value}}}"), |_, _, seen| told = Some(seen.doubtful_keys)));
        told.unwrap()
    };
    for key in ["", "a", "id", "name", "cluster_id", &"x".repeat(300)] {
        assert!(doubtful(&format!("{{\"{key}\":1,\"between\":{{}},\"{key}\":2}}")), "{key}");
    }
    assert!(doubtful(r#"{"TRUNCATED":""}"#));
    for ordinary in [
        "{}",
        "[]",
        r#"{"commandId":"1","notebookId":"2","executionTime":"3"}"#,
        r#"{"user":{"user":1},"path":["path"]}"#,
        r#"{"a":{"b":1,"b":2}}"#,
    ] {
        assert!(!doubtful(ordinary), "{ordinary}");
    }
}

#[test]
fn members_are_found_as_they_stand() {
    let text =
        r#" { "a" : -1.5e+3 , "b":[1,{"x":"}\"\u00e9"},[]],"" :{"d":{ } , "e":null},"t":true,"f":false} "#;
    let expected = [
        (r#""a""#, "-1.5e+3"),
        (r#""b""#, r#"[1,{"x":"}\"\u00e9"},[]]"#),
        (r#""""#, r#"{"d":{ } , "e":null}"#),
        (r#""t""#, "true"),
        (r#""f""#, "false"),
    ];
    assert_eq!(scanned(text).unwrap(), expected);
    assert_eq!(scanned("{}"), Some(Vec::new()));
}

/// Texts are looked at 64 bytes at once: at each place of such a block, and behind the last whole one.
#[test]
fn what_ends_or_breaks_a_string_is_found_wherever_it_stands() {
    for length in 0..150 {
        let fill = "x".repeat(length);
        let text = format!("{{\"{fill}\":\"{fill}\\\"\\\\\",\"b\":1}}");
        let expected = [(format!("\"{fill}\""), format!("\"{fill}\\\"\\\\\"")), ("\"b\"".into(), "1".into())];
        let found = scanned(&text).unwrap();
        let found: Vec<_> = found.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(found, expected);
        for broken in ["\n", "\x00", "\x1f", "\\x"] {
            assert_eq!(scanned(&format!("{{\"a\":\"{fill}{broken}\"}}")), None, "{length} {broken:?}");
        }
        assert_eq!(scanned(&format!("{{\"a\":\"{fill}\\\"}}")), None, "{length}");
    }
}

#[test]
fn what_is_no_plain_object_is_left_to_a_general_reader() {
    let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(scanned(&deep(128)).is_some());
    for text in [
        "",
        "1",
        "[]",
        "{",
        "{}x",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":tru}",
        "{\"a\":[1}}",
        "{\"a\":{1}}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"",
        "{\"\\u0061\":1}",
        "{\"a\":\t1}",
        "{\"a\":\"\t\"}",
        &deep(130),
    ] {
        assert_eq!(scanned(text), None, "{text}");
    }
}

/// Tokens in any order: mostly broken JSON, and close to it.
fn nearly_json() -> impl Strategy<Value = String> {
    let tokens = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\n\\u00e9\"",
        "\"é\\",
        " ",
        "-1",
        "0.5e1",
        "null",
        "true",
    ];
    prop::collection::vec(prop::sample::select(tokens.to_vec()), 0..12).prop_map(|tokens| tokens.concat())
}

proptest! {
    /// Whatever is taken, serde_json takes too, and it finds the same members.
    #[test]
    fn nothing_is_taken_that_is_not_json(inner in nearly_json(), cut in any::<prop::sample::Index>()) {
        let whole = format!("{{\"k\":{inner}}}");
        let cut = whole.get(..cut.index(whole.len() + 1)).unwrap_or(&whole);
        for text in [inner.as_str(), whole.as_str(), cut] {
            if scanned(text).is_some() {
                prop_assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "{text}");
            }
        }
    }

    /// Any object that serde_json prints is taken, with the members it has.
    #[test]
    fn what_serde_json_prints_is_taken(
        members in prop::collection::vec(("[a-zé ]{0,12}", any::<String>(), any::<f64>(), any::<i64>()), 0..6),
    ) {
        let values: Vec<_> = members
            .iter()
            .map(|(key, text, float, integer)| {
                let value = serde_json::json!([text, {"inner": text, key: float}, integer, null]);
                (serde_json::to_string(key).unwrap(), value.to_string())
            })
            .collect();
        let text = values.iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(",");
        let text = format!("{{{text}}}");
        // DEL and the like are no control characters to JSON: serde_json prints them as they are.
        let expected: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        prop_assert_eq!(scanned(&text), Some(expected));
    }

    /// The word-wise search finds what a search byte by byte finds.
    #[test]
    fn the_next_special_byte_is_found(bytes in prop::collection::vec(prop::sample::select(b"a\"\\\x00\x1f\x20\x21\x23\x5b\x5d\xa2\xdc\x80\xff".to_vec()), 0..40)) {
        prop_assert_eq!(special(&bytes), bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')));
        let escaped = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
        for word in bytes.as_chunks().0 {
            prop_assert_eq!(first_escapable(word), word.iter().position(escaped));
            prop_assert!(word.iter().all(|byte| is_escapable(*byte) == escaped(byte)));
        }
    }
}
