//! The repositories that a definition names: which they are, and what they have to offer.

use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::definition::{Debian, Loaded};
use super::error::{ImageError, at};
use super::lock::{Lock, Source};
use super::reference::Digest;
use super::release::{self, Expected, Keyring, Release};
use super::resolve::Index;
use super::{ImageContext, fetch, sources};

/// Debian's keys, as its package debian-archive-keyring installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Bytes of a compressed index; that of Debian's main has 10 million.
const COMPRESSED: u64 = 64 << 20;
/// Bytes of an index; that of Debian's main has 60 million.
const TEXT: u64 = 512 << 20;

/// One suite of one repository.
struct Repository<'a> {
    /// As locks name it: the suite, with the address before it for others than Debian.
    name: String,
    suite: String,
    components: &'a [String],
    /// Folders of `dists` on mirrors, the preferred one first.
    distributions: Vec<String>,
    /// The name of the key's file beside the definition, for others than Debian.
    key: Option<&'a str>,
}

/// The repositories of a definition: the suite with its updates, and what else it names.
fn repositories<'a>(debian: &'a Debian, mirrors: &sources::Mirrors) -> Vec<Repository<'a>> {
    let of_debian = move |suite: String, components: &'a [String]| {
        let distributions = mirrors.of(&suite).iter().map(|mirror| format!("{mirror}/dists/{suite}")).collect();
        Repository { name: suite.clone(), suite, components, distributions, key: None }
    };
    let suites = debian.suite.iter().flat_map(|suite| {
        // What is not released has no updates: it is always new.
        let unreleased = matches!(suite.as_str(), "sid" | "unstable" | "experimental");
        let more: &[&str] = if unreleased { &[""] } else { &["", "-security", "-updates"] };
        more.iter().map(move |more| of_debian(format!("{suite}{more}"), &debian.components))
    });
    let further = debian.sources.iter().map(|source| match &source.address {
        None => of_debian(source.suite.clone(), &source.components),
        Some(address) => {
            let address = address.trim_end_matches('/');
            Repository {
                name: format!("{address} {}", source.suite),
                suite: source.suite.clone(),
                components: &source.components,
                distributions: vec![format!("{address}/dists/{}", source.suite)],
                key: source.key.as_deref(),
            }
        }
    });
    suites.chain(further).collect()
}

/// All packages that a definition's repositories have, after their signatures were checked. `locked` is the lock that
/// there was: no repository may be older than it was then.
pub(super) async fn index(
    own: &Loaded,
    debian: &Debian,
    architecture: &str,
    locked: Option<&Lock>,
    context: &ImageContext<'_>,
) -> Result<(Index, Vec<Source>), ImageError> {
    let client = fetch::client()?;
    let mirrors = sources::Mirrors::read(context.apt_sources_root);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    let (mut index, mut found) = (Index::default(), Vec::new());
    for repository in repositories(debian, &mirrors) {
        let name = &repository.name;
        let join =
            |rest: &str| repository.distributions.iter().map(|base| format!("{base}/{rest}")).collect::<Vec<_>>();
        let bytes = fetch::small(&client, &format!("the release file of {name}"), &join("InRelease"), 4 << 20).await?;
        let missing = |field| ImageError::Index { suite: name.clone(), field };
        let text = std::str::from_utf8(&bytes).map_err(|_| missing("InRelease"))?;
        let key = repository.key.map(|file| (file, own.keys.get(file)));
        let keyring = match key {
            None => Keyring::File(Path::new(KEYRING)),
            Some((file, bytes)) => Keyring::Bytes(Path::new(file), bytes.map(Vec::as_slice).unwrap_or_default()),
        };
        let expected = Expected {
            name,
            suite: &repository.suite,
            components: repository.components,
            architecture,
            now,
            allow_expired: context.allow_expired,
        };
        let release = release::verify(&expected, text, &keyring)?;
        newer(name, &release, locked)?;
        for file in &release.indexes {
            if file.size > COMPRESSED {
                return Err(missing("size of its list of packages"));
            }
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let by_hash = if release.by_hash {
                join(&format!("{folder}/by-hash/SHA256/{}", file.sha256.hex()))
            } else {
                Vec::new()
            };
            let addresses = [by_hash, join(&file.path)].concat();
            let (what, sha256, size) = (format!("the index of {name}"), file.sha256.clone(), file.size);
            let wanted = fetch::Wanted { what, sha256, size, addresses };
            fetch::all(context.cache, vec![wanted], context.progress, context.offline).await?;
            let text = decompressed(&fetch::blob(context.cache, &file.sha256), &file.path, TEXT)?;
            index.add(name, release.priority, &text)?;
            found.push(Source {
                suite: name.clone(),
                component: Some(file.component.clone()).filter(|component| component != "main"),
                key: key.and_then(|(_, bytes)| bytes).map(|bytes| Digest::of(bytes)),
                expired: release.expired,
                date: release.date,
                in_release: Digest::of(&bytes),
                packages: file.sha256.clone(),
            });
        }
    }
    found.sort_by(|a, b| (&a.suite, &a.component).cmp(&(&b.suite, &b.component)));
    Ok((index, found))
}

/// Refuses a release that is older than the one of the lock: somebody who can keep new packages from us could otherwise
/// have old ones, with known faults, locked in their place.
fn newer(name: &str, release: &Release, locked: Option<&Lock>) -> Result<(), ImageError> {
    let before = locked.iter().flat_map(|lock| &lock.sources).filter(|source| source.suite == name);
    match before.map(|source| source.date).max().filter(|date| *date > release.date) {
        None => Ok(()),
        Some(date) => {
            let day = |seconds: u64| {
                let time = i64::try_from(seconds).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
                time.map(|time| time.to_string()).unwrap_or_default()
            };
            let (locked, offered) = (day(date), day(release.date));
            Err(ImageError::Downgrade { suite: name.to_owned(), locked, offered })
        }
    }
}

/// The text of an index; more than any has is refused.
fn decompressed(path: &Path, name: &str, limit: u64) -> Result<String, ImageError> {
    let file = std::io::BufReader::new(std::fs::File::open(path).map_err(at(path))?);
    let reader: Box<dyn std::io::Read> = match name.rsplit('.').next() {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut text = String::new();
    reader.take(limit + 1).read_to_string(&mut text).map_err(at(path))?;
    if text.len() as u64 > limit {
        return Err(at(path)(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::definition;
    use crate::image::resolve::Priority;

    #[test]
    fn a_release_that_is_older_than_the_locked_one_is_refused() {
        let chain = definition::chain("base", None).unwrap();
        let lock = crate::image::lock::locks(&chain).unwrap().pop().unwrap();
        let source = lock.sources[0].clone();
        let release =
            |date| Release { date, priority: Priority::Normal, by_hash: true, expired: false, indexes: Vec::new() };
        assert!(newer(&source.suite, &release(source.date), Some(&lock)).is_ok());
        assert!(newer(&source.suite, &release(source.date - 1), None).is_ok());
        assert!(newer("another", &release(source.date - 1), Some(&lock)).is_ok());
        let refused = newer(&source.suite, &release(source.date - 1), Some(&lock)).unwrap_err();
        assert!(matches!(&refused, ImageError::Downgrade { .. }), "{refused}");
    }

    /// A definition's part for Debian, with this text beside an empty list of packages.
    fn debian_of(text: &str) -> Debian {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images/x");
        std::fs::create_dir_all(&images).unwrap();
        std::fs::write(images.join("k.asc"), "a key").unwrap();
        std::fs::write(images.join("image.yaml"), format!("version: 1\ndebian: {{packages: [], {text}}}\n")).unwrap();
        definition::load("x", Some(folder.path())).unwrap().definition.debian.unwrap()
    }

    #[test]
    fn a_suite_comes_with_its_updates_and_others_as_they_are_named() {
        let further = "{suite: bookworm-backports}, {suite: stable, address: 'https://h/apt/', key: k.asc}";
        let debian = debian_of(&format!("suite: bookworm, components: [main, contrib], sources: [{further}]"));
        let mirrors = sources::Mirrors { debian: vec!["http://m/debian".into()], security: vec!["http://s".into()] };
        let names: Vec<_> = repositories(&debian, &mirrors)
            .into_iter()
            .map(|repository| (repository.name, repository.distributions[0].clone()))
            .collect();
        let expected = [
            ("bookworm", "http://m/debian/dists/bookworm"),
            ("bookworm-security", "http://s/dists/bookworm-security"),
            ("bookworm-updates", "http://m/debian/dists/bookworm-updates"),
            ("bookworm-backports", "http://m/debian/dists/bookworm-backports"),
            ("https://h/apt stable", "https://h/apt/dists/stable"),
        ];
        assert_eq!(names, expected.map(|(name, address)| (name.to_owned(), address.to_owned())));
        assert_eq!(repositories(&debian_of("suite: sid"), &mirrors).len(), 1);
    }

    #[test]
    fn an_index_that_unpacks_to_more_than_any_has_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Packages.xz");
        let mut encoder = liblzma::write::XzEncoder::new(std::fs::File::create(&path).unwrap(), 0);
        std::io::Write::write_all(&mut encoder, &vec![b'\n'; 1 << 20]).unwrap();
        encoder.finish().unwrap();
        assert!(path.metadata().unwrap().len() < 4096);
        let text = |limit| decompressed(&path, "main/binary-amd64/Packages.xz", limit);
        assert_eq!(text(1 << 20).unwrap().len(), 1 << 20);
        assert!(text((1 << 20) - 1).is_err());
    }
}
