//! A database that is damaged, and how that is found out.

use super::*;

#[tokio::test]
async fn a_damaged_database_is_told_from_a_busy_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state.db"), "this is no database, it is a text ".repeat(100))
        .unwrap();
    let error = SqliteState::open(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("state.db"), "{error}");
}

#[tokio::test]
async fn a_torn_database_is_found_out_at_the_start_with_what_to_do() {
    let directory = filled().await;
    let path = directory.path().join("state.db");
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 100_000);
    for left in [17, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..left]).unwrap();
        let error = SqliteState::open(directory.path()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{left}: {error}");
        let text = error.to_string();
        assert!(text.contains("auditferry state rebuild") && !text.contains('\n'), "{left}: {text}");
        let found = verify(directory.path()).unwrap().unwrap();
        assert!(!found.problems.is_empty(), "{left}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(verify(directory.path()).unwrap().unwrap().problems, Vec::<String>::new());
    SqliteState::open(directory.path()).unwrap();
}

#[tokio::test]
async fn pages_that_hold_something_else_are_found_out_at_the_start() {
    let directory = filled().await;
    let path = directory.path().join("state.db");
    let whole = std::fs::read(&path).unwrap();
    for page in 0..whole.len() / 4096 {
        for garbage in [0, 0xff, 0x55] {
            let mut bytes = whole.clone();
            bytes[page * 4096..][..4096].fill(garbage);
            std::fs::write(&path, bytes).unwrap();
            let error = SqliteState::open(directory.path()).unwrap_err();
            assert!(matches!(error, StateError::Damaged { .. }), "page {page}, {garbage}: {error}");
            assert!(!verify(directory.path()).unwrap().unwrap().problems.is_empty(), "page {page}");
        }
    }
}

#[tokio::test]
async fn a_torn_log_of_the_last_commits_costs_those_commits_only() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    for round in 0..20 {
        state.commit("p", vec![change("a", &round.to_string(), Note::Keep)], vec![]).await.unwrap();
    }
    let (crashed, log) =
        (tempfile::tempdir().unwrap(), std::fs::read(directory.path().join("state.db-wal")).unwrap());
    std::fs::copy(directory.path().join("state.db"), crashed.path().join("state.db")).unwrap();
    let mut last = 20;
    for left in (0..=log.len()).rev().step_by(1013) {
        std::fs::write(crashed.path().join("state.db-wal"), &log[..left]).unwrap();
        let found = {
            let state = SqliteState::open(crashed.path()).unwrap();
            positions(&state, "p", ALL.0, ALL.1).await
        };
        let round = found.first().map_or(-1, |(_, at)| at.parse::<i64>().unwrap());
        assert!(round <= last, "{left}");
        last = round;
        std::fs::copy(directory.path().join("state.db"), crashed.path().join("state.db")).unwrap();
    }
    assert!(last < 5, "the first commits were torn too: {last}");
}
