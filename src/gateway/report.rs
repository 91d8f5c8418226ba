//! Writes events to the launcher: JSON lines on standard output, one for each decision.
//!
//! The queue is bounded. When nobody takes the events, connections wait: nothing is allowed without being reported.

use std::io::{self, Write};

use tokio::sync::mpsc;

use crate::gateway::protocol::Event;

/// How many events wait for standard output before connections do.
const QUEUE: usize = 1024;

/// The way to the launcher.
#[derive(Debug, Clone)]
pub struct Reporter(mpsc::Sender<Event>);

impl Reporter {
    /// Starts the thread that writes. Standard output may block, and must not stop the event loop.
    pub fn start(mut output: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel::<Event>(QUEUE);
        std::thread::Builder::new().name("events".to_owned()).stack_size(128 << 10).spawn(move || {
            while let Some(event) = receiver.blocking_recv() {
                if write_event(&mut output, &event).is_err() {
                    // The engine closed the pipe: nobody can see what is decided from here on. Dropping the queue's
                    // receiver makes every later report fail, and with it every connection.
                    return;
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Hands over an event. `false` means that it cannot be reported, so what it tells of must not happen.
    pub async fn send(&self, event: Event) -> bool {
        self.0.send(event).await.is_ok()
    }
}

fn write_event(output: &mut impl Write, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// The text with control characters made visible and bounded in length, for people and logs.
pub fn visible(text: &str) -> String {
    text.chars()
        .take(256)
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_control_characters_visible_and_bounds_the_length() {
        assert_eq!(visible("a\r\n\u{1b}[31m\0b"), "a\\r\\n\\u{1b}[31m\\u{0}b");
        assert_eq!(visible(&"x".repeat(1000)).len(), 256);
    }
}
