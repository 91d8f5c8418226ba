use super::*;

fn values(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    pairs
        .iter()
        .map(|(name, values)| ((*name).to_owned(), values.iter().map(|&value| value.to_owned()).collect()))
        .collect()
}

fn nowhere() -> &'static Path {
    Path::new("/nowhere")
}

fn written(text: &str) -> Result<NetworkPreset, PresetError> {
    read("own", text, None)
}

#[test]
fn every_preset_that_comes_along_is_whole_and_has_rules_for_each_host() {
    let names = names(nowhere());
    for expected in ["github", "gitlab", "anthropic", "openai", "google", "npm", "pypi", "crates", "debian", "go"] {
        assert!(names.iter().any(|name| name == expected), "{expected}");
    }
    for name in names {
        let preset = find(&name, nowhere()).unwrap();
        let examples = preset.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.examples.clone()));
        let entries = preset.entries(&examples.collect()).unwrap();
        assert!(!entries.is_empty() && entries.iter().all(|entry| !entry.rules.is_empty()), "{name}");
    }
}

#[test]
fn github_opens_the_named_repositories_and_nothing_else_of_the_host() {
    let preset = find("github", nowhere()).unwrap();
    let values = values(&[("repositories", &["acme/api"]), ("read", &["acme/protocols"])]);
    let entries = preset.entries(&values).unwrap();
    let allows = |host: &str, method: &str, path: &str| {
        let path = path.parse().unwrap();
        let entry = entries.iter().find(|entry| entry.host.to_string() == host);
        entry.is_some_and(|entry| entry.rules.iter().any(|rule| rule.allows(method, false, &path)))
    };
    assert!(allows("github.com", "GET", "/acme/api.git/info/refs"));
    assert!(allows("github.com", "POST", "/acme/api.git/git-receive-pack"));
    assert!(allows("github.com", "POST", "/acme/protocols.git/git-upload-pack"));
    assert!(!allows("github.com", "POST", "/acme/protocols.git/git-receive-pack"), "it may only be read");
    assert!(!allows("github.com", "POST", "/mallory/api.git/git-receive-pack"));
    assert!(!allows("github.com", "GET", "/acme/other.git/info/refs"));
    assert!(allows("api.github.com", "POST", "/repos/acme/api/pulls"));
    for (method, path) in [
        ("POST", "/gists"),
        ("POST", "/graphql"),
        ("POST", "/repos/acme/protocols/issues"),
        ("PUT", "/repos/acme/api/pulls/1/merge"),
        ("POST", "/repos/acme/api/hooks"),
        ("GET", "/user/repos"),
    ] {
        assert!(!allows("api.github.com", method, path), "{method} {path}");
    }
}

#[test]
fn an_entry_whose_rules_all_go_is_gone_and_never_a_whole_host() {
    let preset = find("github", nowhere()).unwrap();
    assert!(preset.entries(&BTreeMap::new()).unwrap().is_empty());
    let read = preset.entries(&values(&[("read", &["acme/protocols"])])).unwrap();
    assert!(read.iter().all(|entry| entry.rules.iter().all(|rule| !rule.to_string().contains("receive-pack"))));
}

#[test]
fn a_path_in_its_encoded_form_is_one_segment() {
    let preset = find("gitlab", nowhere()).unwrap();
    let values = values(&[("host", &["gitlab.acme.example"]), ("projects", &["acme/team/api"])]);
    let entries = preset.entries(&values).unwrap();
    assert_eq!(entries[0].host.to_string(), "gitlab.acme.example");
    let allows = |path: &str| {
        let path = path.parse().unwrap();
        entries[0].rules.iter().any(|rule| rule.allows("GET", false, &path))
    };
    assert!(allows("/api/v4/projects/acme%2Fteam%2Fapi/merge_requests"));
    assert!(!allows("/api/v4/projects/acme%2Fteam%2Fother/merge_requests") && !allows("/api/v4/projects/7/issues"));
}

#[test]
fn a_value_is_a_host_or_a_path_below_an_account() {
    let parameter = |kind| Parameter { kind, optional: false, examples: Vec::new(), description: String::new() };
    for proper in ["acme/api", "acme/team/api-2", "a_b/c.d"] {
        assert!(parameter(Kind::Path).check(proper).is_ok(), "{proper}");
    }
    for odd in [
        "",
        "acme",
        "acme/",
        "/acme/api",
        "acme/*",
        "acme/**",
        "acme/..",
        "acme//api",
        "acme/a b",
        "acme/api.git",
        "a/{b}",
        "a/b?c",
        "a/%2e",
    ] {
        assert!(parameter(Kind::Path).check(odd).is_err(), "{odd}");
    }
    assert!(parameter(Kind::Host).check("a.example").is_ok());
    for odd in ["*.a.example", "10.0.0.1", "a.example/x", "", "a.example:443"] {
        assert!(parameter(Kind::Host).check(odd).is_err(), "{odd}");
    }
}

#[test]
fn refuses_a_file_that_would_not_do_what_it_says() {
    let with = |parameters: &str, allow: &str| {
        written(&format!("description: d\nparameters: {{{parameters}}}\nallow: [{allow}]\n"))
    };
    let path = "p: { kind: path, examples: [a/b], description: d }";
    let host = "h: { kind: host, examples: [a.example], description: d }";
    assert!(with(path, "{ host: a.example, rules: [\"GET /{p}/**\"] }").is_ok());
    for (parameters, allow) in [
        (path, "{ host: a.example, rules: [\"GET /{q}/**\"] }"),
        (path, "{ host: a.example, rules: [\"GET /{p}/{p}\"] }"),
        (path, "{ host: a.example, rules: [\"GET /{p\"] }"),
        (path, "{ host: a.example, rules: [\"GET /p}\"] }"),
        (path, "{ host: a.example, rules: [\"GET /{p:raw}\"] }"),
        (path, "{ host: \"{p}\", rules: [\"GET /**\"] }"),
        (host, "{ host: a.example, rules: [\"GET /{h}/**\"] }"),
        (host, "{ host: \"{h:encoded}\" }"),
        ("", "{ host: \"10.0.0.1\" }"),
        ("", "{ host: a.example, allow_private: 10.0.0.0/8 }"),
        ("", "{ host: a.example, rules: [\"get /\"] }"),
        ("P: { kind: path, examples: [a/b], description: d }", ""),
        ("p: { kind: path, examples: [a], description: d }", ""),
        ("p: { kind: word, examples: [a], description: d }", ""),
    ] {
        assert!(with(parameters, allow).is_err(), "{parameters} {allow}");
    }
}

#[test]
fn a_projects_own_file_comes_first_and_is_known_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let presets = folder.path().join(FOLDER);
    std::fs::create_dir_all(&presets).unwrap();
    let own = "description: ours\nallow: [{ host: git.acme.example, rules: [\"GET /**\"] }]\n";
    std::fs::write(presets.join("github.yaml"), own).unwrap();
    std::fs::write(presets.join("artifacts.yaml"), own).unwrap();
    std::fs::write(presets.join("Not A Name.yaml"), own).unwrap();
    let found = find("github", folder.path()).unwrap();
    assert_eq!(found.file, Some((format!("{FOLDER}/github.yaml"), Digest::of(own.as_bytes()))));
    assert_eq!(found.entries(&BTreeMap::new()).unwrap()[0].host.to_string(), "git.acme.example");
    let names = names(folder.path());
    assert!(names.iter().any(|name| name == "artifacts") && !names.iter().any(|name| name.contains(' ')));
    for odd in ["../github", "", "a/b", "nosuch", "GitHub"] {
        assert!(matches!(find(odd, folder.path()), Err(PresetError::Unknown(_))), "{odd}");
    }
    std::os::unix::fs::symlink("/etc/passwd", presets.join("link.yaml")).unwrap();
    assert!(matches!(find("link", folder.path()), Err(PresetError::Read { .. })));
    std::fs::write(presets.join("broken.yaml"), "description: d\nallow: no\n").unwrap();
    assert!(matches!(find("broken", folder.path()), Err(PresetError::Syntax { .. })));
}

proptest::proptest! {
    #[test]
    fn no_value_that_is_accepted_widens_a_rule(value in "[ -~]{0,24}") {
        let preset = find("github", nowhere()).unwrap();
        if preset.parameters["repositories"].check(&value).is_ok() {
            let entries = preset.entries(&values(&[("repositories", &[&value])])).unwrap();
            for path in ["/mallory/x.git/info/refs", "/gists", "/acme/info/refs/x"] {
                let path = path.parse().unwrap();
                let open = entries.iter().any(|entry| entry.rules.iter().any(|rule| rule.allows("GET", false, &path)));
                proptest::prop_assert!(!open || value.starts_with("mallory/x") || value.starts_with("acme/info"), "{value}");
            }
        }
    }
}
