//! Integration tests: one binary, so that they link once.

// `cfg(test)` holds anyway; it tells clippy that what helpers do is done in tests.
#[cfg(test)]
mod config;
