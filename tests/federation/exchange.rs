//! The providers `gcp`, `azure` and `anthropic-wif` against strict fakes: each verifies the identity by the published key, and
//! takes the fields that its issuer documents and no others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sandbox::credential::federation::FederationError;
use sandbox::credential::held::Held;
use sandbox::credential::identity::Authority;
use sandbox::credential::secret::Secret;
use sandbox::credential::spec::{AnthropicSpec, AzureSpec, CredentialSpec, Delivery, GcpSpec, ProviderSpec};
use sandbox::credential::{CredentialError, IssueContext, Issued, Revocation, aws, issue, revoke, store, vault};
use sandbox::project::{CredentialName, ProjectName, SandboxName};
use serde_json::{Value, json};

use super::server::{Request, serve};
use super::token::verify;

const ISSUER: &str = "https://identity.example.com/sandbox";
/// Below the name that everybody's Anthropic tokens begin with ("WIF reference").
const ANTHROPIC_TOKEN: &str = "sk-ant-oat01-canary-of-a-service-account";

struct Side {
    folder: tempfile::TempDir,
    project: ProjectName,
    sandbox: SandboxName,
}

impl Side {
    fn new(project: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), project: project.parse().unwrap(), sandbox: SandboxName::main() }
    }

    fn authority(&self) -> Authority {
        Authority { folder: self.folder.path().join("issuer"), issuer: Some(ISSUER.to_owned()) }
    }

    fn jwks(&self) -> Value {
        self.authority().documents(self.project.as_str()).unwrap().jwks
    }

    fn context(&self) -> IssueContext<'_> {
        let root = self.folder.path();
        IssueContext {
            project: &self.project,
            project_root: root,
            sandbox: &self.sandbox,
            actor: "ada",
            store: store::Store {
                folder: root.join("credentials"),
                recipients: root.join("recipients"),
                identity: store::IdentityPlace::made(root.join("identity.txt")),
                owner: "ada".to_owned(),
            },
            state: root,
            home: root,
            vault: vault::Environment::default(),
            aws: aws::Environment::default(),
            identity: self.authority(),
            held: Held::default(),
            session: Some("s-0123456789".to_owned()),
            reason: "up",
        }
    }

    async fn issue(&self, spec: &ProviderSpec) -> Result<Issued, CredentialError> {
        issue(&name(), &credential(spec), &self.context()).await
    }

    async fn refused(&self, spec: &ProviderSpec) -> FederationError {
        match self.issue(spec).await.unwrap_err() {
            CredentialError::Federation(error) => {
                let shown = format!("{error:?} {error}");
                assert!(!shown.contains("eyJ") && !shown.contains("canary"), "{shown}");
                error
            }
            other => panic!("{other:?}"),
        }
    }
}

fn name() -> CredentialName {
    "cloud".parse().unwrap()
}

fn credential(spec: &ProviderSpec) -> CredentialSpec {
    let manifest = "version: 1\nproject: payments\nimage: agent\n";
    // Whatever a manifest leaves out is as a manifest has it.
    let text = format!("{manifest}credentials:\n  cloud: {{ provider: store }}\n");
    let parsed = sandbox::project::manifest::parse(&text, std::path::Path::new("/nowhere/sandbox.yaml")).unwrap();
    let mut credential = parsed.credentials.into_values().next().unwrap();
    credential.provider = spec.clone();
    credential.deliver = Delivery::File { name: "cloud".to_owned() };
    credential
}

/// Takes exactly these fields.
fn exactly(fields: &BTreeMap<String, String>, expected: &[(&str, &str)], token: &str) {
    let mut left = fields.clone();
    assert!(left.remove(token).is_some(), "{token} is missing");
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(left, expected);
}

fn error(status: u16, code: &str, said: &str) -> (u16, String) {
    (status, json!({ "error": code, "error_description": said }).to_string())
}

const POOL: &str =
    "//iam.googleapis.com/projects/123456789/locations/global/workloadIdentityPools/agents/providers/sandbox";
const ACCOUNT: &str = "payments-agents@acme.iam.gserviceaccount.com";
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// Both services of Google's at one address. `life` is what the second one gives.
fn google(jwks: Value, life: i64) -> String {
    serve(move |request: &Request| {
        assert_eq!(request.method, "POST");
        match request.path.as_str() {
            "/v1/token" => {
                // "When you call this method, do not send the Authorization HTTP header in the request."
                assert_eq!(request.header("authorization"), "");
                assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
                let form = request.form();
                let expected = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("audience", POOL),
                    ("scope", "https://www.googleapis.com/auth/cloud-platform"),
                    ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                    ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                ];
                exactly(&form, &expected, "subject_token");
                match verify(&form["subject_token"], &jwks, ISSUER, POOL) {
                    Err(said) => error(400, "invalid_grant", &format!("{said}: {}", form["subject_token"])),
                    Ok(claims) if claims["sub"] != "project:payments" => error(
                        401,
                        "unauthorized_client",
                        "The given credential is rejected by the attribute condition.",
                    ),
                    Ok(_) => {
                        let body = json!({
                            "access_token": "canary-federated",
                            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                            "token_type": "Bearer",
                            "expires_in": 3599,
                        });
                        (200, body.to_string())
                    }
                }
            }
            path => {
                assert_eq!(path, format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"));
                assert_eq!(request.header("authorization"), "Bearer canary-federated");
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                assert_eq!(body, json!({ "scope": [SCOPE], "lifetime": "900s" }));
                let end = Timestamp::now() + SignedDuration::from_secs(life);
                let end = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                (200, json!({ "accessToken": "ya29.canary-of-the-account", "expireTime": end }).to_string())
            }
        }
    })
}

fn gcp(address: String) -> ProviderSpec {
    ProviderSpec::Gcp(Box::new(GcpSpec {
        address: Some(address),
        audience: POOL.to_owned(),
        service_account: ACCOUNT.to_owned(),
        scopes: vec![SCOPE.to_owned()],
        ttl: Duration::from_secs(900),
    }))
}

fn seconds_left(issued: &Issued) -> i64 {
    issued.expires_at.unwrap().as_second() - Timestamp::now().as_second()
}

/// It cannot be ended, and is never said to be.
async fn only_expires(side: &Side, spec: &ProviderSpec, issued: &Issued) {
    let ended = revoke(&name(), &credential(spec), issued.handle.as_deref(), &side.context()).await.unwrap();
    assert_eq!(ended, Revocation::ExpiresAt(issued.expires_at.unwrap()));
    assert_eq!(ended.action(), "credential.left_to_expire");
    assert!(!issued.handle.as_ref().unwrap().contains("canary"));
    assert!(!format!("{issued:?}").contains("canary"));
}

fn equals(value: &Secret, text: &str) -> bool {
    value.equals(&Secret::new(text.as_bytes().to_vec()))
}

#[tokio::test]
async fn google_gives_one_project_a_token_of_its_service_account_and_no_other() {
    let side = Side::new("payments");
    let spec = gcp(google(side.jwks(), 900));
    let issued = side.issue(&spec).await.unwrap();
    assert!(equals(&issued.value, "ya29.canary-of-the-account"));
    assert!((890..=901).contains(&seconds_left(&issued)), "{}", seconds_left(&issued));
    assert_eq!(issued.scope.as_deref(), Some(format!("gcp {ACCOUNT}").as_str()));
    only_expires(&side, &spec, &issued).await;

    // The same launcher, for another project.
    let mut other = side;
    other.project = "billing".parse().unwrap();
    let refused = other.refused(&spec).await;
    assert!(matches!(&refused, FederationError::Refused { status: 401, code, .. } if code == "unauthorized_client"));
    // Another launcher, for this project. The answer repeats the token, which is not shown.
    let refused = Side::new("payments").refused(&spec).await;
    let FederationError::Refused { code, said, .. } = &refused else { panic!("{refused:?}") };
    assert!(code == "invalid_grant" && said.starts_with("nobody published its key"), "{refused:?}");
}

#[tokio::test]
async fn a_token_that_lives_longer_than_asked_for_is_not_delivered() {
    let side = Side::new("payments");
    let refused = side.refused(&gcp(google(side.jwks(), 3600))).await;
    assert!(matches!(refused, FederationError::Wider { what: "a longer life", .. }), "{refused:?}");
}

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const CLIENT: &str = "66666666-7777-8888-9999-000000000000";
const EXCHANGE: &str = "api://AzureADTokenExchange";

fn azure(address: String, audience: &str) -> ProviderSpec {
    ProviderSpec::Azure(Box::new(AzureSpec {
        address,
        audience: audience.to_owned(),
        tenant: TENANT.to_owned(),
        client: CLIENT.to_owned(),
        scope: "https://management.azure.com/.default".to_owned(),
    }))
}

#[tokio::test]
async fn entra_gives_a_token_to_the_subject_and_audience_of_its_federated_credential() {
    let mut side = Side::new("payments");
    let jwks = side.jwks();
    let address = serve(move |request: &Request| {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", format!("/{TENANT}/oauth2/v2.0/token").as_str())
        );
        assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
        let form = request.form();
        let expected = [
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT),
            ("scope", "https://management.azure.com/.default"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ];
        exactly(&form, &expected, "client_assertion");
        match verify(&form["client_assertion"], &jwks, ISSUER, EXCHANGE) {
            Err("it is for somebody else") => error(
                400,
                "invalid_request",
                "AADSTS700212: No matching federated identity record found for presented assertion audience",
            ),
            Err(said) => error(401, "invalid_client", &format!("AADSTS700211: {said}")),
            // "The subject … must match exactly, case-sensitive."
            Ok(claims) if claims["sub"] != "project:payments" => error(
                400,
                "invalid_request",
                "AADSTS700213: No matching federated identity record found for presented assertion subject",
            ),
            Ok(_) => {
                let body = json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "eyJ0.canary.entra" });
                (200, body.to_string())
            }
        }
    });
    let spec = azure(address.clone(), EXCHANGE);
    let issued = side.issue(&spec).await.unwrap();
    assert!(equals(&issued.value, "eyJ0.canary.entra"));
    assert!((3590..=3600).contains(&seconds_left(&issued)), "{}", seconds_left(&issued));
    only_expires(&side, &spec, &issued).await;

    let said = |refused: &FederationError| match refused {
        FederationError::Refused { said, .. } => said.clone(),
        other => panic!("{other:?}"),
    };
    assert!(said(&side.refused(&azure(address, "api://another")).await).contains("AADSTS700212"));
    side.project = "billing".parse().unwrap();
    assert!(said(&side.refused(&spec).await).contains("AADSTS700213"));
    assert!(said(&Side::new("payments").refused(&spec).await).contains("AADSTS700211"));
}

fn anthropic(address: String, workspace: Option<&str>) -> ProviderSpec {
    ProviderSpec::AnthropicWif(Box::new(AnthropicSpec {
        address,
        audience: "https://api.anthropic.com".to_owned(),
        rule: "fdrl_01abc".to_owned(),
        organization: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".to_owned(),
        service_account: "svac_01abc".to_owned(),
        workspace: workspace.map(str::to_owned),
    }))
}

#[tokio::test]
async fn anthropic_gives_a_service_accounts_token_which_is_nobodys_log_in() {
    let mut side = Side::new("payments");
    let jwks = side.jwks();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let address = serve(move |request: &Request| {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/oauth/token"));
        assert_eq!(request.header("content-type"), "application/json");
        assert!(request.header("anthropic-beta").split(',').any(|word| word == "oidc-federation-2026-04-01"));
        let mut body: Value = serde_json::from_slice(&request.body).unwrap();
        let assertion = body.as_object_mut().unwrap().remove("assertion").unwrap();
        seen.lock().unwrap().push(body.clone());
        let refuse = |said: &str| {
            let body = json!({ "type": "error", "error": { "type": "authentication_error", "message": said } });
            (401, body.to_string())
        };
        match verify(assertion.as_str().unwrap(), &jwks, ISSUER, "https://api.anthropic.com") {
            Err(said) => refuse(said),
            Ok(claims) if claims["project"] != "payments" => refuse("the rule does not match the token"),
            Ok(_) => {
                (200, json!({ "access_token": ANTHROPIC_TOKEN, "token_type": "Bearer", "expires_in": 600 }).to_string())
            }
        }
    });
    let spec = anthropic(address.clone(), None);
    let issued = side.issue(&spec).await.unwrap();
    assert!(equals(&issued.value, ANTHROPIC_TOKEN));
    assert!((595..=601).contains(&seconds_left(&issued)), "{}", seconds_left(&issued));
    only_expires(&side, &spec, &issued).await;
    side.issue(&anthropic(address, Some("wrkspc_01abc"))).await.unwrap();
    let mut expected = json!({
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "federation_rule_id": "fdrl_01abc",
        "organization_id": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "service_account_id": "svac_01abc",
    });
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[0], expected);
    expected["workspace_id"] = json!("wrkspc_01abc");
    assert_eq!(asked[1], expected);

    side.project = "billing".parse().unwrap();
    let refused = side.refused(&spec).await;
    assert!(matches!(&refused, FederationError::Refused { status: 401, code, .. } if code == "authentication_error"));
    let refused = Side::new("payments").refused(&spec).await;
    assert!(
        matches!(&refused, FederationError::Refused { said, .. } if said == "nobody published its key"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_is_no_answer_is_told_and_never_delivered() {
    let side = Side::new("payments");
    let with = |status: u16, body: &'static str| anthropic(serve(move |_| (status, body.to_owned())), None);
    for (body, part) in [
        ("canary", "unknown type"),
        (r#"{"access_token":"canary"}"#, "unknown type"),
        (r#"{"access_token":"canary","token_type":"mac","expires_in":1}"#, "unknown type"),
        (r#"{"access_token":"canary","token_type":"bearer"}"#, "without an end"),
        (r#"{"access_token":"canary","token_type":"bearer","expires_in":0}"#, "without an end"),
        (r#"{"access_token":"a\nb","token_type":"bearer","expires_in":60}"#, "without a token"),
        (r#"{"token_type":"bearer","expires_in":60}"#, "without a token"),
        (r#"{"access_token":"canary","token_type":"bearer","expires_in":864000}"#, "a longer life"),
    ] {
        let refused = side.refused(&with(200, body)).await;
        assert!(refused.to_string().contains(part), "{body}: {refused}");
    }
    for status in [429, 500, 503] {
        assert!(matches!(side.refused(&with(status, "{}")).await, FederationError::Busy { .. }));
    }
    let refused = side.refused(&with(400, "<html>canary</html>")).await;
    assert!(
        matches!(&refused, FederationError::Refused { status: 400, code, said, .. } if code.is_empty() && said.is_empty())
    );
    let long = anthropic(serve(|_| (200, "x".repeat(100_000))), None);
    assert!(side.refused(&long).await.to_string().contains("too long"));
    // A redirection would take the identity along.
    assert!(matches!(side.refused(&with(307, "")).await, FederationError::Refused { status: 307, .. }));
    let gone = anthropic("http://127.0.0.1:1".to_owned(), None);
    assert!(matches!(side.refused(&gone).await, FederationError::Unreachable { .. }));
    let open = anthropic("http://api.example.com".to_owned(), None);
    assert!(matches!(side.refused(&open).await, FederationError::Address { .. }));
}
