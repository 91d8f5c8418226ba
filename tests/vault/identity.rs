//! A sandbox's own identity as the log-in: what `sandbox credential identity` prints, told to a real OpenBao, lets one project in
//! and no other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use sandbox::credential::identity::Documents;
use serde_json::{Value, json};

use super::*;

/// Serves the keys as a team's web server does, whatever the path.
struct Published {
    address: String,
    keys: Arc<Mutex<Value>>,
}

impl Published {
    fn start(keys: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(keys.clone()));
        let served = keys.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let body = served.lock().unwrap().to_string();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { address, keys }
    }
}

/// The printed configuration, as `bao write` takes it. The issuer's address is the one thing that a test cannot serve: the
/// keys come from where they are.
fn tell(bao: &Bao, documents: &Documents, published: &Published) {
    let steps: Vec<_> = documents.configuration.iter().filter(|step| step.issuer == "vault").collect();
    assert_eq!(steps.len(), 2);
    let folder = tempfile::tempdir().unwrap();
    for step in steps {
        let mut document = step.document.clone();
        if let Some(discovery) = document.as_object_mut().unwrap().remove("oidc_discovery_url") {
            assert_eq!(discovery, documents.issuer.as_str());
            document["jwks_url"] = json!(published.address);
        }
        let file = folder.path().join("document.json");
        std::fs::write(&file, document.to_string()).unwrap();
        let place = step.call.split_whitespace().nth(2).unwrap();
        bao.run(&["write", place, &format!("@{}", file.display())]);
    }
}

#[tokio::test]
async fn one_project_logs_in_as_itself_and_another_is_refused() {
    let bao = Bao::start();
    bao.policy("payments", READ);
    bao.run(&["auth", "enable", "jwt"]);
    bao.run(&["kv", "put", "secret/payments/api", "key=value-of-the-test"]);
    let mut side = Side::new(&bao.address, "unused");
    let documents = side.identity().documents("payments").unwrap();
    let published = Published::start(&documents.jwks);
    tell(&bao, &documents, &published);
    let auth = |audience: &str| VaultAuth::Jwt {
        mount: "jwt".to_owned(),
        role: "payments".to_owned(),
        jwt: JwtSource::Identity(audience.to_owned()),
    };
    let with = |audience: &str| VaultSpec { auth: auth(audience), ..spec("secret/payments/api", &["key"]) };
    side.issue(&with("vault")).await.unwrap();
    let another = side.refused(&with("another")).await;
    assert!(matches!(&another, VaultError::Failed { .. } | VaultError::Denied { .. }), "{another:?}");

    // The same launcher, the same person, the same key: but a sandbox of another project.
    side.project = "billing".parse().unwrap();
    let refused = side.refused(&with("vault")).await;
    let VaultError::Failed { said, .. } = &refused else { panic!("{refused:?}") };
    assert!(said.contains("sub") || said.contains("claim"), "{said}");
    assert!(!format!("{refused:?}").contains("eyJ"), "{refused:?}");

    // Somebody else's launcher, whose key nobody published.
    let stranger = Side::new(&bao.address, "unused");
    let refused = stranger.refused(&with("vault")).await;
    assert!(matches!(&refused, VaultError::Failed { .. } | VaultError::Denied { .. }), "{refused:?}");

    // A rotation: until the new document is served the server refuses, and from then on it does not.
    side.project = "payments".parse().unwrap();
    side.identity().rotate().unwrap();
    side.refused(&with("vault")).await;
    *published.keys.lock().unwrap() = side.identity().documents("payments").unwrap().jwks;
    side.issue(&with("vault")).await.unwrap();
}
