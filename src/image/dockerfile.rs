//! What a Dockerfile pulls in without a digest, and what makes two builds of it differ.
//!
//! A finding is an error when bytes come in that nothing pins, and a warning when a build can give something else without
//! any of them changing. The text is read and nothing of it is run; what an agent wrote may be read. What is needed to
//! have an engine build it is in [`recipe`], [`context`] and [`lock`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use parse_dockerfile::{Command, Flag, Instruction, Source, Span};
use regex::Regex;
use serde::Serialize;

use super::reference::Digest;

mod ambiguous;
pub mod context;
pub mod ignore;
pub mod lock;
pub mod recipe;

/// Bytes of a Dockerfile that anybody reads.
pub const LIMIT: u64 = 1 << 20;

/// Why a Dockerfile cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum DockerfileError {
    /// Not of the form.
    #[error("line {line}, column {column}: {said}")]
    Form {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser says.
        said: String,
    },
    /// A line that the launcher does not have built.
    #[error("line {line}, column {column}: {said} [{rule}]; {remedy}")]
    Refused {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        said: String,
        /// The rule's name.
        rule: &'static str,
        /// What to write instead.
        remedy: &'static str,
    },
}

/// Whether this is the name of a Dockerfile that a manifest may name as its image: `Dockerfile.` and a plain word, at the
/// project's root.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.strip_prefix("Dockerfile.").is_some_and(|word| {
        !word.is_empty() && word.len() <= 40 && !word.starts_with('-') && word.bytes().all(plain) && word != "lock"
    })
}

/// The names of all Dockerfiles at a project's root that a manifest may name, sorted.
pub fn names(root: Option<&std::path::Path>) -> BTreeSet<String> {
    let entries = root.into_iter().filter_map(|root| std::fs::read_dir(root).ok()).flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_name(name)).collect()
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something comes in that no digest pins.
    Error,
    /// Two builds of the same bytes may differ.
    Warning,
}

/// Something that a Dockerfile should not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// A short name that does not change.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: &'static str,
    /// Where it is in the text.
    #[serde(skip)]
    pub span: Span,
}

/// A sign in a shell's commands that builds differ.
struct Sign {
    rule: &'static str,
    severity: Severity,
    pattern: &'static str,
    message: &'static str,
    remedy: &'static str,
}

/// Signs are looked for in the text of commands, not in a parsed shell: they are about habits, and no wall.
const SIGNS: &[Sign] = &[
    Sign {
        rule: "pipe-to-shell",
        severity: Severity::Error,
        pattern: r"\b(curl|wget)\b[^\n;&]*\|\s*(sudo\s+)?(env\s+)?([\w/.-]*/)?(ba|da|z|k)?sh\b",
        message: "runs what a server sends at that moment",
        remedy: "fetch it into a file, compare it with `sha256sum --check`, and run it then",
    },
    Sign {
        rule: "remote-script",
        severity: Severity::Error,
        pattern: r"\b(ba|da|z|k)?sh\b\s+(-c\s+)?[\x22']?(<\(|\$\()\s*(curl|wget)\b",
        message: "runs what a server sends at that moment",
        remedy: "fetch it into a file, compare it with `sha256sum --check`, and run it then",
    },
    Sign {
        rule: "apt-snapshot",
        severity: Severity::Warning,
        pattern: r"\bapt(-get)?\s+([\w=:/.-]+\s+)*(install|upgrade|full-upgrade|dist-upgrade)\b",
        message: "installs what the mirror has on that day",
        remedy: "have the packages in `debian:` of the base's definition, or name a day of snapshot.debian.org as the source",
    },
    Sign {
        rule: "time",
        severity: Severity::Warning,
        pattern: r"(^|[\s;&|(`])date(\s|$|\)|`)|\$EPOCHSECONDS\b",
        message: "writes the time of the build",
        remedy: "use SOURCE_DATE_EPOCH: `date --date=@$SOURCE_DATE_EPOCH`",
    },
    Sign {
        rule: "random",
        severity: Severity::Warning,
        pattern: r"/dev/u?random\b|\$RANDOM\b|\bopenssl\s+(rand|genrsa|genpkey|req)\b|\bssh-keygen\b|\buuidgen\b",
        message: "makes something that no other build makes",
        remedy: "make it when the sandbox starts; a key in an image is everybody's key",
    },
    Sign {
        rule: "clone",
        severity: Severity::Warning,
        pattern: r"\bgit\s+clone\b",
        message: "takes the branch as it is on that day",
        remedy: "fetch one commit by its full id: `git fetch --depth 1 URL ID && git checkout ID`",
    },
    Sign {
        rule: "pip-hashes",
        severity: Severity::Warning,
        pattern: r"\bpip3?\s+([\w=:/.-]+\s+)*install\b",
        message: "installs versions that the index chooses",
        remedy: "use `pip install --require-hashes --requirement FILE`, or `pypi:` in a definition",
    },
    Sign {
        rule: "npm-install",
        severity: Severity::Warning,
        pattern: r"\bnpm\s+([\w=:/.-]+\s+)*(install|i|add)\b",
        message: "installs versions that the registry chooses",
        remedy: "use `npm ci` with a package-lock.json, or `npm:` in a definition",
    },
];

/// Folders that images have; the first is the root.
const USUAL: &[&str] = &[
    "",
    ".",
    "/etc",
    "/home",
    "/home/agent",
    "/opt",
    "/root",
    "/srv",
    "/usr/lib",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/share",
    "/usr/share",
    "/var/lib",
    "/workspace",
];

static PATTERNS: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| SIGNS.iter().map(|sign| Regex::new(sign.pattern).ok()).collect());

/// Reads a Dockerfile and gives what is wrong with it, in the order of the text. `images` are the names that stand for an
/// image of this project, which a lock pins.
///
/// # Errors
/// When the text is not a Dockerfile.
pub fn findings(text: &str, images: &BTreeSet<String>) -> Result<Vec<Finding>, DockerfileError> {
    Ok(read(text, images)?.findings)
}

/// Reads a Dockerfile; the findings are in the order of the text.
fn read<'a>(text: &'a str, images: &'a BTreeSet<String>) -> Result<Reader<'a>, DockerfileError> {
    let file = parse_dockerfile::parse(text).map_err(|error| DockerfileError::Form {
        line: error.line(),
        column: error.column(),
        said: error.to_string().chars().take(300).collect::<String>().escape_debug().to_string(),
    })?;
    let mut reader = Reader {
        text,
        images,
        arguments: BTreeMap::new(),
        stages: Vec::new(),
        user: false,
        findings: Vec::new(),
        uses: Uses::default(),
    };
    if let Some(syntax) = &file.parser_directives.syntax {
        let remedy = "leave the line out: what the engine itself reads is enough";
        reader.limit(syntax.value.span.clone(), "another program is to read this file", remedy);
        reader.image(syntax.value.value, syntax.value.span.clone(), "the program that reads this file");
    }
    for (span, message, remedy) in ambiguous::places(text, &file) {
        reader.find(span, Severity::Error, "ambiguous", message.to_owned(), remedy);
    }
    for instruction in &file.instructions {
        reader.instruction(instruction);
    }
    reader.findings.sort_by_key(|finding| (finding.span.start, finding.rule));
    Ok(reader)
}

/// An image that a Dockerfile names, which is neither one of its stages nor `scratch`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ImageUse {
    /// The image, arguments filled in.
    image: String,
    /// Where it is written.
    span: Span,
}

/// What a build of a Dockerfile takes in.
#[derive(Debug, Default)]
struct Uses {
    /// Images, in the order of the text.
    images: Vec<ImageUse>,
    /// The image below each stage, as an index; none is `scratch`.
    bases: Vec<Option<usize>>,
    /// Paths of the context, as written.
    sources: Vec<(String, Span)>,
    /// Lines that are well pinned, and that the launcher still does not have built.
    limits: Vec<Finding>,
}

struct Reader<'a> {
    text: &'a str,
    images: &'a BTreeSet<String>,
    /// Arguments before the first stage, which alone count in FROM, with their defaults.
    arguments: BTreeMap<String, Option<String>>,
    /// Names of the stages so far; each also has its number.
    stages: Vec<Option<String>>,
    /// Whether this stage has named a user other than root.
    user: bool,
    findings: Vec<Finding>,
    uses: Uses,
}

impl Reader<'_> {
    fn find(&mut self, span: Span, severity: Severity, rule: &'static str, message: String, remedy: &'static str) {
        let finding = self.finding(span, severity, rule, message, remedy);
        self.findings.push(finding);
    }

    /// Notes a line that the launcher does not have built.
    fn limit(&mut self, span: Span, message: &str, remedy: &'static str) {
        let finding = self.finding(span, Severity::Error, "launcher", message.to_owned(), remedy);
        self.uses.limits.push(finding);
    }

    fn finding(
        &self,
        span: Span,
        severity: Severity,
        rule: &'static str,
        message: String,
        remedy: &'static str,
    ) -> Finding {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Finding { line, column, severity, rule, message, remedy, span }
    }

    fn instruction(&mut self, instruction: &Instruction<'_>) {
        match instruction {
            Instruction::Arg(argument) if self.stages.is_empty() => {
                // One instruction may declare several.
                for word in argument.arguments.value.split_whitespace() {
                    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
                    let value = value.map(|value| value.trim_matches(['"', '\'']).to_owned());
                    self.arguments.insert(name.to_owned(), value);
                }
            }
            Instruction::From(from) => {
                if let Some((_, span)) = flag(&from.options, "platform") {
                    let remedy = "leave it out: an image is built for the machine's own architecture";
                    self.limit(span, "a platform is chosen", remedy);
                }
                let base = match self.substituted(&from.image.value) {
                    Some(image) => {
                        self.image(&image, from.image.span.clone(), "the base");
                        self.base(&image)
                    }
                    None => {
                        self.find(
                            from.image.span.clone(),
                            Severity::Error,
                            "unpinned",
                            format!("the base `{}` is decided by who builds", shown(&from.image.value)),
                            "write the image with its digest, or an ARG with such a default before the first FROM",
                        );
                        None
                    }
                };
                self.uses.bases.push(base);
                self.stages.push(from.as_.as_ref().map(|(_, name)| name.value.to_lowercase()));
                self.user = false;
            }
            Instruction::Copy(copy) => {
                self.source_of(&copy.options);
                self.copy_options(&copy.options, &["from", "chown"]);
                if let Some((_, span)) = flag(&copy.options, "chown").filter(|_| !is_below_usual(&copy.dest.value)) {
                    self.find(
                        span,
                        Severity::Warning,
                        "copy-owner",
                        "gives a folder that it makes above another folder to an owner that depends on the builder"
                            .to_owned(),
                        "make the folders above before, with `install --directory --owner`",
                    );
                }
                self.sources(&copy.src, &copy.copy.span, flag(&copy.options, "from").is_none());
            }
            Instruction::Add(add) => {
                self.source_of(&add.options);
                if let Some(owner) = add.options.iter().find(|option| option.name.value == "chown") {
                    let remedy = "use COPY, or unpack the archive with RUN";
                    self.limit(
                        owner.name.span.clone(),
                        "an owner, which builders give to what is unpacked or not",
                        remedy,
                    );
                }
                self.copy_options(&add.options, &["from", "chown", "checksum"]);
                let sum = flag(&add.options, "checksum").is_some_and(|(sum, _)| sum.parse::<Digest>().is_ok());
                for source in &add.src {
                    if let Source::Path(path) = source {
                        self.addition(&path.value, path.span.clone(), sum);
                    }
                }
                self.sources(&add.src, &add.add.span, flag(&add.options, "from").is_none());
            }
            Instruction::Run(run) => {
                if let Some(option) = run.options.first() {
                    let span = option.name.span.clone();
                    self.limit(
                        span,
                        "an option of RUN, which only BuildKit knows",
                        "leave it out: an image is the same whoever builds",
                    );
                }
                if !run.here_docs.is_empty() {
                    let remedy = "write a file, COPY it and run it, or join the commands with `&&`";
                    self.limit(run.run.span.clone(), "a here-document, which only BuildKit knows", remedy);
                }
                for option in run.options.iter().filter(|option| option.name.value == "mount") {
                    let Some(value) = &option.value else { continue };
                    let from = value.value.split(',').find_map(|part| part.trim().strip_prefix("from="));
                    if let Some(from) = from {
                        let from = from.trim_matches('"').to_owned();
                        self.stage_or_image(&from, value.span.clone(), "the image of the mount");
                    }
                }
                self.commands(&run.arguments);
                for here in &run.here_docs {
                    self.signs(&here.value, here.span.clone());
                }
            }
            Instruction::User(user) => {
                let name = user.arguments.value.split(':').next().unwrap_or_default().trim();
                self.user = !matches!(name, "" | "0" | "root");
            }
            Instruction::Workdir(folder) if self.user => {
                // https://github.com/moby/moby/issues/36677
                let (span, said) = (folder.workdir.span.clone(), "makes a folder whose owner depends on the builder");
                let remedy = "put WORKDIR before USER, and make the folder with `install --directory --owner`";
                self.limit(span.clone(), said, remedy);
                self.find(
                    span,
                    Severity::Warning,
                    "workdir-owner",
                    format!("{said}: root's for one, the user's for the other"),
                    remedy,
                );
            }
            Instruction::Volume(volume) => self.find(
                volume.volume.span.clone(),
                Severity::Error,
                "volume",
                "declares a volume, which the launcher refuses".to_owned(),
                "leave VOLUME out: a sandbox has volumes of its own",
            ),
            Instruction::Onbuild(on_build) => {
                // What it says is done by a later FROM, with the stages of another file.
                self.find(
                    on_build.onbuild.span.clone(),
                    Severity::Warning,
                    "onbuild",
                    "is done by whoever builds on this image, with what they have".to_owned(),
                    "write the instruction into the Dockerfile that needs it",
                );
                self.limit(on_build.onbuild.span.clone(), "ONBUILD is not kept", "leave it out");
                self.instruction(&on_build.instruction);
            }
            _ => {}
        }
    }

    /// The flag `--from` of COPY and ADD.
    fn source_of(&mut self, options: &[Flag<'_>]) {
        if let Some((from, span)) = flag(options, "from") {
            let (from, span) = (from.to_owned(), span);
            self.stage_or_image(&from, span, "what is copied");
        }
    }

    /// Options of COPY and ADD other than those that both builders know.
    fn copy_options(&mut self, options: &[Flag<'_>], known: &[&str]) {
        for option in options.iter().filter(|option| !known.contains(&option.name.value.as_ref())) {
            let remedy = "leave it out; RUN can change what was copied";
            self.limit(option.name.span.clone(), "an option that only BuildKit knows", remedy);
        }
    }

    /// What COPY or ADD take; a path of the context unless it is of another stage or image.
    fn sources(&mut self, sources: &[Source<'_>], keyword: &Span, of_context: bool) {
        for source in sources.iter().filter(|_| of_context) {
            match source {
                Source::Path(path) => {
                    let (text, span) = (path.value.to_string(), path.span.clone());
                    if text.contains('$') {
                        self.limit(span, "a path with a variable", "write the path out: only what is named is sent");
                    } else if text.contains("://") || text.starts_with("git@") || text.ends_with(".git") {
                        // The engine itself fetches it, whatever network the build has.
                        let remedy = "have the file beside the Dockerfile, or fetch it with RUN and compare its digest";
                        self.limit(span, "an address, which the engine would fetch outside of the build", remedy);
                    } else {
                        self.uses.sources.push((text, span));
                    }
                }
                Source::HereDoc(_) => {
                    let remedy = "have the file beside the Dockerfile";
                    self.limit(keyword.clone(), "a here-document, which only BuildKit knows", remedy);
                }
                _ => {}
            }
        }
    }

    /// The image that is below a stage on this base, as an index of those that are used.
    fn base(&self, reference: &str) -> Option<usize> {
        let stage = reference.to_lowercase();
        // A later stage of the same name hides an earlier one.
        if let Some(index) = self.stages.iter().rposition(|name| name.as_deref() == Some(stage.as_str())) {
            return self.uses.bases.get(index).copied().flatten();
        }
        self.uses.images.iter().rposition(|used| used.image == reference)
    }

    /// A source of ADD: a file of the context, an archive of it, a URL or a git repository.
    fn addition(&mut self, source: &str, span: Span, sum: bool) {
        let repository = source.starts_with("git@")
            || source.starts_with("git://")
            || source.contains(".git#")
            || source.ends_with(".git");
        if repository {
            let commit = source.rsplit_once('#').map(|(_, reference)| reference.split(':').next().unwrap_or_default());
            let full = |id: &str| matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !commit.is_some_and(full) {
                self.find(
                    span,
                    Severity::Error,
                    "unpinned-add",
                    format!("`{}` is what its branch is on that day", shown(source)),
                    "put `#` and the full id of a commit behind it",
                );
            }
        } else if (source.starts_with("http://") || source.starts_with("https://") || source.contains('$')) && !sum {
            self.find(
                span,
                Severity::Error,
                "unpinned-add",
                format!("`{}` is whatever its server sends", shown(source)),
                "add `--checksum=sha256:…`",
            );
        }
    }

    /// What is copied or mounted from: a stage by its number, or what FROM takes, which has no numbers.
    fn stage_or_image(&mut self, reference: &str, span: Span, role: &str) {
        if !reference.parse::<usize>().is_ok_and(|number| number < self.stages.len()) {
            self.image(reference, span, role);
        }
    }

    /// A reference to an image: a stage, `scratch`, an image of the project, or one with its digest.
    fn image(&mut self, reference: &str, span: Span, role: &str) {
        let stage = reference.to_lowercase();
        if self.stages.iter().flatten().any(|name| *name == stage) || reference == "scratch" {
            return;
        }
        self.uses.images.push(ImageUse { image: reference.to_owned(), span: span.clone() });
        if self.images.contains(reference) {
            return;
        }
        let pinned = reference
            .rsplit_once('@')
            .is_some_and(|(name, digest)| !name.is_empty() && !name.contains('$') && digest.parse::<Digest>().is_ok());
        if !pinned {
            self.find(
                span,
                Severity::Error,
                "unpinned",
                format!("{role} `{}` has no digest, so it is another one tomorrow", shown(reference)),
                "write a tag and run `sandbox image lock DOCKERFILE`, which notes its digest, or put `@sha256:…` behind it",
            );
        }
    }

    /// A text with the arguments' defaults in it. `None` when one has no default, or is used in a way that only a
    /// builder can tell.
    fn substituted(&self, text: &str) -> Option<String> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            let word = |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
            let (name, after) = match after.strip_prefix('{') {
                Some(inner) => inner.split_once('}')?,
                None => after.split_at(word(after)),
            };
            result.push_str(self.arguments.get(name)?.as_deref()?);
            rest = after;
        }
        result.push_str(rest);
        Some(result)
    }

    fn commands(&mut self, command: &Command<'_>) {
        match command {
            Command::Shell(text) => self.signs(text.value, text.span.clone()),
            Command::Exec(words) => {
                let words_text: Vec<&str> = words.value.iter().map(|word| word.value.as_ref()).collect();
                self.signs(&words_text.join(" "), words.span.clone());
            }
            _ => {}
        }
    }

    /// The signs in a text of commands; each rule once an instruction, at the line where it is if the text is as written.
    fn signs(&mut self, commands: &str, span: Span) {
        let written = self.text.get(span.clone()) == Some(commands);
        let continued = commands.replace("\\\r\n", "   ").replace("\\\n", "  ");
        for (sign, pattern) in SIGNS.iter().zip(PATTERNS.iter()) {
            let Some(found) = pattern.as_ref().and_then(|pattern| pattern.find(&continued)) else { continue };
            let matched = found.as_str();
            if sign.rule == "pip-hashes" && continued.contains("--require-hashes")
                || sign.rule == "apt-snapshot"
                    && (continued.contains("snapshot.debian.org") || matched.contains("--dry-run"))
                || sign.rule == "time"
                    && continued[found.start()..]
                        .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
                        .starts_with("date --date=@")
            {
                continue;
            }
            // Replaced line ends are as long as they were, so places in one text are places in the other.
            let skipped = matched.len()
                - matched.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/' && c != '$').len();
            let start = if written { span.start + found.start() + skipped } else { span.start };
            let end = if written { span.start + found.end() } else { span.end };
            let (severity, rule, remedy) = (sign.severity, sign.rule, sign.remedy);
            self.find(start..end, severity, rule, sign.message.to_owned(), remedy);
        }
    }
}

fn flag<'a>(options: &'a [Flag<'_>], name: &str) -> Option<(&'a str, Span)> {
    let option = options.iter().find(|option| option.name.value == name)?;
    option.value.as_ref().map(|value| (value.value.as_ref(), value.span.clone()))
}

/// Whether the folder above a destination is one that images have, so that COPY makes none but the last.
fn is_below_usual(destination: &str) -> bool {
    let path = destination.trim_end_matches('/');
    match path.rsplit_once('/') {
        // In the working folder, which WORKDIR has made.
        None => true,
        Some((above, _)) => USUAL.contains(&above),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(120).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests;
