//! A directory with a configuration, a bucket that grows, and what came out of it.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::process::repository;

/// A directory with a configuration file; `{samples}` in it is the sample bucket.
pub(crate) fn configured(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_config(directory.path(), text);
    directory
}

pub(crate) fn write_config(directory: &Path, text: &str) {
    let samples = repository("samples/delivery");
    let text = text.replace("{samples}", &samples.display().to_string());
    std::fs::write(directory.join("a.toml"), text).unwrap();
}

pub(crate) const ONCE: [&str; 4] = ["run", "--once", "--config", "a.toml"];

pub(crate) const RUN: [&str; 3] = ["run", "--config", "a.toml"];

pub(crate) fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A bucket that grows, to a file, without a server.
pub(crate) fn growing(output: &str) -> TempDir {
    let directory = configured(&format!(
        "state_dir = \"state\"\nserver.listen = \"none\"\n\
         [inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\n\
         [outputs.out]\n{output}\n"
    ));
    deliver(directory.path(), "first", &[1]);
    directory
}

/// Puts an object with these records into the growing bucket.
pub(crate) fn deliver(directory: &Path, object: &str, numbers: &[u32]) {
    let text: String = numbers.iter().map(|number| record(*number) + "\n").collect();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let folder = directory.join(format!("bucket/workspaceId=7/date={date}"));
    std::fs::create_dir_all(&folder).unwrap();
    let hidden = folder.join(format!(".{object}.partial"));
    std::fs::write(&hidden, text).unwrap();
    std::fs::rename(hidden, folder.join(format!("auditlogs_{object}.json"))).unwrap();
}

pub(crate) fn record(number: u32) -> String {
    format!(
        r#"{{"version":"2.0","timestamp":{},"serviceName":"jobs","actionName":"create","requestId":"request-{number}","requestParams":{{}}}}"#,
        1_767_609_296_123_u64 + u64::from(number)
    )
}

pub(crate) fn request_ids<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    events.into_iter().map(|event| event["request_id"].as_str().unwrap().to_owned()).collect()
}
