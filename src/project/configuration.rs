//! The user's own configuration: how much a manifest may ask for on this machine.
//!
//! It is `config.yaml` in the launcher's configuration folder (`$XDG_CONFIG_HOME/sandbox`, by default
//! `~/.config/sandbox`). Without the file, and for every key that it lacks, the defaults hold:
//!
//! ```yaml
//! maximum: { cpus: 16, memory: 64GiB, pids: 8192, disk: 200GiB }
//! network: { allow_private: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, "fc00::/7"] }
//! ports: { local: ["3000-3999", "4200", "4321", "5173", "8000-8999"] }
//! credentials: { store: repository, identity: file }
//! review: { held_back: [], shown_first: [] }
//! ```
//!
//! A manifest comes from a repository and is untrusted; this file is the user's, so it is what a manifest is measured
//! by. It cannot widen what no manifest may have (loopback, link-local and metadata addresses, host paths).

use std::io::Read as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::discovery;
use super::manifest::Manifest;
use super::path_patterns::PathPattern;
use super::port::PortRange;
use super::problem::{ManifestError, Place, Problem};
use super::quantity::{self, show_size};
use super::reader::{Fields, Reader};
use super::yaml::{self, Node, Value};
use crate::credential::spec::KeySource;
use crate::network::proxy::{UpstreamProxy, is_user};

/// The file's name, in the launcher's configuration folder.
pub const FILE_NAME: &str = "config.yaml";

/// Keys of the file.
const ROOT: &[&str] = &["maximum", "network", "ports", "credentials", "review"];
/// Keys of `ports`.
const PORTS: &[&str] = &["local"];
/// Keys of `maximum`.
const MAXIMUM: &[&str] = &["cpus", "memory", "pids", "disk"];
/// Keys of `network`.
const NETWORK: &[&str] = &["allow_private", "authorities", "proxy", "no_proxy", "proxy_log_in"];
/// Keys of `network.proxy_log_in`.
const LOG_IN: &[&str] = &["user", "command", "file"];
/// Keys of `credentials`.
const CREDENTIALS: &[&str] = &["store", "issuer", "identity"];
/// Keys of `review`.
const REVIEW: &[&str] = &["held_back", "shown_first"];

/// Where servers of developers usually listen. A manifest must not take a port on which a program of yours expects one of
/// yours, such as a database's.
const DEVELOPMENT: &[&str] = &["3000-3999", "4200", "4321", "5173", "8000-8999"];

/// Entries that a list may have.
const LIST_LIMIT: usize = 200;

/// The largest file of certificate authorities, in bytes.
const AUTHORITIES_LIMIT: u64 = 256 << 10;
/// Private networks: RFC 1918, RFC 6598 and RFC 4193.
const PRIVATE: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConfigurationError(#[from] pub ManifestError);

/// What the user permits on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// The most that one sandbox may have.
    pub maximum: Maximum,
    /// The private networks that a manifest may open, in `allow_private`.
    pub allow_private: Vec<IpNet>,
    /// Certificate authorities to trust beside the web's, in PEM.
    pub authorities: Option<String>,
    /// The proxy through which the gateway goes; the environment's when the file does not say.
    pub proxy: ProxyChoice,
    /// The log-in at a proxy that the file names.
    pub proxy_log_in: Option<LogInSource>,
    /// The ports of this machine that a manifest may take, in `ports`.
    pub ports: Vec<PortRange>,
    /// Where new credentials of the embedded store are kept.
    pub store: StorePlace,
    /// The address under which the documents of the sandboxes' identity are published, if they are.
    pub issuer: Option<String>,
    /// Whether the age identity is in the desktop's keyring rather than in a file.
    pub keyring: bool,
    /// Globs of paths that `pull` holds back, besides those that it always holds back.
    pub held_back: Vec<PathPattern>,
    /// Globs of paths that `pull` shows first, besides those that it always shows first.
    pub shown_first: Vec<PathPattern>,
}

/// The most that one sandbox may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Maximum {
    /// Processor time, in cores.
    pub cpus: f64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Disk for workspace and home together, in bytes.
    pub disk: u64,
}

/// Which proxy the gateway goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyChoice {
    /// The one that `HTTPS_PROXY` names, if there is one.
    Environment,
    /// None, whatever the environment says.
    Direct,
    /// This one.
    Named(UpstreamProxy),
}

/// A log-in at the company's proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogInSource {
    /// The user name.
    pub user: String,
    /// Where the password comes from.
    pub password: KeySource,
}

/// Where the embedded store keeps its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorePlace {
    /// In the project's repository, encrypted to its recipients: a team shares them.
    Repository,
    /// In the launcher's state folder, on this machine alone.
    State,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            maximum: Maximum { cpus: 16.0, memory: 64 << 30, pids: 8192, disk: 200 << 30 },
            allow_private: PRIVATE.iter().filter_map(|range| range.parse().ok()).collect(),
            authorities: None,
            proxy: ProxyChoice::Environment,
            proxy_log_in: None,
            ports: DEVELOPMENT.iter().filter_map(|range| PortRange::parse(range)).collect(),
            store: StorePlace::Repository,
            issuer: None,
            keyring: false,
            held_back: Vec::new(),
            shown_first: Vec::new(),
        }
    }
}

/// Reads `config.yaml` in the launcher's configuration folder; the defaults when there is none.
///
/// # Errors
/// When the file cannot be read, is too large, or has a key or a value that is not known.
pub fn load(config_folder: &Path) -> Result<Configuration, ConfigurationError> {
    let path = config_folder.join(FILE_NAME);
    let read = |source| ManifestError::Read { path: path.clone(), source };
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Configuration::default()),
        other => other.map_err(read)?,
    };
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a larger file is noticed without being read.
    file.take(yaml::SIZE_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| read(std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error())))?;
    parse(&text, &path)
}

fn parse(text: &str, path: &Path) -> Result<Configuration, ConfigurationError> {
    let mut configuration = Configuration::default();
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(configuration);
    }
    let document = yaml::parse(text).map_err(|problem| ManifestError::invalid(path, text, vec![problem]))?;
    let mut reader = Reader::default();
    if let Some(fields) = reader.fields(&document, "the configuration", ROOT) {
        maximum(&mut reader, &fields, &mut configuration.maximum);
        if let Some(fields) = fields.get("network").and_then(|node| reader.fields(node, "`network`", NETWORK)) {
            if let Some(node) = fields.get("allow_private") {
                configuration.allow_private =
                    list(&mut reader, node, "`network.allow_private`", "10.20.0.0/16", |text| {
                        text.parse::<IpNet>().ok().filter(|network| network.trunc() == *network)
                    });
            }
            if let Some(node) = fields.get("authorities") {
                configuration.authorities = authorities(&mut reader, node);
            }
            let log_in = fields.get("proxy_log_in").and_then(|node| log_in(&mut reader, node));
            configuration.proxy = proxy(&mut reader, &fields, log_in.is_some());
            configuration.proxy_log_in = log_in;
        }
        if let Some(fields) = fields.get("ports").and_then(|node| reader.fields(node, "`ports`", PORTS))
            && let Some(node) = fields.get("local")
        {
            configuration.ports = list(&mut reader, node, "`ports.local`", "\"3000-3999\"", PortRange::parse);
        }
        if let Some(fields) =
            fields.get("credentials").and_then(|node| reader.fields(node, "`credentials`", CREDENTIALS))
        {
            credentials(&mut reader, &fields, &mut configuration);
        }
        if let Some(fields) = fields.get("review").and_then(|node| reader.fields(node, "`review`", REVIEW)) {
            if let Some(node) = fields.get("held_back") {
                configuration.held_back =
                    list(&mut reader, node, "`review.held_back`", "\"deploy/**\"", PathPattern::parse);
            }
            if let Some(node) = fields.get("shown_first") {
                configuration.shown_first =
                    list(&mut reader, node, "`review.shown_first`", "\"deploy/**\"", PathPattern::parse);
            }
        }
    }
    if reader.problems.is_empty() {
        return Ok(configuration);
    }
    Err(ManifestError::invalid(path, text, reader.problems).into())
}

fn credentials(reader: &mut Reader, fields: &Fields<'_>, configuration: &mut Configuration) {
    if let Some(node) = fields.get("store") {
        let place = reader.parsed(node, "`credentials.store`", "repository or state", |text| match text {
            "repository" => Some(StorePlace::Repository),
            "state" => Some(StorePlace::State),
            _ => None,
        });
        configuration.store = place.unwrap_or(configuration.store);
    }
    if let Some(node) = fields.get("identity") {
        let keyring = reader.parsed(node, "`credentials.identity`", "file or keyring", |text| match text {
            "file" => Some(false),
            "keyring" => Some(true),
            _ => None,
        });
        configuration.keyring = keyring.unwrap_or(configuration.keyring);
    }
    if let Some(node) = fields.get("issuer") {
        // "The Issuer Identifier is a case sensitive URL using the https scheme that contains scheme, host, and
        // optionally, port number and path components" (OpenID Connect Discovery 1.0, section 2).
        let example = "an address such as https://identity.example.com/sandbox, without `/` at its end";
        configuration.issuer = reader.parsed(node, "`credentials.issuer`", example, |text| {
            let rest = text.strip_prefix("https://")?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
            let whole = !rest.is_empty() && !rest.starts_with(['/', ':']) && !rest.ends_with('/') && text.len() <= 200;
            (whole && rest.bytes().all(plain)).then(|| text.to_owned())
        });
    }
}

fn maximum(reader: &mut Reader, fields: &Fields<'_>, maximum: &mut Maximum) {
    let Some(fields) = fields.get("maximum").and_then(|node| reader.fields(node, "`maximum`", MAXIMUM)) else { return };
    if let Some(node) = fields.get("cpus") {
        match node.value {
            Value::Integer(cpus @ 1..=1024) => maximum.cpus = cpus as f64,
            Value::Float(cpus) if (0.1..=1024.0).contains(&cpus) => maximum.cpus = cpus,
            _ => reader.report(
                node.place,
                "`maximum.cpus` is not a number of cores from 0.1 to 1024",
                "write a number such as 8, without quotes",
            ),
        }
    }
    for (key, bytes) in [("memory", &mut maximum.memory), ("disk", &mut maximum.disk)] {
        if let Some(node) = fields.get(key)
            && let Some(size) = reader.parsed(node, &format!("`maximum.{key}`"), "a size such as 32GiB", quantity::size)
        {
            *bytes = size;
        }
    }
    if let Some(node) = fields.get("pids")
        && let Some(pids) = reader.integer(node, "`maximum.pids`", 16..=1_000_000)
    {
        maximum.pids = u32::try_from(pids).unwrap_or(maximum.pids);
    }
}

/// The company's proxy.
fn proxy(reader: &mut Reader, fields: &Fields<'_>, log_in: bool) -> ProxyChoice {
    let example = "http://proxy.example.com:3128, or none";
    let direct = fields.get("no_proxy").map(|node| {
        list(reader, node, "`network.no_proxy`", "intern.example.com", |text| text.trim_start_matches('.').parse().ok())
    });
    let Some(node) = fields.get("proxy") else {
        for key in ["no_proxy", "proxy_log_in"] {
            if let Some(node) = fields.get(key) {
                let message = format!("`network.{key}` stands without `proxy`");
                reader.report(node.place, message, format!("write `proxy: {example}`"));
            }
        }
        return ProxyChoice::Environment;
    };
    match reader.text(node, "`network.proxy`", example) {
        Some("none") => return ProxyChoice::Direct,
        Some(text) => match UpstreamProxy::read(text, direct.unwrap_or_default()) {
            Ok((proxy, None)) => return ProxyChoice::Named(UpstreamProxy { log_in, ..proxy }),
            // A file that is copied and backed up is no place for a password.
            Ok((_, Some(_))) => reader.report(
                node.place,
                "`network.proxy` has a user name or password in it",
                "take it out and write proxy_log_in: { user: NAME, command: [program, argument] }",
            ),
            // The text is not shown: it may hold a password.
            Err(error) => {
                reader.report(
                    node.place,
                    format!("`network.proxy` cannot be used: {error}"),
                    format!("write {example}"),
                );
            }
        },
        None => {}
    }
    ProxyChoice::Environment
}

/// `{ user: NAME, command: […] }`, or with `file` for the password.
fn log_in(reader: &mut Reader, node: &Node) -> Option<LogInSource> {
    let fields = reader.fields(node, "`network.proxy_log_in`", LOG_IN)?;
    let password = match (fields.get("command"), fields.get("file")) {
        (Some(node), None) => KeySource::Command(reader.command(node, "`network.proxy_log_in.command`")?),
        (None, Some(node)) => {
            let example = "an absolute path, or one below ~/";
            let place =
                |text: &str| Some(PathBuf::from(text)).filter(|path| path.is_absolute() || path.starts_with("~"));
            KeySource::File(reader.parsed(node, "`network.proxy_log_in.file`", example, place)?)
        }
        _ => {
            let message = "`network.proxy_log_in` has no password, or more than one";
            reader.report(fields.place, message, "write one of `command: [program, argument]` and `file: ~/PATH`");
            return None;
        }
    };
    let Some(user) = fields.get("user") else {
        reader.report(fields.place, "`network.proxy_log_in` has no `user`", "write { user: NAME, command: [program] }");
        return None;
    };
    let user = reader.parsed(user, "`network.proxy_log_in.user`", "a user name without a colon", |text| {
        is_user(text).then(|| text.to_owned())
    })?;
    Some(LogInSource { user, password })
}

/// The certificates of a PEM file (RFC 7468), and nothing else that the file may hold, such as a key.
fn authorities(reader: &mut Reader, node: &Node) -> Option<String> {
    let what = "`network.authorities`";
    let example = "the absolute path of a PEM file such as /etc/ssl/company.pem";
    let path =
        reader.parsed(node, what, example, |text| Some(PathBuf::from(text)).filter(|path| path.is_absolute()))?;
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(AUTHORITIES_LIMIT + 1).read_to_string(&mut text));
    let certificates = match read {
        Err(error) => Err(error.to_string()),
        Ok(length) if length as u64 > AUTHORITIES_LIMIT => Err(format!("it has more than {AUTHORITIES_LIMIT} bytes")),
        Ok(_) => pem::parse_many(&text).map_err(|error| error.to_string()),
    };
    match certificates {
        Ok(mut certificates) => {
            certificates.retain(|block| block.tag() == "CERTIFICATE");
            if !certificates.is_empty() {
                let form = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
                return Some(pem::encode_many_config(&certificates, form));
            }
            reader.report(node.place, format!("the file of {what} has no certificate"), format!("write {example}"));
        }
        Err(error) => {
            reader.report(
                node.place,
                format!("the file of {what} cannot be used: {error}"),
                format!("write {example}"),
            );
        }
    }
    None
}

/// A list whose every item `parse` understands.
fn list<T>(reader: &mut Reader, node: &Node, what: &str, example: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let Value::List(items) = &node.value else {
        reader.report(node.place, format!("{what} is {}, not a list", node.value.kind()), format!("write [{example}]"));
        return Vec::new();
    };
    if items.len() > LIST_LIMIT {
        reader.report(
            node.place,
            format!("{what} has {} entries, at most {LIST_LIMIT} are allowed", items.len()),
            "write fewer, wider ones",
        );
        return Vec::new();
    }
    items.iter().filter_map(|item| reader.parsed(item, what, example, &parse)).collect()
}

/// The manifest when the user's configuration permits all that it asks for. A limit that it leaves to its profile, and
/// of which the profile gives more than is permitted, becomes the most that is permitted.
///
/// # Errors
/// When the manifest asks for more than is permitted: each time at its own line.
pub fn restrict(mut manifest: Manifest, configuration: &Configuration) -> Result<Manifest, ManifestError> {
    let excesses = excesses(&manifest, configuration);
    if !excesses.is_empty() {
        return Err(refusal(&manifest, excesses));
    }
    manifest.network.authorities.clone_from(&configuration.authorities);
    if let ProxyChoice::Named(proxy) = &configuration.proxy {
        manifest.network.proxy = Some(proxy.clone());
    }
    // A profile that is not there is told by whoever loads it.
    if let Ok(profile) = crate::profile::load(&manifest.profile) {
        let maximum = &configuration.maximum;
        let resources = &mut manifest.resources;
        if profile.limits.millicpus as f64 / 1000.0 > maximum.cpus {
            resources.cpus.get_or_insert(maximum.cpus);
        }
        if profile.limits.memory > maximum.memory {
            resources.memory.get_or_insert(maximum.memory);
        }
        if profile.limits.pids > maximum.pids {
            resources.pids.get_or_insert(maximum.pids);
        }
        if profile.disk > maximum.disk {
            resources.disk.get_or_insert(maximum.disk);
        }
    }
    Ok(manifest)
}

/// Something that a manifest asks for and that the configuration does not permit.
struct Excess {
    /// Where it stands: keys and numbers of list items, from the top.
    path: Vec<Step>,
    message: String,
    remedy: String,
}

#[derive(Clone, Copy)]
enum Step {
    Key(&'static str),
    Item(usize),
    /// The item on this line: an entry of a preset has no number of its own.
    Line(usize),
}

fn excesses(manifest: &Manifest, configuration: &Configuration) -> Vec<Excess> {
    let asked = &manifest.resources;
    let maximum = &configuration.maximum;
    let mut found = Vec::new();
    let mut limit = |key: &'static str, exceeds: bool, most: String| {
        if exceeds {
            found.push(Excess {
                path: vec![Step::Key("resources"), Step::Key(key)],
                message: format!("`resources.{key}` is more than your configuration permits"),
                remedy: format!("write at most {most}, or raise `maximum.{key}` in your {FILE_NAME}"),
            });
        }
    };
    limit("cpus", asked.cpus.is_some_and(|cpus| cpus > maximum.cpus), maximum.cpus.to_string());
    limit("memory", asked.memory.is_some_and(|bytes| bytes > maximum.memory), show_size(maximum.memory));
    limit("pids", asked.pids.is_some_and(|pids| pids > maximum.pids), maximum.pids.to_string());
    limit("disk", asked.disk.is_some_and(|bytes| bytes > maximum.disk), show_size(maximum.disk));
    for rule in &manifest.network.allow {
        let line = rule.origin.as_deref().and_then(|origin| origin.rsplit(':').next()?.parse().ok()).unwrap_or(0);
        for range in &rule.allow_private {
            if !configuration.allow_private.iter().any(|permitted| permitted.contains(range)) {
                found.push(Excess {
                    path: vec![Step::Key("network"), Step::Key("allow"), Step::Line(line), Step::Key("allow_private")],
                    message: format!("your configuration does not permit the private network `{range}`"),
                    remedy: format!("take it out, or add it to `network.allow_private` in your {FILE_NAME}"),
                });
            }
        }
    }
    for (index, forward) in manifest.ports.iter().enumerate() {
        if !configuration.ports.iter().any(|range| range.contains(forward.local)) {
            found.push(Excess {
                path: vec![Step::Key("ports"), Step::Item(index)],
                message: format!("your configuration does not permit the port {} of this machine", forward.local),
                remedy: format!(
                    "write \"PORT:LOCAL\" with another LOCAL, or add it to `ports.local` in your {FILE_NAME}"
                ),
            });
        }
    }
    found
}

/// The refusal with the places, for which the text is read once more.
fn refusal(manifest: &Manifest, excesses: Vec<Excess>) -> ManifestError {
    let document = yaml::parse(&manifest.text).ok();
    let problems = excesses.into_iter().map(|excess| {
        let place = document.as_ref().map_or(Place::START, |document| place(document, &excess.path));
        Problem::new(place, excess.message, excess.remedy)
    });
    let path: PathBuf = manifest.root.join(discovery::FILE_NAME);
    ManifestError::invalid(&path, &manifest.text, problems.collect())
}

/// Where the value at a path stands; its nearest parent's place when it is not there.
fn place(document: &Node, path: &[Step]) -> Place {
    let mut node = document;
    for step in path {
        let next = match (step, &node.value) {
            (Step::Key(key), Value::Map(entries)) => {
                entries.iter().find(|(name, _)| name.text == *key).map(|(_, node)| node)
            }
            (Step::Item(index), Value::List(items)) => items.get(*index),
            (Step::Line(line), Value::List(items)) => items.iter().find(|item| item.place.line == *line),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node.place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::manifest;

    fn configured(text: &str) -> Result<Configuration, ConfigurationError> {
        parse(text, Path::new("/nowhere/config.yaml"))
    }

    #[test]
    fn a_proxy_is_named_with_its_exceptions_or_none_is() {
        let proxy = |network: &str| configured(&format!("network: {{ {network} }}\n")).map(|read| read.proxy);
        assert_eq!(proxy("allow_private: []").unwrap(), ProxyChoice::Environment);
        assert_eq!(proxy("proxy: none").unwrap(), ProxyChoice::Direct);
        let named = "proxy: \"http://proxy.acme.example:3128\", no_proxy: [.intern.acme.example]";
        let ProxyChoice::Named(named) = proxy(named).unwrap() else { panic!("no proxy") };
        assert_eq!(named.direct[0].as_str(), "intern.acme.example");
        let configuration = Configuration { proxy: ProxyChoice::Named(named.clone()), ..Configuration::default() };
        assert_eq!(restrict(asked(""), &configuration).unwrap().network.proxy, Some(named));
        let with = "proxy: \"https://p.example:443\", proxy_log_in: { user: ada, command: [pass, show, proxy] }";
        let ProxyChoice::Named(named) = proxy(with).unwrap() else { panic!("no proxy") };
        assert!(named.log_in && named.to_string() == "https://p.example:443");
        for (network, part) in [
            ("no_proxy: [a.example]", "without `proxy`"),
            ("proxy: \"ftp://proxy.acme.example:21\"", "http, https or socks5"),
            ("proxy: \"http://me:hunter2@proxy.acme.example:3128\"", "user name or password"),
            ("proxy_log_in: { user: ada, file: /x }", "without `proxy`"),
            ("proxy: \"http://p.example:1\", proxy_log_in: { user: ada }", "no password"),
            ("proxy: \"http://p.example:1\", proxy_log_in: { user: \"a:b\", file: /x }", "a:b"),
            ("proxy: \"http://p.example:1\", proxy_log_in: { user: ada, file: x }", "proxy_log_in.file"),
            ("proxy: \"http://127.0.0.1:3128\"", "loopback"),
            ("proxy: 3128", "not text"),
        ] {
            let error = proxy(network).unwrap_err();
            let said = error.0.problems().iter().map(|problem| problem.message.clone()).collect::<String>();
            assert!(said.contains(part) && !said.contains("hunter2"), "{network}: {said}");
        }
    }

    fn asked(body: &str) -> Manifest {
        let text = format!("version: 1\nproject: demo\n{body}");
        manifest::parse(&text, Path::new("/nowhere/sandbox.yaml")).unwrap()
    }

    #[test]
    fn the_defaults_hold_without_a_file_and_for_keys_that_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), Configuration::default());
        std::fs::write(folder.path().join(FILE_NAME), "# nothing yet\n\n").unwrap();
        assert_eq!(load(folder.path()).unwrap(), Configuration::default());
        std::fs::write(folder.path().join(FILE_NAME), "maximum: { cpus: 2 }\n").unwrap();
        let read = load(folder.path()).unwrap();
        assert_eq!(read.maximum, Maximum { cpus: 2.0, ..Configuration::default().maximum });
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        for source in [include_str!("configuration.rs"), include_str!("../../docs/configuration.md")] {
            let text: String = source
                .lines()
                .map(|line| line.trim_start_matches("//! "))
                .skip_while(|line| *line != "```yaml")
                .skip(1)
                .take_while(|line| *line != "```")
                .flat_map(|line| [line, "\n"])
                .collect();
            assert!(text.contains("maximum:") && text.contains("review:"), "{text}");
            assert_eq!(configured(&text).unwrap(), Configuration::default());
        }
    }

    #[test]
    fn refuses_what_it_does_not_know_at_its_line() {
        for (text, line, part) in [
            ("maximum: { cpus: 2 }\nmaximun: {}\n", 2, "did you mean `maximum`?"),
            ("maximum:\n  memory: 4GB\n", 2, "4GB"),
            ("network: { allow_private: 10.0.0.0/8 }\n", 1, "not a list"),
            ("network: { allow_private: [10.0.0.1/8] }\n", 1, "10.0.0.1/8"),
            ("credentials: { store: cloud }\n", 1, "repository or state"),
            ("credentials: { identity: vault }\n", 1, "file or keyring"),
            ("credentials: { issuer: http://id.example.com }\n", 1, "http://id.example.com"),
            ("credentials:\n  issuer: https://id.example.com/\n", 2, "without `/` at its end"),
            ("review: { held_back: [\"a[\"] }\n", 1, "a["),
        ] {
            let error = configured(text).unwrap_err();
            let problem = &error.0.problems()[0];
            assert_eq!(problem.line, line, "{text}");
            assert!(format!("{} {}", problem.message, problem.remedy).contains(part), "{problem:?}");
        }
    }

    #[test]
    fn a_manifest_that_asks_for_more_is_refused_at_its_own_line() {
        let manifest = asked(
            "resources:\n  cpus: 3\n  memory: 4GiB\nnetwork:\n  allow:\n    - a.example\n    - host: b.example\n      allow_private: 10.1.0.0/16\n",
        );
        let permitted = Configuration::default();
        assert!(restrict(manifest.clone(), &permitted).is_ok());
        let narrow =
            configured("maximum: { cpus: 2, memory: 4GiB }\nnetwork: { allow_private: [192.168.0.0/16] }\n").unwrap();
        let error = restrict(manifest, &narrow).unwrap_err();
        let lines: Vec<usize> = error.problems().iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [4, 10], "{error:?}");
        assert!(error.problems()[0].remedy.contains("at most 2,"));
        assert!(error.problems()[1].message.contains("10.1.0.0/16"));
    }

    #[test]
    fn a_manifest_takes_no_port_of_this_machine_that_is_not_permitted() {
        let manifest = asked("ports:\n  - 3000\n  - 5432\n  - \"5432:8080\"\n");
        let error = restrict(manifest.clone(), &Configuration::default()).unwrap_err();
        let lines: Vec<usize> = error.problems().iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [5], "{error:?}");
        let none = configured("ports: { local: [] }\n").unwrap();
        assert_eq!(restrict(manifest.clone(), &none).unwrap_err().problems().len(), 3);
        let wide = configured("ports: { local: [\"1-65535\"] }\n").unwrap();
        assert!(restrict(manifest, &wide).is_ok());
        assert!(configured("ports: { local: [\"9-1\"] }\n").is_err());
    }

    #[test]
    fn a_profile_never_gives_more_than_is_permitted() {
        let small = configured("maximum: { memory: 1GiB, disk: 5GiB }\n").unwrap();
        let resources = restrict(asked(""), &small).unwrap().resources;
        assert_eq!((resources.memory, resources.disk), (Some(1 << 30), Some(5 << 30)));
        assert_eq!((resources.cpus, resources.pids), (None, None));
        let resources = restrict(asked("resources: { memory: 512MiB }\n"), &small).unwrap().resources;
        assert_eq!(resources.memory, Some(512 << 20));
    }
}
