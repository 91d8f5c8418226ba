//! What a repository is made of, as far as a first manifest has to know: its package managers, the registries that
//! their settings name, and the agents that have settings in it.
//!
//! It looks at names, also of folders a few steps down, and at few small files; it runs nothing and asks no network. What it proposes, a person reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::network::name::HostName;
use crate::project::name::ProjectName;
use crate::project::preset::{self, Preset};

/// The most bytes that are read of a file.
const READ_LIMIT: u64 = 256 << 10;
/// How far below the top folder files are looked for: `services/api/Cargo.toml` is one of depth two.
const DEPTH: usize = 3;
/// The most folders that are looked into, and the most entries that are read of all of them.
const FOLDER_LIMIT: usize = 1_000;
const ENTRY_LIMIT: usize = 50_000;
/// Folders with what package managers brought in or made, and not with parts of the project.
const BROUGHT_IN: &[&str] =
    &["node_modules", "vendor", "third_party", "target", "build", "dist", "out", "venv", "__pycache__", "testdata"];

/// A package manager: the files by which it is known, and the hosts that it downloads from.
struct Ecosystem {
    name: &'static str,
    files: &'static [&'static str],
    hosts: &'static [&'static str],
}

/// Each with the default hosts of its client: cargo's sparse index (RFC 2789) and crate files, npm's and Yarn's registry,
/// pip's index and file host, Go's proxy and checksum database (GOPROXY, GOSUMDB), RubyGems, Packagist, Maven Central and
/// Gradle's plugin portal, NuGet, Hex.
const ECOSYSTEMS: &[Ecosystem] = &[
    Ecosystem { name: "cargo", files: &["Cargo.toml"], hosts: &["index.crates.io", "static.crates.io"] },
    Ecosystem { name: "npm", files: &["package.json"], hosts: &["registry.npmjs.org"] },
    Ecosystem {
        name: "pip",
        files: &["pyproject.toml", "requirements.txt", "setup.py", "Pipfile", "uv.lock", "poetry.lock"],
        hosts: &["pypi.org", "files.pythonhosted.org"],
    },
    Ecosystem { name: "go", files: &["go.mod"], hosts: &["proxy.golang.org", "sum.golang.org"] },
    Ecosystem { name: "bundler", files: &["Gemfile"], hosts: &["rubygems.org", "index.rubygems.org"] },
    Ecosystem { name: "composer", files: &["composer.json"], hosts: &["repo.packagist.org"] },
    Ecosystem { name: "maven", files: &["pom.xml"], hosts: &["repo.maven.apache.org"] },
    Ecosystem {
        name: "gradle",
        files: &["build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"],
        hosts: &["repo.maven.apache.org", "plugins.gradle.org", "services.gradle.org"],
    },
    Ecosystem { name: "nuget", files: &["global.json", "nuget.config", "NuGet.Config"], hosts: &["api.nuget.org"] },
    Ecosystem { name: "hex", files: &["mix.exs"], hosts: &["hex.pm", "repo.hex.pm"] },
];

/// Files and folders by which an agent is known to be in use, the most certain first.
const AGENT_TRACES: &[(&str, &str)] = &[
    (".claude", "claude-code"),
    ("CLAUDE.md", "claude-code"),
    (".codex", "codex"),
    ("opencode.json", "opencode"),
    (".opencode", "opencode"),
    (".gemini", "gemini-cli"),
    ("GEMINI.md", "gemini-cli"),
    (".aider.conf.yml", "aider"),
    ("AGENTS.md", "codex"),
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// A name for the project; none when neither remote nor folder has a letter or digit.
    pub project: Option<ProjectName>,
    /// The agent in use, and the file that says so.
    pub agent: Option<(&'static Preset, &'static str)>,
    /// Hosts that package managers need, each with the file that says so, in the order of the ecosystems.
    pub hosts: Vec<(HostName, String)>,
    /// The host of the remote `origin`.
    pub remote: Option<HostName>,
}

/// Looks at a repository's top folder.
pub fn survey(root: &Path, remotes: &BTreeMap<String, String>) -> Survey {
    let origin = remotes.get("origin").or_else(|| remotes.values().next());
    let agent = AGENT_TRACES.iter().find_map(|(trace, agent)| {
        let preset = preset::find(agent)?;
        root.join(trace).symlink_metadata().ok().map(|_| (preset, *trace))
    });
    Survey {
        project: project_name(origin.map(String::as_str), root),
        agent,
        hosts: hosts(root),
        remote: origin.and_then(|url| host_of(url)),
    }
}

fn hosts(root: &Path) -> Vec<(HostName, String)> {
    let mut found: Vec<(HostName, String)> = Vec::new();
    let mut add = |host: &str, why: String| {
        if let Ok(name) = host.parse::<HostName>()
            && !found.iter().any(|(known, _)| *known == name)
        {
            found.push((name, why));
        }
    };
    let folders = folders(root);
    for ecosystem in ECOSYSTEMS {
        let first = |folder: &PathBuf| {
            let is_there = |file: &&&str| root.join(folder).join(file).is_file();
            ecosystem.files.iter().find(is_there).map(|file| (folder.clone(), folder.join(file)))
        };
        let Some((folder, file)) = folders.iter().find_map(first) else { continue };
        let mut configured = configured_registries(root, ecosystem.name);
        if configured.is_empty() && !folder.as_os_str().is_empty() {
            configured = configured_registries(&root.join(&folder), ecosystem.name);
        }
        let shown = file.to_string_lossy().escape_debug().to_string();
        if !configured.iter().any(|registry| registry.replaces) {
            for host in ecosystem.hosts {
                add(host, format!("{} ({shown})", ecosystem.name));
            }
        }
        for registry in configured {
            add(&registry.host, format!("{} ({})", ecosystem.name, registry.file));
        }
    }
    found
}

/// The folders that the project's own parts may be in, relative to the top, from there downwards and by name. Links are not
/// followed.
fn folders(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut entries = 0;
    let mut at = 0;
    while let Some(folder) = found.get(at).cloned() {
        at += 1;
        if folder.components().count() >= DEPTH || entries >= ENTRY_LIMIT {
            continue;
        }
        let Ok(listing) = fs::read_dir(root.join(&folder)) else { continue };
        let mut below = Vec::new();
        for entry in listing.flatten().take(ENTRY_LIMIT - entries) {
            entries += 1;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let own = !name.starts_with('.') && !BROUGHT_IN.contains(&name.as_ref());
            if own && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below.push(folder.join(entry.file_name()));
            }
        }
        below.sort();
        below.truncate(FOLDER_LIMIT.saturating_sub(found.len()));
        found.append(&mut below);
    }
    found
}

/// A registry that a client's own settings in the repository name.
struct Registry {
    host: String,
    file: &'static str,
    /// Whether it stands in place of the default one.
    replaces: bool,
}

fn configured_registries(root: &Path, ecosystem: &str) -> Vec<Registry> {
    let mut found = Vec::new();
    let mut read = |file: &'static str, parse: fn(&str) -> Option<(&str, bool)>| {
        for line in head(&root.join(file)).lines() {
            if let Some((url, replaces)) = parse(line.trim())
                && let Some(host) = host_of(url.trim().trim_matches(['"', '\'']))
            {
                found.push(Registry { host: host.to_string(), file, replaces });
            }
        }
    };
    match ecosystem {
        // npmrc(5): `registry=URL`, and `@scope:registry=URL` for the packages of a scope alone.
        "npm" => {
            read(".npmrc", |line| {
                let (key, value) = line.split_once('=')?;
                let key = key.trim_end();
                (key == "registry" || key.ends_with(":registry")).then_some((value, key == "registry"))
            });
            read(".yarnrc.yml", |line| line.strip_prefix("npmRegistryServer:").map(|value| (value, true)));
        }
        // pip's requirements file format, "Global options".
        "pip" => read("requirements.txt", |line| {
            let option = |name: &str| Some(line.strip_prefix(name)?.trim_start_matches([' ', '=']));
            let extra = option("--extra-index-url").map(|url| (url, false));
            extra.or_else(|| option("--index-url").or_else(|| option("-i ")).map(|url| (url, true)))
        }),
        _ => {}
    }
    found
}

/// The start of a small text file; empty when there is none.
fn head(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(READ_LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The host of a URL, or of git's short form `user@host:path`.
fn host_of(url: &str) -> Option<HostName> {
    let authority = match url.split_once("://") {
        Some(("http" | "https" | "ssh" | "git", rest)) => rest.split(['/', '?', '#']).next()?,
        Some(_) => return None,
        None => url.split_once(':').filter(|(host, _)| !host.contains('/'))?.0,
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    host.parse().ok().filter(|_| host.contains('.'))
}

/// A project's name from the last part of its remote's path, or else of its folder: what is no letter or digit becomes
/// a hyphen.
fn project_name(remote: Option<&str>, root: &Path) -> Option<ProjectName> {
    let last = remote.map(|url| url.trim_end_matches('/')).and_then(|url| url.rsplit(['/', ':']).next());
    let last = last.map(|name| name.strip_suffix(".git").unwrap_or(name).to_owned());
    let folder = root.file_name().map(|name| name.to_string_lossy().into_owned());
    let candidates = [last, folder];
    candidates.into_iter().flatten().find_map(|text| label(&text).parse().ok())
}

fn label(text: &str) -> String {
    let mut label = String::new();
    for character in text.chars() {
        match character.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => label.push(letter),
            _ if !label.is_empty() && !label.ends_with('-') => label.push('-'),
            _ => {}
        }
    }
    label.truncate(ProjectName::LIMIT);
    label.trim_end_matches('-').to_owned()
}

/// A manifest with the reasons for its lines, for a person to go through.
pub fn draft(project: &ProjectName, preset: &Preset, survey: &Survey) -> String {
    let mut text = String::from(
        "# What the sandbox of this project may do. Whatever is not named here is not there for the agent.\n\
         # `sandbox plan` shows what comes of it, and `sandbox trust` approves it.\n\
         version: 1\n",
    );
    let _ = writeln!(text, "project: {project}");
    let _ = writeln!(text, "agent: {}", preset.name);
    let mut hosts: Vec<(String, String)> =
        preset.hosts.iter().map(|host| ((*host).to_owned(), format!("the model of {}", preset.name))).collect();
    hosts.extend(survey.hosts.iter().map(|(host, why)| (host.to_string(), why.clone())));
    hosts.dedup_by(|one, other| one.0 == other.0);
    text.push_str("\n# The hosts that it may reach, on port 443 unless a port is named.\nnetwork:\n");
    if hosts.is_empty() {
        text.push_str("  allow: []\n");
    } else {
        text.push_str("  allow:\n");
    }
    let width = hosts.iter().map(|(host, _)| host.len()).max().unwrap_or_default();
    for (host, why) in &hosts {
        let _ = writeln!(text, "    - {host:width$}  # {why}");
    }
    if let Some(remote) = survey.remote.as_ref().filter(|_| !hosts.is_empty()) {
        let _ = write!(
            text,
            "    # Its commits come back to you by `sandbox pull`, so it needs your remote only to fetch or push itself:\n\
             \x20   # - {remote}\n"
        );
    }
    if let Some(key) = &preset.key {
        let _ = write!(
            text,
            "\n# A key that belongs to this project alone. `sandbox credential set {name}` asks for it and encrypts it; the gateway\n\
             # puts it into requests to its host, and the agent sees a stand-in.{login}\n\
             credentials:\n\
             \x20 {name}:\n\
             \x20   provider: store\n\
             \x20   max_age: 90d\n\
             \x20   deliver: {{ broker: {host}, {header}environment: {variable} }}\n",
            name = key.credential,
            login = if preset.login {
                "\n# For a log-in in place of a key: `sandbox credential login --help`."
            } else {
                ""
            },
            host = key.host,
            header = key.header.map(|header| format!("header: {header}, ")).unwrap_or_default(),
            variable = key.variable,
        );
    }
    text.push_str("\nresources: { cpus: 2, memory: 4GiB, disk: 20GiB }\n");
    text
}

#[cfg(test)]
mod tests;
