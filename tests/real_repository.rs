//! A repository with other people's files and a history of some length goes into a sandbox and comes back unchanged.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use support::{Home, Project, real_history, text};

/// What the files have together, in bytes.
const SIZE: u64 = 15_000_000;

#[test]
fn every_object_arrives_and_comes_back_as_it_was() {
    let home = Home::new();
    let project = Project::new(&home, "real", "image: agent\ncommand: [bash, -l]\n");
    let files = real_history::add(project.path(), SIZE);
    assert!(files > 800, "{files}");
    let run = |words: &[&str]| {
        let output = home.sandbox().args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let inside = |script: &str| {
        run(&["up", project.name(), "--", "sh", "-ec", &format!("cd /workspace; {script}")]).trim().to_owned()
    };
    let here = project.git(&["rev-list", "--objects", "--no-object-names", "HEAD"]);
    let mut here: Vec<&str> = here.lines().collect();
    here.sort_unstable();
    let there =
        inside("git fsck --full --strict >&2; git status --porcelain; git rev-list --objects --no-object-names HEAD");
    let mut there: Vec<&str> = there.lines().collect();
    there.sort_unstable();
    assert!(here == there, "{} objects went in, {} are there", here.len(), there.len());

    // The agent renames each Rust file and changes it: thousands of files in two commits.
    let tree = inside(
        "git ls-files -z 'crates/*/src/*.rs' | sed -z 's/\\.rs$//' | \
           xargs -0 -I{} mv {}.rs {}.renamed.rs; git add -A; git commit --quiet -m 'Rename all'; \
         git ls-files -z '*.renamed.rs' | xargs -0 sed -i '1i // touched'; git commit --quiet -am 'Touch all'; \
         git rev-parse HEAD^{tree}",
    );
    let pulled = run(&["pull", project.name(), "--format", "json"]);
    let pulled: serde_json::Value = serde_json::from_str(&pulled).unwrap();
    assert_eq!(pulled["review"]["commits"].as_array().unwrap().len(), 2);
    let reference = format!("refs/sandbox/{}/main", project.name());
    assert_eq!(project.git(&["rev-parse", &format!("{reference}^{{tree}}")]).trim(), tree);
    project.git(&["fsck", "--full", "--strict", "--no-dangling"]);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    run(&["down", project.name()]);
}
