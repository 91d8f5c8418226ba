//! Reads keys out of a tree and collects what is wrong, so that a person sees every fault at once.

use std::path::{Component, Path, PathBuf};

use crate::project::problem::{Place, Problem};
use crate::project::yaml::{Key, Node, Value};

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

/// A map whose keys were checked against those that are known.
pub(super) struct Fields<'a> {
    pub(super) place: Place,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node)
    }
}

/// Keys of other tools' files that would weaken the containment.
const NEVER: &[&str] = &[
    "mounts",
    "mount",
    "volumes",
    "volume",
    "binds",
    "privileged",
    "cap_add",
    "capabilities",
    "devices",
    "device",
    "network_mode",
    "pid",
    "ipc",
    "uts",
    "userns_mode",
    "security_opt",
    "runtime",
    "runArgs",
    "run_args",
    "sysctls",
    "cgroup_parent",
    "extra_hosts",
    "dns",
    "user",
    "entrypoint",
    "docker",
    "host",
];

impl Reader {
    pub(super) fn report(&mut self, place: Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::new(place, message, remedy));
    }

    /// The node as a map that has no other keys than these.
    pub(super) fn fields<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Option<Fields<'a>> {
        let Value::Map(entries) = &node.value else {
            self.report(
                node.place,
                format!("{what} is {}, not a map", node.value.kind()),
                format!("write keys below it: {}", known.join(", ")),
            );
            return None;
        };
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                self.unknown(key, what, known);
            }
        }
        Some(Fields { place: node.place, entries })
    }

    fn unknown(&mut self, key: &Key, what: &str, known: &[&str]) {
        let shown = key.text.chars().take(60).collect::<String>();
        let shown = shown.escape_debug();
        if NEVER.contains(&key.text.as_str()) {
            return self.report(
                key.place,
                format!("`{shown}` is not something that a manifest can ask for"),
                "take it out: a manifest never names host paths, devices, capabilities, runtime flags or network modes",
            );
        }
        let nearest = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(candidate, &key.text), candidate))
            .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
            .min_by_key(|(distance, _)| *distance);
        let remedy = match nearest {
            Some((_, candidate)) => format!("did you mean `{candidate}`?"),
            None => format!("known keys: {}", known.join(", ")),
        };
        self.report(key.place, format!("{what} has no key `{shown}`"), remedy);
    }

    /// The node as text. Numbers and booleans are refused, since YAML would rewrite `1.10` or `no`.
    pub(super) fn text<'a>(&mut self, node: &'a Node, what: &str, example: &str) -> Option<&'a str> {
        if let Value::Text(text) = &node.value {
            if text.chars().any(|character| character.is_control()) {
                self.report(node.place, format!("{what} has a control character"), format!("write {example}"));
                return None;
            }
            return Some(text);
        }
        let remedy = match node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                format!("write {example}, in quotes if it is a number or a boolean")
            }
            _ => format!("write {example}"),
        };
        self.report(node.place, format!("{what} is {}, not text", node.value.kind()), remedy);
        None
    }

    /// The node as text that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        node: &Node,
        what: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(node, what, example)?;
        let value = parse(text);
        if value.is_none() {
            let shown = text.chars().take(80).collect::<String>();
            self.report(
                node.place,
                format!("`{}` is not a value for {what}", shown.escape_debug()),
                format!("write {example}"),
            );
        }
        value
    }

    /// The node as a whole number in a range.
    pub(super) fn integer(&mut self, node: &Node, what: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        match node.value {
            Value::Integer(number) if range.contains(&number) => Some(number),
            _ => {
                let (least, most) = range.into_inner();
                self.report(
                    node.place,
                    format!("{what} is not a whole number from {least} to {most}"),
                    format!("write a number from {least} to {most}, without quotes"),
                );
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.report(node.place, format!("{what} is {}", node.value.kind()), "write `true` or `false`, without quotes");
        None
    }

    /// The node as a command: at least a program, each word a text.
    pub(super) fn command(&mut self, node: &Node, what: &str) -> Option<Vec<String>> {
        let Value::List(items) = &node.value else {
            self.report(
                node.place,
                format!("{what} is {}, not a list", node.value.kind()),
                "write the program and its arguments as a list: [program, argument]; there is no shell",
            );
            return None;
        };
        let words: Vec<String> =
            items.iter().filter_map(|item| self.text(item, what, "each word as text").map(str::to_owned)).collect();
        if words.len() != items.len() {
            return None;
        }
        if words.first().is_none_or(String::is_empty) {
            self.report(node.place, format!("{what} has no program"), "write [program, argument, …]");
            return None;
        }
        Some(words)
    }

    /// The node as a path that stays inside `root`, also after its symbolic links are followed.
    pub(super) fn inner_path(&mut self, node: &Node, what: &str, root: &Path) -> Option<PathBuf> {
        let text = self.text(node, what, "a path below the folder of sandbox.yaml")?;
        let path = Path::new(text);
        let remedy = "write a path below the folder of sandbox.yaml, such as `.` or `services/api`";
        if text.is_empty() || path.is_absolute() || text.starts_with('~') {
            self.report(node.place, format!("{what} is not a path inside the project"), remedy);
            return None;
        }
        if path.components().any(|part| part == Component::ParentDir) {
            self.report(node.place, format!("{what} leaves the project with `..`"), remedy);
            return None;
        }
        // A link is only refused where it exists; what reads the path later opens it below the root again.
        let inside = match (root.canonicalize(), root.join(path).canonicalize()) {
            (Ok(root), Ok(target)) => target.starts_with(root),
            _ => true,
        };
        if !inside {
            self.report(node.place, format!("{what} leaves the project through a symbolic link"), remedy);
            return None;
        }
        Some(path.to_owned())
    }
}
