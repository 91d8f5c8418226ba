//! A Dockerfile of the project as something that an engine may build: well pinned, with the images that it is based on and
//! the paths that it takes from the context. It runs nothing and asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use parse_dockerfile::Span;

use super::{DockerfileError, Finding, LIMIT, Severity, read};
use crate::beneath::{self, Links, Opened};
use crate::image::error::{ImageError, at};
use crate::image::reference::{Digest, ImageChoice, PinnedImage};
use crate::image::registry::name::{TaggedImage, split_tag};
use crate::image::{definition, dockerfile};

/// An image that a Dockerfile is built on, or copies from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// A definition of the project, or a built-in one, which its lock pins.
    Definition(String),
    /// An image of a registry.
    Pinned(PinnedImage),
}

/// A Dockerfile that may be built.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Its name at the project's root.
    pub name: String,
    /// Digest of the text.
    pub digest: Digest,
    /// The images that it names, by what it writes.
    pub bases: BTreeMap<String, Base>,
    /// What the last stage is based on in the end; none is `scratch`.
    pub last: Option<String>,
    /// The paths that COPY and ADD take from the context.
    pub sources: Vec<String>,
    text: String,
    uses: Vec<(Span, String)>,
}

impl Recipe {
    /// Reads a Dockerfile at the root of a project; `tags` are the images of registries that stand for one of a digest.
    ///
    /// # Errors
    /// When there is none, or a line of it is not to be built.
    pub fn load(name: &str, root: &Path, tags: &BTreeMap<String, PinnedImage>) -> Result<Self, ImageError> {
        let text = text(name, root)?;
        let images = definition::names(Some(root)).into_iter().collect();
        Self::parse(name, text, &images, tags).map_err(ImageError::Dockerfile)
    }

    /// The images with a tag and without a digest that a Dockerfile at the root of a project names.
    ///
    /// # Errors
    /// When there is none, or it is not one.
    pub fn tags(name: &str, root: &Path) -> Result<BTreeMap<String, TaggedImage>, ImageError> {
        let text = text(name, root)?;
        let images = definition::names(Some(root)).into_iter().collect();
        let uses = read(&text, &images).map_err(ImageError::Dockerfile)?.uses;
        let named = uses.images.into_iter().map(|used| used.image).filter(|image| !images.contains(image));
        Ok(named.filter_map(|image| Some((image.clone(), image.parse().ok()?))).collect())
    }
    /// Reads a text; `images` are the names that stand for an image which a lock pins, `tags` the images of registries that
    /// do.
    ///
    /// # Errors
    /// When it is not a Dockerfile, or a line of it is not to be built.
    pub fn parse(
        name: &str,
        text: String,
        images: &BTreeSet<String>,
        tags: &BTreeMap<String, PinnedImage>,
    ) -> Result<Self, DockerfileError> {
        let known = images.iter().chain(tags.keys()).cloned().collect();
        let reader = read(&text, &known)?;
        let errors = reader.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let first = reader.uses.limits.iter().chain(errors).min_by_key(|finding| finding.span.start);
        if let Some(Finding { line, column, message, rule, remedy, .. }) = first.cloned() {
            return Err(DockerfileError::Refused { line, column, said: message, rule, remedy });
        }
        let mut bases = BTreeMap::new();
        for used in &reader.uses.images {
            let base = match (images.contains(&used.image), tags.get(&used.image)) {
                (true, _) => Base::Definition(used.image.clone()),
                (false, Some(pinned)) => Base::Pinned(pinned.clone()),
                (false, None) => Base::Pinned(pinned(&used.image).ok_or_else(|| DockerfileError::Form {
                    line: 1,
                    column: 1,
                    said: format!("`{}` is not an image with a digest", super::shown(&used.image)),
                })?),
            };
            bases.insert(used.image.clone(), base);
        }
        let last = reader.uses.bases.last().copied().flatten();
        let last = last.and_then(|index| reader.uses.images.get(index)).map(|used| used.image.clone());
        let sources = reader.uses.sources.iter().map(|(path, _)| path.clone()).collect();
        let uses = reader.uses.images.into_iter().map(|used| (used.span, used.image)).collect();
        let digest = Digest::of(text.as_bytes());
        Ok(Self { name: name.to_owned(), digest, bases, last, sources, text, uses })
    }

    /// The digest that stands for an image which is named by a tag.
    pub fn tagged(&self, written: &str) -> Option<&Digest> {
        match self.bases.get(written) {
            Some(Base::Pinned(pinned)) if !written.contains('@') => Some(&pinned.digest),
            _ => None,
        }
    }

    /// The text with the names that an engine has for the images: `names` has that of each base.
    pub fn with_names(&self, names: &BTreeMap<String, String>) -> String {
        let mut text = self.text.clone();
        let mut uses: Vec<_> = self.uses.iter().collect();
        uses.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        for (span, image) in uses {
            if let (Some(name), true) = (names.get(image), text.get(span.clone()).is_some()) {
                text.replace_range(span.clone(), name);
            }
        }
        text
    }
}

/// The text of a Dockerfile at the root of a project.
fn text(name: &str, root: &Path) -> Result<String, ImageError> {
    let path = root.join(name);
    if !dockerfile::is_name(name) {
        return Err(ImageError::UnknownImage(name.to_owned()));
    }
    let folder = beneath::folder(root).map_err(at(root))?;
    let mut bytes = Vec::new();
    match beneath::open(&folder, Path::new(name), Links::Refused) {
        Ok(Opened::File(file, _)) => file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(at(&path))?,
        Ok(_) => return Err(at(&path)(std::io::ErrorKind::InvalidInput.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ImageError::UnknownImage(name.to_owned()));
        }
        Err(error) => return Err(at(&path)(error)),
    };
    let form = |said: &str| DockerfileError::Form { line: 1, column: 1, said: said.to_owned() };
    if bytes.len() as u64 > LIMIT {
        return Err(ImageError::Dockerfile(form("it is larger than any Dockerfile")));
    }
    String::from_utf8(bytes).map_err(|_| ImageError::Dockerfile(form("it is not UTF-8 text")))
}

/// An image as Docker writes it, `NAME[:TAG]@DIGEST`: the tag says nothing beside a digest.
fn pinned(text: &str) -> Option<PinnedImage> {
    let (name, digest) = text.split_once('@')?;
    match format!("{}@{digest}", split_tag(name).0).parse() {
        Ok(ImageChoice::Pinned(pinned)) => Some(pinned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "debian:12@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn recipe(text: &str) -> Result<Recipe, DockerfileError> {
        let images = BTreeSet::from(["agent".to_owned()]);
        let digest = Digest::of(b"x");
        let tags = BTreeMap::from([("node:22".to_owned(), PinnedImage { repository: "node".to_owned(), digest })]);
        Recipe::parse("Dockerfile.agent", text.replace("PIN", PIN), &images, &tags)
    }

    #[test]
    fn tells_what_a_build_takes_in_and_what_is_below_the_last_stage() {
        let found = recipe(
            "ARG A=PIN\nFROM $A AS tools\nCOPY a.txt b/*.txt /x/\nFROM tools AS more\nFROM agent AS Last\n\
             COPY --from=tools /x /y\nCOPY --from=PIN /x /z\nADD c.tar /\nFROM last\n",
        )
        .unwrap();
        assert_eq!(found.last.as_deref(), Some("agent"));
        assert_eq!(found.sources, ["a.txt", "b/*.txt", "c.tar"]);
        assert_eq!(found.bases.keys().collect::<Vec<_>>(), ["agent", PIN]);
        assert_eq!(found.bases["agent"], Base::Definition("agent".into()));
        let Base::Pinned(pinned) = &found.bases[PIN] else { panic!("not pinned") };
        assert_eq!(pinned.repository, "debian");
        let tagged = recipe("FROM node:22\n").unwrap();
        assert_eq!(tagged.last.as_deref(), Some("node:22"));
        let Base::Pinned(pinned) = &tagged.bases["node:22"] else { panic!("not pinned") };
        assert_eq!((pinned.repository.as_str(), &pinned.digest), ("node", &Digest::of(b"x")));
        assert_eq!(recipe("FROM PIN AS a\nFROM scratch\n").unwrap().last, None);
        assert_eq!(recipe("FROM PIN AS a\nFROM a\n").unwrap().last.as_deref(), Some(PIN));
    }

    #[test]
    fn writes_the_engines_names_where_the_images_were_named() {
        let found = recipe("FROM agent AS a\n# agent\nFROM PIN\nCOPY --from=agent /agent /b\n").unwrap();
        let ids =
            BTreeMap::from([("agent".to_owned(), "sha256:1".to_owned()), (PIN.to_owned(), "sha256:22".to_owned())]);
        assert_eq!(
            found.with_names(&ids),
            "FROM sha256:1 AS a\n# agent\nFROM sha256:22\nCOPY --from=sha256:1 /agent /b\n"
        );
    }

    #[test]
    fn refuses_what_is_not_pinned_and_what_it_does_not_have_built_with_the_line() {
        for (text, line, rule) in [
            ("FROM debian\n", 1, "unpinned"),
            ("FROM node:23\n", 1, "unpinned"),
            ("FROM agent\nADD https://h/x /x\n", 2, "launcher"),
            ("# syntax=docker/PIN\nFROM agent\n", 1, "launcher"),
            ("FROM agent\nADD --checksum=sha256:HEX https://h/x /x\n", 2, "launcher"),
            ("FROM agent\nARG X=a\nCOPY $X /x\n", 3, "launcher"),
            ("FROM agent\nRUN --network=host id\n", 2, "launcher"),
            ("FROM agent\nRUN --mount=type=secret,id=a id\n", 2, "launcher"),
            ("FROM --platform=linux/arm64 agent\n", 1, "launcher"),
            ("FROM agent\nRUN <<E\nid\nE\n", 2, "launcher"),
            ("FROM agent\nCOPY <<E /x\nid\nE\n", 2, "launcher"),
            ("FROM agent\nONBUILD RUN id\n", 2, "launcher"),
            ("FROM agent\nVOLUME /x\n", 2, "volume"),
            ("FROM agent\nUSER 1000\nWORKDIR /a\n", 3, "launcher"),
            ("FROM agent\nADD --chown=1:1 a.tar /a\n", 2, "launcher"),
            ("FROM agent\nCOPY --chmod=755 a /a\n", 2, "launcher"),
            ("FROM agent\nCOPY --link a /a\n", 2, "launcher"),
            ("FROM agent\nRUN --mount=type=cache,target=/c id\n", 2, "launcher"),
            ("FROM agent\nCOPY --from=nginx a /a\n", 2, "unpinned"),
            ("FROM agent\nRUN --mount=from=nginx,target=/c id\n", 2, "launcher"),
        ] {
            match recipe(&text.replace("HEX", &"ab".repeat(32))) {
                Err(DockerfileError::Refused { line: at, rule: by, .. }) => {
                    assert_eq!((at, by), (line, rule), "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
