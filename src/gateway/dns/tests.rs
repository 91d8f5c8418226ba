use hickory_proto::op::Query;
use hickory_proto::rr::Name;
use proptest::prelude::*;

use super::*;

const LISTED: Ipv4Addr = Ipv4Addr::new(127, 100, 0, 1);

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn table(name: &HostName) -> Found {
    match name.as_str() {
        "listed.example" => Found::Address(LISTED),
        "full.example" => Found::Exhausted,
        _ => Found::Unlisted,
    }
}

fn ask(name: &str, kind: RecordType) -> Message {
    Message::from_vec(&answer(&question(name, kind), table, |_, _| {}).unwrap()).unwrap()
}

fn address(message: &Message) -> Option<Ipv4Addr> {
    message.answers.iter().find_map(|record| match record.data {
        RData::A(A(address)) => Some(address),
        _ => None,
    })
}

#[test]
fn answers_a_listed_name_with_its_address_in_any_letter_case() {
    for name in ["listed.example.", "LISTED.Example."] {
        let reply = ask(name, RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(reply.metadata.id, 7);
        assert_eq!(address(&reply), Some(LISTED));
        // The question comes back as it was written: resolvers check that (draft-vixie-dnsext-dns0x20).
        assert_eq!(reply.queries[0].name().to_ascii(), name);
    }
}

#[test]
fn other_types_of_a_listed_name_have_no_data() {
    for kind in [RecordType::AAAA, RecordType::TXT, RecordType::MX, RecordType::HTTPS, RecordType::ANY] {
        let reply = ask("listed.example.", kind);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{kind}");
        assert!(reply.answers.is_empty(), "{kind}");
    }
}

#[test]
fn every_other_name_does_not_exist() {
    for name in ["unlisted.example.", "a.listed.example.", "example.", ".", "1.0.0.127.in-addr.arpa."] {
        assert_eq!(ask(name, RecordType::A).metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(ask("full.example.", RecordType::A).metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn bytes_inside_a_label_never_make_it_another_name() {
    // `listed.example` as one label with a dot inside, and a NUL behind a listed name.
    for (name, byte) in [("listedXexample.", b'.'), ("listed.exampleX.", 0), ("listed.exampleX.", b' ')] {
        let mut bytes = question(name, RecordType::A);
        let index = bytes.iter().position(|byte| *byte == b'X').unwrap();
        bytes[index] = byte;
        let reply = Message::from_vec(&answer(&bytes, table, |_, _| {}).unwrap()).unwrap();
        assert!(reply.answers.is_empty(), "{name} with {byte}");
        assert_ne!(reply.metadata.response_code, ResponseCode::NoError, "{name} with {byte}");
    }
}

#[test]
fn localhost_is_loopback() {
    assert_eq!(address(&ask("localhost.", RecordType::A)), Some(Ipv4Addr::LOCALHOST));
    assert!(ask("localhost.", RecordType::AAAA).answers.is_empty());
}

#[test]
fn malformed_questions_get_a_format_error_and_answers_get_nothing() {
    let mut cut = question("listed.example.", RecordType::A);
    cut.truncate(20);
    let reply = Message::from_vec(&answer(&cut, table, |_, _| {}).unwrap()).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    let mut response = question("listed.example.", RecordType::A);
    response[2] |= 0x80;
    assert_eq!(answer(&response, table, |_, _| {}), None);
    assert_eq!(answer(&[0; 11], table, |_, _| {}), None);
    assert_eq!(answer(&[0; QUESTION_LIMIT + 1], table, |_, _| {}), None);
}

#[test]
fn refuses_two_questions_other_operations_and_other_classes() {
    let mut two = Message::new(7, MessageType::Query, OpCode::Query);
    for name in ["listed.example.", "unlisted.example."] {
        two.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    }
    let code =
        |bytes: &[u8]| Message::from_vec(&answer(bytes, table, |_, _| {}).unwrap()).unwrap().metadata.response_code;
    assert_eq!(code(&two.to_vec().unwrap()), ResponseCode::FormErr);
    let update = Message::new(7, MessageType::Query, OpCode::Status).to_vec().unwrap();
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut chaos = Message::new(7, MessageType::Query, OpCode::Query);
    let mut query = Query::query(Name::from_ascii("listed.example.").unwrap(), RecordType::A);
    query.set_query_class(DNSClass::CH);
    chaos.add_query(query);
    assert_eq!(code(&chaos.to_vec().unwrap()), ResponseCode::Refused);
}

proptest! {
    #[test]
    fn never_panics_and_never_answers_at_length(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Some(reply) = answer(&bytes, table, |_, _| {}) {
            prop_assert!(reply.len() <= QUESTION_LIMIT);
        }
    }
}
