//! What is published of the identity (OpenID Connect Discovery 1.0, section 3), and what each issuer is told to take it for
//! one project. All of it is public, and none of it is sent anywhere by the launcher.

use serde::Serialize;
use serde_json::{Value, json};

use super::subject;

/// Documents and ready-made configuration.
#[derive(Debug, Clone, Serialize)]
pub struct Documents {
    /// The issuer.
    pub issuer: String,
    /// The project that the configuration is for.
    pub project: String,
    /// The subject of its sandboxes.
    pub subject: String,
    /// The name of the key that signs.
    pub key: String,
    /// Where the first document is to be served.
    pub discovery_address: String,
    /// The first document.
    pub discovery: Value,
    /// Where the second document is to be served.
    pub jwks_address: String,
    /// The second document. That of a team has the keys of all its launchers.
    pub jwks: Value,
    /// What issuers are told: each document with the call that takes it.
    pub configuration: Vec<Step>,
}

/// One call at an issuer's own command line or API.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// The issuer.
    pub issuer: &'static str,
    /// What takes the document.
    pub call: String,
    /// The document.
    pub document: Value,
    /// What `sandbox.yaml` says then.
    pub manifest: Value,
}

impl Documents {
    pub(super) fn new(issuer: &str, project: &str, key: String, keys: Vec<Value>) -> Self {
        let (discovery_address, jwks_address) =
            (format!("{issuer}/.well-known/openid-configuration"), format!("{issuer}/jwks.json"));
        Self {
            issuer: issuer.to_owned(),
            project: project.to_owned(),
            subject: subject(project),
            key,
            discovery: json!({
                "issuer": issuer,
                "jwks_uri": jwks_address,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "claims_supported": [
                    "iss", "sub", "aud", "iat", "nbf", "exp", "jti", "project", "sandbox", "user", "session"
                ],
            }),
            discovery_address,
            jwks_address,
            jwks: json!({ "keys": keys }),
            configuration: [vault(issuer, project), aws(issuer, project), gcp(issuer, project), azure(issuer, project)]
                .concat(),
        }
    }
}

/// "JWT/OIDC auth method (API)" of Vault and OpenBao. A role without `bound_claims` would take every project.
fn vault(issuer: &str, project: &str) -> Vec<Step> {
    let manifest = json!({ "auth": { "method": "jwt", "role": project, "identity": "vault" } });
    let config = json!({ "oidc_discovery_url": issuer, "bound_issuer": issuer });
    let role = json!({
        "role_type": "jwt",
        "bound_audiences": ["vault"],
        "bound_subject": subject(project),
        "bound_claims": { "project": project },
        "user_claim": "user",
        "claim_mappings": { "project": "project", "sandbox": "sandbox", "user": "user" },
        "token_policies": [project],
        "token_ttl": "1h",
    });
    let step = |call: String, document| Step { issuer: "vault", call, document, manifest: manifest.clone() };
    vec![
        step("vault write auth/jwt/config -".to_owned(), config),
        step(format!("vault write auth/jwt/role/{project} -"), role),
    ]
}

/// "Create an OpenID Connect identity provider in IAM"; condition keys are the address without its scheme.
fn aws(issuer: &str, project: &str) -> Vec<Step> {
    let manifest = json!({ "provider": "aws-sts", "identity": "sts.amazonaws.com" });
    let name = issuer.trim_start_matches("https://");
    let trust = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Federated": format!("arn:aws:iam::ACCOUNT:oidc-provider/{name}") },
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": { "StringEquals": {
                format!("{name}:aud"): "sts.amazonaws.com",
                format!("{name}:sub"): subject(project),
            } },
        }],
    });
    let provider = json!({ "Url": issuer, "ClientIDList": ["sts.amazonaws.com"] });
    let step =
        |call: &str, document| Step { issuer: "aws", call: call.to_owned(), document, manifest: manifest.clone() };
    vec![
        step("aws iam create-open-id-connect-provider --cli-input-json file://…", provider),
        step("aws iam create-role --role-name NAME --assume-role-policy-document file://…", trust),
    ]
}

/// "Method: projects.locations.workloadIdentityPools.providers.create", then who may act as the service account.
fn gcp(issuer: &str, project: &str) -> Vec<Step> {
    let pool = "projects/NUMBER/locations/global/workloadIdentityPools/POOL";
    let audience = format!("//iam.googleapis.com/{pool}/providers/sandbox");
    let manifest = json!({ "provider": "gcp", "audience": audience, "service_account": "ACCOUNT" });
    let provider = json!({
        "attributeMapping": {
            "google.subject": "assertion.sub",
            "attribute.project": "assertion.project",
            "attribute.user": "assertion.user",
        },
        "oidc": { "issuerUri": issuer, "allowedAudiences": [audience] },
    });
    let binding = json!({
        "role": "roles/iam.workloadIdentityUser",
        "members": [format!("principal://iam.googleapis.com/{pool}/subject/{}", subject(project))],
    });
    let step = |call: String, document| Step { issuer: "gcp", call, document, manifest: manifest.clone() };
    let account = "projects/-/serviceAccounts/ACCOUNT";
    vec![
        step(
            format!("POST https://iam.googleapis.com/v1/{pool}/providers?workloadIdentityPoolProviderId=sandbox"),
            provider,
        ),
        step(format!("a binding of the policy of {account} (setIamPolicy)"), binding),
    ]
}

/// "Create federatedIdentityCredential": the subject is compared whole.
fn azure(issuer: &str, project: &str) -> Vec<Step> {
    let document = json!({
        "name": format!("sandbox-{project}"),
        "issuer": issuer,
        "subject": subject(project),
        "audiences": ["api://AzureADTokenExchange"],
    });
    vec![Step {
        issuer: "azure",
        call: "az ad app federated-credential create --id CLIENT --parameters @…".to_owned(),
        document,
        manifest: json!({ "provider": "azure", "tenant": "TENANT", "client": "CLIENT", "scope": "SCOPE" }),
    }]
}
