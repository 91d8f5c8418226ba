//! `sandbox credential identity`: what a team publishes and tells its issuers, so that they take a sandbox by its project.
//! A token is printed only when it is asked for by its audience, and the audit log says so.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, json};

use super::advice::identity_advice;
use super::{authority, issue_context};
use crate::commands::audit::record;
use crate::commands::load::{self, actor};
use crate::commands::{Context, Failure};
use crate::credential::identity::{Documents, IdentityError};
use crate::project::SandboxName;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The project
    project: Option<String>,
    /// Make a new key. The old public key stays in the published document until its last token has ended
    #[arg(long)]
    rotate: bool,
    /// Print a token of five minutes for this audience, and record that
    #[arg(long, value_name = "AUDIENCE", conflicts_with = "rotate")]
    token: Option<String>,
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let next = identity_advice(&error);
        Failure::new("identity", &error, next)
    }
}

pub(super) fn run(context: &Context, args: &Arguments) -> Result<u8, Failure> {
    let (_, manifest) = load::manifest(context, args.project.as_deref())?;
    let authority = authority(context);
    if let Some(audience) = &args.token {
        let (actor, _) = actor();
        let sandbox = SandboxName::main();
        let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "identity");
        let signed = authority.sign(&issue, audience, Map::new(), Timestamp::now())?;
        let ends = signed.expires_at.to_string();
        // Before it is printed: a token that is not recorded is not given.
        let facts =
            [("audience", audience.as_str()), ("token", &signed.id), ("key", &signed.key), ("expires_at", &ends)];
        record(context, &manifest.project, "identity.printed", &facts)?;
        let text = signed.text();
        context.printer.result(&json!({ "token": *text, "expires_at": ends, "key": signed.key }), || text.to_string());
        return Ok(0);
    }
    if args.rotate {
        authority.rotate()?;
    }
    let documents = authority.documents(manifest.project.as_str())?;
    if args.rotate {
        record(context, &manifest.project, "identity.rotated", &[("key", &documents.key)])?;
        context.printer.note(&format!(
            "the new key is {}; publish the document of {} now, since issuers refuse what it does not have",
            documents.key, documents.jwks_address
        ));
    }
    context.printer.result(&documents, || text(&documents));
    Ok(0)
}

fn text(documents: &Documents) -> String {
    let pretty = |value: &serde_json::Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let mut text = format!(
        "Issuer   {}\nSubject  {}\nKey      {}\n\nServe at {}\n{}\n\nServe at {}\n{}\n",
        documents.issuer,
        documents.subject,
        documents.key,
        documents.discovery_address,
        pretty(&documents.discovery),
        documents.jwks_address,
        pretty(&documents.jwks),
    );
    for step in &documents.configuration {
        let _ = write!(
            text,
            "\n{}: {}\n{}\nsandbox.yaml: {}\n",
            step.issuer,
            step.call,
            pretty(&step.document),
            step.manifest
        );
    }
    text
}
