//! Paragraphs of Debian's control files (deb822(5)): of indexes of packages, of packages, of dpkg's database, of sources.

use deb822_fast::borrowed::{BorrowedParagraph, iter_paragraphs_borrowed, parse_borrowed};

/// One paragraph, which borrows from the text.
#[derive(Debug)]
pub struct Paragraph<'a>(BorrowedParagraph<'a>);

impl<'a> Paragraph<'a> {
    /// A field, its lines joined by one space each; the case of the name is not looked at.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get_field(name).map(|field| field.lines().join(" ").trim().to_owned())
    }

    /// A field that has one line.
    pub fn line(&self, name: &str) -> Option<&'a str> {
        self.0.get_single(name).map(str::trim)
    }
}

/// The paragraphs of a text, one by one; an error when it has no such form.
pub fn paragraphs(text: &str) -> impl Iterator<Item = Result<Paragraph<'_>, deb822_fast::Error>> {
    iter_paragraphs_borrowed(text).map(|paragraph| paragraph.map(Paragraph))
}

/// The only paragraph of a text.
pub fn paragraph(text: &str) -> Option<Paragraph<'_>> {
    let mut all = parse_borrowed(text).ok()?;
    if all.len() == 1 { all.pop().map(Paragraph) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_the_lines_of_a_field_and_ignores_the_case_of_names() {
        let found = paragraph("Package: a\nDepends: b,\n c (>= 1)\n").unwrap();
        assert_eq!(found.get("depends").unwrap(), "b, c (>= 1)");
        assert_eq!((found.line("PACKAGE"), found.line("Depends")), (Some("a"), None));
    }

    #[test]
    fn refuses_a_text_of_another_form() {
        assert!(paragraph("Package: a\n\nPackage: b\n").is_none());
        assert!(paragraphs(" indented\n").any(|paragraph| paragraph.is_err()));
    }
}
