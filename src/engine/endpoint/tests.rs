use super::*;

fn home() -> (tempfile::TempDir, EngineEnvironment) {
    let folder = tempfile::tempdir().unwrap();
    let environment = EngineEnvironment { home: folder.path().to_owned(), ..EngineEnvironment::default() };
    (folder, environment)
}

fn write_context(folder: &Path, name: &str, meta: &str) -> String {
    let identifier = hex::encode(Sha256::digest(name.as_bytes()));
    let place = folder.join("contexts/meta").join(&identifier);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("meta.json"), meta).unwrap();
    identifier
}

#[test]
fn prefers_the_explicit_address_to_everything_else() {
    let (_folder, mut environment) = home();
    environment.docker_host = Some("unix:///host.sock".into());
    environment.docker_context = Some("remote".into());
    assert_eq!(discover(Some("unix:///mine.sock"), &environment).unwrap(), Endpoint::Unix("/mine.sock".into()));
    assert_eq!(discover(None, &environment).unwrap(), Endpoint::Unix("/host.sock".into()));
}

#[test]
fn reads_the_context_that_the_environment_names() {
    let (folder, mut environment) = home();
    write_context(
        &folder.path().join(".docker"),
        "remote",
        r#"{"Name":"remote","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://10.0.0.7:2375","SkipTLSVerify":false}}}"#,
    );
    environment.docker_context = Some("remote".into());
    assert_eq!(discover(None, &environment).unwrap(), Endpoint::Tcp("10.0.0.7:2375".into()));
}

#[test]
fn reads_the_current_context_in_the_folder_that_docker_config_names() {
    let (folder, mut environment) = home();
    let configuration = folder.path().join("elsewhere");
    write_context(&configuration, "rootless", r#"{"Endpoints":{"docker":{"Host":"unix:///run/user/7/docker.sock"}}}"#);
    std::fs::write(configuration.join("config.json"), r#"{"auths":{},"currentContext":"rootless"}"#).unwrap();
    environment.docker_config = Some(configuration);
    assert_eq!(discover(None, &environment).unwrap(), Endpoint::Unix("/run/user/7/docker.sock".into()));
}

#[test]
fn names_a_context_that_is_not_there() {
    let (_folder, mut environment) = home();
    environment.docker_context = Some("../../etc".into());
    let error = discover(None, &environment).unwrap_err();
    assert!(matches!(error, EngineError::ContextMissing { name } if name == "../../etc"));
}

#[test]
fn refuses_a_configuration_that_is_too_large_or_not_json() {
    let (folder, environment) = home();
    let file = folder.path().join(".docker/config.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{").unwrap();
    assert!(matches!(discover(None, &environment), Err(EngineError::ConfigurationInvalid { .. })));
    std::fs::write(&file, vec![b' '; (FILE_LIMIT + 1) as usize]).unwrap();
    assert!(matches!(discover(None, &environment), Err(EngineError::ConfigurationUnreadable { .. })));
}

#[test]
fn never_speaks_plain_text_where_tls_was_asked_for() {
    let (folder, mut environment) = home();
    environment.docker_host = Some("tcp://build.example:2376".into());
    environment.docker_tls_verify = true;
    let tls = |result| matches!(result, Err(EngineError::EndpointInvalid { source: EndpointProblem::Tls, .. }));
    assert!(tls(discover(None, &environment)));
    assert!(tls(discover(Some("https://build.example"), &environment)));

    environment.docker_host = None;
    environment.docker_context = Some("secure".into());
    let docker = folder.path().join(".docker");
    let identifier =
        write_context(&docker, "secure", r#"{"Endpoints":{"docker":{"Host":"tcp://build.example:2376"}}}"#);
    std::fs::create_dir_all(docker.join("contexts/tls").join(identifier)).unwrap();
    assert!(tls(discover(None, &environment)));
}

#[test]
fn tells_why_an_address_cannot_be_used() {
    for (address, expected) in [
        ("ssh://me@host", EndpointProblem::Ssh),
        ("npipe:////./pipe/docker", EndpointProblem::Scheme),
        ("unix://relative.sock", EndpointProblem::RelativePath),
        ("localhost:2375", EndpointProblem::Syntax),
        ("tcp://", EndpointProblem::Syntax),
        ("tcp://host:0", EndpointProblem::Syntax),
        ("tcp://host:port", EndpointProblem::Syntax),
        ("tcp://user@host:1", EndpointProblem::Syntax),
        ("tcp://host:1/path", EndpointProblem::Syntax),
        ("tcp://[::1:2375", EndpointProblem::Syntax),
    ] {
        match parse(address) {
            Err(EngineError::EndpointInvalid { source, .. }) => assert_eq!(source, expected, "{address}"),
            other => panic!("{address}: {other:?}"),
        }
    }
}

#[test]
fn completes_a_tcp_address_with_the_port_of_docker() {
    for (address, expected) in
        [("tcp://host", "host:2375"), ("tcp://host:4243/", "host:4243"), ("tcp://[::1]", "[::1]:2375")]
    {
        assert_eq!(parse(address).unwrap(), Endpoint::Tcp(expected.into()));
    }
}

#[test]
fn takes_the_first_usual_socket_that_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, present) = (folder.path().join("absent.sock"), folder.path().join("present.sock"));
    let _listener = std::os::unix::net::UnixListener::bind(&present).unwrap();
    assert_eq!(usual_socket(&[absent.clone(), present.clone()]), present);
    assert_eq!(usual_socket(std::slice::from_ref(&absent)), absent);
}
