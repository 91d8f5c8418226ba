//! From a name to the address that is dialled: aliases, both families, hosts that are slow or half there, and name servers that
//! break, lie or repeat themselves.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;

use crate::LOOPBACK;
use crate::harness::{Harness, Mood, echo};

/// A server on the loopback of the other family that greets.
fn greets(address: SocketAddr) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"six");
        }
    });
    port
}

fn dialled(harness: &Harness, host: &str) -> String {
    harness.gateway.decision(host, "listed")["address"].as_str().unwrap().to_owned()
}

#[test]
fn an_alias_is_judged_by_where_it_leads() {
    let port = echo("hi");
    let mut harness =
        Harness::start(&[("inner.example", &["127.0.0.1"]), ("both.example", &["93.184.216.34", "127.0.0.1"])]);
    for (from, to) in [("alias.example.", "inner.example."), ("first.example.", "alias.example.")] {
        harness.zone(|zone| zone.aliases.insert(from.to_owned(), to.to_owned()));
    }
    harness.allow(&[("alias.example", port, &[]), ("both.example", port, &[])]);
    for host in ["alias.example", "both.example"] {
        let refused = harness.tunnel(&format!("{host}:{port}")).unwrap_err();
        assert!(
            refused.starts_with("HTTP/1.1 403 ") && refused.contains("127.0.0.1 is a loopback address"),
            "{refused}"
        );
        harness.gateway.decision(host, "address");
    }
    // The name that is listed counts, not the one that it leads to.
    assert!(harness.tunnel(&format!("inner.example:{port}")).unwrap_err().starts_with("HTTP/1.1 403 "));
    harness.gateway.decision("inner.example", "unlisted");
    harness.allow(&[("alias.example", port, LOOPBACK)]);
    assert_eq!(crate::receive(&mut harness.tunnel(&format!("alias.example:{port}")).unwrap(), 2), "hi");
    assert_eq!(dialled(&harness, "alias.example"), "127.0.0.1");
}

#[test]
fn a_host_of_the_newer_family_alone_is_reached() {
    let port = greets(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    let mut harness = Harness::start(&[("six.example", &["::1"])]);
    harness.allow(&[("six.example", port, &[])]);
    assert!(harness.tunnel(&format!("six.example:{port}")).unwrap_err().contains("::1 is a loopback address"));
    // The network of the other family, also as it is written in this one, opens nothing here.
    harness.allow(&[("six.example", port, &["127.0.0.0/8"])]);
    assert!(harness.tunnel(&format!("six.example:{port}")).is_err());
    harness.allow(&[("six.example", port, &["::1/128"])]);
    assert_eq!(crate::receive(&mut harness.tunnel(&format!("six.example:{port}")).unwrap(), 3), "six");
    assert_eq!(dialled(&harness, "six.example"), "::1");
}

#[test]
fn an_address_that_does_not_answer_holds_up_for_a_moment_alone() {
    use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, connect, listen, socket};
    let port = greets(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    // A queue for one connection, which is taken, and another that fills the kernel's last place: who comes then hears nothing.
    let silent = std::net::Ipv4Addr::new(127, 77, (std::process::id() % 250) as u8, 3);
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let address = SocketAddrV4::new(silent, port);
    bind(&full, &address).unwrap();
    listen(&full, 0).unwrap();
    let first = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    connect(&first, &address).unwrap();
    let hangs = std::net::TcpStream::connect_timeout(&SocketAddr::V4(address), Duration::from_millis(300));
    assert!(hangs.is_err(), "the queue is not full");
    let four = silent.to_string();
    let mut harness = Harness::start(&[("half.example", &[&four, "::1"]), ("closed.example", &["127.77.0.99", "::1"])]);
    harness.allow(&[
        ("half.example", port, &["127.0.0.0/8", "::1/128"]),
        ("closed.example", port, &["127.0.0.0/8", "::1/128"]),
    ]);
    for (host, limit) in [("half.example", Duration::from_secs(2)), ("closed.example", Duration::from_secs(1))] {
        let begun = Instant::now();
        assert_eq!(crate::receive(&mut harness.tunnel(&format!("{host}:{port}")).unwrap(), 3), "six");
        assert!(begun.elapsed() < limit, "{host} took {:?}", begun.elapsed());
        assert_eq!(dialled(&harness, host), "::1");
    }
}

#[test]
fn a_name_server_that_breaks_opens_nothing_and_is_used_again_when_it_is_well() {
    let port = echo("hi");
    let mut harness = Harness::start(&[("listed.example", &["127.0.0.1"])]);
    harness.allow(&[("listed.example", port, LOOPBACK), ("public.example", port, &[])]);
    let authority = format!("listed.example:{port}");
    let reached = |harness: &Harness| crate::receive(&mut harness.tunnel(&authority).unwrap(), 2) == "hi";
    for mood in [Mood::Failed, Mood::Garbage] {
        harness.zone(|zone| zone.mood = mood);
        let refused = harness.tunnel(&authority).unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 502 ") && refused.contains("cannot be resolved"), "{mood:?}: {refused}");
        harness.zone(|zone| zone.mood = Mood::Right);
        assert!(reached(&harness), "after {mood:?}");
    }
    // Datagrams are lost. Both kinds of address are asked for, so that two are.
    harness.zone(|zone| zone.mood = Mood::Silent(2));
    assert!(reached(&harness), "after lost datagrams");
    // Whoever guesses wrong is not listened to.
    harness.name("public.example", &["93.184.216.34"]);
    let forged: IpAddr = "127.0.0.1".parse().unwrap();
    harness.zone(|zone| zone.mood = Mood::Forged(forged));
    harness.allow(&[("public.example", port, LOOPBACK)]);
    assert!(
        !harness
            .tunnel(&format!("public.example:{port}"))
            .is_ok_and(|mut stream| crate::receive(&mut stream, 2) == "hi")
    );
}

#[test]
fn an_answer_holds_for_as_long_as_it_says() {
    let port = echo("hi");
    let mut harness = Harness::start(&[("listed.example", &["127.0.0.1"])]);
    harness.zone(|zone| zone.ttl = 2);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let authority = format!("listed.example:{port}");
    let asked = |harness: &Harness| {
        let question = ("listed.example.".to_owned(), RecordType::A);
        harness.zone(|zone| zone.asked.iter().filter(|asked| **asked == question).count())
    };
    let begun = Instant::now();
    for _ in 0..5 {
        assert!(harness.tunnel(&authority).is_ok());
    }
    if begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(asked(&harness), 1, "an answer that still holds was asked for again");
    }
    // Where the name leads now counts once the answer has run out.
    harness.name("listed.example", &["93.184.216.34"]);
    std::thread::sleep(Duration::from_millis(2200));
    let before = asked(&harness);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let _ = harness.open(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    crate::harness::eventually(|| asked(&harness) > before);
    // A name that was not there is asked for again when it is wanted again.
    harness.allow(&[("later.example", port, LOOPBACK)]);
    assert!(harness.tunnel(&format!("later.example:{port}")).is_err());
    harness.name("later.example", &["127.0.0.1"]);
    crate::harness::eventually(|| harness.tunnel(&format!("later.example:{port}")).is_ok());
}
