//! Durations and sizes as people write them in a configuration: `60s`, `1MiB`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time: `500ms`, `60s`, `5m`, `1h 30m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// Longest that can be configured: 100 years. A moment some lengths later than now has to be one that the clock can count to.
const MOST: Duration = Duration::from_secs(3_155_760_000);

/// A number of bytes: `1048576`, `1MiB`, `1MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// As a length in memory.
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| {
            Error::custom("a duration is a text with a unit, such as \"60s\", \"5m\" or \"1h\"")
        })?;
        let length = humantime::parse_duration(&text).map_err(|_| {
            Error::custom(format!(
                "`{text}` is not a duration; write for instance \"500ms\", \"60s\", \"5m\" or \"1h\""
            ))
        })?;
        if length > MOST {
            return Err(Error::custom(format!(
                "`{text}` is longer than 100 years, which is as good as for ever"
            )));
        }
        Ok(Self(length))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["60s", "5m", "1h"] })
    }
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a size such as \"1MiB\", \"512KiB\" or a number of bytes")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom("a size cannot be negative"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
        parse_size(text).map(ByteSize).ok_or_else(|| {
            E::custom(format!(
                "`{text}` is not a size; write for instance \"512KiB\", \"1MiB\" or a number of bytes"
            ))
        })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (unit, factor) in
            binary.into_iter().chain([("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)])
        {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(out, "{}{unit}", self.0 / factor);
            }
        }
        write!(out, "{}", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "examples": ["1MiB", "512KiB", 1_000_000] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        for (text, bytes) in [("7", 7), ("1MiB", 1 << 20), ("1 MB", 1_000_000), ("512kib", 512 << 10)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "1TBx", "99999999999999999999"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        let period: Period = serde_json::from_str("\"1h 30m\"").unwrap();
        assert_eq!(period.0, Duration::from_secs(5400));
        let error = serde_json::from_str::<Period>("\"99999999999999999s\"").unwrap_err().to_string();
        assert!(error.contains("longer than 100 years"), "{error}");
        assert_eq!(serde_json::from_str::<Period>("\"100y\"").unwrap().0, MOST);
        let error = serde_json::from_str::<Period>("\"60\"").unwrap_err().to_string();
        assert!(error.contains("\"60s\""), "{error}");
        for text in ["16MiB", "5MB", "3kB", "1001"] {
            assert_eq!(ByteSize(parse_size(text).unwrap()).to_string(), text);
        }
    }
}
