//! The device flow (RFC 8628): the person confirms a short code in a browser, wherever that is.

use std::time::{Duration, Instant};

use reqwest::Url;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::{Tokens, post, tokens, word};
use super::error::OauthError;
use crate::credential::secret::Secret;
use crate::credential::spec::OauthSpec;
use crate::credential::web;

/// The pause between two questions when the issuer does not say one (section 3.2).
const PAUSE: u64 = 5;
/// The longest pause and the longest life of a code that are believed.
const PAUSE_MOST: u64 = 60;
const LIFE_MOST: u64 = 30 * 60;

/// A log-in that was begun.
pub struct Device {
    code: Zeroizing<String>,
    /// What the person enters.
    pub user_code: String,
    /// Where.
    pub page: String,
    /// How long the code is good.
    pub life: Duration,
    pause: Duration,
}

impl Device {
    /// Asks for a code (section 3.1).
    ///
    /// # Errors
    /// When the issuer does not give one.
    pub async fn begin(spec: &OauthSpec, address: &str) -> Result<Self, OauthError> {
        let scope = spec.scopes.join(" ");
        let mut fields = vec![("client_id", spec.client_id.as_str())];
        if !scope.is_empty() {
            fields.push(("scope", &scope));
        }
        let answer = post(spec, address, None, &fields).await?;
        if !answer.is_good() {
            return Err(answer.failed());
        }
        let unusable = OauthError::Answer;
        let code = answer.text("device_code").and_then(|code| word(code.as_bytes()));
        let code = Zeroizing::new(code.ok_or(unusable("no code"))?.to_owned());
        let shown = |text: &&str| (1..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let user_code = answer.text("user_code").filter(shown).ok_or(unusable("no code to enter"))?.to_owned();
        // It is shown to a person who follows it, so it has to be a page that nobody in between can change.
        let page = answer.text("verification_uri").filter(|text| text.len() <= 256);
        let page = page.and_then(|text| Url::parse(text).ok()).filter(|url| web::check(url).is_ok());
        let page = page.ok_or(unusable("no page to enter the code at"))?.to_string();
        let number = |key, most: u64| answer.body.0.get(key).and_then(Value::as_u64).map(|found| found.clamp(1, most));
        let life = Duration::from_secs(number("expires_in", LIFE_MOST).ok_or(unusable("a code without an end"))?);
        let pause = Duration::from_secs(number("interval", PAUSE_MOST).unwrap_or(PAUSE));
        Ok(Self { code, user_code, page, life, pause })
    }

    /// Waits until the person has confirmed it (section 3.4).
    ///
    /// # Errors
    /// When the person declines or does nothing, or the issuer refuses.
    pub async fn wait(self, spec: &OauthSpec, secret: Option<&Secret>) -> Result<Tokens, OauthError> {
        let begun = Instant::now();
        let mut pause = self.pause;
        while begun.elapsed() + pause <= self.life {
            tokio::time::sleep(pause).await;
            let fields = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", self.code.as_str()),
                ("client_id", spec.client_id.as_str()),
            ];
            let answer = match post(spec, &spec.token_url, secret, &fields).await {
                // "Exponential backoff" on a connection that times out (section 3.5).
                Err(OauthError::Timeout { .. } | OauthError::Unreachable { .. }) => {
                    pause = (pause * 2).min(Duration::from_secs(PAUSE_MOST));
                    continue;
                }
                other => other?,
            };
            match answer.error() {
                Some("authorization_pending") => {}
                // "The interval MUST be increased by 5 seconds for this and all subsequent requests" (section 3.5).
                Some("slow_down") => pause += Duration::from_secs(5),
                Some("access_denied") => return Err(OauthError::Declined),
                Some("expired_token") => return Err(OauthError::CodeExpired),
                _ if answer.is_good() => return tokens(spec, &answer),
                _ => return Err(answer.failed()),
            }
        }
        Err(OauthError::CodeExpired)
    }
}
