//! Builds of Dockerfiles: by the engine's own builder, without its cache, with no more than the files that are sent, and
//! with nothing left of them but the image until that has been taken over.

use std::collections::{BTreeMap, HashMap};

use bollard::query_parameters::{BuildImageOptions, BuilderVersion, RemoveImageOptions};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::error::{EngineError, Refusal, optional};
use super::image::check_reference;
use super::{BUILD_LIMIT, CALL_LIMIT, Engine, LOAD_LIMIT, transport};

/// Lines of a build that are kept to tell why it failed.
const KEPT: usize = 20;
/// Stages of one Dockerfile, and images in the chain of one.
const IMAGES: usize = 1000;

/// How a Dockerfile is built.
#[derive(Debug, Clone)]
pub struct BuildSpec {
    /// Its path in the files that are sent.
    pub dockerfile: String,
    /// Whether its steps have a network.
    pub network: bool,
    /// Values of ARG.
    pub arguments: BTreeMap<String, String>,
    /// Ids of the images that it is based on, which stay.
    pub bases: Vec<String>,
}

/// A build that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The id of the image.
    pub id: String,
    /// The ids of its stages' images, the last included.
    stages: Vec<String>,
    bases: Vec<String>,
}

impl Engine {
    /// Builds a Dockerfile from a tar of files. `line` is told what the builder says.
    ///
    /// # Errors
    /// When a step fails, with the last lines that the builder said.
    pub async fn build_image(
        &self,
        files: impl AsyncRead + Send + Unpin + 'static,
        spec: &BuildSpec,
        line: &(dyn Fn(&str) + Sync),
    ) -> Result<Build, EngineError> {
        const CALL: &str = "build an image";
        let options = BuildImageOptions {
            dockerfile: spec.dockerfile.clone(),
            // What the cache has was perhaps made of other files, and nobody has compared it with anything.
            nocache: true,
            rm: true,
            forcerm: true,
            networkmode: Some(if spec.network { "bridge" } else { "none" }.to_owned()),
            buildargs: Some(spec.arguments.clone().into_iter().collect::<HashMap<_, _>>()),
            version: BuilderVersion::BuilderV1,
            ..BuildImageOptions::default()
        };
        let body = bollard::body_try_stream(ReaderStream::with_capacity(files, 256 << 10));
        let mut kept: Vec<String> = Vec::new();
        let mut stages: Vec<String> = Vec::new();
        let mut step = None;
        let said = async {
            let mut answers = std::pin::pin!(self.client().build_image(options, None, Some(body)));
            while let Some(answer) = answers.next().await {
                let answer = answer?;
                if let Some(id) = answer.aux.and_then(|aux| aux.id).filter(|_| stages.len() < IMAGES) {
                    stages.push(id);
                }
                for text in answer.stream.iter().flat_map(|text| text.lines()).filter(|text| !text.trim().is_empty()) {
                    // The classic builder has what a step says on standard error in red.
                    let text = text.replace("\u{1b}[91m", "").replace("\u{1b}[0m", "");
                    let text = Refusal::new(&text).as_str().to_owned();
                    if text.is_empty() {
                        continue;
                    }
                    // So the classic builder names the image of each step; a failed stage has no other.
                    let id = text.strip_prefix("---> ").filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
                    if let Some(id) = id {
                        step = Some(id.to_owned());
                    }
                    line(&text);
                    if kept.len() == KEPT {
                        kept.remove(0);
                    }
                    kept.push(text);
                }
            }
            Ok::<_, bollard::errors::Error>(())
        };
        let ended = transport::within(CALL, BUILD_LIMIT, said).await;
        let failed = match ended {
            Ok(Ok(())) => match stages.last() {
                Some(id) => return Ok(Build { id: id.clone(), bases: spec.bases.clone(), stages }),
                None => EngineError::AnswerIncomplete { call: CALL, field: "aux.ID" },
            },
            Ok(Err(error)) => match EngineError::from_client(CALL, error) {
                EngineError::Api { source, .. } => EngineError::BuildFailed { output: kept.join("\n"), source },
                error => error,
            },
            Err(error) => error,
        };
        stages.extend(step);
        self.discard_build(&Build { id: String::new(), stages, bases: spec.bases.clone() }).await?;
        Err(failed)
    }

    /// Removes the images of a build and of its steps, and nothing that it was based on.
    ///
    /// # Errors
    /// When the engine does not answer. An image that is in use stays.
    pub async fn discard_build(&self, build: &Build) -> Result<(), EngineError> {
        for stage in build.stages.iter().rev() {
            for id in self.own_steps(stage, &build.bases).await? {
                // Not pruned: below the steps is an image that may have no name, and that others use.
                let options = RemoveImageOptions { noprune: true, ..RemoveImageOptions::default() };
                let removed = self.client().remove_image(&id, Some(options), None);
                match optional(self.call("remove an image", CALL_LIMIT, removed).await) {
                    Ok(_) => {}
                    // Another stage is based on it, or a container; the former is removed in its turn.
                    Err(error) if error.status() == Some(409) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The ids of an image and of the steps that made it, from the last to the first, down to one that is to be kept.
    async fn own_steps(&self, id: &str, keep: &[String]) -> Result<Vec<String>, EngineError> {
        check_reference(id)?;
        let history = self.call("read an image's history", CALL_LIMIT, self.client().image_history(id)).await;
        let ids = optional(history)?.unwrap_or_default().into_iter().map(|step| step.id).take(IMAGES);
        // An image that was loaded says `<missing>` for what is below it.
        Ok(ids.take_while(|id| id.starts_with("sha256:") && !keep.contains(id)).collect())
    }

    /// Writes an image as `docker save` does, `limit` bytes at most.
    ///
    /// # Errors
    /// When there is none, it is larger, or it cannot be written.
    pub async fn save_image(
        &self,
        id: &str,
        output: &mut (impl AsyncWrite + Unpin),
        limit: u64,
    ) -> Result<u64, EngineError> {
        const CALL: &str = "save an image";
        check_reference(id)?;
        let copied = async {
            let mut size = 0_u64;
            let mut parts = std::pin::pin!(self.client().export_image(id));
            while let Some(part) = parts.try_next().await.map_err(|error| EngineError::from_client(CALL, error))? {
                size += part.len() as u64;
                if size > limit {
                    return Err(EngineError::SavedTooLarge { limit });
                }
                output.write_all(&part).await.map_err(EngineError::SavedUnwritten)?;
            }
            output.flush().await.map_err(EngineError::SavedUnwritten)?;
            Ok(size)
        };
        transport::within(CALL, LOAD_LIMIT, copied).await?
    }
}
