//! The launcher's own image: `FROM scratch` with this very executable, so that relay, gateway and the helper inside the
//! agent's container are never of another version than the launcher.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::image::reference::{Digest, Hasher};
use crate::session::plan::{AGENT, CHANNEL, HOME, LAUNCHER_BINARY, SECRETS, WORKSPACE};

/// Why the launcher's image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LauncherImageError {
    /// The running executable cannot be read.
    #[error("read the launcher's own executable {path}")]
    Executable {
        /// The executable.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The executable needs a dynamic loader, which an image made of it alone does not have.
    #[error("use {path} inside containers, since it is not statically linked")]
    Dynamic {
        /// The executable.
        path: PathBuf,
    },
    /// The archive could not be written.
    #[error("write the archive of the launcher's image")]
    Archive(#[source] io::Error),
    /// The image's configuration could not be written.
    #[error("write the configuration of the launcher's image")]
    Configuration(#[source] serde_json::Error),
}

/// The launcher's image, before an engine has it.
#[derive(Debug, Clone)]
pub struct LauncherImage {
    executable: PathBuf,
    /// The configuration's digest: the image's id on engines with graph drivers.
    pub config: Digest,
    /// The manifest's digest: the image's id on engines with the containerd store.
    pub manifest: Digest,
    layer: Digest,
    config_json: Vec<u8>,
    manifest_json: Vec<u8>,
}

/// What is remembered of an executable, so that it is not hashed at each start.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Fingerprint {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    version: String,
    layer: Digest,
    layer_size: u64,
}

/// Finds the digests of the launcher's image, by the cache where the executable is unchanged.
///
/// # Errors
/// When the executable cannot be read or is not static.
pub fn describe(cache: &Path) -> Result<LauncherImage, LauncherImageError> {
    // This very program, also when its file was replaced by another version since it started (proc_pid_exe(5)).
    let path = PathBuf::from("/proc/self/exe");
    let failed = |source| LauncherImageError::Executable { path: path.clone(), source };
    let metadata = fs::metadata(&path).map_err(failed)?;
    let known = cache.join("launcher-image.json");
    let mut fingerprint = Fingerprint {
        path: path.clone(),
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        layer: Digest::from_bytes([0; 32]),
        layer_size: 0,
    };
    let cached = fs::read(&known).ok().and_then(|json| serde_json::from_slice::<Fingerprint>(&json).ok());
    match cached {
        Some(cached)
            if Fingerprint { layer: fingerprint.layer.clone(), layer_size: 0, ..copy_of(&cached) } == fingerprint =>
        {
            fingerprint = cached;
        }
        _ => {
            refuse_dynamic(&path)?;
            let mut hasher = Hasher::default();
            write_layer(&path, &mut hasher).map_err(LauncherImageError::Archive)?;
            fingerprint.layer_size = hasher.size();
            fingerprint.layer = hasher.digest();
            remember(&known, &fingerprint);
        }
    }
    let config_json = configuration(&fingerprint.layer).map_err(LauncherImageError::Configuration)?;
    let config = Digest::of(&config_json);
    let manifest_json = manifest(&config, config_json.len() as u64, &fingerprint.layer, fingerprint.layer_size)
        .map_err(LauncherImageError::Configuration)?;
    let manifest = Digest::of(&manifest_json);
    Ok(LauncherImage { executable: path, config, manifest, layer: fingerprint.layer, config_json, manifest_json })
}

fn copy_of(fingerprint: &Fingerprint) -> Fingerprint {
    Fingerprint {
        path: fingerprint.path.clone(),
        version: fingerprint.version.clone(),
        layer: fingerprint.layer.clone(),
        ..*fingerprint
    }
}

/// The cache only saves time, so that failing to write it is no failure.
fn remember(path: &Path, fingerprint: &Fingerprint) {
    let write = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(fingerprint).map_err(io::Error::other)?)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    if let Err(error) = write() {
        tracing::debug!(%error, "the launcher image's cache was not written");
    }
}

impl LauncherImage {
    /// Writes the image as an archive that every engine loads (an OCI layout that also has `manifest.json`), into an
    /// unnamed temporary file that is rewound.
    ///
    /// # Errors
    /// When executable or archive cannot be read or written.
    pub fn archive(&self) -> Result<File, LauncherImageError> {
        let write = || -> io::Result<File> {
            let mut layer = tempfile::tempfile()?;
            write_layer(&self.executable, &mut layer)?;
            let size = layer.stream_position()?;
            layer.rewind()?;
            let mut archive = tar::Builder::new(tempfile::tempfile()?);
            let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
            let index = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [{
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": self.manifest.to_string(),
                    "size": self.manifest_json.len(),
                }],
            });
            let docker = serde_json::json!([{
                "Config": blob(&self.config),
                "RepoTags": null,
                "Layers": [blob(&self.layer)],
            }]);
            append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            append(&mut archive, "index.json", &serde_json::to_vec(&index)?)?;
            append(&mut archive, "manifest.json", &serde_json::to_vec(&docker)?)?;
            append(&mut archive, &blob(&self.config), &self.config_json)?;
            append(&mut archive, &blob(&self.manifest), &self.manifest_json)?;
            let mut header = header(size, 0o644, 0);
            archive.append_data(&mut header, blob(&self.layer), layer)?;
            let mut file = archive.into_inner()?;
            file.rewind()?;
            Ok(file)
        };
        write().map_err(LauncherImageError::Archive)
    }
}

fn header(size: u64, mode: u32, owner: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header
}

fn append<W: io::Write>(archive: &mut tar::Builder<W>, path: &str, content: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(content.len() as u64, 0o644, 0), path, content)
}

/// Writes the one layer: the binary, and the folders from which the engine fills new volumes with the right owner.
fn write_layer(executable: &Path, output: impl io::Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(output);
    let mut folder = |path: &str, mode: u32, owner: u64| -> io::Result<()> {
        let mut header = header(0, mode, owner);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, format!("{}/", path.trim_start_matches('/')), io::empty())
    };
    let agent = u64::from(AGENT.uid);
    folder("/helper", 0o755, 0)?;
    folder("/home", 0o755, 0)?;
    folder(HOME, 0o755, agent)?;
    folder("/run", 0o755, 0)?;
    folder(CHANNEL, 0o755, 0)?;
    folder(SECRETS, 0o755, 0)?;
    folder(WORKSPACE, 0o755, agent)?;
    let file = File::open(executable)?;
    let size = file.metadata()?.len();
    archive.append_data(&mut header(size, 0o755, 0), LAUNCHER_BINARY.trim_start_matches('/'), file.take(size))?;
    archive.into_inner()?.flush()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn configuration(layer: &Digest) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&serde_json::json!({
        "architecture": architecture(),
        "config": {"Entrypoint": [LAUNCHER_BINARY], "Labels": {"dev.sandbox.launcher": env!("CARGO_PKG_VERSION")}},
        "created": "1970-01-01T00:00:00Z",
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "sandbox"}],
        "os": "linux",
        "rootfs": {"diff_ids": [layer.to_string()], "type": "layers"},
    }))
}

fn manifest(config: &Digest, config_size: u64, layer: &Digest, layer_size: u64) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(),
            "size": config_size,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.to_string(),
            "size": layer_size,
        }],
    }))
}

/// Refuses an ELF file with a program interpreter (`PT_INTERP`, ELF specification, "Program Header"): it would need a
/// dynamic loader that is not in the image.
fn refuse_dynamic(path: &Path) -> Result<(), LauncherImageError> {
    const PT_INTERP: u32 = 3;
    let failed = |source| LauncherImageError::Executable { path: path.to_path_buf(), source };
    let mut head = vec![0; 4096];
    let read = File::open(path).and_then(|mut file| file.read(&mut head)).map_err(failed)?;
    head.truncate(read);
    let half = |at: usize| head.get(at..at + 2).map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    // e_phoff is at 32, e_phentsize at 54 and e_phnum at 56 of a 64-bit header.
    let table = head.get(32..40).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let (Some(table), Some(size), Some(count)) = (table, half(54), half(56)) else {
        return Err(LauncherImageError::Dynamic { path: path.to_path_buf() });
    };
    let interpreted = (0..count).any(|index| {
        let at = (table as usize).saturating_add(index.saturating_mul(size));
        head.get(at..at.saturating_add(4))
            .is_none_or(|kind| u32::from_le_bytes([kind[0], kind[1], kind[2], kind[3]]) == PT_INTERP)
    });
    if interpreted || !head.starts_with(b"\x7fELF\x02") {
        return Err(LauncherImageError::Dynamic { path: path.to_path_buf() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_the_same_image_with_and_without_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let first = describe(cache.path()).unwrap();
        assert!(cache.path().join("launcher-image.json").exists());
        let second = describe(cache.path()).unwrap();
        assert_eq!(first.config, second.config);
        assert_eq!(first.manifest, second.manifest);
        let other = describe(tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(first.config, other.config);
    }

    #[test]
    fn refuses_a_program_that_needs_a_dynamic_loader() {
        assert!(matches!(refuse_dynamic(Path::new("/bin/ls")), Err(LauncherImageError::Dynamic { .. })));
        assert!(matches!(refuse_dynamic(Path::new("/etc/passwd")), Err(LauncherImageError::Dynamic { .. })));
    }
}
