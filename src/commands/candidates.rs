//! What a shell may complete: the words that this machine and the current project know. Reads small files and folders
//! only; asks neither the engine nor a registry, says nothing of what it cannot read, and never opens a secret.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Folders;
use super::explain::EXPLANATIONS;
use crate::image::definition;
use crate::project::manifest::{self, Manifest};
use crate::project::{ProjectName, SandboxName, discovery};
use crate::{profile, project};

/// The most names of one folder; a list that nobody can read is no help.
const LIMIT: usize = 1000;

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(LIMIT);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Projects that this machine has seen.
pub fn projects() -> BTreeSet<String> {
    let state = Folders::from_environment().state;
    let seen = names(&state.join("projects"));
    let launched = names(&state.join("sandboxes")).filter_map(|name| Some(name.split_once('.')?.0.to_owned()));
    seen.chain(launched).filter(|name| name.parse::<ProjectName>().is_ok()).collect()
}

/// Names of sandboxes, of whichever project.
pub fn sandboxes() -> BTreeSet<String> {
    let state = Folders::from_environment().state;
    let named = names(&state.join("sandboxes")).filter_map(|name| Some(name.split_once('.')?.1.to_owned()));
    named.filter(|name| name.parse::<SandboxName>().is_ok()).collect()
}

/// The manifest of the current folder.
fn current() -> Option<Manifest> {
    let folder = std::env::current_dir().ok()?;
    let path = project::locate(None, &folder, &Folders::from_environment().state).ok()?;
    manifest::load(&path).ok()
}

/// Credentials that the current project declares.
pub fn credentials() -> BTreeSet<String> {
    current().map(|manifest| manifest.credentials.keys().map(ToString::to_string).collect()).unwrap_or_default()
}

/// Definitions of images: those that come with the launcher, and the current project's.
pub fn images() -> BTreeSet<String> {
    let folder = std::env::current_dir().unwrap_or_default();
    // A manifest with a fault still marks the folder whose images are meant.
    let root = folder.ancestors().find(|folder| folder.join(discovery::FILE_NAME).is_file()).map(PathBuf::from);
    let names = definition::names(Some(root.as_deref().unwrap_or(&folder))).into_iter();
    names.take(LIMIT).filter(|name| !name.contains(char::is_control)).collect()
}

/// Confinement profiles.
pub fn profiles() -> BTreeSet<String> {
    profile::NAMES.iter().map(ToString::to_string).collect()
}

/// Presets of agents.
pub fn agents() -> BTreeSet<String> {
    project::preset::PRESETS.iter().map(|preset| preset.name.to_owned()).collect()
}

/// Codes of failures.
pub fn codes() -> BTreeSet<String> {
    EXPLANATIONS.iter().map(|(code, _)| (*code).to_owned()).collect()
}
