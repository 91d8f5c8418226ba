//! Images of the engine: loading an archive of ours, and what an image would bring into a container.

use std::collections::BTreeMap;

use bollard::models::ImageInspect;
use bollard::query_parameters::{ImportImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions};
use futures_util::TryStreamExt;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::error::{EngineError, Kind, optional};
use super::{CALL_LIMIT, Engine, LOAD_LIMIT, label_filter, transport};

/// An image, as far as containers depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The id by which this engine knows it, `sha256:…`.
    pub id: String,
    /// Size in bytes.
    pub size: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Variables that it sets.
    pub environment: BTreeMap<String, String>,
    /// Folders that it declares as volumes.
    pub volumes: Vec<String>,
    /// The user that it names, if any.
    pub user: String,
    /// Digests of its unpacked layers, from the bottom up.
    pub diff_ids: Vec<String>,
    /// When it was made, by its own account (RFC 3339).
    pub created: Option<String>,
}

impl ImageSummary {
    fn from_api(image: ImageInspect) -> Result<Self, EngineError> {
        let config = image.config.unwrap_or_default();
        let environment = config.env.unwrap_or_default();
        Ok(Self {
            id: image.id.ok_or(EngineError::AnswerIncomplete { call: "inspect an image", field: "Id" })?,
            size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            environment: environment
                .iter()
                .map(|variable| variable.split_once('=').unwrap_or((variable, "")))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            volumes: config.volumes.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            diff_ids: image.root_fs.and_then(|layers| layers.layers).unwrap_or_default(),
            created: image.created,
        })
    }
}

impl Engine {
    /// Loads the images of an archive (`docker save` or OCI layout, as a tar).
    ///
    /// # Errors
    ///
    /// When the archive cannot be read or the engine refuses it.
    pub async fn load_image(&self, archive: impl AsyncRead + Send + Unpin + 'static) -> Result<(), EngineError> {
        const CALL: &str = "load an image";
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        let progress =
            self.client().import_image_stream(options, ReaderStream::with_capacity(archive, 256 << 10), None);
        transport::within(CALL, LOAD_LIMIT, progress.try_for_each(async |_| Ok(())))
            .await?
            .map_err(|error| EngineError::from_client(CALL, error))
    }

    /// The image of this id or reference, if the engine has it.
    pub async fn image(&self, reference: &str) -> Result<Option<ImageSummary>, EngineError> {
        check_reference(reference)?;
        let answer = self.call("inspect an image", CALL_LIMIT, self.client().inspect_image(reference)).await;
        optional(answer)?.map(ImageSummary::from_api).transpose()
    }

    /// The image of this id or reference.
    pub(super) async fn required_image(&self, reference: &str) -> Result<ImageSummary, EngineError> {
        let missing = || EngineError::NotFound { kind: Kind::Image, name: reference.to_owned() };
        self.image(reference).await?.ok_or_else(missing)
    }

    /// Gives an image a name by which a Dockerfile can be based on it, and gives the name.
    ///
    /// An id is none for BuildKit, nor is a digest where a graph driver keeps images. The name says what the image is, so it
    /// stays: nobody else gives it to another one. No registry has it (RFC 2606, section 2), so no engine pulls it.
    ///
    /// # Errors
    ///
    /// When the engine has no such image.
    pub async fn name_base(&self, id: &str, digest: &str) -> Result<String, EngineError> {
        const REPOSITORY: &str = "sandbox.invalid/base";
        check_reference(id)?;
        let tag = digest.rsplit(':').next().unwrap_or_default();
        let name = format!("{REPOSITORY}:{tag}");
        check_reference(&name)?;
        let options = TagImageOptions { repo: Some(REPOSITORY.to_owned()), tag: Some(tag.to_owned()) };
        let tagged = self.client().tag_image(id, Some(options));
        let tagged = self.call("name an image", CALL_LIMIT, tagged).await;
        tagged.map_err(|error| error.missing(Kind::Image, id))?;
        match self.required_image(&name).await?.id == id {
            true => Ok(name),
            false => Err(EngineError::NameTaken { kind: Kind::Image, name }),
        }
    }

    /// All images with these labels (`key=value` or `key`).
    pub async fn images(&self, labels: &[String]) -> Result<Vec<ImageSummary>, EngineError> {
        let options = ListImagesOptions { filters: label_filter(labels), ..ListImagesOptions::default() };
        let listed = self.call("list images", CALL_LIMIT, self.client().list_images(Some(options))).await?;
        let mut images = Vec::with_capacity(listed.len());
        for image in listed {
            // One that was removed in between is not listed.
            images.extend(self.image(&image.id).await?);
        }
        Ok(images)
    }

    /// Removes an image. That there is none is fine.
    ///
    /// # Errors
    ///
    /// [`EngineError::InUse`] when a container still uses it.
    pub async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        check_reference(id)?;
        let options = RemoveImageOptions::default();
        let answer =
            self.call("remove an image", CALL_LIMIT, self.client().remove_image(id, Some(options), None)).await;
        match optional(answer) {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(409) => {
                Err(EngineError::InUse { kind: Kind::Image, name: id.to_owned() })
            }
            Err(error) => Err(error),
        }
    }
}

/// Refuses what would be more than one step of a path in a request, or no reference at all.
pub(super) fn check_reference(reference: &str) -> Result<(), EngineError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@".contains(&byte);
    let fits = !reference.is_empty()
        && reference.len() <= 400
        && reference.bytes().all(known)
        && reference.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if fits {
        Ok(())
    } else {
        Err(EngineError::NameInvalid { kind: Kind::Image, name: reference.chars().take(100).collect() })
    }
}
