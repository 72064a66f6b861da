//! The JSON schema of the configuration: of one component, and of the whole file.

use schemars::{JsonSchema, Schema, schema_for};
use serde_json::{Map, Value, json};

use super::output::Common;
use super::{Kinds, Settings};
use crate::http::HttpSettings;
use crate::input::InputKind;
use crate::output::{OutputDefaults, OutputKind};
use crate::units::{ByteSize, Period};

/// Deeper references than this are taken for recursive ones and left open.
const MAX_DEPTH: usize = 12;

/// The JSON schema of a whole configuration file.
pub fn schema() -> Value {
    whole(Kinds::REGISTERED)
}

pub(super) fn whole(kinds: Kinds) -> Value {
    let mut schema = of::<Settings>();
    let one_of = |schemas: Vec<Value>, about: &str| {
        json!({
            "type": "object",
            "description": about,
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$" },
            "additionalProperties": { "oneOf": schemas },
        })
    };
    let inputs = kinds.inputs.iter().map(input).collect();
    let outputs = kinds.outputs.iter().map(output).collect();
    if let Some(properties) = properties_mut(&mut schema) {
        properties
            .insert("inputs".to_owned(), one_of(inputs, "Where records come from, by a name of your own."));
        properties
            .insert("outputs".to_owned(), one_of(outputs, "Where events go to, by a name of your own."));
    }
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    whole.insert("title".to_owned(), json!("auditferry configuration"));
    whole.extend(schema.as_object().cloned().unwrap_or_default());
    whole.into()
}

/// The keys at the top of the file; what is below `inputs` and `outputs` depends on the `type` and is left open.
pub(super) fn top() -> Value {
    let mut schema = of::<Settings>();
    if let Some(properties) = properties_mut(&mut schema) {
        for key in ["inputs", "outputs"] {
            properties.insert(
                key.to_owned(),
                json!({ "type": "object", "additionalProperties": { "type": "object" } }),
            );
        }
    }
    schema
}

/// The keys of an input.
pub(super) fn input(kind: &InputKind) -> Value {
    typed(kind.name, kind.about, &inlined((kind.schema)()), Map::new())
}

/// The keys of an output: its own, and those every output has.
pub(super) fn output(kind: &OutputKind) -> Value {
    typed(kind.name, kind.about, &inlined((kind.schema)()), common(&kind.defaults))
}

/// The keys every output has, with the defaults of this kind.
pub(super) fn common(defaults: &OutputDefaults) -> Map<String, Value> {
    let mut schema = of::<Common>();
    let values = json!({
        "format": defaults.format,
        "compression": defaults.compression,
        "in_flight": defaults.in_flight,
        "batch": {
            "max_bytes": ByteSize(defaults.max_bytes),
            "max_events": defaults.max_events,
            "max_age": Period(defaults.max_age),
        },
    });
    set_defaults(&mut schema, &values);
    let taken = json!(defaults.compressions);
    if let Some(Value::Array(choices)) = schema.pointer_mut("/properties/compression/oneOf") {
        choices.retain(|choice| contains(&taken, choice.get("const")));
    }
    let mut keys = properties(&schema);
    keys.extend(properties(&of::<HttpSettings>()));
    keys
}

/// Names of the keys every output has.
pub(super) fn common_keys() -> Vec<String> {
    let mut keys: Vec<_> = properties(&of::<Common>()).into_iter().map(|(key, _)| key).collect();
    keys.extend(http_keys());
    keys
}

/// Names of those of them that belong to the HTTP client.
pub(super) fn http_keys() -> Vec<String> {
    properties(&of::<HttpSettings>()).into_iter().map(|(key, _)| key).collect()
}

fn contains(list: &Value, item: Option<&Value>) -> bool {
    list.as_array().zip(item).is_some_and(|(list, item)| list.contains(item))
}

fn set_defaults(schema: &mut Value, values: &Value) {
    let (Some(properties), Some(values)) = (properties_mut(schema), values.as_object()) else { return };
    for (key, value) in values {
        match properties.get_mut(key) {
            Some(nested) if value.is_object() => set_defaults(nested, value),
            Some(Value::Object(property)) => {
                property.insert("default".to_owned(), value.clone());
            }
            _ => {}
        }
    }
}

/// A component's schema with `type` in front and the common keys behind.
fn typed(name: &str, about: &str, own: &Value, common: Map<String, Value>) -> Value {
    let mut keys = Map::new();
    keys.insert("type".to_owned(), json!({ "const": name, "description": about }));
    keys.extend(properties(own));
    keys.extend(common);
    let mut required = vec![json!("type")];
    required.extend(own.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    json!({
        "type": "object",
        "title": name,
        "description": about,
        "properties": keys,
        "required": required,
        "additionalProperties": false,
    })
}

fn of<T: JsonSchema>() -> Value {
    inlined(schema_for!(T))
}

/// The schema with every reference replaced by what it names, so that schemas of several components can be joined
/// without their definitions clashing, and walked without looking anything up.
fn inlined(schema: Schema) -> Value {
    let schema = schema.to_value();
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    let mut inlined = inline(&schema, &definitions, 0);
    if let Some(root) = inlined.as_object_mut() {
        root.retain(|key, _| !matches!(key.as_str(), "$schema" | "$defs" | "title"));
    }
    inlined
}

fn inline(value: &Value, definitions: &Value, depth: usize) -> Value {
    match value {
        Value::Object(map) => {
            let named =
                map.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
            let mut joined = match named.and_then(|name| definitions.get(name)) {
                Some(definition) if depth < MAX_DEPTH => match inline(definition, definitions, depth + 1) {
                    Value::Object(definition) => definition,
                    _ => Map::new(),
                },
                _ => Map::new(),
            };
            // TOML knows no null: an optional key has no default.
            let unset = |key: &str, item: &Value| key == "default" && item.is_null();
            for (key, item) in map.iter().filter(|(key, item)| !unset(key, item)) {
                if matches!(key.as_str(), "$ref" | "$defs") {
                    continue;
                }
                joined.insert(key.clone(), inline(item, definitions, depth));
            }
            joined.into()
        }
        Value::Array(items) => items.iter().map(|item| inline(item, definitions, depth)).collect(),
        other => other.clone(),
    }
}

fn properties_mut(schema: &mut Value) -> Option<&mut Map<String, Value>> {
    schema.get_mut("properties")?.as_object_mut()
}

/// What a value may be: the schema itself, or its alternatives without `null`.
pub(super) fn alternatives(schema: &Value) -> Vec<&Value> {
    let listed = ["oneOf", "anyOf"].into_iter().find_map(|key| schema.get(key)?.as_array());
    match listed {
        None => vec![schema],
        Some(list) => list
            .iter()
            .flat_map(alternatives)
            .filter(|one| one.get("type").is_none_or(|kind| kind != "null"))
            .collect(),
    }
}

/// The keys of a table, over all its alternatives.
pub(super) fn properties(schema: &Value) -> Map<String, Value> {
    let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
    let mut keys = Map::new();
    for part in std::iter::once(schema).chain(parts).chain(alternatives(schema)) {
        if let Some(properties) = part.get("properties").and_then(Value::as_object) {
            keys.extend(properties.iter().map(|(key, schema)| (key.clone(), schema.clone())));
        }
    }
    keys
}

/// The schema of keys that are the user's own, such as header names.
pub(super) fn free(schema: &Value) -> Option<&Value> {
    alternatives(schema)
        .into_iter()
        .find_map(|one| one.get("additionalProperties").filter(|rest| rest.is_object()))
}

/// True for the schema of a [`crate::secret::Secret`].
pub(super) fn is_secret(schema: &Value) -> bool {
    is_choice_of_tables(schema) && properties(schema).contains_key("credential")
}

/// True where a table holds exactly one of several keys.
pub(super) fn is_choice_of_tables(schema: &Value) -> bool {
    let single =
        |one: &&Value| one.get("properties").and_then(Value::as_object).is_some_and(|keys| keys.len() == 1);
    alternatives(schema).iter().filter(|one| single(one)).count() > 1
}
