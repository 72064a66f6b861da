use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use serde_json::Value;

use super::*;

#[test]
fn what_was_written_last_becomes_a_string_that_reads_back_as_it_was() {
    for text in ["", "{\"a\":\"b\\\\c\\n\"}", "{\t\"a\" : \"ä\"}"] {
        let mut out = b"[1,".to_vec();
        out.extend_from_slice(text.as_bytes());
        quote_from(3, &mut out);
        out.push(b']');
        let read: (u8, String) = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, (1, text.to_owned()));
    }
}

#[test]
fn one_string_has_one_spelling() {
    for spelled in [r#""a\/b""#, r#""a/b""#, r#""\u0061/b""#] {
        assert_eq!(Text::from_json(spelled).quoted(), r#""a/b""#);
    }
    assert_eq!(Text::from_json(r#""\u000A\u001F\u00e9""#).quoted(), "\"\\n\\u001fé\"");
    assert_eq!(Text::from_json(r#""\ud83d\ude00 \ud83d x""#).quoted(), "\"😀 \u{fffd} x\"");
    assert!(matches!(Text::from_json(r#""a\\u0041""#).0, Cow::Borrowed(_)), "an escaped backslash before u");
}

#[test]
fn members_are_walked_without_parsing_their_values() {
    let object = r#" { "a" : 1 , "b\"{" : [1,{"x":"}"}], "c":{"d":"]"} ,"e":null} "#;
    let seen: Vec<_> = members(object).collect();
    let expected =
        [(r#""a""#, "1"), (r#""b\"{""#, r#"[1,{"x":"}"}]"#), (r#""c""#, r#"{"d":"]"}"#), (r#""e""#, "null")];
    assert_eq!(seen, expected);
    assert_eq!(members("[1]").count(), 0);
    assert_eq!(members("{}").count(), 0);
    assert_eq!(
        elements(r#"[1, "a,]" ,[2],{"b":3}]"#).collect::<Vec<_>>(),
        ["1", "\"a,]\"", "[2]", "{\"b\":3}"]
    );
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        proptest::strategy::Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Compacting pretty-printed JSON gives what serde_json prints compactly.
    #[test]
    fn compact_text_is_what_serde_json_prints(value in json()) {
        let mut out = Vec::new();
        write_compact(&serde_json::to_string_pretty(&value).unwrap(), &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
    }

    /// Walking an object finds the members that serde_json finds.
    #[test]
    fn walking_agrees_with_serde_json(members_in in prop::collection::vec((any::<String>(), json()), 0..5)) {
        let object = Value::Object(members_in.into_iter().collect());
        let text = serde_json::to_string_pretty(&object).unwrap();
        let walked: serde_json::Map<String, Value> = members(&text)
            .map(|(key, value)| (unescape(key).into_owned(), serde_json::from_str(value).unwrap()))
            .collect();
        prop_assert_eq!(Value::Object(walked), object);
    }

    /// Any text survives being quoted and read again, by us and by serde_json.
    #[test]
    fn quoting_round_trips(plain in any::<String>()) {
        let text = Text::from_plain(&plain);
        let read = text.plain();
        prop_assert_eq!(read.as_ref(), plain.as_str());
        prop_assert_eq!(serde_json::from_str::<String>(text.quoted()).unwrap(), plain.as_str());
        prop_assert_eq!(serde_json::to_string(&plain).unwrap(), text.quoted());
    }
}
