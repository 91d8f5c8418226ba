//! `sandbox plan`: what `up` would do. Reads no secret and does not talk to Docker.

use std::fmt::Write as _;
use std::time::Duration;

use crate::commands::load::{Overrides, Target, load};
use crate::commands::{Context, Failure};
use crate::project::quantity::{show_duration, show_size};
use crate::session::plan::Plan;
use crate::session::ports;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
}

/// Prints the plan.
///
/// # Errors
/// When manifest, profile or image lock are refused.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let loaded = load(context, &args.target, &Overrides::default())?;
    context.printer.described(&loaded.plan, || describe(&loaded.plan));
    Ok(0)
}

/// The plan for people.
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    row("project", plan.id.to_string());
    row("image", format!("{} {}", plan.image.name, plan.image.digest));
    row("command", plan.command.join(" "));
    let branch = plan.workspace.branch.as_deref().unwrap_or("the current branch");
    let depth = plan.workspace.depth.map(|commits| format!(", its last {commits} commits")).unwrap_or_default();
    let uncommitted =
        if plan.workspace.include_uncommitted { " with what is not committed of tracked files" } else { "" };
    row("workspace", format!("a clone of {branch}{uncommitted}{depth}, in a volume of its own"));
    if plan.workspace.sign {
        row("", "commits are signed with a key of the session".to_owned());
    }
    for (paths, words) in [
        (&plan.workspace.sparse, "of its folders, only"),
        (&plan.workspace.submodules, "submodules"),
        (&plan.workspace.lfs, "large files below"),
    ] {
        if !paths.is_empty() {
            row("", format!("{words} {}", paths.join(", ")));
        }
    }
    if plan.workspace.keep_home {
        row("home", "kept by `down`; what an earlier session of this sandbox left in it comes along".to_owned());
    }
    if let Some(limit) = plan.workspace.home_limit {
        row(if plan.workspace.keep_home { "" } else { "home" }, format!("at most {}", show_size(limit)));
    }
    for (index, mount) in plan.mounts.iter().enumerate() {
        let access = if mount.read_only { "read-only" } else { "writable" };
        row(if index == 0 { "mounts" } else { "" }, format!("{} ({access}): {}", mount.target, mount.purpose));
    }
    if plan.network.allow.is_empty() {
        row("network", "nothing".to_owned());
    }
    for (index, rule) in plan.network.allow.iter().enumerate() {
        let mut line = format!("{}:{}", rule.host, rule.port);
        for private in &rule.allow_private {
            let _ = write!(line, " (may be at {private})");
        }
        row(if index == 0 { "network" } else { "" }, line);
        for request in &rule.rules {
            row("", format!("  {request}"));
        }
    }
    let limits = &plan.network.limits;
    row(
        "",
        format!(
            "at most {} to each host and {} in a request, {} connections to each, {} names, {} idle, {} in all",
            show_size(limits.upload),
            show_size(limits.request_body),
            limits.connections,
            limits.names,
            show_duration(limits.idle()),
            show_duration(limits.total())
        ),
    );
    if let Some(proxy) = &plan.network.proxy {
        let log_in = if proxy.log_in { " with your log-in" } else { "" };
        row("", format!("through the proxy {proxy}{log_in}, which resolves the names; private hosts directly"));
    }
    if let Some(authorities) = &plan.network.authorities {
        let count = authorities.matches("-----BEGIN CERTIFICATE-----").count();
        row("", format!("{count} certificate authorities of your configuration are trusted beside the web's"));
    }
    if !plan.ports.is_empty() {
        let ports: Vec<String> = plan.ports.iter().map(|forward| ports::url(&plan.id.project, *forward)).collect();
        row("ports", ports.join(", "));
    }
    if plan.credentials.is_empty() {
        row("credentials", "none".to_owned());
    }
    for (index, credential) in plan.credentials.iter().enumerate() {
        let mut line = format!("{} from {}, as {}", credential.name, credential.provider, credential.deliver);
        if let Some(life) = credential.life {
            let life = show_duration(Duration::from_secs(life));
            line.push_str(&format!("; issued by it for at most {life}"));
        }
        row(if index == 0 { "credentials" } else { "" }, line);
    }
    row(
        "limits",
        format!(
            "{} cores, {} of memory, {} processes, {} of disk{}",
            plan.limits.millicpus as f64 / 1000.0,
            show_size(plan.limits.memory),
            plan.limits.pids,
            show_size(plan.disk),
            plan.session_limit
                .map(|seconds| format!(", sessions of {}", show_duration(Duration::from_secs(seconds))))
                .unwrap_or_default()
        ),
    );
    row("profile", plan.profile.clone());
    for weakness in &plan.weakened {
        row("WEAKENED", weakness.clone());
    }
    row("hash", plan.plan_hash.clone());
    text
}
