//! To a destination through a company's proxy: a tunnel by `CONNECT` or SOCKS, or the connection to the proxy itself for
//! plain HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::TokioResolver;
use http::HeaderValue;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_socks::TargetAddr;
use tokio_socks::tcp::Socks5Stream;
use tokio_util::either::Either;
use zeroize::Zeroizing;

use crate::gateway::authority::Authority;
use crate::gateway::destination::{DialError, addresses_of, check, dial};
use crate::gateway::protocol::ProxyLogIn;
use crate::gateway::transfer::End;
use crate::network::name::Host;
use crate::network::policy::AllowRule;
use crate::network::proxy::{ProxyScheme, UpstreamProxy};

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
    /// It does not take who asks, or nobody says who asks.
    #[error("it refused the log-in, or asks for one that nobody gave")]
    LogIn,
    /// The log-in is in the launcher's hands, and did not come.
    #[error("its log-in is not here yet")]
    NoLogIn,
    /// Its certificate is not valid, or it does not speak TLS.
    #[error("no verified TLS connection to it")]
    Tls(#[source] io::Error),
    /// It answered by the rules of SOCKS that it does not.
    #[error("it opened no way by SOCKS")]
    Socks(#[source] tokio_socks::Error),
    /// It said no.
    #[error("it answered with status {0}")]
    Refused(u16),
}

/// A connection to the next hop: as it is, or in TLS to a proxy that wants it.
pub type ProxyStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl End for ProxyStream {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Left(stream) => Some(stream),
            Self::Right(_) => None,
        }
    }
}

/// A proxy, and what it takes to speak with it.
#[derive(Debug)]
pub struct Way<'a> {
    /// The proxy.
    pub proxy: &'a UpstreamProxy,
    /// Who goes through it.
    pub log_in: Option<&'a ProxyLogIn>,
    /// Whose certificates are trusted.
    pub authority: &'a Authority,
}

impl Way<'_> {
    /// `Basic` credentials for an HTTP proxy (RFC 7617), kept out of debug output.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let ProxyLogIn { user, password } = self.log_in?;
        let pair = Zeroizing::new([user.as_bytes(), b":", password.expose()].concat());
        let text = Zeroizing::new(format!("Basic {}", &*Zeroizing::new(STANDARD.encode(&*pair))));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Connects to the proxy and, but for plain HTTP, has it open a tunnel.
///
/// # Errors
/// When the proxy is not reached or refuses.
pub async fn through(
    way: &Way<'_>,
    resolver: &TokioResolver,
    rule: &AllowRule,
    host: &Host,
    port: u16,
) -> Result<ProxyStream, DialError> {
    let Way { proxy, log_in, authority } = way;
    // A name is the proxy's to resolve and to judge; an address is known here.
    if let Host::Address(address) = host {
        check(rule, &[*address])?;
    }
    let failed = |source| DialError::Proxy { proxy: proxy.to_string(), source };
    if proxy.log_in && log_in.is_none() {
        return Err(failed(TunnelError::NoLogIn));
    }
    let addresses = addresses_of(resolver, &proxy.host).await?;
    let (stream, _) = dial(&addresses, proxy.port).await?;
    let opened = timeout(TUNNEL_TIMEOUT, async {
        let mut stream = match proxy.scheme {
            ProxyScheme::Socks5 => return socks(stream, *log_in, host, port).await.map(Either::Left),
            ProxyScheme::Http => Either::Left(stream),
            ProxyScheme::Https => Either::Right(Box::new(secure(authority, &proxy.host, stream).await?)),
        };
        if proxy.tunnels(port) {
            connect(&mut stream, host, port, way.authorization()).await?;
        }
        Ok(stream)
    });
    opened.await.unwrap_or(Err(TunnelError::Time)).map_err(failed)
}

/// TLS to the proxy itself, whose certificate is checked as every host's is.
async fn secure(authority: &Authority, host: &Host, stream: TcpStream) -> Result<TlsStream<TcpStream>, TunnelError> {
    let name = match host {
        Host::Name(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        Host::Address(address) => ServerName::from(*address),
    };
    let config = authority.client(vec![b"http/1.1".to_vec()]).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(TunnelError::Tls)
}

/// A tunnel of SOCKS 5, to a name as it is or to an address.
async fn socks(
    stream: TcpStream,
    log_in: Option<&ProxyLogIn>,
    host: &Host,
    port: u16,
) -> Result<TcpStream, TunnelError> {
    let target = match host {
        Host::Name(name) => TargetAddr::Domain(name.to_string().into(), port),
        Host::Address(address) => TargetAddr::Ip((*address, port).into()),
    };
    let opened = match log_in {
        None => Socks5Stream::connect_with_socket(stream, target).await,
        Some(ProxyLogIn { user, password }) => {
            let password = std::str::from_utf8(password.expose()).map_err(|_| TunnelError::LogIn)?;
            Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
        }
    };
    match opened {
        Ok(tunnel) => Ok(tunnel.into_inner()),
        Err(tokio_socks::Error::PasswordAuthFailure(_) | tokio_socks::Error::NoAcceptableAuthMethods) => {
            Err(TunnelError::LogIn)
        }
        Err(error) => Err(TunnelError::Socks(error)),
    }
}

/// `CONNECT` as in RFC 9110 section 9.3.6: after a head with a status of 2xx, the connection is the tunnel.
async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &Host,
    port: u16,
    authorization: Option<HeaderValue>,
) -> Result<(), TunnelError> {
    let mut request = Zeroizing::new(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes());
    if let Some(value) = &authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    // What follows the head belongs to the tunnel, so that not a byte more than the head is taken.
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > ANSWER_LIMIT {
            return Err(TunnelError::Answer);
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(TunnelError::Answer),
            Err(error) => return Err(error.into()),
        }
    }
    status(&head)
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
        // tinyproxy gives 401 to a log-in that is wrong, and 407 only to none.
        Some(401 | 407) => Err(TunnelError::LogIn),
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
        let opened = connect(&mut stream, &"a.example".parse().unwrap(), 443, None).await;
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
