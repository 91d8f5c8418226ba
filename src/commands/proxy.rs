//! The company's proxy as the developer's environment and configuration have it, and the log-in there. The log-in is
//! asked for when a gateway starts, goes to its memory, and is written nowhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::commands::{Context, Failure};
use crate::credential::secret::Secret;
use crate::credential::spec::KeySource;
use crate::credential::{IssueContext, exec};
use crate::gateway::protocol::ProxyLogIn;
use crate::network::proxy::{ProxyError, UpstreamProxy, UrlLogIn, direct_names};
use crate::project::configuration::{self, ProxyChoice};

/// The variables that name a proxy, in the order in which curl looks at them.
const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The largest file with a password, in bytes.
const PASSWORD_LIMIT: usize = 4 << 10;

/// A proxy of the environment that the gateway cannot use.
#[derive(Debug, thiserror::Error)]
#[error("{variable} is not gone through")]
pub struct UnusedProxy {
    variable: &'static str,
    #[source]
    source: ProxyError,
}

impl UnusedProxy {
    /// What a user is told.
    pub fn warning(&self) -> String {
        format!(
            "{self}: {}. Name another one as `network.proxy` in your {}, or `none`",
            self.source,
            configuration::FILE_NAME
        )
    }
}

/// Why there is no log-in.
#[derive(Debug, thiserror::Error)]
enum LogInError {
    #[error("run the command of `network.proxy_log_in`")]
    Command(#[source] exec::ExecError),
    #[error("read the password in {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("use the password in {}, which others can read", .0.display())]
    Readable(PathBuf),
}

/// The proxy that the developer's environment names, with its log-in.
pub(super) fn of_environment() -> Result<Option<(UpstreamProxy, Option<UrlLogIn>)>, UnusedProxy> {
    of_variables(|name| std::env::var(name).ok())
}

fn of_variables(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<(UpstreamProxy, Option<UrlLogIn>)>, UnusedProxy> {
    let named = VARIABLES.iter().find_map(|name| Some((*name, variable(name).filter(|text| !text.is_empty())?)));
    let Some((name, address)) = named else { return Ok(None) };
    let exceptions = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
    let Some(direct) = direct_names(&exceptions) else { return Ok(None) };
    UpstreamProxy::read(&address, direct).map(Some).map_err(|source| UnusedProxy { variable: name, source })
}

/// The log-in of the proxy that a gateway goes through, if it has one.
///
/// # Errors
/// When the configuration names one that cannot be had.
pub(super) async fn log_in(context: &Context, issue: &IssueContext<'_>) -> Result<Option<ProxyLogIn>, Failure> {
    let configuration = configuration::load(&context.folders.config)?;
    let log_in = match (&configuration.proxy, &configuration.proxy_log_in) {
        (ProxyChoice::Environment, _) => {
            let named = of_environment().ok().flatten();
            return Ok(named.and_then(|(_, log_in)| log_in).map(|UrlLogIn { user, password }| ProxyLogIn {
                user,
                password: Secret::new(password.as_bytes().to_vec()),
            }));
        }
        (ProxyChoice::Named(_), Some(log_in)) => log_in,
        (ProxyChoice::Named(_), None) | (ProxyChoice::Direct, _) => return Ok(None),
    };
    let password = match &log_in.password {
        KeySource::Command(command) => ask(command, issue).await,
        KeySource::File(path) => read(&context.folders.home, path),
    };
    let password = password.map_err(|error| {
        let next = format!("look at `network.proxy_log_in` in your {}", configuration::FILE_NAME);
        Failure::new("proxy-log-in", &error, next)
    })?;
    Ok(Some(ProxyLogIn { user: log_in.user.clone(), password }))
}

async fn ask(command: &[String], issue: &IssueContext<'_>) -> Result<Secret, LogInError> {
    let request = exec::Request::for_proxy(issue);
    exec::issue(command, &request).await.map(|answer| answer.value).map_err(LogInError::Command)
}

fn read(home: &Path, path: &Path) -> Result<Secret, LogInError> {
    let place = path.strip_prefix("~").map_or_else(|_| path.to_owned(), |rest| home.join(rest));
    let failed = |source| LogInError::File(place.clone(), source);
    let file = File::open(&place).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(LogInError::Readable(place));
    }
    Secret::read(file, PASSWORD_LIMIT).map(Secret::without_line_end).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_proxy_of_the_environment_is_gone_through_or_said_why_not() {
        let found = |variables: &[(&str, &str)]| {
            let of =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            of_variables(of)
                .map(|proxy| proxy.map(|(proxy, log_in)| format!("{proxy} {:?} {}", proxy.direct, log_in.is_some())))
                .map_err(|unused| unused.warning())
        };
        assert_eq!(found(&[("HTTP_PROXY", "http://p.example:3128")]), Ok(None));
        assert_eq!(found(&[("https_proxy", ""), ("NO_PROXY", "a.example")]), Ok(None));
        let named = ("HTTPS_PROXY", "http://p.example:3128");
        assert_eq!(found(&[named]), Ok(Some("http://p.example:3128 [] false".to_owned())));
        assert_eq!(found(&[named, ("NO_PROXY", "*")]), Ok(None));
        let with = found(&[named, ("no_proxy", ".a.example")]).unwrap().unwrap();
        assert!(with.contains("a.example"), "{with}");
        let with = found(&[("ALL_PROXY", "socks5://me:hunter2@p.example:1080")]);
        assert_eq!(with, Ok(Some("socks5://p.example:1080 [] true".to_owned())));
        let warning = found(&[("ALL_PROXY", "ftp://me:hunter2@p.example:1080")]).unwrap_err();
        assert!(warning.starts_with("ALL_PROXY is not gone through: ") && !warning.contains("hunter2"), "{warning}");
    }

    #[test]
    fn a_password_is_read_from_a_file_of_ones_own_alone() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read(home.path(), Path::new("~/password")), Err(LogInError::Readable(_))));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let password = read(home.path(), Path::new("~/password")).unwrap();
        assert!(password.equals(&Secret::new(b"hunter2".to_vec())));
        assert!(matches!(read(home.path(), Path::new("/nowhere/password")), Err(LogInError::File(..))));
    }
}
