//! The content-addressed store of downloaded files. Nothing gets its name in the store before its digest was checked.

use std::io::Write;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;

use super::error::{FetchError, ImageError, at};
use super::reference::{Digest, Hasher};

/// Transfers at one time.
const PARALLEL: usize = 6;

/// After how long a temporary file is nobody's any more.
const LEFT_BEHIND: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A file that is wanted, and where it may be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For messages.
    pub what: String,
    /// Its digest.
    pub sha256: Digest,
    /// Its size in bytes; more is never read.
    pub size: u64,
    /// Addresses, tried in order.
    pub addresses: Vec<String>,
}

/// Where the store keeps this file.
pub fn blob(cache: &Path, digest: &Digest) -> PathBuf {
    cache.join("blobs/sha256").join(digest.hex())
}

/// Whether the store has a file in full. One of another length was cut off by a crash of the machine.
fn present(cache: &Path, wanted: &Wanted) -> bool {
    blob(cache, &wanted.sha256).metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == wanted.size)
}

/// Whether a file of the store is what its name says; one that is not is taken out of it.
pub(super) fn verified(cache: &Path, digest: &Digest) -> std::io::Result<bool> {
    let path = blob(cache, digest);
    let (mut file, mut hash, mut buffer) = (std::fs::File::open(&path)?, Hasher::default(), vec![0; 1 << 17]);
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let good = hash.digest() == *digest;
    if !good {
        std::fs::remove_file(&path)?;
    }
    Ok(good)
}

/// Removes what builds that were killed left in these folders a day ago or earlier. Builds that run now are younger.
pub(super) fn sweep(folders: &[&Path]) {
    let old = |metadata: std::fs::Metadata| {
        metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > LEFT_BEHIND)
    };
    for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
        let temporary = entry.file_name().to_str().is_some_and(|name| name.starts_with(".tmp"));
        if let (true, Ok(metadata)) = (temporary, entry.path().symlink_metadata()) {
            let folder = metadata.is_dir();
            if old(metadata) {
                // Somebody else may do the same at the same time, and a file that stays does no harm.
                let _ = if folder { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
            }
        }
    }
}

/// An HTTP client with limits in time.
pub fn client() -> Result<reqwest::Client, ImageError> {
    // reqwest takes the process's provider; a second installation says that there is one already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(std::time::Duration::from_secs(15))
        .read_timeout(std::time::Duration::from_secs(60))
        .user_agent(concat!("sandbox/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(ImageError::Client)
}

/// Gets a small file whose digest is not known yet, trying the addresses in order.
pub async fn small(
    client: &reqwest::Client,
    what: &str,
    addresses: &[String],
    limit: usize,
) -> Result<Vec<u8>, ImageError> {
    let mut last = FetchError::NoMirror;
    for address in addresses {
        match small_from(client, address, limit).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => last = error,
        }
    }
    Err(ImageError::Unavailable { what: what.to_owned(), source: last })
}

async fn small_from(client: &reqwest::Client, address: &str, limit: usize) -> Result<Vec<u8>, FetchError> {
    let mut response = client.get(address).send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > limit {
            return Err(FetchError::Content);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Puts bytes of any digest into the store.
pub fn keep(cache: &Path, bytes: &[u8]) -> Result<Digest, ImageError> {
    let digest = Digest::of(bytes);
    let path = blob(cache, &digest);
    let folder = cache.join("blobs/sha256");
    std::fs::create_dir_all(&folder).map_err(at(&folder))?;
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(at(&folder))?;
    file.write_all(bytes).map_err(at(&path))?;
    file.persist(&path).map_err(|error| at(&path)(error.error))?;
    Ok(digest)
}

/// Takes files that the store lacks from a folder in which they have their digests as names.
///
/// # Errors
/// When one of them is not what its name says.
pub fn adopt(folder: &Path, cache: &Path, wanted: &[Wanted]) -> Result<(), ImageError> {
    for wanted in wanted.iter().filter(|wanted| !present(cache, wanted)) {
        let path = folder.join(wanted.sha256.hex());
        // A link could be one to anything of the user's.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let other = || ImageError::Vendored { what: wanted.what.clone(), path: path.clone() };
        if !metadata.is_file() || metadata.len() != wanted.size {
            return Err(other());
        }
        let store = cache.join("blobs/sha256");
        std::fs::create_dir_all(&store).map_err(at(&store))?;
        let mut file = tempfile::NamedTempFile::new_in(&store).map_err(at(&store))?;
        let mut hash = Hasher::default();
        let (mut buffer, mut left) = (vec![0; 1 << 16], wanted.size);
        let mut from = std::fs::File::open(&path).map_err(at(&path))?;
        loop {
            let count = std::io::Read::read(&mut from, &mut buffer).map_err(at(&path))?;
            if count == 0 {
                break;
            }
            left = left.checked_sub(count as u64).ok_or_else(other)?;
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(at(&store))?;
        }
        if hash.digest() != wanted.sha256 {
            return Err(other());
        }
        file.persist(blob(cache, &wanted.sha256)).map_err(|error| at(&store)(error.error))?;
    }
    Ok(())
}

/// Copies files of the store into a folder in which they get their digests as names. Gives how many bytes were copied.
///
/// # Errors
/// When one is not in the store, or the folder cannot be written.
pub fn vendor(folder: &Path, cache: &Path, wanted: &[Wanted]) -> Result<u64, ImageError> {
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let mut copied = 0;
    for wanted in wanted {
        let path = folder.join(wanted.sha256.hex());
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == wanted.size) {
            continue;
        }
        let from = blob(cache, &wanted.sha256);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(at(folder))?;
        let mut blob = std::fs::File::open(&from).map_err(at(&from))?;
        copied += std::io::copy(&mut blob, &mut file).map_err(at(&path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(at(&path))?;
        file.persist(&path).map_err(|error| at(&path)(error.error))?;
    }
    Ok(copied)
}

/// Makes sure that the store has all these files.
pub async fn all(cache: &Path, wanted: Vec<Wanted>, progress: bool, offline: bool) -> Result<(), ImageError> {
    let missing: Vec<Wanted> = wanted.into_iter().filter(|wanted| !present(cache, wanted)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    if offline {
        return Err(ImageError::Offline(first.what.clone()));
    }
    let folder = cache.join("blobs/sha256");
    std::fs::create_dir_all(&folder).map_err(at(&folder))?;
    let bar = bar("fetching", missing.iter().map(|wanted| wanted.size).sum(), progress);
    let client = client()?;
    let mut transfers = futures_util::stream::iter(missing.iter().map(|wanted| one(&client, cache, wanted, &bar)))
        .buffer_unordered(PARALLEL);
    while let Some(result) = transfers.next().await {
        result?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// A bar on standard error, or one that nobody sees. `verb` is what is done, such as `fetching`.
pub(super) fn bar(verb: &'static str, total: u64, progress: bool) -> indicatif::ProgressBar {
    let bar = if progress { indicatif::ProgressBar::new(total) } else { indicatif::ProgressBar::hidden() };
    let template = format!("  {verb} {{bytes}}/{{total_bytes}} {{wide_bar}} {{eta}}");
    if let Ok(style) = indicatif::ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

async fn one(
    client: &reqwest::Client,
    cache: &Path,
    wanted: &Wanted,
    bar: &indicatif::ProgressBar,
) -> Result<(), ImageError> {
    let mut last = FetchError::NoMirror;
    // The second round is for mirrors that failed for a moment.
    for address in wanted.addresses.iter().chain(&wanted.addresses) {
        match transfer(client, cache, wanted, address, bar).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(ImageError::Unavailable { what: wanted.what.clone(), source: last })
}

async fn transfer(
    client: &reqwest::Client,
    cache: &Path,
    wanted: &Wanted,
    address: &str,
    bar: &indicatif::ProgressBar,
) -> Result<(), FetchError> {
    let mut response = client.get(address).send().await?.error_for_status()?;
    let path = blob(cache, &wanted.sha256);
    let mut file = tempfile::NamedTempFile::new_in(cache.join("blobs/sha256"))?;
    let mut hash = Hasher::default();
    let mut size = 0;
    while let Some(chunk) = response.chunk().await? {
        size += chunk.len() as u64;
        if size > wanted.size {
            return Err(FetchError::Content);
        }
        hash.update(&chunk);
        file.write_all(&chunk)?;
        bar.inc(chunk.len() as u64);
    }
    if hash.digest() != wanted.sha256 {
        return Err(FetchError::Content);
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// A mirror that answers everything with this status and body, so many times.
    fn mirror(status: u16, body: &'static str, times: usize) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().take(times).flatten() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 4096]);
                let head =
                    format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        address
    }

    fn wanted(addresses: Vec<String>) -> Vec<Wanted> {
        vec![Wanted { what: "x".into(), sha256: Digest::of(b"right"), size: 5, addresses }]
    }

    #[tokio::test]
    async fn a_file_that_was_cut_off_is_fetched_again_and_a_changed_one_is_taken_out() {
        let cache = tempfile::tempdir().unwrap();
        let digest = keep(cache.path(), b"right").unwrap();
        let path = blob(cache.path(), &digest);
        std::fs::write(&path, "rig").unwrap();
        all(cache.path(), wanted(vec![mirror(200, "right", 1)]), false, false).await.unwrap();
        assert!(verified(cache.path(), &digest).unwrap());
        std::fs::write(&path, "wrong").unwrap();
        assert!(!verified(cache.path(), &digest).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_build_left_is_removed_a_day_later_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * LEFT_BEHIND;
        for (name, time) in [(".tmpold", Some(old)), (".tmpnew", None), ("0a1b", Some(old))] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            if let Some(time) = time {
                file.set_modified(time).unwrap();
            }
        }
        let kept = folder.path().join(".tmpfolder");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("layer"), "x").unwrap();
        std::fs::File::open(&kept).unwrap().set_modified(old).unwrap();
        sweep(&[folder.path(), Path::new("/nowhere")]);
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        assert_eq!(names, [".tmpnew", "0a1b"]);
    }

    #[tokio::test]
    async fn goes_past_mirrors_that_lack_a_file_or_have_another_one() {
        let cache = tempfile::tempdir().unwrap();
        let gone = mirror(404, "right", 9);
        let (wrong, longer) = (mirror(200, "wrong", 9), mirror(200, "right and more", 9));
        let addresses = vec![gone.clone(), wrong.clone(), longer.clone()];
        let error = all(cache.path(), wanted(addresses.clone()), false, false).await.unwrap_err();
        assert!(matches!(error, ImageError::Unavailable { source: FetchError::Content, .. }), "{error:?}");
        assert!(!blob(cache.path(), &Digest::of(b"right")).exists());
        let last = [addresses, vec![mirror(200, "right", 1)]].concat();
        all(cache.path(), wanted(last), false, false).await.unwrap();
        assert_eq!(std::fs::read(blob(cache.path(), &Digest::of(b"right"))).unwrap(), b"right");
        assert!(!blob(cache.path(), &Digest::of(b"wrong")).exists());
        // It is there now, so that no mirror and no network is needed.
        all(cache.path(), wanted(Vec::new()), false, true).await.unwrap();
        let offline = vec![Wanted { sha256: Digest::of(b"other"), ..wanted(Vec::new()).remove(0) }];
        assert!(matches!(all(cache.path(), offline, false, true).await, Err(ImageError::Offline(_))));
    }
}
