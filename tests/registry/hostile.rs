//! Registries that lie, and registries that send the launcher where it must not go.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sandbox::image::reference::Digest;
use sandbox::image::registry::RegistryError;
use serde_json::json;

use crate::fake::{Answer, Asked, Fake, Store};
use crate::{architecture, assert_same, chain, config, image, login, pulled, pushed};

/// The names of all files of the cache that look like content by digest.
fn kept(cache: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["blobs/sha256", "layers"] {
        for entry in std::fs::read_dir(cache.join(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            // What has a name by digest has that digest.
            let stem = name.trim_end_matches(".tar");
            assert_eq!(Digest::of(&std::fs::read(&path).unwrap()).hex(), stem, "{}", path.display());
            names.push(stem.to_owned());
        }
    }
    names
}

#[tokio::test]
async fn refuses_a_flipped_byte_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let parts = [
        ("manifest", image.manifest_digest.clone()),
        ("configuration", image.config_digest.clone()),
        ("layer", image.layers[1].diff_id.clone()),
    ];
    for (what, digest) in parts {
        let wrong = Arc::new(Mutex::new(None));
        let (flips, name) = (wrong.clone(), digest.to_string());
        let fake = Fake::start(move |asked, store| {
            let bytes = store.blobs.get(&name).or_else(|| store.manifests.get(&name)).cloned();
            (asked.is("GET", &name) && flips.lock().unwrap().is_some()).then(|| {
                let mut bytes = bytes.unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                Answer::new(200).body(bytes)
            })
        });
        let repository = format!("{}/team", fake.address);
        pushed(&image, &repository, None).await.unwrap();
        // The control: with right bytes the same pull succeeds.
        pulled(&folder.path().join(format!("good-{what}")), &repository, &image.manifest_digest, None).await.unwrap();
        *wrong.lock().unwrap() = Some(());
        let cache = folder.path().join(format!("bad-{what}"));
        let error = pulled(&cache, &repository, &image.manifest_digest, None).await.unwrap_err();
        assert!(matches!(&error, RegistryError::Digest { wanted, .. } if *wanted == digest), "{what}: {error:?}");
        assert!(error.to_string().contains(what), "{error}");
        assert!(!kept(&cache).contains(&digest.hex()), "{what} is in the cache");
    }
}

#[tokio::test]
async fn refuses_a_good_manifest_that_is_another_than_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let asked_for = image.manifest_digest.to_string();
    let (name, lies) = (asked_for.clone(), Arc::new(AtomicBool::new(false)));
    let lie = lies.clone();
    let fake = Fake::start(move |asked, store| {
        let bytes = store.manifests.get(&name).cloned()?;
        (asked.is("GET", &name) && lie.load(Ordering::SeqCst)).then(|| {
            let mut other: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            other["annotations"] = json!({"org.opencontainers.image.title": "another"});
            // The header says what the client wants to hear.
            Answer::new(200).with("docker-content-digest", &name).body(other.to_string().into_bytes())
        })
    });
    let repository = format!("{}/team", fake.address);
    pushed(&image, &repository, None).await.unwrap();
    // A push looks at what came of it, so the lies begin after it.
    lies.store(true, Ordering::SeqCst);
    let cache = folder.path().join("cache");
    let error = pulled(&cache, &repository, &image.manifest_digest, None).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Digest { wanted, .. } if wanted.to_string() == asked_for), "{error:?}");
    assert!(kept(&cache).is_empty());
}

#[tokio::test]
async fn refuses_fewer_and_more_bytes_than_the_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let layer = image.layers[0].diff_id.to_string();
    for more in [false, true] {
        let name = layer.clone();
        let fake = Fake::start(move |asked, store| {
            let bytes = store.blobs.get(&name).cloned()?;
            asked.is("GET", &name).then(|| {
                let other = if more { [&bytes[..], b"x"].concat() } else { bytes[1..].to_vec() };
                Answer::new(200).body(other)
            })
        });
        let repository = format!("{}/team", fake.address);
        pushed(&image, &repository, None).await.unwrap();
        let error = pulled(&folder.path().join("c"), &repository, &image.manifest_digest, None).await.unwrap_err();
        assert!(matches!(error, RegistryError::Size { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn refuses_a_push_that_the_registry_stored_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let fake = Fake::start(|asked, _| asked.is("GET", "/manifests/").then(|| Answer::new(200).body("{}")));
    let error = pushed(&image, &format!("{}/team", fake.address), None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error:?}");
}

/// Puts an image of compressed layers into a fake, with an index above it, and gives the digest of the index.
fn compressed(store: &mut Store, layers: &[Vec<u8>], claimed: &[Digest]) -> Digest {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let packed = [gzip(&layers[0]), zstd::encode_all(&layers[1][..], 1).unwrap()];
    let ids: Vec<String> = claimed.iter().map(Digest::to_string).collect();
    let root = json!({"type": "layers", "diff_ids": ids});
    let config = json!({"architecture": architecture(), "os": "linux", "rootfs": root}).to_string();
    let descriptor =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &packed[0]),
            descriptor("application/vnd.oci.image.layer.v1.tar+zstd", &packed[1]),
        ],
    });
    let manifest = manifest.to_string();
    store.keep(config.as_bytes());
    for bytes in &packed {
        store.keep(bytes);
    }
    store.keep_manifest(manifest.as_bytes());
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    entry["platform"] = json!({"os": "linux", "architecture": architecture()});
    let mut other = descriptor("application/vnd.oci.image.manifest.v1+json", b"other");
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let index = json!({"schemaVersion": 2, "manifests": [other, entry]}).to_string();
    store.keep_manifest(index.as_bytes())
}

#[tokio::test]
async fn unpacks_compressed_layers_of_the_right_platform_and_compares_them_with_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let layers: Vec<Vec<u8>> = image.layers.iter().map(|layer| std::fs::read(&layer.path).unwrap()).collect();
    let ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let fake = Fake::start(|_, _| None);
    let repository = format!("{}/team", fake.address);
    let digest = compressed(&mut fake.store.lock().unwrap(), &layers, &ids);
    let found = pulled(&folder.path().join("good"), &repository, &digest, None).await.unwrap();
    assert_eq!(found.config(), config(&image.layers));
    assert_same(&image, &found);
    // The bytes that travel are those of their digest, and what they unpack to is something else.
    let lies = [ids[0].clone(), Digest::of(b"other")];
    let digest = compressed(&mut fake.store.lock().unwrap(), &layers, &lies);
    let cache = folder.path().join("bad");
    let error = pulled(&cache, &repository, &digest, None).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Digest { wanted, .. } if *wanted == lies[1]), "{error:?}");
    assert!(!kept(&cache).contains(&lies[1].hex()));
}

#[tokio::test]
async fn follows_to_another_host_without_the_login() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let elsewhere = Fake::start(|_, _| None);
    for layer in &image.layers {
        elsewhere.store.lock().unwrap().keep(&std::fs::read(&layer.path).unwrap());
    }
    let to = elsewhere.address;
    let fake = Fake::start(move |asked, _| {
        if asked.header("authorization").is_none() {
            return Some(Answer::new(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        }
        let digest = asked.target.rsplit('/').next().unwrap().to_owned();
        let place = format!("http://{to}/v2/cdn/blobs/{digest}?signature=s");
        asked.is("GET", "/blobs/sha256").then(|| Answer::new(307).with("Location", place))
    });
    elsewhere.store.lock().unwrap().keep(image.config());
    let repository = format!("{}/team", fake.address);
    pushed(&image, &repository, login("ada", "canary")).await.unwrap();
    let cache = folder.path().join("cache");
    let found = pulled(&cache, &repository, &image.manifest_digest, login("ada", "canary")).await.unwrap();
    assert_same(&image, &found);
    let asked = elsewhere.asked("GET", "/v2/cdn/blobs/");
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()));
}

async fn sent_to(place: &'static str, status: u16) -> RegistryError {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let fake = Fake::start(move |asked, _| {
        asked.is("GET", "/blobs/sha256").then(|| Answer::new(status).with("Location", place))
    });
    let repository = format!("{}/team", fake.address);
    pushed(&image, &repository, None).await.unwrap();
    pulled(&folder.path().join("c"), &repository, &image.manifest_digest, None).await.unwrap_err()
}

#[tokio::test]
async fn refuses_to_be_sent_to_metadata_services_private_networks_and_the_clear() {
    for (place, status) in [
        ("https://169.254.169.254/latest/meta-data/", 302),
        ("http://169.254.169.254/latest/meta-data/", 307),
        ("https://10.0.0.1/", 307),
        ("https://[fd00:ec2::254]/", 301),
        ("https://[::ffff:192.168.0.1]/", 308),
        ("https://0/", 307),
        ("http://example.com/", 307),
        ("ftp://127.0.0.1/", 303),
        ("file:///etc/passwd", 302),
        ("http://ada:canary@127.0.0.1/", 302),
    ] {
        let error = sent_to(place, status).await;
        assert!(matches!(error, RegistryError::Redirection { .. }), "{place}: {error:?}");
        assert!(!chain(&error).contains("canary") && !chain(&error).contains("meta-data"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn refuses_a_circle_of_redirections() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(|asked, _| Some(Answer::new(302).with("Location", &asked.target)));
    let error = pulled(folder.path(), &format!("{}/team", fake.address), &Digest::of(b"x"), None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Redirection { .. }), "{error:?}");
    assert!(fake.log.lock().unwrap().len() < 10);
}

#[tokio::test]
async fn uploads_are_not_redirected_and_their_addresses_get_no_login_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let fake = Fake::start(|asked, _| {
        asked.is("PATCH", "").then(|| Answer::new(307).with("Location", "/v2/team/blobs/uploads/other"))
    });
    let error = pushed(&image, &format!("{}/team", fake.address), None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Redirection { .. }), "{error:?}");
    let thief = Fake::start(|_, _| Some(Answer::new(404)));
    let to = thief.address;
    let fake = Fake::start(move |asked: &Asked, _: &mut Store| {
        if asked.header("authorization").is_none() {
            return Some(Answer::new(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        }
        let place = format!("http://{to}/v2/team/blobs/uploads/1");
        asked.is("POST", "").then(|| Answer::new(202).with("Location", place))
    });
    pushed(&image, &format!("{}/team", fake.address), login("ada", "canary")).await.unwrap_err();
    let asked = thief.log.lock().unwrap().clone();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn refuses_token_services_that_are_not_safe() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    for realm in ["http://auth.example.com/token", "https://169.254.169.254/token", "nowhere", "https://u:p@x.example/"]
    {
        let fake = Fake::start(move |_, _| {
            Some(Answer::new(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")))
        });
        let error = pushed(&image, &format!("{}/team", fake.address), login("ada", "canary")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Challenge { .. }), "{realm}: {error:?}");
    }
    let endless = Fake::start(|_, _| Some(Answer::new(200).body(vec![b' '; 1 << 20])));
    let realm = format!("http://{}/token", endless.address);
    let fake =
        Fake::start(move |_, _| Some(Answer::new(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))));
    let error = pushed(&image, &format!("{}/team", fake.address), None).await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}
