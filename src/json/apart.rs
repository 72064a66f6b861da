//! Members of one name, which JSON allows and collectors do not: some refuse the document, others take the last of them.

use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use super::{Text, string_end};

/// Most names that are compared one with the other; of more, a set is made.
const FEW: usize = 16;

/// Names of one object.
#[derive(Debug, Default)]
pub struct Names<'v> {
    few: SmallVec<[&'v str; FEW]>,
    more: HashSet<&'v str>,
}

impl<'v> Names<'v> {
    /// Adds a name; false for one that is there already.
    pub fn insert(&mut self, name: &'v str) -> bool {
        if self.few.contains(&name) {
            return false;
        }
        if self.few.len() < FEW {
            self.few.push(name);
            return true;
        }
        self.more.insert(name)
    }
}

/// What is met in a value on the way through it.
enum Met<'v> {
    Open,
    Key(usize, &'v str),
    Close,
}

/// Walks a compact value, where a key is a text with a colon behind it.
fn walk(value: &str) -> impl Iterator<Item = Met<'_>> {
    let bytes = value.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(byte) = bytes.get(at) {
            let start = at;
            at += 1;
            match byte {
                b'"' => {
                    at = string_end(bytes, start);
                    if bytes.get(at) == Some(&b':') {
                        return Some(Met::Key(start, value.get(start..at)?));
                    }
                }
                b'{' => return Some(Met::Open),
                b'}' => return Some(Met::Close),
                _ => {}
            }
        }
        None
    })
}

/// True if an object in this compact value, or the value itself, has two members of one name.
fn has_twins(value: &str) -> bool {
    let mut open: Vec<Names<'_>> = Vec::new();
    for met in walk(value) {
        match met {
            Met::Open => open.push(Names::default()),
            Met::Close => drop(open.pop()),
            Met::Key(_, key) => {
                if !open.last_mut().is_none_or(|names| names.insert(key)) {
                    return true;
                }
            }
        }
    }
    false
}

/// A compact value with canonical escapes in which no object has two members of one name any more; `None` if it is so
/// already, which costs one walk.
pub fn told_apart(value: &str) -> Option<String> {
    if !has_twins(value) {
        return None;
    }
    let (mut objects, mut open): (Vec<Vec<(usize, Text<'_>)>>, Vec<usize>) = (Vec::new(), Vec::new());
    for met in walk(value) {
        match met {
            Met::Open => {
                open.push(objects.len());
                objects.push(Vec::new());
            }
            Met::Close => drop(open.pop()),
            Met::Key(start, key) => {
                if let Some(keys) = open.last().and_then(|object| objects.get_mut(*object)) {
                    keys.push((start, Text::from_canonical(key)));
                }
            }
        }
    }
    for keys in &mut objects {
        number(&mut keys.iter_mut().map(|(_, key)| key).collect::<Vec<_>>());
    }
    let mut keys: Vec<_> = objects.into_iter().flatten().collect();
    keys.sort_unstable_by_key(|(start, _)| *start);
    let (mut out, mut copied) = (String::with_capacity(value.len() + 16), 0);
    for (start, key) in keys {
        out.push_str(value.get(copied..start).unwrap_or_default());
        out.push_str(key.quoted());
        copied = string_end(value.as_bytes(), start);
    }
    out.push_str(value.get(copied..).unwrap_or_default());
    Some(out)
}

/// Numbers names that come more than once (`object#1`, `object`). The last keeps its name: it is the one that those take
/// who take one.
pub fn number(names: &mut [&mut Text<'_>]) {
    let mut left: HashMap<String, usize> = HashMap::new();
    for name in &*names {
        *left.entry(name.quoted().to_owned()).or_default() += 1;
    }
    let mut taken: HashSet<String> = left.keys().cloned().collect();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for name in names {
        let quoted = name.quoted().to_owned();
        let Some(left) = left.get_mut(&quoted) else { continue };
        *left -= 1;
        if *left == 0 {
            continue;
        }
        let number = numbers.entry(quoted).or_default();
        loop {
            *number += 1;
            let numbered = Text::from_canonical(format!("\"{}#{number}\"", name.escaped()));
            if taken.insert(numbered.quoted().to_owned()) {
                **name = numbered;
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_name_are_numbered_wherever_they_stand_and_none_is_lost() {
        for (value, expected) in [
            (r#"{"a":1,"a":2,"a":3}"#, r#"{"a#1":1,"a#2":2,"a":3}"#),
            (r#"{"a":1,"a#1":2,"a":3}"#, r#"{"a#2":1,"a#1":2,"a":3}"#),
            (
                r#"[{"x":{"a":"\":","a":[{"b":1,"b":{}}]}},{"a":1}]"#,
                r#"[{"x":{"a#1":"\":","a":[{"b#1":1,"b":{}}]}},{"a":1}]"#,
            ),
        ] {
            assert_eq!(told_apart(value).as_deref(), Some(expected));
        }
        for value in [r#"{"a":{"a":1},"b":{"a":1}}"#, r#"["a","a"]"#, "{}", r#""a""#, "7"] {
            assert_eq!(told_apart(value), None, "{value}");
        }
        let many: String = (0..40).map(|number| format!("\"k{number}\":0,")).collect();
        assert_eq!(told_apart(&format!("{{{many}\"z\":0}}")), None);
        let twins = told_apart(&format!("{{{many}\"k39\":1}}")).unwrap();
        assert!(twins.contains("\"k39#1\":0") && twins.ends_with("\"k39\":1}"), "{twins}");
    }
}
