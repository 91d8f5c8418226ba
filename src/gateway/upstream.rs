//! To a destination through a company's proxy: a tunnel by `CONNECT`, or the connection to the proxy itself for plain HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gateway::destination::{DialError, addresses_of, check, dial};
use crate::network::name::Host;
use crate::network::policy::AllowRule;
use crate::network::proxy::UpstreamProxy;

/// How long the proxy may take to open a tunnel, which it does when the destination has answered.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest head of an answer to `CONNECT`, in bytes.
const ANSWER_LIMIT: usize = 8 << 10;

/// Header fields that such an answer may have.
const FIELD_LIMIT: usize = 64;

/// Why a proxy opened no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The connection failed.
    #[error("the connection to it failed")]
    Connection(#[from] std::io::Error),
    /// It took too long.
    #[error("it did not answer in time")]
    Time,
    /// It said something that is no answer.
    #[error("it answered with something that is not HTTP")]
    Answer,
    /// It wants to know who asks.
    #[error("it asks for a log-in, which the gateway does not have")]
    LogIn,
    /// It said no.
    #[error("it answered with status {0}")]
    Refused(u16),
}

/// Connects to the proxy and, but for plain HTTP, has it open a tunnel.
///
/// # Errors
/// When the proxy is not reached or refuses.
pub async fn through(
    proxy: &UpstreamProxy,
    resolver: &TokioResolver,
    rule: &AllowRule,
    host: &Host,
    port: u16,
    tunnel: bool,
) -> Result<(TcpStream, SocketAddr), DialError> {
    // A name is the proxy's to resolve and to judge; an address is known here.
    if let Host::Address(address) = host {
        check(rule, &[*address])?;
    }
    let failed = |source| DialError::Proxy { proxy: proxy.to_string(), source };
    let addresses = addresses_of(resolver, &proxy.host).await?;
    let (mut stream, address) = dial(&addresses, proxy.port).await?;
    if tunnel {
        let opened = timeout(TUNNEL_TIMEOUT, connect(&mut stream, host, port)).await;
        opened.unwrap_or(Err(TunnelError::Time)).map_err(failed)?;
    }
    Ok((stream, address))
}

/// `CONNECT` as in RFC 9110 section 9.3.6: after a head with a status of 2xx, the connection is the tunnel.
async fn connect(stream: &mut TcpStream, host: &Host, port: u16) -> Result<(), TunnelError> {
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // What follows the head belongs to the tunnel, so that not a byte more than the head is taken.
    let mut head = Vec::new();
    let mut ahead = [0; 1024];
    loop {
        let length = stream.peek(&mut ahead).await?;
        if length == 0 {
            return Err(TunnelError::Answer);
        }
        let before = head.len();
        head.extend_from_slice(&ahead[..length]);
        let end = head.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4);
        let taken = end.map_or(length, |end| end - before);
        stream.read_exact(&mut ahead[..taken]).await?;
        if let Some(end) = end {
            return status(&head[..end]);
        }
        if head.len() > ANSWER_LIMIT {
            return Err(TunnelError::Answer);
        }
    }
}

fn status(head: &[u8]) -> Result<(), TunnelError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(TunnelError::Answer),
    }
    match response.code {
        Some(200..=299) => Ok(()),
        Some(407) => Err(TunnelError::LogIn),
        Some(code) => Err(TunnelError::Refused(code)),
        None => Err(TunnelError::Answer),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a proxy that answers with these bytes, some after a moment, for a tunnel. Gives what it was asked and the
    /// first bytes of the tunnel.
    async fn ask(pieces: &'static [&'static str]) -> (String, Result<String, TunnelError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1024];
            let length = stream.read(&mut asked).await.unwrap();
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let opened = connect(&mut stream, &"a.example".parse().unwrap(), 443).await;
        let asked = server.await.unwrap();
        let mut rest = String::new();
        let opened = match opened {
            Ok(()) => stream.read_to_string(&mut rest).await.map(|_| rest).map_err(TunnelError::from),
            Err(error) => Err(error),
        };
        (asked, opened)
    }

    #[tokio::test]
    async fn a_tunnel_begins_right_behind_the_answer() {
        let (asked, opened) =
            ask(&["HTTP/1.1 200 Connec", "tion established\r\nVia: 1.1 x\r", "\n\r\nSSH-2.0-hello"]).await;
        assert_eq!(asked, "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
        assert_eq!(opened.unwrap(), "SSH-2.0-hello");
    }

    #[tokio::test]
    async fn says_what_a_proxy_that_opens_none_answered() {
        let refused = ask(&["HTTP/1.1 403 Forbidden\r\n\r\n"]).await.1;
        assert!(matches!(refused, Err(TunnelError::Refused(403))), "{refused:?}");
        let log_in =
            ask(&["HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\n\r\n"]).await.1;
        assert!(matches!(log_in, Err(TunnelError::LogIn)), "{log_in:?}");
        for odd in [&["SSH-2.0-hello\r\n\r\n"][..], &["HTTP/1.1 200 OK\r\n"], &[]] {
            let answer = ask(odd).await.1;
            assert!(matches!(answer, Err(TunnelError::Answer)), "{odd:?}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_read_forever() {
        const LINE: &str =
            "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
        let pieces: Vec<&'static str> = std::iter::once("HTTP/1.1 200 OK\r\n").chain([LINE; 120]).collect();
        let (_, opened) = timeout(Duration::from_secs(20), ask(pieces.leak())).await.unwrap();
        assert!(matches!(opened, Err(TunnelError::Answer | TunnelError::Connection(_))), "{opened:?}");
    }
}
