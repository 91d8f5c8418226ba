//! Writes results to standard output and everything else to standard error; the only file that prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::IsTerminal;
use std::os::fd::AsFd;

use serde::Serialize;

use super::failure::Failure;
use super::fold::fold;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// Writes for one run of the command line.
#[derive(Debug, Clone)]
pub struct Printer {
    format: Format,
    quiet: bool,
}

impl Printer {
    /// A printer of this format.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Whether results are wanted as JSON.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether progress bars may be drawn on standard error.
    pub fn progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal() && std::env::var_os("CI").is_none()
    }

    /// Prints a result: `value` as JSON, or the text that `human` makes.
    pub fn result<T: Serialize>(&self, value: &T, human: impl FnOnce() -> String) {
        if self.json() {
            if let Ok(text) = serde_json::to_string_pretty(value) {
                anstream::println!("{text}");
            }
        } else {
            let text = human();
            if !text.is_empty() {
                anstream::println!("{}", text.trim_end_matches('\n'));
            }
        }
    }

    /// The same for text that may be longer than the screen: on a terminal a pager shows it.
    pub fn paged<T: Serialize>(&self, value: &T, human: impl FnOnce() -> String) {
        if self.json() {
            return self.result(value, human);
        }
        if let Some(text) = super::pager::show(human()) {
            self.result(value, || text);
        }
    }

    /// The same for a list of words and what there is to say of them, whose long lines are broken for a terminal.
    pub fn described<T: Serialize>(&self, value: &T, human: impl FnOnce() -> String) {
        self.result(value, || folded(&human(), &std::io::stdout()));
    }

    /// Prints a JSON document, whatever the format.
    pub fn document<T: Serialize>(&self, value: &T) {
        Self::new(Format::Json, self.quiet).result(value, String::new);
    }

    /// Prints a line of text to standard output, in either format.
    pub fn line(&self, text: &str) {
        anstream::println!("{text}");
    }

    /// Prints bytes from a sandbox to standard output, made harmless for a terminal when it is one.
    pub fn untrusted(&self, bytes: &[u8]) {
        use std::io::Write as _;
        let mut output = std::io::stdout();
        // A reader that went away, such as `head`, is no failure.
        let _ = if output.is_terminal() {
            output.write_all(sanitise(&String::from_utf8_lossy(bytes)).replace("\\u{d}", "").as_bytes())
        } else {
            output.write_all(bytes)
        };
        let _ = output.flush();
    }

    /// Prints a note for the user to standard error, unless quiet.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            anstream::eprintln!("{}", folded(text, &std::io::stderr()));
        }
    }

    /// Prints what a question is about to standard error, quiet or not: an answer to what was hidden would mean nothing.
    pub fn question(&self, text: &str) {
        anstream::eprintln!("{text}");
    }

    /// Prints a warning to standard error.
    pub fn warning(&self, text: &str) {
        let style = anstyle::AnsiColor::Yellow.on_default().bold();
        let told = folded(&format!("warning: {text}"), &std::io::stderr());
        anstream::eprintln!("{style}warning{style:#}{}", told.strip_prefix("warning").unwrap_or(&told));
    }

    /// Prints a failure in its three parts and gives its exit code.
    pub fn failure(&self, failure: &Failure) -> u8 {
        let red = anstyle::AnsiColor::Red.on_default().bold();
        let cyan = anstyle::AnsiColor::Cyan.on_default().bold();
        if let Some(excerpt) = &failure.excerpt {
            anstream::eprintln!("{}", excerpt.trim_end());
        }
        let told = |text: String| folded(&text, &std::io::stderr());
        let what = told(format!("error[{}]: {}", failure.code, failure.what));
        anstream::eprintln!("{red}error{red:#}{}", what.strip_prefix("error").unwrap_or(&what));
        for cause in &failure.why {
            anstream::eprintln!("{}", told(format!("  because: {cause}")));
        }
        let next = told(format!("next: {}", failure.next));
        anstream::eprintln!("{cyan}next{cyan:#}{}", next.strip_prefix("next").unwrap_or(&next));
        failure.exit
    }
}

/// Text as it is shown on this stream: with long lines broken when it is a terminal.
fn folded(text: &str, stream: &impl AsFd) -> String {
    match rustix::termios::tcgetwinsize(stream) {
        Ok(size) if size.ws_col > 0 => fold(text, size.ws_col.into()),
        _ => text.to_owned(),
    }
}

/// Makes text from an agent, an image or the network harmless for a terminal: control, bidirectional and invisible
/// characters become visible escapes. Tabs and line feeds stay.
pub fn sanitise(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        let hidden = matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        if character == '\n' || character == '\t' || !(character.is_control() || hidden) {
            clean.push(character);
        } else {
            clean.extend(character.escape_unicode());
        }
    }
    clean
}
