//! HTTP/2 to a host with rules, frame by frame: what RFC 9113 and RFC 7541 forbid, written out as a table, and the floods
//! that brought servers down. None of it reaches the host, and the gateway goes on.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::LOOPBACK;
use crate::harness::{Harness, PATIENCE};
use crate::inspection::{LOCAL, Tls, authority, open_for, server};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// RFC 9113 section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal field that is not kept (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // An integer with a prefix of seven bits (section 5.1).
        let mut length = text.len();
        if length < 127 {
            bytes.push(length as u8);
        } else {
            bytes.push(127);
            length -= 127;
            while length >= 128 {
                bytes.push((length % 128) as u8 | 128);
                length /= 128;
            }
            bytes.push(length as u8);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

struct Scene {
    harness: Harness,
    port: u16,
    seen: crate::inspection::Seen,
    host: String,
}

/// What came back first that says how a request went.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// An answer of status 200: the first byte of its block is the static table's entry 8 (RFC 7541 appendix A).
    Answered,
    /// An answer of another status.
    Refused,
    /// The stream was reset.
    Reset,
    /// The connection was ended.
    Ended,
    /// Nothing came.
    Silence,
}

impl Scene {
    fn new() -> Self {
        let (port, seen) = server("rules.example", &["h2"]);
        let mut harness = Harness::start(&[("rules.example", LOCAL)]);
        let entry = json!({
            "host": "rules.example", "port": port, "allow_private": LOOPBACK, "rules": ["GET /open", "POST /open"]
        });
        let policy = json!({ "allow": [entry], "authorities": authority().certificate });
        assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
        Self { harness, port, seen, host: format!("rules.example:{port}") }
    }

    /// The fields of a request that is allowed, and then these.
    fn request(&self, method: &str, further: &[(&str, &str)]) -> Vec<u8> {
        let usual = [(":method", method), (":scheme", "https"), (":authority", self.host.as_str()), (":path", "/open")];
        fields(&[&usual, further].concat())
    }

    fn get(&self, stream: u32) -> Vec<u8> {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &self.request("GET", &[]))
    }

    fn connect(&self) -> Tls {
        let mut stream = open_for(&self.harness, self.port, &["h2"]);
        stream.write_all(PREFACE).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        stream
    }

    fn ask(&self, sent: &[u8]) -> Outcome {
        let mut stream = self.connect();
        // One that is ended early takes no more.
        let _ = stream.write_all(sent);
        let _ = stream.flush();
        outcome(&mut stream)
    }
}

/// Reads until something tells how the request went.
fn outcome(stream: &mut Tls) -> Outcome {
    let mut head = [0; 9];
    loop {
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return Outcome::Silence;
            }
            Err(_) => return Outcome::Ended,
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return Outcome::Ended;
        }
        match head[3] {
            HEADERS if payload.first() == Some(&0x88) => return Outcome::Answered,
            HEADERS => return Outcome::Refused,
            RST_STREAM => return Outcome::Reset,
            // The first of two that an orderly end has is only a warning (RFC 9113 section 6.8).
            GOAWAY if payload[4..8] == [0; 4] => {}
            GOAWAY => return Outcome::Ended,
            _ => {}
        }
    }
}

#[test]
fn what_the_standard_forbids_reaches_no_host() {
    let scene = Scene::new();
    assert_eq!(scene.ask(&scene.get(1)), Outcome::Answered);
    let allowed = scene.seen.lock().unwrap().len();
    let headers = |flags, stream, block: &[u8]| frame(HEADERS, flags, stream, block);
    let whole = END_STREAM | END_HEADERS;
    let get = |further: &[(&str, &str)]| headers(whole, 1, &scene.request("GET", further));
    let bare = |list: &[(&str, &str)]| headers(whole, 1, &fields(list));
    let host = scene.host.as_str();
    let post = headers(END_HEADERS, 1, &scene.request("POST", &[("content-length", "4")]));
    let setting =
        |number: u16, value: u32| frame(SETTINGS, 0, 0, &[&number.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let block = scene.request("GET", &[]);
    let cases: &[(&str, Vec<u8>)] = &[
        // RFC 9113 section 4: frames.
        ("4.2 a frame larger than may be", frame(DATA, 0, 1, &[0; 16_385])),
        ("4.2 fields larger than a frame may be", frame(HEADERS, whole, 1, &[0; 16_385])),
        ("4.3 an index that is not in the table", headers(whole, 1, &[0xff, 0x80, 0x01])),
        ("4.3 the index nothing", headers(whole, 1, &[0x80])),
        ("4.3 an integer without an end", headers(whole, 1, &[0xff; 40])),
        ("4.3 a text longer than its block", headers(whole, 1, &[0x00, 0x7f, 0xff, 0x7f])),
        ("4.3 a table larger than was offered", headers(whole, 1, &[&[0x3f, 0xe1, 0xff, 0x03][..], &block].concat())),
        ("4.3 text with a code that ends early", headers(whole, 1, &[0x00, 0x81, 0xff, 0x81, 0xff])),
        // Section 5.1: streams.
        ("5.1 data on an idle stream", frame(DATA, END_STREAM, 1, b"x")),
        ("5.1 a window on an idle stream", frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())),
        ("5.1 a reset of an idle stream", frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())),
        ("5.1.1 an even stream", headers(whole, 2, &block)),
        ("5.1.1 the stream nothing", headers(whole, 0, &block)),
        ("5.1.1 a stream that goes back", [headers(END_HEADERS, 5, &fields(&[])), headers(whole, 3, &block)].concat()),
        // Section 6: each kind of frame.
        ("6.1 data on the stream nothing", frame(DATA, 0, 0, b"x")),
        ("6.1 padding longer than the data", [post.clone(), frame(DATA, PADDED, 1, &[9, 1, 1])].concat()),
        ("6.2 padding longer than the fields", frame(HEADERS, PADDED | whole, 1, &[200, 0])),
        ("6.3 a priority on the stream nothing", frame(PRIORITY, 0, 0, &[0; 5])),
        ("6.4 a reset of the stream nothing", frame(RST_STREAM, 0, 0, &[0; 4])),
        ("6.4 a reset of another length", [get(&[]), frame(RST_STREAM, 0, 3, &[0; 3])].concat()),
        ("6.5 settings on a stream", frame(SETTINGS, 0, 1, &[])),
        ("6.5 settings of another length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("6.5 acknowledged settings with some", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("6.5.2 a push that is neither on nor off", setting(2, 2)),
        ("6.5.2 a window larger than may be", setting(4, 1 << 31)),
        ("6.5.2 frames smaller than may be", setting(5, 16_383)),
        ("6.5.2 frames larger than may be", setting(5, 1 << 24)),
        ("6.6 a promise of a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
        ("6.7 a ping on a stream", frame(PING, 0, 1, &[0; 8])),
        ("6.7 a ping of another length", frame(PING, 0, 0, &[0; 7])),
        ("6.8 a farewell on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("6.9 a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("6.9 a window of another length", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("6.9.1 a window that overflows", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        ("6.10 a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &block)),
        (
            "6.10 another stream between",
            [headers(END_STREAM, 1, &block[..9]), frame(CONTINUATION, END_HEADERS, 3, &block[9..])].concat(),
        ),
        (
            "6.10 another frame between",
            [
                headers(END_STREAM, 1, &block[..9]),
                frame(PING, 0, 0, &[0; 8]),
                frame(CONTINUATION, END_HEADERS, 1, &block[9..]),
            ]
            .concat(),
        ),
        // Section 8: requests.
        ("8.1 data shorter than its length", [post.clone(), frame(DATA, END_STREAM, 1, b"x")].concat()),
        ("8.1 data longer than its length", [post.clone(), frame(DATA, END_STREAM, 1, b"more than four")].concat()),
        (
            "8.1 a second block that does not end",
            [post.clone(), frame(DATA, 0, 1, b"body"), headers(END_HEADERS, 1, &field("x", "y"))].concat(),
        ),
        ("8.2 a name in upper case", get(&[("X-Upper", "a")])),
        ("8.2 a name with a space", get(&[("x y", "a")])),
        ("8.2 a name with a colon", get(&[("x:y", "a")])),
        ("8.2 a name of nothing", get(&[("", "a")])),
        ("8.2 a value with a line break", get(&[("x", "a\r\ntransfer-encoding: chunked")])),
        ("8.2 a value with a zero", get(&[("x", "a\0b")])),
        ("8.2.2 a field of one connection", get(&[("connection", "keep-alive")])),
        ("8.2.2 a transfer coding", get(&[("transfer-encoding", "chunked")])),
        ("8.2.2 an upgrade", get(&[("upgrade", "h2c")])),
        ("8.2.2 what a proxy's connection has", get(&[("proxy-connection", "keep-alive")])),
        ("8.2.2 another TE than trailers", get(&[("te", "gzip")])),
        ("8.3 no method", bare(&[(":scheme", "https"), (":authority", host), (":path", "/open")])),
        ("8.3 no scheme", bare(&[(":method", "GET"), (":authority", host), (":path", "/open")])),
        ("8.3 no path", bare(&[(":method", "GET"), (":scheme", "https"), (":authority", host)])),
        ("8.3 an empty path", bare(&[(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "")])),
        ("8.3 no host at all", bare(&[(":method", "GET"), (":scheme", "https"), (":path", "/open")])),
        ("8.3 two methods", get(&[(":method", "POST")])),
        ("8.3 two paths", get(&[(":path", "/hidden")])),
        ("8.3 two hosts", get(&[(":authority", "other.example")])),
        ("8.3 a pseudo field of an answer", get(&[(":status", "200")])),
        ("8.3 a pseudo field that is none", get(&[(":odd", "x")])),
        (
            "8.3 a pseudo field behind another",
            bare(&[(":method", "GET"), (":scheme", "https"), ("x", "y"), (":authority", host), (":path", "/open")]),
        ),
        // RFC 8441: nobody offered it.
        (
            "8441 an extended CONNECT",
            bare(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", host),
                (":path", "/open"),
            ]),
        ),
        ("8.5 a CONNECT", bare(&[(":method", "CONNECT"), (":authority", host)])),
        // What is allowed by the standard and not here.
        (
            "another authority",
            bare(&[(":method", "GET"), (":scheme", "https"), (":authority", "other.example"), (":path", "/open")]),
        ),
        ("another host beside the authority", get(&[("host", "other.example")])),
        ("two hosts beside the authority", get(&[("host", host), ("host", host)])),
        (
            "a host and no authority",
            bare(&[(":method", "GET"), (":scheme", "https"), (":path", "/open"), ("host", "other.example")]),
        ),
        (
            "another port",
            bare(&[(":method", "GET"), (":scheme", "https"), (":authority", "rules.example"), (":path", "/open")]),
        ),
        (
            "a user",
            bare(&[(":method", "GET"), (":scheme", "https"), (":authority", &format!("a@{host}")), (":path", "/open")]),
        ),
        (
            "a path that is none",
            bare(&[(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "open")]),
        ),
        (
            "all of a server",
            bare(&[(":method", "OPTIONS"), (":scheme", "https"), (":authority", host), (":path", "*")]),
        ),
        (
            "another path",
            bare(&[(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/open/../hidden")]),
        ),
        (
            "a method that shows the request",
            bare(&[(":method", "TRACE"), (":scheme", "https"), (":authority", host), (":path", "/open")]),
        ),
    ];
    for (what, sent) in cases {
        let outcome = scene.ask(sent);
        assert!(!matches!(outcome, Outcome::Answered | Outcome::Silence), "{what}: {outcome:?}");
        let seen = scene.seen.lock().unwrap();
        // A GET that is allowed goes before some of them.
        assert!(seen[allowed..].iter().all(|line| line.contains(" GET ")), "{what}: {seen:#?}");
        assert!(seen.len() <= allowed + 1, "{what}: {seen:#?}");
        drop(seen);
        scene.seen.lock().unwrap().truncate(allowed);
    }
    // Trailers are dropped, whatever they pretend to be (8.1 forbids pseudo fields in them).
    let trailers = headers(whole, 1, &fields(&[(":path", "/hidden"), ("x-late", "mine")]));
    scene.ask(&[post, frame(DATA, 0, 1, b"body"), trailers].concat());
    assert_eq!(scene.ask(&scene.get(1)), Outcome::Answered);
    let seen = scene.seen.lock().unwrap();
    assert!(seen.iter().all(|line| !line.contains("hidden") && !line.contains("x-late")), "{seen:#?}");
}

#[test]
fn fields_are_bounded_in_number_and_size_also_when_they_are_packed() {
    let scene = Scene::new();
    // RFC 7541 section 6.2.1: a field that is kept, and then named again and again by one byte.
    let mut kept = field("x-bomb", &"y".repeat(3000));
    kept[0] = 0x40;
    let bomb = [&scene.request("GET", &[])[..], &kept, &[0xbe; 8000]].concat();
    let outcome = scene.ask(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
    assert!(matches!(outcome, Outcome::Refused | Outcome::Reset | Outcome::Ended), "{outcome:?}");
    let long = "z".repeat(14_000);
    let mut sent = frame(HEADERS, END_STREAM, 1, &scene.request("GET", &[]));
    for _ in 0..8 {
        sent.extend(frame(CONTINUATION, 0, 1, &field("x-long", &long)));
    }
    sent.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    let outcome = scene.ask(&sent);
    assert!(matches!(outcome, Outcome::Refused | Outcome::Reset | Outcome::Ended), "{outcome:?}");
    assert!(scene.seen.lock().unwrap().is_empty());
    assert_eq!(scene.ask(&scene.get(1)), Outcome::Answered);
}

/// Sends so many frames, as far as they are taken, and says whether the connection was ended for it.
fn flood(scene: &Scene, most: usize, frames: impl Fn(usize) -> Vec<u8>) -> bool {
    let mut stream = scene.connect();
    stream.sock.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    // One that is ended may still take bytes for a moment.
    let _ = (0..most).try_for_each(|number| stream.write_all(&frames(number)));
    stream.sock.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    loop {
        match outcome(&mut stream) {
            Outcome::Ended => return true,
            Outcome::Silence => return false,
            _ => {}
        }
    }
}

#[test]
fn floods_of_frames_end_their_connection_and_take_no_memory() {
    let scene = Scene::new();
    assert_eq!(scene.ask(&scene.get(1)), Outcome::Answered);
    let before = scene.harness.gateway.anonymous_memory();
    let stream = |number: usize| u32::try_from(number * 2 + 1).unwrap();
    let begin = scene.request("GET", &[]);
    // CVE-2023-44487: streams that are opened and reset at once.
    let rapid =
        |number| [scene.get(stream(number)), frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes())].concat();
    assert!(flood(&scene, 5000, rapid), "rapid resets go on for ever");
    // The same by streams that the gateway has to reset itself.
    let by_error = |number| [scene.get(stream(number)), frame(WINDOW_UPDATE, 0, stream(number), &[0; 4])].concat();
    assert!(flood(&scene, 5000, by_error), "resets for errors go on for ever");
    // CVE-2024-27316 and its like: a block of fields without an end, also in frames of nothing.
    let endless = |number| match number {
        0 => frame(HEADERS, 0, 1, &begin),
        _ => frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(900))),
    };
    assert!(flood(&scene, 2000, endless), "a block of fields goes on for ever");
    let of_nothing = |number| match number {
        0 => frame(HEADERS, 0, 1, &begin),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(16),
    };
    assert!(flood(&scene, 2000, of_nothing), "frames of nothing go on for ever");
    // CVE-2019-9512 and -9515: answers that nobody reads. They end, or wait for the reader.
    let pings = flood(&scene, 3000, |_| frame(PING, 0, 0, &[7; 8]).repeat(100));
    let settings = flood(&scene, 3000, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(100));
    // More streams than were offered.
    let open = |number| frame(HEADERS, END_HEADERS, stream(number), &scene.request("POST", &[]));
    flood(&scene, 2000, open);
    let used = scene.harness.gateway.anonymous_memory().saturating_sub(before);
    assert!(used < 16 << 10, "{used} KiB more than before; ended for pings: {pings}, for settings: {settings}");
    assert_eq!(scene.ask(&scene.get(1)), Outcome::Answered);
    let seen = scene.seen.lock().unwrap().len();
    assert!(seen < 2000, "{seen} requests of a flood reached the host");
}

#[test]
fn a_stream_that_uploads_ends_when_its_rule_is_gone() {
    let mut scene = Scene::new();
    let mut stream = scene.connect();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &scene.request("POST", &[]))).unwrap();
    stream.write_all(&frame(DATA, 0, 1, b"first")).unwrap();
    stream.flush().unwrap();
    scene.harness.gateway.wait_for(|event| event["event"] == "request" && event["method"] == "POST");
    assert_eq!(scene.harness.gateway.command(json!({ "policy": { "allow": [] } })), None);
    scene.harness.gateway.wait_for(|event| event["event"] == "closed");
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(&frame(DATA, END_STREAM, 1, b"second"));
    assert_eq!(outcome(&mut stream), Outcome::Ended);
    // The server of the test keeps whole requests: this one never became one.
    assert!(scene.seen.lock().unwrap().is_empty(), "{:?}", scene.seen.lock().unwrap());
}
