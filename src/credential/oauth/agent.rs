//! Whose log-in it is: what the vendor publishes of it, and the file in which the agent's program looks for it.
//!
//! The file holds an access token, or what stands for one that the gateway puts in, and no refresh token: the program cannot
//! renew the log-in, and finds a newer file instead.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::error::OauthError;
use crate::credential::secret::Secret;
use crate::credential::spec::LoginAgent;
use crate::credential::wiped::{self, Wiped};

/// The longest claim that is kept, in bytes.
const CLAIM_LIMIT: usize = 256;
/// Where OpenAI's tokens have what they say of an account (openai/codex, `codex-rs/login/src/token_data.rs`).
const OPENAI_CLAIMS: &str = "https://api.openai.com/auth";

/// What a vendor publishes of the log-in of its agent.
pub struct Published {
    /// The client's id.
    pub client_id: &'static str,
    /// The authorization endpoint.
    pub authorize_url: &'static str,
    /// The token endpoint.
    pub token_url: &'static str,
    /// What the client has registered for the way back.
    pub redirect_url: &'static str,
    /// What is asked for.
    pub scopes: &'static [&'static str],
    /// Further parameters of the authorization request.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Whether the client has a secret, which has to be given.
    pub has_secret: bool,
}

impl LoginAgent {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Codex, Self::ClaudeCode, Self::GeminiCli];

    /// Its word in a manifest.
    pub fn word(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::ClaudeCode => "claude-code",
            Self::GeminiCli => "gemini-cli",
        }
    }

    /// What its vendor publishes in its own sources. Anthropic publishes neither client nor endpoints of Claude Code's.
    pub fn published(self) -> Option<Published> {
        match self {
            // openai/codex, `codex-rs/login/src/server.rs`: `build_authorize_url`, `exchange_code_for_tokens`, `DEFAULT_PORT`;
            // `codex-rs/login/src/auth/manager.rs`: `CLIENT_ID`.
            Self::Codex => Some(Published {
                client_id: "app_EMoamEEZ73f0CkXaXp7hrann",
                authorize_url: "https://auth.openai.com/oauth/authorize",
                token_url: "https://auth.openai.com/oauth/token",
                redirect_url: "http://localhost:1455/auth/callback",
                scopes: &["openid", "profile", "email", "offline_access"],
                parameters: &[("id_token_add_organizations", "true"), ("codex_cli_simplified_flow", "true")],
                has_secret: false,
            }),
            // google-gemini/gemini-cli, `packages/core/src/code_assist/oauth2.ts`; the endpoints are those of Google's "OAuth 2.0
            // for Mobile & Desktop Apps", where `access_type` is what brings a refresh token. Its secret is in the same file.
            Self::GeminiCli => Some(Published {
                client_id: "681255809395-oo8ft2oprdrnp9e3aqf6av3hmdib135j.apps.googleusercontent.com",
                authorize_url: "https://accounts.google.com/o/oauth2/v2/auth",
                token_url: "https://oauth2.googleapis.com/token",
                redirect_url: "http://127.0.0.1/oauth2callback",
                scopes: &[
                    "https://www.googleapis.com/auth/cloud-platform",
                    "https://www.googleapis.com/auth/userinfo.email",
                    "https://www.googleapis.com/auth/userinfo.profile",
                ],
                parameters: &[("access_type", "offline"), ("prompt", "consent")],
                has_secret: true,
            }),
            Self::ClaudeCode => None,
        }
    }

    /// The vendor's hosts, to which what is in the file may go.
    pub fn hosts(self) -> &'static [&'static str] {
        match self {
            Self::Codex => &["chatgpt.com", "*.openai.com"],
            Self::ClaudeCode => &["*.anthropic.com", "*.claude.com"],
            Self::GeminiCli => &["*.googleapis.com"],
        }
    }

    /// Where its program looks for the file, below the home folder.
    pub fn home_path(self) -> &'static str {
        match self {
            Self::Codex => ".codex/auth.json",
            Self::ClaudeCode => ".claude/.credentials.json",
            Self::GeminiCli => ".gemini/oauth_creds.json",
        }
    }
}

/// What an access token's file says beside it. No secret, and of the account no more than the program needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    id: Option<String>,
    user: Option<String>,
    plan: Option<String>,
}

impl Account {
    /// What the signed tokens of an answer say of the account. They came over TLS from the issuer itself, so their signature
    /// tells nothing more (OpenID Connect Core 1.0, section 3.1.3.7, item 6).
    pub(super) fn of(tokens: &[Option<&str>]) -> Option<Self> {
        tokens.iter().flatten().find_map(|token| {
            let claims = Wiped(claims(token)?);
            let own = claims.0.get(OPENAI_CLAIMS)?;
            let word = |key: &str| {
                let text = own.get(key).and_then(Value::as_str);
                text.filter(|text| text.len() <= CLAIM_LIMIT && !text.contains(char::is_control)).map(str::to_owned)
            };
            let user = word("chatgpt_user_id").or_else(|| word("user_id"));
            Some(Self { id: word("chatgpt_account_id"), user, plan: word("chatgpt_plan_type") })
        })
    }
}

/// The claims of a token in three parts (RFC 7519, section 7.2).
fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// What is in the file.
pub(super) struct Content<'a> {
    pub(super) token: &'a str,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) scope: &'a str,
    pub(super) account: Option<&'a Account>,
}

impl LoginAgent {
    /// The file as the agent's program reads it.
    pub(super) fn file(self, content: &Content<'_>) -> Result<Secret, OauthError> {
        let document = Wiped(match self {
            Self::Codex => codex(content),
            // The form that Claude Code writes; without `user:inference` among the scopes it says that nobody logged in.
            Self::ClaudeCode => json!({ "claudeAiOauth": {
                "accessToken": content.token,
                "refreshToken": "",
                "expiresAt": content.expires_at.as_millisecond(),
                "scopes": content.scope.split(' ').filter(|scope| !scope.is_empty()).collect::<Vec<_>>(),
            } }),
            // The `Credentials` of google-auth-library, without a refresh token.
            Self::GeminiCli => json!({
                "access_token": content.token,
                "token_type": "Bearer",
                "scope": content.scope,
                "expiry_date": content.expires_at.as_millisecond(),
            }),
        });
        let text = wiped::text(&document.0).map_err(|_| OauthError::Damaged)?;
        Ok(Secret::new(text.to_vec()))
    }
}

/// openai/codex, `codex-rs/login/src/auth/storage.rs` and `token_data.rs`.
///
/// The true identity token is not in it: with that, an API key of the person's can be had (`obtain_api_key` in `server.rs`).
/// The program reads three claims of it and checks no signature, so it gets a token of these alone, which nobody signed.
fn codex(content: &Content<'_>) -> Value {
    let mut own = Map::new();
    let account = content.account.cloned().unwrap_or_default();
    for (key, value) in
        [("chatgpt_account_id", &account.id), ("chatgpt_user_id", &account.user), ("chatgpt_plan_type", &account.plan)]
    {
        own.extend(value.as_ref().map(|value| (key.to_owned(), json!(value))));
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = [part(&json!({ "alg": "none" })), part(&json!({ OPENAI_CLAIMS: own })), "none".to_owned()].join(".");
    json!({
        "OPENAI_API_KEY": null,
        "tokens": {
            "id_token": unsigned,
            "access_token": content.token,
            "refresh_token": "",
            "account_id": account.id,
        },
        "last_refresh": content.issued_at.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.signature", part(&json!({ "alg": "RS256" })), part(claims))
    }

    fn written(agent: LoginAgent, account: Option<&Account>) -> Value {
        let content = Content {
            token: "access-1",
            issued_at: "2030-01-01T00:00:00Z".parse().unwrap(),
            expires_at: "2030-01-01T01:00:00Z".parse().unwrap(),
            scope: "user:inference user:profile",
            account,
        };
        serde_json::from_slice(agent.file(&content).unwrap().expose()).unwrap()
    }

    #[test]
    fn each_file_has_the_access_token_its_end_and_no_refresh_token() {
        let codex = written(LoginAgent::Codex, None);
        assert_eq!(
            (&codex["tokens"]["access_token"], &codex["tokens"]["refresh_token"]),
            (&json!("access-1"), &json!(""))
        );
        assert_eq!(codex["last_refresh"], "2030-01-01T00:00:00Z");
        let claude = written(LoginAgent::ClaudeCode, None)["claudeAiOauth"].clone();
        assert_eq!((&claude["accessToken"], &claude["refreshToken"]), (&json!("access-1"), &json!("")));
        assert_eq!(claude["expiresAt"], 1_893_459_600_000_i64);
        assert_eq!(claude["scopes"], json!(["user:inference", "user:profile"]));
        let gemini = written(LoginAgent::GeminiCli, None);
        assert_eq!((&gemini["access_token"], gemini.get("refresh_token")), (&json!("access-1"), None));
        assert_eq!(gemini["expiry_date"], 1_893_459_600_000_i64);
    }

    #[test]
    fn codex_gets_the_account_and_not_the_identity_token() {
        let given = token(&json!({
            "email": "ada@example.com",
            OPENAI_CLAIMS: { "chatgpt_account_id": "acc-1", "chatgpt_plan_type": "team", "organization_id": "org-1" },
        }));
        let account = Account::of(&[Some("opaque"), Some(&given)]).unwrap();
        let codex = written(LoginAgent::Codex, Some(&account));
        assert_eq!(codex["tokens"]["account_id"], "acc-1");
        let identity = codex["tokens"]["id_token"].as_str().unwrap();
        assert_ne!(identity, given);
        let found = claims(identity).unwrap();
        assert_eq!(found[OPENAI_CLAIMS], json!({ "chatgpt_account_id": "acc-1", "chatgpt_plan_type": "team" }));
        assert!(!codex.to_string().contains("ada@") && !found.to_string().contains("org-1"), "{found}");
    }

    #[test]
    fn a_token_that_says_nothing_of_an_account_is_none() {
        let long = token(&json!({ OPENAI_CLAIMS: { "chatgpt_account_id": "x".repeat(300) } }));
        assert_eq!(Account::of(&[Some(&long)]), Some(Account::default()));
        for odd in ["", "a.b", "a.b.c", "a.b.c.d", &token(&json!([])), &token(&json!({ OPENAI_CLAIMS: 5 }))] {
            assert!(Account::of(&[Some(odd)]).is_none_or(|account| account == Account::default()), "{odd}");
        }
    }
}
