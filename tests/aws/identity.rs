//! `AssumeRoleWithWebIdentity`: moto answers, and before it stands what moto leaves out, a look at the token as AWS has it
//! ("AssumeRoleWithWebIdentity", API reference; "IAM and AWS STS condition context keys" for the trust policy).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::server::{Request, serve};
use super::token::verify;
use super::*;

const ISSUER: &str = "https://identity.example.com";
const AUDIENCE: &str = "sts.amazonaws.com";

/// AWS in front of moto, with a trust policy for the project `payments`.
fn front(moto: &str, jwks: Value) -> String {
    let moto = moto.to_owned();
    serve(move |request| {
        let refuse = |code: &str, said: &str| {
            (400, format!("<ErrorResponse><Error><Code>{code}</Code><Message>{said}</Message></Error></ErrorResponse>"))
        };
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/"));
        // "Calling AssumeRoleWithWebIdentity does not require the use of AWS security credentials."
        assert_eq!(request.header("authorization"), "");
        let mut form = request.form();
        assert_eq!((form["Action"].as_str(), form["Version"].as_str()), ("AssumeRoleWithWebIdentity", "2011-06-15"));
        for name in form.keys() {
            let known =
                ["Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "Policy", "WebIdentityToken"];
            assert!(known.contains(&name.as_str()) || name.starts_with("PolicyArns."), "{name} is not documented");
        }
        let token = form.remove("WebIdentityToken").unwrap();
        let claims = match verify(&token, &jwks, ISSUER, AUDIENCE) {
            Err(said) => return refuse("InvalidIdentityToken", said),
            Ok(claims) => claims,
        };
        if claims["sub"] != "project:payments" {
            return refuse("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity");
        }
        assert_eq!(claims["https://aws.amazon.com/tags"], json!({ "principal_tags": { "project": ["payments"] } }));
        assert_eq!(claims["https://aws.amazon.com/source_identity"], "ada_lovelace");
        (200, forward(&moto, request))
    })
}

fn forward(moto: &str, request: &Request) -> String {
    let host = moto.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    let form = "content-type: application/x-www-form-urlencoded; charset=utf-8";
    write!(stream, "POST / HTTP/1.0\r\nhost: {host}\r\n{form}\r\ncontent-length: {}\r\n\r\n", request.body.len())
        .unwrap();
    stream.write_all(&request.body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1) == Some("200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_role_is_assumed_by_the_sandboxs_identity_without_any_keys() {
    let moto = Moto::start_open();
    let mut side = Side::new("", "");
    (side.environment.access_key_id, side.environment.secret_access_key) = (None, None);
    let jwks = side.identity().documents("payments").unwrap().jwks;
    let address = Some(front(&moto.address, jwks));
    let spec = AwsStsSpec { address, source: AwsSource::Identity(AUDIENCE.to_owned()), ..moto.spec() };
    let issued = side.issue(&spec).await.unwrap();
    assert_eq!(issued.scope.as_deref(), Some(ARN));
    let left = issued.expires_at.unwrap().as_second() - Timestamp::now().as_second();
    assert!((890..=901).contains(&left), "{left}");

    let code = |refused: &StsError| match refused {
        StsError::Refused { code, .. } => code.clone(),
        other => panic!("{other:?}"),
    };
    // Another audience, another project, another launcher: each is refused, and no token is in what is said of it.
    let another = AwsStsSpec { source: AwsSource::Identity("vault".to_owned()), ..spec.clone() };
    let refused = side.refused(&another).await;
    assert_eq!(code(&refused), "InvalidIdentityToken");
    assert!(!format!("{refused:?} {refused}").contains("eyJ"), "{refused:?}");
    side.project = "billing".parse().unwrap();
    assert_eq!(code(&side.refused(&spec).await), "AccessDenied");
    assert_eq!(code(&Side::new("", "").refused(&spec).await), "InvalidIdentityToken");

    // Without an issuer there is nothing to assume it with.
    let context = IssueContext { identity: Authority::default(), ..side.context() };
    let refused = issue(&name(), &credential(&spec), &context).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Aws(StsError::Identity(_))), "{refused:?}");
}
