//! What is said of mistakes, word by word.

use super::{Files, MINIMAL, load};

#[test]
fn every_mistake_is_told_in_one_line_with_file_key_and_remedy() {
    let own = "ack, batch, compression, connection_age, count_overlap, event_original, format, headers, hold_after_refusals, \
               in_flight, index, no_proxy, ocsf_version, proxy, proxy_ca_file, redact, timeout, tls, token, type, url";
    let table = [
        ("indx = \"x\"", format!("outputs.splunk.indx: unknown key; did you mean `index`? (allowed: {own})")),
        ("zzzzzzz = 1", format!("outputs.splunk.zzzzzzz: unknown key (allowed: {own})")),
        (
            "max_bytes = 1",
            format!("outputs.splunk.max_bytes: unknown key; did you mean `batch.max_bytes`? (allowed: {own})"),
        ),
        (
            "batch.max_byte = 1",
            "outputs.splunk.batch.max_byte: unknown key; did you mean `max_bytes`? (allowed: max_age, max_bytes, \
             max_events)"
                .to_owned(),
        ),
        ("ack = \"yes\"", "outputs.splunk.ack: must be true or false".to_owned()),
        ("index = 5", "outputs.splunk.index: must be a text, in quotes".to_owned()),
        ("ack = \"true\"", "outputs.splunk.ack: must be true or false, without quotes".to_owned()),
        ("in_flight = \"8\"", "outputs.splunk.in_flight: must be a whole number, without quotes".to_owned()),
        (
            "state_dir = \"/var/lib/auditferry\"",
            "outputs.splunk.state_dir: belongs to no section: write it at the top of the file, above the first [section]"
                .to_owned(),
        ),
        ("[pipelines]\ninput = \"audit\"", "pipelines: must be a list; write [[pipelines]]".to_owned()),
        ("[redaction]\nnames = \"pin\"", "redaction.names: must be a list, in [ and ]".to_owned()),
        (
            "headers.X-Key = \"${KEY}\"",
            "outputs.splunk.headers.X-Key: nothing is expanded here as in a shell; write { env = \"KEY\" }".to_owned(),
        ),
        (
            "headers.X-Key = { env = \"$KEY\" }",
            "outputs.splunk.headers.X-Key: nothing is expanded here as in a shell; write { env = \"KEY\" }".to_owned(),
        ),
        ("in_flight = 0", "outputs.splunk.in_flight: must be from 1 to 256, not 0".to_owned()),
        ("in_flight = 257", "outputs.splunk.in_flight: must be from 1 to 256, not 257".to_owned()),
        ("batch.max_events = 0", "outputs.splunk.batch.max_events: must be at least 1, not 0".to_owned()),
        (
            "batch.max_bytes = 0",
            "outputs.splunk.batch.max_bytes: must be more than 0, such as \"1MiB\"".to_owned(),
        ),
        (
            "batch.max_age = \"0s\"",
            "outputs.splunk.batch.max_age: must be longer than 0, such as \"1s\"".to_owned(),
        ),
        ("timeout = \"0s\"", "outputs.splunk.timeout: must be longer than 0, such as \"30s\"".to_owned()),
        ("timeout = 30", "outputs.splunk.timeout: must be a text such as \"60s\"".to_owned()),
        (
            "timeout = \"30\"",
            "outputs.splunk.timeout: `30` is not a duration; write for instance \"500ms\", \"60s\", \"5m\" or \"1h\""
                .to_owned(),
        ),
        (
            "compression = \"zstd\"",
            "outputs.splunk.compression: unknown value `zstd` (allowed: gzip, none)".to_owned(),
        ),
        (
            "format = \"exs\"",
            "outputs.splunk.format: unknown value `exs`; did you mean `ecs`? (allowed: canonical, ecs, ocsf, raw, \
             sumo)"
                .to_owned(),
        ),
        (
            "format = \"ECS\"",
            "outputs.splunk.format: unknown value `ECS`; did you mean `ecs`? (allowed: canonical, ecs, ocsf, raw, \
             sumo)"
                .to_owned(),
        ),
        ("batch = 5", "outputs.splunk.batch: must be a table".to_owned()),
        (
            "headers.X-Key = { value = \"hunter2\" }",
            "outputs.splunk.headers.X-Key.value: unknown key (allowed: credential, env, file)".to_owned(),
        ),
        (
            "headers.X-Key = { env = \"A\", file = \"b\" }",
            "outputs.splunk.headers.X-Key: takes one key, not several (env, file)".to_owned(),
        ),
        (
            "headers.X-Key = 5",
            "outputs.splunk.headers.X-Key: must be a text or a table with one of credential, env, file".to_owned(),
        ),
        (
            "[output.x]",
            "output: unknown key; did you mean `outputs`? (allowed: inputs, log, memory, outputs, pipelines, \
             redaction, server, shutdown_grace, state_dir)"
                .to_owned(),
        ),
        (
            "[outputs.x]\ntype = \"splunk\"",
            "outputs.x.type: unknown type `splunk` (allowed: hec)".to_owned(),
        ),
        ("[outputs.x]\nurl = \"\"", "outputs.x.type: is missing (allowed: hec)".to_owned()),
        (
            "[outputs.\"a/b\"]\ntype = \"hec\"",
            "outputs.a/b: a name is made of letters, digits, `_` and `-`".to_owned(),
        ),
        ("[outputs.x]\ntype = \"hec\"\ntoken = \"t\"", "outputs.x.url: is missing: Address of the collector".to_owned()),
        ("[inputs.x]\ntype = \"lake\"", "inputs.x.url: is missing: Address of the lake".to_owned()),
        (
            "[inputs.x]\ntype = \"lake\"\nurl = \"\"\npoll_interval = \"1 fortnight\"",
            "inputs.x.poll_interval: `1 fortnight` is not a duration; write for instance \"500ms\", \"60s\", \"5m\" \
             or \"1h\""
                .to_owned(),
        ),
        (
            "[server]\nlisten = \"9598\"",
            "server.listen: `9598` is not an address with a port; write \"127.0.0.1:9598\", \"0.0.0.0:9598\" or \
             \"none\""
                .to_owned(),
        ),
        (
            "[[pipelines]]\ninput = \"adit\"\noutput = \"splunk\"",
            "pipelines[0].input: there is no input `adit`; did you mean `audit`? (allowed: audit)".to_owned(),
        ),
        (
            "[log]\nlevel = \"info,warning\"",
            "log.level: `warning` is not a level; write error, warn, info, debug, trace or off".to_owned(),
        ),
        (
            "[redaction]\nnames = [\"pin\", \"Kennwörter\"]",
            "redaction.names: `Kennwörter` cannot be looked for: a name has letters from a to z, digits, `_`, `-` and `.`; \
             write what you look for as one of redaction.patterns"
                .to_owned(),
        ),
        ("[[pipelines]]\ninput = \"audit\"", "pipelines[0].output: is missing: Name of an output".to_owned()),
    ];
    for (line, expected) in table {
        let error = match load(line) {
            Ok(config) => config.verify().expect_err(line).to_string(),
            Err(error) => error,
        };
        // Behind the file and the line.
        let error = error.split_once(": ").map_or(error.as_str(), |(_, rest)| rest).to_owned();
        assert_eq!(error, expected, "for {line}");
    }
}

#[test]
fn a_configuration_without_input_or_output_is_told_what_to_add() {
    let load = |text: &str| Files::new(&[("a.toml", text)]).load(&["a.toml"], &[]);
    let error = load("memory = 0\n[inputs.audit]\ntype = \"lake\"\nurl = \"lake:\"").unwrap_err();
    assert_eq!(
        error,
        "a.toml: outputs: no output is configured; add [outputs.NAME] with a type (hec)\n\
         a.toml:1: memory: must be more than 0 and at most 4GiB, such as \"32MiB\""
    );
    let error = load("[[pipelines]]\ninput = \"audit\"\noutput = \"splunk\"").unwrap_err();
    assert!(
        error.starts_with("a.toml: inputs: no input is configured; add [inputs.NAME] with a type (lake)"),
        "{error}"
    );
}

#[test]
fn a_configuration_of_neither_input_nor_output_ships_nothing_and_says_so() {
    let config = Files::new(&[("a.toml", "memory = \"1MiB\"")]).load(&["a.toml"], &[]).unwrap();
    assert!(config.is_empty() && config.pipelines.is_empty());
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    let told = "nothing is configured to be shipped: add one of the `inputs` and one of the `outputs` to ";
    assert!(warning.starts_with(told) && warning.ends_with("a.toml, then reload the service"), "{warning}");
}

#[test]
fn all_mistakes_are_told_at_once_and_each_only_once() {
    let text = r#"
memory = true
shutdown_grace = "soon"
[inputs.audit]
type = "lake"
url = "lake:"
days = -1
poll_interval = "never"
[outputs.splunk]
type = "hec"
indx = "x"
timeout = "later"
[outputs.second]
type = "hec"
url = "https://splunk"
token = { env = "AUDITFERRY_NO_SUCH_VARIABLE" }
headers = { a = "b" }
tls.ca = "x"
"#;
    let error = Files::new(&[("a.toml", text)]).load(&["a.toml"], &[]).unwrap_err();
    let keys: Vec<_> = error.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        keys,
        [
            "memory",
            "inputs.audit.days",
            "outputs.second.tls.ca",
            "outputs.splunk.url",
            "outputs.splunk.token",
            "outputs.splunk.indx",
            "outputs.splunk.timeout",
            "shutdown_grace",
            "inputs.audit.poll_interval",
            "outputs.second.token",
        ],
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_told_with_its_line_and_without_its_text() {
    let files = Files::new(&[("a.toml", "[outputs.splunk]\ntoken = \"hunter2\" hunter3\n")]);
    let error = files.load(&["a.toml", "none.toml"], &[]).unwrap_err();
    let lines: Vec<_> = error.lines().collect();
    assert!(lines[0].starts_with("a.toml:2: "), "{error}");
    assert!(!error.contains("hunter"), "{error}");
    assert!(lines[1].starts_with("none.toml: cannot read the file: "), "{error}");
    assert!(lines[1].ends_with("create it, or name another with --config"), "{error}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_section_that_is_no_table_is_told_once_and_a_number_that_is_too_long_without_its_digits() {
    let files = Files::new(&[
        ("a.toml", "inputs = 3\n[outputs]\nsplunk = true\n"),
        ("b.toml", "token = 99999999999999999999"),
    ]);
    let error = files.load(&["a.toml"], &[]).unwrap_err();
    assert_eq!(error, "a.toml:1: inputs: must be a table\na.toml:3: outputs.splunk: must be a table");
    let error = files.load(&["b.toml"], &[]).unwrap_err();
    assert_eq!(error, "b.toml: holds a number of more than 64 bits; quote it");
}

#[test]
fn a_mistake_is_told_with_its_line_and_a_missing_key_with_that_of_its_section() {
    let text = "
[inputs.audit]
type = \"lake\"
url = \"lake:\"
days = -1

[outputs.splunk]
type = \"hec\"
token = \"hunter2\"
batch = {
    max_events = 0 }
headers = { a = \"b\", b = 5 }

[[pipelines]]
input = \"audit\"
output = \"splunk\"
[[pipelines]]
input = \"adit\"
output = \"splunk\"
";
    let files = Files::new(&[("a.toml", text), ("b.toml", "outputs.splunk.index = 5\nmemory = true")]);
    let error = files.load(&["a.toml", "b.toml"], &[("AUDITFERRY__SHUTDOWN_GRACE", "soon")]).unwrap_err();
    let places: Vec<_> =
        error.lines().map(|line| line.splitn(3, ": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "b.toml:2 memory",
            "a.toml:5 inputs.audit.days",
            "a.toml:7 outputs.splunk.url",
            "a.toml:11 outputs.splunk.batch.max_events",
            "a.toml:12 outputs.splunk.headers.b",
            "b.toml:1 outputs.splunk.index",
            "environment shutdown_grace",
            "a.toml:18 pipelines[1].input",
        ],
        "{error}"
    );
}

#[test]
fn the_environment_alone_is_told_what_is_missing() {
    let error = Files::new(&[]).load(&[], &[("AUDITFERRY__INPUTS__AUDIT__URL", "lake:")]).unwrap_err();
    assert_eq!(
        error,
        "environment: inputs.audit.type: is missing (allowed: lake)\n\
         environment: outputs: no output is configured; add [outputs.NAME] with a type (hec)"
    );
}

#[test]
fn memory_is_bounded_by_what_the_budget_can_count() {
    for memory in ["0", "\"5GiB\""] {
        let files = Files::new(&[("a.toml", &format!("memory = {memory}\n{MINIMAL}"))]);
        let error = files.load(&["a.toml"], &[]).unwrap_err();
        assert_eq!(error, "a.toml:1: memory: must be more than 0 and at most 4GiB, such as \"32MiB\"");
    }
}

#[test]
fn a_batch_that_the_collector_would_never_take_is_refused_at_the_start() {
    let batch = |keys: &str| {
        let files = Files::new(&[("a.toml", &format!("{MINIMAL}\n{keys}"))]);
        files.load(&["a.toml"], &[])
    };
    let error = batch("batch = { max_bytes = \"2GiB\", max_events = 2001 }").unwrap_err();
    assert_eq!(
        error,
        "a.toml:10: outputs.splunk.batch.max_bytes: must be at most \"1GiB\": it takes no more\n\
         a.toml:10: outputs.splunk.batch.max_events: must be at most 2000: it takes no more"
    );
    assert!(batch("batch = { max_bytes = \"1GiB\", max_events = 2000 }").is_ok());
}
