//! A configuration is read, or refused in lines that name a key and repeat no secret.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use crate::config::{Config, describe};
use crate::template::Template;
use crate::units::{ByteSize, Period};

/// What stands for a secret in the corpus: no message may repeat it.
const SECRET: &str = "hunter2hunter2";

/// `data`: a file, which may be no TOML.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    values(text);
    let Ok(mut file) = tempfile() else { return };
    file.1.write_all(data).unwrap();
    let loaded = Config::load(std::slice::from_ref(&file.0), &BTreeMap::new());
    std::fs::remove_file(&file.0).unwrap();
    match loaded {
        Ok(config) => {
            assert!(!config.pipelines.is_empty() || config.inputs.is_empty() || config.outputs.is_empty());
            let described = describe(&config);
            assert!(!described.contains(SECRET) && !format!("{config:?}").contains(SECRET), "{described}");
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                let line = error.to_string();
                assert!(!line.chars().any(char::is_control), "more than a line: {line:?}");
                assert!(!line.contains(SECRET) || !only_secret(text), "{line}");
            }
        }
    }
}

/// True where the secret stands nowhere but under keys of secrets: anywhere else a message may repeat it.
fn only_secret(text: &str) -> bool {
    let under = ["token = \"", "api_key = \"", "password = \""];
    text.match_indices(SECRET).all(|(at, _)| under.iter().any(|key| text[..at].ends_with(key)))
}

/// Single values, as they are written.
fn values(text: &str) {
    let quoted = serde_json::to_string(text).unwrap();
    if let Ok(ByteSize(bytes)) = serde_json::from_str(&quoted) {
        let again = serde_json::to_string(&ByteSize(bytes)).unwrap();
        assert_eq!(serde_json::from_str::<ByteSize>(&again).unwrap().0, bytes);
    }
    if let Ok(Period(length)) = serde_json::from_str::<Period>(&quoted)
        && length < Duration::from_secs(1 << 40)
    {
        let again = serde_json::to_string(&Period(length)).unwrap();
        assert_eq!(serde_json::from_str::<Period>(&again).unwrap().0, length);
    }
    if let Ok(template) = Template::parse(text) {
        assert_eq!(template.as_str(), text);
    }
}

fn tempfile() -> std::io::Result<(std::path::PathBuf, std::fs::File)> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("auditferry-fuzzing-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{number}.toml"));
    Ok((path.clone(), std::fs::File::create(path)?))
}
