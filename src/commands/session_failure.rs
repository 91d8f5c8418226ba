//! What a person reads when a session fails.

use crate::commands::{Failure, credential};
use crate::image::reference::ReferenceError;
use crate::session::gateway_control::GatewayControlError;
use crate::session::journal::JournalError;
use crate::session::launch::LaunchError;
use crate::session::launcher_image::LauncherImageError;
use crate::session::launcher_versions::VersionsError;
use crate::session::reconcile::ReconcileError;
use crate::session::stream_client::SessionError;
use crate::session::supervise::SuperviseError;

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Engine(error) => error.into(),
            LaunchError::Journal(error) => error.into(),
            LaunchError::LauncherImage(error) => error.into(),
            LaunchError::Image(error) => error.into(),
            LaunchError::Workspace(error) => error.into(),
            LaunchError::Session(error) => error.into(),
            LaunchError::Audit(error) => error.into(),
            LaunchError::Gateway(error) => error.into(),
            LaunchError::Deliver(error) => error.into(),
            LaunchError::Credential { ref source, .. } => {
                let mut failure = Failure::new("credential-not-issued", &error, credential::advice(source));
                // The cause names what could not be done too.
                if let Some(cause) = failure.why.first_mut() {
                    cause.insert_str(0, "cannot ");
                }
                failure
            }
            LaunchError::ImageAbsent { ref reference } => {
                let next = format!("fetch it with `docker pull {reference}`");
                Failure::new("image-absent", &error, next)
            }
            LaunchError::ImageLost { .. } => Failure::new(
                "image-lost",
                &error,
                "see with `docker images` whether the engine keeps images, and run `sandbox doctor`",
            ),
            LaunchError::Relay { .. } => Failure::new("relay", &error, "run `sandbox doctor`, then run it again"),
            LaunchError::Probe { .. } => Failure::new(
                "not-contained",
                &error,
                "nothing was handed over; run `sandbox doctor` and use an engine that can contain it",
            ),
            LaunchError::SigningKey(_) => {
                Failure::new("signing-key", &error, "try again, or set workspace.sign to false")
            }
            LaunchError::Folder { ref path, .. } => {
                let next = format!("make {} writable for you", path.display());
                Failure::new("state-folder", &error, next)
            }
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let next = match &error {
            JournalError::Io { path, .. } => format!("make {} readable and writable for you", path.display()),
            JournalError::Format { path, .. } => {
                format!("it is of another version or damaged: move {} away and run `sandbox gc`", path.display())
            }
        };
        Failure::new("journal", &error, next)
    }
}

impl From<LauncherImageError> for Failure {
    fn from(error: LauncherImageError) -> Self {
        let next = match &error {
            LauncherImageError::Dynamic { .. } => {
                "use a released binary, or build it statically (the repository's `.cargo/config.toml` does)"
            }
            _ => "make sure that the executable is readable and the folder for temporary files has room",
        };
        Failure::new("launcher-image", &error, next)
    }
}

impl From<VersionsError> for Failure {
    fn from(error: VersionsError) -> Self {
        match error {
            VersionsError::Engine(error) => error.into(),
            VersionsError::List(_) => {
                Failure::new("state-folder", &error, "make the launcher's state folder readable and writable for you")
            }
        }
    }
}

impl From<GatewayControlError> for Failure {
    fn from(error: GatewayControlError) -> Self {
        Failure::new("gateway", &error, "look at `docker logs` of the gateway's container, and run it again")
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Failure::told(
            "session",
            &error,
            "see how it is with `sandbox status`; a foreign image needs git and a user 1000",
        )
    }
}

impl From<ReconcileError> for Failure {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Engine(error) => error.into(),
            ReconcileError::Journal(error) => error.into(),
            ReconcileError::State(_) => {
                Failure::new("state-folder", &error, "make the launcher's state folder readable and writable for you")
            }
        }
    }
}

impl From<SuperviseError> for Failure {
    fn from(error: SuperviseError) -> Self {
        let next = match &error {
            SuperviseError::NotRunning => "start it with `sandbox up`",
            _ => "see how it is with `sandbox status`",
        };
        Failure::new("supervisor", &error, next)
    }
}

impl From<ReferenceError> for Failure {
    fn from(error: ReferenceError) -> Self {
        let next = "write a name in images/, or REGISTRY/NAME@sha256:DIGEST";
        Failure::told("image-reference", &error, next)
    }
}

impl From<crate::profile::ProfileError> for Failure {
    fn from(error: crate::profile::ProfileError) -> Self {
        Failure::new("profile", &error, "write one of the profiles strict, default, debug or browser")
    }
}
