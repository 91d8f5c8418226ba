//! Compares a container that exists with the spec that it should come from.
//!
//! Every field that the request sets must be as asked; every other field of the host's half must be empty, or one of the
//! few that every engine fills in by itself. So a field that nobody thought of counts as a difference.

use std::collections::BTreeMap;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, MountPoint};
use serde::Serialize;
use serde_json::Value;

use super::container::ContainerSpec;

/// Fields that engines fill in without being asked, with what they may then be.
const FILLED_IN: &[(&str, &[&str])] = &[
    ("Runtime", &[]),
    ("Isolation", &["default"]),
    ("ConsoleSize", &["[0,0]"]),
    ("MemorySwappiness", &["-1"]),
    ("VolumeDriver", &["local"]),
];

/// A field that is not as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Its name in the Engine API.
    pub(super) field: String,
    /// What was asked for.
    pub(super) wanted: String,
    /// What is there.
    pub(super) found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} should be {} and is {}", self.field, self.wanted, self.found)
    }
}

impl Difference {
    fn new(field: &str, wanted: &Value, found: &Value) -> Self {
        Self { field: field.to_owned(), wanted: shorten(wanted), found: shorten(found) }
    }

    /// Whether this is a limit that the engine or the kernel did not accept.
    pub(super) fn is_limit(&self) -> bool {
        matches!(self.field.as_str(), "Memory" | "MemorySwap" | "NanoCpus" | "PidsLimit" | "Ulimits" | "ShmSize")
    }
}

/// All differences. `network` is the network mode of the spec with an id in place of the name: either is as asked.
pub(super) fn differences(
    spec: &ContainerSpec,
    wanted: &ContainerCreateBody,
    found: &ContainerInspectResponse,
    network: Option<&str>,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    let default_host = HostConfig::default();
    let wanted_host = fields(wanted.host_config.as_ref().unwrap_or(&default_host));
    let found_host = fields(found.host_config.as_ref().unwrap_or(&default_host));
    compare_host(&wanted_host, &found_host, network, &mut differences);
    compare_config(wanted, found, &mut differences);
    if found.image.as_deref() != Some(spec.image.as_str()) {
        let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
        differences.push(Difference::new("Image", &text(Some(&spec.image)), &text(found.image.as_deref())));
    }
    for mount in found.mounts.as_deref().unwrap_or_default() {
        if !is_planned(spec, mount) {
            differences.push(Difference::new("Mounts", &Value::Null, &serde_json::json!(mount)));
        }
    }
    differences
}

fn compare_host(
    wanted: &BTreeMap<String, Value>,
    found: &BTreeMap<String, Value>,
    network: Option<&str>,
    differences: &mut Vec<Difference>,
) {
    let mut names: Vec<&String> = wanted.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (want, have) = (wanted.get(name).unwrap_or(&Value::Null), found.get(name).unwrap_or(&Value::Null));
        let same = match name.as_str() {
            "NetworkMode" => want == have || (network.is_some() && have.as_str() == network),
            "SecurityOpt" => security_options(want) == security_options(have),
            // An engine with default limits of its own adds those that were not asked for.
            "Ulimits" => contains_all(have, want),
            _ if want.is_null() => FILLED_IN.iter().any(|(field, values)| {
                field == name && (values.is_empty() || values.contains(&unquoted(have).as_str()))
            }),
            _ => want == have,
        };
        if !same {
            differences.push(Difference::new(name, want, have));
        }
    }
}

/// Compares what an image could have had a say in.
fn compare_config(wanted: &ContainerCreateBody, found: &ContainerInspectResponse, differences: &mut Vec<Difference>) {
    let wanted = fields(wanted);
    let found = found.config.as_ref().map(fields).unwrap_or_default();
    const EXACT: &[&str] = &[
        "User",
        "Env",
        "Cmd",
        "Entrypoint",
        "WorkingDir",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "Healthcheck",
        "StopSignal",
    ];
    for name in EXACT {
        let (want, have) = (wanted.get(*name).unwrap_or(&Value::Null), found.get(*name).unwrap_or(&Value::Null));
        if want != have {
            differences.push(Difference::new(name, want, have));
        }
    }
    // The engine adds the image's labels, and a host name where none was asked for.
    if let Some(hostname) = wanted.get("Hostname") {
        let have = found.get("Hostname").unwrap_or(&Value::Null);
        if hostname != have {
            differences.push(Difference::new("Hostname", hostname, have));
        }
    }
    let labels = found.get("Labels").unwrap_or(&Value::Null);
    for (label, value) in wanted.get("Labels").and_then(Value::as_object).into_iter().flatten() {
        let have = labels.get(label).unwrap_or(&Value::Null);
        if have != value {
            differences.push(Difference::new(&format!("Labels.{label}"), value, have));
        }
    }
}

/// Whether a mount is a volume of the spec, in its place and with its access, or one of its folders in memory.
fn is_planned(spec: &ContainerSpec, mount: &MountPoint) -> bool {
    let target = mount.destination.as_deref().unwrap_or_default();
    match mount.typ.as_deref() {
        Some("volume") => spec.mounts.iter().any(|planned| {
            planned.target == target
                && mount.name.as_deref() == Some(planned.volume.as_str())
                && mount.rw == Some(!planned.read_only)
        }),
        Some("tmpfs") => spec.tmpfs.iter().any(|planned| planned.target == target),
        _ => false,
    }
}

/// The fields of an API document that are not empty.
fn fields<T: Serialize>(document: &T) -> BTreeMap<String, Value> {
    match serde_json::to_value(document) {
        Ok(Value::Object(object)) => {
            object.into_iter().filter_map(|(name, value)| Some((name, without_empty(value)?))).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// A value without its empty parts: engines leave out some of what is empty and spell out the rest.
fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        Value::String(text) if text.is_empty() => None,
        // An empty text in a list is an element, such as an empty argument of a command.
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(Value::Array(
            items
                .into_iter()
                .map(|item| if item.is_object() { without_empty(item).unwrap_or_default() } else { item })
                .collect(),
        )),
        Value::Object(object) => {
            let kept: serde_json::Map<_, _> =
                object.into_iter().filter_map(|(name, value)| Some((name, without_empty(value)?))).collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other),
    }
}

/// The options without order, and with the two spellings of one of them made one.
fn security_options(value: &Value) -> Vec<String> {
    let mut options: Vec<String> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|option| match option {
            "no-new-privileges:true" | "no-new-privileges=true" => "no-new-privileges".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    options.sort();
    options
}

fn contains_all(found: &Value, wanted: &Value) -> bool {
    let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
    wanted.as_array().into_iter().flatten().all(|item| found.contains(item))
}

fn unquoted(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value for a message: a seccomp profile alone has thousands of characters.
fn shorten(value: &Value) -> String {
    const LENGTH: usize = 200;
    if value.is_null() {
        return "absent".into();
    }
    let text = unquoted(value);
    let mut short: String = text.chars().take(LENGTH).flat_map(char::escape_default).collect();
    if text.chars().nth(LENGTH).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
