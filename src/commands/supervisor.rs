//! The side of `up` that starts the background process of [`super::supervise`].

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use crate::commands::load::Loaded;
use crate::commands::supervise::{REQUEST_LIMIT, Request};
use crate::commands::{Context, Failure, up};

/// How long the supervisor may take until it supervises.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);

/// A supervisor that was started and does nothing before it is told to begin. Dropped, it ends by itself.
pub(super) struct Supervisor {
    child: Child,
    log: PathBuf,
}

impl Supervisor {
    /// Starts the process.
    ///
    /// # Errors
    /// When it cannot be started or its log cannot be written.
    pub(super) fn spawn(context: &Context, loaded: &Loaded, args: &up::Args) -> Result<Self, Failure> {
        let log = loaded.plan.id.folder(&context.folders.state).join("supervisor.log");
        let failed = |error| failure(&log, &error);
        let errors = File::options().create(true).append(true).open(&log).map_err(failed)?;
        // This very program, also when its file was replaced by another version since it started.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sandbox").arg("supervise").arg("--name").arg(args.target.name.as_str());
        if let Some(engine) = &context.engine {
            command.arg("--engine").arg(engine);
        }
        command.arg(loaded.manifest_path.parent().unwrap_or(&loaded.manifest_path));
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        Ok(Self { child: command.spawn().map_err(failed)?, log })
    }

    /// Has it supervise, with what it is to do and to hold; waits until it does.
    ///
    /// # Errors
    /// When it ends or stays silent.
    pub(super) async fn begin(mut self, request: &Request) -> Result<(), Failure> {
        let failed = |error| failure(&self.log, &error);
        if let Some(mut stdin) = self.child.stdin.take() {
            // It may hold tokens, so it is wiped, and has its size from the start: growing would leave copies behind.
            let mut line = Zeroizing::new(Vec::with_capacity(REQUEST_LIMIT));
            serde_json::to_writer(&mut *line, request).map_err(|error| failed(error.into()))?;
            stdin.write_all(&line).await.map_err(failed)?;
        }
        let mut said = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            let mut reader = BufReader::new(stdout);
            let read = tokio::time::timeout(BEGIN_LIMIT, reader.read_line(&mut said)).await;
            read.map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        }
        if said.trim() != "supervising" {
            return Err(failed(std::io::Error::other("the supervisor ended before it was ready")));
        }
        Ok(())
    }
}

fn failure(log: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::system("supervisor", "start the supervisor", error, format!("read {}", log.display()))
}
