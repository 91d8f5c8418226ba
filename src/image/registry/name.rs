//! Names of repositories: which registry, which path (distribution-spec, "Pulling manifests"; Docker's rules for names
//! without a registry).

use std::net::IpAddr;
use std::str::FromStr;

use super::RegistryError;

/// Docker Hub's registry is not at the host of its name.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A repository in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The registry as people write it, with its port: the key of its login.
    pub registry: String,
    /// The path in it.
    pub path: String,
}

impl Repository {
    /// Whether the registry is on this machine, by its name alone.
    pub fn is_loopback(&self) -> bool {
        let host = host(&self.registry);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Where its API is. A registry on this machine is spoken to in the clear, no other ever is.
    pub fn base(&self) -> String {
        let scheme = if self.is_loopback() { "http" } else { "https" };
        let host = if self.registry == HUB.0 { HUB.1 } else { &self.registry };
        format!("{scheme}://{host}/v2/{}", self.path)
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.path)
    }
}

impl FromStr for Repository {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let wrong = |problem| RegistryError::Name { name: text.chars().take(200).collect(), problem };
        // As Docker has it: the first part is a registry when it has a dot or a port, or is `localhost`.
        let (registry, path) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            Some(_) => (HUB.0, text.to_owned()),
            None => (HUB.0, format!("library/{text}")),
        };
        let registry = if registry == "index.docker.io" { HUB.0 } else { registry };
        check_registry(registry).map_err(wrong)?;
        if path.len() > 255 || !path.split('/').all(is_component) {
            return Err(wrong("its path is not of lower-case words with single separators"));
        }
        Ok(Self { registry: registry.to_owned(), path })
    }
}

/// The host of a registry without its port.
pub(super) fn host(registry: &str) -> &str {
    match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => registry.split(':').next().unwrap_or(registry),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let bracketed = registry.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let port = match bracketed {
        Some((address, port)) => {
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "its address is not one of IPv6")?;
            port.strip_prefix(':').or(if port.is_empty() { None } else { Some("") })
        }
        None => {
            let (host, port) = registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
            let label = |label: &str| {
                let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !label.starts_with('-')
            };
            if host.len() > 253 || !host.split('.').all(label) {
                return Err("its registry is not a lower-case host name");
            }
            port
        }
    };
    match port.map(str::parse::<u16>) {
        None => Ok(()),
        Some(Ok(number)) if number != 0 => Ok(()),
        Some(_) => Err("the port of its registry is not a number"),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    let ends = text.bytes().next().is_some_and(word) && text.bytes().last().is_some_and(word);
    ends && text.chars().all(|character| {
        if u8::try_from(character).is_ok_and(word) {
            separator.clear();
            return true;
        }
        separator.push(character);
        matches!(separator.as_str(), "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    })
}

/// An image by a name that its registry may give to another one tomorrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedImage {
    /// The repository, as people write it.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

impl FromStr for TaggedImage {
    type Err = RegistryError;

    /// `NAME:TAG`; a name without a tag is none, though Docker takes it for `latest`.
    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let (repository, tag) = split_tag(text);
        let tag = tag.filter(|tag| is_tag(tag)).ok_or_else(|| RegistryError::Name {
            name: text.chars().take(200).collect(),
            problem: "it has no tag behind a colon",
        })?;
        repository.parse::<Repository>()?;
        Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

/// A name and what follows the colon in its last part: one before that is a registry's port.
pub fn split_tag(text: &str) -> (&str, Option<&str>) {
    let last = text.rfind('/').map_or(0, |index| index + 1);
    match text[last..].find(':') {
        Some(colon) => (&text[..last + colon], Some(&text[last + colon + 1..])),
        None => (text, None),
    }
}

/// Whether a text can be a tag.
pub fn is_tag(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    first && text.len() <= 128 && text.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> String {
        text.parse::<Repository>().unwrap().base()
    }

    #[test]
    fn finds_the_registry_as_docker_does() {
        assert_eq!(base("debian"), "https://registry-1.docker.io/v2/library/debian");
        assert_eq!(base("team/tool"), "https://registry-1.docker.io/v2/team/tool");
        assert_eq!(base("ghcr.io/team/tool"), "https://ghcr.io/v2/team/tool");
        assert_eq!(base("registry.example.com:5000/a__b/c-d.e"), "https://registry.example.com:5000/v2/a__b/c-d.e");
    }

    #[test]
    fn speaks_in_the_clear_to_this_machine_alone() {
        for (text, scheme) in [
            ("localhost/a", "http:"),
            ("127.0.0.1:5000/a", "http:"),
            ("[::1]:5000/a", "http:"),
            ("localhost.example.com/a", "https:"),
            ("10.0.0.1:5000/a", "https:"),
            ("127.0.0.1.example.com/a", "https:"),
        ] {
            assert!(base(text).starts_with(scheme), "{text}");
        }
    }

    #[test]
    fn refuses_names_that_would_reach_another_host_or_path() {
        for text in [
            "user@registry.example.com/a",
            "registry.example.com/../a",
            "registry.example.com/a?x",
            "registry.example.com/A",
            "registry.example.com//a",
            "registry.example.com:0/a",
            "registry.example.com:x/a",
            "[::1/a",
            "registry.example.com/a.",
            "registry.example.com/a___b",
            "registry.example.com/a..b",
            "registry.example.com/%2e%2e",
            "-x.example.com/a",
            "registry.example.com/",
            "",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_tagged_image_has_a_tag_and_the_port_of_a_registry_is_none() {
        let parts = |text: &str| text.parse::<TaggedImage>().ok().map(|image| (image.repository, image.tag));
        let some = |repository: &str, tag: &str| Some((repository.to_owned(), tag.to_owned()));
        assert_eq!(parts("node:22-bookworm"), some("node", "22-bookworm"));
        assert_eq!(parts("registry.example.com:5000/a/b:v1"), some("registry.example.com:5000/a/b", "v1"));
        for text in ["node", "registry.example.com:5000/a", "node:", "node:a/b", "Node:1", ":1", "$A:1", "a:b:c"] {
            assert_eq!(parts(text), None, "{text}");
        }
    }

    #[test]
    fn knows_tags() {
        assert!(is_tag("v1.2-rc_3") && is_tag("_x") && !is_tag(".x") && !is_tag("") && !is_tag("a/b"));
        assert!(!is_tag(&"a".repeat(129)));
    }
}
