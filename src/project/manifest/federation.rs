//! Reads what a credential of the providers `gcp`, `azure` and `anthropic-wif` says: which account of the issuer's the sandbox
//! becomes by its own identity, and for what.

use std::time::Duration;

use super::vault::{self, audience};
use crate::credential::spec::{AnthropicSpec, AzureSpec, GcpSpec, ProviderSpec};
use crate::project::quantity;
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::Value;

/// Keys of each provider.
pub(super) const GCP: &[&str] = &["address", "audience", "service_account", "scopes", "ttl"];
/// See [`GCP`].
pub(super) const AZURE: &[&str] = &["address", "audience", "tenant", "client", "scope"];
/// See [`GCP`].
pub(super) const ANTHROPIC: &[&str] = &["address", "audience", "rule", "organization", "service_account", "workspace"];

/// "By default, the maximum allowed value is 1 hour" (generateAccessToken).
const LONGEST: Duration = Duration::from_secs(3600);
/// A token cannot be ended, so it is short when nothing is said.
const LIFE: Duration = Duration::from_secs(900);
const SHORTEST: Duration = Duration::from_secs(300);
/// The audience that Entra recommends ("Important considerations and restrictions for federated identity credentials").
const ENTRA: &str = "api://AzureADTokenExchange";

/// What a word may be: its length and its characters beside letters and digits.
struct Form {
    prefix: &'static str,
    longest: usize,
    further: &'static [u8],
    example: &'static str,
}

impl Form {
    fn parse(&self, text: &str) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || self.further.contains(&byte);
        let rest = text.strip_prefix(self.prefix)?;
        let fine = !rest.is_empty() && !text.contains("..") && text.len() <= self.longest;
        (fine && text.bytes().all(plain)).then(|| text.to_owned())
    }
}

const RESOURCE: Form = Form {
    prefix: "//iam.googleapis.com/projects/",
    longest: 256,
    further: b"/._-",
    example: "//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER",
};
const EMAIL: Form = Form { prefix: "", longest: 128, further: b"@.-", example: "NAME@PROJECT.iam.gserviceaccount.com" };
const SCOPE: Form = Form {
    prefix: "https://",
    longest: 200,
    further: b":/._-",
    example: "https://www.googleapis.com/auth/cloud-platform",
};
const TENANT: Form = Form { prefix: "", longest: 128, further: b".-", example: "the tenant's id" };
const CLIENT: Form = Form { prefix: "", longest: 64, further: b"-", example: "the application's (client) id" };
const RULE: Form = Form { prefix: "fdrl_", longest: 64, further: b"_", example: "the rule's id, fdrl_…" };
const ORGANIZATION: Form = Form { prefix: "", longest: 64, further: b"-", example: "the organisation's UUID" };
const ACCOUNT: Form =
    Form { prefix: "svac_", longest: 64, further: b"_", example: "the service account's id, svac_…" };
const WORKSPACE: Form = Form { prefix: "", longest: 64, further: b"_", example: "wrkspc_… or default" };

/// The specification, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, fields: &Fields<'_>, provider: &str) -> Option<ProviderSpec> {
    let address = match fields.get("address") {
        None => Some(None),
        Some(node) => reader.parsed(node, "`address`", "an address such as https://HOST", vault::address).map(Some),
    };
    let audience = match fields.get("audience") {
        None => Some(None),
        // Google's is the name of a resource, and it is needed.
        Some(_) if provider == "gcp" => Some(None),
        Some(node) => audience(reader, node, "`audience`", ENTRA).map(Some),
    };
    let mut word = |key: &str, form: &Form| needed(reader, fields, provider, key, form);
    Some(match provider {
        "gcp" => {
            let (audience, service_account) = (word("audience", &RESOURCE), word("service_account", &EMAIL));
            let (scopes, ttl) = (scopes(reader, fields), ttl(reader, fields));
            ProviderSpec::Gcp(Box::new(GcpSpec {
                address: address?,
                audience: audience?,
                service_account: service_account?,
                scopes: scopes?,
                ttl: ttl?,
            }))
        }
        "azure" => {
            let (tenant, client) = (word("tenant", &TENANT), word("client", &CLIENT));
            let example = "https://management.azure.com/.default";
            let scope = word("scope", &Form { example, ..SCOPE });
            ProviderSpec::Azure(Box::new(AzureSpec {
                address: address?.unwrap_or_else(|| "https://login.microsoftonline.com".to_owned()),
                audience: audience?.unwrap_or_else(|| ENTRA.to_owned()),
                tenant: tenant?,
                client: client?,
                scope: scope?,
            }))
        }
        _ => {
            let (rule, organization) = (word("rule", &RULE), word("organization", &ORGANIZATION));
            let service_account = word("service_account", &ACCOUNT);
            let workspace = match fields.get("workspace") {
                None => Some(None),
                Some(_) => word("workspace", &WORKSPACE).map(Some),
            };
            let api = "https://api.anthropic.com";
            ProviderSpec::AnthropicWif(Box::new(AnthropicSpec {
                address: address?.unwrap_or_else(|| api.to_owned()),
                audience: audience?.unwrap_or_else(|| api.to_owned()),
                rule: rule?,
                organization: organization?,
                service_account: service_account?,
                workspace: workspace?,
            }))
        }
    })
}

fn needed(reader: &mut Reader, fields: &Fields<'_>, provider: &str, key: &str, form: &Form) -> Option<String> {
    let Some(node) = fields.get(key) else {
        let message = format!("the provider `{provider}` needs `{key}`");
        reader.report(fields.place, message, format!("write {}", form.example));
        return None;
    };
    reader.parsed(node, &format!("`{key}`"), form.example, |text| form.parse(text))
}

fn scopes(reader: &mut Reader, fields: &Fields<'_>) -> Option<Vec<String>> {
    let Some(node) = fields.get("scopes") else { return Some(vec![SCOPE.example.to_owned()]) };
    let remedy = format!("write [{}], with 1 to 20 scopes", SCOPE.example);
    let items = match &node.value {
        Value::List(items) if (1..=20).contains(&items.len()) => items,
        _ => {
            reader.report(node.place, "`scopes` is no list of scopes", remedy);
            return None;
        }
    };
    let read: Vec<String> = items
        .iter()
        .filter_map(|item| reader.parsed(item, "`scopes`", SCOPE.example, |text| SCOPE.parse(text)))
        .collect();
    (read.len() == items.len()).then_some(read)
}

fn ttl(reader: &mut Reader, fields: &Fields<'_>) -> Option<Duration> {
    let Some(node) = fields.get("ttl") else { return Some(LIFE) };
    reader.parsed(node, "`ttl`", "a duration of 5m to 1h", |text| {
        quantity::duration(text).filter(|life| (SHORTEST..=LONGEST).contains(life))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::credential::spec::{AwsSource, JwtSource, ProviderSpec, VaultAuth};
    use crate::project::manifest::{Manifest, parse};
    use crate::project::problem::ManifestError;

    fn read(credentials: &str) -> Result<Manifest, ManifestError> {
        let text = format!("version: 1\nproject: payments-api\nimage: agent\ncommand: [bash]\n{credentials}");
        parse(&text, Path::new("/nowhere/sandbox.yaml"))
    }

    #[test]
    fn reads_the_documented_credentials() {
        let document = include_str!("../../../docs/federation.md");
        let blocks: Vec<&str> =
            document.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let manifests: Vec<Manifest> = blocks
            .iter()
            .filter(|block| block.starts_with("credentials:\n"))
            .map(|block| read(block).unwrap())
            .collect();
        let credentials: Vec<_> = manifests.iter().flat_map(|manifest| manifest.credentials.values()).collect();
        assert_eq!(credentials.len(), 5);
        for spec in credentials {
            let json = serde_json::to_value(&spec.provider).unwrap();
            assert_eq!(serde_json::from_value::<ProviderSpec>(json).unwrap(), spec.provider);
            match &spec.provider {
                ProviderSpec::Vault(vault) => {
                    let VaultAuth::Jwt { jwt, .. } = &vault.auth else { panic!("{vault:?}") };
                    assert_eq!(*jwt, JwtSource::Identity("vault".to_owned()));
                }
                ProviderSpec::AwsSts(sts) => {
                    assert_eq!(sts.source, AwsSource::Identity("sts.amazonaws.com".to_owned()))
                }
                ProviderSpec::Gcp(gcp) => assert_eq!((gcp.ttl.as_secs(), gcp.scopes.len()), (900, 1)),
                ProviderSpec::Azure(azure) => assert_eq!(azure.audience, "api://AzureADTokenExchange"),
                ProviderSpec::AnthropicWif(anthropic) => {
                    assert_eq!(anthropic.audience, "https://api.anthropic.com");
                    assert_eq!(anthropic.workspace.as_deref(), Some("wrkspc_01abc"));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn tells_what_is_wrong_with_a_federated_credential() {
        let gcp = "provider: gcp, audience: //iam.googleapis.com/projects/1/x, service_account: a@b.example";
        let aws = "provider: aws-sts, role: \"arn:aws:iam::123456789012:role/a\", region: eu-central-1";
        let vault = "provider: vault, path: a/b, field: c";
        for (credential, part) in [
            ("provider: gcp, service_account: a@b.example".to_owned(), "the provider `gcp` needs `audience`"),
            (
                "provider: gcp, audience: x, service_account: a@b.example".to_owned(),
                "`x` is not a value for `audience`",
            ),
            (gcp.replace("a@b.example", "a/../b"), "`a/../b` is not a value for `service_account`"),
            (format!("{gcp}, ttl: 2h"), "`2h` is not a value for `ttl`"),
            (format!("{gcp}, scopes: []"), "`scopes` is no list of scopes"),
            (format!("{gcp}, tenant: a"), "the provider `gcp` has no `tenant`"),
            ("provider: azure, tenant: .., client: b, scope: \"https://c/.default\"".to_owned(), "`tenant`"),
            ("provider: azure, tenant: a, client: b, scope: \"c\"".to_owned(), "`c` is not a value for `scope`"),
            ("provider: anthropic-wif, rule: a, organization: b, service_account: svac_c".to_owned(), "for `rule`"),
            (format!("{aws}, identity: a, external_id: bc"), "takes no `external_id`"),
            (format!("{aws}, identity: a, profile: b"), "has both `profile` and `identity`"),
            (format!("{aws}, identity: \"a b\""), "`a b` is not a value for `identity`"),
            (format!("{vault}, auth: {{ method: approle, role_id: a, identity: b }}"), "has no `identity`"),
            (
                format!("{vault}, auth: {{ method: jwt, role: a, identity: b, secret_file: c }}"),
                "has `identity` and another source of the token",
            ),
        ] {
            let error = read(&format!("credentials:\n  a: {{ {credential} }}\n")).unwrap_err();
            let messages: Vec<&str> = error.problems().iter().map(|problem| problem.message.as_str()).collect();
            assert!(messages.iter().any(|message| message.contains(part)), "{credential}: {messages:?}");
        }
    }
}
