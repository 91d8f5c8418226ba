//! The launcher's side of the gateway's line protocol, over the gateway's attached standard input and output.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use zeroize::Zeroizing;

use crate::engine::stream::{AttachedStream, Chunk};
use crate::engine::{Engine, EngineError};
use crate::gateway::protocol::{Action, Command, Event, LINE_LIMIT, Proof, Proven};

/// How long the gateway may take to carry out one command.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why the gateway could not be told something.
#[derive(Debug, thiserror::Error)]
pub enum GatewayControlError {
    /// The engine's stream failed.
    #[error("talk to the gateway")]
    Engine(#[from] EngineError),
    /// The gateway's standard input could not be written.
    #[error("write to the gateway")]
    Write(#[source] std::io::Error),
    /// A command could not be written as JSON.
    #[error("write a command for the gateway")]
    Encode(#[source] serde_json::Error),
    /// The gateway ended or hung.
    #[error("get an answer from the gateway within {} s", .0.as_secs())]
    Silent(Duration),
    /// The gateway's stream ended.
    #[error("get an answer from the gateway, which ended")]
    Ended,
    /// The gateway refused the command.
    #[error("have the gateway carry out a command: {0}")]
    Refused(String),
}

/// A connection to a gateway.
pub struct GatewayControl {
    stream: AttachedStream,
    lines: LineBuffer,
    next: u64,
}

/// Cuts a stream of chunks into lines. A line above the limit is dropped whole.
#[derive(Debug, Default)]
pub struct LineBuffer {
    pending: Vec<u8>,
    dropping: bool,
}

impl LineBuffer {
    /// Takes a chunk and gives the lines that it completed.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let whole = piece.ends_with(b"\n");
            if !self.dropping {
                self.pending.extend_from_slice(piece);
            }
            if self.pending.len() > LINE_LIMIT {
                self.pending.clear();
                self.dropping = true;
            }
            if whole {
                let line = std::mem::take(&mut self.pending);
                if !std::mem::take(&mut self.dropping) {
                    lines.push(line);
                }
            }
        }
        lines
    }
}

impl GatewayControl {
    /// Attaches to the gateway's container, which may not have started yet.
    ///
    /// # Errors
    /// When the engine refuses the stream.
    pub async fn attach(engine: &Engine, container: &str) -> Result<Self, GatewayControlError> {
        let stream = engine.attach(container).await?;
        // Several clients may be attached at once and each sees every answer, so numbers start at a random place.
        let mut start = [0; 6];
        let _ = getrandom::fill(&mut start);
        let next = start.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        Ok(Self { stream, lines: LineBuffer::default(), next })
    }

    /// Waits until the gateway says that it listens.
    ///
    /// # Errors
    /// When it ends or stays silent.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), GatewayControlError> {
        self.wait(limit, |event| matches!(event, Event::Ready).then_some(())).await
    }

    /// Has an action carried out.
    ///
    /// # Errors
    /// When the gateway refuses, ends or stays silent.
    pub async fn carry_out(&mut self, action: Action) -> Result<(), GatewayControlError> {
        let id = self.send(action).await?;
        let error = self
            .wait(ANSWER_LIMIT, |event| match event {
                Event::Acknowledged { id: answered, error } if *answered == id => Some(error.clone()),
                _ => None,
            })
            .await?;
        match error {
            None => Ok(()),
            Some(error) => Err(GatewayControlError::Refused(error)),
        }
    }

    /// Asks what a request would carry.
    ///
    /// # Errors
    /// When the gateway ends or stays silent; when the request would carry nothing, as [`GatewayControlError::Refused`].
    pub async fn prove(&mut self, proof: Proof) -> Result<Proven, GatewayControlError> {
        let id = self.send(Action::ProveBrokered(proof)).await?;
        let answer = |event: &Event| match event {
            Event::Proven { id: answered, proven } if *answered == id => Some(Ok(proven.clone())),
            Event::Acknowledged { id: answered, error } if *answered == id => Some(Err(error.clone())),
            _ => None,
        };
        let refused = |error: Option<String>| GatewayControlError::Refused(error.unwrap_or_default());
        self.wait(ANSWER_LIMIT, answer).await?.map_err(refused)
    }

    async fn send(&mut self, action: Action) -> Result<u64, GatewayControlError> {
        self.next += 1;
        let id = self.next;
        // The line may hold secrets, so its buffer is wiped. It is serialised in one piece of sufficient capacity:
        // a buffer that grows leaves copies behind.
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_LIMIT));
        serde_json::to_writer(&mut *line, &Command { id, action }).map_err(GatewayControlError::Encode)?;
        line.push(b'\n');
        self.stream.input.write_all(&line).await.map_err(GatewayControlError::Write)?;
        self.stream.input.flush().await.map_err(GatewayControlError::Write)?;
        Ok(id)
    }

    async fn wait<T>(
        &mut self,
        limit: Duration,
        mut accept: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, GatewayControlError> {
        let search = async {
            loop {
                match self.stream.output.next().await? {
                    None => return Err(GatewayControlError::Ended),
                    Some(Chunk::Err(_)) => {}
                    Some(Chunk::Out(chunk)) => {
                        for line in self.lines.push(&chunk) {
                            let found = serde_json::from_slice::<Event>(&line).ok().and_then(|event| accept(&event));
                            if let Some(found) = found {
                                return Ok(found);
                            }
                        }
                    }
                }
            }
        };
        tokio::time::timeout(limit, search).await.unwrap_or(Err(GatewayControlError::Silent(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_lines_across_chunks_and_drops_what_is_too_long() {
        let mut buffer = LineBuffer::default();
        assert!(buffer.push(b"ab").is_empty());
        assert_eq!(buffer.push(b"c\nd\ne"), [b"abc\n".to_vec(), b"d\n".to_vec()]);
        assert!(buffer.push(&vec![b'x'; LINE_LIMIT]).is_empty());
        assert_eq!(buffer.push(b"y\nnext\n"), [b"next\n".to_vec()]);
    }
}
