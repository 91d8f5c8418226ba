//! Writes events to the launcher: numbered JSON lines on standard output, one for each decision, and sums of a flood.
//!
//! The queue is bounded. When nobody takes the events, connections wait: nothing is allowed without being reported.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::gateway::floods::Floods;
use crate::gateway::protocol::{Event, NumberedEvent};

/// How many events wait for standard output before connections do.
const QUEUE: usize = 1024;

/// How often sums are told.
const PAUSE: Duration = Duration::from_secs(2);

/// The way to the launcher.
#[derive(Debug, Clone)]
pub struct Reporter {
    queue: mpsc::Sender<Event>,
    floods: Arc<Floods>,
}

impl Reporter {
    /// Starts the thread that writes. Standard output may block, and must not stop the event loop.
    pub fn start(mut output: impl Write + Send + 'static) -> io::Result<Self> {
        let mut run = [0; 8];
        getrandom::fill(&mut run)?;
        let run = hex::encode(run);
        let (sender, mut receiver) = mpsc::channel::<Event>(QUEUE);
        std::thread::Builder::new().name("events".to_owned()).stack_size(128 << 10).spawn(move || {
            let mut sequence = 0;
            while let Some(event) = receiver.blocking_recv() {
                sequence += 1;
                if write_event(&mut output, &NumberedEvent { run: run.clone(), sequence, event }).is_err() {
                    // The engine closed the pipe: nobody can see what is decided from here on. Dropping the queue's
                    // receiver makes every later report fail, and with it every connection.
                    return;
                }
            }
        })?;
        Ok(Self { queue: sender, floods: Arc::default() })
    }

    /// Hands over an event, to be told at once or in a sum. `false` means that it cannot be reported, so what it tells of
    /// must not happen.
    pub async fn send(&self, event: Event) -> bool {
        match self.floods.take(event) {
            Some(event) => self.queue.send(event).await.is_ok(),
            None => !self.queue.is_closed(),
        }
    }

    /// Tells sums for as long as somebody takes them.
    pub async fn tell_sums(&self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            if !self.tell_sums_now().await {
                return;
            }
        }
    }

    /// Tells the sums that there are. `false` means that nobody takes them.
    pub async fn tell_sums_now(&self) -> bool {
        for sum in self.floods.sums() {
            if self.queue.send(sum).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn write_event(output: &mut impl Write, event: &NumberedEvent) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// The text with control characters and those that show as nothing or turn the line around made visible, and bounded in
/// length, for people and logs.
pub fn visible(text: &str) -> String {
    // Unicode's format characters that hide or reorder (UAX 9, UTS 39), and its line separators.
    let hidden = |c: char| {
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    text.chars()
        .take(256)
        .flat_map(|c| if c.is_control() || hidden(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_control_characters_visible_and_bounds_the_length() {
        assert_eq!(visible("a\r\n\u{1b}[31m\0b"), "a\\r\\n\\u{1b}[31m\\u{0}b");
        assert_eq!(visible("a\u{202e}b\u{200b}c\u{2028}\u{85}é"), "a\\u{202e}b\\u{200b}c\\u{2028}\\u{85}é");
        assert_eq!(visible(&"x".repeat(1000)).len(), 256);
    }
}
