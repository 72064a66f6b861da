use std::os::unix::fs::PermissionsExt;

use super::*;

fn letter(record: &[u8]) -> DeadLetter {
    let origin = DeadLetterOrigin {
        object: "logs/workspaceId=1/a.json".into(),
        offset: 7,
        line: u64::MAX,
        occurrence: 2,
        workspace: Some("1".into()),
        cloud: Some("aws".into()),
    };
    DeadLetter {
        reason: "rejected".into(),
        detail: "mapper_parsing_exception: \"x\"".into(),
        origin,
        record: Bytes::copy_from_slice(record),
        truncated: false,
    }
}

fn records(path: &Path) -> Vec<Bytes> {
    read(path).unwrap().map(|kept| kept.unwrap().letter.record).collect()
}

fn pipeline(state_dir: &Path) -> (FileDeadLetters, PathBuf) {
    let letters = FileDeadLetters::open(state_dir, "audit/splunk").unwrap();
    (letters, state_dir.join("dead-letters/audit.splunk.ndjson"))
}

#[tokio::test]
async fn a_letter_is_read_as_it_was_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    assert_eq!(list(directory.path()).unwrap(), []);
    let text = letter("{\"a\":\"ä\"}\n".as_bytes());
    let binary = DeadLetter {
        truncated: true,
        origin: DeadLetterOrigin { workspace: None, cloud: None, ..text.origin.clone() },
        ..letter(b"\xff\x00")
    };
    letters.keep(vec![text.clone(), binary.clone()]).await.unwrap();
    letters.keep(vec![]).await.unwrap();
    let kept: Vec<KeptLetter> = read(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(kept.iter().map(|kept| &kept.letter).collect::<Vec<_>>(), [&text, &binary]);
    assert_eq!(kept.iter().map(|kept| kept.index).collect::<Vec<_>>(), [0, 1]);
    assert!(kept.iter().all(|kept| kept.pipeline == "audit/splunk"));
    assert!(crate::time::Millis::parse(&kept[0].time).is_some(), "{}", kept[0].time);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert_eq!(list(directory.path()).unwrap(), [LetterFile { path, bytes, replaying: false }]);
}

#[tokio::test]
async fn a_line_names_everything_a_human_looks_for() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"{}")]).await.unwrap();
    let line: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "time",
            "pipeline",
            "reason",
            "detail",
            "object",
            "offset",
            "line",
            "occurrence",
            "workspace",
            "cloud",
            "record",
            "truncated"
        ]
    );
}

#[tokio::test]
async fn a_torn_last_line_is_left_out_and_cut_off_by_the_next_letter() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"first")]).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Longer than a block that is searched for the line end, and a torn line that is JSON by chance.
    for torn in [&b"7".repeat(10_000)[..], &whole[..whole.len() - 1]] {
        std::fs::write(&path, [&whole, torn].concat()).unwrap();
        assert_eq!(records(&path), ["first"]);
        letters.keep(vec![letter(b"second")]).await.unwrap();
        assert_eq!(records(&path), ["first", "second"]);
    }
    std::fs::write(&path, "torn").unwrap();
    letters.keep(vec![letter(b"only")]).await.unwrap();
    assert_eq!(records(&path), ["only"]);
}

#[tokio::test]
async fn a_line_that_is_no_letter_is_named_and_the_rest_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"first")]).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], b"{}\n", &whole].concat()).unwrap();
    let read: Vec<_> = read(&path).unwrap().collect();
    assert!(read[0].is_ok() && read[2].is_ok());
    let error = read[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("missing field"), "{error}");
}

#[tokio::test]
async fn letters_kept_during_a_replay_are_not_part_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    assert!(take(&path).unwrap().is_none());
    letters.keep(vec![letter(b"old")]).await.unwrap();
    let taken = take(&path).unwrap().unwrap();
    letters.keep(vec![letter(b"new")]).await.unwrap();
    assert_eq!(records(taken.path()), ["old"]);
    let listed = list(directory.path()).unwrap();
    assert_eq!(listed.iter().map(|file| file.replaying).collect::<Vec<_>>(), [false, true]);
    taken.finish().unwrap();
    assert_eq!(records(&path), ["new"]);
    assert_eq!(list(directory.path()).unwrap().len(), 1);
}

#[tokio::test]
async fn an_interrupted_replay_is_continued_before_new_letters_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"old")]).await.unwrap();
    drop(take(&path).unwrap().unwrap());
    letters.keep(vec![letter(b"new")]).await.unwrap();
    for expected in ["old", "new"] {
        let taken = take(&path).unwrap().unwrap();
        assert_eq!(records(taken.path()), [expected]);
        taken.finish().unwrap();
    }
    assert!(take(&path).unwrap().is_none());
}

#[tokio::test]
async fn a_replay_that_died_while_taking_neither_repeats_nor_loses_letters() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"old")]).await.unwrap();
    let taken_name = PathBuf::from(format!("{}{TAKEN}", path.display()));
    std::fs::hard_link(&path, &taken_name).unwrap();
    let taken = take(&path).unwrap().unwrap();
    letters.keep(vec![letter(b"new")]).await.unwrap();
    assert_eq!((records(taken.path()), records(&path)), (vec!["old".into()], vec!["new".into()]));
}

#[tokio::test]
async fn two_replays_do_not_share_letters() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"one")]).await.unwrap();
    let _taken = take(&path).unwrap().unwrap();
    let error = take(&path).unwrap_err();
    assert!(matches!(error, ReadError::Taken { .. }), "{error}");
}

#[tokio::test]
async fn a_writer_that_waits_for_a_replay_writes_to_a_new_file_while_the_replay_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"old")]).await.unwrap();
    // What `take` does: it has the lock, and the writer has opened the file, before the file is renamed.
    let lock = open_existing(&path).unwrap().unwrap();
    lock.lock().unwrap();
    let renamed = path.with_extension("taken");
    drop(letters.0.lock(|| std::fs::rename(&path, &renamed).unwrap()).unwrap());
    letters.keep(vec![letter(b"new")]).await.unwrap();
    assert_eq!((records(&renamed), records(&path)), (vec!["old".into()], vec!["new".into()]));
    drop(lock);
}

#[tokio::test]
async fn a_writer_waits_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    let writing = std::cell::Cell::new(Some(letters.0.lock(|| unreachable!()).unwrap()));
    drop(letters.0.lock(|| drop(writing.take())).unwrap());
    assert!(writing.take().is_none(), "it was waited for");
    assert!(path.exists());
}

#[tokio::test]
async fn a_directory_that_went_away_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let error = letters.keep(vec![letter(b"one")]).await.unwrap_err().to_string();
    assert!(error.contains("audit.splunk.ndjson"), "{error}");
}

#[tokio::test]
async fn letters_kept_while_others_are_removed_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"unwanted"), letter(b"wanted")]).await.unwrap();
    // A writer opened the file before it was replaced, and gets the lock after that.
    let late = OpenOptions::new().append(true).open(&path).unwrap();
    let unwanted = |kept: &KeptLetter| kept.letter.record == "unwanted";
    assert_eq!(remove(&path, unwanted).unwrap(), 1);
    assert!(!still_named(&late, &path).unwrap(), "it is told by that");
    letters.keep(vec![letter(b"new"), letter(b"unwanted")]).await.unwrap();
    assert_eq!(records(&path), ["wanted", "new", "unwanted"]);
    assert_eq!(remove(&path, |_| true).unwrap(), 3);
    assert!(!path.exists());
    letters.keep(vec![letter(b"newer")]).await.unwrap();
    assert_eq!(records(&path), ["newer"]);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn letters_are_not_removed_under_a_replay_but_where_one_was_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"old"), letter(b"older")]).await.unwrap();
    let taken = take(&path).unwrap().unwrap();
    letters.keep(vec![letter(b"new")]).await.unwrap();
    let old = |kept: &KeptLetter| kept.letter.record == "old";
    assert!(matches!(remove(&path, old), Err(ReadError::Taken { .. })));
    let name = taken.path().to_owned();
    assert_eq!(records(&name), ["old", "older"]);
    drop(taken);
    assert_eq!(remove(&path, old).unwrap(), 1);
    assert_eq!((records(&name), records(&path)), (vec!["older".into()], vec!["new".into()]));
    take(&path).unwrap().unwrap().finish().unwrap();

    // Interrupted between its two steps: one file of two names.
    letters.keep(vec![letter(b"old")]).await.unwrap();
    std::fs::hard_link(&path, &name).unwrap();
    assert_eq!(remove(&path, old).unwrap(), 1);
    assert_eq!((records(&name), path.exists()), (vec!["new".into()], false));
}

#[tokio::test]
async fn a_file_with_a_line_that_is_no_letter_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (letters, path) = pipeline(directory.path());
    letters.keep(vec![letter(b"first")]).await.unwrap();
    let text = [&std::fs::read(&path).unwrap()[..], b"{}\n"].concat();
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(remove(&path, |_| true), Err(ReadError::Line { line: 2, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), text);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_letter_in_a_new_file_is_kept_once_also_where_the_name_of_the_file_is_not_safe_at_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.splunk.ndjson");
    let place = |directory: PathBuf| Place { directory, path: path.clone(), pipeline: "audit/splunk".into() };
    let elsewhere = place(directory.path().join("missing"));
    elsewhere.append(vec![letter(b"{}")]).unwrap_err();
    elsewhere.append(vec![letter(b"{}")]).unwrap_err();
    place(directory.path().to_owned()).append(vec![letter(b"{}")]).unwrap();
    assert_eq!(records(&path), ["{}"]);
}
