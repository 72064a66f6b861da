//! The other commands as a user types them: what they print, and how they end.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::place::{ONCE, configured, growing, json_lines, record, request_ids, write_config};
use crate::support::process::{Process, SECRET, run, shell};

/// One sentence on stderr, after the program's name.
fn only_complaint(stderr: &str) -> &str {
    let line = stderr.strip_prefix("auditferry: ").unwrap_or_else(|| panic!("{stderr}"));
    let line = line.trim_end();
    assert!(!line.contains('\n'), "{stderr}");
    line
}

#[test]
fn check_prints_the_pipelines_and_no_secret() {
    let directory = configured(
        "state_dir = \"state\"\n[inputs.audit]\ntype = \"bucket\"\nurl = \"{samples}\"\n\
         [outputs.splunk]\ntype = \"splunk_hec\"\nurl = \"https://splunk.example:8088\"\ntoken = { env = \"TOKEN\" }\n\
         [outputs.sumo]\ntype = \"sumo\"\nurl = \"https://collector.example/receiver/v1/http/hunter2-is-not-printed\"\n",
    );
    let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert!(checked.stdout.contains("  audit -> splunk\n  audit -> sumo\n"), "{}", checked.stdout);
    assert!(checked.stdout.contains("{samples}") || checked.stdout.contains("samples/delivery"));
    assert!(!checked.stdout.contains(SECRET) && !checked.stderr.contains(SECRET), "{checked:?}");
    assert!(!directory.path().join("state").exists(), "check leaves nothing behind");
}

#[test]
fn check_and_run_refuse_a_state_directory_that_cannot_be_used_in_the_same_words() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    for place in ["file/state", "/proc/none", "file"] {
        write_config(directory.path(), &text.replace("\"state\"", &format!("{place:?}")));
        let refused = |command: &[&str]| run(command, directory.path()).with(2).stderr;
        let (checked, ran) = (refused(&["check", "--config", "a.toml"]), refused(&ONCE));
        assert!(
            only_complaint(&checked).starts_with(&format!("cannot use state_dir {place}: ")),
            "{checked}"
        );
        assert_eq!(only_complaint(&checked), ran.lines().last().unwrap().trim_start_matches("auditferry: "));
    }
    write_config(directory.path(), &text.replace("\"state\"", "\"deep/er/state\""));
    run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert!(!directory.path().join("deep").exists(), "nothing is left");

    let state = directory.path().join("deep/er/state");
    let names = || {
        let entries = std::fs::read_dir(&state).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    run(&ONCE, directory.path()).with(0);
    let before = names();
    run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert_eq!(names(), before);
    std::fs::remove_file(state.join("lock")).unwrap();
    std::fs::create_dir(state.join("lock")).unwrap();
    let refused = run(&["check", "--config", "a.toml"], directory.path()).with(2).stderr;
    assert!(only_complaint(&refused).contains("Is a directory"), "{refused}");
}

#[test]
fn check_warns_of_the_tables_that_are_never_exported() {
    let input = "state_dir = \"state\"\n[inputs.audit]\ntype = \"bucket\"\nurl = \"bucket\"\nlayout = \"log_analytics_export\"\n";
    let directory = configured(&format!("{input}[outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n"));
    std::fs::create_dir_all(directory.path().join("bucket")).unwrap();
    let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0);
    let printed = checked.stdout + &checked.stderr;
    let warning = "inputs.audit.layout: Log Analytics takes export rules for the tables DatabricksSQL and DatabricksDatabricksSQL";
    assert!(printed.contains(warning), "{printed}");
}

#[test]
fn each_mistake_is_one_line_with_file_key_and_remedy() {
    let input = "[inputs.in]\ntype = \"bucket\"\nurl = \"{samples}\"\n";
    let splunk = "[outputs.o]\ntype = \"splunk_hec\"\nurl = \"https://splunk.example:8088\"\n";
    let token = "token = { env = \"TOKEN\" }\n";
    for (text, expected) in [
        (
            format!("{input}{splunk}{token}indx = \"a\"\n"),
            "a.toml:8: outputs.o.indx: unknown key; did you mean `index`?",
        ),
        (format!("{input}{splunk}{token}ack = \"yes\"\n"), "a.toml:8: outputs.o.ack: must be true or false"),
        (format!("{input}{splunk}"), "a.toml:4: outputs.o.token: is missing"),
        (format!("{input}{splunk}token = {{ env = \"NO_SUCH\" }}\n"), "outputs.o.token"),
        (format!("{input}{splunk}token = {{ file = \"no/such\" }}\n"), "outputs.o.token"),
        (format!("{input}{splunk}{token}poll = \n"), "a.toml:8: "),
        (splunk.to_owned() + token, "a.toml: inputs: "),
    ] {
        let directory = configured(&text);
        for command in [&["check", "--config", "a.toml"][..], &ONCE] {
            let ended = run(command, directory.path()).with(2);
            let line = only_complaint(&ended.stderr);
            assert!(line.contains(expected), "{line}\n{text}");
            assert!(ended.stdout.is_empty(), "{}", ended.stdout);
        }
    }
}

#[test]
fn a_secret_that_a_service_cannot_read_is_told_with_how_to_hand_it_over() {
    let directory = configured(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"{samples}\"\n\
         [outputs.o]\ntype = \"splunk_hec\"\nurl = \"https://splunk.example:8088\"\ntoken = { file = \"no/hec-token\" }\n",
    );
    let refused = |environment: &[(&str, &str)]| {
        Process::start_with(&["check", "--config", "a.toml"], directory.path(), environment)
            .end()
            .with(2)
            .stderr
    };
    let advice = "; or hand it over with LoadCredential=hec-token:no/hec-token and write { credential = \"hec-token\" }";
    let by_hand = refused(&[]);
    assert!(
        by_hand.contains("cannot read the secret file no/hec-token: ") && !by_hand.contains("LoadCredential")
    );
    for variable in ["INVOCATION_ID", "NOTIFY_SOCKET"] {
        let managed = refused(&[(variable, "x")]);
        assert!(only_complaint(&managed).ends_with(advice), "{managed}");
    }
}

#[test]
fn a_variable_of_one_underscore_is_warned_of() {
    let directory = configured(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"{samples}\"\n[outputs.out]\ntype = \"file\"\npath = \"-\"\n",
    );
    let variables = [("AUDITFERRY_STATE_DIR", "/x"), ("AUDITFERRY__MEMORY", "1MiB")];
    let checked =
        Process::start_with(&["check", "--config", "a.toml"], directory.path(), &variables).end().with(0);
    assert!(
        checked.stdout.contains("warning: environment: AUDITFERRY_STATE_DIR does nothing; "),
        "{checked:?}"
    );
    assert!(
        checked.stdout.contains("state: state\n") && checked.stdout.contains("memory: 1MiB"),
        "{checked:?}"
    );
    // It does not stand for a configuration where there is none.
    let none = Process::start_with(&["check"], directory.path(), &variables[..1]).end().with(2).stderr;
    assert!(only_complaint(&none).starts_with("/etc/auditferry/auditferry.toml: cannot read"), "{none}");
}

#[test]
fn a_missing_configuration_file_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(&ONCE, directory.path()).with(2);
    let line = only_complaint(&ended.stderr);
    assert!(line.starts_with("a.toml: ") && line.contains("--config"), "{line}");
    let ended = run(&["run", "--once"], directory.path()).with(2);
    assert!(
        only_complaint(&ended.stderr).starts_with("/etc/auditferry/auditferry.toml: "),
        "{}",
        ended.stderr
    );
}

#[test]
fn simulate_tells_which_lines_are_no_records_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{}\nnot json\n\n{}\n", record(1), record(2));
    std::fs::write(directory.path().join("x.json"), text).unwrap();
    let ended = run(&["simulate", "x.json"], directory.path()).with(1);
    assert_eq!(request_ids(&json_lines(&ended.stdout)), ["request-1", "request-2"]);
    assert!(ended.stderr.starts_with("x.json:2: the record is not JSON"), "{}", ended.stderr);
    let ended = run(&["simulate", "no/such.json"], directory.path()).with(2);
    assert!(only_complaint(&ended.stderr).starts_with("cannot read no/such.json: "), "{}", ended.stderr);
}

#[test]
fn simulate_takes_the_workspace_from_a_delivered_path() {
    let directory = growing("type = \"file\"\npath = \"-\"");
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let path = format!("bucket/workspaceId=7/date={date}/auditlogs_first.json");
    let workspace = |arguments: &[&str]| {
        let printed =
            run(&[&["simulate", path.as_str()], arguments].concat(), directory.path()).with(0).stdout;
        json_lines(&printed)[0]["workspace_id"].clone()
    };
    assert_eq!(workspace(&[]), Value::Null);
    assert_eq!(workspace(&["--layout", "databricks_delivery"]), "7");
}

#[test]
fn simulate_with_a_configuration_prints_what_its_run_sends() {
    let output = "type = \"file\"\npath = \"out.ndjson\"\nformat = \"ocsf\"\nocsf_version = \"1.5.0\"";
    let directory =
        growing(&format!("{output}\n[redaction]\nnames = [\"badge\"]\npatterns = [\"ACME-[0-9]+\"]"));
    let text = record(1).replace(
        "\"requestParams\":{}",
        r#""requestParams":{"badge":"b-17","note":"ACME-4711","password":"hunter3"}"#,
    );
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let path = format!("bucket/workspaceId=7/date={date}/auditlogs_first.json");
    std::fs::write(directory.path().join(&path), text).unwrap();
    let simulate = |arguments: &[&str]| {
        let all = [&["simulate", path.as_str(), "--config", "a.toml"], arguments].concat();
        let layout = ["--layout", "databricks_delivery"];
        run(&[&all[..], &layout].concat(), directory.path())
    };
    let marks = |text: &str| -> Vec<String> {
        text.split("[redacted:").skip(1).map(|rest| rest.split(']').next().unwrap().to_owned()).collect()
    };
    let before = simulate(&[]).with(0).stdout;
    assert_eq!(marks(&before).len(), 3, "{before}");
    assert!(!directory.path().join("state").exists(), "no key is made");

    run(&ONCE, directory.path()).with(0);
    let sent = std::fs::read_to_string(directory.path().join("out.ndjson")).unwrap();
    let simulated = simulate(&[]).with(0).stdout;
    assert_eq!(marks(&simulated), marks(&sent), "of the same key");
    assert_ne!(marks(&simulated), marks(&before));
    let (simulated, sent) = (&json_lines(&simulated)[0], &json_lines(&sent)[0]);
    assert_eq!(simulated["metadata"]["version"], "1.5.0");
    let mut without_object = sent.clone();
    without_object["unmapped"].as_object_mut().unwrap().remove("_source");
    assert_eq!(*simulated, without_object);

    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    let second = "[outputs.second]\ntype = \"splunk_hec\"\nurl = \"https://splunk.example:8088\"\ntoken = { file = \"none\" }\n";
    let keyed = text.replace("[redaction]\n", "[redaction]\nkey = \"another\"\n");
    write_config(directory.path(), &format!("{keyed}\n{second}redact = false\n"));
    let unnamed = simulate(&[]).with(2).stderr;
    assert_eq!(only_complaint(&unnamed), "name one of the outputs: --output out | second");
    let unknown = simulate(&["--output", "thrid"]).with(2).stderr;
    assert!(unknown.contains("outputs.thrid: there is no such output"), "{unknown}");
    let plain = simulate(&["--output", "second"]).with(0).stdout;
    assert!(plain.contains("hunter3") && plain.contains("ACME-4711"), "as the collector gets it: {plain}");
    let another = simulate(&["--output", "out"]).with(0).stdout;
    assert!(!another.contains("hunter3"));
    assert_ne!(marks(&another), marks(&sent.to_string()), "of the key that is configured");
    let both = simulate(&["--format", "ecs"]).with(2).stderr;
    assert!(both.contains("--format"), "{both}");
}

#[test]
fn simulate_reads_a_document_over_several_lines_and_compressed_files() {
    let directory = tempfile::tempdir().unwrap();
    let envelope: Value =
        serde_json::from_str(&format!("{{\"records\":[{},{}]}}", record(1), record(2))).unwrap();
    std::fs::write(directory.path().join("x.json"), format!("{envelope:#}")).unwrap();
    let packed = zstd::encode_all(record(3).as_bytes(), 1).unwrap();
    std::fs::write(directory.path().join("y.json"), packed).unwrap();
    let printed = run(&["simulate", "x.json", "y.json"], directory.path()).with(0).stdout;
    assert_eq!(request_ids(&json_lines(&printed)), ["request-1", "request-2", "request-3"]);
}

#[test]
fn what_is_made_for_other_programs_is_what_they_expect() {
    let directory = tempfile::tempdir().unwrap();
    let printed = |arguments: &[&str]| run(arguments, directory.path()).with(0).stdout;
    let schema: Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    assert!(schema["$schema"].is_string());
    toml::from_str::<toml::Table>(&printed(&["schema", "--reference"])).unwrap();
    let catalog = printed(&["catalog"]);
    for name in ["bucket", "splunk_hec", "sumo", "elastic", "http", "file", "canonical", "ecs", "ocsf", "raw"]
    {
        assert!(catalog.contains(&format!("\n  {name} ")), "{name}: {catalog}");
    }
    assert!(printed(&["completions", "bash"]).contains("complete -F _auditferry"));
    let page = printed(&["man"]);
    assert!(
        page.starts_with(".ie") && page.contains("\n.SH FILES\n") && page.contains("\n.SH SIGNALS\n"),
        "{page}"
    );
    printed(&["man", "--all", "new/man1"]);
    let written = |name: &str| std::fs::read_to_string(directory.path().join("new/man1").join(name)).unwrap();
    assert_eq!(written("auditferry.1"), page);
    assert!(written("auditferry-dead-letters-replay.1").contains(r#""auditferry 0."#));
    let run = written("auditferry-run.1");
    assert!(run.contains("\n.SH NOTES\nExit codes: 0 done"), "{run}");
    let mark = |line: &str| line.ends_with("(not in this build)");
    let marked: Vec<_> = catalog.lines().filter(|line| mark(line)).map(|line| &line[2..15]).collect();
    let version = printed(&["--version"]);
    assert!(version.starts_with("auditferry 0."), "{version}");
    if cfg!(feature = "kafka") {
        assert!(marked.is_empty() && version.contains("kafka)"), "{marked:?}, {version}");
    } else {
        assert_eq!(marked, ["event_hubs   ", "kafka        ", "kafka        "]);
        assert!(!version.contains("kafka") && version.contains(" (features: "), "{version}");
    }
}

#[test]
fn a_type_that_this_build_lacks_is_told_instead_of_its_missing_keys_and_secrets() {
    let lacks =
        |path: &str| format!(": {path}.type: this build has no Kafka client: build with --features kafka");
    for keys in ["", "topics = [\"t\"]\nconnection_string = { file = \"none\" }", "indx = 1"] {
        let directory = configured(&format!(
            "[inputs.hub]\ntype = \"event_hubs\"\n{keys}\n[outputs.out]\ntype = \"file\"\npath = \"-\"\n"
        ));
        let refused = run(&["check", "--config", "a.toml"], directory.path()).with(2).stderr;
        match cfg!(feature = "kafka") {
            true => assert!(!refused.contains("no Kafka client"), "{refused}"),
            false => assert!(only_complaint(&refused).contains(&lacks("inputs.hub")), "{refused}"),
        }
    }
    let bucket = "[inputs.in]\ntype = \"bucket\"\nurl = \"{samples}\"\n";
    let directory = configured(&format!("{bucket}[outputs.out]\ntype = \"kafka\"\nsasl = 7\n"));
    let refused = run(&["check", "--config", "a.toml"], directory.path()).with(2).stderr;
    if cfg!(not(feature = "kafka")) {
        assert!(only_complaint(&refused).contains(&lacks("outputs.out")), "{refused}");
    }
}

#[test]
fn help_without_a_command_ends_with_2_and_says_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(&[], directory.path()).with(2);
    assert!(ended.stderr.contains("dead-letters"), "{}", ended.stderr);
}

#[test]
fn a_closed_output_is_no_error_to_tell() {
    let directory = tempfile::tempdir().unwrap();
    run(&["generate", "--out", "bucket", "--events", "2000", "--objects-per-day", "1"], directory.path())
        .with(0);
    for command in ["simulate bucket/*/*/*.json", "completions bash", "man", "schema --reference"] {
        let stderr = shell(&format!("$BINARY {command} | head -c 1 >/dev/null"), directory.path());
        assert_eq!(stderr, "", "{command}");
    }
}

#[test]
fn a_wrong_level_and_an_unwritable_place_are_explained() {
    let directory = growing("type = \"file\"\npath = \"-\"");
    let ended =
        run(&["--log-level", "loud", "run", "--once", "--config", "a.toml"], directory.path()).with(2);
    let expected = "log.level: `loud` is not a level; write error, warn, info, debug, trace or off";
    assert_eq!(only_complaint(&ended.stderr), expected);
    let ended = run(&["generate", "--out", "a.toml"], directory.path()).with(2);
    let line = only_complaint(&ended.stderr);
    assert!(line.starts_with("cannot write a.toml/") && line.contains("Not a directory"), "{line}");
}

const ELASTIC: &str = "[inputs.audit]\ntype = \"bucket\"\nurl = \"s3://acme-audit/logs\"\n\
                       [outputs.search]\ntype = \"elastic\"\napi_key = { env = \"TOKEN\" }\nproxy = \"none\"\n";

#[test]
fn setup_prints_the_calls_and_makes_none() {
    let directory = configured(&format!("{ELASTIC}url = \"http://127.0.0.1:9\"\n"));
    let setup = ["setup", "elastic", "--config", "a.toml"];
    let printed = run(&setup, directory.path()).with(0).stdout;
    let calls: Vec<_> = printed.split("\nPUT ").skip(1).collect();
    assert_eq!(calls.len(), 2, "{printed}");
    for (call, path) in calls
        .iter()
        .zip(["/_component_template/databricks-audit-canonical", "/_index_template/databricks-audit"])
    {
        let (line, body) = call.split_once('\n').unwrap();
        assert_eq!(line, path);
        assert!(serde_json::from_str::<Value>(body).unwrap().is_object());
    }
    assert!(printed.contains("\"flattened\"") && !printed.contains(SECRET), "{printed}");
    let stream = run(&[&setup[..], &["--product", "opensearch", "--data-stream"]].concat(), directory.path());
    let stream = stream.with(0).stdout;
    assert!(stream.contains("\"flat_object\"") && stream.contains("\"data_stream\": {}"), "{stream}");
}

#[test]
fn setup_asks_which_output_is_meant() {
    let second = "[outputs.second]\ntype = \"elastic\"\nurl = \"https://es\"\n";
    let directory = configured(&format!("{ELASTIC}url = \"https://es\"\n{second}"));
    let setup = ["setup", "elastic", "--config", "a.toml"];
    let complaint = run(&setup, directory.path()).with(2).stderr;
    assert!(only_complaint(&complaint).ends_with("--output search | second"), "{complaint}");
    run(&[&setup[..], &["--output", "second"]].concat(), directory.path()).with(0);
    let directory = configured(&format!("{ELASTIC}url = \"https://es\"\nformat = \"raw\"\n"));
    let complaint = run(&setup, directory.path()).with(2).stderr;
    assert!(only_complaint(&complaint).contains("outputs.search.format"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_installs_what_fits_the_server_that_answers() {
    for (version, kind) in [
        (r#"{"version":{"number":"8.17.0"}}"#, "flattened"),
        (r#"{"version":{"distribution":"opensearch","number":"2.19.3"}}"#, "flat_object"),
    ] {
        let collector = Collector::start(Protocol::Any).await;
        collector.want_authorization(&format!("ApiKey {SECRET}"));
        collector.push(Step::answer(200, version));
        let directory = configured(&format!("{ELASTIC}url = \"{}\"\n", collector.url()));
        run(&["setup", "elastic", "--apply", "--config", "a.toml"], directory.path()).with(0);
        let requests = collector.requests();
        let asked: Vec<_> =
            requests.iter().map(|request| (request.method.as_str(), request.path.as_str())).collect();
        let component = "/_component_template/databricks-audit-canonical";
        let expected = [("GET", "/"), ("PUT", component), ("PUT", "/_index_template/databricks-audit")];
        assert_eq!(asked, expected);
        assert!(requests[1].body.contains(kind), "{}", requests[1].body);
    }
    let collector = Collector::start(Protocol::Any).await;
    let directory = configured(&format!("{ELASTIC}url = \"{}\"\n", collector.url()));
    for (step, told) in [
        (Step::answer(401, format!("who is {SECRET}?")), "check the credentials"),
        (Step::answer(200, "<html>"), "--product"),
        (Step::hang_up(), "cannot ask the server what it is"),
    ] {
        collector.push(step);
        let ended = run(&["setup", "elastic", "--apply", "--config", "a.toml"], directory.path()).with(2);
        assert!(ended.stderr.contains(told) && !ended.stderr.contains(SECRET), "{}", ended.stderr);
    }
}
