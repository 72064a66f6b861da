//! auditferry.

pub mod backoff;
pub mod batch;
pub mod canonical;
pub mod chunk;
pub mod component;
pub mod compress;
pub mod dead_letter;
pub mod decode;
pub mod event;
pub mod format;
pub mod generate;
pub mod http;
pub mod input;
pub mod json;
pub mod metrics;
pub mod output;
pub mod secret;
pub mod state;
pub mod status;
pub mod template;
pub mod time;
pub mod units;
