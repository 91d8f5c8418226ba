//! Brings an image in by its digest: manifest, configuration and layers, each compared with the digest and size that
//! lead to it before it is used. Layers are unpacked to plain tars, whose digests the configuration has.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::{ACCEPT, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};

use super::client::{Client, Request};
use super::manifest::{self, Compression, Document, Manifest, Part};
use super::name::TaggedImage;
use super::{Login, RegistryError, Repository};
use crate::image::archive::{BuiltImage, BuiltLayer};
use crate::image::error::ImageError;
use crate::image::fetch::{bar, blob, keep};
use crate::image::reference::{Digest, Hasher, PinnedImage};

/// The largest manifest (distribution-spec, "Pushing Manifests", has 4 MiB as what registries should take).
const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest configuration.
const CONFIG_LIMIT: u64 = 8 << 20;
/// What all layers of an image together may unpack to.
const UNPACKED_LIMIT: u64 = 32 << 30;
/// How often a transfer that breaks off is taken up again.
const ATTEMPTS: u32 = 5;
/// Layers that are transferred at one time.
const PARALLEL: usize = 3;

/// What a pull needs of its surroundings.
#[derive(Debug)]
pub struct PullContext<'a> {
    /// The launcher's cache.
    pub cache: &'a Path,
    /// What the registry is shown.
    pub login: Option<Login>,
    /// Certificate authorities to trust beside the system's, in PEM.
    pub authorities: Option<&'a str>,
    /// Whether to draw progress on standard error.
    pub progress: bool,
    /// Whether to keep off the network.
    pub offline: bool,
}

/// Pulls an image into the cache. What is there already is not fetched again.
///
/// # Errors
/// When the registry does not give it, or gives something else.
pub async fn pull(image: &PinnedImage, context: &PullContext<'_>) -> Result<BuiltImage, ImageError> {
    let repository: Repository = image.repository.parse()?;
    let scope = format!("repository:{}:pull", repository.path);
    let client = Client::new(&repository, scope, context.login.clone(), context.authorities)?;
    let pull = Pull { client, context };
    let (manifest, config) = pull.documents(&image.digest).await?;
    let diff_ids = manifest::diff_ids(&config, manifest.layers.len(), manifest::architecture())?;
    let layers = pull.layers(&manifest, diff_ids).await?;
    BuiltImage::of_config(&repository.to_string(), config, layers)
}

/// The image that a tag stands for now: that of the manifest or index which the registry gives for it.
///
/// # Errors
/// When the registry does not give it, or says that it is another than it is.
pub async fn resolve(image: &TaggedImage, context: &PullContext<'_>) -> Result<PinnedImage, ImageError> {
    let repository: Repository = image.repository.parse()?;
    let scope = format!("repository:{}:pull", repository.path);
    let client = Client::new(&repository, scope, context.login.clone(), context.authorities)?;
    let pull = Pull { client, context };
    pull.online("tag")?;
    let address = pull.client.at(&format!("manifests/{}", image.tag))?;
    let response = pull.client.send(Request::new(Method::GET, address).with(ACCEPT, manifest::ACCEPT)).await?;
    if response.status() != 200 {
        return Err(pull.client.unexpected("tag", response).await.into());
    }
    // Distribution-spec, "Pulling manifests": the header is to be the digest of the body.
    let said = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()?.parse().ok());
    let limit = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
    let bytes = pull.client.body(response, limit, "manifest").await?;
    let digest = Digest::of(&bytes);
    if let Some(wanted) = said.filter(|said| *said != digest) {
        return Err(RegistryError::Digest { what: "the manifest".to_owned(), found: digest, wanted }.into());
    }
    keep(context.cache, &bytes)?;
    Ok(PinnedImage { repository: image.repository.clone(), digest })
}

struct Pull<'a> {
    client: Client,
    context: &'a PullContext<'a>,
}

impl Pull<'_> {
    async fn documents(&self, digest: &Digest) -> Result<(Manifest, Vec<u8>), ImageError> {
        let architecture = manifest::architecture();
        let top = self.document("manifests", "manifest", digest, None, MANIFEST_LIMIT).await?;
        let found = match manifest::document(&top, architecture)? {
            Document::Manifest(found) => found,
            Document::Index(part) => {
                let inner =
                    self.document("manifests", "manifest", &part.digest, Some(part.size), MANIFEST_LIMIT).await?;
                match manifest::document(&inner, architecture)? {
                    Document::Manifest(found) => found,
                    Document::Index(_) => {
                        let problem = "it is an index in an index";
                        return Err(RegistryError::Document { document: "manifest", problem }.into());
                    }
                }
            }
        };
        let Part { digest, size } = &found.config;
        let config = self.document("blobs", "configuration", digest, Some(*size), CONFIG_LIMIT).await?;
        Ok((found, config))
    }

    /// A small document, from the cache or the registry.
    async fn document(
        &self,
        kind: &str,
        name: &'static str,
        digest: &Digest,
        size: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u8>, ImageError> {
        let limit = size.map_or(limit, |size| size.min(limit));
        let path = blob(self.context.cache, digest);
        if let Ok(file) = std::fs::File::open(&path) {
            let mut bytes = Vec::new();
            if file.take(limit + 1).read_to_end(&mut bytes).is_ok() && Digest::of(&bytes) == *digest {
                return Ok(bytes);
            }
        }
        self.online(name)?;
        let request = Request::new(Method::GET, self.client.at(&format!("{kind}/{digest}"))?);
        let request = if kind == "manifests" { request.with(ACCEPT, manifest::ACCEPT) } else { request };
        let response = self.client.send(request).await?;
        if response.status() != 200 {
            return Err(self.client.unexpected(name, response).await.into());
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let bytes = self.client.body(response, limit, name).await?;
        let found = Digest::of(&bytes);
        if found != *digest {
            let (what, wanted) = (format!("the {name}"), digest.clone());
            return Err(RegistryError::Digest { what, found, wanted }.into());
        }
        if size.is_some_and(|size| size != bytes.len() as u64) {
            let (what, wanted) = (format!("the {name}"), size.unwrap_or_default());
            return Err(RegistryError::Size { what, wanted }.into());
        }
        keep(self.context.cache, &bytes)?;
        Ok(bytes)
    }

    fn online(&self, what: &str) -> Result<(), RegistryError> {
        if !self.context.offline {
            return Ok(());
        }
        Err(RegistryError::Offline { what: format!("the {what} of {}", self.client.repository()) })
    }

    async fn layers(&self, manifest: &Manifest, diff_ids: Vec<Digest>) -> Result<Vec<BuiltLayer>, RegistryError> {
        let folder = self.context.cache.join("layers");
        std::fs::create_dir_all(&folder)?;
        let missing = manifest.layers.iter().zip(&diff_ids).filter(|(_, id)| !layer_path(&folder, id).is_file());
        let total = missing.map(|((part, _), _)| part.size).sum();
        let bar = bar("fetching", total, self.context.progress);
        let budget = Arc::new(AtomicU64::new(UNPACKED_LIMIT));
        let one = async |((part, compression), diff_id): ((Part, Compression), Digest)| {
            let path = layer_path(&folder, &diff_id);
            if let Ok(metadata) = std::fs::metadata(&path) {
                return Ok(BuiltLayer { diff_id, size: metadata.len(), path });
            }
            self.online("layer")?;
            let file = self.fetch(&part, &folder, &bar).await?;
            let budget = budget.clone();
            let unpack = tokio::task::spawn_blocking(move || unpack(file, compression, diff_id, &path, &budget));
            unpack.await.map_err(std::io::Error::other)?
        };
        let wanted = manifest.layers.iter().cloned().zip(diff_ids);
        let layers = futures_util::stream::iter(wanted.map(one)).buffered(PARALLEL).try_collect().await;
        bar.finish_and_clear();
        layers
    }

    /// Fetches a layer as it travels. A transfer that breaks off goes on where it was (RFC 9110, section 14).
    async fn fetch(
        &self,
        part: &Part,
        folder: &Path,
        bar: &indicatif::ProgressBar,
    ) -> Result<tempfile::NamedTempFile, RegistryError> {
        let what = || format!("the layer {}", part.digest.short());
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let mut hash = Hasher::default();
        let mut have = 0_u64;
        let mut attempt = 1;
        loop {
            let mut request = Request::new(Method::GET, self.client.at(&format!("blobs/{}", part.digest))?);
            if have > 0 {
                request = request.with(RANGE, format!("bytes={have}-"));
            }
            let mut response = self.client.send(request).await?;
            match response.status().as_u16() {
                206 if have > 0 && range_start(&response) == Some(have) => {}
                200 => {
                    // From the beginning, asked or not.
                    file = tempfile::NamedTempFile::new_in(folder)?;
                    (hash, have) = (Hasher::default(), 0);
                }
                _ => return Err(self.client.unexpected("the layer", response).await),
            }
            let failed = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        have += chunk.len() as u64;
                        if have > part.size {
                            return Err(RegistryError::Size { what: what(), wanted: part.size });
                        }
                        hash.update(&chunk);
                        file.write_all(&chunk)?;
                        bar.inc(chunk.len() as u64);
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            match failed {
                None if have < part.size => return Err(RegistryError::Size { what: what(), wanted: part.size }),
                None => break,
                Some(source) if attempt == ATTEMPTS => {
                    let source = source.without_url();
                    return Err(RegistryError::Interrupted { what: what(), attempts: ATTEMPTS, source });
                }
                Some(_) => attempt += 1,
            }
        }
        let found = hash.digest();
        if found != part.digest {
            return Err(RegistryError::Digest { what: what(), found, wanted: part.digest.clone() });
        }
        file.flush()?;
        Ok(file)
    }
}

fn layer_path(folder: &Path, diff_id: &Digest) -> PathBuf {
    folder.join(format!("{}.tar", diff_id.hex()))
}

/// The first byte of `bytes FIRST-LAST/SIZE`.
fn range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Unpacks a layer whose bytes were checked, and gives it its name only when its own digest is right too.
fn unpack(
    file: tempfile::NamedTempFile,
    compression: Compression,
    diff_id: Digest,
    path: &Path,
    budget: &AtomicU64,
) -> Result<BuiltLayer, RegistryError> {
    let folder = path.parent().unwrap_or(path);
    let mut output = tempfile::NamedTempFile::new_in(folder)?;
    let input = std::io::BufReader::with_capacity(1 << 17, file.reopen()?);
    let mut reader: Box<dyn Read> = match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
    };
    let mut hash = Hasher::default();
    let mut size = 0_u64;
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        size += count as u64;
        let take = |left: u64| left.checked_sub(count as u64);
        if budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let problem = "its layers unpack to more than is allowed";
            return Err(RegistryError::Document { document: "image", problem });
        }
        hash.update(&buffer[..count]);
        output.write_all(&buffer[..count])?;
    }
    let found = hash.digest();
    if found != diff_id {
        let what = format!("the unpacked layer {}", diff_id.short());
        return Err(RegistryError::Digest { what, found, wanted: diff_id });
    }
    // Its name alone says later what is in it.
    output.as_file().sync_all()?;
    output.persist(path).map_err(|error| error.error)?;
    Ok(BuiltLayer { diff_id, size, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_unpack_to_more_than_is_allowed_together_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = vec![0; 1 << 20];
        let packed = zstd::encode_all(&bytes[..], 1).unwrap();
        assert!(packed.len() < 1 << 10, "a bomb in small");
        let layer = |budget: &AtomicU64, name: &str| {
            let mut file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
            file.write_all(&packed).unwrap();
            unpack(file, Compression::Zstd, Digest::of(&bytes), &folder.path().join(name), budget)
        };
        let budget = AtomicU64::new((1 << 20) + (1 << 19));
        assert_eq!(layer(&budget, "one").unwrap().size, 1 << 20);
        assert!(matches!(layer(&budget, "two"), Err(RegistryError::Document { .. })));
        assert!(folder.path().join("one").exists() && !folder.path().join("two").exists());
    }
}
