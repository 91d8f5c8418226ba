//! Where packages come from: the system's own apt sources, or else Debian's mirrors.

use std::path::Path;

use super::control::paragraphs;

/// Base addresses of mirrors of the two archives, the preferred one first, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// Of the main archive: releases and updates.
    pub debian: Vec<String>,
    /// Of the security archive.
    pub security: Vec<String>,
}

impl Mirrors {
    /// Reads `sources.list` and `sources.list.d` below this folder, in both formats (sources.list(5)); sources of
    /// others than Debian are passed over.
    pub fn read(apt: &Path) -> Self {
        let mut files = vec![apt.join("sources.list")];
        let entries = std::fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
        let mut more: Vec<_> = entries.map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
        let mut addresses = Vec::new();
        for file in files {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => addresses.extend(text.lines().filter_map(one_line)),
                Some("sources") => addresses.extend(stanzas(&text)),
                _ => {}
            }
        }
        let mut mirrors = Self { debian: Vec::new(), security: Vec::new() };
        addresses.push("http://deb.debian.org/debian".into());
        addresses.push("http://deb.debian.org/debian-security".into());
        for address in addresses {
            let address = address.trim_end_matches('/').to_owned();
            let list = match address.rsplit('/').next() {
                Some("debian") => &mut mirrors.debian,
                Some("debian-security") => &mut mirrors.security,
                _ => continue,
            };
            let known = address.starts_with("http://") || address.starts_with("https://");
            if known && !list.contains(&address) {
                list.push(address);
            }
        }
        mirrors
    }

    /// The mirrors that have this suite.
    pub fn of(&self, suite: &str) -> &[String] {
        if suite.ends_with("-security") { &self.security } else { &self.debian }
    }
}

fn one_line(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
    rest.split_whitespace().next().map(str::to_owned)
}

fn stanzas(text: &str) -> Vec<String> {
    let mut addresses = Vec::new();
    for stanza in paragraphs(text).map_while(Result::ok) {
        let on = stanza.get("Enabled").is_none_or(|value| value != "no");
        let binary = stanza.get("Types").is_some_and(|value| value.split_whitespace().any(|kind| kind == "deb"));
        if on && binary {
            addresses.extend(stanza.get("URIs").iter().flat_map(|value| value.split_whitespace()).map(str::to_owned));
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_formats_and_passes_over_foreign_sources() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        let old = "# deb http://x/debian a main\ndeb [arch=amd64] https://near.example/debian/ bookworm main\n\
                   deb https://foreign.example/apt stable main\n";
        std::fs::write(folder.path().join("sources.list"), old).unwrap();
        let new = "Types: deb\n# note\nURIs: http://near.example/debian-security\nSuites: bookworm-security\n\n\
                   Enabled: no\nTypes: deb\nURIs: http://off.example/debian\n";
        std::fs::write(folder.path().join("sources.list.d/debian.sources"), new).unwrap();
        let mirrors = Mirrors::read(folder.path());
        assert_eq!(mirrors.debian, ["https://near.example/debian", "http://deb.debian.org/debian"]);
        assert_eq!(mirrors.security[0], "http://near.example/debian-security");
    }
}
