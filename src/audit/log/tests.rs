use std::collections::BTreeMap;

use super::*;

fn event(action: &str) -> AuditEvent {
    AuditEvent {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        action: action.to_owned(),
        actor: "ada".to_owned(),
        project: "demo".to_owned(),
        sandbox: None,
        session: None,
        outcome: "ok".to_owned(),
        facts: BTreeMap::new(),
    }
}

fn filled() -> (tempfile::TempDir, AuditLog) {
    let state = tempfile::tempdir().unwrap();
    let log = AuditLog::open(state.path()).unwrap();
    for action in ["a.one", "b.two", "c.three", "d.four"] {
        log.append(&event(action)).unwrap();
    }
    (state, log)
}

fn tamper(log: &AuditLog, change: impl FnOnce(&mut Vec<String>)) -> Broken {
    let text = std::fs::read_to_string(&log.log).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(&log.log, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    match log.verify() {
        Err(AuditError::Broken(broken)) => broken,
        other => panic!("not found: {other:?}"),
    }
}

#[test]
fn an_untouched_log_is_accepted() {
    let (_state, log) = filled();
    assert_eq!(log.verify().unwrap().sequence, 4);
}

#[test]
fn finds_a_changed_line() {
    let (_state, log) = filled();
    let broken = tamper(&log, |lines| lines[1] = lines[1].replace("ada", "eve"));
    assert_eq!(broken, Broken::Changed { line: 2 });
}

#[test]
fn finds_a_removed_line() {
    let (_state, log) = filled();
    assert_eq!(tamper(&log, |lines| drop(lines.remove(1))), Broken::Order { line: 2 });
}

#[test]
fn finds_lines_that_changed_places() {
    let (_state, log) = filled();
    assert_eq!(tamper(&log, |lines| lines.swap(1, 2)), Broken::Order { line: 2 });
}

#[test]
fn finds_an_end_that_was_cut_and_does_not_go_on_from_it() {
    let (_state, log) = filled();
    assert_eq!(tamper(&log, |lines| lines.truncate(2)), Broken::Cut { found: 2, expected: 4 });
    assert!(matches!(log.append(&event("e.five")), Err(AuditError::Broken(Broken::Cut { .. }))));
}

#[test]
fn finds_a_record_in_another_spelling() {
    let (_state, log) = filled();
    assert_eq!(tamper(&log, |lines| lines[0].push(' ')), Broken::Malformed { line: 1 });
}

#[test]
fn finds_a_log_that_was_written_anew() {
    let (_state, log) = filled();
    let (_other_state, other) = {
        let state = tempfile::tempdir().unwrap();
        let log = AuditLog::open(state.path()).unwrap();
        for action in ["w.one", "x.two", "y.three", "z.four"] {
            log.append(&event(action)).unwrap();
        }
        (state, log)
    };
    std::fs::copy(&other.log, &log.log).unwrap();
    assert!(matches!(log.verify(), Err(AuditError::Broken(Broken::Replaced { sequence: 4 }))));
}

#[test]
fn takes_off_a_line_that_a_crash_left_unfinished() {
    let (_state, log) = filled();
    OpenOptions::new().append(true).open(&log.log).unwrap().write_all(b"{\"sequence\":5,").unwrap();
    assert!(log.verify().is_err());
    log.append(&event("e.five")).unwrap();
    assert_eq!(log.verify().unwrap().sequence, 5);
}

#[test]
fn writers_at_the_same_time_make_one_chain() {
    let (_state, log) = filled();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    log.append(&event("t.many")).unwrap();
                }
            });
        }
    });
    assert_eq!(log.verify().unwrap().sequence, 44);
}

#[test]
fn bounds_fields_and_shows_control_characters() {
    let (_state, log) = filled();
    let mut long = event("a\u{1b}[31m");
    long.facts.insert("host".to_owned(), "x".repeat(100_000));
    log.append(&long).unwrap();
    let mut last = None;
    log.records(|record| last = Some(record)).unwrap();
    let last = last.unwrap().event;
    assert_eq!(last.action, "a\\u{1b}[31m");
    assert_eq!(last.facts["host"].chars().count(), FIELD_LIMIT + 1);
}

#[test]
fn records_behind_a_place_are_those_that_were_written_since() {
    let (_state, log) = filled();
    let place = log.records_from(0, |_| {}).unwrap();
    let mut found = Vec::new();
    assert_eq!(log.records_from(place, |record| found.push(record.sequence)).unwrap(), place);
    log.append(&event("e.five")).unwrap();
    assert!(log.records_from(place, |record| found.push(record.sequence)).unwrap() > place);
    assert_eq!(found, [5]);
}
