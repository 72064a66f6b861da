//! Compares a table with its schema: unknown keys, wrong types, values that are not allowed, missing keys. What does
//! not fit is reported and taken out, so that one look finds everything.

use serde_json::{Map, Value};

use super::error::{Report, below};
use super::layers::ENVIRONMENT;
use super::schema::{self, alternatives, free, is_choice_of_tables, properties};

/// Checks a value; returns false if it does not fit and has to be taken out.
pub(super) fn check(value: &mut Value, schema: &Value, path: &str, report: &mut Report) -> bool {
    if let Value::String(text) = value
        && report.origins.find(path) == ENVIRONMENT
    {
        *value = typed(text, schema);
    }
    let kinds = kinds(schema);
    if !kinds.is_empty() && !kinds.contains(&kind_of(value)) {
        let wanted = wanted(schema, &kinds);
        report.error(path, format!("must be {wanted}{}", spelling(value, schema, &kinds, path)));
        return false;
    }
    match value {
        Value::Object(table) => check_table(table, schema, path, report),
        Value::Array(items) => check_items(items, schema, path, report),
        Value::String(text) => check_choice(text, schema, path, report),
        Value::Number(number) => check_range(number, schema, path, report),
        _ => true,
    }
}

fn check_table(table: &mut Map<String, Value>, schema: &Value, path: &str, report: &mut Report) -> bool {
    let known = properties(schema);
    let whole = report_missing(table, schema, &known, path, report);
    if is_choice_of_tables(schema) {
        keep_one(table, path, report);
    }
    let free = free(schema);
    let closed =
        alternatives(schema).iter().any(|one| one.get("additionalProperties") == Some(&Value::Bool(false)));
    table.retain(|key, item| {
        let at = below(path, key);
        match known.get(key).or(free) {
            Some(schema) => check(item, schema, &at, report),
            None if closed => {
                report.error(&at, unknown_key(key, &known, path.is_empty()));
                false
            }
            None => true,
        }
    });
    whole
}

fn report_missing(
    table: &Map<String, Value>,
    schema: &Value,
    known: &Map<String, Value>,
    path: &str,
    report: &mut Report,
) -> bool {
    let mut whole = true;
    let required =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for key in required.filter(|key| !table.contains_key(*key)) {
        let about = known.get(key).and_then(|schema| schema.get("description")).and_then(Value::as_str);
        let about = about.map(|text| format!(": {}", first_sentence(text))).unwrap_or_default();
        report.error(&below(path, key), format!("is missing{about}"));
        whole = false;
    }
    whole
}

/// Of keys that exclude each other the one of the last layer stays: `token = { env = … }` in a later file replaces
/// `token = { file = … }`, though tables are merged.
fn keep_one(table: &mut Map<String, Value>, path: &str, report: &mut Report) {
    let last = table.keys().map(|key| report.origins.rank(&below(path, key))).max();
    table.retain(|key, _| Some(report.origins.rank(&below(path, key))) == last);
    if table.len() > 1 {
        let names = quoted(table.keys().map(String::as_str));
        report.error(path, format!("takes one key, not several ({names})"));
    }
}

fn check_items(items: &mut [Value], schema: &Value, path: &str, report: &mut Report) -> bool {
    let Some(of) = alternatives(schema).iter().find_map(|one| one.get("items")) else { return true };
    let mut fits = true;
    for (index, item) in items.iter_mut().enumerate() {
        fits &= check(item, of, &format!("{path}[{index}]"), report);
    }
    fits
}

fn check_choice(text: &str, schema: &Value, path: &str, report: &mut Report) -> bool {
    let allowed = choices(schema);
    if allowed.is_empty() || allowed.contains(&text) {
        return true;
    }
    report.error(path, format!("unknown value `{text}`{}", hint(text, allowed.iter().copied())));
    false
}

fn check_range(number: &serde_json::Number, schema: &Value, path: &str, report: &mut Report) -> bool {
    let bound = |name: &str| alternatives(schema).iter().find_map(|one| one.get(name)?.as_f64());
    let (low, high) = (bound("minimum"), bound("maximum"));
    let Some(value) = number.as_f64() else { return true };
    if low.is_none_or(|low| value >= low) && high.is_none_or(|high| value <= high) {
        return true;
    }
    let range = match (low, high) {
        (Some(low), Some(high)) => format!("from {low} to {high}"),
        (Some(low), None) => format!("at least {low}"),
        (None, high) => format!("at most {}", high.unwrap_or_default()),
    };
    report.error(path, format!("must be {range}, not {number}"));
    false
}

/// The words a text may be; empty where any text will do.
pub(super) fn choices(schema: &Value) -> Vec<&str> {
    let mut words = Vec::new();
    for one in alternatives(schema).into_iter().filter(|one| kinds(one).contains(&"string")) {
        let word = one.get("const").and_then(Value::as_str);
        let list = one.get("enum").and_then(Value::as_array);
        if word.is_none() && list.is_none() {
            return Vec::new();
        }
        words.extend(word);
        words.extend(list.into_iter().flatten().filter_map(Value::as_str));
    }
    words
}

/// The JSON types a value may have; empty where all are allowed.
pub(super) fn kinds(schema: &Value) -> Vec<&str> {
    let mut kinds = Vec::new();
    for one in alternatives(schema) {
        match one.get("type") {
            Some(Value::String(kind)) => kinds.push(kind.as_str()),
            Some(Value::Array(list)) => kinds.extend(list.iter().filter_map(Value::as_str)),
            _ if one.get("const").is_some_and(Value::is_string) => kinds.push("string"),
            _ => return Vec::new(),
        }
    }
    kinds.retain(|kind| *kind != "null");
    if kinds.contains(&"number") {
        kinds.push("integer");
    }
    kinds
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What would fit, in words. The value itself is not repeated: it may be a secret at the wrong key.
fn wanted(schema: &Value, kinds: &[&str]) -> String {
    let example = schema.get("examples").and_then(|examples| examples.get(0)?.as_str());
    let mut words: Vec<String> = Vec::new();
    for kind in kinds {
        let word = match *kind {
            "boolean" => "true or false".to_owned(),
            "integer" => "a whole number".to_owned(),
            "number" => "a number".to_owned(),
            "array" => "a list".to_owned(),
            "object" if is_choice_of_tables(schema) => {
                format!("a table with one of {}", quoted(properties(schema).keys().map(String::as_str)))
            }
            "object" => "a table".to_owned(),
            _ => match (example, choices(schema)) {
                (Some(example), _) => format!("a text such as \"{example}\""),
                (None, words) if words.is_empty() => "a text".to_owned(),
                (None, words) => format!("one of {}", words.join(", ")),
            },
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" or ")
}

/// How the same would be written so that it fits.
fn spelling(value: &Value, schema: &Value, kinds: &[&str], path: &str) -> String {
    let items = || alternatives(schema).into_iter().find_map(|one| one.get("items"));
    let example = schema.get("examples");
    match value {
        Value::Number(_) if kinds == ["string"] && choices(schema).is_empty() && example.is_none() => {
            ", in quotes".to_owned()
        }
        Value::String(text) if kinds == ["boolean"] && matches!(text.as_str(), "true" | "false") => {
            ", without quotes".to_owned()
        }
        Value::String(text) if kinds == ["integer"] && text.parse::<i64>().is_ok() => {
            ", without quotes".to_owned()
        }
        Value::String(_) if kinds == ["array"] => ", in [ and ]".to_owned(),
        Value::Object(_) if items().is_some_and(is_table) => format!("; write [[{path}]]"),
        _ => String::new(),
    }
}

fn is_table(schema: &Value) -> bool {
    alternatives(schema).iter().any(|one| one.get("type").and_then(Value::as_str) == Some("object"))
}

/// A text from the environment as the type its key has.
fn typed(text: &str, schema: &Value) -> Value {
    let kinds = kinds(schema);
    if kinds.is_empty() || kinds.contains(&"string") {
        return text.into();
    }
    let parsed = kinds.iter().find_map(|kind| match *kind {
        "boolean" => text.to_ascii_lowercase().parse::<bool>().ok().map(Value::from),
        "integer" => text.parse::<i64>().ok().map(Value::from),
        "number" => text.parse::<f64>().ok().map(Value::from),
        "array" => Some(text.split(',').map(|item| Value::from(item.trim())).collect()),
        _ => None,
    });
    parsed.unwrap_or_else(|| text.into())
}

fn unknown_key(key: &str, known: &Map<String, Value>, at_the_top: bool) -> String {
    // As whoever appends a line to a file: it then belongs to the last section.
    if !at_the_top && properties(&schema::top()).contains_key(key) {
        return "belongs to no section: write it at the top of the file, above the first [section]"
            .to_owned();
    }
    let nested = known
        .iter()
        .find_map(|(name, schema)| properties(schema).contains_key(key).then(|| format!("{name}.{key}")));
    let allowed = quoted(known.keys().map(String::as_str));
    match nested {
        Some(path) => format!("unknown key; did you mean `{path}`? (allowed: {allowed})"),
        None => format!("unknown key{}", hint(key, known.keys().map(String::as_str))),
    }
}

/// `; did you mean …? (allowed: …)`
pub(super) fn hint<'a>(word: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> String {
    hint_by(word, allowed, || None)
}

/// The same, where another word may be meant if none is near.
pub(super) fn hint_by<'a>(
    word: &str,
    allowed: impl Iterator<Item = &'a str> + Clone,
    otherwise: impl FnOnce() -> Option<&'a str>,
) -> String {
    let list = quoted(allowed.clone());
    match nearest(word, allowed).or_else(otherwise) {
        Some(near) => format!("; did you mean `{near}`? (allowed: {list})"),
        None => format!(" (allowed: {list})"),
    }
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<_> = words.collect();
    words.sort_unstable();
    words.join(", ")
}

/// The word that was probably meant: few letters changed, or one part of the other (`splunk`, `splunk_hec`).
fn nearest<'a>(word: &str, allowed: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let score = |other: &str| {
        let other = other.to_ascii_lowercase();
        let shorter = word.len().min(other.len());
        let contained = shorter > 2 && (other.contains(&word) || word.contains(&other));
        strsim::normalized_damerau_levenshtein(&word, &other).max(if contained { 0.6 } else { 0.0 })
    };
    allowed
        .map(|other| (score(other), other))
        .filter(|(score, _)| *score >= 0.55)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

fn first_sentence(text: &str) -> &str {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let end = paragraph.find(". ").or_else(|| paragraph.find(".\n")).unwrap_or(paragraph.len());
    paragraph.get(..end).unwrap_or(paragraph).trim_end_matches('.')
}
