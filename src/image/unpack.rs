//! Takes packages apart: Debian's (deb(5)) and npm's tarballs. Nothing in them is run.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::read::archive::ArchiveFile;
use sha2::Digest as _;

use super::error::PackageProblem;
use super::tree::{Content, Entry, Kind, clean};

/// More than any package unpacks to, in bytes.
const LIMIT: u64 = 4 << 30;

/// Members of one package.
const MEMBER_LIMIT: usize = 64;

/// Bytes of all that is said about one package.
const CONTROL_LIMIT: u64 = 64 << 20;

/// Entries of one package, more than any has.
const ENTRY_LIMIT: usize = 1_000_000;

/// What may stand between the contents of two entries of a tar: headers, and names and attributes too long for one. What
/// reads archives keeps these in memory, however long they are.
pub(super) const HEADER_LIMIT: u64 = 1 << 20;

/// Memory that unpacking xz may take, in bytes; `xz -9` needs 65 million.
const XZ_MEMORY: u64 = 256 << 20;

/// A reader that can be told how much may still be read from it.
pub(super) struct Metered<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    /// A reader, and its allowance, which is [`HEADER_LIMIT`] at first.
    pub(super) fn new(reader: R) -> (Self, Rc<Cell<u64>>) {
        let left = Rc::new(Cell::new(HEADER_LIMIT));
        (Self { reader, left: left.clone() }, left)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(std::io::Error::other("a header of the archive is longer than allowed"));
        }
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.reader.read(&mut buffer[..length])?;
        self.left.set(left - count as u64);
        Ok(count)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
        self.reader.seek(position)
    }
}

/// A package taken apart.
#[derive(Debug)]
pub struct Unpacked {
    /// Files of the control archive, in its order.
    pub control: Vec<(String, Vec<u8>)>,
    /// Entries of the data archive, in its order, with canonical paths.
    pub entries: Vec<(String, Entry)>,
}

/// The text of the control file of a .deb.
pub fn control(path: &Path) -> Result<String, PackageProblem> {
    let file = File::open(path)?;
    for (name, offset, length) in members(&file)? {
        if let Some(kind) = name.strip_prefix("control.tar") {
            let mut file = &file;
            file.seek(SeekFrom::Start(offset))?;
            let files = control_files(decoder(kind, BufReader::with_capacity(1 << 17, file.take(length)))?)?;
            let text = files.into_iter().find(|(name, _)| name == "control").map(|(_, bytes)| bytes);
            let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
            return text.ok_or(PackageProblem::Member("control"));
        }
    }
    Err(PackageProblem::Member("control.tar"))
}

/// The changelog that a .deb has of itself, if it has one (Debian Policy, section 12.7).
///
/// # Errors
/// When it is no package.
pub fn changelog(path: &Path, package: &str) -> Result<Option<String>, PackageProblem> {
    const TEXT: u64 = 16 << 20;
    let wanted = ["changelog.Debian.gz", "changelog.gz"].map(|name| format!("usr/share/doc/{package}/{name}"));
    let file = File::open(path)?;
    for (name, offset, length) in members(&file)? {
        let Some(kind) = name.strip_prefix("data.tar") else { continue };
        let mut file = &file;
        file.seek(SeekFrom::Start(offset))?;
        let (reader, allowance) = Metered::new(decoder(kind, BufReader::with_capacity(1 << 17, file.take(length)))?);
        let mut archive = tar::Archive::new(reader);
        let mut entries = archive.entries()?;
        loop {
            // What is not looked at is read all the same.
            allowance.set(LIMIT);
            let Some(entry) = entries.next() else { break };
            let entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            if wanted.contains(&path) && entry.header().entry_type().is_file() {
                let mut bytes = Vec::new();
                flate2::read::GzDecoder::new(entry).take(TEXT).read_to_end(&mut bytes)?;
                return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    Ok(None)
}

/// Takes a .deb apart; contents are appended to `spill`.
pub fn deb(path: &Path, name: &str, spill: &Arc<File>) -> Result<Unpacked, PackageProblem> {
    let file = File::open(path)?;
    let (mut control, mut entries) = (None, None);
    for (member_name, offset, length) in members(&file)? {
        let member = || -> std::io::Result<_> {
            let mut file = &file;
            file.seek(SeekFrom::Start(offset))?;
            Ok(BufReader::with_capacity(1 << 17, file.take(length)))
        };
        if let Some(kind) = member_name.strip_prefix("control.tar") {
            control = Some(control_files(decoder(kind, member()?)?)?);
        } else if let Some(kind) = member_name.strip_prefix("data.tar") {
            entries = Some(tar_entries(decoder(kind, member()?)?, true, name, spill)?);
        }
    }
    Ok(Unpacked {
        control: control.ok_or(PackageProblem::Member("control archive"))?,
        entries: entries.ok_or(PackageProblem::Member("data archive"))?,
    })
}

/// The members of an ar archive: name, and where its bytes begin and how many there are.
fn members(file: &File) -> Result<Vec<(String, u64, u64)>, PackageProblem> {
    let unreadable = |_| PackageProblem::Member("readable list of members");
    let bytes = object::read::ReadCache::new(file);
    let archive = ArchiveFile::parse(&bytes).map_err(unreadable)?;
    let mut members = Vec::new();
    for member in archive.members() {
        let member = member.map_err(unreadable)?;
        // deb(5): three members, and others may come to be.
        if members.len() == MEMBER_LIMIT || member.is_thin() {
            return Err(PackageProblem::Size);
        }
        let (offset, length) = member.file_range();
        members.push((String::from_utf8_lossy(member.name()).into_owned(), offset, length));
    }
    Ok(members)
}

/// Whether a file has this integrity: `sha512-` and base64 (W3C, Subresource Integrity).
pub fn has_integrity(path: &Path, integrity: &str) -> std::io::Result<bool> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, sha2::Sha512::new(), vec![0; 1 << 17]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(integrity == format!("sha512-{}", STANDARD.encode(hash.finalize())))
}

/// Takes a tarball of npm apart: its first folder is replaced by `prefix`, owners become root.
pub fn npm(path: &Path, prefix: &str, name: &str, spill: &Arc<File>) -> Result<Vec<(String, Entry)>, PackageProblem> {
    let reader = flate2::read::GzDecoder::new(BufReader::new(File::open(path)?));
    let mut entries = Vec::new();
    for (path, mut entry) in tar_entries(reader, false, name, spill)? {
        if matches!(entry.kind, Kind::HardLink(_)) {
            return Err(PackageProblem::Kind(path));
        }
        if let Some((_, rest)) = path.split_once('/') {
            entry.mode = if entry.mode & 0o100 != 0 { 0o755 } else { 0o644 };
            entries.push((format!("{prefix}/{rest}"), entry));
        }
    }
    Ok(entries)
}

fn decoder<'a>(kind: &str, member: impl Read + 'a) -> Result<Box<dyn Read + 'a>, PackageProblem> {
    Ok(match kind {
        "" => Box::new(member),
        ".gz" => Box::new(flate2::read::GzDecoder::new(member)),
        ".xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(std::io::Error::from)?;
            Box::new(liblzma::read::XzDecoder::new_stream(member, stream))
        }
        ".zst" => Box::new(zstd::stream::read::Decoder::new(member)?),
        _ => return Err(PackageProblem::Member("archive of a known compression")),
    })
}

fn control_files(reader: impl Read) -> Result<Vec<(String, Vec<u8>)>, PackageProblem> {
    let mut files = Vec::new();
    let mut archive = tar::Archive::new(reader.take(CONTROL_LIMIT));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = clean(&String::from_utf8_lossy(&entry.path_bytes()))?;
        if name.contains('/') {
            return Err(PackageProblem::Path(name));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < entry.size() {
            return Err(PackageProblem::Short(name));
        }
        files.push((name, bytes));
    }
    Ok(files)
}

fn tar_entries(
    reader: impl Read,
    owners: bool,
    package: &str,
    spill: &Arc<File>,
) -> Result<Vec<(String, Entry)>, PackageProblem> {
    let package: Arc<str> = package.into();
    let mut output = &**spill;
    let mut offset = output.seek(SeekFrom::End(0))?;
    let start = offset;
    let mut entries = Vec::new();
    let (reader, allowance) = Metered::new(reader);
    let mut archive = tar::Archive::new(reader);
    let mut iterator = archive.entries()?;
    loop {
        allowance.set(HEADER_LIMIT);
        let Some(entry) = iterator.next() else { break };
        let mut entry = entry?;
        if entries.len() == ENTRY_LIMIT {
            return Err(PackageProblem::Size);
        }
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| PackageProblem::Path(String::from_utf8_lossy(bytes).into_owned()))
        };
        let path = clean(&text(&entry.path_bytes())?)?;
        let header = entry.header().clone();
        let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => Kind::Symlink(text(&link)?),
            tar::EntryType::Link => Kind::HardLink(clean(&text(&link)?)?),
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if entry.size() > LIMIT || offset - start + entry.size() > LIMIT {
                    return Err(PackageProblem::Size);
                }
                allowance.set(LIMIT);
                let length = std::io::copy(&mut entry, &mut output)?;
                if length < entry.size() {
                    return Err(PackageProblem::Short(path));
                }
                let content = Content::Spilled { file: spill.clone(), offset, length };
                offset += length;
                Kind::File(content)
            }
            tar::EntryType::XGlobalHeader => continue,
            _ => return Err(PackageProblem::Kind(path)),
        };
        // npm leaves the fields empty, which is no number.
        let (uid, gid) = if owners { (header.uid()?, header.gid()?) } else { (0, 0) };
        entries.push((
            path,
            Entry {
                kind,
                mode: header.mode()? & 0o7777,
                uid,
                gid,
                time: header.mtime()?,
                capability: None,
                package: Some(package.clone()),
                below: false,
            },
        ));
    }
    output.flush()?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &[u8], kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        header
    }

    fn entries(reader: impl Read) -> Result<Vec<(String, Entry)>, PackageProblem> {
        tar_entries(reader, true, "p", &Arc::new(tempfile::tempfile().unwrap()))
    }

    fn hostile(name: &[u8], kind: tar::EntryType) -> Result<Vec<(String, Entry)>, PackageProblem> {
        let mut bytes = header(name, kind, 0).as_bytes().to_vec();
        bytes.extend([0; 1024]);
        entries(&bytes[..])
    }

    #[test]
    fn refuses_entries_outside_the_root_and_what_is_neither_file_folder_nor_link() {
        assert!(matches!(hostile(b"../etc/passwd", tar::EntryType::Regular), Err(PackageProblem::Path(_))));
        assert!(matches!(hostile(b"a/../../etc/passwd", tar::EntryType::Regular), Err(PackageProblem::Path(_))));
        assert!(matches!(hostile(b"/etc/passwd", tar::EntryType::Regular), Err(PackageProblem::Path(_))));
        assert!(matches!(hostile(b"a\xff", tar::EntryType::Regular), Err(PackageProblem::Path(_))));
        for kind in [tar::EntryType::Block, tar::EntryType::Char, tar::EntryType::Fifo, tar::EntryType::GNUSparse] {
            assert!(hostile(b"dev/sda", kind).is_err(), "{kind:?}");
        }
        assert_eq!(hostile(b"./usr/a", tar::EntryType::Regular).unwrap()[0].0, "usr/a");
    }

    #[test]
    fn a_hard_link_out_of_the_root_is_refused() {
        let mut link = header(b"a", tar::EntryType::Link, 0);
        link.set_link_name("../../etc/passwd").unwrap();
        link.set_cksum();
        assert!(matches!(entries(&link.as_bytes()[..]), Err(PackageProblem::Path(_))));
    }

    #[test]
    fn refuses_a_file_that_is_longer_than_any_or_shorter_than_it_says() {
        let long = header(b"a", tar::EntryType::Regular, LIMIT + 1);
        let endless = || std::io::repeat(0);
        assert!(matches!(entries(long.as_bytes()[..].chain(endless())), Err(PackageProblem::Size)));
        let short = header(b"a", tar::EntryType::Regular, 4096);
        assert!(matches!(entries(short.as_bytes()[..].chain(&b"little"[..])), Err(PackageProblem::Short(_))));
        // Two files that are together too long: the second is refused before it is read.
        let half = header(b"a", tar::EntryType::Regular, 1 << 20);
        let rest = header(b"b", tar::EntryType::Regular, LIMIT);
        let two = half.as_bytes()[..].chain(endless().take(1 << 20)).chain(rest.as_bytes()[..].chain(endless()));
        assert!(matches!(entries(two), Err(PackageProblem::Size)));
    }

    #[test]
    fn a_name_or_an_attribute_without_end_is_refused_before_it_fills_the_memory() {
        for kind in [
            tar::EntryType::GNULongName,
            tar::EntryType::GNULongLink,
            tar::EntryType::XHeader,
            tar::EntryType::XGlobalHeader,
        ] {
            let bomb = header(b"x", kind, LIMIT - 1024);
            let problem = entries(bomb.as_bytes()[..].chain(std::io::repeat(b'a'))).unwrap_err();
            assert!(
                matches!(&problem, PackageProblem::Read(error) if error.to_string().contains("longer")),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn xz_that_wants_more_memory_than_any_package_is_refused() {
        let options = {
            let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
            options.dict_size(257 << 20);
            options
        };
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::None);
        // Where the machine has no memory to make one, there is none to test with.
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.unwrap());
        encoder.write_all(&[0; 4096]).unwrap();
        let bytes = encoder.finish().unwrap();
        let mut text = Vec::new();
        let error = decoder(".xz", &bytes[..]).unwrap().read_to_end(&mut text).unwrap_err();
        assert!(text.is_empty() && error.to_string().to_lowercase().contains("mem"), "{error}");
    }

    #[test]
    fn refuses_a_file_that_is_no_package() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "!<arch>\n").unwrap();
        let spill = Arc::new(tempfile::tempfile().unwrap());
        assert!(matches!(deb(file.path(), "p", &spill), Err(PackageProblem::Member(_))));
        // Names that point into a table which is not there, or which is larger than any memory (ar(5), GNU's form).
        let header = |name: &str, size: u64| format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
        for odd in [header("/184467", 0), header("//", 9_999_999_999), header("#1/9999999", 10)] {
            std::fs::write(file.path(), format!("!<arch>\n{odd}")).unwrap();
            assert!(matches!(deb(file.path(), "p", &spill), Err(PackageProblem::Member(_))), "{odd}");
        }
    }
}
