//! Shows that a brokered credential is put into a request, without sending anything: a request is made up, judged and given
//! its credential by the same code as the agent's, and what then stands in its place answers the launcher's question.

use http::Request;
use http::header::{AUTHORIZATION, HOST};
use zeroize::Zeroizing;

use crate::credential::challenge;
use crate::credential::secret::Secret;
use crate::gateway::broker::{self, Broker};
use crate::gateway::protocol::{Proof, Proven};
use crate::gateway::sigv4;
use crate::network::placement::Placement;
use crate::network::policy::Policy;
use crate::network::request::RequestPath;

/// What the agent's programs send where the credential has to stand. It must not be there afterwards.
const STAND_IN: &str = "sandbox-brokered";

/// Answers for the request that is asked about. An error is why it would not carry the credential, in words for people.
///
/// # Errors
/// When the policy does not allow the request, or the credential is not here or does not fit.
pub fn prove(policy: Option<&Policy>, broker: &Broker, asked: &Proof) -> Result<Proven, String> {
    let path: RequestPath = asked.path.parse().map_err(|error| format!("the path: {error}"))?;
    let entry = policy.and_then(|policy| policy.entry(&asked.host, asked.port)).ok_or("the host is not listed")?;
    if !entry.rules.is_empty() && !entry.rules.iter().any(|rule| rule.allows(&asked.method, false, &path)) {
        return Err("no rule allows the request".to_owned());
    }
    let name = entry.broker.as_deref().ok_or("no credential is brokered for the host")?;
    let credential = broker.find(name, &asked.host).map_err(|error| error.to_string())?;
    let made_up = Request::builder()
        .method(asked.method.as_str())
        .uri(path.as_str())
        .header(HOST, asked.host.to_string())
        .header(AUTHORIZATION, format!("Bearer {STAND_IN}"))
        .header("x-api-key", STAND_IN)
        .body(())
        .map_err(|error| error.to_string())?;
    let mut parts = made_up.into_parts().0;
    broker::apply(&credential, Some(&sigv4::hash(b"")), &mut parts).map_err(|error| error.to_string())?;
    let remains =
        |value: &http::HeaderValue| value.as_bytes().windows(STAND_IN.len()).any(|part| part == STAND_IN.as_bytes());
    if parts.headers.values().any(remains) {
        return Err("what the client sent in its place is still there".to_owned());
    }
    let placed = broker::placed(&credential, &parts).ok_or("it does not stand where it should")?;
    Ok(Proven {
        credential: name.to_owned(),
        place: place(&credential.placement),
        answer: answer(&asked.nonce, &placed),
    })
}

fn answer(nonce: &Secret, placed: &Zeroizing<Vec<u8>>) -> String {
    challenge::answer(&String::from_utf8_lossy(nonce.expose()), placed)
}

/// Where it stands, in words.
fn place(placement: &Placement) -> String {
    match placement {
        Placement::Bearer | Placement::Basic(_) => "the field `authorization`".to_owned(),
        Placement::Header(name) => format!("the field `{name}`"),
        Placement::Query(name) => format!("the query's `{name}`"),
        Placement::Sigv4 { .. } => "the signature in `authorization`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::protocol::Brokered;
    use crate::network::policy::AllowRule;

    fn broker(placement: Placement, value: &str) -> Broker {
        let broker = Broker::default();
        let host = "api.example".parse().unwrap();
        broker.hold(vec![Brokered { name: "key".into(), host, placement, value: Secret::new(value.into()) }]);
        broker
    }

    fn policy() -> Policy {
        let mut rule = AllowRule::new("api.example".parse().unwrap(), 443);
        rule.broker = Some("key".to_owned());
        rule.rules = vec!["GET /v1/**".parse().unwrap()];
        Policy { allow: vec![rule], ..Policy::default() }
    }

    fn asked(path: &str) -> Proof {
        Proof {
            host: "api.example".parse().unwrap(),
            port: 443,
            method: "GET".to_owned(),
            path: path.to_owned(),
            nonce: Secret::new(b"question".to_vec()),
        }
    }

    #[test]
    fn what_stands_in_each_place_answers_for_the_value() {
        let keys = r#"{"Version":1,"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret","SessionToken":"t"}"#;
        for (placement, value) in [
            (Placement::Bearer, "a+b/c=&d"),
            (Placement::basic("me").unwrap(), "a+b/c=&d:e"),
            (Placement::header("x-key").unwrap(), "a+b/c=&d"),
            (Placement::query("key").unwrap(), "a+b/c=&d"),
            (Placement::Sigv4 { service: "s3".parse().unwrap(), region: "eu-west-1".parse().unwrap() }, keys),
        ] {
            let proven = prove(Some(&policy()), &broker(placement.clone(), value), &asked("/v1/a")).unwrap();
            assert_eq!(proven.answer, challenge::answer("question", value.as_bytes()), "{placement:?}");
            assert!(!format!("{proven:?}").contains(value));
        }
    }

    #[test]
    fn a_request_that_would_not_carry_it_says_why() {
        let broker = broker(Placement::Bearer, "value");
        let why = |policy: Option<&Policy>, broker: &Broker, asked: &Proof| prove(policy, broker, asked).unwrap_err();
        assert_eq!(why(None, &broker, &asked("/v1/a")), "the host is not listed");
        assert_eq!(why(Some(&policy()), &broker, &asked("/v2")), "no rule allows the request");
        assert!(why(Some(&policy()), &broker, &asked("/v1/../x")).starts_with("the path: "));
        let without =
            Policy { allow: vec![AllowRule { broker: None, ..policy().allow[0].clone() }], ..Policy::default() };
        assert_eq!(why(Some(&without), &broker, &asked("/v1/a")), "no credential is brokered for the host");
        broker.withdraw(&["key".to_owned()]);
        assert_eq!(why(Some(&policy()), &broker, &asked("/v1/a")), "the credential for this host is not there");
    }
}
