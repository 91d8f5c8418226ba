//! Reads one entry of `credentials`: provider, delivery, age.

use std::path::Path;

use super::resolve::{deliverable, variable_name};
use super::{aws, federation, github, oauth, openai, vault};
use crate::credential::spec::{CredentialSpec, Delivery, LoginAgent, OnExpiry, ProviderSpec, SharedWith};
use crate::network::name::HostPattern;
use crate::network::placement::Placement;
use crate::network::policy::{AllowRule, CredentialPlace, Policy};
use crate::project::name::{CredentialName, ProjectName};
use crate::project::problem::Place;
use crate::project::quantity;
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::{Node, Value};

/// Keys of a credential.
pub(in crate::project) const CREDENTIAL: &[&str] = &[
    "provider",
    "path",
    "variable",
    "command",
    "revoke_command",
    "rotate_command",
    "address",
    "namespace",
    "auth",
    "field",
    "fields",
    "ttl",
    "max_ttl",
    "policies",
    "project_id",
    "app",
    "installation",
    "repositories",
    "repository_ids",
    "permissions",
    "key_file",
    "key_command",
    "identity",
    "role",
    "region",
    "profile",
    "policy",
    "policy_arns",
    "tags",
    "external_id",
    "source_identity",
    "audience",
    "service_account",
    "scopes",
    "tenant",
    "client",
    "scope",
    "rule",
    "organization",
    "workspace",
    "agent",
    "client_id",
    "token_url",
    "token_request",
    "device_url",
    "authorize_url",
    "authorize_parameters",
    "redirect_url",
    "revoke_url",
    "deliver",
    "max_age",
    "on_expiry",
    "shared_with",
    "accept_personal",
    "hosts",
];
/// Those that are not of one provider.
const COMMON: &[&str] = &["provider", "deliver", "max_age", "on_expiry", "shared_with", "accept_personal", "hosts"];
/// Keys of `deliver`.
pub(in crate::project) const DELIVER: &[&str] = &["file", "git", "environment"];
/// Keys of `deliver` with `broker`; at most one of the middle five.
pub(in crate::project) const BROKER: &[&str] =
    &["broker", "header", "bearer", "basic", "query", "sigv4", "environment"];
/// Keys of `deliver.sigv4`.
pub(in crate::project) const SIGV4: &[&str] = &["service", "region"];
/// Keys of `shared_with`.
pub(in crate::project) const SHARED: &[&str] = &["projects", "reason"];

/// Hosts that a credential may be for.
const HOST_LIMIT: usize = 32;

/// The providers.
const PROVIDERS: &str =
    "store, env-file, exec, vault, github-app, aws-sts, openai-project, gcp, azure, anthropic-wif or oauth";

/// The credential, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, name: &CredentialName, node: &Node, root: &Path) -> Option<CredentialSpec> {
    let fields = reader.fields(node, &format!("the credential `{name}`"), CREDENTIAL)?;
    let provider = provider(reader, &fields, root);
    let deliver = match fields.get("deliver") {
        None => Some(Delivery::File { name: name.to_string() }),
        Some(node) => delivery(reader, node),
    };
    // Programs of AWS read it from a file, through a configuration that the launcher puts beside it, or the gateway signs.
    if let (Some(ProviderSpec::AwsSts(_)), Some(way), Some(node)) = (&provider, &deliver, fields.get("deliver"))
        && !matches!(way, Delivery::File { .. } | Delivery::Broker { placement: Placement::Sigv4 { .. }, .. })
    {
        let message = "a credential of `aws-sts` is JSON, which programs of AWS read from a file";
        reader.report(node.place, message, "write `deliver: { file: NAME }`, leave it out, or broker it with `sigv4`");
    }
    // Google's program asks about its token at a host of its own, where nobody puts the true one in.
    if let (Some(ProviderSpec::Oauth(oauth)), Some(Delivery::Broker { .. }), Some(node)) =
        (&provider, &deliver, fields.get("deliver"))
        && oauth.agent == Some(LoginAgent::GeminiCli)
    {
        let message = "`gemini-cli` shows its token to two hosts, so that it cannot be brokered for one";
        reader.report(node.place, message, "write `deliver: { file: NAME }`, with `hosts: [\"*.googleapis.com\"]`");
    }
    let max_age = match fields.get("max_age") {
        None => None,
        Some(node) => Some(reader.parsed(node, "`max_age`", "a duration such as 30d or 12h", quantity::duration)?),
    };
    let on_expiry = match fields.get("on_expiry") {
        None => OnExpiry::default(),
        Some(node) => reader.parsed(node, "`on_expiry`", "warn or stop", |text| match text {
            "warn" => Some(OnExpiry::Warn),
            "stop" => Some(OnExpiry::Stop),
            _ => None,
        })?,
    };
    let shared_with = fields.get("shared_with").and_then(|node| shared(reader, node));
    let accept_personal = fields.get("accept_personal").and_then(|node| reason(reader, node, "`accept_personal`"));
    let hosts = fields.get("hosts").map(|node| hosts(reader, node)).unwrap_or_default();
    if let (Some(Delivery::Broker { host, .. }), Some(node)) = (&deliver, fields.get("hosts")) {
        let message = format!("a credential that is brokered for `{host}` goes to that host alone");
        reader.report(node.place, message, "take `hosts` out");
    }
    Some(CredentialSpec {
        provider: provider?,
        deliver: deliver?,
        max_age,
        on_expiry,
        shared_with,
        accept_personal,
        hosts,
    })
}

/// The hosts that a credential may be sent to.
fn hosts(reader: &mut Reader, node: &Node) -> Vec<HostPattern> {
    let Value::List(items) = &node.value else {
        reader.report(node.place, "`hosts` is not a list", "write [api.example.com]");
        return Vec::new();
    };
    if items.is_empty() || items.len() > HOST_LIMIT {
        let message = format!("`hosts` has {} entries, 1 to {HOST_LIMIT} are allowed", items.len());
        reader.report(node.place, message, "name the hosts that take the credential, or take `hosts` out");
    }
    let example = "a host such as api.example.com or `*.example.com`";
    items.iter().filter_map(|item| reader.parsed(item, "a host", example, |text| text.parse().ok())).collect()
}

fn provider(reader: &mut Reader, fields: &Fields<'_>, root: &Path) -> Option<ProviderSpec> {
    let Some(node) = fields.get("provider") else {
        reader.report(fields.place, "a credential has no `provider`", format!("write `provider:` and {PROVIDERS}"));
        return None;
    };
    let kind = reader.text(node, "`provider`", PROVIDERS)?.to_owned();
    let allowed: &[&str] = match kind.as_str() {
        "store" => &["rotate_command"],
        "env-file" => &["path", "variable"],
        "exec" => &["command", "revoke_command"],
        "vault" => &["path", "address", "namespace", "auth", "field", "fields", "ttl", "max_ttl", "policies"],
        "github-app" => github::KEYS,
        "aws-sts" => aws::KEYS,
        "openai-project" => openai::KEYS,
        "gcp" => federation::GCP,
        "azure" => federation::AZURE,
        "anthropic-wif" => federation::ANTHROPIC,
        "oauth" => oauth::KEYS,
        other => {
            let shown = other.chars().take(60).collect::<String>();
            let message = format!("there is no provider `{}`", shown.escape_debug());
            reader.report(node.place, message, format!("write {PROVIDERS}"));
            return None;
        }
    };
    for key in CREDENTIAL.iter().filter(|key| !COMMON.contains(key) && !allowed.contains(key)) {
        if let Some(node) = fields.get(key) {
            let message = format!("the provider `{kind}` has no `{key}`");
            reader.report(node.place, message, "take it out, or name the provider that it belongs to");
        }
    }
    match kind.as_str() {
        "env-file" => {
            let path = fields.get("path").map(|node| reader.inner_path(node, "`path`", root));
            let variable = fields.get("variable").map(|node| {
                reader.parsed(node, "`variable`", "a variable's name such as API_KEY", |text| {
                    variable_name(text).then(|| text.to_owned())
                })
            });
            if path.is_none() || variable.is_none() {
                let remedy = "write { provider: env-file, path: .env.agent, variable: API_KEY }";
                reader.report(fields.place, "the provider `env-file` needs `path` and `variable`", remedy);
            }
            Some(ProviderSpec::EnvFile { path: path??, variable: variable?? })
        }
        "exec" => {
            let Some(node) = fields.get("command") else {
                let remedy = "write command: [program, argument]";
                reader.report(fields.place, "the provider `exec` needs `command`", remedy);
                return None;
            };
            let command = reader.command(node, "`command`");
            let revoke_command = match fields.get("revoke_command") {
                None => None,
                Some(node) => Some(reader.command(node, "`revoke_command`")?),
            };
            Some(ProviderSpec::Exec { command: command?, revoke_command })
        }
        "vault" => vault::spec(reader, fields, root).map(|spec| ProviderSpec::Vault(Box::new(spec))),
        "github-app" => github::spec(reader, fields, root).map(|spec| ProviderSpec::GithubApp(Box::new(spec))),
        "gcp" | "azure" | "anthropic-wif" => federation::spec(reader, fields, &kind),
        "aws-sts" => aws::spec(reader, fields).map(|spec| ProviderSpec::AwsSts(Box::new(spec))),
        "openai-project" => openai::spec(reader, fields, root).map(|spec| ProviderSpec::OpenaiProject(Box::new(spec))),
        "oauth" => oauth::spec(reader, fields, root).map(|spec| ProviderSpec::Oauth(Box::new(spec))),
        _ => {
            let rotate_command = match fields.get("rotate_command") {
                None => None,
                Some(node) => Some(reader.command(node, "`rotate_command`")?),
            };
            Some(ProviderSpec::Store { rotate_command })
        }
    }
}

fn delivery(reader: &mut Reader, node: &Node) -> Option<Delivery> {
    if let Value::Map(entries) = &node.value
        && entries.iter().any(|(key, _)| BROKER[..6].contains(&key.text.as_str()))
    {
        return broker(reader, node);
    }
    let fields = reader.fields(node, "`deliver`", DELIVER)?;
    let given: Vec<_> = DELIVER.iter().filter_map(|key| fields.get(key).map(|node| (*key, node))).collect();
    let [(key, node)] = given.as_slice() else {
        let message = "`deliver` names no way or more than one";
        reader.report(
            fields.place,
            message,
            "write one of `broker: HOST`, `file: NAME`, `git: HOST` or `environment: VARIABLE`",
        );
        return None;
    };
    match *key {
        "file" => {
            let example = "a plain file name of a-z, 0-9, `-` and `_`; it appears below /run/secrets";
            let name = reader.parsed(node, "`deliver.file`", example, |text| text.parse::<CredentialName>().ok())?;
            Some(Delivery::File { name: name.to_string() })
        }
        "git" => {
            let host = reader.parsed(node, "`deliver.git`", "a host such as git.example.com", |text| text.parse().ok());
            Some(Delivery::Git { host: host? })
        }
        _ => Some(Delivery::Environment { variable: environment(reader, node)? }),
    }
}

fn environment(reader: &mut Reader, node: &Node) -> Option<String> {
    let example = "a variable such as API_KEY that the launcher does not set itself";
    reader.parsed(node, "`deliver.environment`", example, |text| deliverable(text).then(|| text.to_owned()))
}

/// `broker: HOST` with the place of the credential in a request; a bearer token when none is named.
fn broker(reader: &mut Reader, node: &Node) -> Option<Delivery> {
    let fields = reader.fields(node, "`deliver` with `broker`", BROKER)?;
    let Some(host) = fields.get("broker") else {
        let message = "`deliver` says where in a request the credential stands, and not of which host";
        reader.report(fields.place, message, "write { broker: api.example.com, header: x-api-key }");
        return None;
    };
    let host = reader.parsed(host, "`deliver.broker`", "a host such as api.example.com", |text| text.parse().ok())?;
    let given: Vec<_> = BROKER[1..6].iter().filter_map(|key| fields.get(key).map(|node| (*key, node))).collect();
    let placement = match given.as_slice() {
        [] => Some(Placement::Bearer),
        [("bearer", node)] if matches!(node.value, Value::Bool(true)) => Some(Placement::Bearer),
        [("bearer", node)] => {
            reader.report(node.place, "`deliver.bearer` is not `true`", "write `bearer: true`, or leave it out");
            None
        }
        [("header", node)] => {
            reader.parsed(node, "`deliver.header`", "a header field such as x-api-key", Placement::header)
        }
        [("basic", node)] => reader.parsed(node, "`deliver.basic`", "a user such as x-access-token", Placement::basic),
        [("sigv4", node)] => signature(reader, node),
        [("query", node)] => reader.parsed(node, "`deliver.query`", "a parameter such as key", Placement::query),
        _ => {
            let message = "a brokered credential stands in more than one place";
            reader.report(fields.place, message, "write one of `header`, `bearer`, `basic`, `query` and `sigv4`");
            None
        }
    };
    let variable = match fields.get("environment") {
        None => None,
        Some(node) => Some(environment(reader, node)?),
    };
    Some(Delivery::Broker { host, placement: placement?, variable })
}

/// `sigv4: { service: NAME, region: NAME }`: the scope of the signatures.
fn signature(reader: &mut Reader, node: &Node) -> Option<Placement> {
    let fields = reader.fields(node, "`deliver.sigv4`", SIGV4)?;
    let (Some(service), Some(region)) = (fields.get("service"), fields.get("region")) else {
        let remedy = "write sigv4: { service: dynamodb, region: eu-central-1 }";
        reader.report(fields.place, "`deliver.sigv4` needs `service` and `region`", remedy);
        return None;
    };
    let service = reader.parsed(service, "`service`", "a service's name in signatures, such as s3", Placement::scope);
    let region = reader.parsed(region, "`region`", "a region such as eu-central-1", Placement::scope);
    Some(Placement::Sigv4 { service: service?, region: region? })
}

/// Tells the gateway where a credential may go, and has it put a brokered one into the requests to its host. The host
/// needs an entry of its own, so that it is plain for which host TLS is terminated.
pub(super) fn link(
    reader: &mut Reader,
    network: &mut Policy,
    name: &CredentialName,
    spec: &CredentialSpec,
    place: Place,
) {
    let file = match &spec.deliver {
        Delivery::File { name } => Some(name.clone()),
        Delivery::Git { .. } | Delivery::Environment { .. } => Some(name.to_string()),
        // The file that stands for a brokered log-in names the account, which goes to the same host.
        Delivery::Broker { .. } => spec.has_agent_file().then(|| name.to_string()),
    };
    if let Some(file) = file {
        let hosts = match &spec.deliver {
            Delivery::Broker { host, .. } => vec![HostPattern::Exact(host.clone())],
            _ => spec.places(),
        };
        network.credentials.insert(file, CredentialPlace { credential: name.to_string(), hosts });
    }
    let Delivery::Broker { host, .. } = &spec.deliver else { return };
    let own = |rule: &AllowRule| matches!(&rule.host, HostPattern::Exact(exact) if exact == host);
    if !network.allow.iter().any(own) {
        let message = format!("`{name}` is brokered for `{host}`, which has no entry of its own in `network.allow`");
        reader.report(place, message, format!("add `- {host}` to `network.allow`"));
        return;
    }
    let hidden =
        network.allow.iter().any(|rule| own(rule) && network.find(host, rule.port).is_some_and(|first| !own(first)));
    if hidden {
        let message =
            format!("an entry with `*` before the one of `{host}` would let requests through without `{name}`");
        reader.report(place, message, format!("move the entry of `{host}` in `network.allow` before it"));
        return;
    }
    for rule in network.allow.iter_mut().filter(|rule| own(rule)) {
        match &rule.broker {
            None => rule.broker = Some(name.to_string()),
            Some(other) => {
                let message = format!("`{host}` has the brokered credential `{other}` already");
                reader.report(place, message, "broker one credential for each host");
                return;
            }
        }
    }
}

fn shared(reader: &mut Reader, node: &Node) -> Option<SharedWith> {
    let fields = reader.fields(node, "`shared_with`", SHARED)?;
    let (Some(projects), Some(reason_node)) = (fields.get("projects"), fields.get("reason")) else {
        let remedy = "write shared_with: { projects: [NAME], reason: \"why\" }";
        reader.report(fields.place, "`shared_with` needs `projects` and `reason`", remedy);
        return None;
    };
    let Value::List(items) = &projects.value else {
        reader.report(projects.place, "`shared_with.projects` is not a list", "write [NAME, NAME]");
        return None;
    };
    let parse = |text: &str| text.parse::<ProjectName>().ok();
    let projects = items
        .iter()
        .filter_map(|item| reader.parsed(item, "a project", "a project's name", parse).map(|name| name.to_string()))
        .collect();
    Some(SharedWith { projects, reason: reason(reader, reason_node, "`shared_with.reason`")? })
}

fn reason(reader: &mut Reader, node: &Node, what: &str) -> Option<String> {
    reader.parsed(node, what, "a reason of 5 to 500 characters, in words", |text| {
        (5..=500).contains(&text.trim().chars().count()).then(|| text.trim().to_owned())
    })
}
