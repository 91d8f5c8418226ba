//! From the arguments to a plan: finds the project, reads the manifest, the user's configuration, the profile and the
//! image's lock. Reads files only; touches neither Docker nor a secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::commands::proxy::{self, UnusedProxy};
use crate::commands::{Context, Failure};
use crate::image::reference::ImageChoice;
use crate::image::{self, LockedImage};
use crate::profile::{self, Profile};
use crate::project::configuration::ProxyChoice;
use crate::project::manifest::Manifest;
use crate::project::{self, SandboxName, configuration, manifest};
use crate::session::identity::{MachineKey, SandboxId};
use crate::session::launcher_image::{self, LauncherImage};
use crate::session::plan::{Plan, PlanInput, PlannedImage, plan};

/// Which sandbox a verb is about.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// A project's name or folder; the project of the current folder when left out
    #[arg(value_name = "PROJECT")]
    pub project: Option<String>,
    /// Which of several sandboxes of the project
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub name: SandboxName,
}

/// What replaces the manifest's own words.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--image`.
    pub image: Option<ImageChoice>,
    /// `--profile`.
    pub profile: Option<String>,
    /// For `network learn --observe`: every public host is open, and no credential is handed out.
    pub observe: bool,
}

/// A project with everything that was computed from it.
pub struct Loaded {
    /// The manifest's file.
    pub manifest_path: PathBuf,
    /// The manifest, restricted by the user's configuration.
    pub manifest: Manifest,
    /// The confinement profile.
    pub profile: Profile,
    /// The lock of the agent's image, when the launcher builds it.
    pub locked: Option<LockedImage>,
    /// The launcher's own image.
    pub launcher: LauncherImage,
    /// The plan.
    pub plan: Plan,
    /// Why a proxy that the environment names is not gone through.
    pub unused_proxy: Option<UnusedProxy>,
}

/// Opens the manifest's network to every public host, and takes out every credential, so that there is none to lose.
fn observe(manifest: &mut Manifest) {
    manifest.credentials.clear();
    manifest.network.credentials.clear();
    manifest.network.observe = true;
    for rule in &mut manifest.network.allow {
        rule.broker = None;
    }
}

/// Finds and reads the manifest of a project.
///
/// # Errors
/// When there is none, or it is refused.
pub fn manifest(context: &Context, project: Option<&str>) -> Result<(PathBuf, Manifest), Failure> {
    restricted_manifest(context, project, &Overrides::default()).map(|(path, manifest, _)| (path, manifest))
}

fn restricted_manifest(
    context: &Context,
    project: Option<&str>,
    overrides: &Overrides,
) -> Result<(PathBuf, Manifest, Option<UnusedProxy>), Failure> {
    let current = std::env::current_dir().map_err(|error| {
        Failure::system("current-folder", "find the current folder", &error, "change to a folder that exists")
    })?;
    let path = project::locate(project, &current, &context.folders.state)?;
    let configuration = configuration::load(&context.folders.config)?;
    let mut asked = manifest::load(&path)?;
    if let Some(image) = &overrides.image {
        asked.image = image.clone();
    }
    if let Some(profile) = &overrides.profile {
        asked.profile = profile.clone();
    }
    let mut loaded = configuration::restrict(asked, &configuration)?;
    if overrides.observe {
        observe(&mut loaded);
    }
    let mut unused_proxy = None;
    if configuration.proxy == ProxyChoice::Environment {
        match proxy::of_environment() {
            Ok(named) => loaded.network.proxy = named.map(|(proxy, _)| proxy),
            Err(unused) => unused_proxy = Some(unused),
        }
    }
    // From here on it is absolute: commands may run in any folder.
    loaded.workspace.source = loaded.root.join(&loaded.workspace.source);
    Ok((path, loaded, unused_proxy))
}

/// Computes the plan of a project.
///
/// # Errors
/// When any of its files is missing or refused.
pub fn load(context: &Context, target: &Target, overrides: &Overrides) -> Result<Loaded, Failure> {
    let (manifest_path, manifest, unused_proxy) = restricted_manifest(context, target.project.as_deref(), overrides)?;
    let profile = profile::load(&manifest.profile)?;
    let (locked, planned, image_environment) = match &manifest.image {
        ImageChoice::Definition(name) | ImageChoice::Dockerfile(name) => {
            let locked = image::locked(name, Some(&manifest.root))?;
            let planned = PlannedImage {
                name: name.clone(),
                digest: locked.manifest_digest.clone(),
                config: Some(locked.config_digest.clone()),
                built: true,
            };
            let environment = locked.environment.clone();
            (Some(locked), planned, environment)
        }
        ImageChoice::Pinned(pinned) => {
            let planned = PlannedImage {
                name: format!("{}@{}", pinned.repository, pinned.digest),
                digest: pinned.digest.clone(),
                config: None,
                built: false,
            };
            (None, planned, BTreeMap::new())
        }
    };
    let launcher = launcher_image::describe(&context.folders.cache)?;
    let plan = plan(PlanInput {
        manifest: &manifest,
        name: &target.name,
        profile: &profile,
        image: planned,
        image_environment,
        launcher: launcher.config.clone(),
    });
    Ok(Loaded { manifest_path, manifest, profile, locked, launcher, plan, unused_proxy })
}

/// The sandbox that a verb is about. A project whose folder is gone is still found by its name.
///
/// # Errors
/// When no project is meant.
pub fn sandbox_id(context: &Context, target: &Target) -> Result<SandboxId, Failure> {
    let named = target.project.as_deref().and_then(|text| text.parse().ok());
    if let Some(project) = named {
        let id = SandboxId { project, name: target.name.clone() };
        if id.folder(&context.folders.state).join("journal.json").exists() {
            return Ok(id);
        }
    }
    let (_, manifest) = manifest(context, target.project.as_deref())?;
    Ok(SandboxId { project: manifest.project, name: target.name.clone() })
}

/// The key that signs this machine's labels.
///
/// # Errors
/// When the state folder cannot be used.
pub fn machine_key(context: &Context) -> Result<MachineKey, Failure> {
    MachineKey::load(&context.folders.state).map_err(|error| {
        let next = format!("make {} a folder that only you can write", context.folders.state.display());
        Failure::system("state-folder", "use the launcher's state folder", &error, next)
    })
}

/// The developer: user name, and user name with host name.
pub fn actor() -> (String, String) {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok().filter(|name| !name.is_empty());
    let user = user.unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    let user: String = user.chars().filter(|character| character.is_ascii_graphic()).take(64).collect();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let owner = format!("{user}@{host}");
    (user, owner)
}
