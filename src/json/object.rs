//! Writes a JSON object member by member, straight into a buffer.

use crate::canonical::write_integer;
use crate::json::{Text, write_quoted};

/// An object being written. Members without a value are left out, and so are objects that would be empty.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl Object<'_> {
    /// Appends `{…}` with the members that `fill` writes.
    pub fn write(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object { out, empty: true };
        fill(&mut object);
        object.out.push(b'}');
    }

    /// Appends a string, if there is one.
    pub fn text(&mut self, key: &str, text: Option<&Text<'_>>) {
        if let Some(text) = text {
            self.key(key).extend_from_slice(text.quoted().as_bytes());
        }
    }

    /// Appends plain text as a string.
    pub fn plain(&mut self, key: &str, plain: &str) {
        write_quoted(plain, self.key(key));
    }

    /// Appends an integer.
    pub fn integer(&mut self, key: &str, number: i64) {
        write_integer(Some(number), self.key(key));
    }

    /// Appends a value that `write` writes as valid JSON.
    pub fn value(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.key(key));
    }

    /// Appends a member that is JSON text already.
    pub fn member(&mut self, key: &Text<'_>, value: &str) {
        self.begin();
        self.out.extend_from_slice(key.quoted().as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(value.as_bytes());
    }

    /// Appends plain texts as an array of strings.
    pub fn plains(&mut self, key: &str, plains: &[&str]) {
        let out = self.key(key);
        let mut before = b'[';
        for plain in plains {
            out.push(before);
            write_quoted(plain, out);
            before = b',';
        }
        out.extend_from_slice(if plains.is_empty() { b"[]" } else { b"]" });
    }

    /// Appends an array of strings, if there are any.
    pub fn texts<'t>(&mut self, key: &str, texts: impl IntoIterator<Item = &'t Text<'t>>) {
        let mut before = b'[';
        for text in texts {
            if before == b'[' {
                self.key(key);
            }
            self.out.push(before);
            self.out.extend_from_slice(text.quoted().as_bytes());
            before = b',';
        }
        if before == b',' {
            self.out.push(b']');
        }
    }

    /// Appends an object, if `fill` writes any member.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        let (start, was_empty) = (self.out.len(), self.empty);
        self.key(key).push(b'{');
        let mut object = Object { out: self.out, empty: true };
        fill(&mut object);
        if object.empty {
            self.out.truncate(start);
            self.empty = was_empty;
        } else {
            self.out.push(b'}');
        }
    }

    /// Appends a member's key; what is pushed next is its value.
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.begin();
        write_quoted(key, self.out);
        self.out.push(b':');
        self.out
    }

    fn begin(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_without_a_value_leave_no_trace() {
        let mut out = Vec::new();
        let (text, none) = (Text::from_plain("a\"b"), Vec::new());
        Object::write(&mut out, |object| {
            object.object("first", |inner| inner.object("deeper", |_| ()));
            object.text("absent", None);
            object.texts("nobody", &none);
            object.text("text", Some(&text));
            object.object("inner", |inner| {
                inner.integer("number", -7);
                inner.object("empty", |_| ());
                inner.plain("plain", "\n");
            });
            object.texts("both", [&text, &text]);
            object.plains("plains", &["a", "b"]);
            object.plains("none", &[]);
            object.value("raw", |out| out.extend_from_slice(b"[1]"));
        });
        let expected = r#"{"text":"a\"b","inner":{"number":-7,"plain":"\n"},"both":["a\"b","a\"b"],"plains":["a","b"],"none":[],"raw":[1]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
