//! From the arguments to a plan: finds the project, reads the manifest, the user's configuration, the profile and the
//! image's lock. Reads files only; touches neither Docker nor a secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::commands::{Context, Failure};
use crate::image::reference::ImageChoice;
use crate::image::{self, LockedImage};
use crate::network::proxy::{ProxyError, UpstreamProxy, direct_names};
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

/// The variables that name a proxy, in the order in which curl looks at them.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The proxy that the developer's environment names.
fn environment_proxy(variable: impl Fn(&str) -> Option<String>) -> Result<Option<UpstreamProxy>, UnusedProxy> {
    let named = PROXY_VARIABLES.iter().find_map(|name| Some((*name, variable(name).filter(|text| !text.is_empty())?)));
    let Some((name, address)) = named else { return Ok(None) };
    let exceptions = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
    let Some(direct) = direct_names(&exceptions) else { return Ok(None) };
    UpstreamProxy::new(&address, direct).map(Some).map_err(|source| UnusedProxy { variable: name, source })
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
    let mut unused_proxy = None;
    if configuration.proxy == ProxyChoice::Environment {
        match environment_proxy(|name| std::env::var(name).ok()) {
            Ok(proxy) => loaded.network.proxy = proxy,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_of_the_environment_is_gone_through_or_said_why_not() {
        let found = |variables: &[(&str, &str)]| {
            let of =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            environment_proxy(of)
                .map(|proxy| proxy.map(|proxy| format!("{proxy} {:?}", proxy.direct)))
                .map_err(|unused| unused.warning())
        };
        assert_eq!(found(&[("HTTP_PROXY", "http://p.example:3128")]), Ok(None));
        assert_eq!(found(&[("https_proxy", ""), ("NO_PROXY", "a.example")]), Ok(None));
        let named = ("HTTPS_PROXY", "http://p.example:3128");
        assert_eq!(found(&[named]), Ok(Some("http://p.example:3128 []".to_owned())));
        assert_eq!(found(&[named, ("NO_PROXY", "*")]), Ok(None));
        let with = found(&[named, ("no_proxy", ".a.example")]).unwrap().unwrap();
        assert!(with.contains("a.example"), "{with}");
        let warning = found(&[("ALL_PROXY", "socks5://me:hunter2@p.example:1080")]).unwrap_err();
        assert!(warning.starts_with("ALL_PROXY is not gone through: ") && !warning.contains("hunter2"), "{warning}");
    }
}
