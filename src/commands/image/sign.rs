//! `sandbox image sign`, and the part of `sandbox image verify` that reads what was signed.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::commands::{Context, Failure};
use crate::image::attestation::{self, AttestationError};
use crate::image::error::at;
use crate::image::{self, BuiltImage, ImageContext, ImageError, sbom};

/// What can be signed about an image, and its kind of statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Statement {
    /// SLSA provenance v1
    Provenance,
    /// A bill of materials in SPDX 2.3
    Spdx,
    /// A bill of materials in CycloneDX 1.6
    Cyclonedx,
}

impl Statement {
    const ALL: [Self; 3] = [Self::Provenance, Self::Spdx, Self::Cyclonedx];

    /// The type of the predicate (in-toto attestation, spec/predicates).
    fn kind(self) -> &'static str {
        match self {
            Self::Provenance => "https://slsa.dev/provenance/v1",
            Self::Spdx => "https://spdx.dev/Document",
            Self::Cyclonedx => "https://cyclonedx.org/bom",
        }
    }

    fn make(self, built: &BuiltImage, project: &Path) -> Result<Value, ImageError> {
        let form = match self {
            Self::Provenance => return sbom::provenance(built, Some(project)),
            Self::Spdx => sbom::Form::Spdx,
            Self::Cyclonedx => sbom::Form::CycloneDx,
        };
        Ok(attestation::statement(built, self.kind(), sbom::sbom(built, Some(project), form)?))
    }
}

/// Prints a signed statement about what the lock gives.
pub(super) async fn sign(
    context: &Context,
    surroundings: &ImageContext<'_>,
    project: &Path,
    (name, key, what): (&str, &Path, Statement),
) -> Result<(), Failure> {
    let key = read(key, attestation::KEY_LIMIT)?;
    let locked = image::locked(name, Some(project))?;
    let built = super::dockerfile::ensure(context, surroundings, &locked).await?;
    let envelope = attestation::sign(&what.make(&built, project)?, &key).map_err(ImageError::Attestation)?;
    context.printer.document(&envelope);
    Ok(())
}

/// Compares a signed statement with what it would say of an image that was just built from its lock.
pub(super) fn verify(built: &BuiltImage, project: &Path, key: &Path, envelope: &Path) -> Result<(), ImageError> {
    let key = read(key, attestation::KEY_LIMIT)?;
    let envelope = read(envelope, attestation::LIMIT)?;
    let signed = attestation::open(envelope.as_bytes(), &key).map_err(ImageError::Attestation)?;
    let kind = signed.get("predicateType").and_then(Value::as_str).unwrap_or_default();
    let unknown = || AttestationError::Kind(kind.chars().take(100).collect());
    let what = Statement::ALL.into_iter().find(|what| what.kind() == kind);
    let what = what.ok_or_else(unknown).map_err(ImageError::Attestation)?;
    if signed == what.make(built, project)? { Ok(()) } else { Err(ImageError::Attestation(AttestationError::Differs)) }
}

/// A text of at most so many bytes, which may be a key.
fn read(path: &Path, limit: u64) -> Result<Zeroizing<String>, ImageError> {
    let file = std::fs::File::open(path).map_err(at(path))?;
    // The buffer never grows, since that would leave copies of a key behind.
    let size = file.metadata().map_err(at(path))?.len().min(limit);
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(size).unwrap_or_default() + 64));
    file.take(limit + 1).read_to_string(&mut text).map_err(at(path))?;
    if text.len() as u64 > limit {
        return Err(at(path)(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}
