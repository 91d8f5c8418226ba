//! Lines between two marks in a file of Lua that is otherwise the user's.

use super::{EditorError, Merged};

const BEGIN: &str = "-- sandbox editor: begin (made by `sandbox editor`; a change between these lines is lost)";
const END: &str = "-- sandbox editor: end";

/// What stands before the marks, and after them.
fn split<'a>(path: &str, text: &'a str) -> Result<Option<(&'a str, &'a str)>, EditorError> {
    let at_line = |mark: &str| {
        let mut places = text.match_indices(mark).map(|(at, _)| at);
        let whole = |at: &usize| {
            let (before, after) = (&text[..*at], &text[*at + mark.len()..]);
            (before.is_empty() || before.ends_with('\n')) && (after.is_empty() || after.starts_with(['\n', '\r']))
        };
        let first = places.by_ref().find(whole);
        (first, places.any(|at| whole(&at)))
    };
    match (at_line(BEGIN), at_line(END)) {
        ((None, _), (None, _)) => Ok(None),
        ((Some(begin), false), (Some(end), false)) if begin < end => {
            let after = text[end + END.len()..].trim_start_matches('\r');
            Ok(Some((&text[..begin], after.strip_prefix('\n').unwrap_or(after))))
        }
        _ => Err(EditorError::Format {
            path: path.to_owned(),
            fault: format!("the lines `{BEGIN}` and `{END}` are not there once each, in this order"),
        }),
    }
}

/// Replaces the block in its place, or appends it after an empty line.
pub(super) fn merge(path: &str, current: Option<&str>, text: &str) -> Result<Merged, EditorError> {
    let block = format!("{BEGIN}\n{text}{END}\n");
    let current = current.unwrap_or_default();
    let merged = match split(path, current)? {
        Some((before, after)) => format!("{before}{block}{after}"),
        None if current.is_empty() => block,
        None if current.ends_with('\n') => format!("{current}\n{block}"),
        None => format!("{current}\n\n{block}"),
    };
    Ok(Merged { text: Some(merged), kept: Vec::new() })
}

/// Takes the block and the empty line before it away.
pub(super) fn strip(path: &str, current: &str) -> Result<Merged, EditorError> {
    let text = match split(path, current)? {
        None => current.to_owned(),
        Some((before, after)) => {
            let before = before.strip_suffix("\n\n").map_or_else(|| before.to_owned(), |kept| format!("{kept}\n"));
            before + after
        }
    };
    Ok(Merged { text: (!text.is_empty()).then_some(text), kept: Vec::new() })
}
