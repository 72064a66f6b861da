//! The layers of the crate hold: imports point down, a component knows no other, and files stay readable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines that a file may have, its tests not counted.
const LONGEST: usize = 450;
/// Lines that a file of nothing but tests may have.
const LONGEST_TESTS: usize = 550;

const VALUES: &[&str] = &[
    "action",
    "backoff",
    "batch",
    "budget",
    "buffer",
    "canonical",
    "chunk",
    "compress",
    "cores",
    "event",
    "failpoint",
    "json",
    "kept",
    "principal",
    "private",
    "overlap",
    "recent",
    "redact",
    "secret",
    "status",
    "template",
    "time",
    "units",
];
const CONTRACTS: &[&str] = &[
    "aws",
    "azure_identity",
    "azure_token",
    "azure_workspace",
    "component",
    "connection",
    "dead_letter",
    "decode",
    "endpoints",
    "format",
    "http",
    "input",
    "kafka",
    "metrics",
    "output",
    "state",
];
const ENGINE: &[&str] = &["pipeline"];
const ASSEMBLY: &[&str] =
    &["app", "cli", "config", "fuzzing", "generate", "lib", "main", "registry", "server", "simulation"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Values,
    Contracts,
    Components,
    Engine,
    Assembly,
}

/// The modules of the crate, each as its path: `["input", "bucket", "store"]`.
struct Modules(BTreeSet<Vec<String>>);

impl Modules {
    /// Where a path belongs: its layer, and the component where it is one. `None` for what is no module.
    fn place<'a>(&self, path: &'a [String]) -> Option<(Layer, Option<&'a [String]>)> {
        let top = path.first()?.as_str();
        if CONTRACTS.contains(&top) {
            return Some(match path.get(..2) {
                Some(component) if self.0.contains(component) => (Layer::Components, Some(component)),
                _ => (Layer::Contracts, None),
            });
        }
        let layers = [(VALUES, Layer::Values), (ENGINE, Layer::Engine), (ASSEMBLY, Layer::Assembly)];
        layers.into_iter().find(|(tops, _)| tops.contains(&top)).map(|(_, layer)| (layer, None))
    }

    /// What a module may not import, of what it imports.
    fn offences(&self, module: &[String], source: &str) -> Vec<String> {
        let Some((layer, component)) = self.place(module) else {
            return vec![format!("{} has no layer; name it in this test", module.join("::"))];
        };
        let allowed = |path: &Vec<String>| match self.place(path) {
            Some((Layer::Components, other)) if layer == Layer::Components => other == component,
            // The engine knows the traits only.
            Some((Layer::Components, _)) => layer == Layer::Assembly,
            Some((other, _)) => other <= layer,
            None => true,
        };
        let offending = imports(module, source).into_iter().filter(|path| !allowed(path));
        offending.map(|path| format!("{} imports {}", module.join("::"), path.join("::"))).collect()
    }
}

/// The paths below the crate's root that a source names outside of comments and tests.
fn imports(module: &[String], source: &str) -> BTreeSet<Vec<String>> {
    let code: Vec<&str> =
        without_tests(source).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut paths = BTreeSet::new();
    for root in ["crate::", "super::"] {
        for (start, _) in code.match_indices(root) {
            let before = &code[..start];
            let continues = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if continues {
                continue;
            }
            let mut base = if root == "crate::" { Vec::new() } else { module.to_vec() };
            let mut rest = code[start..].strip_prefix("crate::").unwrap_or(&code[start..]);
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            tree(&base, rest, &mut paths);
        }
    }
    paths
}

/// Reads `a::b`, `a::{b, c::d}` and what follows in a list; gives what is left.
fn tree<'a>(base: &[String], mut rest: &'a str, paths: &mut BTreeSet<Vec<String>>) -> &'a str {
    let mut path = base.to_vec();
    loop {
        rest = rest.trim_start();
        if let Some(mut list) = rest.strip_prefix('{') {
            loop {
                list = tree(&path, list, paths).trim_start();
                match list.strip_prefix(',') {
                    Some(after) => list = after,
                    None => return list.strip_prefix('}').unwrap_or(list),
                }
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if !name.is_empty() {
            path.push(name.to_owned());
        }
        match after.strip_prefix("::") {
            Some(deeper) => rest = deeper,
            None => {
                paths.insert(path);
                return after;
            }
        }
    }
}

fn without_tests(source: &str) -> &str {
    source.split_once("#[cfg(test)]\nmod tests").map_or(source, |(code, _)| code)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn module(path: &Path) -> Vec<String> {
    let relative = path.strip_prefix(root()).unwrap().with_extension("");
    relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
}

fn names(path: &str) -> Vec<String> {
    path.split("::").map(str::to_owned).collect()
}

#[test]
fn imports_point_down_and_no_component_knows_another() {
    let sources = sources(&root());
    let modules = Modules(sources.iter().map(|path| module(path)).collect());
    let tests_only = |path: &&PathBuf| !path.ends_with("tests.rs");
    let offences: Vec<String> = sources
        .iter()
        .filter(tests_only)
        .flat_map(|path| modules.offences(&module(path), &std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for path in sources(&root()) {
        let lines = without_tests(&std::fs::read_to_string(&path).unwrap()).lines().count();
        let longest = if path.ends_with("tests.rs") { LONGEST_TESTS } else { LONGEST };
        assert!(lines <= longest, "{} has {lines} lines; split it (at most {longest})", path.display());
    }
}

#[test]
fn every_way_to_write_a_wrong_import_is_found() {
    let modules = Modules(["input::bucket", "input::bucket::store", "output::splunk_hec"].map(names).into());
    for (from, source) in [
        ("json", "use crate::state::State;"),
        ("state", "use crate::{json, pipeline::tracker};"),
        ("input", "use crate::input::bucket::Bucket;"),
        ("input", "use bucket::Bucket; use self::x; fn f() { super::output::splunk_hec::f() }"),
        ("input::bucket", "use crate::output::{Verdict, splunk_hec::SplunkHec};"),
        ("input::bucket::store", "type X = super::super::super::output::splunk_hec::X;"),
        ("input::bucket", "fn f() { crate::pipeline::run() }"),
        ("pipeline", "use crate::{\n    time,\n    input::{self, bucket},\n};"),
        ("pipeline::tracker", "use crate::registry::INPUTS;"),
        ("unheard_of", ""),
    ] {
        assert_eq!(modules.offences(&names(from), source).len(), 1, "{from}: {source}");
    }
    for (from, source) in [
        ("input::bucket", "use crate::input::{Input, Read};\nuse crate::json;"),
        ("input::bucket", "use super::{Input, bucket::store::Store};"),
        ("input::bucket::store", "use crate::input::bucket::Url; use super::Config;"),
        ("state", "// see crate::pipeline\nuse crate::chunk::Note;"),
        ("input::bucket", "#[cfg(test)]\nmod tests {\n    use crate::output::splunk_hec;\n}"),
        ("app", "use crate::{pipeline, input::bucket};"),
    ] {
        assert_eq!(modules.offences(&names(from), source), Vec::<String>::new(), "{from}: {source}");
    }
}
