//! What a sandbox holds, on a real engine: every branch of it is told and can be taken, nothing is lost unasked, and clones and
//! homes are listed, exported and removed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeSet;
use std::process::Output;

use support::{Home, Project, text};

const PLAIN: &str = "image: agent\ncommand: [bash, -l]\n";

fn run(home: &Home, words: &[&str]) -> Output {
    home.sandbox().args(words).output().unwrap()
}

fn succeed(home: &Home, words: &[&str]) -> Output {
    let output = run(home, words);
    assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

fn inside(home: &Home, project: &Project<'_>, options: &[&str], script: &str) {
    succeed(home, &[&["up", project.name()], options, &["--", "bash", "-ec", script]].concat());
}

#[test]
fn every_branch_of_the_agent_is_told_and_can_be_taken_and_none_is_lost_unasked() {
    let home = Home::new();
    let project = Project::new(&home, "branches", PLAIN);
    inside(
        &home,
        &project,
        &[],
        "cd /workspace; git switch -qc fix/it; git commit -q --allow-empty -m fix; git switch -q --detach; \
         git commit -q --allow-empty -m lost; git stash list; echo 'exit 0' > .git/hooks/post-merge; chmod +x .git/hooks/post-merge; \
         echo 'alias x=y' > ~/.bashrc; git config alias.st status; \
         mkdir -p .vscode .github/workflows .claude node_modules/.vscode; echo '{}' > .vscode/tasks.json; \
         echo x > .github/workflows/ci.yml; echo '{}' > .claude/settings.local.json; echo x > node_modules/.vscode/tasks.json; \
         mkdir -p .git/info; echo .claude/ >> .git/info/exclude; echo '#' >> sandbox.yaml; echo x > AGENTS.md; git add AGENTS.md; \
         git commit -qm agents; touch plain",
    );
    let pulled = succeed(&home, &["pull", project.name()]);
    let said = text(&pulled.stderr);
    assert!(said.contains("fix/it") && said.contains("detached HEAD") && said.contains("--branch fix/it"), "{said}");
    let refused = run(&home, &["down", project.name()]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("fix/it"), "{}", text(&refused.stderr));
    succeed(&home, &["pull", project.name(), "--branch", "fix/it"]);
    let reference = format!("refs/sandbox/{}/fix/it", project.name());
    assert_eq!(project.git(&["log", "-1", "--format=%s", &reference]).trim(), "fix");
    let refused = run(&home, &["down", project.name()]);
    assert!(text(&refused.stderr).contains("detached HEAD"), "{}", text(&refused.stderr));

    // What the session did is told with its commands, and with what no commit shows.
    let report = json(&succeed(&home, &["report", project.name(), "--format", "json"]));
    let commands = report["commands"].as_array().unwrap();
    assert_eq!((commands.len(), &commands[0]["code"]), (1, &0.into()), "{report:#}");
    assert!(commands[0]["command"].as_str().unwrap().starts_with("bash -ec '"), "{report:#}");
    let outside: BTreeSet<(&str, &str)> = report["outside"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["change"].as_str().unwrap()))
        .collect();
    let expected = [
        ("/workspace/.git/hooks/post-merge", "added"),
        ("/home/agent/.bashrc", "added"),
        ("/workspace/.git/config", "changed"),
        // Of the working tree: what acts and is not committed.
        ("/workspace/.vscode/tasks.json", "added"),
        ("/workspace/.github/workflows/ci.yml", "added"),
        ("/workspace/.claude/settings.local.json", "added"),
        ("/workspace/sandbox.yaml", "changed"),
    ];
    assert_eq!(outside, expected.into(), "{report:#}");
    succeed(&home, &["down", "--discard", project.name()]);
}

#[test]
fn what_was_not_committed_goes_in_as_one_commit_and_comes_back_with_the_work() {
    let home = Home::new();
    let manifest = format!("{PLAIN}workspace: {{ include_uncommitted: true }}\n");
    let project = Project::new(&home, "dirty", &manifest);
    // In two pieces, so that nobody takes this file for a place of one.
    let token = ["ghp_zQWBuTSOoRi4A9spHcVY5n", "cnsDkxkJ0mLq17"].concat();
    std::fs::write(project.path().join("README.md"), format!("Changed.\n{token}\n")).unwrap();
    let up = succeed(&home, &["up", project.name(), "--", "grep", "-q", "Changed", "README.md"]);
    let warned = text(&up.stderr);
    assert!(warned.contains("README.md:2 holds a GitHub token") && !warned.contains(&token), "{warned}");
    let nothing = succeed(&home, &["pull", project.name()]);
    assert!(text(&nothing.stdout).contains("no commit yet"), "{}", text(&nothing.stdout));
    inside(&home, &project, &[], "cd /workspace; echo x > made; git add made; git commit -q -m work");
    let pulled = json(&succeed(&home, &["pull", project.name(), "--format", "json"]));
    let files: Vec<_> = pulled["review"]["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(files, ["made"], "{pulled:#}");
    let reference = format!("refs/sandbox/{}/main", project.name());
    let history = project.git(&["log", "--format=%s", &reference]);
    assert_eq!(history, "work\nsandbox: uncommitted changes of tracked files\nBegin\n");
    // What is advised works beside the changes that are still not committed.
    let advised = text(&succeed(&home, &["pull", project.name()]).stdout);
    let range = advised.lines().find_map(|line| line.trim().strip_prefix("git cherry-pick ")).unwrap();
    project.git(&["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "cherry-pick", range]);
    assert_eq!(project.git(&["log", "--format=%s", "main"]), "work\nBegin\n");
    assert_eq!(project.git(&["status", "--porcelain"]), " M README.md\n");
    succeed(&home, &["down", project.name()]);
}

#[test]
fn parallel_sandboxes_of_one_project_never_take_each_others_place() {
    let home = Home::new();
    let project = Project::new(&home, "parallel", PLAIN);
    for (options, word) in [(&[][..], "first"), (&["--name", "other"][..], "second")] {
        inside(&home, &project, options, &format!("cd /workspace; git commit -q --allow-empty -m {word}"));
        succeed(&home, &[&["pull", project.name()], options].concat());
    }
    for (reference, word) in [("", "first"), ("@other", "second")] {
        let reference = format!("refs/sandbox/{}{reference}/main", project.name());
        assert_eq!(project.git(&["log", "-1", "--format=%s", &reference]).trim(), word);
    }
    // A branch that is made anew moves the ref, and the reflog keeps what it held.
    inside(&home, &project, &[], "cd /workspace; git reset -q --hard HEAD~1; git commit -q --allow-empty -m again");
    succeed(&home, &["pull", project.name()]);
    let log = project.git(&["reflog", "show", "--format=%s", &format!("refs/sandbox/{}/main", project.name())]);
    assert_eq!(log, "again\nfirst\n");
    succeed(&home, &["down", "--name", "other", project.name()]);
    succeed(&home, &["down", project.name()]);
}

#[test]
fn workspaces_are_listed_exported_and_removed() {
    let home = Home::new();
    let manifest = format!("{PLAIN}workspace: {{ home: {{ keep: true, limit: 1GiB }} }}\n");
    let project = Project::new(&home, "warm", &manifest);
    inside(
        &home,
        &project,
        &[],
        "head -c 3000000 /dev/zero > ~/memory; cd /workspace; mkdir -p out/.git; echo x > out/.git/config; echo y > out/report; \
         ln -s /etc/passwd out/link; mkfifo out/pipe; printf z > \"$(printf 'out/bad\\033name')\"; chmod +x out/report; \
         git commit -q --allow-empty -m work",
    );
    let rows = json(&succeed(&home, &["workspace", "ls", "--format", "json"]));
    let row = rows.as_array().unwrap().iter().find(|row| row["project"] == project.name()).unwrap();
    assert!(row["home_bytes"].as_u64().unwrap() >= 3_000_000 && row["last_used"].is_string(), "{row:#}");
    assert!(row["workspace_bytes"].as_u64().unwrap() > 0, "{row:#}");

    let archive = home.path().join("out.tar");
    let export = ["workspace", "export", project.name(), "--output", archive.to_str().unwrap()];
    let exported = json(&succeed(&home, &[&export[..], &["--format", "json"]].concat()));
    assert_eq!(exported["left_out"], 1, "{exported:#}");
    let mut read = tar::Archive::new(std::fs::File::open(&archive).unwrap());
    let names: BTreeSet<String> = read
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            assert!(matches!(entry.header().entry_type(), tar::EntryType::Regular | tar::EntryType::Directory));
            entry.path().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    let expected = ["workspace/README.md", "workspace/out/", "workspace/out/report", "workspace/sandbox.yaml"];
    assert_eq!(names, expected.map(str::to_owned).into());
    // Nothing is written over.
    assert_eq!(run(&home, &export).status.code(), Some(1));

    let bundle = home.path().join("work.bundle");
    succeed(&home, &["workspace", "export", project.name(), "--bundle", "-o", bundle.to_str().unwrap()]);
    project.git(&["fetch", "-q", bundle.to_str().unwrap(), "main:refs/heads/taken"]);
    assert_eq!(project.git(&["log", "-1", "--format=%s", "taken"]).trim(), "work");
    project.git(&["branch", "-qD", "taken"]);

    let refused = run(&home, &["workspace", "rm", project.name()]);
    assert!(text(&refused.stderr).contains("commits-not-pulled"), "{}", text(&refused.stderr));
    succeed(&home, &["up", project.name(), "--detach", "--", "sleep", "300"]);
    let refused = run(&home, &["workspace", "rm", "--discard", project.name()]);
    assert!(text(&refused.stderr).contains("workspace-in-use"), "{}", text(&refused.stderr));
    succeed(&home, &["pull", project.name()]);
    succeed(&home, &["down", project.name()]);
    let memory = home.path().join("home.tar");
    succeed(&home, &["workspace", "export", "--home", project.name(), "-o", memory.to_str().unwrap()]);
    assert!(memory.metadata().unwrap().len() > 3_000_000);
    succeed(&home, &["workspace", "rm", project.name()]);
    assert_eq!(support::objects(project.name()), Vec::<String>::new());
    assert_eq!(run(&home, &["workspace", "rm", project.name()]).status.code(), Some(1));
}

#[test]
fn a_session_whose_home_is_larger_than_its_limit_ends_and_says_so() {
    let home = Home::new();
    let manifest = format!("{PLAIN}workspace: {{ home: {{ keep: true, limit: 2MiB }} }}\n");
    let project = Project::new(&home, "limit", &manifest);
    let ended =
        run(&home, &["up", project.name(), "--", "bash", "-c", "head -c 9000000 /dev/zero > ~/large; sleep 60"]);
    assert_ne!(ended.status.code(), Some(0));
    let report = json(&succeed(&home, &["report", project.name(), "--format", "json"]));
    assert!(report["reason"].as_str().unwrap().contains("workspace.home.limit"), "{report:#}");
    succeed(&home, &["down", "--discard-home", project.name()]);
}

#[test]
fn what_comes_back_is_read_by_pages_and_brought_into_a_new_branch_alone() {
    let home = Home::new();
    let project = Project::new(&home, "into", PLAIN);
    inside(&home, &project, &[], "cd /workspace; seq 100 > long; git add long; git commit -q -m 'A long one'");
    let name = project.name();
    let diff = |style: &str| text(&succeed(&home, &["diff", name, style]).stdout);
    assert_eq!(diff("--names"), "long\n");
    assert!(diff("--stat").contains("long | 100 +"), "{}", diff("--stat"));
    // In a pipe there is neither a pager nor a colour.
    let mut piped = home.sandbox();
    let piped = piped.args(["diff", name, "--patch"]).env("PAGER", "sed s/^/paged:/").output().unwrap();
    assert!(text(&piped.stdout).starts_with("diff --git a/long b/long\nnew file"), "{}", text(&piped.stdout));
    let mut command = home.command();
    command.args(["diff", name, "--patch"]).env("PAGER", "sed s/^/paged:/").env("TERM", "xterm").env_remove("NO_COLOR");
    let mut session = expectrl::Session::spawn(command).unwrap();
    session.set_expect_timeout(Some(std::time::Duration::from_secs(30)));
    expectrl::Expect::expect(&mut session, "paged:\u{1b}[32m+100\u{1b}[0m").unwrap();
    drop(session);

    let review = text(&succeed(&home, &["review", name]).stdout);
    for part in [
        "1 commit and 1 changed file of",
        "\nCommits:\n  ",
        " A long one (",
        "\nFiles:\n  A long  +100 -0\n",
        "\nCommands started in it:\n  bash -ec 'cd /workspace; seq 100",
        &format!("sandbox diff {name} --patch\nnext: sandbox pull {name}\n"),
    ] {
        assert!(review.contains(part), "{part:?} is not in {review}");
    }

    let main = project.git(&["rev-parse", "main"]);
    let pulled = json(&succeed(&home, &["pull", name, "--into", "review/one", "--format", "json"]));
    assert_eq!((&pulled["created"], &pulled["head"]), (&"review/one".into(), &pulled["review"]["commits"][0]["id"]));
    assert_eq!(project.git(&["rev-parse", "review/one"]).trim(), pulled["head"].as_str().unwrap());
    assert_eq!(project.git(&["symbolic-ref", "--short", "HEAD"]).trim(), "main");
    assert_eq!((project.git(&["status", "--porcelain"]), project.path().join("long").exists()), (String::new(), false));

    // No branch is moved, whichever it is, and none is made of what is held back.
    inside(
        &home,
        &project,
        &[],
        "cd /workspace; echo '* text' > .gitattributes; git add .; git commit -q -m attributes",
    );
    let held = run(&home, &["pull", name, "--into", "review/two"]);
    assert_eq!(held.status.code(), Some(1), "{}", text(&held.stdout));
    assert!(text(&held.stdout).contains(".gitattributes: configures git itself"), "{}", text(&held.stdout));
    for taken in ["review/one", "main"] {
        let options = ["pull", name, "--accept-risk", ".gitattributes", "--into", taken];
        let refused = run(&home, &options);
        assert!(text(&refused.stderr).contains("branch-exists"), "{}", text(&refused.stderr));
    }
    succeed(&home, &["pull", name, "--accept-risk", ".gitattributes"]);
    assert_eq!(project.git(&["rev-parse", "main"]), main);
    assert_eq!(project.git(&["rev-parse", "review/one"]).trim(), pulled["head"].as_str().unwrap());
    assert_eq!(
        project.git(&["for-each-ref", "--format=%(refname)", "refs/heads"]),
        "refs/heads/main\nrefs/heads/review/one\n"
    );
    let report = json(&succeed(&home, &["report", name, "--format", "json"]));
    let last = report["exchanges"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["landed"], &last["facts"]["accepted"]), (&true.into(), &".gitattributes".into()), "{report:#}");
    succeed(&home, &["down", name]);
}
