use super::*;
use crate::project::manifest;

/// A project `demo` with a folder in it, and a state folder.
struct Place {
    base: tempfile::TempDir,
    root: PathBuf,
    state: PathBuf,
}

fn place() -> Place {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().canonicalize().unwrap().join("work/demo-checkout");
    std::fs::create_dir_all(root.join("src/deep")).unwrap();
    std::fs::write(root.join(FILE_NAME), "version: 1\nproject: demo\n").unwrap();
    let state = base.path().join("state");
    Place { base, root, state }
}

#[test]
fn finds_the_nearest_manifest_from_a_folder_below_it() {
    let Place { root, state, .. } = &place();
    assert_eq!(locate(None, &root.join("src/deep"), state).unwrap(), root.join(FILE_NAME));
    std::fs::write(root.join("src").join(FILE_NAME), "version: 1\nproject: inner\n").unwrap();
    assert_eq!(locate(None, &root.join("src/deep"), state).unwrap(), root.join("src").join(FILE_NAME));
    assert_eq!(locate(None, root, state).unwrap(), root.join(FILE_NAME));
}

#[test]
fn says_where_it_looked_in_vain() {
    let Place { root, state, .. } = &place();
    let above = root.parent().unwrap();
    assert!(matches!(locate(None, above, state), Err(LocateError::Missing(folder)) if folder == above));
    assert!(
        matches!(locate(Some("./src"), root, state), Err(LocateError::NoFile(file)) if file.ends_with("src/sandbox.yaml"))
    );
}

#[test]
fn finds_a_manifest_by_the_path_of_its_folder_or_of_itself() {
    let Place { root, state, .. } = &place();
    for argument in [".", "src/..", "./sandbox.yaml", "sandbox.yaml", "../demo-checkout", root.to_str().unwrap()] {
        assert_eq!(locate(Some(argument), root, state).unwrap(), root.join(FILE_NAME), "{argument}");
    }
    assert_eq!(locate(Some("demo-checkout"), root.parent().unwrap(), state).unwrap(), root.join(FILE_NAME));
}

#[test]
fn a_project_is_found_by_its_name_once_it_was_seen_and_where_it_was_last() {
    let Place { base, root, state } = &place();
    let elsewhere = base.path();
    assert!(matches!(locate(Some("demo"), elsewhere, state), Err(LocateError::Unknown(name)) if name == "demo"));
    remember(state, &manifest::load(&root.join(FILE_NAME)).unwrap()).unwrap();
    assert_eq!(locate(Some("demo"), elsewhere, state).unwrap(), root.join(FILE_NAME));

    let moved = root.with_file_name("moved");
    std::fs::rename(root, &moved).unwrap();
    assert!(matches!(locate(Some("demo"), elsewhere, state), Err(LocateError::NoFile(_))));
    remember(state, &manifest::load(&moved.join(FILE_NAME)).unwrap()).unwrap();
    assert_eq!(locate(Some("demo"), elsewhere, state).unwrap(), moved.join(FILE_NAME));
}

#[test]
fn a_text_that_is_no_name_opens_no_record() {
    let Place { base, state, .. } = &place();
    std::fs::create_dir_all(state.join("projects")).unwrap();
    std::fs::write(state.join("secret"), "/").unwrap();
    for argument in ["..%2fsecret", "DEMO", "", "a\nb", "-x"] {
        let located = locate(Some(argument), base.path(), state);
        assert!(matches!(located, Err(LocateError::Unknown(_))), "{argument:?}: {located:?}");
    }
}

#[test]
fn refuses_a_manifest_of_another_owner() {
    let Place { state, .. } = &place();
    // Only root can give a file away; for anybody else it stays his own, and is taken.
    let (path, given) = (std::env::temp_dir().join(format!("sandbox-owner-{}", std::process::id())), 65_534);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join(FILE_NAME), "version: 1\nproject: demo\n").unwrap();
    let changed = std::os::unix::fs::chown(path.join(FILE_NAME), Some(given), None);
    let located = locate(Some("."), &path, state);
    std::fs::remove_dir_all(&path).unwrap();
    if changed.is_ok() {
        assert!(matches!(located, Err(LocateError::Owner { owner, .. }) if owner == given), "{located:?}");
    } else {
        assert!(located.is_ok());
    }
}

#[test]
fn refuses_a_file_of_another_name_since_an_approval_would_not_cover_it() {
    let Place { root, state, .. } = &place();
    std::fs::write(root.join("other.yaml"), "version: 1\nproject: demo\n").unwrap();
    assert!(matches!(locate(Some("./other.yaml"), root, state), Err(LocateError::Name(_))));
    let linked = root.join("src");
    std::os::unix::fs::symlink(root.join("other.yaml"), linked.join(FILE_NAME)).unwrap();
    assert!(matches!(locate(None, &linked, state), Err(LocateError::Name(_))));
}
