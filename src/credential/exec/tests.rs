use std::time::Instant;

use super::*;

fn request(folder: &Path) -> Request<'_> {
    Request { version: 1, project: "p", sandbox: "main", name: "n", reason: "up", handle: Some("h1"), folder }
}

fn words(line: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]
}

async fn issued(line: &str) -> Result<String, ExecError> {
    let answer = issue(&words(line), &request(Path::new("/"))).await?;
    Ok(String::from_utf8(answer.value.expose().to_vec()).unwrap())
}

/// Whether a process still runs; a zombie does not.
fn runs(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

async fn ends(process: &str) -> bool {
    for _ in 0..100 {
        if !runs(process) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn gives_the_request_on_standard_input_and_nothing_of_it_as_argument() {
    // Wrapped, so that the answer is text and not a document of ours.
    let told = issued("printf 'told '; cat; printf ' %s' \"$#\"").await.unwrap();
    let (told, arguments) = told.strip_prefix("told ").unwrap().rsplit_once(' ').unwrap();
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    let wanted = serde_json::json!({
        "version": 1, "project": "p", "sandbox": "main", "name": "n", "reason": "up", "handle": "h1"
    });
    assert_eq!((told, arguments), (wanted, "0"));
}

#[tokio::test]
async fn runs_in_the_projects_folder_and_finds_its_programs() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("issue");
    std::fs::write(&program, "#!/bin/sh\npwd -P\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    // Another test's fork can hold the file open for writing for a moment.
    let mut answer = Err(ExecError::Empty);
    for _ in 0..50 {
        answer = issue(&["./issue".to_owned()], &request(folder.path())).await;
        match &answer {
            Err(ExecError::Start { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            _ => break,
        }
    }
    let wanted = folder.path().canonicalize().unwrap();
    assert_eq!(answer.unwrap().value.expose(), wanted.to_str().unwrap().as_bytes());
}

#[tokio::test]
async fn a_failure_says_why_and_never_repeats_the_value() {
    for line in [
        "echo hunter2-value; echo hunter2-value >&2; exit 3",
        "echo '{\"value\":\"hunter2-value\"}'; echo \"cannot use hunter2-value\" >&2; exit 3",
        "echo 'Authorization: Bearer hunter2' >&2; exit 3",
    ] {
        let error = issued(line).await.unwrap_err();
        assert!(matches!(error, ExecError::Failed { code: 3, .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let error = issued("echo the vault is locked >&2; exit 1").await.unwrap_err();
    assert_eq!(error.to_string(), "have `/bin/sh` succeed: it ended with code 1 and said: the vault is locked");
    let missing = issue(&["no-such-program-here".to_owned()], &request(Path::new("/"))).await.unwrap_err();
    assert!(matches!(missing, ExecError::Start { .. }));
    assert!(matches!(issue(&[], &request(Path::new("/"))).await, Err(ExecError::Empty)));
}

#[tokio::test]
async fn ends_a_command_that_takes_too_long_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let line = "sleep 600 & echo $! > inner; echo $$ > outer; wait";
    let error = run(&words(line), &request(folder.path()), Duration::from_millis(700)).await.unwrap_err();
    assert!(matches!(error, ExecError::Timeout { .. }), "{error:?}");
    for file in ["inner", "outer"] {
        let process = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(ends(&process).await, "{file} still runs");
    }
}

#[tokio::test]
async fn ends_a_command_that_nobody_waits_for_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (command, request) = (words("sleep 600 & echo $! > inner; wait"), request(folder.path()));
    let given_up = tokio::time::timeout(Duration::from_millis(700), run(&command, &request, LIMIT)).await;
    assert!(given_up.is_err());
    let process = std::fs::read_to_string(folder.path().join("inner")).unwrap();
    assert!(ends(&process).await);
}

#[tokio::test]
async fn does_not_wait_for_what_a_command_left_behind() {
    let start = Instant::now();
    assert_eq!(issued("sleep 600 & echo value").await.unwrap(), "value");
    assert!(start.elapsed() < Duration::from_secs(10));
    // One that left the group cannot be ended; what it may still write is not waited for either.
    let error = issued("setsid sleep 8 & sleep 0.5; echo value").await.unwrap_err();
    assert!(matches!(error, ExecError::Held { .. }), "{error:?}");
}

#[tokio::test]
async fn refuses_an_endless_answer_at_once() {
    let start = Instant::now();
    let error = issued("cat /dev/zero").await.unwrap_err();
    assert!(matches!(error, ExecError::TooLong { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(issued("head -c 1048576 /dev/zero | tr '\\0' a").await.unwrap().len(), ANSWER_LIMIT);
}

#[tokio::test]
async fn reads_all_that_is_said_and_does_not_want_to_be_listened_to() {
    assert_eq!(issued("head -c 3000000 /dev/zero >&2; exec <&-; echo value").await.unwrap(), "value");
}
