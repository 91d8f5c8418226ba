//! Reads the server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! Nothing is decrypted: of Encrypted Client Hello only the outer name shows.

use rustls::server::Acceptor;

use crate::network::name::{Host, HostName};

/// How many bytes a ClientHello may take, record headers included.
pub const HELLO_LIMIT: usize = 16 << 10;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientHello {
    /// More bytes are needed.
    Incomplete,
    /// A complete ClientHello, with the server name as the client wrote it.
    Complete(Option<String>),
    /// Not TLS, or TLS that is malformed or too long.
    Invalid,
}

/// Whether a first byte opens a TLS handshake record (RFC 8446 section 5.1).
pub fn opens_tls(first: u8) -> bool {
    first == 0x16
}

/// How many bytes the TLS records take that these bytes begin (RFC 8446 section 5.1): with fewer there is nothing new to
/// read, however small the pieces are in which an agent sends them.
pub fn records_end(bytes: &[u8]) -> usize {
    const HEADER: usize = 5;
    let mut end = 0;
    while end < bytes.len() || end == 0 {
        let Some(header) = bytes.get(end..end + HEADER) else { return end + HEADER };
        end += HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    }
    end
}

/// Reads the first bytes of a connection as a ClientHello.
pub fn parse_client_hello(bytes: &[u8]) -> ClientHello {
    let Some(&first) = bytes.first() else { return ClientHello::Incomplete };
    if !opens_tls(first) || bytes.len() > HELLO_LIMIT {
        return ClientHello::Invalid;
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return ClientHello::Invalid;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return ClientHello::Complete(accepted.client_hello().server_name().map(str::to_owned));
            }
            Ok(None) => {}
            Err(_) => return ClientHello::Invalid,
        }
    }
    if bytes.len() == HELLO_LIMIT { ClientHello::Invalid } else { ClientHello::Incomplete }
}

/// The application protocols that a complete ClientHello offers, in its order (RFC 7301).
pub fn offered_protocols(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok() {
        if let Ok(Some(accepted)) = acceptor.accept() {
            let hello = accepted.client_hello();
            return hello.alpn().map(|offered| offered.map(<[u8]>::to_vec).collect()).unwrap_or_default();
        }
    }
    Vec::new()
}

/// Whether a ClientHello's server name is the host's. A client that was told an address sends none (RFC 6066).
pub fn names_host(server_name: Option<&str>, host: &Host) -> bool {
    match (server_name, host) {
        (Some(text), Host::Name(name)) => text.parse::<HostName>().is_ok_and(|asked| &asked == name),
        (None, Host::Address(_)) => true,
        (Some(_), Host::Address(_)) | (None, Host::Name(_)) => false,
    }
}

#[cfg(test)]
mod tests;
