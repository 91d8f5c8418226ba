use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

use super::*;
use crate::credential::{aws, held, store, vault};
use crate::project::{ProjectName, SandboxName};

struct Scene {
    folder: tempfile::TempDir,
    project: ProjectName,
    sandbox: SandboxName,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, project: "payments".parse().unwrap(), sandbox: SandboxName::main() }
    }

    fn authority(&self) -> Authority {
        Authority { folder: self.folder.path().join("issuer"), issuer: Some("https://id.example.com/a".to_owned()) }
    }

    fn context(&self) -> IssueContext<'_> {
        let root = self.folder.path();
        IssueContext {
            project: &self.project,
            project_root: root,
            sandbox: &self.sandbox,
            actor: "ada",
            store: store::Store {
                folder: root.join("credentials"),
                recipients: root.join("recipients"),
                identity: store::IdentityPlace::made(root.join("identity.txt")),
                owner: "ada".to_owned(),
            },
            state: root,
            home: root,
            vault: vault::Environment::default(),
            aws: aws::Environment::default(),
            identity: self.authority(),
            held: held::Held::default(),
            session: Some("s-1".to_owned()),
            reason: "up",
        }
    }

    fn sign(&self) -> Signed {
        self.authority().sign(&self.context(), "vault", Map::new(), Timestamp::now()).unwrap()
    }
}

/// The claims, when one of the published keys has the name of the header and verifies the signature.
fn verified(token: &str, jwks: &Value) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!((&header["alg"], &header["typ"]), (&"RS256".into(), &"JWT".into()));
    let key = jwks["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
    let part = |name: &str| decode(key[name].as_str().unwrap());
    let public = RsaPublicKeyComponents { n: part("n"), e: part("e") };
    public.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decode(signature)).ok()?;
    Some(serde_json::from_slice(&decode(claims)).unwrap())
}

#[test]
fn says_whose_sandbox_it_is_and_the_published_key_verifies_it() {
    let scene = Scene::new();
    let signed = scene.sign();
    let documents = scene.authority().documents("payments").unwrap();
    let claims = verified(&signed.text(), &documents.jwks).unwrap();
    let now = Timestamp::now().as_second();
    for (name, expected) in [
        ("iss", "https://id.example.com/a"),
        ("sub", "project:payments"),
        ("aud", "vault"),
        ("project", "payments"),
        ("sandbox", "main"),
        ("user", "ada"),
        ("session", "s-1"),
        ("jti", &signed.id),
    ] {
        assert_eq!(claims[name], expected, "{claims}");
    }
    assert!((now - 62..=now - 58).contains(&claims["iat"].as_i64().unwrap()), "{claims}");
    assert!((now + 297..=now + 301).contains(&claims["exp"].as_i64().unwrap()), "{claims}");
    assert_eq!((documents.key.as_str(), documents.jwks["keys"].as_array().unwrap().len()), (signed.key.as_str(), 1));
    assert_eq!(documents.discovery["jwks_uri"], "https://id.example.com/a/jwks.json");
    // Another text under the same signature is nobody's.
    let (signed_part, signature) = signed.text().rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (header, _) = signed_part.split_once('.').unwrap();
    let forged = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(br#"{"project":"billing"}"#));
    assert!(verified(&forged, &documents.jwks).is_none());
}

#[test]
fn what_one_audience_wants_beside_it_replaces_nothing() {
    let scene = Scene::new();
    let further: Map<String, Value> =
        [("project".to_owned(), json!("billing")), ("tags".to_owned(), json!(["x"]))].into_iter().collect();
    let signed = scene.authority().sign(&scene.context(), "vault", further, Timestamp::now()).unwrap();
    let claims = verified(&signed.text(), &scene.authority().documents("payments").unwrap().jwks).unwrap();
    assert_eq!((&claims["project"], &claims["tags"]), (&"payments".into(), &json!(["x"])));
}

#[test]
fn the_key_is_the_users_alone_and_stays_the_same_until_it_is_rotated() {
    let scene = Scene::new();
    let first = scene.sign();
    assert_eq!(scene.sign().key, first.key);
    let path = scene.authority().folder.join("key.pem");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!format!("{first:?}").contains("eyJ"), "{first:?}");

    scene.authority().rotate().unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let documents = scene.authority().documents("payments").unwrap();
    let second = scene.sign();
    assert_ne!(second.key, first.key);
    // Tokens of both are good while those of the old key may still be about.
    for token in [&first, &second] {
        assert!(verified(&token.text(), &documents.jwks).is_some());
    }
    let later = Timestamp::now() + SignedDuration::from_hours(2);
    let left = keys::published(&scene.authority().folder, later).unwrap();
    assert_eq!(left.len(), 1);
    assert!(verified(&first.text(), &json!({ "keys": left })).is_none());
    // The private halves are nowhere but in the one file.
    let retired = std::fs::read_to_string(scene.authority().folder.join("retired.json")).unwrap();
    assert!(!retired.contains("PRIVATE") && !documents.jwks.to_string().contains("\"d\""));

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = scene.authority().documents("payments").unwrap_err();
    assert!(matches!(refused, IdentityError::Readable { mode: 0o640, .. }), "{refused:?}");
}

#[test]
fn without_an_issuer_nothing_is_signed_and_no_key_is_made() {
    let scene = Scene::new();
    let nobody = Authority { issuer: None, ..scene.authority() };
    for refused in [nobody.documents("payments").map(|_| ()), nobody.rotate()] {
        assert!(matches!(refused, Err(IdentityError::NoIssuer)));
    }
    assert!(!nobody.folder.exists());
}
