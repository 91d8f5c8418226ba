//! Reads the head of an HTTP/1 request, more strictly than RFC 9112 asks for.
//!
//! Two parsers that read one request differently are how requests are smuggled. So whatever some parser reads
//! differently is refused here, before another parser sees it.

use crate::network::name::{Host, HostNameError};

/// How many bytes a request's head may take.
pub const HEAD_LIMIT: usize = 64 << 10;

/// How many header fields a request may have.
const FIELD_LIMIT: usize = 128;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The head is longer than [`HEAD_LIMIT`].
    #[error("the head has more than {HEAD_LIMIT} bytes")]
    TooLong,
    /// A line does not end in CR LF, or one of them stands alone.
    #[error("a line of the head does not end in CR LF")]
    LineEnd,
    /// A header field goes on in a second line (RFC 9112 section 5.2).
    #[error("a header field is folded")]
    Folded,
    /// Not HTTP/1.
    #[error("the head is not HTTP/1")]
    Syntax,
    /// Not exactly one `Host`.
    #[error("the head has {0} host fields")]
    Hosts(usize),
    /// `Content-Length` and `Transfer-Encoding`, or one of them twice, or one that is not plain.
    #[error("the length of the body is ambiguous")]
    Length,
    /// The target is in a form that has no meaning here.
    #[error("the target is not of the form that a proxy is asked in")]
    Target,
    /// The host is not one.
    #[error("the host is not valid")]
    Host(#[source] HostNameError),
    /// An upgrade to HTTP/2 by prior knowledge or a method for proxies' own use.
    #[error("the method is not supported")]
    Method,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method as written.
    pub method: String,
    /// How the destination is named.
    pub target: Target,
    /// Length of the head in bytes, its empty line included.
    pub length: usize,
}

/// A request's target (RFC 9112 section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `CONNECT host:port`.
    Authority(Host, u16),
    /// `http://host[:port]/…`.
    Absolute(Host, u16),
    /// `/…`, with the destination in `Host`.
    Origin(Host, u16),
}

/// Finds where a head ends while its bytes come in, and judges line ends and folding on the way. Each byte is looked at
/// once, however small the pieces are in which an agent sends them.
#[derive(Debug, Default)]
pub struct HeadEnd {
    looked: usize,
    line_start: usize,
}

impl HeadEnd {
    /// The index after the first empty line of a head that begins with all bytes that were given before.
    ///
    /// # Errors
    /// When no head begins so.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestError> {
        for (index, &byte) in bytes.iter().enumerate().skip(self.looked) {
            match byte {
                b'\n' if index == 0 || bytes[index - 1] != b'\r' => return Err(RequestError::LineEnd),
                b'\n' if index - self.line_start == 1 => {
                    // An empty first line is tolerated by some parsers (RFC 9112 section 2.2) and not by others.
                    return if self.line_start == 0 { Err(RequestError::Syntax) } else { Ok(Some(index + 1)) };
                }
                b'\n' => self.line_start = index + 1,
                b' ' | b'\t' if index == self.line_start => return Err(RequestError::Folded),
                b'\0' => return Err(RequestError::Syntax),
                _ if index > 0 && bytes[index - 1] == b'\r' => return Err(RequestError::LineEnd),
                _ => {}
            }
        }
        self.looked = bytes.len();
        if bytes.len() >= HEAD_LIMIT { Err(RequestError::TooLong) } else { Ok(None) }
    }
}

/// Reads a request's head from the first bytes of a connection. `None` means that more bytes are needed.
pub fn parse_request_head(bytes: &[u8]) -> Result<Option<RequestHead>, RequestError> {
    let end = HeadEnd::default().find(bytes)?;
    end.map(|length| parse_whole_head(bytes, length)).transpose()
}

/// Reads a request's head of this length, as [`HeadEnd`] found it.
///
/// # Errors
/// When it is refused.
pub fn parse_whole_head(bytes: &[u8], length: usize) -> Result<RequestHead, RequestError> {
    if length > HEAD_LIMIT {
        return Err(RequestError::TooLong);
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(&bytes[..length]) {
        Ok(httparse::Status::Complete(parsed)) if parsed == length => {}
        _ => return Err(RequestError::Syntax),
    }
    let (Some(method), Some(path)) = (request.method, request.path) else { return Err(RequestError::Syntax) };
    let version = request.version.ok_or(RequestError::Syntax)?;
    if method == "PRI" || method == "TRACE" {
        return Err(RequestError::Method);
    }
    check_length(request.headers, version)?;
    let hosts: Vec<&[u8]> = values(request.headers, "host").collect();
    let target = match (method, path.as_bytes().first()) {
        ("CONNECT", _) => {
            let (host, port) = split_authority(path, None)?;
            Target::Authority(host, port)
        }
        (_, Some(b'/')) => {
            let [host] = hosts.as_slice() else { return Err(RequestError::Hosts(hosts.len())) };
            let text = std::str::from_utf8(host).map_err(|_| RequestError::Syntax)?;
            let (host, port) = split_authority(text, Some(80))?;
            Target::Origin(host, port)
        }
        _ => {
            let (host, port) = split_absolute(path)?;
            Target::Absolute(host, port)
        }
    };
    if hosts.len() > 1 {
        return Err(RequestError::Hosts(hosts.len()));
    }
    Ok(RequestHead { method: method.to_owned(), target, length })
}

fn values<'a>(fields: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

fn check_length(fields: &[httparse::Header<'_>], version: u8) -> Result<(), RequestError> {
    let lengths: Vec<&[u8]> = values(fields, "content-length").collect();
    let encodings: Vec<&[u8]> = values(fields, "transfer-encoding").collect();
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => Ok(()),
        ([length], []) if (1..=18).contains(&length.len()) && length.iter().all(u8::is_ascii_digit) => Ok(()),
        ([], [encoding]) if version == 1 && encoding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(RequestError::Length),
    }
}

/// Splits `http://authority/…`. A user name, another scheme and a fragment have no meaning to a proxy.
fn split_absolute(target: &str) -> Result<(Host, u16), RequestError> {
    let scheme = target.get(..7).ok_or(RequestError::Target)?;
    if !scheme.eq_ignore_ascii_case("http://") || target.contains('#') {
        return Err(RequestError::Target);
    }
    let rest = &target[7..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    split_authority(&rest[..end], Some(80))
}

/// Splits `host:port`. Without a port the default is taken, where there is one.
pub fn split_authority(text: &str, default_port: Option<u16>) -> Result<(Host, u16), RequestError> {
    let colon = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|offset| bracket + offset),
        None => text.rfind(':'),
    };
    let (host, port) = match colon {
        None => (text, default_port.ok_or(RequestError::Target)?),
        Some(colon) => {
            let digits = &text[colon + 1..];
            let plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !plain || digits.starts_with('0') {
                return Err(RequestError::Target);
            }
            (&text[..colon], digits.parse().map_err(|_| RequestError::Target)?)
        }
    };
    Ok((host.parse().map_err(RequestError::Host)?, port))
}

#[cfg(test)]
mod tests;
