//! The recipes for collectors without an output of their own: each is checked, and sends through itself.

use std::path::Path;

use toml::{Table, Value};

use crate::support::collector::{Collector, Protocol};
use crate::support::place::{ONCE, deliver};
use crate::support::process::{SECRET, repository, run};

/// What a recipe must send: in which protocol, where to, with which header.
const RECIPES: [(&str, Protocol, &str, &str, &str); 6] = [
    ("axiom", Protocol::Hec, "/services/collector/event", "authorization", "Splunk "),
    ("cortex-xsiam", Protocol::Any, "/logs/v1/event", "authorization", ""),
    ("cribl", Protocol::Hec, "/services/collector/event", "authorization", "Splunk "),
    ("crowdstrike-logscale", Protocol::Hec, "/services/collector/event", "authorization", "Splunk "),
    ("new-relic", Protocol::Otlp, "/v1/logs", "api-key", ""),
    ("openobserve", Protocol::Hec, "/services/collector/event", "authorization", "Splunk "),
];

/// Puts the files and addresses of the test in place of the recipe's, and leaves everything else as it is.
fn at_home(recipe: &mut Value, collector: &str) {
    let Value::Table(table) = recipe else { return };
    if table.contains_key("file") {
        *table = Table::from_iter([("env".to_owned(), Value::from("TOKEN"))]);
        return;
    }
    for (key, value) in table.iter_mut() {
        match value.as_str() {
            Some(url) if key == "url" && url.starts_with("s3://") => *value = "bucket".into(),
            Some(url) if key == "url" => {
                let path = url.split_once("://").unwrap().1.split_once('/').map_or("", |(_, path)| path);
                *value = format!("{collector}/{path}").into();
            }
            Some(_) if key == "state_dir" => *value = "state".into(),
            _ => at_home(value, collector),
        }
    }
}

async fn try_out(name: &str, protocol: Protocol, path: &str, header: &str, scheme: &str) {
    let collector = Collector::start(protocol).await;
    let text = std::fs::read_to_string(repository("config/recipes").join(format!("{name}.toml"))).unwrap();
    let mut recipe: Value = toml::from_str(&text).unwrap();
    at_home(&mut recipe, collector.url());
    recipe["inputs"]["audit"].as_table_mut().unwrap().remove("s3");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.toml"), toml::to_string(&recipe).unwrap()).unwrap();
    deliver(directory.path(), "a", &[1, 2, 3]);
    let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert!(!checked.stderr.contains("warning"), "{name}: {}", checked.stderr);
    run(&ONCE, directory.path()).with(0);
    let ids = collector.ids();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 36), "{name}: {ids:?}");
    for request in collector.requests() {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", path), "{name}");
        assert_eq!(request.header(header), Some(format!("{scheme}{SECRET}").as_str()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recipe_delivers_to_a_collector_that_speaks_as_it_says() {
    let files = std::fs::read_dir(repository("config/recipes")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let stems: Vec<_> = files.iter().map(|path: &std::path::PathBuf| path.file_stem().unwrap()).collect();
    assert_eq!(stems, RECIPES.map(|(name, ..)| Path::new(name).as_os_str()), "each one is tried");
    for (name, protocol, path, header, scheme) in RECIPES {
        try_out(name, protocol, path, header, scheme).await;
    }
}
