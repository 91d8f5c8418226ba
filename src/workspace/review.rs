//! The review of commits before they land: plumbing only, so neither a text conversion nor an external diff ever runs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Serialize;

use super::WorkspaceError;
use super::git::Git;
use super::hazard;
use super::passing::{self, PassingChange};
use super::secret_scan::{self, Finding};
use super::signature::{self, Signature};
use crate::commands::printer::sanitise;
use crate::project::path_patterns::PathPatterns;

/// A file above this many bytes is shown first.
const LARGE: u64 = 5 << 20;
/// Contents above this many bytes are not searched for deceptive characters.
const SCAN_FILE: u64 = 1 << 20;
/// The most bytes of the file before that are looked through for credentials that it held already.
const OLD_FILE: usize = 16 << 20;
/// All contents that are searched, together, in bytes.
const SCAN_TOTAL: u64 = 64 << 20;
/// The most bytes of a listing of changed paths, which is some 500,000 of them. A few nested trees of one blob name more
/// files than any disk holds.
pub(super) const LISTING: usize = 64 << 20;
const EMBEDDED: &str = "is a git repository inside the tree";
/// The most commits that are listed.
const COMMIT_LIMIT: usize = 1000;
/// The largest commit object whose signature is looked at, in bytes.
const COMMIT_SIZE: u64 = 256 << 10;
/// All commit objects that are read for their messages, in bytes: newest first.
const MESSAGES: u64 = 16 << 20;
/// What is shown of an author's name and of a subject, in characters.
const AUTHOR: usize = 200;
const SUBJECT: usize = 500;
/// What of a message is kept after its first paragraph, in bytes.
const MESSAGE: usize = 16 << 10;

/// Paths whose hazard the user accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptedRisks(pub BTreeSet<String>);

/// What the user wants to be held back or shown first, besides what always is.
#[derive(Debug, Clone, Default)]
pub struct ReviewRules {
    /// Paths that are held back.
    pub held_back: PathPatterns,
    /// Paths that are shown first.
    pub shown_first: PathPatterns,
    /// Files that the launcher wrote for an editor.
    pub written: Vec<WrittenFile>,
    /// Public keys of the sandbox's sessions, each as a line of OpenSSH's. With none, no signature is looked at.
    pub signers: Vec<String>,
}

/// A file that the launcher wrote and an editor obeys, so that only the launcher is to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// The path from the top of the repository.
    pub path: String,
    /// The object ids that git gives what was written.
    pub blobs: Vec<String>,
}

/// What would come in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Review {
    /// The commits that the base lacks, newest first, at most 1000 of them.
    pub commits: Vec<CommitSummary>,
    /// The paths that differ between base and head.
    pub files: Vec<FileChange>,
    /// What does not come in unless it is accepted path by path.
    pub held_back: Vec<Remark>,
    /// What to look at before anything else.
    pub shown_first: Vec<Remark>,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitSummary {
    /// Object id.
    pub id: String,
    /// The author's name, sanitised.
    pub author: String,
    /// The first line of the message, sanitised.
    pub subject: String,
    /// What the message has after its first paragraph, sanitised.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// By whom it is signed, when the sandbox's sessions sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// The path, sanitised.
    pub path: String,
    /// `A`, `M`, `D` or `T` (another type).
    pub status: char,
    /// The new mode in octal, `000000` when deleted.
    pub mode: String,
    /// The new size in bytes; none when deleted or not a file.
    pub size: Option<u64>,
    /// Added lines; none for a binary file.
    pub added: Option<u64>,
    /// Removed lines; none for a binary file.
    pub removed: Option<u64>,
}

/// A path and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The path, sanitised; what `--accept-risk` takes.
    pub path: String,
    /// Why.
    pub reason: &'static str,
    /// The line of the file, from 1, where the reason has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The commit that brings it, when a later one takes it away again: it is in the history alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Review {
    /// The commits that no session of the sandbox signed, when its sessions sign: taken over from elsewhere, or not made
    /// in it.
    pub fn unsigned(&self) -> Vec<&CommitSummary> {
        let foreign = |commit: &&CommitSummary| commit.signature.is_some_and(|by| by != Signature::Session);
        self.commits.iter().filter(foreign).collect()
    }

    /// What is held back and not accepted.
    pub fn unaccepted(&self, accepted: &AcceptedRisks) -> Vec<&Remark> {
        self.held_back.iter().filter(|remark| !accepted.0.contains(&remark.path)).collect()
    }
}

/// One record of `diff-tree -r -z --raw`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawChange {
    /// The mode before, six octal digits.
    pub old_mode: String,
    /// The mode after.
    pub new_mode: String,
    /// Object id before.
    pub old_id: String,
    /// Object id after.
    pub new_id: String,
    /// `A`, `M`, `D`, `T`.
    pub status: char,
    /// The path's bytes.
    pub path: Vec<u8>,
}

/// Parses `diff-tree -r -z --raw --no-renames --no-abbrev`: `:MODE MODE ID ID STATUS NUL PATH NUL`.
pub fn parse_raw(output: &[u8]) -> Result<Vec<RawChange>, WorkspaceError> {
    let wrong = || WorkspaceError::Output("diff-tree");
    let mut changes = Vec::new();
    let mut parts = output.split(|byte| *byte == 0);
    loop {
        let Some(head) = parts.next() else { return Err(wrong()) };
        if head.is_empty() {
            return if parts.next().is_none() { Ok(changes) } else { Err(wrong()) };
        }
        let head = std::str::from_utf8(head).map_err(|_| wrong())?.strip_prefix(':').ok_or_else(wrong)?;
        let fields: Vec<&str> = head.split(' ').collect();
        let [old_mode, new_mode, old_id, new_id, status] = fields[..] else { return Err(wrong()) };
        let status = status.chars().next().filter(|status| "AMDT".contains(*status)).ok_or_else(wrong)?;
        let path = parts.next().filter(|path| !path.is_empty()).ok_or_else(wrong)?.to_vec();
        changes.push(RawChange {
            old_mode: old_mode.to_owned(),
            new_mode: new_mode.to_owned(),
            old_id: old_id.to_owned(),
            new_id: new_id.to_owned(),
            status,
            path,
        });
    }
}

fn tree_diff(repository: &Path, base: &str, head: &str, shape: &[&str]) -> Git {
    Git::at(repository, "diff-tree")
        .args(["-r", "-z", "--no-renames", "--no-abbrev", "--no-textconv", "--no-ext-diff", "--ignore-submodules=none"])
        .args(shape)
        .arg("--end-of-options")
        .args([base, head])
}

/// Parses `diff-tree -z --raw --numstat`: all records of the first, which begin with a colon, then those of the second.
fn parse_listing(output: &[u8]) -> Result<(Vec<RawChange>, Counts), WorkspaceError> {
    let wrong = || WorkspaceError::Output("diff-tree");
    let mut end = 0;
    while output.get(end) == Some(&b':') {
        for _ in 0..2 {
            end += output[end..].iter().position(|byte| *byte == 0).ok_or_else(wrong)? + 1;
        }
    }
    Ok((parse_raw(&output[..end])?, line_counts(&output[end..])?))
}

/// Reviews `base..head` in the quarantine.
pub(super) fn review(repository: &Path, base: &str, head: &str, rules: &ReviewRules) -> Result<Review, WorkspaceError> {
    let listing = tree_diff(repository, base, head, &["--raw", "--numstat"]).limit(LISTING).output()?;
    let (changes, counts) = parse_listing(&listing)?;
    let regular = |change: &&RawChange| change.new_mode.starts_with("100") || change.new_mode == "120000";
    let sizes = sizes(repository, changes.iter().filter(regular).map(|change| change.new_id.as_str()))?;
    let contents = contents(repository, &changes, &sizes)?;

    let known = Known::of(repository, &changes);
    let mut review = Review { commits: commits(repository, base, head, &rules.signers)?, ..Review::default() };
    let mut held = BTreeSet::new();
    let mut first = BTreeSet::new();
    for change in &changes {
        let raw_path = String::from_utf8_lossy(&change.path);
        let path = display(&change.path);
        let size = sizes.get(change.new_id.as_str()).copied().filter(|_| change.status != 'D');
        let (added, removed) = counts.get(&change.path).copied().unwrap_or((None, None));
        let hold = |reason| Remark { path: path.clone(), reason, line: None, commit: None };
        if let Some(reason) = named(&raw_path, change, rules) {
            held.insert(hold(reason));
        }
        if let Some(reason) = kind(change, &raw_path, &contents) {
            held.insert(hold(reason));
        }
        if rules.shown_first.match_path(&raw_path) {
            first.insert(hold("is on your list of what to look at"));
        }
        if let Some(reason) = hazard::shown_first(&raw_path) {
            first.insert(hold(reason));
        }
        if let Some(reason) = hazard::deceptive(&raw_path) {
            first.insert(hold(reason));
        }
        if std::str::from_utf8(&change.path).is_err() || raw_path.chars().any(char::is_control) {
            first.insert(hold("has a name that is no ordinary text"));
        }
        if change.new_mode == "100755" && change.old_mode != "100755" {
            first.insert(hold("is newly executable"));
        }
        if size.is_some_and(|size| size > LARGE) {
            first.insert(hold("is large"));
        }
        if change.new_mode.starts_with("100") {
            if added.is_none() && counts.contains_key(&change.path) {
                first.insert(hold("is binary"));
            } else if let Some(content) = contents.get(change.new_id.as_str()) {
                if let Some(reason) = hazard::deceptive(&String::from_utf8_lossy(content)) {
                    first.insert(hold(reason));
                }
                for finding in new_secrets(repository, change, content, &known)? {
                    held.insert(Remark { line: Some(finding.line), ..hold(finding.reason) });
                }
            } else {
                first.insert(hold("was too large to search for deceptive characters and credentials"));
            }
        }
        review.files.push(FileChange {
            path,
            status: change.status,
            mode: change.new_mode.clone(),
            size,
            added,
            removed,
        });
    }
    for folder in embedded_repositories(repository, head, &changes)? {
        held.insert(Remark { path: display(&folder), reason: EMBEDDED, line: None, commit: None });
    }
    let in_passing = held_in_passing(repository, base, head, rules, &held, &known)?;
    held.extend(in_passing);
    review.held_back = held.into_iter().collect();
    review.shown_first = first.into_iter().collect();
    Ok(review)
}

/// Why a path is held back by its name, or because what stands there was the launcher's.
fn named(path: &str, change: &RawChange, rules: &ReviewRules) -> Option<&'static str> {
    let rewritten = |file: &WrittenFile| hazard::reaches(path, &file.path) && !file.blobs.contains(&change.new_id);
    hazard::held_back(path)
        .or_else(|| rules.held_back.match_path(path).then_some("is held back by your configuration"))
        .or_else(|| {
            rules.written.iter().any(rewritten).then_some("was written by `sandbox editor`, and is changed here")
        })
}

/// Why a path is held back by what it is: a submodule, or a link with a target that hurts.
fn kind(change: &RawChange, path: &str, contents: &HashMap<String, Vec<u8>>) -> Option<&'static str> {
    match change.new_mode.as_str() {
        "160000" => Some("is a submodule"),
        "120000" => match contents.get(change.new_id.as_str()) {
            Some(target) => hazard::link_hazard(path, &String::from_utf8_lossy(target)),
            None => Some("symbolic link with an oversized target"),
        },
        _ => None,
    }
}

/// What the base held in the files that are changed or gone: a credential that only moves is no new one. It is read when
/// one is found.
struct Known<'a> {
    repository: &'a Path,
    blobs: BTreeSet<&'a str>,
    /// The credentials themselves, each on lines of its own.
    text: OnceCell<Vec<u8>>,
}

impl<'a> Known<'a> {
    /// `changes` are those from the base to the head. Those of single commits would not do: what one of them takes away, an
    /// earlier one may have brought.
    fn of(repository: &'a Path, changes: &'a [RawChange]) -> Self {
        let files = changes.iter().filter(|change| change.old_mode.starts_with("100"));
        Self { repository, blobs: files.map(|change| change.old_id.as_str()).collect(), text: OnceCell::new() }
    }

    fn text(&self) -> Result<&[u8], WorkspaceError> {
        if self.text.get().is_none() {
            let mut sizes = sizes(self.repository, self.blobs.iter().copied())?;
            let mut total = 0;
            sizes.retain(|_, size| {
                let fits = *size <= SCAN_FILE && total + *size <= SCAN_TOTAL;
                total += if fits { *size } else { 0 };
                fits
            });
            let found = objects(self.repository, sizes.keys().map(String::as_str))?;
            let mut text = Vec::new();
            for content in found.into_values() {
                for (range, _) in secret_scan::locate(&content) {
                    text.extend_from_slice(&content[range]);
                    text.push(b'\n');
                }
            }
            self.text.get_or_init(|| text);
        }
        Ok(self.text.get().map(Vec::as_slice).unwrap_or_default())
    }
}

/// The credentials that a change brings: what the file held before, or another file of the base, was there without it.
fn new_secrets(
    repository: &Path,
    change: &RawChange,
    content: &[u8],
    known: &Known<'_>,
) -> Result<Vec<Finding>, WorkspaceError> {
    if secret_scan::scan(content, b"").is_empty() {
        return Ok(Vec::new());
    }
    let mut before = known.text()?.to_vec();
    // However large it is.
    if change.old_mode.starts_with("100") {
        let own = Git::at(repository, "cat-file").args(["blob", &change.old_id]).limit(OLD_FILE).output()?;
        before.extend_from_slice(&own);
    }
    Ok(secret_scan::scan(content, &before))
}

/// What is to be held back though the last commit no longer has it. `held` is what the last one has.
fn held_in_passing(
    repository: &Path,
    base: &str,
    head: &str,
    rules: &ReviewRules,
    held: &BTreeSet<Remark>,
    known: &Known<'_>,
) -> Result<Vec<Remark>, WorkspaceError> {
    let Some(mut passing) = passing::changes(repository, base, head)? else {
        let reason = "has more commits or changes than are looked into one by one";
        return Ok(vec![Remark { path: ".".to_owned(), reason, line: None, commit: None }]);
    };
    passing.retain(|passing| passing.change.status != 'D');
    let files: Vec<RawChange> = passing
        .iter()
        .map(|passing| &passing.change)
        .filter(|change| change.new_mode == "120000" || change.new_mode.starts_with("100"))
        .cloned()
        .collect();
    let sizes = sizes(repository, files.iter().map(|file| file.new_id.as_str()))?;
    let contents = contents(repository, &files, &sizes)?;
    let mut seen: BTreeSet<String> = held.iter().map(|remark| remark.path.clone()).collect();
    let mut found = Vec::new();
    let mut hold = |path: String, reason, line, commit: &str| {
        if seen.insert(path.clone()) {
            found.push(Remark { path, reason, line, commit: Some(commit.to_owned()) });
        }
    };
    for PassingChange { commit, change } in &passing {
        let raw_path = String::from_utf8_lossy(&change.path);
        if let Some(reason) = named(&raw_path, change, rules).or_else(|| kind(change, &raw_path, &contents)) {
            hold(display(&change.path), reason, None, commit);
        }
        if change.new_mode.starts_with("100")
            && let Some(content) = contents.get(&change.new_id)
            && let Some(finding) = new_secrets(repository, change, content, known)?.into_iter().next()
        {
            hold(display(&change.path), finding.reason, Some(finding.line), commit);
        }
    }
    if let Some(last) = passing.iter().rfind(|passing| looks_embedded(&passing.change.path)) {
        // The parts of a repository may come in several commits, or be in the base already: all that was ever there is
        // taken together.
        let listing = Git::at(repository, "ls-tree").args(["-r", "-z", "--name-only", base]).output()?;
        let brought = passing.iter().map(|passing| passing.change.path.as_slice());
        for folder in bare_repositories(listing.split(|byte| *byte == 0).chain(brought)) {
            hold(display(&folder), EMBEDDED, None, &last.commit);
        }
    }
    Ok(found)
}

/// A path for people: one line, nothing hidden; bytes that are no UTF-8 as `\xNN`.
pub fn display(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(&sanitise(chunk.valid()).replace('\n', "\\n").replace('\t', "\\t"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

fn commits(
    repository: &Path,
    base: &str,
    head: &str,
    signers: &[String],
) -> Result<Vec<CommitSummary>, WorkspaceError> {
    let output = Git::at(repository, "log")
        .args(["-z", "--no-decorate", "--no-notes", "--no-mailmap", "--encoding=UTF-8"])
        .arg("--format=%H%x01%an%x01%s")
        .arg(format!("--max-count={COMMIT_LIMIT}"))
        .arg(format!("{base}..{head}"))
        .output()?;
    let text = String::from_utf8_lossy(&output);
    let mut commits: Vec<CommitSummary> = text
        .split('\0')
        .filter_map(|entry| {
            let mut fields = entry.splitn(3, '\u{1}');
            let id = fields.next().filter(|id| !id.is_empty())?.to_owned();
            let mut field = |most: usize| {
                let text: String = fields.next().unwrap_or_default().chars().take(most).collect();
                sanitise(&text).replace('\n', " ")
            };
            Some(CommitSummary {
                id,
                author: field(AUTHOR),
                subject: field(SUBJECT),
                body: String::new(),
                signature: None,
            })
        })
        .collect();
    let mut sizes = sizes(repository, commits.iter().map(|commit| commit.id.as_str()))?;
    // One with a message that long is nobody's work; where sessions sign, it counts as signed by somebody else.
    sizes.retain(|_, size| *size <= COMMIT_SIZE);
    let mut room = MESSAGES;
    let read: Vec<&str> = (commits.iter().map(|commit| commit.id.as_str()))
        .filter(|id| {
            let left = sizes.get(*id).and_then(|size| room.checked_sub(*size));
            room = left.unwrap_or(room);
            left.is_some()
        })
        .collect();
    let objects = objects(repository, read.into_iter())?;
    for commit in &mut commits {
        commit.body =
            objects.get(&commit.id).map_or_else(|| "(too long to be shown)".to_owned(), |object| body(object));
    }
    if !signers.is_empty() {
        let signers: Vec<_> = signers.iter().filter_map(|line| ssh_key::PublicKey::from_openssh(line).ok()).collect();
        for commit in &mut commits {
            let object = objects.get(&commit.id);
            let by = object.map_or(Signature::Other, |object| signature::of(object, &commit.id, &signers));
            commit.signature = Some(by);
        }
    }
    Ok(commits)
}

/// What a commit's message has after its first paragraph. Headers end with an empty line, and so does the paragraph that
/// git takes for the subject.
fn body(object: &[u8]) -> String {
    let text = String::from_utf8_lossy(object);
    let message = text.split_once("\n\n").map_or("", |(_, message)| message).trim_start_matches('\n');
    let body = message.split_once("\n\n").map_or("", |(_, body)| body).trim_end();
    let end = body.char_indices().map(|(at, _)| at).find(|at| *at >= MESSAGE).unwrap_or(body.len());
    let cut = if end < body.len() { "\n(cut)" } else { "" };
    sanitise(&format!("{}{cut}", &body[..end]))
}

type Counts = HashMap<Vec<u8>, (Option<u64>, Option<u64>)>;

/// Parses `diff-tree -z --numstat`: added and removed lines with a tab after each, or a minus where there are no lines, and the
/// path.
fn line_counts(output: &[u8]) -> Result<Counts, WorkspaceError> {
    let wrong = || WorkspaceError::Output("diff-tree --numstat");
    let mut counts = Counts::new();
    for entry in output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let mut fields = entry.splitn(3, |byte| *byte == b'\t');
        let mut number = || -> Result<Option<u64>, WorkspaceError> {
            let text = fields.next().and_then(|field| std::str::from_utf8(field).ok()).ok_or_else(wrong)?;
            if text == "-" { Ok(None) } else { text.parse().map(Some).map_err(|_| wrong()) }
        };
        let pair = (number()?, number()?);
        counts.insert(fields.next().ok_or_else(wrong)?.to_vec(), pair);
    }
    Ok(counts)
}

fn sizes<'a>(repository: &Path, ids: impl Iterator<Item = &'a str>) -> Result<HashMap<String, u64>, WorkspaceError> {
    let wanted: BTreeSet<&str> = ids.collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let output = Git::at(repository, "cat-file")
        .args(["--buffer", "--batch-check=%(objectname) %(objectsize)"])
        .input(lines(wanted.iter().copied()))
        .output()?;
    let wrong = || WorkspaceError::Output("cat-file --batch-check");
    String::from_utf8_lossy(&output)
        .lines()
        .map(|line| {
            let (id, size) = line.split_once(' ').ok_or_else(wrong)?;
            Ok((id.to_owned(), size.parse().map_err(|_| wrong())?))
        })
        .collect()
}

fn lines<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<u8> {
    ids.flat_map(|id| [id, "\n"]).collect::<String>().into_bytes()
}

/// The contents of new blobs, links first, as far as the limits go.
fn contents(
    repository: &Path,
    changes: &[RawChange],
    sizes: &HashMap<String, u64>,
) -> Result<HashMap<String, Vec<u8>>, WorkspaceError> {
    let mut chosen = BTreeSet::new();
    let mut total = 0;
    let links = changes.iter().filter(|change| change.new_mode == "120000");
    let files = changes.iter().filter(|change| change.new_mode.starts_with("100"));
    for (change, limit) in links.map(|link| (link, 4096)).chain(files.map(|file| (file, SCAN_FILE))) {
        let Some(size) = sizes.get(&change.new_id) else { continue };
        if *size <= limit && total + size <= SCAN_TOTAL && chosen.insert(change.new_id.as_str()) {
            total += size;
        }
    }
    objects(repository, chosen.into_iter())
}

/// Whole objects. Who asks has looked at their sizes.
fn objects<'a>(
    repository: &Path,
    ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Vec<u8>>, WorkspaceError> {
    let wanted = lines(ids);
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let output = Git::at(repository, "cat-file").args(["--buffer", "--batch"]).input(wanted).output()?;
    let wrong = || WorkspaceError::Output("cat-file --batch");
    let mut contents = HashMap::new();
    let mut rest = output.as_slice();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(wrong)?;
        let head = std::str::from_utf8(&rest[..end]).map_err(|_| wrong())?;
        let fields: Vec<&str> = head.split(' ').collect();
        let [id, _, size] = fields[..] else { return Err(wrong()) };
        let size: usize = size.parse().map_err(|_| wrong())?;
        let content = rest.get(end + 1..end + 1 + size).ok_or_else(wrong)?;
        contents.insert(id.to_owned(), content.to_vec());
        rest = rest.get(end + size + 2..).ok_or_else(wrong)?;
    }
    Ok(contents)
}

/// Which part of a repository a name could be: bits of 7.
fn repository_part(component: &[u8]) -> u8 {
    match hazard::normalise(&String::from_utf8_lossy(component)).as_str() {
        "head" => 1,
        "objects" => 2,
        "refs" => 4,
        _ => 0,
    }
}

fn looks_embedded(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|component| repository_part(component) != 0)
}

/// Folders of the head that git would take for a bare repository.
fn embedded_repositories(repository: &Path, head: &str, changes: &[RawChange]) -> Result<Vec<Vec<u8>>, WorkspaceError> {
    if !changes.iter().any(|change| change.status != 'D' && looks_embedded(&change.path)) {
        return Ok(Vec::new());
    }
    let listing = Git::at(repository, "ls-tree").args(["-r", "-z", "--name-only", head]).output()?;
    Ok(bare_repositories(listing.split(|byte| *byte == 0)))
}

/// Folders with `HEAD`, `objects/` and `refs/` side by side, among all these paths.
fn bare_repositories<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut found: BTreeMap<Vec<u8>, u8> = BTreeMap::new();
    for path in paths {
        let mut start = 0;
        for component in path.split(|byte| *byte == b'/') {
            let bit = repository_part(component);
            if bit != 0 {
                *found.entry(path[..start.max(1) - 1].to_vec()).or_default() |= bit;
            }
            start += component.len() + 1;
        }
    }
    found.into_iter().filter(|(_, bits)| *bits == 7).map(|(folder, _)| folder).collect()
}

/// How a difference is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffStyle {
    /// Changed lines by file.
    Stat,
    /// The whole patch.
    Patch,
    /// The paths alone.
    Names,
}

/// The difference as text, sanitised.
pub fn diff_text(repository: &Path, base: &str, head: &str, style: DiffStyle) -> Result<String, WorkspaceError> {
    if style == DiffStyle::Names {
        let output = tree_diff(repository, base, head, &["--raw"]).output()?;
        return Ok(parse_raw(&output)?.iter().map(|change| display(&change.path) + "\n").collect());
    }
    let shape = if style == DiffStyle::Stat { "--stat=100" } else { "--patch" };
    let output = Git::at(repository, "diff-tree")
        .args(["-r", "--no-renames", "--no-textconv", "--no-ext-diff", "--no-color", "--ignore-submodules=none", shape])
        .args([base, head])
        .limit(64 << 20)
        .output()?;
    Ok(sanitise(&String::from_utf8_lossy(&output)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_records_and_counts_of_one_output_apart() {
        let (id, zero) = ("a".repeat(40), "0".repeat(40));
        let text = format!(
            ":000000 100644 {zero} {id} A\01\t2\tx\0:100644 000000 {id} {zero} D\0:y\03\t0\t1\t2\tx\0-\t-\t:y\0"
        );
        let (changes, counts) = parse_listing(text.as_bytes()).unwrap();
        let paths: Vec<&[u8]> = changes.iter().map(|change| change.path.as_slice()).collect();
        assert_eq!(paths, [&b"1\t2\tx"[..], b":y"]);
        assert_eq!(counts[&b"1\t2\tx"[..]], (Some(3), Some(0)));
        assert_eq!(counts[&b":y"[..]], (None, None));
        assert_eq!(parse_listing(b"").unwrap().0, []);
    }

    #[test]
    fn reads_a_record_with_an_odd_name() {
        let id = "a".repeat(40);
        let text = format!(":000000 100644 {} {id} A\0a\n\u{1b}b\0", "0".repeat(40));
        let changes = parse_raw(text.as_bytes()).unwrap();
        assert_eq!((changes.len(), changes[0].status, changes[0].path.as_slice()), (1, 'A', b"a\n\x1bb".as_slice()));
        assert!(parse_raw(text.trim_end_matches('\0').trim_end_matches('b').as_bytes()).is_err());
        assert_eq!(display(&changes[0].path), "a\\n\\u{1b}b");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[:0-9a-f \\-\t\0A]{0,200}") {
            drop(parse_raw(&bytes));
            drop(parse_listing(&bytes));
            drop(parse_listing(text.as_bytes()));
        }

        #[test]
        fn every_path_comes_through(path in prop::collection::vec(1u8..=255, 1..40)) {
            let zero = "0".repeat(40);
            let mut bytes = format!(":000000 120000 {zero} {zero} A\0").into_bytes();
            bytes.extend(&path);
            bytes.push(0);
            prop_assert_eq!(&parse_raw(&bytes).unwrap()[0].path, &path);
        }
    }
}
