//! `sandbox doctor`: whether this machine can run sandboxes, and what to do where it cannot.

mod version;

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::commands::connect::connect;
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::engine::Engine;
use crate::session::identity::private_folder;
use crate::session::launcher_image;
use version::{Hole, Program, numbers};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Good,
    Note,
    Warning,
    Problem,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, level: Level::Good, found: found.into(), remedy: None }
    }

    fn with(name: &'static str, level: Level, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, level, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Checks this machine. Exit code 1 when something prevents sandboxes.
///
/// # Errors
/// Never; a check that fails is a finding.
pub async fn run(context: &Context, _args: &Args) -> Result<u8, Failure> {
    let mut checks = Vec::new();
    match connect(context).await {
        Ok(engine) => check_engine(&engine, &mut checks).await,
        Err(failure) => checks.push(Check::with("engine", Level::Problem, failure.what, failure.next)),
    }
    checks.extend(check_git());
    checks.push(match launcher_image::describe(&context.folders.cache) {
        Ok(_) => Check::good("launcher", "the executable is static, so it can be used inside containers"),
        Err(error) => Check::with("launcher", Level::Problem, error.to_string(), "use a released binary"),
    });
    for (name, folder) in [
        ("state folder", &context.folders.state),
        ("cache folder", &context.folders.cache),
        ("configuration", &context.folders.config),
    ] {
        checks.push(match private_folder(folder) {
            Ok(()) => Check::good(name, folder.display().to_string()),
            Err(error) => {
                Check::with(name, Level::Problem, format!("{}: {error}", folder.display()), "make it writable for you")
            }
        });
    }
    context.printer.described(&checks, || describe(&checks));
    Ok(u8::from(checks.iter().any(|check| check.level == Level::Problem)))
}

async fn check_engine(engine: &Engine, checks: &mut Vec<Check>) {
    let info = engine.info();
    checks.push(Check::good(
        "engine",
        format!("Docker Engine {} at {}, API {}", info.version, info.endpoint, info.api_version),
    ));
    checks.extend(check_version("engine version", Program::Engine, &info.version));
    match &info.runc_version {
        Some(runc) => checks.extend(check_version("runc", Program::Runc, runc)),
        None => checks.push(Check::with(
            "runc",
            Level::Note,
            "the engine does not tell which version it runs containers with",
            "see that it is 1.2.8, 1.3.3 or later",
        )),
    }
    match engine.system().await {
        Err(error) => {
            checks.push(Check::with("engine system", Level::Problem, error.to_string(), "restart the engine"))
        }
        Ok(system) => {
            let seccomp = system.security_options.iter().any(|option| option.starts_with("name=seccomp"));
            checks.push(if seccomp {
                Check::good("seccomp", "the engine filters system calls")
            } else {
                Check::with(
                    "seccomp",
                    Level::Problem,
                    "the engine has no seccomp",
                    "use an engine and a kernel with seccomp",
                )
            });
            let store = if system.containerd_store { "containerd" } else { "graph driver" };
            let mode = if system.rootless { "rootless" } else { "as root" };
            checks.push(Check::good(
                "storage",
                format!("{} ({store}), control groups {}, {mode}", system.storage_driver, system.cgroup_version),
            ));
            checks.extend(system.warnings.into_iter().map(check_warning));
        }
    }
}

/// What the engine warns of: a limit that it cannot enforce stops every sandbox, since none starts without its limits.
fn check_warning(warning: String) -> Check {
    const LIMITS: &[&str] = &["memory limit", "swap limit", "cpu cfs", "pids limit"];
    let lower = warning.to_lowercase();
    if LIMITS.iter().any(|limit| lower.contains(&format!("no {limit}"))) {
        Check::with(
            "limits",
            Level::Problem,
            warning,
            "turn the controller on: `cgroup_enable=memory swapaccount=1` on the kernel's command line, or delegate it \
             to a rootless engine (https://docs.docker.com/engine/security/rootless/)",
        )
    } else {
        Check::with("engine warning", Level::Note, warning, "see whether it matters to you; no sandbox depends on it")
    }
}

/// The known holes of a version, or one line that says that there are none.
fn check_version(name: &'static str, program: Program, version: &str) -> Vec<Check> {
    let of_hole = |hole: &Hole| {
        let found = format!("{version} is older than {}, which mended {}", hole.mended(), hole.what);
        match hole.harmless {
            Some(reason) => Check::with(name, Level::Note, found, reason),
            None => Check::with(
                name,
                Level::Warning,
                found,
                "upgrade it; distributions mend older versions too, so look at the package's changelog",
            ),
        }
    };
    let checks: Vec<Check> = Hole::of(program, version).map(of_hole).collect();
    if checks.is_empty() { vec![Check::good(name, version)] } else { checks }
}

/// The host's git, which makes the bundle for the agent and reads the one that comes back.
fn check_git() -> Vec<Check> {
    const NEEDED: &str = "install git 2.39 or later";
    let output = Command::new("git").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let Ok(output) = output else {
        return vec![Check::with("git", Level::Problem, "there is no git", NEEDED)];
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().trim_start_matches("git version ");
    if numbers(version) < vec![2, 31] {
        return vec![Check::with("git", Level::Problem, format!("`{version}` is too old"), NEEDED)];
    }
    check_version("git", Program::Git, version)
}

fn describe(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let word = match check.level {
            Level::Good => "ok",
            Level::Note => "note",
            Level::Warning => "WARNING",
            Level::Problem => "PROBLEM",
        };
        let _ = writeln!(text, "{word:<8} {:<14} {}", check.name, sanitise(&check.found));
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "{:<8} {:<14} next: {remedy}", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_the_engine_cannot_enforce_is_a_problem() {
        assert_eq!(check_warning("WARNING: No swap limit support".to_owned()).level, Level::Problem);
        assert_eq!(check_warning("WARNING: No cpu cfs quota support".to_owned()).level, Level::Problem);
        assert_eq!(check_warning("WARNING: bridge-nf-call-iptables is disabled".to_owned()).level, Level::Note);
    }

    #[test]
    fn a_hole_that_cannot_reach_a_sandbox_is_only_a_note() {
        let levels =
            |program, version| check_version("x", program, version).iter().map(|check| check.level).collect::<Vec<_>>();
        assert_eq!(levels(Program::Engine, "20.10.24"), [Level::Note, Level::Note]);
        assert_eq!(levels(Program::Runc, "1.1.5+ds1"), [Level::Warning, Level::Warning]);
        assert_eq!(levels(Program::Git, "2.51.0"), [Level::Good]);
    }

    #[test]
    fn every_finding_that_is_not_good_says_what_to_do() {
        for check in check_version("x", Program::Runc, "0").into_iter().chain(check_version("x", Program::Engine, "0"))
        {
            assert!(check.remedy.is_some(), "{check:?}");
        }
    }
}
