//! `sandbox image`: locks, builds and checks agent images.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::printer::sanitise;
use super::{Context, Failure};
use crate::image::attestation::AttestationError;
use crate::image::dockerfile::{is_name, lock::file_name};
use crate::image::error::{NpmLockProblem, PylockProblem};
use crate::image::lock::Lock;
use crate::image::update::LockChange;
use crate::image::{self, BuiltImage, ImageContext, ImageError, sbom};

mod compare;
pub mod dockerfile;
mod lint;
pub mod registry;
mod sign;

/// Arguments of `sandbox image`.
#[derive(Debug, clap::Args)]
pub struct ImageArguments {
    #[command(subcommand)]
    verb: ImageVerb,
    /// The folder whose `images/` is used
    #[arg(long, global = true, default_value = ".", value_name = "FOLDER")]
    project: PathBuf,
    /// Keep off the network
    #[arg(long, global = true)]
    offline: bool,
}

#[derive(Debug, clap::Subcommand)]
enum ImageVerb {
    /// Resolve a definition or build a Dockerfile, and write images/NAME/image.lock or Dockerfile.NAME.lock
    Lock {
        /// The definition, or Dockerfile.NAME at the project's root
        name: String,
        /// Let the steps of a Dockerfile use a network; the lock says so, and whoever builds from it does the same
        #[arg(long)]
        with_network: bool,
        /// Take a release file of a repository that is out of date, as one of an old snapshot is; the lock says so
        #[arg(long)]
        allow_expired: bool,
    },
    /// Build what the lock says
    Build {
        /// The definition, or Dockerfile.NAME
        name: String,
        /// Write the image to `oci:FOLDER` or `docker-archive:FILE`
        #[arg(long, value_name = "KIND:PATH", value_parser = output)]
        output: Option<Output>,
        /// Build twice without the cache of layers, and compare with each other and with the lock; exit code 1 and the
        /// difference when they are not the same
        #[arg(long)]
        check: bool,
        /// Never change the lock. It is never changed here; for scripts that want to say so
        #[arg(long)]
        locked: bool,
    },
    /// Print a bill of materials: packages, npm programs and files with their digests
    Sbom {
        /// The definition
        name: String,
        /// The form, always JSON: `spdx` (SPDX 2.3) or `cyclonedx` (CycloneDX 1.6)
        #[arg(long = "as", value_enum, default_value_t = SbomForm::Spdx, hide_possible_values = true)]
        form: SbomForm,
    },
    /// Print how the image comes to be, as an in-toto statement of SLSA provenance
    Provenance {
        /// The definition
        name: String,
    },
    /// Show which packages and files differ between two images
    Diff {
        /// A definition, or `REGISTRY/PATH@sha256:…`
        first: String,
        /// Another one
        second: String,
    },
    /// Show what has newer versions than the lock; exit code 1 when something has
    Outdated {
        /// The definition
        name: String,
    },
    /// Take newer versions into the lock, and into those of the project's images below it
    Update {
        /// The definition
        name: String,
        /// A Debian package: take its newest version alone, and what that needs
        package: Option<String>,
        /// Take a release file of a repository that is out of date; the lock says so
        #[arg(long)]
        allow_expired: bool,
    },
    /// Show what a Dockerfile takes in without a digest, and what makes its builds differ; exit code 1 when it does take
    /// something in
    Lint {
        /// The Dockerfile, below the project's folder
        #[arg(default_value = "Dockerfile.agent", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// Exit code 1 for a warning too
        #[arg(long)]
        strict: bool,
    },
    /// Keep every file that the lock names in images/vendor, from which the image is built without a network
    Vendor {
        /// The definition
        name: String,
    },
    /// List the definitions, their locks and digests
    Ls,
    /// Build again from the packages and compare with the lock, and with what somebody signed
    Verify {
        /// The definition
        name: String,
        /// A public key, as PEM, of who signed the statement
        #[arg(long, value_name = "FILE", requires = "statement", value_hint = clap::ValueHint::FilePath)]
        key: Option<PathBuf>,
        /// What `sandbox image sign` printed
        #[arg(long, value_name = "FILE", requires = "key", value_hint = clap::ValueHint::FilePath)]
        statement: Option<PathBuf>,
    },
    /// Print provenance or a bill of materials in an envelope of DSSE that is signed with a key
    Sign {
        /// The definition
        name: String,
        /// A private key: PKCS#8 as PEM, without a password, of ECDSA with P-256 or of Ed25519
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        key: PathBuf,
        /// What is signed: `provenance`, `spdx` or `cyclonedx`
        #[arg(long = "as", value_enum, default_value_t = sign::Statement::Provenance, hide_possible_values = true)]
        what: sign::Statement,
    },
    /// Push what the lock says to a registry; manifest and digest stay what they are
    Push {
        /// The definition
        name: String,
        /// `REGISTRY/PATH`, with `:TAG` if there is to be one
        target: String,
        /// A repository of the same registry whose layers may be used without sending them again
        #[arg(long, value_name = "PATH")]
        mount_from: Option<String>,
    },
    /// Pull an image by its digest, check every byte, and load it into the engine
    Pull {
        /// `REGISTRY/PATH@sha256:…`
        reference: String,
    },
}

impl ImageVerb {
    fn allows_expired(&self) -> bool {
        matches!(self, Self::Lock { allow_expired: true, .. } | Self::Update { allow_expired: true, .. })
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SbomForm {
    /// SPDX 2.3
    Spdx,
    /// CycloneDX 1.6
    Cyclonedx,
}

#[derive(Debug, Clone)]
enum Output {
    Layout(PathBuf),
    Archive(PathBuf),
}

fn output(text: &str) -> Result<Output, String> {
    match text.split_once(':') {
        Some(("oci", path)) => Ok(Output::Layout(path.into())),
        Some(("docker-archive", path)) => Ok(Output::Archive(path.into())),
        _ => Err("expected `oci:FOLDER` or `docker-archive:FILE`".to_owned()),
    }
}

/// Runs `sandbox image`.
pub fn run(context: &Context, arguments: &ImageArguments) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::system("runtime", "start the event loop", &error, "free memory or raise the limit of threads")
    })?;
    runtime.block_on(run_async(context, arguments))
}

async fn run_async(context: &Context, arguments: &ImageArguments) -> Result<u8, Failure> {
    let surroundings = ImageContext {
        project_root: Some(&arguments.project),
        cache: &context.folders.cache,
        apt_sources_root: Path::new("/etc/apt"),
        progress: context.printer.progress(),
        offline: arguments.offline,
        allow_expired: arguments.verb.allows_expired(),
    };
    match &arguments.verb {
        ImageVerb::Lint { file, strict } => return lint::lint(context, &arguments.project, file, *strict),
        ImageVerb::Vendor { name } => {
            let kept = image::vendor(name, &arguments.project, &surroundings).await?;
            let (folder, files, size, copied) = (kept.folder.display().to_string(), kept.files, kept.size, kept.copied);
            let result = json!({"name": name, "folder": folder, "files": files, "size": size, "copied": copied});
            context.printer.result(&result, || format!("{folder} has {files} files for {name}, {size} bytes"));
        }
        ImageVerb::Ls => list(context, &arguments.project),
        ImageVerb::Lock { name, with_network, .. } => {
            lock(context, &surroundings, &arguments.project, (name, *with_network)).await?;
        }
        ImageVerb::Build { name, output, check: true, locked: _ } => {
            return compare::check(context, &surroundings, name, output.as_ref()).await;
        }
        ImageVerb::Build { name, output, check: false, locked: _ } => {
            let locked = image::locked(name, surroundings.project_root)?;
            let built = dockerfile::ensure(context, &surroundings, &locked).await?;
            if let Some(output) = output {
                write(&built, output).await?;
            }
            print(context, &built);
        }
        ImageVerb::Outdated { name } => {
            let changes = image::update::outdated(name, &surroundings).await?;
            context.printer.result(&changes, || sanitise(&changes.iter().map(LockChange::text).collect::<String>()));
            return Ok(u8::from(!changes.is_empty()));
        }
        ImageVerb::Update { name, package, .. } => {
            let mut changes = Vec::new();
            let locks = match package {
                Some(package) => image::update::update_package(name, package, &surroundings).await?,
                None => image::update::update(name, &surroundings).await?,
            };
            for (change, lock) in locks {
                warn_expired(context, &lock);
                write_lock(&arguments.project, &change.image, &lock)?;
                changes.push(change);
            }
            context.printer.result(&changes, || sanitise(&changes.iter().map(LockChange::text).collect::<String>()));
        }
        ImageVerb::Sign { name, key, what } => {
            sign::sign(context, &surroundings, &arguments.project, (name, key, *what)).await?;
        }
        ImageVerb::Verify { name, key, statement } => {
            let built = match is_name(name) {
                true => dockerfile::verify(context, &surroundings, name).await?,
                false => image::verify(name, &surroundings).await?,
            };
            if let (Some(key), Some(statement)) = (key, statement) {
                // What was just built left its layers nowhere; the cache has the same ones.
                let locked = image::locked(name, Some(&arguments.project))?;
                let kept = dockerfile::ensure(context, &surroundings, &locked).await?;
                sign::verify(&kept, &arguments.project, key, statement)?;
            }
            print(context, &built);
        }
        ImageVerb::Sbom { name, form } => {
            let locked = image::locked(name, Some(&arguments.project))?;
            let built = dockerfile::ensure(context, &surroundings, &locked).await?;
            let form = match form {
                SbomForm::Spdx => sbom::Form::Spdx,
                SbomForm::Cyclonedx => sbom::Form::CycloneDx,
            };
            context.printer.document(&sbom::sbom(&built, Some(&arguments.project), form)?);
        }
        ImageVerb::Provenance { name } => {
            let locked = image::locked(name, Some(&arguments.project))?;
            let built = dockerfile::ensure(context, &surroundings, &locked).await?;
            context.printer.document(&sbom::provenance(&built, Some(&arguments.project))?);
        }
        ImageVerb::Diff { first, second } => compare::diff(context, &surroundings, first, second).await?,
        ImageVerb::Push { name, target, mount_from } => {
            registry::push(context, &surroundings, name, target, mount_from.as_deref()).await?;
        }
        ImageVerb::Pull { reference } => registry::pull(context, &surroundings, reference).await?,
    }
    Ok(0)
}

async fn lock(
    context: &Context,
    surroundings: &ImageContext<'_>,
    project: &Path,
    (name, with_network): (&str, bool),
) -> Result<(), Failure> {
    if is_name(name) {
        let lock = dockerfile::locking(context, surroundings, name, with_network).await?;
        let path = write_into(project, &file_name(name), &lock.text()?)?;
        let result = json!({"name": name, "lock": path, "network": lock.network, "result": lock.result});
        context.printer.result(&result, || {
            let next = format!("`sandbox image build {name} --check` tells whether it builds the same again");
            format!("locked {name}: {}, {}\n  {next}", lock.result.config, path.display())
        });
        return Ok(());
    }
    if let Some(text) = image::locking::python(name, surroundings).await? {
        write_file(project, name, "pylock.toml", &text)?;
    }
    if let Some(text) = image::locking::node(name, surroundings).await? {
        write_file(project, name, image::definition::PACKAGE_LOCK, &text)?;
    }
    let lock = image::lock(name, surroundings).await?;
    warn_expired(context, &lock);
    let path = write_lock(project, name, &lock)?;
    let count = lock.packages.len() + lock.npm.len() + lock.pypi.len();
    let result = json!({"name": name, "lock": path, "packages": count, "result": lock.result});
    context.printer.result(&result, || format!("locked {name}: {count} packages, {}", path.display()));
    Ok(())
}

/// Says loudly which repositories may be keeping newer packages from us.
fn warn_expired(context: &Context, lock: &Lock) {
    for source in lock.sources.iter().filter(|source| source.expired) {
        let name = sanitise(&source.suite);
        context.printer.warning(&format!(
            "the release file of {name} is out of date and was taken all the same: its packages lack what was mended since"
        ));
    }
}

/// Writes `images/NAME/image.lock` in one step.
fn write_lock(project: &Path, name: &str, lock: &Lock) -> Result<PathBuf, ImageError> {
    write_file(project, name, "image.lock", &lock.text()?)
}

/// Writes a file beside the definition in one step.
fn write_file(project: &Path, name: &str, file_name: &str, text: &str) -> Result<PathBuf, ImageError> {
    let folder = project.join("images").join(name);
    if !folder.join("image.yaml").is_file() {
        return Err(ImageError::UnknownImage(name.to_owned()));
    }
    write_into(&folder, file_name, text)
}

/// Writes a file of a folder in one step.
fn write_into(folder: &Path, file_name: &str, text: &str) -> Result<PathBuf, ImageError> {
    let path = folder.join(file_name);
    let io = |source| ImageError::File { path: path.clone(), source };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(io)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(io)?;
    file.persist(&path).map_err(|error| io(error.error))?;
    Ok(path)
}

fn print(context: &Context, built: &BuiltImage) {
    let layers: Vec<_> =
        built.layers.iter().map(|layer| json!({"diff_id": layer.diff_id, "size": layer.size})).collect();
    let result =
        json!({"name": built.name, "config": built.config_digest, "manifest": built.manifest_digest, "layers": layers});
    context.printer.result(&result, || format!("{} {}", built.name, built.config_digest));
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    state: String,
    config: Option<String>,
    manifest: Option<String>,
}

fn list(context: &Context, project: &Path) {
    let row = |(name, state): (String, Result<image::LockedImage, ImageError>)| match state {
        Ok(locked) => Row {
            name,
            state: if locked.built_in { "built-in" } else { "locked" }.to_owned(),
            config: Some(locked.config_digest.to_string()),
            manifest: Some(locked.manifest_digest.to_string()),
        },
        Err(error) => Row { name, state: error.to_string(), config: None, manifest: None },
    };
    let rows: Vec<Row> = image::list(Some(project)).into_iter().map(row).collect();
    context.printer.result(&rows, || {
        let lines =
            rows.iter().map(|row| format!("{}\t{}\t{}\n", row.name, row.state, row.config.as_deref().unwrap_or("-")));
        lines.collect()
    });
}

async fn write(built: &BuiltImage, output: &Output) -> Result<(), ImageError> {
    match output {
        Output::Archive(path) => {
            let io = |source| ImageError::File { path: path.clone(), source };
            let mut file = tokio::fs::File::create(path).await.map_err(io)?;
            tokio::io::copy(&mut built.archive()?, &mut file).await.map_err(io)?;
            file.flush().await.map_err(io)
        }
        Output::Layout(folder) => {
            let io = |source| ImageError::File { path: folder.clone(), source };
            let blobs = folder.join("blobs/sha256");
            std::fs::create_dir_all(&blobs).map_err(io)?;
            for layer in &built.layers {
                std::fs::copy(&layer.path, blobs.join(layer.diff_id.hex())).map_err(io)?;
            }
            for (path, bytes) in built.documents()? {
                std::fs::write(folder.join(path), bytes).map_err(io)?;
            }
            Ok(())
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        if let ImageError::Registry(error) = &error {
            return Self::from(error);
        }
        let (code, next) = match &error {
            ImageError::UnknownImage(_) => ("image-unknown", "run `sandbox image ls`, or write images/NAME/image.yaml"),
            ImageError::Unlocked(_) => ("image-unlocked", "run `sandbox image lock NAME`"),
            ImageError::Stale { .. } => ("image-stale", "run `sandbox image lock NAME`, the base first"),
            ImageError::Definition { .. } | ImageError::DefinitionValue { .. } | ImageError::BaseCycle(_) => {
                ("image-definition", "correct images/NAME/image.yaml")
            }
            ImageError::Unavailable { .. } => (
                "image-unavailable",
                "check the network; if the package has left the mirrors, run `sandbox image lock NAME`",
            ),
            ImageError::Vendored { .. } => {
                ("image-vendored", "take the file from the history, or remove it and run `sandbox image vendor NAME`")
            }
            ImageError::Offline(_) => ("image-offline", "run again without --offline"),
            ImageError::Mismatch { .. } => (
                "image-mismatch",
                "do not use this build; if the definition or the launcher changed, run `sandbox image lock NAME`",
            ),
            ImageError::Signature { .. } => {
                ("image-release", "check the mirror and the clock, and update the package debian-archive-keyring")
            }
            ImageError::Expired { .. } => (
                "image-release",
                "check the mirror and the clock; for an old snapshot, lock the image with --allow-expired",
            ),
            ImageError::Downgrade { .. } => (
                "image-release",
                "wait until the mirror is up to date, or use another one; to go back on purpose, remove the lock first",
            ),
            ImageError::Key { .. } => {
                ("image-repository", "save the repository's OpenPGP key, as it is published, beside the definition")
            }
            ImageError::UnknownPackage { .. } => ("image-package", "correct the name in images/NAME/image.yaml"),
            ImageError::Pin { .. } => ("image-version", "name a version that a source has, or none"),
            ImageError::NpmLock { problem: NpmLockProblem::NoNpm(_), .. } => {
                ("image-npm", "install `npm`, or write images/NAME/package-lock.json with it on another machine")
            }
            ImageError::NpmLock { problem: NpmLockProblem::Script(_), .. } => {
                ("image-npm", "leave the package out, or build the image from a Dockerfile, whose steps run scripts")
            }
            ImageError::NpmLock { .. } => (
                "image-npm",
                "correct images/NAME/package-lock.json, or remove it and run `sandbox image lock NAME`, which has `npm` write it",
            ),
            ImageError::Keyring { .. } => ("image-keyring", "install the package debian-archive-keyring"),
            ImageError::Digest(_) => {
                ("image-reference", "write REGISTRY/PATH@sha256:… with the digest that the registry shows")
            }
            ImageError::Pylock { problem: PylockProblem::NoPython } => {
                ("image-python", "add python3 to the definition's Debian packages, or take a base that has it")
            }
            ImageError::Pylock { problem: PylockProblem::NoUv(_) } => {
                ("image-python", "install `uv`, or write images/NAME/pylock.toml with another tool that does (PEP 751)")
            }
            ImageError::Pylock { .. } => (
                "image-python",
                "correct images/NAME/pylock.toml, or remove it and run `sandbox image lock NAME`, which has `uv` write it",
            ),
            ImageError::Attestation(AttestationError::Pem(_) | AttestationError::Key | AttestationError::Sign) => (
                "image-key",
                "make a key: `openssl genpkey -algorithm ED25519 -out KEY`, and `openssl pkey -in KEY -pubout`",
            ),
            ImageError::Attestation(_) => {
                ("image-signature", "do not use this image before you know who made the statement, and of what")
            }
            ImageError::Dockerfile(_) => ("image-dockerfile", "correct the line that the cause above names"),
            ImageError::NoPackage { .. } => (
                "image-package",
                "`sandbox image outdated NAME` tells what has newer versions; those of npm and PyPI stand in image.yaml",
            ),
            ImageError::NoDefinition(_) => (
                "image-dockerfile",
                "do it with the image that it is based on, and then run `sandbox image lock` for the Dockerfile",
            ),
            ImageError::Context(_) => {
                ("image-context", "name that file no more in COPY or ADD, or have it left out by .dockerignore")
            }
            ImageError::Saved(_) => ("image-build", "change the step that made it; `docker history` shows the steps"),
            ImageError::Package { .. } => {
                ("image-content", "do not use this package; if its lock is as you made it, name another version of it")
            }
            ImageError::Scripts { .. } => (
                "image-script",
                "install what brings them in a Dockerfile.agent above it, or list in `debian.without_scripts` those whose scripts you can do without",
            ),
            ImageError::Lock { .. } => ("image", "take its lock from the history, or run `sandbox image lock NAME`"),
            ImageError::File { .. } => {
                ("image", "make it readable and writable for you, and look whether the disk is full")
            }
            ImageError::Unsatisfiable { .. } | ImageError::Conflict(..) => {
                ("image", "change the packages or the suite in images/NAME/image.yaml")
            }
            _ => ("image", "look at the causes above; `sandbox image verify NAME` checks the definition and its lock"),
        };
        // What is no name makes no command either.
        let named = error.image().filter(|name| image::definition::is_name(name) || image::dockerfile::is_name(name));
        let next = named.map_or_else(|| next.to_owned(), |name| next.replace("NAME", name));
        Failure::told(code, &error, next)
    }
}
