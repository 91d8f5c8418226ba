//! JSON with comments, as editors keep it: entries are added and taken away on the concrete syntax tree, so comments,
//! order and layout of everything else stay as they are.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

use super::{EditorError, Merged};

/// Brackets within brackets; the parser calls itself for each.
const DEPTH_LIMIT: usize = 100;

/// What is put into a document.
#[derive(Debug)]
pub(super) enum Piece {
    /// Objects of the list under this property, or of the document itself, told apart by this member.
    Elements { list: Option<&'static str>, key: &'static str, values: Vec<Value> },
    /// A member of the object under this property.
    Member { object: &'static str, name: &'static str, value: Value },
    /// A member of the document without which the others mean nothing.
    Required { name: &'static str, value: Value },
}

/// A document with the words for its faults.
struct Document<'a> {
    path: &'a str,
    root: CstRootNode,
}

impl<'a> Document<'a> {
    fn parse(path: &'a str, text: &str) -> Result<Self, EditorError> {
        let wrong = |fault: String| EditorError::Format { path: path.to_owned(), fault };
        let mut depth = 0_usize;
        for byte in text.bytes() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > DEPTH_LIMIT {
                return Err(wrong(format!("it is nested more than {DEPTH_LIMIT} deep")));
            }
        }
        // What editors read: comments and trailing commas, and nothing else of JSON5.
        let options = ParseOptions {
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
            ..ParseOptions::default()
        };
        let root = CstRootNode::parse(text, &options).map_err(|error| {
            let line = 1 + text.bytes().take(error.range().start).filter(|byte| *byte == b'\n').count();
            wrong(format!("line {line}: {}", error.kind()))
        })?;
        Ok(Self { path, root })
    }

    fn not(&self, what: &str, kind: &str) -> EditorError {
        EditorError::Format { path: self.path.to_owned(), fault: format!("{what} is no {kind}") }
    }

    fn object(&self) -> Result<CstObject, EditorError> {
        self.root.object_value_or_create().ok_or_else(|| self.not("the document", "object"))
    }

    fn list(&self, name: Option<&str>) -> Result<CstArray, EditorError> {
        match name {
            None => self.root.array_value_or_create().ok_or_else(|| self.not("the document", "list")),
            Some(name) => {
                self.object()?.array_value_or_create(name).ok_or_else(|| self.not(&format!("`{name}`"), "list"))
            }
        }
    }

    /// The list, unless it is not there.
    fn found_list(&self, name: Option<&str>) -> Option<CstArray> {
        match name {
            None => self.root.array_value(),
            Some(name) => self.root.object_value()?.array_value(name),
        }
    }
}

/// Adds what is missing. An entry under the same key with other content is somebody's own, and stays.
pub(super) fn merge(path: &str, current: Option<&str>, pieces: &[Piece]) -> Result<Merged, EditorError> {
    let document = Document::parse(path, current.unwrap_or_default())?;
    let mut kept = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Required { name, value } => {
                let object = document.object()?;
                match object.get(name) {
                    None => drop(object.append(name, input(value))),
                    Some(member) if member.to_serde_value().as_ref() == Some(value) => {}
                    Some(_) => return Err(document.not(&format!("`{name}`"), &value.to_string())),
                }
            }
            Piece::Member { object, name, value } => {
                let whole = document.object()?;
                let within = whole.object_value_or_create(object);
                let within = within.ok_or_else(|| document.not(&format!("`{object}`"), "object"))?;
                match within.get(name) {
                    None => drop(within.append(name, input(value))),
                    Some(member) if member.to_serde_value().as_ref() == Some(value) => {}
                    Some(_) => kept.push((*name).to_owned()),
                }
            }
            Piece::Elements { list, key, values } => {
                let list = document.list(*list)?;
                let there: Vec<Value> = list.elements().iter().filter_map(|node| node.to_serde_value()).collect();
                for value in values {
                    if there.contains(value) {
                        continue;
                    }
                    if there.iter().any(|other| other.get(key) == value.get(key)) {
                        kept.push(name_of(value, key));
                    } else {
                        list.ensure_multiline();
                        list.append(input(value));
                    }
                }
            }
        }
    }
    let mut text = document.root.to_string();
    if current.is_none_or(str::is_empty) {
        text = format!("{}\n", text.trim_end());
    }
    Ok(Merged { text: Some(text), kept })
}

/// Takes away what is there as it was put.
pub(super) fn strip(path: &str, current: &str, pieces: &[Piece]) -> Result<Merged, EditorError> {
    let document = Document::parse(path, current)?;
    let mut kept = Vec::new();
    let mut removed = false;
    for piece in pieces {
        match piece {
            Piece::Required { .. } => {}
            Piece::Member { object, name, value } => {
                let within = document.root.object_value().and_then(|whole| whole.object_value(object));
                match within.and_then(|within| within.get(name)) {
                    None => {}
                    Some(member) if member.to_serde_value().as_ref() == Some(value) => {
                        member.remove();
                        removed = true;
                    }
                    Some(_) => kept.push((*name).to_owned()),
                }
            }
            Piece::Elements { list, key, values } => {
                for node in document.found_list(*list).iter().flat_map(CstArray::elements) {
                    let Some(there) = node.to_serde_value() else { continue };
                    if values.contains(&there) {
                        node.remove();
                        removed = true;
                    } else if values.iter().any(|value| there.get(key) == value.get(key)) {
                        kept.push(name_of(&there, key));
                    }
                }
            }
        }
    }
    let text = document.root.to_string();
    let empty = removed && !has_comment(&document.root) && means_nothing(&document.root, pieces);
    Ok(Merged { text: (!empty).then_some(text), kept })
}

/// Whether what is left is only what [`merge`] would make around its entries.
fn means_nothing(root: &CstRootNode, pieces: &[Piece]) -> bool {
    let empty = |value: &Value| match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    match root.to_serde_value() {
        None => true,
        Some(Value::Object(members)) => members.iter().all(|(name, value)| {
            pieces.iter().any(|piece| match piece {
                Piece::Required { name: required, .. } => name == required,
                Piece::Member { object, .. } => name == object && empty(value),
                Piece::Elements { list, .. } => Some(name.as_str()) == *list && empty(value),
            })
        }),
        Some(value) => empty(&value),
    }
}

fn has_comment(root: &CstRootNode) -> bool {
    let mut open = root.children();
    while let Some(node) = open.pop() {
        if node.is_comment() {
            return true;
        }
        open.extend(node.children());
    }
    false
}

fn name_of(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}
