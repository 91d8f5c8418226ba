//! Builds of Dockerfiles: by one of the engine's own builders, without its cache, with no more than the files that are
//! sent, and with nothing left of them but the image until that has been taken over.
//!
//! Both builders get the files in the body of the request. BuildKit could ask for more over a session, which is a channel
//! back to whoever builds: for logins, keys, files. There is none here, so there is nothing that it could ask.

use std::collections::BTreeMap;

use bollard::query_parameters::RemoveImageOptions;
use futures_util::TryStreamExt as _;
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::{ReaderStream, StreamReader};

use super::buildkit::{Cache, Trace};
use super::error::{EngineError, Refusal, optional};
use super::image::check_reference;
use super::{BUILD_LIMIT, CALL_LIMIT, Engine, LOAD_LIMIT, transport};

/// Lines of a build that are kept to tell why it failed.
const KEPT: usize = 20;
/// Stages of one Dockerfile, and images in the chain of one.
const IMAGES: usize = 1000;
/// Bytes of one message of a builder.
const MESSAGE: usize = 16 << 20;

/// Who runs the steps. What is made of the result is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// The one that every engine has had, now deprecated.
    Classic,
    /// The one that newer engines offer.
    BuildKit,
}

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
    /// Who builds.
    pub builder: Builder,
}

/// A build that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The id of the image.
    pub id: String,
    builder: Builder,
    /// The ids of its stages' images, the last included.
    stages: Vec<String>,
    bases: Vec<String>,
    /// What BuildKit's cache had before.
    cache: Option<Cache>,
}

/// A message of a builder: of the classic one (`stream`), of BuildKit (`id` and `aux`), or that it failed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    id: Option<String>,
    stream: Option<String>,
    aux: Option<serde_json::Value>,
    error: Option<String>,
}

/// What is known of a build while it runs.
#[derive(Debug, Default)]
struct Progress {
    kept: Vec<String>,
    stages: Vec<String>,
    /// The image of the last step, by the classic builder.
    step: Option<String>,
    trace: Trace,
}

impl Engine {
    /// The builder to use: the one that is asked for, or the one that this engine names as its own choice.
    ///
    /// # Errors
    /// When the one that is asked for cannot be used on this engine.
    pub async fn builder(&self, wanted: Option<Builder>) -> Result<Builder, EngineError> {
        if wanted == Some(Builder::Classic) {
            return Ok(Builder::Classic);
        }
        if wanted.is_none() {
            // https://docs.docker.com/reference/api/engine/version/v1.44/#tag/System/operation/SystemPing
            let path = self.path("/_ping");
            let offered =
                transport::header(&self.inner.address, "ask for the builder", &path, "builder-version").await?;
            if offered.as_deref() != Some("2") {
                return Ok(Builder::Classic);
            }
        }
        // Before 27.5, BuildKit on the containerd store looks for files that were sent at a name in the network
        // (https://github.com/moby/moby/pull/49194).
        let broken = version_of(&self.info().version).is_none_or(|version| version < (27, 5));
        match (broken && self.system().await?.containerd_store, wanted) {
            (false, _) => Ok(Builder::BuildKit),
            (true, None) => Ok(Builder::Classic),
            (true, Some(_)) => Err(EngineError::BuilderAbsent { version: self.info().version.clone() }),
        }
    }

    /// Builds a Dockerfile from a tar of files. `step` is told the name of each step that begins.
    ///
    /// # Errors
    /// When a step fails, with the last lines that the builder said.
    pub async fn build_image(
        &self,
        files: impl AsyncRead + Send + 'static,
        spec: &BuildSpec,
        step: &(dyn Fn(&str) + Sync),
    ) -> Result<Build, EngineError> {
        const CALL: &str = "build an image";
        let cache = match spec.builder {
            Builder::Classic => None,
            Builder::BuildKit => Some(self.build_cache().await?),
        };
        let path = self.path(&format!("/build?{}", query(spec)));
        let mut progress = Progress::default();
        let said = async {
            let files = ReaderStream::with_capacity(files, 256 << 10);
            let answer = transport::upload(&self.inner.address, CALL, &path, files).await?;
            let broken = |source| EngineError::Transport { call: CALL, source };
            let bytes = StreamReader::new(answer.into_data_stream().map_err(std::io::Error::other));
            let mut lines = FramedRead::new(bytes, LinesCodec::new_with_max_length(MESSAGE));
            while let Some(line) = lines.try_next().await.map_err(|error| broken(Box::new(error)))? {
                if line.trim().is_empty() {
                    continue;
                }
                let message: Message = serde_json::from_str(&line).map_err(|error| broken(Box::new(error)))?;
                if let Some(error) = message.error {
                    return Err(EngineError::Api { call: CALL, status: 0, source: Refusal::new(&error) });
                }
                progress.take(message, step);
            }
            Ok(())
        };
        let failed = match transport::within(CALL, BUILD_LIMIT, said).await {
            Ok(Ok(())) => match progress.stages.last() {
                Some(id) => {
                    let (id, bases) = (id.clone(), spec.bases.clone());
                    return Ok(Build { id, builder: spec.builder, bases, stages: progress.stages, cache });
                }
                None => EngineError::AnswerIncomplete { call: CALL, field: "aux.ID" },
            },
            Ok(Err(EngineError::Api { source, .. })) => {
                EngineError::BuildFailed { output: progress.kept.join("\n"), source }
            }
            Ok(Err(error)) | Err(error) => error,
        };
        let mut stages = progress.stages;
        stages.extend(progress.step);
        let (builder, bases) = (spec.builder, spec.bases.clone());
        self.discard_build(&Build { id: String::new(), builder, stages, bases, cache }).await?;
        Err(failed)
    }

    /// Removes the images of a build and of its steps, what BuildKit's cache has of it, and nothing that it was based on.
    ///
    /// # Errors
    /// When the engine does not answer. An image that is in use stays.
    pub async fn discard_build(&self, build: &Build) -> Result<(), EngineError> {
        for stage in build.stages.iter().rev() {
            let ids = match build.builder {
                Builder::Classic => self.own_steps(stage, &build.bases).await?,
                // It makes no image of a step, and a Dockerfile that changes nothing gives its base.
                Builder::BuildKit if build.bases.contains(stage) => Vec::new(),
                Builder::BuildKit => vec![stage.clone()],
            };
            for id in ids {
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
        match &build.cache {
            Some(before) => self.forget_since(before).await,
            None => Ok(()),
        }
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

impl Progress {
    fn take(&mut self, message: Message, step: &dyn Fn(&str)) {
        match (message.id.as_deref(), message.aux) {
            (Some("moby.buildkit.trace"), Some(aux)) => {
                for line in self.trace.read(aux.as_str().unwrap_or_default()) {
                    let text = Refusal::new(line.text());
                    if line.is_step() {
                        step(text.as_str());
                    }
                    self.keep(text);
                }
            }
            (_, Some(aux)) => {
                let id = aux.get("ID").and_then(|id| id.as_str());
                if let Some(id) = id.filter(|id| check_reference(id).is_ok() && self.stages.len() < IMAGES) {
                    self.stages.push(id.to_owned());
                }
            }
            _ => {}
        }
        for text in message.stream.iter().flat_map(|text| text.lines()) {
            // The classic builder has what a step says on standard error in red.
            let text = Refusal::new(&text.replace("\u{1b}[91m", "").replace("\u{1b}[0m", ""));
            // So it names the image of each step; a failed stage has no other.
            let id = text.as_str().strip_prefix("---> ");
            if let Some(id) = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
                self.step = Some(id.to_owned());
            }
            if text.as_str().starts_with("Step ") {
                step(text.as_str());
            }
            self.keep(text);
        }
    }

    fn keep(&mut self, text: Refusal) {
        if text.as_str().is_empty() {
            return;
        }
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(text.as_str().to_owned());
    }
}

/// The parameters of a build (<https://docs.docker.com/reference/api/engine/version/v1.44/#tag/Image/operation/ImageBuild>).
fn query(spec: &BuildSpec) -> String {
    let arguments = serde_json::json!(spec.arguments).to_string();
    let parameters = [
        ("dockerfile", spec.dockerfile.as_str()),
        ("buildargs", &arguments),
        ("networkmode", if spec.network { "default" } else { "none" }),
        // What the cache has was perhaps made of other files, and nobody has compared it with anything.
        ("nocache", "1"),
        ("rm", "1"),
        ("forcerm", "1"),
        ("version", if spec.builder == Builder::BuildKit { "2" } else { "1" }),
    ];
    let encoded = parameters.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    encoded.join("&")
}

/// The first two numbers of a version such as `26.1.5+dfsg1`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_asks_for_no_cache_and_no_network() {
        let mut spec = BuildSpec {
            dockerfile: ".sandbox".into(),
            network: false,
            arguments: BTreeMap::from([("A".into(), "1&b".into())]),
            bases: Vec::new(),
            builder: Builder::BuildKit,
        };
        let asked = query(&spec);
        for part in ["networkmode=none", "nocache=1", "version=2", "dockerfile=%2Esandbox"] {
            assert!(asked.split('&').any(|found| found == part), "{part}: {asked}");
        }
        assert!(asked.contains("buildargs=%7B%22A%22%3A%221%26b%22%7D"), "{asked}");
        (spec.network, spec.builder) = (true, Builder::Classic);
        assert!(query(&spec).contains("networkmode=default") && query(&spec).ends_with("version=1"));
    }

    #[test]
    fn a_version_is_read_as_distributions_write_it() {
        assert_eq!(version_of("26.1.5+dfsg1"), Some((26, 1)));
        assert_eq!(version_of("28.0-rc.1"), Some((28, 0)));
        assert_eq!(version_of("dev"), None);
    }

    #[test]
    fn the_last_lines_are_kept_without_colours_and_steps_are_told() {
        let steps = std::sync::Mutex::new(Vec::new());
        let step = |text: &str| steps.lock().unwrap().push(text.to_owned());
        let mut progress = Progress::default();
        let stream = |text: &str| Message { stream: Some(text.to_owned()), ..Message::default() };
        progress.take(stream("Step 1/2 : RUN x\n"), &step);
        progress.take(stream(" ---> 0123abcd\n\u{1b}[91mwrong\u{1b}[0m\n"), &step);
        assert_eq!(progress.kept, ["Step 1/2 : RUN x", "---> 0123abcd", "wrong"]);
        assert_eq!((progress.step.as_deref(), steps.lock().unwrap().len()), (Some("0123abcd"), 1));
        for number in 0..50 {
            progress.take(stream(&format!("{number}\n")), &step);
        }
        assert_eq!((progress.kept.len(), progress.kept[0].as_str()), (KEPT, "30"));
        let aux = |id: Option<&str>, aux| Message { id: id.map(str::to_owned), aux: Some(aux), ..Message::default() };
        progress.take(aux(Some("moby.image.id"), serde_json::json!({"ID": "sha256:aa"})), &step);
        progress.take(aux(None, serde_json::json!({"ID": "sha256:aa?force=1"})), &step);
        progress.take(aux(Some("moby.buildkit.trace"), serde_json::json!("not base64!")), &step);
        assert_eq!(progress.stages, ["sha256:aa"]);
    }
}
