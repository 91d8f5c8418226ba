//! `sandbox doctor`: whether this machine can run sandboxes, and what to do where it cannot.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::commands::connect::connect;
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::engine::Engine;
use crate::session::identity::private_folder;
use crate::session::launcher_image;

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
    checks.push(check_git());
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
    context.printer.result(&checks, || describe(&checks));
    Ok(u8::from(checks.iter().any(|check| check.level == Level::Problem)))
}

/// The leading numbers of a version, for comparing: `1.1.5+ds1` is `[1, 1, 5]`.
fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split(|character: char| !(character.is_ascii_digit() || character == '.')).next().unwrap_or("");
    plain.split('.').filter_map(|part| part.parse().ok()).collect()
}

async fn check_engine(engine: &Engine, checks: &mut Vec<Check>) {
    let info = engine.info();
    checks.push(Check::good(
        "engine",
        format!("Docker Engine {} at {}, API {}", info.version, info.endpoint, info.api_version),
    ));
    if numbers(&info.version) < vec![29, 5, 1] {
        checks.push(Check::with(
            "engine version",
            Level::Note,
            format!("{} has known holes in its archive calls (before 29.5.1)", info.version),
            "no sandbox uses those calls, but `docker cp` does: do not use it on an agent's container",
        ));
    }
    if let Some(runc) = &info.runc_version {
        let version = numbers(runc);
        checks.push(if version < vec![1, 1, 12] {
            Check::with(
                "runc",
                Level::Warning,
                format!("{runc} is older than 1.1.12, in which CVE-2024-21626 was mended"),
                "upgrade runc; distributions mend older versions too, so look at the package's changelog",
            )
        } else if version < vec![1, 2, 8] || (version >= vec![1, 3, 0] && version < vec![1, 3, 3]) {
            Check::with("runc", Level::Warning, format!("{runc} is older than 1.2.8 or 1.3.3"), "upgrade runc")
        } else {
            Check::good("runc", runc.clone())
        });
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
            for warning in system.warnings {
                checks.push(Check::with(
                    "engine warning",
                    Level::Note,
                    warning,
                    "see whether a limit of yours needs it",
                ));
            }
        }
    }
}

fn check_git() -> Check {
    let output = Command::new("git").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let Ok(output) = output else {
        return Check::with("git", Level::Problem, "there is no git", "install git 2.39 or later");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().trim_start_matches("git version ").to_owned();
    let found = numbers(&version);
    if found < vec![2, 31] {
        return Check::with("git", Level::Problem, version, "install git 2.39 or later");
    }
    let mended: [&[u32]; 2] = [&[2, 43, 7], &[2, 50, 1]];
    if found.as_slice() < mended[0] {
        return Check::with(
            "git",
            Level::Note,
            format!("{version} is older than 2.43.7"),
            "upgrade git; distributions mend older versions too, so look at the package's changelog",
        );
    }
    Check::good("git", version)
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
    fn compares_versions_by_their_numbers() {
        assert!(numbers("1.1.5+ds1-1") < vec![1, 1, 12]);
        assert!(numbers("1.2.10") > vec![1, 2, 8]);
        assert_eq!(numbers("20.10.24+dfsg1"), [20, 10, 24]);
        assert!(numbers("").is_empty());
    }
}
