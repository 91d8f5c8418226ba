//! Unpacks wheels into a virtual environment, as the binary distribution format of PyPA has it. Nothing is run: commands
//! are written from the entry points, and no byte code is made or taken.
//!
//! The wheel as a whole has the digest of the lock; its RECORD has the digest of each file, and both have to agree. Its
//! name and its version, from METADATA, have to be those of the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::Digest as _;
use zip::ZipArchive;

use super::error::PackageProblem;
use super::lock::PypiWheel;
use super::pylock::{Interpreter, normal, same_version};
use super::tree::{Content, Entry, Kind, clean};

/// More than any wheel unpacks to, in bytes.
const LIMIT: u64 = 4 << 30;
/// Files of one wheel.
const FILES: usize = 200_000;
/// Bytes of one of the files that say what a wheel is.
const TEXT: u64 = 32 << 20;

/// A virtual environment (PEP 405) below the root.
#[derive(Debug)]
pub struct Environment {
    /// Its folder, without a slash at either end.
    pub prefix: String,
    python: Interpreter,
}

impl Environment {
    /// The environment of an image's own programs.
    pub fn new(image: &str, python: Interpreter) -> Self {
        Self { prefix: format!("usr/local/lib/pypi/{image}"), python }
    }

    /// What is there before any wheel.
    pub fn entries(&self) -> Vec<(String, Entry)> {
        let version = &self.python.version;
        let settings = format!("home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n");
        let link = |target: String| Entry::new(Kind::Symlink(target), 0o777);
        vec![
            (format!("{}/pyvenv.cfg", self.prefix), text(settings, 0o644)),
            (format!("{}/bin/python3", self.prefix), link(format!("/usr/bin/python{}", self.python.short()))),
            (format!("{}/bin/python", self.prefix), link("python3".to_owned())),
        ]
    }

    fn site(&self) -> String {
        format!("{}/lib/python{}/site-packages", self.prefix, self.python.short())
    }

    /// The first line of its scripts. The kernel reads 255 bytes of one, and an image's name has at most 100.
    fn first_line(&self) -> String {
        format!("#!/{}/bin/python3\n", self.prefix)
    }
}

fn text(text: impl Into<Vec<u8>>, mode: u32) -> Entry {
    Entry::new(Kind::File(Content::Bytes(text.into().into())), mode)
}

/// Takes a wheel apart; contents are appended to `spill`.
///
/// # Errors
/// When it is not a wheel of this package, or differs from its own RECORD.
pub fn unpack(
    path: &Path,
    wheel: &PypiWheel,
    environment: &Environment,
    spill: &Arc<File>,
) -> Result<Vec<(String, Entry)>, PackageProblem> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?)).map_err(unreadable)?;
    if archive.len() > FILES {
        return Err(PackageProblem::Size);
    }
    let stem = stem(&archive, &wheel.package)?;
    let metadata = format!("{stem}.dist-info");
    let about = read(&mut archive, &format!("{metadata}/WHEEL"))?.ok_or(PackageProblem::Member("WHEEL"))?;
    if !about.lines().any(|line| line.trim().strip_prefix("Wheel-Version: 1").is_some_and(|rest| rest.starts_with('.')))
    {
        return Err(PackageProblem::Member("known version of the wheel format"));
    }
    let about = read(&mut archive, &format!("{metadata}/METADATA"))?.ok_or(PackageProblem::Member("METADATA"))?;
    if !version(&about).is_some_and(|version| same_version(version, &wheel.version)) {
        return Err(PackageProblem::Differs("version"));
    }
    let record = format!("{metadata}/RECORD");
    let listed = read(&mut archive, &record)?.ok_or(PackageProblem::Member("RECORD"))?;
    let mut listed = parse_record(&listed)?;
    let mut installed = Installed {
        environment,
        package: wheel.package.as_str().into(),
        entries: BTreeMap::new(),
        record: BTreeMap::new(),
    };
    let data = format!("{stem}.data/");
    let mut left = LIMIT;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(unreadable)?;
        let name = String::from_utf8(member.name_raw().to_vec())
            .map_err(|error| PackageProblem::Path(String::from_utf8_lossy(error.as_bytes()).into_owned()))?;
        let name = if member.is_dir() { continue } else { clean(&name)? };
        // S_IFMT of stat(2): 0 is what archives of other systems have.
        let mode = member.unix_mode().unwrap_or_default();
        if name.is_empty() || !matches!(mode & 0o170_000, 0 | 0o100_000) {
            return Err(PackageProblem::Kind(name));
        }
        // The signatures of RECORD are not in it, nor is it itself.
        if [".jws", ".p7s", ""].iter().any(|end| name == format!("{record}{end}")) {
            continue;
        }
        let (sum, size) = listed.remove(&name).ok_or_else(|| PackageProblem::Record(name.clone()))?;
        let (content, found) = copy(&mut member, &sum, &mut left, spill, &name)?;
        if found != sum || size.is_some_and(|size| size != content.1) {
            return Err(PackageProblem::Record(name));
        }
        if name.ends_with(".pyc") {
            continue;
        }
        let program = mode & 0o111 != 0;
        installed.place(&name, &data, content.0, program, (sum, content.1))?;
    }
    if let Some((absent, _)) = listed.into_iter().find(|(name, _)| *name != record) {
        return Err(PackageProblem::Record(absent));
    }
    let points = read(&mut archive, &format!("{metadata}/entry_points.txt"))?.unwrap_or_default();
    for (command, module, attribute) in commands(&points)? {
        installed.command(&command, &module, &attribute);
    }
    installed.finish(&metadata)
}

fn unreadable(error: zip::result::ZipError) -> PackageProblem {
    PackageProblem::Read(std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// Name and version as the folders in the wheel have them; the name has to be the package's.
fn stem<R: Read + Seek>(archive: &ZipArchive<R>, package: &str) -> Result<String, PackageProblem> {
    let mut stems = BTreeSet::new();
    for name in archive.file_names() {
        let name = name.map_err(unreadable)?;
        let folder = name.split_once('/').and_then(|(folder, _)| folder.strip_suffix(".dist-info"));
        stems.extend(folder.map(str::to_owned));
    }
    let named = |stem: &String| stem.rsplit_once('-').is_some_and(|(name, _)| normal(name) == package);
    match stems.pop_first() {
        Some(stem) if stems.is_empty() && named(&stem) => Ok(stem),
        _ => Err(PackageProblem::Member("folder .dist-info of its own name alone")),
    }
}

/// The version in the fields of a METADATA file (PyPA, core metadata specifications).
fn version(metadata: &str) -> Option<&str> {
    let mut fields = metadata.lines().take_while(|line| !line.is_empty());
    fields.find_map(|line| line.strip_prefix("Version:")).map(str::trim)
}

/// A small file of the archive.
fn read<R: Read + Seek>(archive: &mut ZipArchive<R>, name: &str) -> Result<Option<String>, PackageProblem> {
    let member = match archive.by_name(name) {
        Ok(member) => member,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    member.take(TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT {
        return Err(PackageProblem::Size);
    }
    String::from_utf8(bytes).map(Some).map_err(|_| PackageProblem::Record(name.to_owned()))
}

/// Digest and size of each file that a RECORD names. A file without a digest keeps an empty one, which matches nothing.
type Record = BTreeMap<String, (String, Option<u64>)>;

fn parse_record(text: &str) -> Result<Record, PackageProblem> {
    let mut record = Record::new();
    for fields in rows(text) {
        let fields = fields.map_err(|error| PackageProblem::Record(error.to_string()))?;
        let shown: String = fields.iter().next().unwrap_or_default().chars().take(200).collect();
        let broken = || PackageProblem::Record(shown.clone());
        let (path, sum, size) = match (fields.get(0), fields.get(1), fields.get(2), fields.len()) {
            (Some(path), Some(sum), Some(size), 3) => (path, sum, size),
            _ => return Err(broken()),
        };
        let size = if size.is_empty() { None } else { Some(size.parse().map_err(|_| broken())?) };
        if record.insert(clean(path)?, (sum.to_owned(), size)).is_some() {
            return Err(broken());
        }
    }
    Ok(record)
}

/// The rows of a RECORD, which is CSV without a header.
pub(super) fn rows(text: &str) -> impl Iterator<Item = Result<csv::StringRecord, csv::Error>> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes()).into_records()
}

/// Copies a file and gives its digest in the algorithm of another one: SHA-256 or better, says the format.
fn copy(
    member: &mut impl Read,
    sum: &str,
    left: &mut u64,
    spill: &Arc<File>,
    name: &str,
) -> Result<((Content, u64), String), PackageProblem> {
    enum Hash {
        Sha256(sha2::Sha256),
        Sha384(sha2::Sha384),
        Sha512(sha2::Sha512),
    }
    let algorithm = sum.split('=').next().unwrap_or_default();
    let mut hash = match algorithm {
        "sha256" => Hash::Sha256(sha2::Sha256::new()),
        "sha384" => Hash::Sha384(sha2::Sha384::new()),
        "sha512" => Hash::Sha512(sha2::Sha512::new()),
        _ => return Err(PackageProblem::Record(name.to_owned())),
    };
    let mut output = &**spill;
    let offset = output.seek(SeekFrom::End(0))?;
    let (mut length, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let count = member.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        *left = left.checked_sub(count as u64).ok_or(PackageProblem::Size)?;
        match &mut hash {
            Hash::Sha256(hash) => hash.update(&buffer[..count]),
            Hash::Sha384(hash) => hash.update(&buffer[..count]),
            Hash::Sha512(hash) => hash.update(&buffer[..count]),
        }
        output.write_all(&buffer[..count])?;
    }
    let found = match hash {
        Hash::Sha256(hash) => URL_SAFE_NO_PAD.encode(hash.finalize()),
        Hash::Sha384(hash) => URL_SAFE_NO_PAD.encode(hash.finalize()),
        Hash::Sha512(hash) => URL_SAFE_NO_PAD.encode(hash.finalize()),
    };
    Ok(((Content::Spilled { file: spill.clone(), offset, length }, length), format!("{algorithm}={found}")))
}

/// The commands of `entry_points.txt` (PyPA, entry points): name, module, attribute.
fn commands(text: &str) -> Result<Vec<(String, String, String)>, PackageProblem> {
    let mut commands = Vec::new();
    let mut wanted = false;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            wanted = matches!(section.trim_end_matches(']').trim(), "console_scripts" | "gui_scripts");
            continue;
        }
        if !wanted {
            continue;
        }
        let broken = || PackageProblem::EntryPoint(line.chars().take(200).collect());
        let (name, object) = line.split_once('=').ok_or_else(broken)?;
        let object = object.split('[').next().unwrap_or_default();
        let (module, attribute) = object.split_once(':').ok_or_else(broken)?;
        let (name, module, attribute) = (name.trim(), module.trim(), attribute.trim());
        let path = |text: &str| {
            let part = |part: &str| {
                !part.is_empty()
                    && !part.starts_with(|first: char| first.is_ascii_digit())
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            };
            text.split('.').all(part)
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let named = !name.is_empty() && name.len() <= 100 && !name.starts_with(['.', '-']) && name.chars().all(plain);
        // The interpreter's links are not for a wheel to take.
        if !named || name.starts_with("python") || !path(module) || !path(attribute) {
            return Err(broken());
        }
        commands.push((name.to_owned(), module.to_owned(), attribute.to_owned()));
    }
    Ok(commands)
}

/// What a wheel comes to.
struct Installed<'a> {
    environment: &'a Environment,
    package: Arc<str>,
    entries: BTreeMap<String, Entry>,
    /// Digest and size of what is installed, by path.
    record: BTreeMap<String, (String, u64)>,
}

impl Installed<'_> {
    /// Puts a file where its scheme belongs.
    fn place(
        &mut self,
        name: &str,
        data: &str,
        content: Content,
        program: bool,
        said: (String, u64),
    ) -> Result<(), PackageProblem> {
        let (site, prefix) = (self.environment.site(), &self.environment.prefix);
        let wrong = || PackageProblem::Path(name.to_owned());
        let path = match name.strip_prefix(data) {
            None => format!("{site}/{name}"),
            Some(rest) => match rest.split_once('/').ok_or_else(wrong)? {
                ("purelib" | "platlib", rest) => format!("{site}/{rest}"),
                ("data", rest) => format!("{prefix}/{rest}"),
                ("headers", rest) => {
                    format!("{prefix}/include/site/python{}/{}/{rest}", self.environment.python.short(), self.package)
                }
                ("scripts", rest) if !rest.contains('/') && !rest.starts_with("python") => {
                    return self.script(rest, &content, said);
                }
                _ => return Err(wrong()),
            },
        };
        let bin = format!("{prefix}/bin");
        if path == format!("{prefix}/pyvenv.cfg")
            || path.strip_prefix(&bin).is_some_and(|rest| rest.starts_with("/python"))
        {
            return Err(wrong());
        }
        self.record.insert(path.clone(), said);
        let entry = Entry::new(Kind::File(content), if program { 0o755 } else { 0o644 });
        self.entries.insert(path, entry);
        Ok(())
    }

    /// A script of the wheel's own: `#!python` becomes the environment's interpreter.
    fn script(&mut self, name: &str, content: &Content, said: (String, u64)) -> Result<(), PackageProblem> {
        let path = format!("{}/bin/{name}", self.environment.prefix);
        let mut head = [0; 8];
        let count = content.reader().take(8).read(&mut head)?;
        if !head[..count].starts_with(b"#!python") {
            self.record.insert(path.clone(), said);
            self.entries.insert(path, Entry::new(Kind::File(content.clone()), 0o755));
            return Ok(());
        }
        let mut bytes = Vec::new();
        content.reader().take(TEXT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > TEXT {
            return Err(PackageProblem::Size);
        }
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1);
        let script = [self.environment.first_line().as_bytes(), &bytes[end..]].concat();
        self.write(path, script, 0o755);
        Ok(())
    }

    fn command(&mut self, name: &str, module: &str, attribute: &str) {
        let first = attribute.split('.').next().unwrap_or_default();
        let script = format!(
            "{}import sys\n\nfrom {module} import {first}\n\nif __name__ == \"__main__\":\n    sys.exit({attribute}())\n",
            self.environment.first_line()
        );
        self.write(format!("{}/bin/{name}", self.environment.prefix), script.into_bytes(), 0o755);
    }

    fn write(&mut self, path: String, bytes: Vec<u8>, mode: u32) {
        let sum = format!("sha256={}", URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(&bytes)));
        self.record.insert(path.clone(), (sum, bytes.len() as u64));
        self.entries.insert(path, text(bytes, mode));
    }

    /// Writes INSTALLER and the RECORD of what is there (PyPA, recording installed projects).
    fn finish(mut self, metadata: &str) -> Result<Vec<(String, Entry)>, PackageProblem> {
        let site = self.environment.site();
        self.write(format!("{site}/{metadata}/INSTALLER"), b"sandbox\n".to_vec(), 0o644);
        let path = format!("{site}/{metadata}/RECORD");
        let mut writer = csv::Writer::from_writer(Vec::new());
        let failed = |error: csv::Error| PackageProblem::Read(std::io::Error::other(error));
        for (path, (sum, size)) in &self.record {
            // Paths are relative to site-packages: those outside go three folders up, to the environment's.
            let relative = match path.strip_prefix(&format!("{site}/")) {
                Some(rest) => rest.to_owned(),
                None => {
                    format!("../../../{}", path.strip_prefix(&format!("{}/", self.environment.prefix)).unwrap_or(path))
                }
            };
            writer.write_record([relative.as_str(), sum, &size.to_string()]).map_err(failed)?;
        }
        writer.write_record([&format!("{metadata}/RECORD"), "", ""]).map_err(failed)?;
        let record = writer.into_inner().map_err(|error| PackageProblem::Read(error.into_error()))?;
        self.entries.insert(path, text(record, 0o644));
        let package = self.package;
        Ok(self
            .entries
            .into_iter()
            .map(|(path, entry)| (path, Entry { package: Some(package.clone()), ..entry }))
            .collect())
    }
}

#[cfg(test)]
mod tests;
