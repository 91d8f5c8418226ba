//! The login of a registry, from Docker's own configuration or the helper that it names. Nothing is written.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::connect::engine_environment;
use super::{Context, Failure};
use crate::credential::secret::Secret;
use crate::image::registry::login::{DockerLogins, LoginError, LoginSource, helper_answer};
use crate::image::registry::{Login, Repository};

/// The largest configuration.
const CONFIG_LIMIT: usize = 1 << 20;
/// The longest answer of a helper.
const ANSWER_LIMIT: usize = 64 << 10;
/// How long a helper may take; some ask a cloud.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("read the logins in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("use the logins in `{}`", path.display())]
    Config {
        path: PathBuf,
        #[source]
        source: LoginError,
    },
    #[error("ask `{program}` for the login of {registry}")]
    Helper {
        program: String,
        registry: String,
        #[source]
        source: std::io::Error,
    },
}

/// The login of a registry, if there is one.
///
/// # Errors
/// When the configuration is broken, or names a helper that cannot be asked.
pub async fn login(context: &Context, repository: &Repository) -> Result<Option<Login>, Failure> {
    let environment = engine_environment(context);
    let folder = environment.docker_config.unwrap_or_else(|| environment.home.join(".docker"));
    look_up(&folder.join("config.json"), &repository.registry).await.map_err(|error| {
        let next = "log in again with `docker login`, or set DOCKER_CONFIG to another folder";
        Failure::new("registry-login", &error, next)
    })
}

async fn look_up(path: &Path, registry: &str) -> Result<Option<Login>, LookupError> {
    let text = match std::fs::File::open(path).and_then(|file| Secret::read(file, CONFIG_LIMIT)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LookupError::Read { path: path.to_owned(), source }),
    };
    let found = DockerLogins::parse(&text).and_then(|logins| logins.find(registry));
    match found.map_err(|source| LookupError::Config { path: path.to_owned(), source })? {
        LoginSource::None => Ok(None),
        LoginSource::Here(login) => Ok(Some(login)),
        LoginSource::Helper { program, server } => match ask(&program, &server).await {
            Ok(login) => Ok(login),
            Err(source) => Err(LookupError::Helper { program, registry: registry.to_owned(), source }),
        },
    }
}

/// Runs a helper. One that fails has no login for this registry: their exit codes say no more (docker-credential-helpers).
async fn ask(program: &str, server: &str) -> std::io::Result<Option<Login>> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read is one that has failed.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        // The buffer never grows, since growing would leave copies of the password behind.
        let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT + 1));
        if let Some(stdout) = child.stdout.take() {
            stdout.take(ANSWER_LIMIT as u64 + 1).read_to_end(&mut answer).await?;
        }
        let status = child.wait().await?;
        Ok(if status.success() && answer.len() <= ANSWER_LIMIT { helper_answer(&answer) } else { None })
    };
    tokio::time::timeout(LIMIT, talk).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_no_configuration_as_no_login_and_a_broken_one_as_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(look_up(&path, "a.example").await.unwrap().is_none());
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(look_up(&path, "a.example").await, Err(LookupError::Config { .. })));
        std::fs::write(&path, r#"{"credsStore":"no-such-helper-anywhere"}"#).unwrap();
        assert!(matches!(look_up(&path, "a.example").await, Err(LookupError::Helper { .. })));
    }

    #[tokio::test]
    async fn a_helper_that_fails_or_answers_without_end_gives_no_login() {
        let folder = tempfile::tempdir().unwrap();
        let helper = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let good =
            helper("good", r#"read -r s; [ "$1 $s" = "get a.example" ] && echo '{"Username":"u","Secret":"p"}'"#);
        assert!(ask(&good, "a.example\n").await.unwrap().is_some());
        assert!(
            ask(&helper("bad", "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'; exit 1"), "x").await.unwrap().is_none()
        );
        assert!(ask(&helper("long", "exec yes"), "x").await.unwrap().is_none());
    }
}
