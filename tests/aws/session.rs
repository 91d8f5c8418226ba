//! A whole session with a role of AWS: what the agent finds, and what is said of it at the end.

use serde_json::Value;

use crate::Moto;
use crate::support::{Home, Project, assert_no_canary};

#[test]
fn the_agent_has_the_role_and_the_end_is_told_as_an_expiry() {
    let moto = Moto::start();
    let home = Home::new();
    let manifest = format!(
        "image: agent
command: [bash, -l]
credentials:
  cloud:
    provider: aws-sts
    address: {}
    role: arn:aws:iam::123456789012:role/agents
    region: eu-central-1
    policy_arns: [arn:aws:iam::aws:policy/ReadOnlyAccess]
",
        moto.address
    );
    let project = Project::new(&home, "aws", &manifest);
    let run = |words: &[&str]| {
        let mut command = home.sandbox();
        command.args(words).env("AWS_ACCESS_KEY_ID", &moto.id).env("AWS_SECRET_ACCESS_KEY", &moto.secret);
        command.env_remove("AWS_SESSION_TOKEN");
        let output = command.output().unwrap();
        let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(0), "{words:?}: {errors}{said}");
        said
    };
    let plan = run(&["plan", project.name()]);
    assert!(plan.contains("cloud from aws-sts") && plan.contains("15m"), "{plan}");
    let listed: Value = serde_json::from_str(&run(&["credential", "ls", project.name(), "--format", "json"])).unwrap();
    assert_eq!((&listed[0]["provider"], &listed[0]["state"]), (&"aws-sts".into(), &"on_demand".into()));

    run(&["up", project.name(), "--detach", "--", "sleep", "300"]);
    // As a program of AWS does it: the configuration names the command that prints the keys.
    let shown = "$(sed -n 's/^credential_process = //p' \"$AWS_CONFIG_FILE\")";
    let keys: Value = serde_json::from_str(&run(&["exec", project.name(), "--", "sh", "-c", shown])).unwrap();
    assert_eq!(keys["Version"], 1);
    let (secret, token) = (keys["SecretAccessKey"].as_str().unwrap(), keys["SessionToken"].as_str().unwrap());
    assert_ne!(keys["AccessKeyId"], moto.id.as_str());
    assert_no_canary(&home, project.name(), &[secret, token]);
    // The developer's own keys stay on the developer's side.
    assert!(!run(&["exec", project.name(), "--", "env"]).contains(&moto.secret));

    run(&["down", "--discard", project.name()]);
    let log = run(&["audit", "log", "--format", "json"]);
    assert!(log.contains("credential.left_to_expire") && log.contains("not revoked; expires at"), "{log}");
    assert!(!log.contains("credential.revoked"), "{log}");
    assert!(!log.contains(secret) && !log.contains(&moto.secret), "the audit log holds a secret");
}
