//! The framing between the launcher and a session inside the agent's container, over a non-TTY exec stream.
//!
//! A frame is one byte of kind, four bytes of length (big endian) and at most [`LIMIT`] bytes of payload. Both sides
//! refuse a longer one at once. Control frames carry one JSON document.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

use crate::beneath::tree::{Entry, TreeLimits};

/// The largest payload, in bytes.
pub const LIMIT: usize = 1 << 20;

/// One frame, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A JSON document: a [`Request`] towards the container, a [`Reply`] from it.
    Control(Bytes),
    /// Bytes of the current stream: standard input or a bundle inwards, standard output or a bundle outwards.
    Data(Bytes),
    /// The end of the current stream.
    End,
    /// Bytes of standard error; outwards only.
    ErrorData(Bytes),
}

/// What the launcher asks of a session. Requests are answered in order; `Resize` and `Signal` have no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Check the confinement from inside; answered by [`Reply::Probed`].
    Probe(ProbeRequest),
    /// Clone the bundle that follows as data frames; answered by [`Reply::Cloned`].
    Clone(CloneRequest),
    /// Send a bundle back: [`Reply::Bundling`], data frames, end, [`Reply::Bundled`].
    Bundle(BundleRequest),
    /// Take the large files that follow, as [`Request::Entry`] and data frames, into a clone's store of git-lfs, and an
    /// end; answered by [`Reply::LargeFiles`].
    LargeFiles(LargeFilesRequest),
    /// Name the commits of the clone in this folder that nothing but it may hold; answered by [`Reply::Tips`].
    Tips(String),
    /// Look at files that act outside of what is committed; answered by [`Reply::Standing`].
    Standing(StandingRequest),
    /// Measure the disk that these folders take together; answered by [`Reply::Used`].
    Usage(Vec<String>),
    /// Run a command; data frames are its standard input. [`Reply::Started`], output, [`Reply::Exited`].
    Run(RunRequest),
    /// Connect to a port of the agent's loopback: [`Reply::Connected`], then data frames both ways, and from each side one
    /// end, after which the next request may follow.
    Connect {
        /// The port.
        port: u16,
    },
    /// Send a file or a folder: [`Reply::Entry`] and data frames, end, [`Reply::Copied`].
    CopyOut(CopyRequest),
    /// Take a file or a folder: [`Request::Entry`] and data frames follow, and an end; answered by [`Reply::Copied`].
    CopyIn(CopyRequest),
    /// The next file or folder of a copy; has no answer.
    Entry(Entry),
    /// The terminal's new size.
    Resize(TerminalSize),
    /// Deliver this signal, by number, to the command's process group.
    Signal(i32),
}

/// What a session answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The findings of the probe, one for each check.
    Probed(Vec<Finding>),
    /// The clone stands; the commit that was checked out, as hexadecimal digits.
    Cloned {
        /// Object id of `HEAD`; empty for a repository without a commit.
        head: String,
    },
    /// A bundle follows as data frames; nothing follows when there is nothing new.
    Bundling {
        /// Object id of the branch's tip.
        head: String,
        /// Whether there is nothing to send.
        empty: bool,
    },
    /// The bundle was sent whole.
    Bundled,
    /// The large files are in their place.
    LargeFiles {
        /// Whether git-lfs put them into the working tree; without it, pointers stand there.
        checked_out: bool,
    },
    /// The tips of what was committed.
    Tips(Vec<Tip>),
    /// What there is.
    Standing(Vec<StandingFile>),
    /// What the folders take.
    Used(Usage),
    /// The connection stands.
    Connected,
    /// The next file or folder of a copy; a file's bytes follow as data frames.
    Entry(Entry),
    /// The copy is whole.
    Copied,
    /// The command runs.
    Started {
        /// Its process id inside the container.
        pid: u32,
    },
    /// The command ended.
    Exited {
        /// The exit code; 128 plus the signal's number when a signal ended it.
        code: u8,
    },
    /// The request failed.
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// A sentence fragment for people; from the container, so it is sanitised before it is shown.
        message: String,
    },
}

/// Kinds of failure that the launcher tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command does not exist: exit code 127.
    NotFound,
    /// The command cannot be executed: exit code 126.
    NotExecutable,
    /// git failed.
    Git,
    /// Anything else.
    Other,
}

/// One check of the probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The check's name, such as `interfaces`.
    pub check: String,
    /// Whether the confinement holds there.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
}

/// How a check of the probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As planned.
    Held,
    /// Worth a word to the user, no hole (an allowed host whose upstream does not answer).
    Warning,
    /// The confinement has a hole: the sandbox must not be used.
    Broken,
}

/// What the probe is to expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// The proxy's address: `127.0.0.1:3128`.
    pub proxy: String,
    /// A listed host and port, whose decision must be to allow; none for an empty list.
    pub listed: Option<(String, u16)>,
    /// A host that is not listed; or, where every host is on some ports, `HOST:PORT` with another one.
    pub unlisted: String,
    /// Whether upstream failures are expected.
    pub offline: bool,
    /// Paths that the agent must be able to write, such as `/workspace`.
    pub writable: Vec<String>,
}

/// The disk that folders take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Bytes of the blocks in use.
    pub bytes: u64,
    /// Files and folders, each once.
    pub files: u64,
    /// Folders that could not be read, or that are too deep to be followed.
    pub unreadable: u64,
}

/// Which large files follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargeFilesRequest {
    /// The clone's folder.
    pub directory: String,
}

/// A commit that a branch, a stash or a detached `HEAD` holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tip {
    /// The ref's full name, or `HEAD` where it names no branch.
    pub name: String,
    /// Object id.
    pub commit: String,
}

/// Where to look for files that act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingRequest {
    /// The clone's folder.
    pub clone: String,
    /// The agent's home.
    pub home: String,
}

/// A file that acts without being committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingFile {
    /// Its path in the container.
    pub path: String,
    /// SHA-256 of its content in hexadecimal digits; empty for one that cannot be read, or is too large.
    pub digest: String,
    /// Whether the last commit has another content for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub committed: bool,
}

/// How to set up the clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneRequest {
    /// The folder to clone into, which exists and is empty.
    pub directory: String,
    /// The branch to check out.
    pub branch: String,
    /// Whether the bundle's history is cut (`depth`), with the object ids at the cut.
    pub shallow: Vec<String>,
    /// git settings to write into the clone's own configuration, in order.
    pub config: Vec<(String, String)>,
    /// The remotes to set, by name.
    pub remotes: BTreeMap<String, String>,
    /// Folders that the working tree has, besides the files at its top and along the way; all when empty.
    #[serde(default)]
    pub sparse: Vec<String>,
    /// Whether `HEAD` is the commit itself and no branch, as in a submodule.
    #[serde(default)]
    pub detached: bool,
}

/// Which commits to send back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRequest {
    /// The clone's folder.
    pub directory: String,
    /// The branch.
    pub branch: String,
    /// Object id of a commit that the receiver has; none to send everything.
    pub base: Option<String>,
    /// The most bytes to send.
    pub limit: u64,
}

/// What to copy, or where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRequest {
    /// The folder that the path must stay in.
    pub folder: String,
    /// The path, from there.
    pub path: String,
    /// On the way in, the name in a folder that is there.
    pub name: String,
    /// On the way in, whether a file may take the place of a file.
    pub force: bool,
    /// On the way out, whether to leave out what cannot come, and git's folders, in place of a failure.
    // Left out as long as nobody asks for it: a helper of an earlier version does not know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lenient: bool,
    /// How much may go through.
    pub limits: TreeLimits,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables on top of the container's environment.
    pub environment: BTreeMap<String, String>,
    /// Variables whose value is the content of a file below `/run/secrets`, read as the command starts.
    pub secret_environment: BTreeMap<String, String>,
    /// Links that the home folder is to have: a path from there, to a file below `/run/secrets`.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// The working directory.
    pub directory: String,
    /// A pseudo-terminal of this size, or plain pipes.
    pub terminal: Option<TerminalSize>,
    /// Whether a copy of the output goes to PID 1's standard output, for `sandbox logs`.
    pub log: bool,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Why a stream is not one of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length above [`LIMIT`].
    #[error("a frame announces {0} bytes, at most {LIMIT} are allowed")]
    TooLong(usize),
    /// A kind that is not known.
    #[error("a frame has the unknown kind {0}")]
    Kind(u8),
    /// The end of a stream with bytes in it.
    #[error("a frame that ends a stream has a payload")]
    EndWithPayload,
    /// A control frame that is not the expected JSON document.
    #[error("a control frame is not a known message")]
    Message(#[source] serde_json::Error),
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] std::io::Error),
}

impl Frame {
    /// A control frame with this document.
    pub fn control<T: Serialize>(message: &T) -> Result<Self, FrameError> {
        serde_json::to_vec(message).map(|json| Self::Control(json.into())).map_err(FrameError::Message)
    }
}

/// Encodes and decodes frames; see the module's documentation for the format.
#[derive(Debug, Default, Clone, Copy)]
pub struct FrameCodec;

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let (kind, payload) = match frame {
            Frame::Control(json) => (1, json),
            Frame::Data(data) => (2, data),
            Frame::End => (3, Bytes::new()),
            Frame::ErrorData(data) => (4, data),
        };
        if payload.len() > LIMIT {
            return Err(FrameError::TooLong(payload.len()));
        }
        buffer.reserve(5 + payload.len());
        buffer.put_u8(kind);
        buffer.put_u32(payload.len() as u32);
        buffer.put_slice(&payload);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if buffer.len() < 5 {
            return Ok(None);
        }
        let kind = buffer[0];
        let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        if length > LIMIT {
            return Err(FrameError::TooLong(length));
        }
        if !(1..=4).contains(&kind) {
            return Err(FrameError::Kind(kind));
        }
        if kind == 3 && length > 0 {
            return Err(FrameError::EndWithPayload);
        }
        if buffer.len() < 5 + length {
            return Ok(None);
        }
        buffer.advance(5);
        let payload = buffer.split_to(length).freeze();
        Ok(Some(match kind {
            1 => Frame::Control(payload),
            2 => Frame::Data(payload),
            3 => Frame::End,
            _ => Frame::ErrorData(payload),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop_oneof![
            bytes().prop_map(Frame::Control),
            bytes().prop_map(Frame::Data),
            Just(Frame::End),
            bytes().prop_map(Frame::ErrorData)
        ]
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote_in_pieces_of_any_size(
            frames in proptest::collection::vec(frame(), 0..20),
            piece in 1_usize..50,
        ) {
            let mut written = BytesMut::new();
            for frame in &frames {
                FrameCodec.encode(frame.clone(), &mut written).unwrap();
            }
            let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
            for piece in written.chunks(piece) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn never_panics_and_never_gives_a_payload_above_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = FrameCodec.decode(&mut buffer) {
                if let Frame::Control(payload) | Frame::Data(payload) | Frame::ErrorData(payload) = frame {
                    prop_assert!(payload.len() <= LIMIT);
                }
            }
        }
    }

    #[test]
    fn refuses_a_length_above_the_limit_before_the_payload_arrives() {
        let mut buffer = BytesMut::from(&b"\x02\x00\x10\x00\x01"[..]);
        assert!(matches!(FrameCodec.decode(&mut buffer), Err(FrameError::TooLong(length)) if length == LIMIT + 1));
        let long = Frame::Data(vec![0; LIMIT + 1].into());
        assert!(matches!(FrameCodec.encode(long, &mut BytesMut::new()), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn refuses_an_end_with_a_payload() {
        let mut buffer = BytesMut::from(&b"\x03\x00\x00\x00\x01x"[..]);
        assert!(matches!(FrameCodec.decode(&mut buffer), Err(FrameError::EndWithPayload)));
    }
}
