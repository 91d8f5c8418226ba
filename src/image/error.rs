//! Why an image cannot be locked, fetched or built.

use std::path::PathBuf;

use super::reference::{Digest, ReferenceError};
use super::registry::RegistryError;

/// A failure of this module, as a fragment that fits after "failed to …:".
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No definition of this name.
    #[error("there is no image definition `{}`", .0.escape_debug())]
    UnknownImage(String),
    /// A Dockerfile, where a definition is needed.
    #[error("`{}` is a Dockerfile, which has no packages of its own", .0.escape_debug())]
    NoDefinition(String),
    /// No lock that may be written has this package.
    #[error("no lock of this project for the image `{name}` has the Debian package `{}`", .package.escape_debug())]
    NoPackage {
        /// The definition.
        name: String,
        /// The package.
        package: String,
    },
    /// The definition has no lock.
    #[error("the image `{0}` has no lock")]
    Unlocked(String),
    /// The definition changed after it was locked, or its base's lock did.
    #[error("the lock of the image `{name}` is out of date: its {what} changed")]
    Stale {
        /// The definition.
        name: String,
        /// Which input changed.
        what: &'static str,
    },
    /// Definitions that are based on each other, or too many of them.
    #[error("the image `{0}` has a chain of bases that does not end")]
    BaseCycle(String),
    /// The definition's text is wrong.
    #[error("the definition of the image `{name}` is not valid")]
    Definition {
        /// The definition.
        name: String,
        /// What the parser says.
        #[source]
        source: Box<serde_yaml::Error>,
    },
    /// A value of the definition is wrong.
    #[error("`{value}` in the definition of the image `{name}` is not a {expected}")]
    DefinitionValue {
        /// The definition.
        name: String,
        /// What is written.
        value: String,
        /// What should be.
        expected: &'static str,
    },
    /// The lock's text is wrong.
    #[error("the lock of the image `{name}` is not valid")]
    Lock {
        /// The definition.
        name: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A digest somewhere is not one.
    #[error("a digest is not valid")]
    Digest(#[from] ReferenceError),
    /// A document of the OCI image specification is not valid.
    #[error("a document of the image is not valid")]
    Document(#[from] oci_spec::OciSpecError),
    /// A file cannot be read or written.
    #[error("`{path}` cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A registry does not give or take an image.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
    /// A file is on no mirror.
    #[error("{what} cannot be fetched from any mirror")]
    Unavailable {
        /// Which package or index.
        what: String,
        /// The last failure.
        #[source]
        source: FetchError,
    },
    /// A file that the project keeps is another one.
    #[error("{what} does not have the digest of the lock in `{path}`")]
    Vendored {
        /// Which package.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// The network is not allowed.
    #[error("{0} is not in the cache and the network is not to be used")]
    Offline(String),
    /// InRelease carries no good signature.
    #[error("the release file of {suite} has no valid signature of a Debian archive key")]
    Signature {
        /// The suite.
        suite: String,
        /// What the last key says.
        #[source]
        source: Option<Box<pgp::errors::Error>>,
    },
    /// The keyring is absent or wrong.
    #[error("the keyring `{path}` cannot be used")]
    Keyring {
        /// The keyring.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<pgp::errors::Error>,
    },
    /// The release file is too old or from the future.
    #[error("the release file of {suite} is valid from {from} until {until} only")]
    Expired {
        /// The suite.
        suite: String,
        /// Its date.
        from: String,
        /// Its end.
        until: String,
    },
    /// A repository's index lacks something or cannot be parsed.
    #[error("the index of {suite} has no valid {field}")]
    Index {
        /// The suite or package.
        suite: String,
        /// What is wrong.
        field: &'static str,
    },
    /// A dependency cannot be met.
    #[error("nothing satisfies `{dependency}`, which {dependent} needs")]
    Unsatisfiable {
        /// The dependency as written.
        dependency: String,
        /// Who needs it.
        dependent: String,
    },
    /// No source has a package that a definition names.
    #[error("no source has a package `{package}`{}", instead(.providers, .similar.as_deref()))]
    UnknownPackage {
        /// The package.
        package: String,
        /// Packages that say they are that one too.
        providers: Vec<String>,
        /// One with nearly that name.
        similar: Option<String>,
    },
    /// No source has the version that a definition names.
    #[error("no source has `{request}`{}", listed(.versions))]
    Pin {
        /// The package and the version, as written.
        request: String,
        /// Versions that there are.
        versions: Vec<String>,
    },
    /// A mirror gives an older index than the one that is locked.
    #[error("the mirror's release file of {suite} is of {offered}, which is before the locked one of {locked}")]
    Downgrade {
        /// The suite.
        suite: String,
        /// Date of the locked one.
        locked: String,
        /// Date of the mirror's.
        offered: String,
    },
    /// A key of a source cannot be used.
    #[error("the key `{path}` of the source {suite} cannot be used")]
    Key {
        /// The suite.
        suite: String,
        /// The file.
        path: PathBuf,
    },
    /// The packages of npm of a definition cannot be chosen.
    #[error("the npm packages of the image `{name}` cannot be chosen")]
    NpmLock {
        /// The definition.
        name: String,
        /// What is wrong.
        #[source]
        problem: NpmLockProblem,
    },
    /// Two chosen packages exclude each other.
    #[error("the packages {0} and {1} conflict")]
    Conflict(String, String),
    /// A package's archive is not what it should be.
    #[error("the package {package} cannot be used")]
    Package {
        /// The package.
        package: String,
        /// What is wrong.
        #[source]
        problem: PackageProblem,
    },
    /// Packages want to run code that no fix-up stands for.
    #[error("scripts of packages are not known to be dispensable: {}", named(.refused))]
    Scripts {
        /// The definition.
        name: String,
        /// The scripts, one of each package.
        refused: Vec<RefusedScript>,
    },
    /// A build gave other bytes than the lock promises.
    #[error("the {what} of the image `{name}` is {built}, but the lock says {locked}")]
    Mismatch {
        /// The definition.
        name: String,
        /// Which digest.
        what: &'static str,
        /// What came out.
        built: Digest,
        /// What should have.
        locked: Digest,
    },
    /// A statement about an image cannot be signed or believed.
    #[error(transparent)]
    Attestation(super::attestation::AttestationError),
    /// A Dockerfile cannot be judged.
    #[error("the Dockerfile cannot be used")]
    Dockerfile(#[source] super::dockerfile::DockerfileError),
    /// The files that a Dockerfile takes from the project cannot be put together.
    #[error("the files that the Dockerfile takes from the project cannot be used")]
    Context(#[source] super::dockerfile::context::ContextError),
    /// An engine's image is not one that can be taken over.
    #[error("the image that the engine built cannot be taken over")]
    Saved(#[source] super::saved::SavedError),
    /// The Python packages of a definition cannot be chosen.
    #[error("the Python packages of the image cannot be chosen")]
    Pylock {
        /// What is wrong.
        #[source]
        problem: PylockProblem,
    },
    /// A thread of the builder ended unexpectedly.
    #[error("a worker of the builder stopped unexpectedly")]
    Worker,
    /// A machine for which nothing is published.
    #[error("images for the architecture `{0}` are not supported")]
    Architecture(&'static str),
}

impl ImageError {
    /// The image that it is about, where it is about one.
    pub fn image(&self) -> Option<&str> {
        match self {
            Self::UnknownImage(name) | Self::Unlocked(name) | Self::BaseCycle(name) => Some(name),
            Self::NoPackage { name, .. }
            | Self::Stale { name, .. }
            | Self::Definition { name, .. }
            | Self::DefinitionValue { name, .. }
            | Self::Lock { name, .. }
            | Self::NpmLock { name, .. }
            | Self::Scripts { name, .. }
            | Self::Mismatch { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// What is wrong with a package's archive.
#[derive(Debug, thiserror::Error)]
pub enum PackageProblem {
    /// Cannot be read.
    #[error("it cannot be read")]
    Read(#[from] std::io::Error),
    /// A member is missing.
    #[error("it has no {0}")]
    Member(&'static str),
    /// A path leaves the root or goes through a file.
    #[error("the path `{}` is not allowed", .0.escape_debug())]
    Path(String),
    /// Devices, pipes and the like.
    #[error("`{}` is neither a file, a folder nor a link", .0.escape_debug())]
    Kind(String),
    /// Another package has this file.
    #[error("`{}` belongs to {} too", .0.escape_debug(), .1)]
    Overwrites(String, String),
    /// It is another one than the lock says.
    #[error("its {0} is not what the lock says")]
    Differs(&'static str),
    /// Its file in the cache was changed.
    #[error("its file in the cache had other bytes than the lock says; it was removed and is fetched again next time")]
    Cache,
    /// A file ends before its length.
    #[error("`{}` is shorter than it says", .0.escape_debug())]
    Short(String),
    /// Larger than any package should be.
    #[error("it is larger than allowed")]
    Size,
    /// A wheel's file has other bytes than the wheel's RECORD says, or is not in it.
    #[error("`{}` is not what the wheel's RECORD says", .0.escape_debug())]
    Record(String),
    /// A wheel's command cannot be written.
    #[error("`{}` is not an entry point of Python", .0.escape_debug())]
    EntryPoint(String),
}

/// Why there are no Python packages to take.
#[derive(Debug, thiserror::Error)]
pub enum PylockProblem {
    /// There is no file.
    #[error("images/{0}/pylock.toml is not there")]
    Missing(String),
    /// The text is not TOML of that form.
    #[error("pylock.toml is not valid")]
    Form(#[from] toml_edit::de::Error),
    /// A later version of the format.
    #[error("pylock.toml has version {0}, and this launcher reads version 1")]
    Version(String),
    /// Not for the Python of the image.
    #[error("pylock.toml is for Python `{0}`, and the image has Python {1}")]
    Python(String, String),
    /// The image has none.
    #[error("neither the definition nor its base has Debian's python3")]
    NoPython,
    /// A wanted package is absent, or has another version.
    #[error("pylock.toml does not have {0} {1}")]
    Absent(String, String),
    /// A package is there twice.
    #[error("pylock.toml has {0} twice")]
    Twice(String),
    /// It depends on more than the platform.
    #[error("pylock.toml has a marker for {0}, and a lock of one platform has none")]
    Marker(String),
    /// Nothing that can be unpacked.
    #[error("{0} has no wheel for the Python of the image, and nothing is built from source")]
    NoWheel(String),
    /// Version, address or digest are missing.
    #[error("the entry of {0} lacks a plain version, an https address or a SHA-256 digest")]
    Entry(String),
    /// Larger than any lock or wheel should be.
    #[error("pylock.toml or a wheel in it is larger than allowed")]
    Size,
    /// There is nobody to choose.
    #[error("`uv`, which chooses the versions, cannot be run")]
    NoUv(#[source] std::io::Error),
    /// No solution, or no network.
    #[error("`uv` found no versions:\n{0}")]
    Uv(String),
    /// No end.
    #[error("`uv` did not come to an end")]
    Patience,
}

/// Why a `package-lock.json` cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum NpmLockProblem {
    /// The text is not JSON of that form.
    #[error("package-lock.json is not valid")]
    Form(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("package-lock.json has lockfileVersion {0}, and this launcher reads version 3")]
    Version(u64),
    /// Larger than any lock should be.
    #[error("package-lock.json is larger than allowed")]
    Size,
    /// A wanted package is absent, or has another version.
    #[error("package-lock.json does not have {0} {1}")]
    Absent(String, String),
    /// An entry lacks something.
    #[error("the entry `{}` of package-lock.json has no {}", .0.escape_debug(), .1)]
    Entry(String, &'static str),
    /// An entry is at an odd place.
    #[error("`{}` in package-lock.json is not a folder of node_modules", .0.escape_debug())]
    Place(String),
    /// A package would have to be compiled.
    #[error("{0} has a script that runs when it is installed, which the builder does not run")]
    Script(String),
    /// There is nobody to choose.
    #[error("`npm`, which chooses the versions, cannot be run")]
    NoNpm(#[source] std::io::Error),
    /// No solution, or no network.
    #[error("`npm` found no versions:\n{0}")]
    Npm(String),
    /// No end.
    #[error("`npm` did not come to an end")]
    Patience,
}

/// The versions that there are, as the end of a sentence.
/// A script of a package that no fix-up stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedScript {
    /// The package.
    pub package: String,
    /// Such as `postinst`.
    pub script: String,
}

fn named(scripts: &[RefusedScript]) -> String {
    let each: Vec<String> = scripts.iter().map(|refused| format!("{} ({})", refused.package, refused.script)).collect();
    each.join(", ")
}

/// What a package could be that there is not.
fn instead(providers: &[String], similar: Option<&str>) -> String {
    match (providers, similar) {
        ([], None) => String::new(),
        ([], Some(similar)) => format!("; there is `{similar}`"),
        (providers, _) => format!("; what it stands for is in {}", providers.join(", ")),
    }
}

fn listed(versions: &[String]) -> String {
    match versions {
        [] => ", nor any other version of it".to_owned(),
        [..] => format!("; there are {}", versions.iter().take(10).cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// Why one address did not give the file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Network or HTTP.
    #[error("the transfer failed")]
    Http(#[from] reqwest::Error),
    /// It came, but is not what was asked for.
    #[error("the content does not have the expected digest or size")]
    Content,
    /// Could not be written.
    #[error("the cache cannot be written")]
    Cache(#[from] std::io::Error),
    /// What a registry tells of a package is not JSON.
    #[error("the answer is not valid JSON")]
    Json(#[from] serde_json::Error),
    /// No address at all.
    #[error("no mirror is known")]
    NoMirror,
}

/// Attaches a path to an I/O error.
pub(crate) fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> ImageError + '_ {
    move |source| ImageError::File { path: path.to_owned(), source }
}
