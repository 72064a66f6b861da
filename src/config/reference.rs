//! The reference configuration: every key with its text, commented out at its default.

use serde_json::{Map, Value};

use super::check::{choices, kinds};
use super::{Kinds, schema};

const WIDTH: usize = 110;
const HEAD: &str = "\
# auditferry: every key of the configuration, commented out at its default; a key without one shows an example.
#
# /etc/auditferry/auditferry.toml is read, then conf.d/*.toml beside it; a later file wins, key by key. Every
# key can be set from the environment too: AUDITFERRY__OUTPUTS__SPLUNK__URL is `url` of [outputs.splunk].
# A secret is { file = \"/path\" }, { env = \"NAME\" } or { credential = \"name\" } (systemd).
# `auditferry check` says what is wrong with a file; `auditferry schema` prints its JSON schema.
";

/// The reference configuration as TOML.
pub fn reference() -> String {
    whole(Kinds::REGISTERED)
}

pub(super) fn whole(kinds: Kinds) -> String {
    let mut out = HEAD.to_owned();
    let mut top = schema::properties(&schema::top());
    top.retain(|key, _| !matches!(key.as_str(), "inputs" | "outputs"));
    let (sections, plain): (Vec<_>, Vec<_>) = top.iter().partition(|(_, schema)| is_table(schema));
    for (key, schema) in plain.into_iter().filter(|(key, _)| *key != "pipelines") {
        documented(key, schema, &mut out);
    }
    for (key, schema) in sections {
        out.push('\n');
        comment(about(schema), &mut out);
        out.push_str(&format!("#[{key}]\n"));
        for (key, schema) in schema::properties(schema) {
            documented(&key, &schema, &mut out);
        }
    }
    for kind in kinds.inputs {
        component("inputs", kind.name, &schema::input(kind), &Map::new(), &mut out);
    }
    common(kinds, &mut out);
    for kind in kinds.outputs {
        component("outputs", kind.name, &schema::output(kind), &schema::common(&kind.defaults), &mut out);
    }
    out.push('\n');
    comment(top.get("pipelines").map(about).unwrap_or_default(), &mut out);
    out.push_str("#[[pipelines]]\n#input = \"bucket\"\n#output = \"splunk_hec\"\n");
    out
}

/// What the common keys mean, once; their defaults differ from type to type.
fn common(kinds: Kinds, out: &mut String) {
    out.push_str("\n# Keys of every output; the defaults stand with each type.\n");
    let keys = kinds.outputs.first().map(|kind| schema::common(&kind.defaults)).unwrap_or_default();
    for (path, schema) in leaves(&keys) {
        out.push_str(&format!("#\n# {path}:\n"));
        comment(about(&schema), out);
    }
}

fn component(section: &str, name: &str, schema: &Value, common: &Map<String, Value>, out: &mut String) {
    out.push('\n');
    comment(about(schema), out);
    out.push_str(&format!("#[{section}.{name}]\n#type = \"{name}\"\n"));
    let mut own = schema::properties(schema);
    own.retain(|key, _| key != "type" && !common.contains_key(key));
    let required: Vec<_> = schema.get("required").and_then(Value::as_array).into_iter().flatten().collect();
    for (path, schema) in leaves(&own) {
        out.push('\n');
        comment(about(&schema), out);
        if required.iter().any(|key| **key == path) {
            out.push_str("# Required.\n");
        }
        assignment(&path, &schema, out);
    }
    if !common.is_empty() {
        out.push_str("\n# As every output:\n");
    }
    for (path, schema) in leaves(common) {
        assignment(&path, &schema, out);
    }
}

fn documented(key: &str, schema: &Value, out: &mut String) {
    out.push('\n');
    comment(about(schema), out);
    assignment(key, schema, out);
}

fn assignment(key: &str, schema: &Value, out: &mut String) {
    let words = choices(schema);
    if words.len() > 1 {
        comment(&format!("One of {}.", words.join(", ")), out);
    }
    out.push_str(&format!("#{key} = {}\n", value(schema)));
}

/// The default; without one an example.
fn value(schema: &Value) -> String {
    let default = schema.get("default").filter(|default| !default.is_null());
    let example = || {
        schema::alternatives(schema).into_iter().chain([schema]).find_map(|one| one.get("examples")?.get(0))
    };
    match default.or_else(example).and_then(|value| toml::Value::try_from(value).ok()) {
        Some(value) => value.to_string(),
        None if schema::is_secret(schema) => "{ file = \"/etc/auditferry/secret\" }".to_owned(),
        None => placeholder(schema),
    }
}

fn placeholder(schema: &Value) -> String {
    if let Some(word) = choices(schema).first() {
        return format!("\"{word}\"");
    }
    let kind = match kinds(schema).first() {
        Some(&"boolean") => "false",
        Some(&"integer" | &"number") => "1",
        Some(&"array") => "[]",
        Some(&"object") => "{}",
        _ => "\"\"",
    };
    kind.to_owned()
}

/// The keys of a table with those of nested tables as dotted keys.
fn leaves(keys: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (key, schema) in keys {
        if is_table(schema) {
            let nested = self::leaves(&schema::properties(schema));
            leaves.extend(nested.into_iter().map(|(path, schema)| (format!("{key}.{path}"), schema)));
        } else {
            leaves.push((key.clone(), schema.clone()));
        }
    }
    leaves
}

/// True for a table with keys of its own, false for one with free keys and for a choice.
fn is_table(schema: &Value) -> bool {
    !schema::is_choice_of_tables(schema)
        && kinds(schema) == ["object"]
        && !schema::properties(schema).is_empty()
}

fn about(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// A text as comment lines; single line breaks of the doc comment are not kept.
fn comment(text: &str, out: &mut String) {
    for paragraph in text.split("\n\n") {
        let mut line = "#".to_owned();
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH && line.len() > 1 {
                out.push_str(&line);
                out.push('\n');
                line = "#".to_owned();
            }
            line.push(' ');
            line.push_str(word);
        }
        if line.len() > 1 {
            out.push_str(&line);
            out.push('\n');
        }
    }
}
