//! Places of a Dockerfile that builders read differently, or otherwise than the parser here does.
//!
//! What a build takes in is judged by what is read here, and the engine reads the text anew. So nothing may stand in it that
//! is a comment or a word to one and an instruction, a directive or a here-document to the other. The rules are those of
//! BuildKit's parser (frontend/dockerfile/parser) from that of Engine 20.10 on.

use parse_dockerfile::{Dockerfile, Instruction, ParserDirectives, Source, Span};

/// A place, what stands there, and what to do about it.
type Place = (Span, &'static str, &'static str);

/// All such places.
pub(super) fn places(text: &str, file: &Dockerfile<'_>) -> Vec<Place> {
    let escape = file.parser_directives.escape.as_ref().map_or('\\', |escape| escape.value.value);
    let known: Vec<Known> = file.instructions.iter().filter_map(known).collect();
    let mut places = controls(text);
    places.extend(other_directives(text, &file.parser_directives));
    places.extend(line_ends(text, escape, &known));
    places.extend(here_documents(text, escape, &known));
    places
}

/// The here-documents of one instruction that the parser sees.
struct Known {
    /// Where the instruction begins.
    start: usize,
    bodies: Vec<Span>,
}

impl Known {
    fn has(&self, place: usize) -> bool {
        self.bodies.iter().any(|body| body.contains(&place))
    }
}

fn known(instruction: &Instruction<'_>) -> Option<Known> {
    let of = |sources: &[Source<'_>]| {
        let spans = sources.iter().filter_map(|source| match source {
            Source::HereDoc(here) => Some(here.span.clone()),
            _ => None,
        });
        spans.collect()
    };
    let (keyword, bodies) = match instruction {
        Instruction::Run(run) => (&run.run, run.here_docs.iter().map(|here| here.span.clone()).collect()),
        Instruction::Copy(copy) => (&copy.copy, of(&copy.src)),
        Instruction::Add(add) => (&add.add, of(&add.src)),
        _ => return None,
    };
    Some(Known { start: keyword.span.start, bodies })
}

/// The lines and where they begin.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let place = start;
        start += line.len();
        (place, line.trim_end_matches(['\n', '\r']))
    })
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Characters that some take for the end of a line, for white space or for nothing.
fn controls(text: &str) -> Vec<Place> {
    let odd = |(place, c): &(usize, char)| match c {
        '\n' | '\t' => false,
        '\r' => !text[place + 1..].starts_with('\n'),
        _ => c.is_control() || *c == '\u{feff}' || (c.is_whitespace() && !c.is_ascii()),
    };
    let place = |(place, c): (usize, char)| {
        (
            place..place + c.len_utf8(),
            "a control character or unusual space, which builders read differently",
            "remove it",
        )
    };
    text.char_indices().filter(odd).map(place).collect()
}

/// Comments before the first instruction that are a directive to some builders and none to the parser.
fn other_directives(text: &str, directives: &ParserDirectives<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    let before = lines(text).take_while(|(_, line)| line.trim().is_empty() || is_comment(line));
    let syntax = directives.syntax.as_ref().map(|syntax| syntax.value.span.clone());
    let escape = directives.escape.as_ref().map(|escape| escape.value.span.clone());
    for (start, line) in before {
        let key = line.trim_start().trim_start_matches('#').split('=').next().unwrap_or_default().trim();
        let is_seen =
            || [&syntax, &escape].into_iter().flatten().any(|span| (start..=start + line.len()).contains(&span.start));
        if line.contains('=') && ["syntax", "escape"].iter().any(|known| key.eq_ignore_ascii_case(known)) && !is_seen()
        {
            let remedy = "leave it out, or write another word before the `=`";
            places.push((start..start + line.len(), "a comment that some builders take for a directive", remedy));
        }
    }
    places
}

/// Lines that go on in the next one for some builders only.
fn line_ends(text: &str, escape: char, known: &[Known]) -> Vec<Place> {
    let doubled = |line: &str| {
        let end = line.trim_end();
        end.strip_suffix(escape).is_some_and(|rest| rest.ends_with(escape))
    };
    let remedy = "end the line in something else, or in one of them";
    let place = |(start, line): (usize, &str)| {
        (
            start..start + line.len(),
            "a line that ends in two escape characters, which builders read differently",
            remedy,
        )
    };
    let inside = |start: usize| known.iter().any(|known| known.has(start));
    lines(text).filter(|(start, line)| !is_comment(line) && !inside(*start) && doubled(line)).map(place).collect()
}

/// Words that begin a here-document for BuildKit wherever they stand in RUN, COPY and ADD, and for the parser where they
/// come first.
fn here_documents(text: &str, escape: char, known: &[Known]) -> Vec<Place> {
    let remedy = "write a file, COPY it and run it, or join the commands with `&&`";
    let mut places = Vec::new();
    let (mut joined, mut first) = (String::new(), None);
    for (start, line) in lines(text) {
        // An engine takes these out of the middle of a command.
        if is_comment(line) || line.trim().is_empty() || known.iter().any(|known| known.has(start)) {
            continue;
        }
        let end = start + line.len();
        let start = *first.get_or_insert(start);
        if let Some(more) = line.trim_end().strip_suffix(escape) {
            joined.push_str(more);
            continue;
        }
        joined.push_str(line);
        let words = joined.split(char::is_whitespace).filter(|word| begins_here_document(word)).count();
        let seen = known.iter().filter(|known| (start..end).contains(&known.start)).map(|known| known.bodies.len());
        if words > seen.sum() {
            places.push((start..end, "a here-document that not all builders see", remedy));
        }
        joined.clear();
        first = None;
    }
    places
}

/// Whether a word is `<<NAME`, with or without a number before it. `<<<` is a shell's here-string.
fn begins_here_document(word: &str) -> bool {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.strip_prefix("<<").is_some_and(|name| !name.is_empty() && !name.starts_with('<'))
}
