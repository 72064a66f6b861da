//! What is logged, as `log.level` and the command line say it.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Reads a level, or a list of them by module. A filter alone would take any word for the name of a module, and log nothing.
///
/// # Errors
/// A sentence that names what is no level.
pub fn log_filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |part: &str| format!("`{part}` is not a level; write error, warn, info, debug, trace or off");
    let mut words = level.split(',').filter(|part| !part.contains(['=', '['])).map(str::trim);
    match words.find(|word| word.parse::<LevelFilter>().is_err()) {
        Some(word) => Err(wrong(word)),
        None => EnvFilter::try_new(level).map_err(|_| wrong(level)),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let level = Option::<String>::deserialize(from)?;
    level.as_deref().map(log_filter).transpose().map_err(D::Error::custom)?;
    Ok(level)
}
