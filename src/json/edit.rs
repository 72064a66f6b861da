//! Changes to a document that stands at the end of a buffer, where a format has just written it.

use memchr::memmem;

use crate::json;

/// Joins `{…` at `first` and `{…}` at `second` into one object: the second's brace becomes the comma between their
/// members. Where the second is no object, it stays alone.
pub fn join_objects(first: usize, second: usize, out: &mut Vec<u8>) {
    let text = out.get(second..).unwrap_or_default();
    let brace = second + text.len() - text.trim_ascii_start().len();
    let empty = out.get(brace + 1..).is_some_and(|tail| tail.trim_ascii_start().first() == Some(&b'}'));
    match out.get_mut(brace) {
        Some(byte) if *byte == b'{' => *byte = if empty { b' ' } else { b',' },
        _ => drop(out.drain(first..second)),
    }
}

/// True if the object that begins at `document` has a member of this name, which is given with its quotes.
pub fn has_member(name: &str, document: usize, out: &[u8]) -> bool {
    let bytes = out.get(document..).unwrap_or_default();
    memmem::find(bytes, name.as_bytes()).is_some()
        && std::str::from_utf8(bytes).is_ok_and(|text| json::members(text).any(|(key, _)| key == name))
}

/// Renames a member of the object that begins at `document`; names are given with their quotes.
pub fn rename_member(from: &str, to: &str, document: usize, out: &mut Vec<u8>) {
    let bytes = out.get(document..).unwrap_or_default();
    // Most of the time this search is all there is to do.
    if memmem::find(bytes, from.as_bytes()).is_none() {
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some((key, _)) = json::members(text).find(|(key, _)| *key == from) {
        let start = document + (key.as_ptr().addr() - text.as_ptr().addr());
        out.splice(start..start + from.len(), to.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_objects_become_one_with_the_members_of_both() {
        for (second, expected) in [
            ("{\"b\":2}", "[{\"a\":1,\"b\":2}"),
            (" {\"b\":2}", "[{\"a\":1 ,\"b\":2}"),
            ("{ }", "[{\"a\":1  }"),
            ("7", "[7"),
        ] {
            let mut out = b"[{\"a\":1".to_vec();
            let at = out.len();
            out.extend_from_slice(second.as_bytes());
            join_objects(1, at, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_member_is_renamed_at_the_top_and_nowhere_else() {
        let mut out = br#"x{"p":{"old":"x"},"t":"\"old\":","old":{"old":1}}"#.to_vec();
        rename_member("\"old\"", "\"newer\"", 1, &mut out);
        let expected = r#"x{"p":{"old":"x"},"t":"\"old\":","newer":{"old":1}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
