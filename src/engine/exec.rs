//! Commands inside running containers.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::ExecConfig;
use bytes::Bytes;
use http::Method;

use super::container::User;
use super::error::{EngineError, Kind};
use super::stream::AttachedStream;
use super::{CALL_LIMIT, Engine, check_name, translate, transport};

/// How often and how far apart an exec that should have ended is asked about.
const EXIT_POLLS: u32 = 20;
const EXIT_PAUSE: Duration = Duration::from_millis(10);

/// A command to run inside a container. It never has a TTY or a privilege.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Who runs it.
    pub user: User,
    /// Variables on top of the container's own.
    pub environment: BTreeMap<String, String>,
    /// The working directory.
    pub working_directory: String,
    /// Whether it reads standard input; otherwise that is at its end from the start.
    pub stdin: bool,
}

impl Engine {
    /// Starts a command inside a running container.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotRunning`] when the container does not run.
    pub async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<AttachedStream, EngineError> {
        check_name(Kind::Container, container)?;
        let configuration = ExecConfig {
            cmd: Some(spec.command.clone()),
            user: Some(translate::user(spec.user)),
            env: Some(translate::variables(&spec.environment)),
            working_dir: Some(spec.working_directory.clone()),
            attach_stdin: Some(spec.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            privileged: Some(false),
            ..ExecConfig::default()
        };
        let not_running = |error: EngineError| match error.status() {
            Some(409) => EngineError::NotRunning { name: container.to_owned() },
            _ => error.missing(Kind::Container, container),
        };
        let request = self.client().create_exec(container, configuration);
        let id = self.call("prepare a command", CALL_LIMIT, request).await.map_err(not_running)?.id;
        check_name(Kind::Exec, &id)?;
        let path = self.path(&format!("/exec/{id}/start"));
        let body = Bytes::from_static(br#"{"Detach":false,"Tty":false}"#);
        let call = transport::Call { name: "start a command", method: Method::POST, path: &path, body };
        let connection = transport::hijack(&self.inner.address, &call).await.map_err(not_running)?;
        Ok(AttachedStream::new(Some(id), connection))
    }

    /// The exit code of a command whose output has ended; nothing when it still runs.
    ///
    /// The engine ends the output a moment before it notes the exit, so this waits for up to a fifth of a second.
    pub async fn exec_exit_code(&self, exec_id: &str) -> Result<Option<i64>, EngineError> {
        check_name(Kind::Exec, exec_id)?;
        for poll in 1..=EXIT_POLLS {
            let request = self.client().inspect_exec(exec_id);
            let answer = self.call("ask for an exit code", CALL_LIMIT, request).await;
            let answer = answer.map_err(|error| error.missing(Kind::Exec, exec_id))?;
            if answer.running == Some(false) && answer.exit_code.is_some() {
                return Ok(answer.exit_code);
            }
            if poll < EXIT_POLLS {
                tokio::time::sleep(EXIT_PAUSE).await;
            }
        }
        Ok(None)
    }
}
