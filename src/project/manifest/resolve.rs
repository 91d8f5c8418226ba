//! Turns the tree of `sandbox.yaml` into a [`Manifest`]: every key, its rule and its advice.

use std::collections::BTreeMap;
use std::path::Path;

use super::credential;
use super::network;
use super::{Manifest, Resources, WorkspaceSpec};
use crate::credential::spec::{CredentialSpec, Delivery};
use crate::image::reference::{Digest, ImageChoice, ReferenceError};
use crate::network::policy::Policy;
use crate::project::name::{CredentialName, ProjectName};
use crate::project::port::PortForward;
use crate::project::preset::Preset;
use crate::project::problem::Place;
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::{Node, Value};
use crate::project::{preset, quantity};

/// Keys of the file.
pub(in crate::project) const ROOT: &[&str] = &[
    "version",
    "project",
    "agent",
    "command",
    "image",
    "profile",
    "workspace",
    "network",
    "ports",
    "environment",
    "credentials",
    "resources",
];
/// The most ports that `up` forwards.
pub(in crate::project) const PORTS_LIMIT: usize = 16;
/// Keys of `workspace`.
pub(in crate::project) const WORKSPACE: &[&str] =
    &["source", "branch", "depth", "include_uncommitted", "sparse", "submodules", "lfs", "sign", "home"];
/// Keys of `workspace.home`.
pub(in crate::project) const WORKSPACE_HOME: &[&str] = &["keep", "limit"];
/// The most paths of one list of `workspace`.
pub(in crate::project) const WORKSPACE_PATHS: usize = 100;
/// Keys of `resources`.
pub(in crate::project) const RESOURCES: &[&str] = &["cpus", "memory", "pids", "disk", "session"];

/// The manifest, or `None` with at least one problem in the reader.
pub(super) fn manifest(reader: &mut Reader, document: &Node, path: &Path, text: &str) -> Option<Manifest> {
    let fields = reader.fields(document, "the manifest", ROOT)?;
    let root = path.parent().unwrap_or(Path::new("")).to_owned();
    version(reader, &fields);
    let project = project(reader, &fields);
    let (preset, command) = agent(reader, &fields);
    let image = image(reader, &fields, preset.map_or("agent", |preset| preset.image));
    let profile = match fields.get("profile") {
        None => Some("default".to_owned()),
        Some(node) => reader.parsed(node, "`profile`", "strict, default, debug or browser", |text| {
            crate::profile::NAMES.contains(&text).then(|| text.to_owned())
        }),
    };
    let workspace = workspace(reader, &fields, &root);
    let (mut network, preset_files) = network::policy(reader, fields.get("network"), path);
    let ports = ports(reader, &fields);
    let mut environment = environment(reader, &fields);
    let credentials = credentials(reader, &fields, &root, &mut network);
    let keyed = preset.is_some_and(|preset| has_key(preset, &credentials));
    let of_key = preset.and_then(|preset| preset.key).filter(|_| keyed).map_or(&[] as &[_], |key| key.environment);
    for (name, value) in preset.map_or(&[] as &[_], |preset| preset.environment).iter().chain(of_key) {
        environment.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
    }
    let default = || preset.map_or(preset::SHELL.to_vec(), |preset| preset.command(keyed));
    let command = command.unwrap_or_else(|| default().into_iter().map(str::to_owned).collect());
    let resources = resources(reader, &fields);
    if !reader.problems.is_empty() {
        return None;
    }
    Some(Manifest {
        project: project?,
        root,
        agent: preset.map(|preset| preset.name.to_owned()),
        keyed,
        command,
        image: image?,
        profile: profile?,
        workspace,
        network,
        preset_files,
        ports,
        environment,
        credentials,
        resources,
        digest: Digest::of(text.as_bytes()),
        text: text.to_owned(),
    })
}

fn version(reader: &mut Reader, fields: &Fields<'_>) {
    match fields.get("version") {
        None => reader.report(Place::START, "the manifest has no `version`", "write `version: 1` as the first line"),
        Some(node) if matches!(node.value, Value::Integer(1)) => {}
        Some(node) => reader.report(
            node.place,
            "this version of sandbox reads manifests of version 1 only",
            "write `version: 1`, or use the version of sandbox that the manifest was written for",
        ),
    }
}

fn project(reader: &mut Reader, fields: &Fields<'_>) -> Option<ProjectName> {
    let Some(node) = fields.get("project") else {
        reader.report(fields.place, "the manifest has no `project`", "write `project: NAME`");
        return None;
    };
    let text = reader.text(node, "`project`", "a name such as payments-api")?;
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let remedy = "use 1 to 40 of a-z, 0-9 and inner hyphens, such as payments-api";
            reader.report(node.place, error.to_string(), remedy);
            None
        }
    }
}

fn agent(reader: &mut Reader, fields: &Fields<'_>) -> (Option<&'static Preset>, Option<Vec<String>>) {
    let preset = fields.get("agent").and_then(|node| {
        let names = preset::PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
        reader.parsed(node, "`agent`", &format!("one of {names}; or use `command: [program, argument]`"), preset::find)
    });
    (preset, fields.get("command").and_then(|node| reader.command(node, "`command`")))
}

/// Whether a credential stands in the variable by which the agent takes its key.
fn has_key(preset: &Preset, credentials: &BTreeMap<CredentialName, CredentialSpec>) -> bool {
    let variable = |spec: &CredentialSpec| match &spec.deliver {
        Delivery::Environment { variable } => Some(variable.clone()),
        Delivery::Broker { variable, .. } => variable.clone(),
        Delivery::File { .. } | Delivery::Git { .. } => None,
    };
    preset.key.is_some_and(|key| credentials.values().filter_map(variable).any(|found| found == key.variable))
}

fn image(reader: &mut Reader, fields: &Fields<'_>, default: &str) -> Option<ImageChoice> {
    let Some(node) = fields.get("image") else { return Some(ImageChoice::Definition(default.to_owned())) };
    let text = reader.text(node, "`image`", "a name in images/, Dockerfile.NAME, or registry/name@sha256:…")?;
    match text.parse() {
        Ok(choice) => Some(choice),
        Err(error) => {
            let remedy = match error {
                ReferenceError::Unpinned(_) => {
                    "add the digest: registry/name@sha256:…; a tag can point to something else tomorrow"
                }
                ReferenceError::Digest(_) => "write `sha256:` and 64 lower-case hexadecimal digits after the `@`",
                ReferenceError::Syntax(_) => {
                    "write a name in images/, Dockerfile.NAME, or registry/name@sha256:… without a tag"
                }
            };
            reader.report(node.place, error.to_string(), remedy);
            None
        }
    }
}

fn workspace(reader: &mut Reader, fields: &Fields<'_>, root: &Path) -> WorkspaceSpec {
    let mut spec = WorkspaceSpec::default();
    let Some(fields) = fields.get("workspace").and_then(|node| reader.fields(node, "`workspace`", WORKSPACE)) else {
        return spec;
    };
    if let Some(node) = fields.get("source") {
        spec.source = reader.inner_path(node, "`workspace.source`", root).unwrap_or_default();
    }
    if let Some(node) = fields.get("branch") {
        spec.branch = reader.parsed(node, "`workspace.branch`", "a branch name such as main", branch);
    }
    if let Some(node) = fields.get("depth") {
        spec.depth =
            reader.integer(node, "`workspace.depth`", 1..=1_000_000).and_then(|depth| u32::try_from(depth).ok());
    }
    if let Some(node) = fields.get("include_uncommitted") {
        spec.include_uncommitted = reader.boolean(node, "`workspace.include_uncommitted`").unwrap_or(false);
    }
    if let Some(node) = fields.get("sign") {
        spec.sign = reader.boolean(node, "`workspace.sign`").unwrap_or(false);
    }
    spec.sparse = repository_paths(reader, &fields, "sparse");
    spec.submodules = repository_paths(reader, &fields, "submodules");
    spec.lfs = repository_paths(reader, &fields, "lfs");
    if let Some(node) = fields.get("home") {
        (spec.keep_home, spec.home_limit) = workspace_home(reader, node);
    }
    spec
}

/// `keep`, `remove`, or both with a limit.
fn workspace_home(reader: &mut Reader, node: &Node) -> (bool, Option<u64>) {
    if !matches!(node.value, Value::Map(_)) {
        let keep = |text: &str| match text {
            "keep" => Some(true),
            "remove" => Some(false),
            _ => None,
        };
        let example = "keep, remove, or { keep: true, limit: 5GiB }";
        return (reader.parsed(node, "`workspace.home`", example, keep).unwrap_or(false), None);
    }
    let Some(fields) = reader.fields(node, "`workspace.home`", WORKSPACE_HOME) else { return (false, None) };
    let keep = fields.get("keep").and_then(|node| reader.boolean(node, "`workspace.home.keep`")).unwrap_or(false);
    let least = |text: &str| quantity::size(text).filter(|bytes| *bytes >= 1 << 20);
    let limit = fields
        .get("limit")
        .and_then(|node| reader.parsed(node, "`workspace.home.limit`", "a size from 1MiB on, such as 5GiB", least));
    (keep, limit)
}

/// A list of paths from the top of the repository, each as git writes it.
fn repository_paths(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> Vec<String> {
    let Some(node) = fields.get(key) else { return Vec::new() };
    let what = format!("`workspace.{key}`");
    let example = "paths from the top of the repository, such as [src/api, docs]";
    let Value::List(items) = &node.value else {
        reader.report(node.place, format!("{what} is {}, not a list", node.value.kind()), format!("write {example}"));
        return Vec::new();
    };
    if items.len() > WORKSPACE_PATHS {
        let message = format!("{what} has {} entries, at most {WORKSPACE_PATHS} are allowed", items.len());
        reader.report(node.place, message, "name folders above them");
        return Vec::new();
    }
    let plain = |text: &str| {
        let parts = || text.split('/');
        let odd = text.starts_with(['-', '~', '!', '#', '"']) || text.contains(['\\', '*', '?', '[']);
        let whole = parts().all(|part| !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(".git"));
        (!odd && whole && text.len() <= 1024).then(|| text.to_owned())
    };
    items.iter().filter_map(|item| reader.parsed(item, &format!("a path of {what}"), example, plain)).collect()
}

/// The ports to forward; each stands once on this machine.
fn ports(reader: &mut Reader, fields: &Fields<'_>) -> Vec<PortForward> {
    let Some(node) = fields.get("ports") else { return Vec::new() };
    let Value::List(items) = &node.value else {
        reader.report(node.place, format!("`ports` is {}, not a list", node.value.kind()), "write [3000]");
        return Vec::new();
    };
    if items.len() > PORTS_LIMIT {
        let message = format!("`ports` has {} entries, at most {PORTS_LIMIT} are allowed", items.len());
        reader.report(node.place, message, "forward the others with `sandbox port` when you need them");
        return Vec::new();
    }
    let mut found: Vec<PortForward> = Vec::new();
    for item in items {
        let forward: Option<PortForward> = match item.value {
            Value::Integer(number) => number.to_string().parse().ok(),
            Value::Text(ref text) => text.parse().ok(),
            _ => None,
        };
        let Some(forward) = forward else {
            let message = "an entry of `ports` is not a port of the agent's loopback";
            let remedy = "write a number such as 3000, or \"80:8080\" for another one on this machine";
            reader.report(item.place, message, remedy);
            continue;
        };
        if found.iter().any(|other| other.local == forward.local) {
            let message = format!("the port {} of this machine stands in `ports` twice", forward.local);
            reader.report(item.place, message, "write \"PORT:LOCAL\" with another LOCAL");
        }
        found.push(forward);
    }
    found
}

/// A branch name by the rules of `git check-ref-format --branch`, which also keep it from being taken for an option.
fn branch(text: &str) -> Option<String> {
    let odd = |character: char| character.is_whitespace() || "~^:?*[\\".contains(character);
    let refused = text.is_empty()
        || text.len() > 200
        || text.starts_with(['-', '/'])
        || text.ends_with(['/', '.'])
        || text == "@"
        || text.contains("..")
        || text.contains("//")
        || text.contains("@{")
        || text.chars().any(odd)
        || text.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock"));
    (!refused).then(|| text.to_owned())
}

/// Variables that would let a manifest steer programs around the containment's own settings.
fn reserved(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let prefixes = ["LD_", "GIT_", "SANDBOX_", "DOCKER_", "DYLD_", "GLIBC_", "MALLOC_"];
    let names = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "FTP_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "CARGO_HTTP_CAINFO",
        "PIP_CERT",
        "DENO_CERT",
        "AWS_CA_BUNDLE",
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "HTTPLIB2_CA_CERTS",
        "NIX_SSL_CERT_FILE",
        "CREDENTIALS_DIRECTORY",
        "HOME",
        "USER",
        "LOGNAME",
        "BASH_ENV",
        "ENV",
        "PROMPT_COMMAND",
        "NODE_OPTIONS",
    ];
    prefixes.iter().any(|prefix| upper.starts_with(prefix)) || names.contains(&upper.as_str())
}

fn environment(reader: &mut Reader, fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let Some(node) = fields.get("environment") else { return variables };
    let Value::Map(entries) = &node.value else {
        reader.report(node.place, "`environment` is not a map", "write `NAME: value` lines below it");
        return variables;
    };
    for (key, node) in entries {
        if !variable_name(&key.text) {
            let shown = key.text.chars().take(60).collect::<String>();
            let message = format!("`{}` is not the name of a variable", shown.escape_debug());
            reader.report(key.place, message, "use letters, digits and underscores, not starting with a digit");
        } else if reserved(&key.text) {
            let message = format!("the variable `{}` is set by the launcher or steers it", key.text);
            reader.report(key.place, message, "take it out; a manifest sets variables of the project only");
        } else if let Some(text) = reader.text(node, "the variable's value", "text") {
            if text.len() > 32 * 1024 {
                reader.report(node.place, "the variable's value is longer than 32 KiB", "put it into a file");
            }
            variables.insert(key.text.clone(), text.to_owned());
        }
    }
    variables
}

/// Whether a text can name an environment variable (POSIX, XBD section 8.1).
pub(super) fn variable_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a credential may be delivered in this variable.
pub(super) fn deliverable(name: &str) -> bool {
    variable_name(name) && !reserved(name) && name != "PATH"
}

fn credentials(
    reader: &mut Reader,
    fields: &Fields<'_>,
    root: &Path,
    network: &mut Policy,
) -> BTreeMap<CredentialName, CredentialSpec> {
    let mut credentials = BTreeMap::new();
    let Some(node) = fields.get("credentials") else { return credentials };
    let Value::Map(entries) = &node.value else {
        reader.report(node.place, "`credentials` is not a map", "write `NAME: { provider: store }` lines below it");
        return credentials;
    };
    for (key, node) in entries {
        match key.text.parse::<CredentialName>() {
            Err(error) => reader.report(
                key.place,
                error.to_string(),
                "it becomes a file name below /run/secrets: use a-z, 0-9, inner hyphens and underscores",
            ),
            Ok(name) => {
                if let Some(spec) = credential::spec(reader, &name, node, root) {
                    credential::link(reader, network, &name, &spec, node.place);
                    credentials.insert(name, spec);
                }
            }
        }
    }
    credentials
}

fn resources(reader: &mut Reader, fields: &Fields<'_>) -> Resources {
    let mut resources = Resources::default();
    let Some(fields) = fields.get("resources").and_then(|node| reader.fields(node, "`resources`", RESOURCES)) else {
        return resources;
    };
    if let Some(node) = fields.get("cpus") {
        resources.cpus = match node.value {
            Value::Integer(cpus @ 1..=1024) => Some(cpus as f64),
            Value::Float(cpus) if (0.1..=1024.0).contains(&cpus) => Some(cpus),
            _ => {
                let message = "`resources.cpus` is not a number of cores from 0.1 to 1024";
                reader.report(node.place, message, "write a number such as 2 or 1.5, without quotes");
                None
            }
        };
    }
    if let Some(node) = fields.get("memory") {
        // Below this the engine, or the agent's first command, fails with an error that names nothing.
        let least = |text: &str| quantity::size(text).filter(|bytes| *bytes >= 64 << 20);
        resources.memory = reader.parsed(node, "`resources.memory`", "a size from 64MiB on, such as 4GiB", least);
    }
    if let Some(node) = fields.get("pids") {
        resources.pids =
            reader.integer(node, "`resources.pids`", 16..=1_000_000).and_then(|pids| u32::try_from(pids).ok());
    }
    if let Some(node) = fields.get("disk") {
        let least = |text: &str| quantity::size(text).filter(|bytes| *bytes >= 64 << 20);
        resources.disk = reader.parsed(node, "`resources.disk`", "a size from 64MiB on, such as 20GiB", least);
    }
    if let Some(node) = fields.get("session") {
        resources.session = reader.parsed(node, "`resources.session`", "a duration such as 12h", quantity::duration);
    }
    resources
}
