use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use proptest::prelude::*;

use super::scan::{BodyScanner, Scanner};
use super::*;

const VALUE: &[u8] = b"ghs_f0/E+canary~5b0e7f1c";

fn leaks(name: &str, value: &[u8], hosts: &[&str]) -> Leaks {
    let leaks = Leaks::default();
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let place = CredentialPlace { credential: name.to_owned(), hosts };
    leaks.obey(&Policy { credentials: BTreeMap::from([("file".to_owned(), place)]), ..Policy::default() });
    leaks.hold_files(vec![file(value)], true);
    leaks
}

fn file(value: &[u8]) -> SecretFile {
    SecretFile { name: "file".to_owned(), content: Secret::new(value.to_vec()) }
}

fn scanner(leaks: &Leaks) -> Scanner {
    let watch = leaks.watch().unwrap();
    let permitted = vec![false; watch.holders.len()].into();
    Scanner::new(watch, permitted, "body")
}

/// Whether it is found in these bytes when they come in parts of this size, and how many had gone on before.
fn found(leaks: &Leaks, bytes: &[u8], part: usize, encoding: &str) -> (bool, usize) {
    let mut scanner = BodyScanner::new(scanner(leaks), encoding).unwrap();
    let (mut held, mut gone) = (0, 0);
    for part in bytes.chunks(part) {
        held += part.len();
        if let Err(leak) = scanner.push(part) {
            assert_eq!(leak.credential(), Some("github"), "{leak}");
            return (true, gone);
        }
        let undecided = scanner.undecided(held);
        gone += held - undecided;
        held = undecided;
    }
    (scanner.end().is_err(), gone)
}

/// The value in every encoding that is known, each with what it is called.
fn encodings(value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![
        ("plain".to_owned(), value.to_vec()),
        ("hex".to_owned(), hex::encode(value).into_bytes()),
        ("upper-case hex".to_owned(), hex::encode_upper(value).into_bytes()),
        ("percent".to_owned(), percent_encode(value, NON_ALPHANUMERIC).to_string().into_bytes()),
        ("percent, every byte".to_owned(), value.iter().flat_map(|byte| format!("%{byte:02x}").into_bytes()).collect()),
        ("JSON".to_owned(), serde_json::to_vec(&String::from_utf8_lossy(value)).unwrap()),
        ("JSON, every byte".to_owned(), value.iter().flat_map(|byte| format!("\\u{byte:04x}").into_bytes()).collect()),
    ];
    for (name, engine) in [
        ("base64", &STANDARD),
        ("base64 without padding", &STANDARD_NO_PAD),
        ("base64url", &URL_SAFE),
        ("base64url without padding", &URL_SAFE_NO_PAD),
    ] {
        for before in 0..3 {
            for after in 0..3 {
                let text = [&b"xy"[..before], value, &b"zw"[..after]].concat();
                let text = engine.encode(text).into_bytes();
                let folded = text.chunks(7).collect::<Vec<_>>();
                all.push((
                    format!("{name} {before} {after}, percent"),
                    percent_encode(&text, NON_ALPHANUMERIC).to_string().into_bytes(),
                ));
                all.push((format!("{name} {before} {after}, folded"), folded.join(&b"\r\n"[..])));
                all.push((format!("{name} {before} {after}, folded in JSON"), folded.join(&br"\n"[..])));
                all.push((format!("{name} {before} {after}"), text));
            }
        }
    }
    all
}

#[test]
fn finds_a_value_in_every_encoding_and_across_every_boundary() {
    let leaks = leaks("github", VALUE, &[]);
    for (name, text) in encodings(VALUE) {
        let body = [b"{\"a\": \"=", text.as_slice(), b"=\"}"].concat();
        for part in (1..20).chain([body.len()]) {
            assert!(found(&leaks, &body, part, "").0, "{name} in parts of {part}");
        }
    }
}

#[test]
fn lets_no_more_than_the_beginning_of_a_value_go_on() {
    let leaks = leaks("github", VALUE, &[]);
    for (name, text) in encodings(VALUE).into_iter().filter(|(name, _)| !name.contains("folded")) {
        let body = [b"0123456789", text.as_slice(), b"0123456789"].concat();
        let (found, gone) = found(&leaks, &body, 1, "");
        assert!(found, "{name}");
        // Eight bytes of a value, each written in as many as the longest escape has.
        let most = if name.contains("every byte") || name.contains("percent") { 10 + 8 * 6 } else { 10 + 8 + 4 };
        assert!(gone <= most, "{name}: {gone} of {} bytes had gone on", body.len());
    }
}

#[test]
fn reads_what_is_packed_and_refuses_what_is_not_what_it_says() {
    let leaks = leaks("github", VALUE, &[]);
    let with = [vec![b'a'; 70_000], VALUE.to_vec(), vec![b'b'; 70_000]].concat();
    let without = [vec![b'a'; 70_000], vec![b'b'; 70_000]].concat();
    type Pack = fn(&[u8]) -> Vec<u8>;
    let gzip: Pack = |bytes| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zlib: Pack = |bytes| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd: Pack = |bytes| zstd::encode_all(bytes, 3).unwrap();
    for (encoding, pack) in [("gzip", gzip), ("x-gzip", gzip), ("Deflate", zlib), ("zstd", zstd)] {
        for part in [1, 1000, usize::MAX] {
            assert!(found(&leaks, &pack(&with), part, encoding).0, "{encoding} in parts of {part}");
            assert_eq!(found(&leaks, &pack(&without), part, encoding), (false, pack(&without).len()), "{encoding}");
        }
        let mut lying = BodyScanner::new(scanner(&leaks), encoding).unwrap();
        assert!(
            matches!(lying.push(&[b"not packed at all, ", VALUE].concat()), Err(Leak::Unreadable(_))),
            "{encoding}"
        );
    }
    // Two members, of which the second has it.
    assert!(found(&leaks, &[gzip(b"nothing"), gzip(VALUE)].concat(), 5, "gzip").0);
    let mut bomb = BodyScanner::new(scanner(&leaks), "gzip").unwrap();
    let packed = gzip(&vec![0; 80 << 20]);
    assert!(packed.chunks(4096).any(|part| matches!(bomb.push(part), Err(Leak::Unreadable(_)))));
}

#[test]
fn each_credential_may_go_to_its_own_hosts_alone() {
    let host = |text: &str| text.parse::<Host>().unwrap();
    let parts = |field: &str, uri: &str| {
        let value = std::str::from_utf8(VALUE).unwrap();
        let mut request = http::Request::builder().uri(uri.replace("VALUE", value));
        if !field.is_empty() {
            request = request.header(field, format!("Bearer {value}"));
        }
        request.body(()).unwrap().into_parts().0
    };
    let named = leaks("github", VALUE, &["github.example", "*.own.example"]).watch().unwrap();
    assert!(named.look_at_head(&host("github.example"), false, &parts("x-any", "/?key=VALUE")).is_ok());
    assert!(named.look_at_head(&host("a.own.example"), true, &parts("authorization", "/")).is_ok());
    let leak = named.look_at_head(&host("other.example"), true, &parts("authorization", "/")).unwrap_err();
    assert_eq!(leak, Leak::Carries { credential: "github".to_owned(), place: "header fields" });
    // Where nobody named its hosts it may stand where credentials stand, and only over TLS.
    let open = leaks("github", VALUE, &[]).watch().unwrap();
    assert!(open.look_at_head(&host("any.example"), true, &parts("authorization", "/")).is_ok());
    assert!(open.look_at_head(&host("any.example"), false, &parts("authorization", "/")).is_err());
    for (field, uri) in [("x-any", "/"), ("cookie", "/"), ("", "/VALUE"), ("", "/?key=VALUE")] {
        assert!(open.look_at_head(&host("any.example"), true, &parts(field, uri)).is_err(), "{field} {uri}");
    }
    assert!(open.look_at_host(&format!("{}.any.example", hex::encode(VALUE))).is_err());
    assert!(open.look_at_host("any.example").is_ok());
}

#[test]
fn a_rotated_value_is_still_looked_for_and_a_withdrawn_one_is_not() {
    let leaks = leaks("github", VALUE, &[]);
    leaks.hold_files(vec![file(b"another-canary-value")], false);
    assert!(found(&leaks, VALUE, 100, "").0 && found(&leaks, b"another-canary-value", 100, "").0);
    leaks.hold_files(vec![file(b"a-third-canary-value")], false);
    assert!(!found(&leaks, VALUE, 100, "").0 && found(&leaks, b"another-canary-value", 100, "").0);
    leaks.forget_files(&["file".to_owned()]);
    assert!(leaks.watch().is_none());
}

#[test]
fn a_value_is_in_no_debug_output() {
    let leaks = leaks("github", VALUE, &[]);
    let text = format!("{leaks:?} {:?}", leaks.watch());
    assert!(text.contains("github") && !text.contains("canary"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn is_found_wherever_it_stands_and_in_nothing_else(
        value in "[!-~]{12,90}",
        before in prop::collection::vec(any::<u8>(), 0..300),
        after in prop::collection::vec(any::<u8>(), 0..300),
        part in 1_usize..120,
        which in any::<prop::sample::Index>(),
    ) {
        let leaks = leaks("github", value.as_bytes(), &[]);
        // A value with a backslash or a percent sign is found as it is and as it would be undone.
        let all = encodings(value.as_bytes());
        let (name, text) = which.get(&all);
        // An encoding begins at its own boundary: an escape that is cut off before it would swallow its first byte.
        let before: Vec<u8> = before.into_iter().filter(|byte| !matches!(byte, b'%' | b'\\')).collect();
        let body = [&before, b" ".as_slice(), text, &after].concat();
        prop_assert!(found(&leaks, &body, part, "").0, "{} of {:?}", name, value);
        let body = [before.clone(), after.clone()].concat();
        if !String::from_utf8_lossy(&body).to_lowercase().contains(&value.to_lowercase()) {
            let (found, gone) = found(&leaks, &body, part, "");
            prop_assert!(!found);
            prop_assert!(gone + 200 >= body.len());
        }
    }
}
