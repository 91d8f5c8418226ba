//! `sandbox credential login`: one log-in of the developer's becomes the project's. What renews it stays on this machine.

use std::io::IsTerminal as _;

use super::{Named, Refusal, declared, issue_context, named, read_value};
use crate::commands::audit::record;
use crate::commands::load::{self, actor};
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, trust};
use crate::credential::oauth::browser::LIFE;
use crate::credential::oauth::{self, Browser, Device, OauthError};
use crate::credential::spec::ProviderSpec;
use crate::credential::{CredentialError, admit};
use crate::project::SandboxName;

/// Logs in, by a code in the browser or with a refresh token from standard input.
///
/// # Errors
/// When the credential is of another provider, the manifest is not approved, or the issuer or the person says no.
pub(super) async fn login(context: &Context, words: &Named) -> Result<u8, Failure> {
    let (manifest, name) = named(context, words)?;
    let spec = declared(&manifest, &name)?;
    let ProviderSpec::Oauth(oauth_spec) = &spec.provider else {
        let refusal = Refusal::NoLogin { name: name.clone(), provider: spec.provider.word() };
        let next = format!("give its value with `sandbox credential set {name}`, or declare `provider: oauth`");
        return Err(Failure::new("credential-not-login", &refusal, next));
    };
    // The manifest says where the tokens go.
    let (path, _) = load::manifest(context, words.project.as_deref())?;
    trust::require(context, &path, &manifest)?;
    let failed = |error: OauthError| Failure::from(CredentialError::from(error));
    let piped = !std::io::stdin().is_terminal();
    let (actor, _) = actor();
    let sandbox = SandboxName::main();
    let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "login");
    let secret = oauth::client_secret(&name, oauth_spec, &issue).await.map_err(failed)?;
    let secret = secret.as_ref();
    let (tokens, way) = match (&oauth_spec.device_url, &oauth_spec.authorize_url) {
        // Who pipes something in has a token; a cron job's empty input is told so.
        (Some(address), _) if !piped => {
            let device = Device::begin(oauth_spec, address).await.map_err(failed)?;
            context.printer.question(&sanitise(&format!(
                "Open {} and enter the code {}. It is good for {} minutes. Confirm it only if the page names what you \
                 expect: sandboxes of {} then act as you, as far as `scopes` goes.",
                device.page,
                device.user_code,
                device.life.as_secs().div_ceil(60),
                manifest.project
            )));
            context.printer.note("waiting for the confirmation in the browser");
            (device.wait(oauth_spec, secret).await.map_err(failed)?, "device")
        }
        (None, Some(address)) if !piped => {
            let browser = Browser::begin(oauth_spec, address).await.map_err(failed)?;
            context.printer.question(&sanitise(&format!(
                "Open this page in a browser on this machine:\n\n  {}\n\nIt is good for {} minutes. Confirm it only if the page \
                 names what you expect: sandboxes of {} then act as you, as far as `scopes` goes.",
                browser.page,
                LIFE.as_secs() / 60,
                manifest.project
            )));
            context.printer.note("waiting for the browser to come back");
            (browser.wait(oauth_spec, secret).await.map_err(failed)?, "browser")
        }
        _ => {
            let refresh = read_value(&name)?;
            (oauth::take_over(oauth_spec, secret, &refresh).await.map_err(failed)?, "refresh token")
        }
    };
    let fingerprint = admit(&name, spec, &issue, &tokens.access())?;
    oauth::keep(&name, oauth_spec, &issue, &tokens).await.map_err(failed)?;
    let facts = [
        ("credential", name.as_str()),
        ("provider", "oauth"),
        ("fingerprint", &fingerprint.to_string()),
        ("client_id", &oauth_spec.client_id),
        ("token_url", &oauth_spec.token_url),
        ("scope", tokens.scope()),
        ("way", way),
    ];
    record(context, &manifest.project, "credential.login", &facts)?;
    context.printer.note(&format!(
        "logged in for `{name}` of {}; sandboxes get access tokens, and what renews them stays on this machine",
        manifest.project
    ));
    Ok(0)
}
