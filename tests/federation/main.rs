//! The sandbox's own identity: the verb that prints what issuers need.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

mod exchange;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod token;

use support::{Home, Project};

/// What a run of the program said, and that it went well.
fn run(home: &Home, words: &[&str]) -> String {
    let output = home.sandbox().args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {errors}");
    format!("{}{errors}", String::from_utf8_lossy(&output.stdout))
}

const ISSUER: &str = "https://identity.example.com/sandbox";

#[test]
fn prints_what_issuers_need_and_a_token_only_when_it_is_asked_for() {
    let home = Home::new();
    let folder = home.path().join("config/sandbox");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.yaml"), format!("credentials: {{ issuer: {ISSUER} }}\n")).unwrap();
    let project = Project::new(&home, "payments", "image: agent\ncommand: [bash]\n");
    let verb = |further: &[&str]| {
        let said = run(&home, &[&["credential", "identity", project.name()], further].concat());
        assert!(!said.contains("PRIVATE KEY"), "{said}");
        said
    };
    let text = verb(&[]);
    let documents: Value = serde_json::from_str(&verb(&["--format", "json"])).unwrap();
    assert_eq!(documents["issuer"], ISSUER);
    assert_eq!(documents["subject"], format!("project:{}", project.name()));
    for (address, document) in [("discovery_address", "discovery"), ("jwks_address", "jwks")] {
        assert!(documents[address].as_str().unwrap().starts_with(ISSUER), "{documents:#}");
        assert!(text.contains(documents[address].as_str().unwrap()), "{text}");
        assert!(documents[document].is_object(), "{documents:#}");
    }
    assert!(!text.contains("eyJ"), "a token that nobody asked for: {text}");
    let issuers: Vec<_> = documents["configuration"].as_array().unwrap().iter().map(|step| &step["issuer"]).collect();
    for issuer in ["vault", "aws", "gcp", "azure"] {
        assert!(issuers.iter().any(|found| *found == issuer), "{issuers:?}");
    }
    assert!(!run(&home, &["audit", "log"]).contains("identity."), "a look is not recorded");

    let token = verb(&["--token", "vault"]);
    let claims = token::verify(token.trim(), &documents["jwks"], ISSUER, "vault").unwrap();
    assert_eq!((&claims["project"], &claims["sandbox"]), (&project.name().into(), &"main".into()));
    assert_eq!(token::verify(token.trim(), &documents["jwks"], ISSUER, "another"), Err("it is for somebody else"));
    let log = run(&home, &["audit", "log", "--format", "json"]);
    assert!(log.contains("identity.printed") && log.contains(claims["jti"].as_str().unwrap()), "{log}");
    assert!(!log.contains("eyJ"), "the log holds the token: {log}");

    let rotated = verb(&["--rotate"]);
    assert!(rotated.contains("publish the document"), "{rotated}");
    let documents: Value = serde_json::from_str(&verb(&["--format", "json"])).unwrap();
    assert_eq!(documents["jwks"]["keys"].as_array().unwrap().len(), 2);
    token::verify(token.trim(), &documents["jwks"], ISSUER, "vault").unwrap();
    assert!(run(&home, &["audit", "log"]).contains("identity.rotated"));
}
