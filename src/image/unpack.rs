//! Takes packages apart: Debian's (deb(5)) and npm's tarballs. Nothing in them is run.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use object::read::archive::ArchiveFile;

use super::error::PackageProblem;
use super::tree::{Content, Entry, Kind, clean};

/// More than any package unpacks to, in bytes.
const LIMIT: u64 = 4 << 30;

/// Members of one package.
const MEMBER_LIMIT: usize = 64;

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
        ".xz" => Box::new(liblzma::read::XzDecoder::new(member)),
        ".zst" => Box::new(zstd::stream::read::Decoder::new(member)?),
        _ => return Err(PackageProblem::Member("archive of a known compression")),
    })
}

fn control_files(reader: impl Read) -> Result<Vec<(String, Vec<u8>)>, PackageProblem> {
    let mut files = Vec::new();
    let mut archive = tar::Archive::new(reader.take(64 << 20));
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
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
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
                let length = std::io::copy(&mut entry, &mut output)?;
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

    fn hostile(name: &[u8], kind: tar::EntryType) -> Result<Vec<(String, Entry)>, PackageProblem> {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let spill = Arc::new(tempfile::tempfile().unwrap());
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 1024]);
        tar_entries(&bytes[..], true, "p", &spill)
    }

    #[test]
    fn refuses_entries_outside_the_root_and_devices() {
        assert!(matches!(hostile(b"../etc/passwd", tar::EntryType::Regular), Err(PackageProblem::Path(_))));
        assert!(matches!(hostile(b"/etc/passwd", tar::EntryType::Regular), Err(PackageProblem::Path(_))));
        assert!(matches!(hostile(b"dev/sda", tar::EntryType::Block), Err(PackageProblem::Kind(_))));
        assert!(matches!(hostile(b"a\xff", tar::EntryType::Regular), Err(PackageProblem::Path(_))));
        assert_eq!(hostile(b"./usr/a", tar::EntryType::Regular).unwrap()[0].0, "usr/a");
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
