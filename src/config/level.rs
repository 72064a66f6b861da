//! What is logged, as `log.level` and the command line say it.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// What is logged of modules that a list does not name. `tracing` has it that this is nothing: whoever looks closer at one
/// module would hear of no hold any more.
const OF_OTHERS: &str = "info";

/// The client of the stores tells of each attempt at `info`, several a second while a store is away. The input tells of what
/// none of them brought.
const ATTEMPTS: &str = "object_store=warn";

/// Reads a level, or a list of them by module. A filter alone would take any word for the name of a module, and log nothing.
///
/// # Errors
/// A sentence that names what is no level.
pub fn log_filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |part: &str| format!("`{part}` is not a level; write error, warn, info, debug, trace or off");
    let words: Vec<_> = level.split(',').filter(|part| !part.contains(['=', '['])).map(str::trim).collect();
    if let Some(word) = words.iter().find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(wrong(word));
    }
    let mut all = if words.is_empty() { format!("{OF_OTHERS},{level}") } else { level.to_owned() };
    if words.last().is_none_or(|word| word.parse().is_ok_and(|level: LevelFilter| level == LevelFilter::INFO))
    {
        // Before what is configured, which replaces it.
        all = format!("{ATTEMPTS},{all}");
    }
    EnvFilter::try_new(all).map_err(|_| wrong(level))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let level = Option::<String>::deserialize(from)?;
    level.as_deref().map(log_filter).transpose().map_err(D::Error::custom)?;
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_names_modules_only_leaves_the_others_as_they_were() {
        for (level, expected) in [
            ("auditferry::input=debug", Some(LevelFilter::DEBUG)),
            ("auditferry::input=error", Some(LevelFilter::INFO)),
            ("auditferry::input=debug,warn", Some(LevelFilter::DEBUG)),
            ("warn,auditferry::input=error", Some(LevelFilter::WARN)),
            ("off", Some(LevelFilter::OFF)),
        ] {
            assert_eq!(log_filter(level).unwrap().max_level_hint(), expected, "{level}");
        }
        let named = log_filter("auditferry::input=debug").unwrap().to_string();
        assert!(named.split(',').any(|part| part == "info"), "{named}");
    }

    #[test]
    fn each_attempt_of_a_store_s_client_is_heard_of_only_where_somebody_wants_to() {
        for (level, heard) in [
            ("info", "object_store=warn"),
            ("INFO", "object_store=warn"),
            ("auditferry::input=debug", "object_store=warn"),
            ("info,object_store=info", "object_store=info"),
            ("debug", "debug"),
            ("error", "error"),
        ] {
            let filter = log_filter(level).unwrap().to_string();
            let parts: Vec<_> = filter.split(',').filter(|part| part.starts_with("object_store")).collect();
            match heard.starts_with("object_store") {
                true => assert_eq!(parts, [heard], "{level}"),
                false => assert_eq!((filter.as_str(), parts.len()), (heard, 0)),
            }
        }
    }
}
