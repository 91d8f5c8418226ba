//! What goes wrong on the way and is mended: busy registries, broken connections, logins, mounts.

use std::time::{Duration, Instant};

use base64::Engine as _;
use sandbox::credential::secret::Secret;
use sandbox::image::reference::PinnedImage;
use sandbox::image::registry::{Login, PullContext, PushTarget, RegistryError, pull, push};

use crate::fake::{Answer, Asked, Fake, Store};
use crate::{assert_same, image, login, pulled, pushed};

fn plain(_: &Asked, _: &mut Store) -> Option<Answer> {
    None
}

#[tokio::test]
async fn the_manifest_in_the_registry_has_the_bytes_and_the_digest_of_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let fake = Fake::start(plain);
    let repository = format!("{}/team", fake.address);
    let first = pushed(&image, &repository, None).await.unwrap();
    assert_eq!(first.reference, format!("{repository}@{}", image.manifest_digest));
    assert_eq!((first.uploaded, first.present), (3, 0));
    for name in [image.manifest_digest.to_string(), "v1".to_owned()] {
        assert_eq!(fake.store.lock().unwrap().manifests[&name], image.manifest());
    }
    let second = pushed(&image, &repository, None).await.unwrap();
    assert_eq!((second.uploaded, second.present), (0, 3));
    let cache = folder.path().join("cache");
    assert_same(&image, &pulled(&cache, &repository, &image.manifest_digest, None).await.unwrap());
    // What is in the cache needs no registry any more.
    drop(fake);
    let pinned = PinnedImage { repository: repository.clone(), digest: image.manifest_digest.clone() };
    let context = PullContext { cache: &cache, login: None, authorities: None, progress: false, offline: true };
    assert_same(&image, &pull(&pinned, &context).await.unwrap());
    let empty = folder.path().join("empty");
    let context = PullContext { cache: &empty, login: None, authorities: None, progress: false, offline: true };
    assert!(pull(&pinned, &context).await.unwrap_err().to_string().contains("without the network"));
}

#[tokio::test]
async fn asks_for_a_token_with_its_own_scope_and_shows_the_password_to_the_token_service_alone() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("ada:canary"));
    let wanted = basic.clone();
    let service = Fake::start(move |asked, _| {
        let good = asked.header("authorization") == Some(&wanted);
        Some(if good { Answer::new(200).body(r#"{"token":"t-1"}"#) } else { Answer::new(401) })
    });
    // The challenge asks for more than is needed.
    let challenge = format!(
        r#"Bearer realm="http://{}/token",service="fake",scope="repository:other:pull,push,delete""#,
        service.address
    );
    let fake = Fake::start(move |asked, _| {
        let good = asked.header("authorization") == Some("Bearer t-1");
        if good { None } else { Some(Answer::new(401).with("WWW-Authenticate", &challenge)) }
    });
    let repository = format!("{}/team", fake.address);
    pushed(&image, &repository, login("ada", "canary")).await.unwrap();
    let asked = service.asked("GET", "/token");
    assert_eq!(asked.len(), 1, "one token serves the whole push");
    assert_eq!(asked[0].target, "/token?service=fake&scope=repository%3Ateam%3Apull%2Cpush");
    pulled(&folder.path().join("c"), &repository, &image.manifest_digest, login("ada", "canary")).await.unwrap();
    assert_eq!(service.asked("GET", "/token")[1].target, "/token?service=fake&scope=repository%3Ateam%3Apull");
    for asked in fake.log.lock().unwrap().iter() {
        assert_ne!(asked.header("authorization"), Some(&*basic), "{}", asked.target);
    }
    let refused = pushed(&image, &repository, login("ada", "wrong-canary")).await.unwrap_err();
    assert!(matches!(refused, RegistryError::Denied { status: 401, .. }), "{refused:?}");
    assert!(!format!("{refused:?}").contains("canary"));
}

#[tokio::test]
async fn exchanges_a_refresh_token_for_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let service = Fake::start(|asked, _| {
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        let good = asked.is("POST", "/token") && form.contains("grant_type=refresh_token&service=fake&");
        let good = good && form.ends_with("&refresh_token=r%2F1");
        Some(if good { Answer::new(200).body(r#"{"access_token":"t-2"}"#) } else { Answer::new(401) })
    });
    let challenge = format!(r#"Bearer realm="http://{}/token",service="fake""#, service.address);
    let fake = Fake::start(move |asked, _| {
        let good = asked.header("authorization") == Some("Bearer t-2");
        if good { None } else { Some(Answer::new(401).with("WWW-Authenticate", &challenge)) }
    });
    let login = Login::Identity(Secret::new(b"r/1".to_vec()));
    pushed(&image, &format!("{}/team", fake.address), Some(login)).await.unwrap();
}

#[tokio::test]
async fn waits_as_long_as_a_busy_registry_asks_and_gives_up_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let busy = std::sync::atomic::AtomicU32::new(2);
    let fake = Fake::start(move |_, _| {
        let left = busy.load(std::sync::atomic::Ordering::SeqCst);
        busy.store(left.saturating_sub(1), std::sync::atomic::Ordering::SeqCst);
        (left > 0).then(|| Answer::new(429).with("Retry-After", 1))
    });
    let begun = Instant::now();
    pushed(&image, &format!("{}/team", fake.address), None).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let never = Fake::start(|_, _| Some(Answer::new(429).with("Retry-After", 0)));
    let error = pushed(&image, &format!("{}/team", never.address), None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Busy { status: 429, .. }), "{error:?}");
    assert_eq!(never.log.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn an_upload_that_breaks_off_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let fake = Fake::breaking(Some(70_001), plain);
    let repository = format!("{}/team", fake.address);
    pushed(&image, &repository, None).await.unwrap();
    let patches = fake.asked("PATCH", "");
    let size = image.layers[0].size;
    assert_eq!(patches[1].header("content-range"), Some(format!("70001-{}", size - 1).as_str()));
    assert_eq!(patches[1].body.len() as u64, size - 70_001);
    let cache = folder.path().join("cache");
    assert_same(&image, &pulled(&cache, &repository, &image.manifest_digest, None).await.unwrap());
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let fake = Fake::breaking(Some(70_001), |asked, _| asked.is("GET", "/uploads/").then(|| Answer::new(404)));
    pushed(&image, &format!("{}/team", fake.address), None).await.unwrap();
    assert_eq!(fake.asked("POST", "/uploads/").len(), 4, "three blobs, one of them twice");
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let layer = image.layers[0].diff_id.to_string();
    let left = std::sync::atomic::AtomicU32::new(2);
    let fake = Fake::start(move |asked, store| {
        let breaks = asked.is("GET", &layer) && left.load(std::sync::atomic::Ordering::SeqCst) > 0;
        breaks.then(|| {
            left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            store.answer(asked).cut(1000)
        })
    });
    let repository = format!("{}/team", fake.address);
    pushed(&image, &repository, None).await.unwrap();
    let cache = folder.path().join("cache");
    assert_same(&image, &pulled(&cache, &repository, &image.manifest_digest, None).await.unwrap());
    let ranges: Vec<_> = fake
        .asked("GET", &image.layers[0].diff_id.to_string())
        .iter()
        .map(|asked| asked.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=1000-".into()), Some("bytes=2000-".into())]);
}

#[tokio::test]
async fn layers_of_another_repository_are_mounted_and_a_refused_mount_is_an_upload() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    for (refuses, expected) in [(false, (0, 2)), (true, (3, 0))] {
        let fake = Fake::start(move |asked, store| {
            // The blob is elsewhere: it is not seen here before it is mounted.
            if asked.method == "HEAD" {
                return Some(Answer::new(404));
            }
            if refuses && asked.target.contains("mount=") {
                let plain = Asked { target: asked.target.split('?').next().unwrap().to_owned(), ..asked.clone() };
                return Some(store.answer(&plain));
            }
            None
        });
        for layer in &image.layers {
            fake.store.lock().unwrap().keep(&std::fs::read(&layer.path).unwrap());
        }
        let repository = format!("{}/team", fake.address).parse().unwrap();
        let target = PushTarget { repository, tag: None, mount_from: Some("base".into()), authorities: None };
        let pushed = push(&image, &target, None, false).await.unwrap();
        let uploaded = if refuses { pushed.uploaded } else { pushed.uploaded - 1 };
        assert_eq!((uploaded, pushed.mounted), expected);
        assert!(fake.asked("POST", "mount=sha256").iter().all(|asked| asked.target.ends_with("&from=base")));
    }
}
