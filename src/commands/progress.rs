//! What is being waited for, on a terminal; nothing in a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::printer::Printer;

/// How often the line moves.
const TICK: Duration = Duration::from_millis(100);

/// A line that says what is being waited for.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A progress line, or nothing when the printer shows none.
    pub fn start(printer: &Printer) -> Self {
        let bar = printer.progress().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar }
    }

    /// For what is done again and again, where a line that comes and goes would be a nuisance.
    pub fn none() -> Self {
        Self { bar: None }
    }

    /// Names the step that begins.
    pub fn step(&self, step: &'static str) {
        tracing::info!(step);
        if let Some(bar) = &self.bar {
            // Something else was shown meanwhile, and had the terminal to itself.
            if bar.is_finished() {
                bar.reset();
                bar.enable_steady_tick(TICK);
            }
            bar.set_message(step);
        }
    }

    /// Says what is going on within a step; the text is clean.
    pub fn say(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }

    /// Takes the line away, until the next step.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
