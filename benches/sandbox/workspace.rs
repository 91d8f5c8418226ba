//! A repository on its way into a sandbox and out of it, against git doing the same on one machine.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::measure::{Aim, Quantity, Table, median_time, time};
use crate::sessions::watch;
use crate::succeed;
use crate::support::{Home, Project, real_history};

/// What the files of the repository have together, in bytes.
const SIZE: u64 = 60_000_000;
/// The files of the repository with many small ones.
const MANY: usize = 100_000;
/// The files that the agent changes.
const CHANGED: usize = 10_000;
/// The step in which the bundle is made, sent and cloned.
const IN: &str = "handing the project over";
/// Those in which a bundle is made and comes, is checked, and lands; the review is measured by itself.
const OUT: [&str; 3] = ["bringing the commits", "checking the commits", "taking the commits in"];

fn git(folder: &Path, words: &[&str]) {
    succeed(
        Command::new("git")
            .args(["-c", "gc.auto=0", "-c", "user.name=a", "-c", "user.email=a@b"])
            .args(words)
            .current_dir(folder),
    );
}

/// In and out of a sandbox.
pub(crate) fn run(table: &Table) {
    let home = Home::new();
    let project = Project::new(&home, "bench", "image: agent\ncommand: [sleep, infinity]\n");
    let files = real_history::add(project.path(), SIZE);
    table.remark(&format!("a repository of {files} files, {} MB", SIZE / 1_000_000));
    into_a_sandbox(table, &home, &project, "in: bundle, send, clone");
    let peer = home.path().join("peer");

    // The same change here and there.
    let change = format!(
        "mkdir new && seq {CHANGED} | while read n; do echo \"file $n\" > new/$n.txt; done && git add --all && \
         git commit --quiet --message 'Many files'"
    );
    succeed(home.command().args(["up", project.name(), "--", "sh", "-c", &format!("cd /workspace && {change}")]));
    let _ = std::fs::remove_dir_all(&peer);
    git(home.path(), &["clone", "--quiet", "--no-hardlinks", project.path().to_str().unwrap(), "peer"]);
    // A session that ends with its command leaves no time to pack what was committed, so here nothing is packed either.
    git(&peer, &["config", "gc.auto", "0"]);
    let identity = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; ";
    succeed(Command::new("sh").args(["-c", &format!("{identity}{change}")]).current_dir(&peer));
    // As honest as it gets with git alone: a bundle is made, read with every object checked, and one ref is moved.
    let file = home.path().join("peer.bundle");
    let bundle = file.to_str().unwrap();
    let base = format!("^{}", project.git(&["rev-parse", "HEAD"]).trim());
    let mut measured: [Vec<Duration>; 5] = Default::default();
    for _ in 0..table.runs {
        let clean = || {
            project.git(&["repack", "-adq"]);
            project.git(&["prune", "--expire=now"]);
        };
        measured[0].push(time(|| drop(succeed(home.command().args(["diff", project.name(), "--format", "json"])))));
        clean();
        let mut pull = home.command();
        let run = watch(pull.args(["pull", project.name()]).env("SANDBOX_LOG", "info").env("NO_COLOR", "1"));
        measured[1].push(run.end);
        measured[4].push(OUT.iter().map(|wanted| run.steps.iter().find(|(step, _)| step == wanted).unwrap().1).sum());
        project.git(&["update-ref", "-d", &format!("refs/sandbox/{}/main", project.name())]);
        clean();
        let from = peer.to_str().unwrap();
        measured[2].push(time(|| git(project.path(), &["fetch", "--quiet", from, "+main:refs/sandbox/peer"])));
        project.git(&["update-ref", "-d", "refs/sandbox/peer"]);
        clean();
        measured[3].push(time(|| {
            git(&peer, &["bundle", "create", "--quiet", bundle, "main", &base]);
            git(
                project.path(),
                &["-c", "transfer.fsckObjects=true", "fetch", "--quiet", bundle, "+main:refs/sandbox/peer"],
            );
        }));
        project.git(&["update-ref", "-d", "refs/sandbox/peer"]);
        clean();
    }
    let [diff, pull, fetch, checked, out] = measured.map(|times| median_time(&times));
    let aim = Aim::AtMost(Quantity::Seconds(2.0));
    table.single(&format!("review of {CHANGED} new files (diff)"), diff, aim);
    let checking = "git bundle, checked fetch";
    table.compare("out: bundle, check, land", out, checking, checked, Aim::AtMostTimes(1.5));
    table.compare("out: bundle, check, land", out, "git fetch", fetch, Aim::None);
    table.compare("pull, with its container and the review", pull, checking, checked, Aim::None);
}

/// The way in against a clone by git that shares nothing.
fn into_a_sandbox(table: &Table, home: &Home, project: &Project<'_>, what: &str) {
    let peer = home.path().join("peer");
    let mut measured = (Vec::new(), Vec::new());
    for _ in 0..table.runs {
        let _ = std::fs::remove_dir_all(&peer);
        let source = project.path().to_str().unwrap();
        measured.1.push(time(|| git(home.path(), &["clone", "--quiet", "--no-hardlinks", source, "peer"])));
        let mut up = home.command();
        up.args(["up", project.name(), "--", "echo", "x"]).env("SANDBOX_LOG", "info").env("NO_COLOR", "1");
        let steps = watch(&mut up).steps;
        measured.0.push(steps.iter().find(|(step, _)| step == IN).unwrap().1);
        succeed(home.command().args(["down", "--discard", project.name()]));
    }
    let _ = std::fs::remove_dir_all(&peer);
    let [ours, git_clone] = [&measured.0, &measured.1].map(|times| median_time(times));
    table.compare(what, ours, "git clone --no-hardlinks", git_clone, Aim::AtMostTimes(1.5));
}

/// A hundred thousand small files in a thousand folders: in, and a change of one of them out again.
pub(crate) fn many_files(table: &Table) {
    let home = Home::new();
    let project = Project::new(&home, "many", "image: agent\ncommand: [sleep, infinity]\n");
    let parent = project.git(&["rev-parse", "HEAD"]);
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet", "--done"])
        .current_dir(project.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = std::io::BufWriter::new(import.stdin.take().unwrap());
    write!(stream, "commit refs/heads/main\ncommitter a <a@b> 1 +0000\ndata 4\nmany\nfrom {parent}").unwrap();
    for number in 0..MANY {
        let content = format!("file {number}\n");
        let place = format!("d{:03}/f{number}", number % 1000);
        write!(stream, "M 100644 inline {place}\ndata {}\n{content}\n", content.len()).unwrap();
    }
    stream.write_all(b"done\n").unwrap();
    drop(stream);
    assert!(import.wait().unwrap().success());
    project.git(&["reset", "--quiet", "--hard", "main"]);
    into_a_sandbox(table, &home, &project, &format!("in: {MANY} files"));

    let change = "echo more >> d000/f0 && git commit --quiet --all --message 'One line'";
    succeed(home.command().args(["up", project.name(), "--", "sh", "-c", &format!("cd /workspace && {change}")]));
    let times: Vec<Duration> = (0..table.runs)
        .map(|_| time(|| drop(succeed(home.command().args(["diff", project.name(), "--format", "json"])))))
        .collect();
    let aim = Aim::AtMost(Quantity::Seconds(2.0));
    table.single(&format!("review of one line among {MANY} files (diff)"), median_time(&times), aim);
}
