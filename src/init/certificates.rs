//! The certificate bundle that the agent's tools read, and the trust store of Java's: the image's own authorities and the
//! session's.

use std::fs;
use std::io;
use std::path::Path;

use super::truststore;

/// The variable with the path of the session's certificate authority; unset for a session without one.
const SESSION_AUTHORITY: &str = "SANDBOX_SESSION_CA";
/// The variable with the path of the merged bundle, on a tmpfs.
const MERGED: &str = "SANDBOX_CA_BUNDLE";
/// The variable with the path of the same as a trust store of Java's.
const TRUST_STORE: &str = "SANDBOX_CA_TRUSTSTORE";
/// Where distributions keep their bundle; the first that exists is used.
const IMAGE_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// The largest certificate file that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// Merges as the container's environment says; does nothing while there is no session authority, or the bundle has it.
/// A gateway that was started again has another authority, so a bundle without it is made anew.
pub(super) fn merge_as_configured() -> io::Result<()> {
    let (Some(authority), Some(merged)) = (std::env::var_os(SESSION_AUTHORITY), std::env::var_os(MERGED)) else {
        return Ok(());
    };
    let (authority, merged) = (Path::new(&authority), Path::new(&merged));
    if !authority.is_file() || read_limited(merged).is_ok_and(|bundle| ends_with(&bundle, authority)) {
        return Ok(());
    }
    let image = IMAGE_BUNDLES.iter().map(Path::new).find(|path| path.is_file());
    let store = std::env::var_os(TRUST_STORE);
    merge(image, authority, merged, store.as_deref().map(Path::new))
}

/// Writes the image's bundle and then the session's authority to `merged`, which appears whole or not at all, and before it
/// the same to `store`.
fn merge(image: Option<&Path>, authority: &Path, merged: &Path, store: Option<&Path>) -> io::Result<()> {
    let mut bundle = match image {
        Some(path) => read_limited(path)?,
        None => Vec::new(),
    };
    if bundle.last().is_some_and(|last| *last != b'\n') {
        bundle.push(b'\n');
    }
    bundle.extend(read_limited(authority)?);
    if let Some(store) = store {
        place(store, &truststore::store(&String::from_utf8_lossy(&bundle)))?;
    }
    place(merged, &bundle)
}

/// A file that appears whole or not at all.
fn place(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, content)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn ends_with(bundle: &[u8], authority: &Path) -> bool {
    read_limited(authority).is_ok_and(|certificate| bundle.ends_with(&certificate))
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, LIMIT + 1), &mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the certificate bundle is larger than 4 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_images_authorities_and_adds_the_sessions_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("image"), "IMAGE").unwrap();
        fs::write(path("session"), "SESSION\n").unwrap();
        merge(Some(&path("image")), &path("session"), &path("new/merged"), Some(&path("new/store"))).unwrap();
        assert_eq!(fs::read_to_string(path("new/merged")).unwrap(), "IMAGE\nSESSION\n");
        assert!(path("new/store").is_file());
        assert!(ends_with(b"IMAGE\nSESSION\n", &path("session")));
        assert!(!ends_with(b"IMAGE\nANOTHER\n", &path("session")));
    }
}
