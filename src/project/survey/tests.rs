use proptest::prelude::*;

use super::*;

fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn remotes(url: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("origin".to_owned(), url.to_owned())])
}

fn found(files: &[(&str, &str)]) -> Vec<String> {
    let folder = repository(files);
    survey(folder.path(), &BTreeMap::new()).hosts.into_iter().map(|(host, why)| format!("{host} {why}")).collect()
}

#[test]
fn finds_the_hosts_of_each_package_manager_once() {
    assert_eq!(
        found(&[("Cargo.toml", ""), ("pyproject.toml", ""), ("requirements.txt", "requests\n")]),
        [
            "index.crates.io cargo (Cargo.toml)",
            "static.crates.io cargo (Cargo.toml)",
            "pypi.org pip (pyproject.toml)",
            "files.pythonhosted.org pip (pyproject.toml)",
        ]
    );
    assert_eq!(found(&[("pom.xml", ""), ("build.gradle", "")]).len(), 3);
    assert_eq!(found(&[("README.md", "")]), Vec::<String>::new());
}

#[test]
fn finds_the_parts_of_a_monorepo_and_passes_over_what_was_brought_in() {
    assert_eq!(
        found(&[
            ("package.json", "{}"),
            ("apps/web/package.json", "{}"),
            ("services/api/pyproject.toml", ""),
            ("services/worker/Cargo.toml", ""),
            ("node_modules/x/go.mod", ""),
            (".cache/go.mod", ""),
            ("one/two/three/four/Gemfile", ""),
        ]),
        [
            "index.crates.io cargo (services/worker/Cargo.toml)",
            "static.crates.io cargo (services/worker/Cargo.toml)",
            "registry.npmjs.org npm (package.json)",
            "pypi.org pip (services/api/pyproject.toml)",
            "files.pythonhosted.org pip (services/api/pyproject.toml)",
        ]
    );
    assert_eq!(
        found(&[("web/package.json", "{}"), ("web/.npmrc", "registry=https://npm.example.com/\n")]),
        ["npm.example.com npm (.npmrc)"]
    );
}

#[test]
fn follows_no_link_and_does_not_look_without_end() {
    let outside = repository(&[("go.mod", "")]);
    let folder = repository(&[("README.md", "")]);
    std::os::unix::fs::symlink(outside.path(), folder.path().join("linked")).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
    for index in 0..FOLDER_LIMIT + 50 {
        fs::create_dir(folder.path().join(format!("part-{index:05}"))).unwrap();
    }
    assert_eq!(folders(folder.path()).len(), FOLDER_LIMIT);
    assert!(survey(folder.path(), &BTreeMap::new()).hosts.is_empty());
}

#[test]
fn takes_registries_from_the_settings_of_the_clients() {
    let npmrc = "registry=https://npm.example.com/all/\n@acme:registry = \"https://acme.example.com:8443/npm\"\n";
    assert_eq!(
        found(&[("package.json", "{}"), (".npmrc", npmrc)]),
        ["npm.example.com npm (.npmrc)", "acme.example.com npm (.npmrc)"]
    );
    let requirements = "--extra-index-url https://user:word@wheels.example.com/simple\nrequests\n";
    assert_eq!(
        found(&[("requirements.txt", requirements)]),
        [
            "pypi.org pip (requirements.txt)",
            "files.pythonhosted.org pip (requirements.txt)",
            "wheels.example.com pip (requirements.txt)"
        ]
    );
}

#[test]
fn knows_an_agent_by_what_it_leaves() {
    let folder = repository(&[("CLAUDE.md", ""), ("AGENTS.md", "")]);
    let (preset, trace) = survey(folder.path(), &BTreeMap::new()).agent.unwrap();
    assert_eq!((preset.name, trace), ("claude-code", "CLAUDE.md"));
    assert_eq!(survey(repository(&[]).path(), &BTreeMap::new()).agent, None);
}

#[test]
fn names_the_project_after_its_remote_or_its_folder() {
    let folder = repository(&[("My Project_2/x", "")]);
    let root = folder.path().join("My Project_2");
    let named = |url: &str| {
        let found = survey(&root, &remotes(url));
        (found.project.unwrap().to_string(), found.remote.map(|host| host.to_string()))
    };
    let host = |host: &str| Some(host.to_owned());
    assert_eq!(named("git@github.com:acme/payments.api.git"), ("payments-api".into(), host("github.com")));
    assert_eq!(named("https://gitlab.example.com:8443/a/b/"), ("b".into(), host("gitlab.example.com")));
    assert_eq!(named("ssh://git@git.example.com:22/x/y.git"), ("y".into(), host("git.example.com")));
    assert_eq!(named("/srv/git/…"), ("my-project-2".into(), None));
    assert_eq!(survey(&root, &BTreeMap::new()).project.unwrap().as_str(), "my-project-2");
    assert_eq!(survey(Path::new("/"), &BTreeMap::new()).project, None);
}

#[test]
fn the_draft_is_a_manifest_for_every_agent() {
    let folder = repository(&[("Cargo.toml", ""), ("package.json", "")]);
    let found = survey(folder.path(), &remotes("git@github.com:acme/payments.git"));
    for preset in preset::PRESETS {
        let text = draft(&found.project.clone().unwrap(), preset, &found);
        let manifest = crate::project::manifest::parse(&text, &folder.path().join("sandbox.yaml"))
            .unwrap_or_else(|error| panic!("{}: {error:?}\n{text}", preset.name));
        assert_eq!(manifest.network.allow.len(), preset.hosts.len() + 3, "{text}");
        assert_eq!(manifest.credentials.len(), usize::from(preset.key.is_some()));
    }
    insta::assert_snapshot!(draft(&found.project.clone().unwrap(), preset::find("claude-code").unwrap(), &found));
    let empty = Survey { project: None, agent: None, hosts: Vec::new(), remote: None };
    let text = draft(&"bare".parse().unwrap(), preset::find("shell").unwrap(), &empty);
    crate::project::manifest::parse(&text, Path::new("/nowhere/sandbox.yaml")).unwrap();
}

proptest! {
    #[test]
    fn any_remote_gives_a_name(url in ".{0,80}", folder in "[^/\0]{0,60}") {
        survey(&Path::new("/nowhere").join(folder), &remotes(&url));
    }
}
