//! The JSON Schema of `sandbox.yaml`, for editors: what the keys are called, what they mean and which values they take.
//!
//! The parser decides: it checks more than a schema can say, such as whether a path leaves the project.

use serde_json::{Map, Value, json};

use super::manifest::network::REQUEST_LIMIT;
use super::manifest::resolve::PORTS_LIMIT;
use super::network_preset::VALUE_LIMIT;
use super::preset;
use super::{CredentialName, ProjectName};

mod workspace;

/// Where the schema of this version is published, for `# yaml-language-server: $schema=`.
pub const ADDRESS: &str = "https://raw.githubusercontent.com/sandbox-dev/sandbox/main/docs/sandbox.schema.json";

const SIZE: &str = "^[0-9]+(KiB|MiB|GiB|TiB)$";
const DURATION: &str = "^[0-9]+[smhd]$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]{0,99}$";
/// A host name, a wildcard below one, an IPv4 address, or an IPv6 address in brackets. The parser is stricter.
const HOST: &str = r"^((\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\])$";

/// The schema of the manifest, in JSON Schema draft 2020-12.
pub fn manifest() -> Value {
    let presets: Vec<&str> = preset::PRESETS.iter().map(|preset| preset.name).collect();
    let mut schema = object(
        "What a project asks for: image, agent, workspace, network, credentials and limits.",
        &["version", "project"],
        vec![
            ("version", json!({ "const": 1, "description": "The version of this format." })),
            ("project", text("The project's name: a DNS label.", &label(ProjectName::LIMIT, ""))),
            (
                "agent",
                json!({ "enum": presets, "description": "A preset: the agent's command and image. Its hosts are to be listed in `network`." }),
            ),
            ("command", command("What `sandbox up` runs, in place of the preset's command. There is no shell.")),
            (
                "image",
                json!({
                    "type": "string",
                    "minLength": 1,
                    "description": "A name in images/, Dockerfile.NAME at the project's root, or registry/name@sha256:…; a tag is refused, since it can point to something else tomorrow.",
                    "examples": ["agent"]
                }),
            ),
            (
                "profile",
                json!({ "enum": crate::profile::NAMES, "default": "default", "description": "The confinement profile." }),
            ),
            ("workspace", workspace::workspace()),
            ("network", network()),
            (
                "ports",
                json!({
                    "type": "array",
                    "maxItems": PORTS_LIMIT,
                    "description": "Ports of the agent's loopback that `sandbox up` forwards to this machine's loopback, as PORT or \"PORT:LOCAL\".",
                    "items": { "anyOf": [
                        { "type": "integer", "minimum": 1, "maximum": 65_535 },
                        { "type": "string", "pattern": "^[0-9]{1,5}(:[0-9]{1,5})?$" }
                    ] },
                    "examples": [[3000, "80:8080"]]
                }),
            ),
            (
                "environment",
                json!({
                    "type": "object",
                    "description": "Variables for the agent that are not secret. Those that the launcher sets, or that steer a program around it, are refused.",
                    "propertyNames": { "pattern": VARIABLE },
                    "additionalProperties": { "type": "string", "maxLength": 32_768 }
                }),
            ),
            (
                "credentials",
                json!({
                    "type": "object",
                    "description": "The credentials of this project, by name.",
                    "propertyNames": { "pattern": label(CredentialName::LIMIT, "_") },
                    "additionalProperties": credential()
                }),
            ),
            ("resources", resources()),
        ],
    );
    if let Value::Object(schema) = &mut schema {
        let mut whole = Map::new();
        whole.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        whole.insert("$id".to_owned(), json!(ADDRESS));
        whole.insert("title".to_owned(), json!("sandbox.yaml"));
        whole.append(schema);
        return Value::Object(whole);
    }
    schema
}

fn object(description: &str, required: &[&str], properties: Vec<(&str, Value)>) -> Value {
    let properties: Map<String, Value> = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut schema = json!({
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": false
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn text(description: &str, pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern, "description": description })
}

fn whole(description: &str, least: u32, most: u32) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most, "description": description })
}

fn command(description: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "description": description })
}

fn reason(description: &str) -> Value {
    json!({ "type": "string", "minLength": 5, "maxLength": 500, "description": description })
}

/// A DNS label of at most `limit` characters that may also have these characters inside.
fn label(limit: usize, further: &str) -> String {
    format!("^[a-z0-9]([a-z0-9{further}-]{{0,{}}}[a-z0-9])?$", limit - 2)
}

fn network() -> Value {
    let host = "A host name, `*.NAME` for all below NAME, or a private IP address beside `allow_private`.";
    let range = json!({ "type": "string", "examples": ["10.20.0.0/16"] });
    let rule = object(
        "A host with its port.",
        &["host"],
        vec![
            ("host", text(host, HOST)),
            (
                "port",
                json!({ "type": "integer", "minimum": 1, "maximum": 65_535, "default": 443, "description": "The TCP port." }),
            ),
            (
                "allow_private",
                json!({
                    "anyOf": [range, { "type": "array", "items": range }],
                    "description": "The private networks that this host may resolve to, as CIDR. Loopback, link-local and cloud metadata addresses are refused."
                }),
            ),
            (
                "rules",
                json!({
                    "type": "array",
                    "minItems": 1,
                    "maxItems": REQUEST_LIMIT,
                    "items": { "type": "string", "pattern": r"^(\*|[A-Z]{1,20}) /[^ ?#]*$", "maxLength": 1024 },
                    "description": "The allowed methods and paths; all when left out. `*` stands for characters within a segment, `**` for segments, the method `WEBSOCKET` for an upgrade. The gateway then reads the requests inside TLS.",
                    "examples": [["GET /acme/api.git/**", "POST /v1/messages"]]
                }),
            ),
        ],
    );
    let value = json!({ "type": "string", "maxLength": 253 });
    let preset = object(
        "Hosts with their narrow rules, as `sandbox network presets` lists them. A file profiles/network/NAME.yaml beside the manifest is a preset of your own.",
        &["preset"],
        vec![
            ("preset", text("The preset's name.", "^[a-z0-9-]{1,40}$")),
            (
                "with",
                json!({
                    "type": "object",
                    "additionalProperties": { "anyOf": [value, { "type": "array", "minItems": 1, "maxItems": VALUE_LIMIT, "items": value }] },
                    "description": "The values of the preset's parameters.",
                    "examples": [{ "repositories": ["acme/payments-api"] }]
                }),
            ),
        ],
    );
    object(
        "What the agent may reach. Everything else is denied.",
        &[],
        vec![
            (
                "allow",
                json!({
                    "type": "array",
                    "maxItems": 500,
                    "description": "The allowed hosts: a name alone means port 443.",
                    "items": { "anyOf": [text(host, HOST), rule, preset] }
                }),
            ),
            ("limits", network_limits()),
        ],
    )
}

fn network_limits() -> Value {
    object(
        "How much may go to each host in a session. What is left out has a default that no normal day reaches.",
        &[],
        vec![
            ("upload", text("Bytes to one host; 2GiB when left out.", SIZE)),
            ("request_body", text("Bytes of one request that the gateway reads; 256MiB when left out.", SIZE)),
            ("connections", whole("Connections to one host at once; 128 when left out.", 1, 1024)),
            ("names", whole("Different names in a session; 1000 when left out.", 1, 4096)),
            ("idle", text("After which a connection ends on which nothing moves; 1h when left out.", DURATION)),
            ("total", text("After which a connection ends in any case; 1d when left out.", DURATION)),
        ],
    )
}

fn credential() -> Value {
    let delivery = |key: &str, value: Value| object("How the agent gets it.", &[key], vec![(key, value)]);
    let file = text("A file of this name below /run/secrets.", &label(CredentialName::LIMIT, "_"));
    let git = text("A file, and git asks for it when it talks to this host.", HOST);
    let environment =
        text("A file, and this variable: weaker, since it keeps the old value after a rotation.", VARIABLE);
    let mut broker = object(
        "The gateway puts it into requests to one host, and the agent never has it. A bearer token unless another place is named.",
        &["broker"],
        vec![
            ("broker", text("The host, which has an entry of its own in `network.allow`.", HOST)),
            ("header", text("In a header field of this name.", "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")),
            ("bearer", json!({ "const": true, "description": "As `Authorization: Bearer`." })),
            ("basic", text("As the password of this user, in `Authorization: Basic`.", "^[!-9;-~]{0,100}$")),
            ("query", text("As a query parameter of this name.", "^[A-Za-z0-9._~-]{1,100}$")),
            (
                "sigv4",
                object(
                    "Requests are signed for AWS anew (Signature Version 4). The value is what `aws-sts` issues, or what a `credential_process` prints.",
                    &["service", "region"],
                    vec![
                        ("service", text("The service, by its name in signatures.", "^[a-z0-9-]{1,100}$")),
                        ("region", text("The region.", "^[a-z0-9-]{1,100}$")),
                    ],
                ),
            ),
            (
                "environment",
                text("A variable with a stand-in, for programs that do not start without a key.", VARIABLE),
            ),
        ],
    );
    broker["dependentSchemas"] = json!({
        "header": { "properties": { "bearer": false, "basic": false, "query": false, "sigv4": false } },
        "bearer": { "properties": { "basic": false, "query": false, "sigv4": false } },
        "basic": { "properties": { "query": false, "sigv4": false } },
        "query": { "properties": { "sigv4": false } }
    });
    let shared = object(
        "Other projects that hold the same value on purpose.",
        &["projects", "reason"],
        vec![
            (
                "projects",
                json!({ "type": "array", "items": text("A project's name.", &label(ProjectName::LIMIT, "")), "description": "Their names." }),
            ),
            ("reason", reason("Why.")),
        ],
    );
    let mut schema = object(
        "A credential of this project alone.",
        &["provider"],
        vec![
            (
                "provider",
                json!({
                    "enum": ["store", "env-file", "exec", "vault", "github-app", "aws-sts", "openai-project", "gcp", "azure", "anthropic-wif", "oauth"],
                    "description": "Who issues it: the encrypted store, a variable of an env file, a command on the developer's machine, Vault or OpenBao, an app of GitHub's, a role at AWS, a service account at OpenAI, an account at Google Cloud, Entra or Anthropic that takes the sandbox's own identity, or a log-in by OAuth."
                }),
            ),
            (
                "path",
                json!({ "type": "string", "minLength": 1, "description": "`env-file`: the file, inside the project. `vault`: the path, as `vault kv get` or `vault read` takes it." }),
            ),
            ("variable", text("`env-file`: the variable in it.", VARIABLE)),
            (
                "command",
                command("`exec`: the command that prints the value. There is no shell. It needs `sandbox trust`."),
            ),
            ("revoke_command", command("`exec`: the command that ends the credential.")),
            (
                "rotate_command",
                command(
                    "`store`: the command that has the issuer make a new value and prints it, for `sandbox credential rotate`.",
                ),
            ),
            (
                "address",
                text(
                    "`vault`: the server; VAULT_ADDR or BAO_ADDR of the environment when left out. `github-app`: the API; https://api.github.com when left out. `aws-sts`: STS; the endpoint of the region when left out. `openai-project`: the API; https://api.openai.com when left out. `gcp`, `azure`, `anthropic-wif`: where tokens are asked for; the issuer's own when left out.",
                    "^https?://",
                ),
            ),
            ("namespace", text("`vault`: the namespace.", VAULT_PATH)),
            ("auth", vault_auth()),
            ("field", text("`vault`: the field whose text is the value.", VAULT_WORD)),
            ("fields", vault_words("`vault`: the fields that make a JSON object, which is the value.")),
            (
                "ttl",
                text(
                    "`vault`: how long its token for this credential lives, 2m to 24h; 1h when left out. `aws-sts`: how long a session lives, 15m to 12h; 15m when left out. `openai-project`: how long a key lives, 15m to 30d; 24h when left out. `gcp`: how long a token lives, 5m to 1h; 15m when left out.",
                    DURATION,
                ),
            ),
            (
                "max_ttl",
                text(
                    "`vault`: how long a value with a lease is renewed before it is read anew, 2m to 30d; 24h when left out.",
                    DURATION,
                ),
            ),
            ("policies", vault_words("`vault`: the policies of that token; those of the log-in when left out.")),
            ("project_id", text("`openai-project`: the project.", "^proj_[A-Za-z0-9_-]{1,64}$")),
            (
                "app",
                json!({ "type": ["string", "integer"], "description": "`github-app`: the app's client id or number." }),
            ),
            (
                "installation",
                json!({ "type": "integer", "minimum": 1, "description": "`github-app`: the number of the installation." }),
            ),
            (
                "repositories",
                json!({
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 50,
                    "items": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,100}$" },
                    "description": "`github-app`: the repositories that the token is for, without their owner."
                }),
            ),
            (
                "repository_ids",
                json!({
                    "type": "array", "minItems": 1, "maxItems": 50,
                    "items": { "type": "integer", "minimum": 1 },
                    "description": "`github-app`: the same, by their numbers."
                }),
            ),
            (
                "permissions",
                json!({
                    "anyOf": [{ "enum": ["read", "push", "pull-requests", "review", "issues"] }, {
                        "type": "object", "minProperties": 1, "maxProperties": 64,
                        "propertyNames": { "pattern": "^[a-z0-9_]{1,64}$" }, "additionalProperties": { "enum": ["read", "write", "admin"] }
                    }],
                    "description": "`github-app`: what the token may do: a word for what agents mostly need, or the names of the API, such as contents: write."
                }),
            ),
            (
                "key_file",
                text(
                    "`github-app`: the app's private key. `openai-project`: the organisation's admin key. `oauth`: the client's secret, of clients that have one. A file of mode 600 outside the project.",
                    "^(~/|/)",
                ),
            ),
            (
                "key_command",
                command(
                    "`github-app`, `openai-project`, `oauth`: the command that prints that key or secret. `aws-sts`: the command that prints keys as a credential_process does.",
                ),
            ),
            (
                "identity",
                text(
                    "`aws-sts`: the audience for which the launcher signs the sandbox's identity, with which the role is assumed in place of keys.",
                    AUDIENCE,
                ),
            ),
            ("role", text("`aws-sts`: the ARN of the role.", "^arn:aws[a-z-]*:iam::[0-9]{12}:role/")),
            ("region", text("`aws-sts`: the region of STS and of the agent's programs.", "^[a-z0-9-]{2,32}$")),
            (
                "audience",
                text(
                    "`gcp`: the provider of the workload identity pool, //iam.googleapis.com/projects/…. `azure`: the identity's audience; api://AzureADTokenExchange when left out. `anthropic-wif`: the same; https://api.anthropic.com when left out.",
                    AUDIENCE,
                ),
            ),
            (
                "service_account",
                text(
                    "`gcp`: the service account's address. `anthropic-wif`: the service account, svac_….",
                    "^[A-Za-z0-9@._-]{1,128}$",
                ),
            ),
            (
                "scopes",
                json!({
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 32,
                    "items": { "type": "string", "pattern": "^[!#-+.-\\[\\]-~-]{1,256}$" },
                    "description": "`gcp`: URLs of what the token is good for, at most 20; the scope cloud-platform when left out. `oauth`: what the log-in asks for, and the most that is accepted."
                }),
            ),
            ("tenant", text("`azure`: the tenant.", "^[A-Za-z0-9.-]{1,128}$")),
            ("client", text("`azure`: the application's (client) id.", "^[A-Za-z0-9-]{1,64}$")),
            (
                "scope",
                text(
                    "`azure`: what the token is good for, such as https://management.azure.com/.default.",
                    "^https://[A-Za-z0-9:/._-]+$",
                ),
            ),
            ("rule", text("`anthropic-wif`: the federation rule.", "^fdrl_[A-Za-z0-9_]+$")),
            ("organization", text("`anthropic-wif`: the organisation's UUID.", "^[A-Za-z0-9-]{1,64}$")),
            (
                "workspace",
                text("`anthropic-wif`: the workspace; the rule's own when left out.", "^[A-Za-z0-9_]{1,64}$"),
            ),
            (
                "profile",
                text(
                    "`aws-sts`: the profile of ~/.aws/credentials whose keys assume the role.",
                    "^[A-Za-z0-9_.@+=/-]{1,128}$",
                ),
            ),
            (
                "policy",
                json!({ "type": "string", "maxLength": 2048, "description": "`aws-sts`: a policy in JSON that narrows the role's." }),
            ),
            (
                "policy_arns",
                json!({
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 10,
                    "items": { "type": "string", "pattern": "^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/" },
                    "description": "`aws-sts`: managed policies that narrow the role's."
                }),
            ),
            (
                "tags",
                json!({
                    "type": "object",
                    "maxProperties": 50,
                    "additionalProperties": { "type": "string", "maxLength": 256 },
                    "description": "`aws-sts`: tags of the session."
                }),
            ),
            (
                "external_id",
                text(
                    "`aws-sts`: the external id that the role's trust policy wants.",
                    "^[A-Za-z0-9_+=,.@:/-]{2,1224}$",
                ),
            ),
            (
                "source_identity",
                json!({ "type": "boolean", "default": false, "description": "`aws-sts`: whether the developer's user name is the source identity." }),
            ),
            (
                "agent",
                json!({ "enum": ["codex", "claude-code", "gemini-cli"], "description": "`oauth`: whose log-in it is. Its program finds the file that it reads; client, addresses and scopes of `codex` and `gemini-cli` are known." }),
            ),
            ("client_id", text("`oauth`: the client's id.", "^[A-Za-z0-9._~:/-]{1,256}$")),
            ("token_url", text("`oauth`: the token endpoint.", OAUTH_ADDRESS)),
            (
                "token_request",
                json!({ "enum": ["form", "json"], "default": "form", "description": "`oauth`: what the token endpoint takes; the standard has a form." }),
            ),
            (
                "device_url",
                text(
                    "`oauth`: the device authorization endpoint, for a log-in by a code on whatever device has a browser.",
                    OAUTH_ADDRESS,
                ),
            ),
            (
                "authorize_url",
                text(
                    "`oauth`: the authorization endpoint, for a log-in in the browser of this machine. Without it and without `device_url`, a refresh token is taken over.",
                    OAUTH_ADDRESS,
                ),
            ),
            (
                "authorize_parameters",
                json!({
                    "type": "object",
                    "maxProperties": 16,
                    "additionalProperties": { "type": "string", "maxLength": 256 },
                    "description": "`oauth`: further parameters of the authorization request."
                }),
            ),
            (
                "redirect_url",
                text(
                    "`oauth`: where the browser brings the code; http://127.0.0.1/callback at any free port when left out.",
                    "^http://(127\\.0\\.0\\.1|localhost)(:[0-9]+)?/[A-Za-z0-9/._~-]*$",
                ),
            ),
            ("revoke_url", text("`oauth`: the revocation endpoint, for `sandbox credential rm`.", OAUTH_ADDRESS)),
            (
                "deliver",
                json!({
                    "description": "How the agent gets it; as a file of the credential's name when left out.",
                    "oneOf": [delivery("file", file), delivery("git", git), delivery("environment", environment), broker]
                }),
            ),
            ("max_age", text("The age after which it is refused, such as 30d.", DURATION)),
            (
                "on_expiry",
                json!({ "enum": ["warn", "stop"], "default": "warn", "description": "What becomes of a session whose value ran out, by its issuer or by `max_age`, when there was no new one in time." }),
            ),
            ("shared_with", shared),
            ("accept_personal", reason("Why a person's own or an organisation-wide value is accepted.")),
            (
                "hosts",
                json!({
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 32,
                    "items": { "type": "string", "pattern": HOST },
                    "description": "The hosts that a credential may be sent to that the agent has as a file. Requests that carry it elsewhere are refused, as far as the gateway can read them."
                }),
            ),
        ],
    );
    let when = |provider: &str, required: &[&str], own: &[&str]| {
        let others: Map<String, Value> = (PROVIDER_KEYS.iter().filter(|key| !own.contains(key)))
            .map(|key| ((*key).to_owned(), json!(false)))
            .collect();
        json!({
            "if": { "properties": { "provider": { "const": provider } }, "required": ["provider"] },
            "then": { "required": required, "properties": others }
        })
    };
    schema["allOf"] = json!([
        when("store", &[], &["rotate_command"]),
        when("env-file", &["path", "variable"], &["path", "variable"]),
        when("exec", &["command"], &["command", "revoke_command"]),
        when(
            "vault",
            &["path"],
            &["path", "address", "namespace", "auth", "field", "fields", "ttl", "max_ttl", "policies"]
        ),
        when("github-app", &["app", "installation", "permissions"], GITHUB_KEYS),
        when("aws-sts", &["role", "region"], AWS_KEYS),
        when("openai-project", &["project_id"], &["address", "project_id", "ttl", "key_file", "key_command"]),
        when("gcp", &["audience", "service_account"], &["address", "audience", "service_account", "scopes", "ttl"]),
        when("azure", &["tenant", "client", "scope"], &["address", "audience", "tenant", "client", "scope"]),
        when(
            "anthropic-wif",
            &["rule", "organization", "service_account"],
            &["address", "audience", "rule", "organization", "service_account", "workspace"],
        ),
        when("oauth", &[], OAUTH_KEYS),
        // What a vendor publishes need not be written down.
        json!({
            "if": {
                "properties": { "provider": { "const": "oauth" } },
                "required": ["provider"],
                "not": { "properties": { "agent": { "enum": ["codex", "gemini-cli"] } }, "required": ["agent"] }
            },
            "then": { "required": ["client_id", "token_url"] }
        }),
    ]);
    schema
}

/// Keys that some providers have and others have not.
const PROVIDER_KEYS: &[&str] = &[
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
];
const OAUTH_ADDRESS: &str =
    "^(https://[A-Za-z0-9._:/\\[\\]-]+|http://(127\\.0\\.0\\.1|\\[::1\\]|localhost)(:[0-9]+)?(/[A-Za-z0-9._:/-]*)?)$";
const OAUTH_KEYS: &[&str] = &[
    "agent",
    "client_id",
    "key_file",
    "key_command",
    "token_url",
    "token_request",
    "device_url",
    "authorize_url",
    "authorize_parameters",
    "redirect_url",
    "revoke_url",
    "scopes",
];
const GITHUB_KEYS: &[&str] =
    &["address", "app", "installation", "repositories", "repository_ids", "permissions", "key_file", "key_command"];
const AWS_KEYS: &[&str] = &[
    "address",
    "role",
    "region",
    "profile",
    "key_command",
    "identity",
    "ttl",
    "policy",
    "policy_arns",
    "tags",
    "external_id",
    "source_identity",
];
const AUDIENCE: &str = "^[A-Za-z0-9_.:/@-]{1,256}$";
const VAULT_WORD: &str = "^[A-Za-z0-9._-]{1,128}$";
const VAULT_PATH: &str = "^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$";

fn vault_words(description: &str) -> Value {
    json!({
        "type": "array",
        "minItems": 1,
        "maxItems": 32,
        "items": { "type": "string", "pattern": VAULT_WORD },
        "description": description
    })
}

fn vault_auth() -> Value {
    object(
        "`vault`: as whom the launcher logs in; with the developer's own token when left out.",
        &["method"],
        vec![
            ("method", json!({ "enum": ["token", "approle", "jwt", "cert"], "description": "How it logs in." })),
            ("mount", text("Where the method is mounted; at its own name when left out.", VAULT_PATH)),
            ("role_id", text("`approle`: the role's id.", VAULT_WORD)),
            ("role", text("`jwt` and `cert`: the role; `cert` takes whichever fits when left out.", VAULT_WORD)),
            (
                "secret_file",
                json!({ "type": "string", "minLength": 1, "description": "The file, inside the project, with the secret id, the signed token, or certificate and private key as PEM." }),
            ),
            (
                "secret_command",
                command(
                    "The command that prints the secret id, the signed token, or certificate and private key as PEM.",
                ),
            ),
            (
                "identity",
                text(
                    "`jwt`: the audience for which the launcher signs the sandbox's identity, as the token to log in with.",
                    AUDIENCE,
                ),
            ),
            (
                "wrapped",
                json!({ "type": "boolean", "default": false, "description": "`approle`: whether the command prints a wrapping token with the secret id in it." }),
            ),
        ],
    )
}

fn resources() -> Value {
    object(
        "Limits of the agent; those left out come from the profile. The user's own configuration has the maximum.",
        &[],
        vec![
            (
                "cpus",
                json!({ "type": "number", "minimum": 0.1, "maximum": 1024, "description": "Processor time, in cores." }),
            ),
            ("memory", text("Memory without swap, such as 4GiB; at least 64MiB.", SIZE)),
            ("pids", whole("Processes and threads.", 16, 1_000_000)),
            ("disk", text("Disk for workspace and home together, such as 20GiB; at least 64MiB.", SIZE)),
            ("session", text("How long a session may last, such as 12h.", DURATION)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::project::manifest::{credential, network, resolve, vault};

    fn keys(schema: &Value) -> BTreeSet<&str> {
        assert_eq!(schema["additionalProperties"], json!(false), "{schema:#}");
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    fn known(keys: &'static [&'static str]) -> BTreeSet<&'static str> {
        keys.iter().copied().collect()
    }

    #[test]
    fn the_keys_are_those_that_the_parser_knows() {
        let schema = manifest();
        let properties = &schema["properties"];
        assert_eq!(keys(&schema), known(resolve::ROOT));
        assert_eq!(keys(&properties["workspace"]), known(resolve::WORKSPACE));
        assert_eq!(keys(&properties["resources"]), known(resolve::RESOURCES));
        assert_eq!(keys(&properties["network"]), known(network::NETWORK));
        let rule = &properties["network"]["properties"]["allow"]["items"]["anyOf"][1];
        assert_eq!(keys(rule), known(network::RULE));
        let preset = &properties["network"]["properties"]["allow"]["items"]["anyOf"][2];
        assert_eq!(keys(preset), known(network::PRESET));
        assert_eq!(keys(&properties["network"]["properties"]["limits"]), known(network::LIMITS));
        let credentials = &properties["credentials"]["additionalProperties"];
        assert_eq!(keys(credentials), known(credential::CREDENTIAL));
        assert_eq!(keys(&credentials["properties"]["shared_with"]), known(credential::SHARED));
        assert_eq!(keys(&credentials["properties"]["auth"]), known(vault::AUTH));
        let ways = credentials["properties"]["deliver"]["oneOf"].as_array().unwrap();
        let ways: BTreeSet<&str> = ways.iter().flat_map(keys).collect();
        assert_eq!(ways, known(credential::DELIVER).union(&known(credential::BROKER)).copied().collect());
    }

    #[test]
    fn every_key_says_what_it_means() {
        fn walk(schema: &Value, at: &str) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (name, property) in properties.iter().filter(|(_, property)| property.is_object()) {
                    let described = property["description"].as_str().is_some_and(|text| text.len() > 3);
                    assert!(described, "{at}.{name} has no description");
                    walk(property, &format!("{at}.{name}"));
                }
            }
        }
        walk(&manifest(), "");
    }

    #[test]
    fn the_file_in_docs_is_the_schema() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandbox.schema.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        let now = format!("{:#}\n", manifest());
        assert!(committed == now, "write the output of `sandbox schema` to docs/sandbox.schema.json:\n{now}");
    }
}
