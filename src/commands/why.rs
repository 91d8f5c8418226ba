//! `sandbox why`: whether a destination or a request is allowed, by which line of the manifest, and with which credential.
//! Computed from the manifest and the journal, and where a credential is brokered, shown by the running gateway itself:
//! it makes up the request and says what stands in it, without sending it.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::connect::connect;
use crate::commands::load::{Overrides, Target, load};
use crate::commands::{Context, Failure};
use crate::credential::challenge::Challenge;
use crate::credential::secret::Secret;
use crate::credential::spec::Delivery;
use crate::gateway::protocol::Proof;
use crate::gateway::request::{RequestError, split_authority};
use crate::network::name::Host;
use crate::network::policy::{AllowRule, Policy};
use crate::network::request::{PathError, RequestPath};
use crate::project::SandboxName;
use crate::project::manifest::Manifest;
use crate::session::gateway_control::{GatewayControl, GatewayControlError};
use crate::session::identity::{Role, SandboxId};
use crate::session::journal::{Journal, Phase};
use crate::session::plan::Plan;

/// Arguments of `why`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A project's name or folder
    #[arg(value_name = "PROJECT")]
    project: String,
    /// The host, on port 443 unless one is named
    #[arg(value_name = "HOST[:PORT]")]
    destination: String,
    /// A method such as GET; WEBSOCKET for a request that asks for an upgrade to one
    #[arg(value_name = "METHOD", requires = "path")]
    method: Option<String>,
    /// A path such as /v1/messages; what is behind `?` does not count
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// Which of several sandboxes of the project
    #[arg(long, value_name = "NAME", default_value = "main")]
    name: SandboxName,
}

/// What cannot be judged.
#[derive(Debug, thiserror::Error)]
enum Unclear {
    #[error("judge `{}`", .0.escape_debug())]
    Destination(String, #[source] RequestError),
    #[error("judge the path `{}`", .0.escape_debug())]
    Path(String, #[source] PathError),
}

#[derive(Debug, Serialize)]
struct Verdict {
    allowed: bool,
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    /// Where the entry stands that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct CredentialState {
    name: String,
    deliver: String,
    out: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// What the gateway showed of a brokered one.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Shown>,
    #[serde(skip)]
    challenge: Option<Challenge>,
}

/// What the running gateway showed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
enum Shown {
    /// The request gets the value that was handed out; where it stands.
    PutIn(String),
    /// The request gets another value than the one that was handed out.
    Other(String),
    /// The request gets none, and why.
    Nothing(String),
    /// Nobody could be asked, and why.
    Unknown(String),
}

/// Says it; exit code 1 when it is denied.
///
/// # Errors
/// When the manifest is refused, or the destination is none.
pub async fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let target = Target { project: Some(args.project.clone()), name: args.name.clone() };
    let loaded = load(context, &target, &Overrides::default())?;
    let (host, port) = split_authority(&args.destination, Some(443)).map_err(|error| {
        let next = "write a host such as api.example.com or api.example.com:8443";
        Failure::new("destination", &Unclear::Destination(args.destination.clone(), error), next)
    })?;
    let request = match (&args.method, &args.path) {
        (Some(method), Some(path)) => {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let parsed: RequestPath = path.parse().map_err(|error| {
                let next = "the gateway refuses such a path to every host with rules; write it in its plain form";
                Failure::new("destination", &Unclear::Path(path.to_owned(), error), next)
            })?;
            Some((method.to_uppercase(), parsed))
        }
        _ => None,
    };
    let mut verdict = judge(&loaded.plan.network, &host, port, request.as_ref());
    let rule = loaded.plan.network.find_host(&host, port);
    verdict.credential = rule.and_then(|rule| credential(context, &loaded.plan, &loaded.manifest, rule, &host));
    if let (true, Some(credential), Some((method, path))) = (verdict.allowed, &mut verdict.credential, &request) {
        credential.proof = prove(context, &loaded.plan.id, credential, &host, port, method, path).await;
    }
    context.printer.described(&verdict, || describe(&verdict));
    Ok(u8::from(!verdict.allowed))
}

fn judge(policy: &Policy, host: &Host, port: u16, request: Option<&(String, RequestPath)>) -> Verdict {
    let mut verdict = Verdict {
        allowed: false,
        host: host.to_string(),
        port,
        request: request.map(|(method, path)| format!("{method} {}", path.as_str())),
        entry: None,
        reason: String::new(),
        credential: None,
        next: None,
    };
    let Some(entry) = policy.find_host(host, port) else {
        let elsewhere = policy.allow.iter().find(|entry| entry.host.covers(host));
        verdict.reason = match elsewhere {
            Some(entry) => format!("{host} is allowed on port {} alone", entry.port),
            None => "no entry of `network.allow` names it".to_owned(),
        };
        verdict.next = Some(match port {
            443 => format!("add `- {host}` to `network.allow` in sandbox.yaml"),
            _ => format!("add `- {{ host: {host}, port: {port} }}` to `network.allow` in sandbox.yaml"),
        });
        return verdict;
    };
    verdict.entry.clone_from(&entry.origin);
    match request {
        None if entry.rules.is_empty() => {
            verdict.allowed = true;
            verdict.reason = format!("the entry {} allows every request", entry.host);
        }
        None => {
            verdict.allowed = true;
            let rules: Vec<String> = entry.rules.iter().map(ToString::to_string).collect();
            verdict.reason = format!("the entry {} allows {}", entry.host, rules.join(", "));
        }
        Some((method, path)) => judge_request(&mut verdict, entry, method, path),
    }
    verdict
}

fn judge_request(verdict: &mut Verdict, entry: &AllowRule, method: &str, path: &RequestPath) {
    let upgrades = method == "WEBSOCKET";
    let sent = if upgrades { "GET" } else { method };
    if entry.rules.is_empty() {
        verdict.allowed = true;
        verdict.reason = if entry.is_inspected() {
            format!("the entry {} has no rules, so that every request is allowed", entry.host)
        } else {
            format!("the entry {} has no rules, so that the gateway does not read requests", entry.host)
        };
        return;
    }
    match entry.rules.iter().find(|rule| rule.allows(sent, upgrades, path)) {
        Some(rule) => {
            verdict.allowed = true;
            verdict.reason = format!("the rule `{rule}` allows it");
        }
        None => {
            verdict.reason = format!("none of the {} rules of {} allows it", entry.rules.len(), entry.host);
            verdict.next = Some(format!("add a rule such as `{method} {}` to them", path.as_str()));
        }
    }
}

/// The credential that a request to this host would carry.
fn credential(
    context: &Context,
    plan: &Plan,
    manifest: &Manifest,
    rule: &AllowRule,
    host: &Host,
) -> Option<CredentialState> {
    let for_git =
        |delivery: &Delivery| matches!(delivery, Delivery::Git { host: git } if git.to_string() == host.to_string());
    let (name, _) = manifest.credentials.iter().find(|(name, spec)| {
        rule.broker.as_deref() == Some(name.as_str()) || (rule.broker.is_none() && for_git(&spec.deliver))
    })?;
    let planned = plan.credentials.iter().find(|planned| planned.name == *name)?;
    let record = Journal::of(&context.folders.state, &plan.id).read().ok().flatten();
    let lease =
        record.filter(|record| record.phase == Phase::Running).and_then(|mut record| record.leases.remove(name));
    Some(CredentialState {
        name: name.to_string(),
        deliver: planned.deliver.clone(),
        out: lease.is_some(),
        fingerprint: lease.as_ref().map(|lease| lease.fingerprint.clone()),
        expires_at: lease.as_ref().and_then(|lease| lease.expires_at),
        proof: None,
        challenge: lease.and_then(|lease| lease.challenge),
    })
}

/// Has the running gateway show what the request would carry. Of a credential that is no broker's, or that an earlier version
/// handed out, there is nothing to show.
async fn prove(
    context: &Context,
    id: &SandboxId,
    credential: &CredentialState,
    host: &Host,
    port: u16,
    method: &str,
    path: &RequestPath,
) -> Option<Shown> {
    let challenge = credential.challenge.as_ref()?;
    let nonce = Secret::new(challenge.nonce.clone().into_bytes());
    let proof = Proof { host: host.clone(), port, method: method.to_owned(), path: path.as_str().to_owned(), nonce };
    let engine = match connect(context).await {
        Ok(engine) => engine,
        Err(failure) => return Some(Shown::Unknown(failure.what)),
    };
    let asked = async { GatewayControl::attach(&engine, &id.object(Role::Gateway)).await?.prove(proof).await };
    Some(match asked.await {
        Ok(proven) if proven.credential == credential.name && challenge.is_answered_by(&proven.answer) => {
            Shown::PutIn(proven.place)
        }
        Ok(proven) => Shown::Other(proven.place),
        Err(GatewayControlError::Refused(why)) => Shown::Nothing(why),
        Err(error) => Shown::Unknown(error.to_string()),
    })
}

fn describe(verdict: &Verdict) -> String {
    let word = if verdict.allowed { "allowed" } else { "denied" };
    let mut text = format!("{word}      {}:{}", verdict.host, verdict.port);
    if let Some(request) = &verdict.request {
        let _ = write!(text, " {request}");
    }
    let _ = write!(text, "\nbecause      {}", verdict.reason);
    if let Some(entry) = &verdict.entry {
        let _ = write!(text, " ({entry})");
    }
    if let Some(credential) = &verdict.credential {
        let _ = write!(text, "\ncredential   {}: {}", credential.name, credential.deliver);
        match (&credential.fingerprint, credential.expires_at) {
            (Some(fingerprint), Some(at)) => {
                let _ = write!(text, "; handed out, fingerprint {fingerprint}, until {at}");
            }
            (Some(fingerprint), None) => {
                let _ = write!(text, "; handed out, fingerprint {fingerprint}");
            }
            (None, _) => text.push_str("; not handed out, since the sandbox does not run or it was withdrawn"),
        }
    }
    let proof = verdict.credential.as_ref().and_then(|credential| credential.proof.as_ref());
    if let Some(proof) = proof {
        let _ = match proof {
            Shown::PutIn(place) => {
                write!(text, "\nproved       the gateway puts that value into {place}; nothing was sent")
            }
            Shown::Other(place) => write!(text, "\nnot proved   the gateway puts another value into {place}"),
            Shown::Nothing(why) => write!(text, "\nnot proved   the gateway puts nothing in: {why}"),
            Shown::Unknown(why) => write!(text, "\nnot proved   the gateway was not asked: cannot {why}"),
        };
    }
    if let Some(next) = &verdict.next {
        let _ = write!(text, "\nnext         {next}");
    }
    text
}
