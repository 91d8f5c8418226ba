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
pub struct Scanner {
    watch: Arc<Watch>,
    permitted: Arc<[bool]>,
    place: &'static str,
    /// Whether it is an answer that is looked at, and not a request.
    answer: bool,
    /// After the bytes as they are.
    raw: StateID,
    /// After the bytes with their escapes undone: percent-encoding, JSON's, and both. A value may have in it what looks like
    /// an escape, so none of the three has the others' finds.
    undone: [StateID; 3],
    /// Whether one of them differs from `raw` or may come to.
    apart: bool,
    escapes: Escapes,
    found: Option<Leak>,
    seen: u64,
    limit: u64,
}

impl Scanner {
    /// Looks for every credential but those that are permitted there, by their number, in this part of a request.
    pub fn new(watch: Arc<Watch>, permitted: Arc<[bool]>, place: &'static str) -> Self {
        let raw = watch.start;
        Self {
            watch,
            permitted,
            place,
            answer: false,
            raw,
            undone: [raw; 3],
            apart: false,
            escapes: Escapes::default(),
            found: None,
            seen: 0,
            limit: u64::MAX,
        }
    }

    /// The same for an answer.
    pub(super) fn of_answer(watch: Arc<Watch>, permitted: Arc<[bool]>, place: &'static str) -> Self {
        Self { answer: true, ..Self::new(watch, permitted, place) }
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// When there is a credential in them, or they cannot be read.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Leak> {
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
                (self.undone, self.apart) = ([before; 3], true);
            }
            self.escapes.push(byte);
            for way in 0..3 {
                for index in 0..self.escapes.out[way].len() {
                    self.undone[way] = self.watch.next(self.undone[way], self.escapes.out[way][index]);
                    self.check(self.undone[way])?;
                }
            }
            // From here on they see the same again.
            self.apart = self.undone.iter().any(|state| *state != self.raw) || !self.escapes.is_idle();
        }
        Ok(())
    }

    /// How many of the last bytes could be the beginning of a value, which must not go on before it is clear that they are
    /// not.
    pub fn undecided(&self) -> usize {
        let raw = self.watch.depth(self.raw);
        if !self.apart {
            return raw;
        }
        match self.undone.iter().map(|state| self.watch.depth(*state)).max().unwrap_or(0) {
            0 => raw,
            undone => raw.max((undone + 1) * LONGEST_ESCAPE),
        }
    }

    fn check(&mut self, state: StateID) -> Result<(), Leak> {
        let Some(credential) = self.watch.found(state, &self.permitted) else { return Ok(()) };
        let (credential, place) = (credential.to_owned(), self.place);
        let leak = if self.answer { Leak::Shows { credential, place } } else { Leak::Carries { credential, place } };
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

/// Undoes percent-encoding, JSON's escapes, and the latter in what the former makes.
#[derive(Debug, Default)]
struct Escapes {
    percent: Percent,
    json: Json,
    both: Json,
    /// What the last byte made of the three, in this order.
    out: [Vec<u8>; 3],
}

impl Escapes {
    fn begins(byte: u8) -> bool {
        matches!(byte, b'%' | b'\\' | b'\r' | b'\n')
    }

    fn is_idle(&self) -> bool {
        self.percent.0.is_empty() && self.json.0.is_empty() && self.both.0.is_empty()
    }

    fn push(&mut self, byte: u8) {
        self.out.iter_mut().for_each(Vec::clear);
        let [percent, json, both] = &mut self.out;
        self.percent.push(byte, percent);
        self.json.push(byte, json);
        for byte in percent {
            self.both.push(*byte, both);
        }
    }
}

/// Undoes percent-encoding (RFC 3986 section 2.1); holds what was read of an encoded byte.
#[derive(Debug, Default)]
struct Percent(Vec<u8>);

impl Percent {
    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.0.as_slice(), byte) {
            ([], b'%') => self.0.push(byte),
            ([], _) => out.push(byte),
            ([_], _) if byte.is_ascii_hexdigit() => self.0.push(byte),
            ([_, high], _) if byte.is_ascii_hexdigit() => {
                out.push(digit(*high) << 4 | digit(byte));
                self.0.clear();
            }
            (_, _) => {
                out.append(&mut self.0);
                self.push(byte, out);
            }
        }
    }
}

/// Undoes the escapes of JSON strings (RFC 8259 section 7), and drops line breaks, by which base64 is folded; holds what was
/// read of an escape.
#[derive(Debug, Default)]
struct Json(Vec<u8>);

impl Json {
    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.0.as_slice(), byte) {
            ([], b'\\') => self.0.push(byte),
            ([], b'\r' | b'\n') => {}
            ([], _) => out.push(byte),
            ([_], b'u') => self.0.push(byte),
            ([_], _) => {
                self.0.clear();
                match byte {
                    b'n' | b'r' => {}
                    b'/' | b'"' | b'\\' => out.push(byte),
                    _ => out.extend([b'\\', byte]),
                }
            }
            ([_, _, a, b, c], _) if byte.is_ascii_hexdigit() => {
                // Values of credentials are ASCII but for passwords, which are found as they are.
                let ascii = digit(*a) == 0 && digit(*b) == 0 && digit(*c) < 8;
                out.push(if ascii { digit(*c) << 4 | digit(byte) } else { b'?' });
                self.0.clear();
            }
            (_, _) if byte.is_ascii_hexdigit() => self.0.push(byte),
            (_, _) => {
                out.append(&mut self.0);
                self.push(byte, out);
            }
        }
    }
}

fn digit(byte: u8) -> u8 {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0)
}

/// Looks at a body, unpacked when it says that it is packed in a way that is known.
pub enum BodyScanner {
    /// As it is.
    Plain(Box<Scanner>),
    /// RFC 1952.
    Gzip(Box<flate2::write::MultiGzDecoder<Scanner>>),
    /// RFC 1950.
    Zlib(Box<flate2::write::ZlibDecoder<Scanner>>),
    /// RFC 8878.
    Zstd(Box<zstd::stream::write::Decoder<'static, Scanner>>),
}

impl BodyScanner {
    /// For a body of this `Content-Encoding` (RFC 9110 section 8.4.1). Others are looked at as they are.
    ///
    /// # Errors
    /// When there is no memory to unpack it.
    pub fn new(mut scanner: Scanner, encoding: &str) -> Result<Self, Leak> {
        let encoding = encoding.trim().to_ascii_lowercase();
        // An answer is a host's, and may be a large download.
        if !scanner.answer && matches!(encoding.as_str(), "gzip" | "x-gzip" | "deflate" | "zstd") {
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
            _ => Self::Plain(Box::new(scanner)),
        })
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// When there is a credential in them, or they cannot be read.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Leak> {
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
    ///
    /// # Errors
    /// When there is a credential in it, or it is no end.
    pub fn end(&mut self) -> Result<(), Leak> {
        let outcome = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Zstd(decoder) => decoder.flush(),
            Self::Plain(_) => Ok(()),
        };
        self.told(outcome)
    }

    /// How many of the last `held` bytes must not go on yet. Of a packed body it is all or nothing.
    pub fn undecided(&self, held: usize) -> usize {
        match (self, self.scanner().undecided()) {
            (Self::Plain(_), undecided) => undecided.min(held),
            (_, 0) => 0,
            _ => held,
        }
    }

    fn told(&mut self, outcome: io::Result<()>) -> Result<(), Leak> {
        let scanner = self.scanner();
        match (&scanner.found, outcome) {
            (Some(found), _) => Err(found.clone()),
            (None, Ok(())) => Ok(()),
            // What a host packs wrongly (or not at all, as with HEAD) is the client's to judge. The rest is looked at as
            // it is.
            (None, Err(_)) if scanner.answer => {
                let plain = Scanner::of_answer(scanner.watch.clone(), scanner.permitted.clone(), scanner.place);
                *self = Self::Plain(Box::new(plain));
                Ok(())
            }
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
