//! The header `WWW-Authenticate` (RFC 9110, section 11.6.1) and Docker's token authentication, which registries use.

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password in each request (RFC 7617).
    Basic,
    /// A token of a token service ("Token Authentication Specification" of the Distribution project).
    Bearer {
        /// Address of the token service.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
    },
}

/// The longest header that is looked at.
const LIMIT: usize = 4096;

/// The challenge of one header's value that is understood, a token before a password.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    if header.len() > LIMIT {
        return None;
    }
    let mut found = None;
    for (scheme, parameters) in challenges(header)? {
        let parameter = |name: &str| {
            let matching = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            matching.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameter("realm")
        {
            return Some(Challenge::Bearer { realm, service: parameter("service") });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    found
}

type Parameters = Vec<(String, String)>;

/// Schemes with their parameters. `None` when the text has not the form of the RFC.
fn challenges(text: &str) -> Option<Vec<(String, Parameters)>> {
    let mut all: Vec<(String, Parameters)> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = token(rest)?;
        let next = after.trim_start_matches([' ', '\t']);
        // `name = value` belongs to the scheme before it, a word alone begins a scheme.
        if let Some(value) = next.strip_prefix('=').filter(|_| !all.is_empty()) {
            let (value, after) = value_of(value.trim_start_matches([' ', '\t']))?;
            all.last_mut()?.1.push((word.to_owned(), value));
            rest = after;
        } else {
            all.push((word.to_owned(), Vec::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    Some(all)
}

fn token(text: &str) -> Option<(&str, &str)> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.bytes().position(|byte| !inner(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else { return token(text).map(|(value, rest)| (value.to_owned(), rest)) };
    let (mut value, mut escaped) = (String::new(), false);
    for (index, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[index + 1..])),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn reads_the_forms_that_registries_send() {
        let hub =
            r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="a:b:pull,push""#;
        assert_eq!(parse(hub), bearer("https://auth.example.com/token", Some("registry.example.com")));
        assert_eq!(parse(r#"Basic realm="x, y=\"z\"""#), Some(Challenge::Basic));
        let both = r#"Basic realm="r", bearer Realm = "https://t.example.com" , service=s"#;
        assert_eq!(parse(both), bearer("https://t.example.com", Some("s")));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for text in ["", "Negotiate", "Bearer service=\"x\"", "Bearer realm=\"x", "=x", "Bearer realm=\u{7f}"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!("Basic realm=\"{}\"", "x".repeat(5000))), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_parsed_or_refused(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
