//! Takes a built image out to a registry (distribution-spec, "Push"). The manifest's bytes stay what they are, so its
//! digest in the registry is the one in the lock.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use reqwest::{Method, Response, Url};

use super::client::{Body, Client, Request};
use super::manifest;
use super::{Login, RegistryError, Repository};
use crate::image::archive::BuiltImage;
use crate::image::error::ImageError;
use crate::image::fetch::bar;
use crate::image::reference::Digest;

/// How often an upload that breaks off is taken up again.
const ATTEMPTS: u32 = 5;

/// Where an image goes.
#[derive(Debug, Clone)]
pub struct PushTarget {
    /// The repository.
    pub repository: Repository,
    /// A tag besides the digest.
    pub tag: Option<String>,
    /// Path of a repository of the same registry whose blobs may be used without an upload.
    pub mount_from: Option<String>,
    /// Certificate authorities to trust beside the system's, in PEM.
    pub authorities: Option<String>,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pushed {
    /// The image by its digest, for a manifest's `image:`.
    pub reference: String,
    /// Blobs that were uploaded.
    pub uploaded: u32,
    /// Blobs that the registry took from another repository.
    pub mounted: u32,
    /// Blobs that it had.
    pub present: u32,
}

/// Pushes an image, and reads its manifest back.
///
/// # Errors
/// When the registry does not take it, or has other bytes afterwards.
pub async fn push(
    image: &BuiltImage,
    target: &PushTarget,
    login: Option<Login>,
    progress: bool,
) -> Result<Pushed, ImageError> {
    let mut scope = format!("repository:{}:pull,push", target.repository.path);
    if let Some(from) = &target.mount_from {
        scope.push_str(&format!(" repository:{from}:pull"));
    }
    let client = Client::new(&target.repository, scope, login, target.authorities.as_deref())?;
    let reference = format!("{}@{}", target.repository, image.manifest_digest);
    let mut pushed = Pushed { reference, uploaded: 0, mounted: 0, present: 0 };
    let mut blobs = Vec::new();
    for layer in &image.layers {
        blobs.push((layer.diff_id.clone(), layer.size, Source::File(layer.path.clone())));
    }
    let config = Bytes::copy_from_slice(image.config());
    blobs.push((image.config_digest.clone(), config.len() as u64, Source::Bytes(config)));
    for (digest, size, source) in blobs {
        let bar = bar("sending", size, progress);
        let blob = Blob { digest, size, source, bar };
        match blob.send(&client, target.mount_from.as_deref()).await? {
            Sent::Present => pushed.present += 1,
            Sent::Mounted => pushed.mounted += 1,
            Sent::Uploaded => pushed.uploaded += 1,
        }
        blob.bar.finish_and_clear();
    }
    put_manifest(&client, image, target.tag.as_deref()).await?;
    Ok(pushed)
}

async fn put_manifest(client: &Client, image: &BuiltImage, tag: Option<&str>) -> Result<(), RegistryError> {
    let by_digest = client.at(&format!("manifests/{}", image.manifest_digest))?;
    // The digest goes first: a tag never leads to what is not there by its digest.
    for url in [Some(by_digest.clone()), tag.map(|tag| client.at(&format!("manifests/{tag}"))).transpose()?] {
        let Some(url) = url else { continue };
        let body = Body::Bytes(Bytes::copy_from_slice(image.manifest()));
        let request = Request::new(Method::PUT, url).with(CONTENT_TYPE, manifest::OURS).carrying(body);
        let response = client.send(request).await?;
        if response.status() != 201 {
            return Err(client.unexpected("store the manifest", response).await);
        }
    }
    let response = client.send(Request::new(Method::GET, by_digest).with(ACCEPT, manifest::OURS)).await?;
    if response.status() != 200 {
        return Err(client.unexpected("read the manifest back", response).await);
    }
    let found = Digest::of(&client.body(response, 4 << 20, "manifest").await?);
    if found != image.manifest_digest {
        let (what, wanted) = ("the manifest in the registry".to_owned(), image.manifest_digest.clone());
        return Err(RegistryError::Digest { what, found, wanted });
    }
    Ok(())
}

enum Source {
    File(std::path::PathBuf),
    Bytes(Bytes),
}

enum Sent {
    Present,
    Mounted,
    Uploaded,
}

/// What an upload came to.
enum Step {
    /// All bytes are there; the upload is finished at this address.
    Whole(Url),
    /// So many bytes are there; it goes on at this address.
    Part(Url, u64),
    /// The registry does not know of it any more.
    Lost,
}

struct Blob {
    digest: Digest,
    size: u64,
    source: Source,
    bar: indicatif::ProgressBar,
}

impl Blob {
    async fn send(&self, client: &Client, from: Option<&str>) -> Result<Sent, RegistryError> {
        let there = client.send(Request::new(Method::HEAD, client.at(&format!("blobs/{}", self.digest))?)).await?;
        match there.status().as_u16() {
            200 => return Ok(Sent::Present),
            404 => {}
            _ => return Err(client.unexpected("look for a blob", there).await),
        }
        let Some(mut place) = self.begin(client, from).await? else { return Ok(Sent::Mounted) };
        let mut offset = 0;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let step = match self.patch(client, place.clone(), offset).await {
                Ok(step) => step,
                // The connection broke: the registry knows how much it has.
                Err(RegistryError::Unreachable { source, .. }) => {
                    last = Some(source);
                    self.state(client, place.clone()).await?
                }
                Err(error) => return Err(error),
            };
            (place, offset) = match step {
                Step::Whole(place) => return self.finish(client, place).await,
                Step::Part(place, offset) => (place, offset),
                Step::Lost => match self.begin(client, None).await? {
                    Some(place) => (place, 0),
                    None => return Ok(Sent::Mounted),
                },
            };
        }
        let what = format!("the blob {}", self.digest.short());
        match last {
            Some(source) => Err(RegistryError::Interrupted { what, attempts: ATTEMPTS, source }),
            None => {
                Err(RegistryError::Document { document: "upload", problem: "the registry takes a part of it only" })
            }
        }
    }

    /// Begins an upload, or has the registry take the blob from another repository.
    async fn begin(&self, client: &Client, from: Option<&str>) -> Result<Option<Url>, RegistryError> {
        let mut url = client.at("blobs/uploads/")?;
        if let Some(from) = from {
            url.query_pairs_mut().append_pair("mount", &self.digest.to_string()).append_pair("from", from);
        }
        let response = client.send(Request::new(Method::POST, url.clone())).await?;
        match response.status().as_u16() {
            201 if from.is_some() => Ok(None),
            202 => client.place(&url, &response).map(Some),
            _ => Err(client.unexpected("begin an upload", response).await),
        }
    }

    async fn patch(&self, client: &Client, place: Url, offset: u64) -> Result<Step, RegistryError> {
        let length = self.size - offset;
        let body = match &self.source {
            Source::File(path) => Body::File { path: path.clone(), offset, length, bar: self.bar.clone() },
            Source::Bytes(bytes) => Body::Bytes(bytes.slice(usize::try_from(offset).unwrap_or(usize::MAX)..)),
        };
        let mut request = Request::new(Method::PATCH, place.clone());
        request = request.with(CONTENT_TYPE, "application/octet-stream").carrying(body);
        if offset > 0 {
            // Distribution-spec, "Pushing a blob in chunks": both ends are included, and there is no unit.
            request = request.with(CONTENT_RANGE, format!("{offset}-{}", self.size - 1));
        }
        let response = client.send(request).await?;
        match response.status().as_u16() {
            202 => self.step(client, &place, &response, Some(self.size)),
            // What we hold to be there is not what the registry has.
            404 | 416 => Ok(Step::Lost),
            _ => Err(client.unexpected("upload a blob", response).await),
        }
    }

    async fn state(&self, client: &Client, place: Url) -> Result<Step, RegistryError> {
        let response = client.send(Request::new(Method::GET, place.clone())).await?;
        match response.status().as_u16() {
            202 | 204 => self.step(client, &place, &response, None),
            404 => Ok(Step::Lost),
            _ => Err(client.unexpected("ask how far an upload is", response).await),
        }
    }

    /// `silent` is what an answer without a count means.
    fn step(
        &self,
        client: &Client,
        place: &Url,
        response: &Response,
        silent: Option<u64>,
    ) -> Result<Step, RegistryError> {
        let next = client.place(place, response)?;
        match received(response.headers().get(RANGE).and_then(|value| value.to_str().ok())).or(silent) {
            None => Ok(Step::Lost),
            Some(count) if count == self.size => Ok(Step::Whole(next)),
            Some(count) if count < self.size => Ok(Step::Part(next, count)),
            Some(_) => {
                let problem = "the registry has more of it than there is";
                Err(RegistryError::Document { document: "upload", problem })
            }
        }
    }

    async fn finish(&self, client: &Client, mut place: Url) -> Result<Sent, RegistryError> {
        place.query_pairs_mut().append_pair("digest", &self.digest.to_string());
        let response = client.send(Request::new(Method::PUT, place)).await?;
        if response.status() != 201 {
            return Err(client.unexpected("finish an upload", response).await);
        }
        let told = response.headers().get(HeaderName::from_static("docker-content-digest"));
        match told.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok()) {
            Some(found) if found != self.digest => {
                let what = "the blob in the registry".to_owned();
                Err(RegistryError::Digest { what, found, wanted: self.digest.clone() })
            }
            _ => Ok(Sent::Uploaded),
        }
    }
}

/// How many bytes are there by the header `Range: 0-LAST`. Registries say `0-0` for nothing as well as for one byte;
/// nothing is the safe reading.
fn received(range: Option<&str>) -> Option<u64> {
    let last: u64 = range?.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_far_an_upload_is() {
        assert_eq!(received(Some("0-1023")), Some(1024));
        assert_eq!(received(Some("bytes=0-9")), Some(10));
        assert_eq!(received(Some("0-0")), Some(0));
        assert_eq!((received(Some("5-9")), received(None), received(Some("0-"))), (None, None, None));
    }
}
