//! The one table from domain errors to what a person reads: what failed, why, and what to do next.

use std::error::Error;

/// A failure as it is shown.
#[derive(Debug)]
pub struct Failure {
    /// Stable code, such as `manifest-invalid`; `sandbox explain CODE` tells more.
    pub code: &'static str,
    /// What failed, as a lower-case fragment.
    pub what: String,
    /// Why: the chain of causes, outermost first.
    pub why: Vec<String>,
    /// What to do next; always there.
    pub next: String,
    /// Text shown as it is before the three parts, such as the lines of a manifest with marks.
    pub excerpt: Option<String>,
    /// The exit code: 1 for a failure or a check that says no, 2 for usage, 125 for `up`, `exec` and `shell`.
    pub exit: u8,
}

impl Failure {
    /// A failure of exit code 1 from an error that names what could not be done, such as "read the file", with the chain
    /// of its causes.
    pub fn new(code: &'static str, error: &(dyn Error + 'static), next: impl Into<String>) -> Self {
        let mut failure = Self::told(code, error, next);
        failure.what.insert_str(0, "cannot ");
        failure
    }

    /// The same from what the operating system refused; `what` is what could not be done.
    pub fn system(code: &'static str, what: &str, error: &std::io::Error, next: impl Into<String>) -> Self {
        let mut failure = Self::told(code, error, next);
        failure.why.insert(0, std::mem::take(&mut failure.what));
        failure.what = format!("cannot {what}");
        failure
    }

    /// The same from an error that tells what is wrong in a sentence of its own, such as "the session ended".
    pub fn told(code: &'static str, error: &(dyn Error + 'static), next: impl Into<String>) -> Self {
        let mut why = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            why.push(cause.to_string());
            source = cause.source();
        }
        Self { code, what: error.to_string(), why, next: next.into(), excerpt: None, exit: 1 }
    }

    /// The same with another exit code.
    pub fn with_exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }
}

#[cfg(test)]
mod tests;
