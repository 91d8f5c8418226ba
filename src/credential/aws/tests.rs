use std::path::PathBuf;

use super::*;
use crate::credential::spec::AwsSource;

fn spec() -> AwsStsSpec {
    AwsStsSpec {
        address: None,
        role: "arn:aws:iam::123456789012:role/teams/agents".to_owned(),
        region: "eu-central-1".to_owned(),
        source: AwsSource::Environment,
        ttl: SHORTEST,
        policy: Some("{\"a\": \"b&c\"}".to_owned()),
        policy_arns: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()],
        tags: [("project".to_owned(), "pay ments".to_owned())].into(),
        external_id: None,
        source_identity: true,
    }
}

fn answer(life: i64, arn: &str) -> Answer {
    let now = Timestamp::now();
    let end = (now + SignedDuration::from_secs(life)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = format!(
        "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s/+=\
         </SecretAccessKey><SessionToken>t/+=</SessionToken><Expiration>{end}</Expiration></Credentials>\
         <AssumedRoleUser><Arn>{arn}</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
    );
    Answer { status: 200, body: Zeroizing::new(body), date: Some(now) }
}

const ARN: &str = "arn:aws:sts::123456789012:assumed-role/agents/n";

#[test]
fn a_form_says_what_is_asked_for_and_nothing_breaks_out_of_it() {
    let form = form(&spec(), "n", "a b&Action=x");
    assert!(form.starts_with("Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws"), "{form}");
    assert!(form.contains("DurationSeconds=900") && form.contains("Policy=%7B%22a%22%3A+%22b%26c%22%7D"), "{form}");
    assert!(form.contains("Tags.member.1.Value=pay+ments"), "{form}");
    assert!(form.contains("SourceIdentity=a_b_Action%3Dx"), "{form}");
    assert_eq!(form.matches("Action=").count(), 1, "{form}");
}

#[test]
fn takes_the_session_that_was_asked_for_and_no_other() {
    let good = assumed(&spec(), "n", &answer(900, ARN)).unwrap();
    let document: serde_json::Value = serde_json::from_slice(good.value.expose()).unwrap();
    assert_eq!((&document["Version"], &document["SecretAccessKey"]), (&1.into(), &"s/+=".into()));
    assert!(matches!(revoke(&good.handle).unwrap(), Revocation::ExpiresAt(time) if time == good.expires_at));
    assert!(revoke("nonsense").is_err());
    for (life, arn) in
        [(3600, ARN), (900, "arn:aws:sts::123456789012:assumed-role/admin/n"), (900, &ARN.replace("/n", "/m"))]
    {
        assert!(matches!(assumed(&spec(), "n", &answer(life, arn)), Err(StsError::Other(_))), "{life} {arn}");
    }
    for missing in ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "Arn"] {
        let mut broken = answer(900, ARN);
        let twice = format!("<{missing}>x</{missing}>{}", *broken.body);
        let without = broken.body.replace(missing, "Other");
        for body in [twice, without, broken.body.replace("t/+=", "t\"")] {
            broken.body = Zeroizing::new(body);
            assert!(assumed(&spec(), "n", &broken).is_err(), "{missing}");
        }
    }
}

#[test]
fn the_endpoint_is_the_regions() {
    assert_eq!(endpoint(&spec()), "https://sts.eu-central-1.amazonaws.com/");
    let china = AwsStsSpec {
        role: "arn:aws-cn:iam::123456789012:role/a".to_owned(),
        region: "cn-north-1".to_owned(),
        ..spec()
    };
    assert_eq!(endpoint(&china), "https://sts.cn-north-1.amazonaws.com.cn/");
    assert_eq!(
        PathBuf::from("/run/secrets").join("aws"),
        PathBuf::from(configuration(&spec(), "aws").split_whitespace().last().unwrap())
    );
}

#[test]
fn an_identity_says_tags_and_person_in_its_claims_since_the_form_has_no_field_for_them() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().unwrap();
    let (project, sandbox) = ("payments".parse().unwrap(), crate::project::SandboxName::main());
    let issuer = Some("https://identity.example.com".to_owned());
    let context = IssueContext {
        project: &project,
        project_root: folder.path(),
        sandbox: &sandbox,
        actor: "ada",
        store: crate::credential::store::Store {
            folder: folder.path().join("credentials"),
            recipients: folder.path().join("recipients"),
            identity: crate::credential::store::IdentityPlace::given(folder.path().join("identity.txt")),
            owner: "ada".to_owned(),
        },
        state: folder.path(),
        home: folder.path(),
        vault: crate::credential::vault::Environment::default(),
        aws: Environment::default(),
        identity: crate::credential::identity::Authority { folder: folder.path().join("issuer"), issuer },
        held: crate::credential::held::Held::default(),
        session: None,
        reason: "up",
    };
    let form = signed_form(&spec(), "n", "sts.amazonaws.com", &context, Timestamp::now()).unwrap();
    assert!(form.starts_with("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn="), "{}", *form);
    assert!(!form.contains("Tags.") && !form.contains("&SourceIdentity="), "{}", *form);
    let token = form.rsplit_once("&WebIdentityToken=").unwrap().1;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["https://aws.amazon.com/tags"], json!({ "principal_tags": { "project": ["pay ments"] } }));
    assert_eq!(claims["https://aws.amazon.com/source_identity"], "ada");
    assert_eq!((&claims["sub"], &claims["aud"]), (&"project:payments".into(), &"sts.amazonaws.com".into()));
}
