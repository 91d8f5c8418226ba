//! Looks at a stream of bytes, as it is and with its encodings undone, with a few bytes of state.

use std::io::{self, Write};
use std::sync::Arc;

use aho_corasick::automaton::StateID;

use super::{Leak, Watch};

/// How many bytes a compressed body may have when it is unpacked.
const UNPACKED_LIMIT: u64 = 64 << 20;

/// The largest window of zstd that is unpacked: 2 MiB, which its default level uses.
const WINDOW_LOG: u32 = 21;

/// How many bytes of a stream one byte may be written in: `%5Cu0061` in turn percent-encoded.
const LONGEST_ESCAPE: usize = 18;

/// Looks at bytes as they come.
pub(super) struct Scanner {
    watch: Arc<Watch>,
    permitted: Arc<[bool]>,
    place: &'static str,
    /// After the bytes as they are.
    raw: StateID,
    /// After the bytes with their escapes undone.
    plain: StateID,
    /// Whether the two differ or may come to.
    apart: bool,
    escapes: Escapes,
    emitted: Vec<u8>,
    found: Option<Leak>,
    seen: u64,
    limit: u64,
}

impl Scanner {
    pub(super) fn new(watch: Arc<Watch>, permitted: Arc<[bool]>, place: &'static str) -> Self {
        let (raw, plain) = (watch.start, watch.start);
        Self {
            watch,
            permitted,
            place,
            raw,
            plain,
            apart: false,
            escapes: Escapes::default(),
            emitted: Vec::with_capacity(16),
            found: None,
            seen: 0,
            limit: u64::MAX,
        }
    }

    /// Looks at the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Leak> {
        if let Some(found) = &self.found {
            return Err(found.clone());
        }
        self.seen += bytes.len() as u64;
        if self.seen > self.limit {
            return Err(self.keep(Leak::Unreadable("it is too large when it is unpacked")));
        }
        for &byte in bytes {
            let before = self.raw;
            self.raw = self.watch.next(before, byte);
            self.check(self.raw)?;
            if !self.apart && !Escapes::begins(byte) {
                continue;
            }
            if !self.apart {
                (self.plain, self.apart) = (before, true);
            }
            self.emitted.clear();
            self.escapes.push(byte, &mut self.emitted);
            for index in 0..self.emitted.len() {
                self.plain = self.watch.next(self.plain, self.emitted[index]);
                self.check(self.plain)?;
            }
            // From here on they see the same again.
            self.apart = self.plain != self.raw || !self.escapes.is_idle();
        }
        Ok(())
    }

    /// How many of the last bytes could be the beginning of a value, which must not go on before it is clear that they are
    /// not.
    pub(super) fn undecided(&self) -> usize {
        let raw = self.watch.depth(self.raw);
        if !self.apart {
            return raw;
        }
        match self.watch.depth(self.plain) {
            0 => raw,
            plain => raw.max((plain + 1) * LONGEST_ESCAPE),
        }
    }

    fn check(&mut self, state: StateID) -> Result<(), Leak> {
        let Some(credential) = self.watch.found(state, &self.permitted) else { return Ok(()) };
        let leak = Leak::Carries { credential: credential.to_owned(), place: self.place };
        Err(self.keep(leak))
    }

    fn keep(&mut self, leak: Leak) -> Leak {
        self.found = Some(leak.clone());
        leak
    }
}

/// For decoders, which write what they unpack.
impl Write for Scanner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map(|()| bytes.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Undoes percent-encoding (RFC 3986 section 2.1), then the escapes of JSON strings (RFC 8259 section 7), and drops line
/// breaks, by which base64 is folded.
#[derive(Debug, Default)]
struct Escapes {
    /// What was read of a percent-encoded byte.
    percent: Vec<u8>,
    /// What was read of an escape of JSON.
    escape: Vec<u8>,
}

impl Escapes {
    fn begins(byte: u8) -> bool {
        matches!(byte, b'%' | b'\\' | b'\r' | b'\n')
    }

    fn is_idle(&self) -> bool {
        self.percent.is_empty() && self.escape.is_empty()
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.percent.is_empty() {
            if byte == b'%' {
                self.percent.push(byte);
            } else {
                self.unescape(byte, out);
            }
            return;
        }
        if !byte.is_ascii_hexdigit() {
            for held in std::mem::take(&mut self.percent) {
                self.unescape(held, out);
            }
            return self.push(byte, out);
        }
        self.percent.push(byte);
        if let [_, high, low] = *self.percent.as_slice() {
            self.percent.clear();
            self.unescape(digit(high) << 4 | digit(low), out);
        }
    }

    fn unescape(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.escape.as_slice(), byte) {
            ([], b'\\') => self.escape.push(byte),
            ([], b'\r' | b'\n') => {}
            ([], _) => out.push(byte),
            ([_], b'u') => self.escape.push(byte),
            ([_], _) => {
                self.escape.clear();
                match byte {
                    b'n' | b'r' => {}
                    b'/' | b'"' | b'\\' => out.push(byte),
                    _ => out.extend([b'\\', byte]),
                }
            }
            (_, _) if byte.is_ascii_hexdigit() => {
                self.escape.push(byte);
                if let [_, _, a, b, c, d] = *self.escape.as_slice() {
                    self.escape.clear();
                    // Values of credentials are ASCII but for passwords, which are found as they are.
                    let ascii = digit(a) == 0 && digit(b) == 0 && digit(c) < 8;
                    out.push(if ascii { digit(c) << 4 | digit(d) } else { b'?' });
                }
            }
            (_, _) => {
                out.append(&mut self.escape);
                self.unescape(byte, out);
            }
        }
    }
}

fn digit(byte: u8) -> u8 {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0)
}

/// Looks at a body, unpacked when it says that it is packed in a way that is known.
pub(super) enum BodyScanner {
    Plain(Scanner),
    Gzip(Box<flate2::write::MultiGzDecoder<Scanner>>),
    Zlib(Box<flate2::write::ZlibDecoder<Scanner>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Scanner>>),
}

impl BodyScanner {
    /// For a body of this `Content-Encoding` (RFC 9110 section 8.4.1). Others are looked at as they are.
    pub(super) fn new(mut scanner: Scanner, encoding: &str) -> Result<Self, Leak> {
        let encoding = encoding.trim().to_ascii_lowercase();
        if matches!(encoding.as_str(), "gzip" | "x-gzip" | "deflate" | "zstd") {
            scanner.limit = UNPACKED_LIMIT;
        }
        Ok(match encoding.as_str() {
            "gzip" | "x-gzip" => Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(scanner))),
            "deflate" => Self::Zlib(Box::new(flate2::write::ZlibDecoder::new(scanner))),
            "zstd" => {
                let unreadable = |_| Leak::Unreadable("there is no memory for it");
                let mut decoder = zstd::stream::write::Decoder::new(scanner).map_err(unreadable)?;
                decoder.window_log_max(WINDOW_LOG).map_err(unreadable)?;
                Self::Zstd(Box::new(decoder))
            }
            _ => Self::Plain(scanner),
        })
    }

    /// Looks at the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Leak> {
        let outcome = match self {
            Self::Plain(scanner) => return scanner.push(bytes),
            // Flushed, so that nothing that was unpacked waits for the next bytes.
            Self::Gzip(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Self::Zlib(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Self::Zstd(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
        };
        self.told(outcome)
    }

    /// Looks at what the end brings to light.
    pub(super) fn end(&mut self) -> Result<(), Leak> {
        let outcome = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Zstd(decoder) => decoder.flush(),
            Self::Plain(_) => Ok(()),
        };
        self.told(outcome)
    }

    /// How many of the last `held` bytes must not go on yet. Of a packed body it is all or nothing.
    pub(super) fn undecided(&self, held: usize) -> usize {
        match (self, self.scanner().undecided()) {
            (Self::Plain(_), undecided) => undecided.min(held),
            (_, 0) => 0,
            _ => held,
        }
    }

    fn told(&self, outcome: io::Result<()>) -> Result<(), Leak> {
        match (&self.scanner().found, outcome) {
            (Some(found), _) => Err(found.clone()),
            (None, Ok(())) => Ok(()),
            (None, Err(_)) => Err(Leak::Unreadable("it is not in the form that its head says")),
        }
    }

    fn scanner(&self) -> &Scanner {
        match self {
            Self::Plain(scanner) => scanner,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zlib(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
        }
    }
}
