//! YAML text as a tree in which every key and value knows its place; the only file that names the YAML crate.
//!
//! The text is untrusted: size, depth and number of nodes are bounded, and anchors, aliases and merge keys are refused,
//! since no file of a project needs them. What the keys mean is decided elsewhere.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Budget, DuplicateKeyPolicy, MergeKeyPolicy, Spanned};

use crate::project::problem::{Place, Problem};

/// The most bytes that a file may have: 256 KiB.
pub(crate) const SIZE_LIMIT: usize = 256 * 1024;

/// Nesting that no honest file reaches, and that recursion over the tree survives.
const DEPTH_LIMIT: usize = 24;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A value of YAML's core schema.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

impl Value {
    /// What the value is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads one document as a tree.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    typed(text)
}

/// Reads one document as a type, within the same bounds.
pub(crate) fn typed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Problem> {
    if text.len() > SIZE_LIMIT {
        return Err(Problem::new(
            Place::START,
            format!("the file has {} bytes, at most {SIZE_LIMIT} are allowed", text.len()),
            "keep only what the sandbox needs",
        ));
    }
    if text.trim().is_empty() {
        return Err(Problem::new(Place::START, "the file is empty", "write `version: 1` and `project: NAME`"));
    }
    let mut budget = Budget::default();
    budget.max_depth = DEPTH_LIMIT;
    budget.flow_nesting_limit = DEPTH_LIMIT;
    budget.max_nodes = 10_000;
    budget.max_events = 40_000;
    budget.max_aliases = 0;
    budget.max_anchors = 0;
    budget.max_documents = 1;
    let options = serde_yaml::options! {
        budget: Some(budget),
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| problem(&error))
}

/// Turns an error of the YAML crate into a problem with a place and an advice.
fn problem(error: &serde_yaml::Error) -> Problem {
    let error = error.without_snippet();
    let place = error.location().map_or(Place::START, |location| Place {
        line: usize::try_from(location.line()).unwrap_or(1).max(1),
        column: usize::try_from(location.column()).unwrap_or(1).max(1),
        length: 1,
    });
    let text = error.to_string();
    let lower = text.to_lowercase();
    // The parser appends the position, which is shown by other means.
    let message = text.split(" at line ").next().unwrap_or(&text).trim().trim_end_matches(',').to_owned();
    let (message, remedy) = if lower.contains("anchor") || lower.contains("alias") {
        ("anchors and aliases are not allowed".to_owned(), "write the value out at each place")
    } else if lower.contains("duplicate") {
        (message, "keep one of the two; a second one would silently win")
    } else if lower.contains("merge") {
        ("merge keys (`<<`) are not allowed".to_owned(), "write the keys out at each place")
    } else if lower.contains("document") {
        ("there is more than one document".to_owned(), "keep one document; take out the `---` lines")
    } else if lower.contains("budget") || lower.contains("depth") || lower.contains("nesting") {
        ("the file is too deeply nested or has too many values".to_owned(), "keep only what the sandbox needs")
    } else if lower.contains("tab") {
        (message, "indent with spaces; YAML does not take tabs")
    } else {
        (message, "write valid YAML: `key: value`, lists as `- item`, texts with `:` or `*` in quotes")
    };
    Problem::new(place, message, remedy)
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    let location = spanned.referenced;
    Place {
        line: usize::try_from(location.line()).unwrap_or(1).max(1),
        column: usize::try_from(location.column()).unwrap_or(1).max(1),
        length: usize::try_from(location.span().len()).unwrap_or(1).max(1),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: place(&spanned), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, number, list or map")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Integer).map_err(|_| E::custom("a number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let key = Key { place: place(&key), text: key.value };
            if entries.iter().any(|(earlier, _)| earlier.text == key.text) {
                return Err(A::Error::custom(format!("duplicate key `{}`", key.text.escape_debug())));
            }
            entries.push((key, access.next_value::<Node>()?));
        }
        Ok(Value::Map(entries))
    }
}
