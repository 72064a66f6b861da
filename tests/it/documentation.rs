//! What the README and the pages in `docs` say, held against the software: configurations, names, links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use auditferry::config::Config;
use auditferry::metrics::Metrics;

use crate::support::place::configured;
use crate::support::process::{repository, run};

/// The README and all pages of `docs`, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = std::fs::read_dir(repository("docs")).unwrap().map(|entry| entry.unwrap().path());
    let paths = docs.chain([repository("README.md")]);
    paths.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of TOML in a page.
fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

#[test]
fn every_configuration_in_the_documentation_loads() {
    let mut loaded = 0;
    for (path, page) in pages() {
        // For each page anew: what is to be added needs something above it.
        let directory = tempfile::tempdir().unwrap();
        let (whole, added) = (directory.path().join("whole.toml"), directory.path().join("added.toml"));
        for block in blocks(&page) {
            let mut files = vec![whole.clone()];
            if block.starts_with("# add to the above\n") {
                std::fs::write(&added, block).unwrap();
                files.push(added.clone());
            } else {
                std::fs::write(&whole, block).unwrap();
            }
            if let Err(errors) = Config::load(&files, &BTreeMap::new()) {
                panic!("{}: {errors}\n{block}", path.display());
            }
            loaded += 1;
        }
    }
    assert!(loaded > 20, "{loaded}");
}

#[test]
fn the_configuration_of_the_readme_is_one() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    // By hand there is no systemd that hands over a credential.
    let text = blocks(&readme).next().unwrap().replace("{ credential = ", "{ file = ");
    // Whoever tests need not be allowed to write to the default one.
    let directory = configured(&text.replace("/var/lib/auditferry", "state"));
    std::fs::write(directory.path().join("hec-token"), "token\n").unwrap();
    let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert!(checked.stdout.contains("audit -> splunk"), "{checked:?}");
    assert!(!(checked.stdout + &checked.stderr).contains("warning"));
}

#[test]
fn the_documentation_names_every_metric_there_is() {
    let page = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
    let metrics = Metrics::new().unwrap();
    metrics.pipeline("in", "out").dead_letter("rejected");
    let text = metrics.render().unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE auditferry_")?.split(' ').next());
    let missing: Vec<_> = names.filter(|name| !page.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_documentation_the_alerts_and_the_dashboard_name_no_metric_that_there_is_not() {
    let golden = std::fs::read_to_string(repository("tests/golden/metrics.txt")).unwrap();
    let names: BTreeSet<_> =
        golden.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let of_histogram = |name: &str| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| name.strip_suffix(end).is_some_and(|name| names.contains(name)))
    };
    let packaged = ["packaging/prometheus/alerts.yaml", "packaging/grafana/dashboard.json"].map(repository);
    let packaged = packaged.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()));
    let mut found = 0;
    for (path, text) in pages().into_iter().chain(packaged) {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in text.split(|c| !part(c)).filter(|word| word.starts_with("auditferry_")) {
            assert!(
                names.contains(name) || of_histogram(name) || name == "auditferry_",
                "{}: {name}",
                path.display()
            );
            found += 1;
        }
    }
    assert!(found > 50, "{found}");
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().to_lowercase();
    let kept = letters.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let mut followed = 0;
    for (path, page) in pages() {
        let links = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("https://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            assert!(heading.is_empty() || anchors(&target).contains(heading), "{}: {link}", path.display());
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed}");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = std::fs::read_to_string(repository("docs/README.md")).unwrap();
    for (path, _) in pages() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name == "README.md" || contents.contains(&format!("({name})")), "{name}");
    }
}
