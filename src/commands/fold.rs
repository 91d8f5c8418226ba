//! Breaks long lines at words for a terminal, so that a column of text stays a column. Tables and diffs do not come here.

use unicode_width::UnicodeWidthStr as _;

/// How far to the right the last column of a list begins at most.
const COLUMNS: usize = 30;
/// The least room for text; a terminal that has less breaks lines by itself.
const ROOM: usize = 20;

/// Breaks each line that is wider than the terminal at spaces. The rest stands below the last column of the line, which has
/// two spaces before it, or else below its first word. A word that is wider than the room stays whole.
pub(super) fn fold(text: &str, width: usize) -> String {
    let mut folded = String::with_capacity(text.len() + 80);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let indent = column(line);
        if line.width() <= width || indent + ROOM > width {
            folded.push_str(line);
        } else {
            break_line(line, indent, width, &mut folded);
        }
        folded.push_str(end);
    }
    folded
}

/// Where the text of a line begins: its last column, in bytes, which are one column wide each before it.
fn column(line: &str) -> usize {
    let bytes = line.as_bytes();
    let first = bytes.iter().position(|byte| *byte != b' ').unwrap_or(0);
    let begins = |at: usize| bytes[at] != b' ' && bytes[at - 2..at] == *b"  ";
    let reach = bytes.len().min(COLUMNS);
    let ascii = bytes[..reach].iter().position(|byte| !byte.is_ascii()).unwrap_or(reach);
    (first.max(2)..ascii).rev().find(|at| begins(*at)).unwrap_or(first)
}

fn break_line(line: &str, indent: usize, width: usize, folded: &mut String) {
    let (head, rest) = line.split_at(indent);
    folded.push_str(head);
    let mut used = head.width();
    for (index, word) in rest.split(' ').enumerate() {
        let wide = word.width();
        if index > 0 && used + 1 + wide > width {
            folded.push('\n');
            folded.push_str(&" ".repeat(indent));
            used = indent;
        } else if index > 0 {
            folded.push(' ');
            used += 1;
        }
        folded.push_str(word);
        used += wide;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_stands_below_the_last_column() {
        let text = "ok       engine         Docker Engine 20.10.24 at a socket\n                        next: nothing at all to do\n";
        assert_eq!(
            fold(text, 46),
            "ok       engine         Docker Engine 20.10.24\n                        at a socket\n                        \
             next: nothing at all\n                        to do\n"
        );
        assert_eq!(fold("next: one two three four five six", 22), "next: one two three\nfour five six");
        assert_eq!(fold("  because: one two three four", 24), "  because: one two three\n  four");
    }

    #[test]
    fn what_fits_a_word_that_never_does_and_a_narrow_terminal_stay_as_they_are() {
        for text in ["short\n", "a/path/that/is/wider/than/the/terminal", "", "\n\n"] {
            assert_eq!(fold(text, 20), text);
        }
        assert_eq!(
            fold("ok       engine         one two three four", 30),
            "ok       engine         one two three four"
        );
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_no_line_is_broken_that_fits(text in "[a-zä世 \n]{0,200}", width in 10_usize..120) {
            let folded = fold(&text, width);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&text), words(&folded));
            for line in text.lines().filter(|line| line.width() <= width) {
                prop_assert!(folded.lines().any(|other| other == line));
            }
        }
    }
}
