//! The lenient second pass over a line that is not JSON: invalid escapes and bare control characters in strings,
//! both of which occur in Databricks' files.

/// A text in which stray backslashes are dropped and control characters within strings escaped; `None` where there
/// was nothing of the kind to mend.
pub(super) fn repair(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut in_string = false;
    let mut mended = false;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                in_string = !in_string;
                out.push('"');
            }
            '\\' if in_string => {
                let rest = text.get(at + 1..).unwrap_or_default();
                if valid_escape(rest) {
                    out.push('\\');
                    out.extend(characters.next().map(|(_, escaped)| escaped));
                } else {
                    mended = true;
                }
            }
            control if in_string && control < ' ' => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
                mended = true;
            }
            other => out.push(other),
        }
    }
    mended.then_some(out)
}

fn valid_escape(after_backslash: &str) -> bool {
    match after_backslash.as_bytes() {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => true,
        [b'u', a, b, c, d, ..] => [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_backslashes_and_control_characters_are_mended_and_nothing_else() {
        assert_eq!(
            repair(r#"{"a":"C:\data\x\u12"}"#).as_deref(),
            Some(r#"{"a":"C:datax\u12"}"#.replace(r"\u12", "u12").as_str())
        );
        assert_eq!(repair("{\"a\":\"x\ty\"}").as_deref(), Some(r#"{"a":"x\u0009y"}"#));
        assert_eq!(repair(r#"{"a":"\"\\\n\u00e9"}"#), None);
        assert_eq!(repair(r#"{"a":"#), None);
    }
}
