//! An image as an engine gives it away (`docker save`): its configuration and its layers, each with the digest that the
//! configuration says. It is read where it lies and nothing of it is unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::dockerfile::lock::RunSettings;
use super::reference::{Digest, Hasher};

/// Entries of an archive.
const ENTRIES: usize = 10_000;
/// Bytes of a document in it.
const DOCUMENT: u64 = 4 << 20;
/// Bytes of a layer, unpacked.
const LAYER: u64 = 16 << 30;

/// Why an engine's image cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// Not to be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// A part is missing.
    #[error("it has no `{}`", .0.escape_debug())]
    Absent(String),
    /// A document in it is not of the form.
    #[error("`{name}` in it is not valid")]
    Document {
        /// Which one.
        name: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A layer has other bytes than the configuration says.
    #[error("its layer {0} is not what its configuration says")]
    Layer(usize),
    /// It is not on the base that the Dockerfile names.
    #[error("its lowest layers are not those of the base")]
    Base,
    /// More than anybody has.
    #[error("it is larger than allowed")]
    Size,
    /// A path of a layer that cannot be written.
    #[error("the path `{}` in it is not allowed", .0.escape_debug())]
    Path(String),
    /// A device, a pipe and the like.
    #[error("`{}` in it is neither a file, a folder nor a link", .0.escape_debug())]
    Special(String),
    /// A variable twice, or without a name.
    #[error("its environment is not valid")]
    Environment,
    /// Steps that are for later builds.
    #[error("it has steps for builds that are based on it (ONBUILD)")]
    OnBuild,
}

/// A stretch of a file as a file of its own.
#[derive(Debug, Clone)]
pub struct Section {
    /// The file.
    pub file: Arc<File>,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
    position: u64,
}

impl Section {
    /// A stretch of a file.
    pub fn new(file: Arc<File>, start: u64, length: u64) -> Self {
        Self { file, start, length, position: 0 }
    }

    /// A whole file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self::new(Arc::new(file), 0, length))
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.position);
        let limit = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..limit], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// A configuration, as far as it matters here (image-spec, config.md; names in other letters are Docker's own).
#[derive(Debug, Deserialize)]
struct Document {
    config: Option<Run>,
    rootfs: Root,
}

#[derive(Debug, Deserialize)]
struct Root {
    diff_ids: Vec<Digest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    on_build: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    config: String,
    layers: Vec<String>,
}

/// An image of an engine.
#[derive(Debug)]
pub struct Saved {
    /// What it says of commands.
    pub run: RunSettings,
    /// Digest of each layer, the lowest first.
    pub diff_ids: Vec<Digest>,
    layers: Vec<Section>,
}

impl Saved {
    /// Reads the one image of an archive.
    ///
    /// # Errors
    /// When it is not such an archive.
    pub fn read(file: File) -> Result<Self, SavedError> {
        let file = Arc::new(file);
        let whole = Section::new(file.clone(), 0, file.metadata()?.len());
        let parts = index(whole)?;
        let find = |name: &str| -> Result<Section, SavedError> {
            let absent = || SavedError::Absent(name.chars().take(200).collect());
            let (start, length) = match parts.get(name).ok_or_else(absent)? {
                Item::Stretch(start, length) => (*start, *length),
                // Older engines write a layer that is there twice as a link to the first.
                Item::Link(target) => match parts.get(target).ok_or_else(absent)? {
                    Item::Stretch(start, length) => (*start, *length),
                    Item::Link(_) => return Err(absent()),
                },
            };
            Ok(Section::new(file.clone(), start, length))
        };
        let document = |name: &str| -> Result<Vec<u8>, SavedError> {
            let section = find(name)?;
            if section.length > DOCUMENT {
                return Err(SavedError::Size);
            }
            let mut bytes = Vec::new();
            section.take(DOCUMENT).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let invalid = |name| move |source| SavedError::Document { name, source };
        let manifest: Vec<Part> =
            serde_json::from_slice(&document("manifest.json")?).map_err(invalid("manifest.json"))?;
        let [part] = &manifest[..] else { return Err(SavedError::Absent("manifest.json".to_owned())) };
        let config: Document =
            serde_json::from_slice(&document(&part.config)?).map_err(invalid("the configuration"))?;
        let layers = part.layers.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
        if layers.len() != config.rootfs.diff_ids.len() {
            return Err(SavedError::Absent("a layer".to_owned()));
        }
        Ok(Self { run: settings(config.config.unwrap_or_default())?, diff_ids: config.rootfs.diff_ids, layers })
    }

    /// The layers above a base, unpacked if they are compressed, each with the digest that the configuration says.
    ///
    /// # Errors
    /// When the base is another one, or a layer has other bytes.
    pub fn above(&self, base: &[Digest], folder: &Path) -> Result<Vec<Section>, SavedError> {
        if !self.diff_ids.starts_with(base) {
            return Err(SavedError::Base);
        }
        let mut above = Vec::new();
        for (index, (section, diff_id)) in self.layers.iter().zip(&self.diff_ids).enumerate().skip(base.len()) {
            let mut section = plain(section, folder)?;
            let mut hash = Hasher::default();
            io::copy(&mut section, &mut hash)?;
            if hash.digest() != *diff_id {
                return Err(SavedError::Layer(index));
            }
            section.rewind()?;
            above.push(section);
        }
        Ok(above)
    }
}

/// A layer without its compression: the containerd store keeps layers as they were pushed.
fn plain(section: &Section, folder: &Path) -> Result<Section, SavedError> {
    let mut magic = [0; 4];
    let read = section.clone().take(4).read(&mut magic)?;
    let unpacked: Box<dyn Read> = match &magic[..read] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(section.clone())),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(section.clone())?),
        _ => return Ok(section.clone()),
    };
    let mut file = tempfile::tempfile_in(folder)?;
    let length = io::copy(&mut unpacked.take(LAYER + 1), &mut file)?;
    file.flush()?;
    if length > LAYER { Err(SavedError::Size) } else { Ok(Section::new(Arc::new(file), 0, length)) }
}

enum Item {
    Stretch(u64, u64),
    Link(String),
}

/// Where each file of an archive is.
fn index(whole: Section) -> Result<BTreeMap<String, Item>, SavedError> {
    let mut parts = BTreeMap::new();
    for entry in tar::Archive::new(whole).entries_with_seek()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            parts.insert(name, Item::Stretch(entry.raw_file_position(), entry.size()));
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            let target = target.unwrap_or_default();
            let folder = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(folder, _)| folder) } else { "" };
            let mut steps: Vec<&str> = folder.split('/').filter(|step| !step.is_empty()).collect();
            for step in target.split('/') {
                match step {
                    "" | "." => {}
                    ".." => drop(steps.pop()),
                    step => steps.push(step),
                }
            }
            let target = steps.join("/");
            parts.insert(name, Item::Link(target));
        }
        if parts.len() > ENTRIES {
            return Err(SavedError::Size);
        }
    }
    Ok(parts)
}

/// What is kept of a configuration: no host's name, no time, nothing for later builds.
fn settings(run: Run) -> Result<RunSettings, SavedError> {
    if run.on_build.is_some_and(|steps| !steps.is_empty()) {
        return Err(SavedError::OnBuild);
    }
    let mut env = BTreeMap::new();
    for variable in run.env.unwrap_or_default() {
        let (key, value) = variable.split_once('=').ok_or(SavedError::Environment)?;
        if key.is_empty() || env.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(SavedError::Environment);
        }
    }
    Ok(RunSettings {
        env,
        user: run.user.unwrap_or_default(),
        working_dir: run.working_dir.unwrap_or_default(),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        labels: run.labels.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(parts: &[(&str, &[u8])], links: &[(&str, &str)]) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (path, bytes) in parts {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        for (path, target) in links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, path, target).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn config(layers: &[&[u8]], run: &str) -> Vec<u8> {
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
        format!(r#"{{"config":{run},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, diff_ids.join(",")).into_bytes()
    }

    #[test]
    fn reads_what_old_and_new_engines_write() {
        use std::io::Write as _;
        let run = r#"{"Hostname":"x","Env":["B=2","A=1=1"],"User":"7","Cmd":null,"OnBuild":null}"#;
        let config = config(&[b"one", b"two", b"one"], run);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"two").unwrap();
        let gzip = gzip.finish().unwrap();
        let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}]"#;
        let parts: &[(&str, &[u8])] =
            &[("a/layer.tar", b"one"), ("b/layer.tar", &gzip), ("c.json", &config), ("manifest.json", manifest)];
        let saved = Saved::read(archive(parts, &[("c/layer.tar", "../a/layer.tar")])).unwrap();
        assert_eq!(saved.run.env, BTreeMap::from([("A".into(), "1=1".into()), ("B".into(), "2".into())]));
        assert_eq!((saved.run.user.as_str(), saved.run.cmd.len()), ("7", 0));
        let folder = tempfile::tempdir().unwrap();
        let mut above = saved.above(&[Digest::of(b"one")], folder.path()).unwrap();
        let mut texts = Vec::new();
        for section in &mut above {
            let mut text = String::new();
            section.read_to_string(&mut text).unwrap();
            texts.push(text);
        }
        assert_eq!(texts, ["two", "one"]);
        assert!(matches!(saved.above(&[Digest::of(b"two")], folder.path()), Err(SavedError::Base)));
    }

    #[test]
    fn refuses_what_is_not_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let manifest: &[u8] = br#"[{"Config":"c.json","Layers":["a"]}]"#;
        let good = config(&[b"one"], "{}");
        let saved =
            Saved::read(archive(&[("a", b"two"), ("c.json", &good), ("manifest.json", manifest)], &[])).unwrap();
        assert!(matches!(saved.above(&[], folder.path()), Err(SavedError::Layer(0))));
        let read = |parts: &[(&str, &[u8])], links: &[(&str, &str)]| Saved::read(archive(parts, links)).unwrap_err();
        assert!(matches!(read(&[("a", b"one"), ("c.json", &good)], &[]), SavedError::Absent(_)));
        let cycle = [("a", "b"), ("b", "a")];
        assert!(matches!(read(&[("c.json", &good), ("manifest.json", manifest)], &cycle), SavedError::Absent(_)));
        let two = config(&[b"one", b"two"], "{}");
        let parts: &[(&str, &[u8])] = &[("a", b"one"), ("c.json", &two), ("manifest.json", manifest)];
        assert!(matches!(read(parts, &[]), SavedError::Absent(_)));
        let later = config(&[b"one"], r#"{"OnBuild":["RUN id"]}"#);
        let parts: &[(&str, &[u8])] = &[("a", b"one"), ("c.json", &later), ("manifest.json", manifest)];
        assert!(matches!(read(parts, &[]), SavedError::OnBuild));
        let twice = config(&[b"one"], r#"{"Env":["A=1","A=2"]}"#);
        let parts: &[(&str, &[u8])] = &[("a", b"one"), ("c.json", &twice), ("manifest.json", manifest)];
        assert!(matches!(read(parts, &[]), SavedError::Environment));
    }
}
