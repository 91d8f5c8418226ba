//! Answers DNS questions of the agent from a table: nothing is ever asked of another server, so DNS carries nothing out.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use crate::network::name::HostName;

/// The longest question that is read, in bytes. A name has at most 255, EDNS options add a few dozen.
pub const QUESTION_LIMIT: usize = 1232;

/// For how long an answer may be kept, in seconds: a policy can change at any time.
const TIME_TO_LIVE: u32 = 5;

/// What the table knows about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The address that stands for the name.
    Address(Ipv4Addr),
    /// The name is not listed.
    Unlisted,
    /// The name is listed, but no address can be given to it now.
    Exhausted,
}

/// The answer to a message, or `None` for one that deserves none (too short to have a header, too long, or itself an
/// answer). `tell` is told of a name that is not listed, as it was asked for, in ASCII and without the root's dot.
pub fn answer(
    message: &[u8],
    lookup: impl FnOnce(&HostName) -> Found,
    tell: impl FnOnce(&str, RecordType),
) -> Option<Vec<u8>> {
    // RFC 1035 section 4.1.1: a header has 12 bytes, the first two are the identifier, the highest bit of the third
    // marks a response. Answering responses would let two servers talk to each other forever.
    let identifier = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
    if message.len() < 12 || message.len() > QUESTION_LIMIT || message[2] & 0x80 != 0 {
        return None;
    }
    let Ok(question) = Message::from_vec(message) else {
        return Message::error_msg(identifier, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
    };
    reply(&question, lookup, tell).to_vec().ok()
}

fn reply(question: &Message, lookup: impl FnOnce(&HostName) -> Found, tell: impl FnOnce(&str, RecordType)) -> Message {
    let code = question.metadata.op_code;
    let mut reply = Message::new(question.metadata.id, MessageType::Response, code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(QUESTION_LIMIT as u16);
        reply.set_edns(edns);
    }
    if code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return reply;
    }
    let [query] = question.queries.as_slice() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return reply;
    };
    reply.add_query(query.clone());
    if query.query_class() != DNSClass::IN {
        reply.metadata.response_code = ResponseCode::Refused;
        return reply;
    }
    // The presentation form escapes every byte outside the usual ones, so an odd name cannot become a listed one.
    let asked = query.name().to_ascii();
    let found = match asked.parse::<HostName>() {
        Ok(name) if name.as_str() == "localhost" => Found::Address(Ipv4Addr::LOCALHOST),
        Ok(name) => lookup(&name),
        Err(_) => Found::Unlisted,
    };
    match found {
        Found::Address(address) => {
            if query.query_type() == RecordType::A {
                reply.add_answer(Record::from_rdata(query.name().clone(), TIME_TO_LIVE, RData::A(A(address))));
            }
        }
        Found::Unlisted => {
            tell(asked.strip_suffix('.').unwrap_or(&asked), query.query_type());
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        Found::Exhausted => reply.metadata.response_code = ResponseCode::ServFail,
    }
    reply
}

#[cfg(test)]
mod tests;
