//! A listener that hands out connections whose TLS handshake is done, for protocols that begin with TLS right away (HTTP, gRPC).
//!
//! To serve with axum or tonic, wrap [`TlsListener`] and [`MaybeTlsStream`] in types of your own that implement what the library asks for: the traits are
//! theirs, and neither library is linked here.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use crate::admission::{Admission, Ticket};
use crate::certificate::{Acceptor, Protocol, ServerTls};

/// How long a client may take for its handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long accepting pauses after an error: out of file descriptors, most likely.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
/// Most of what a refused client has sent that is read before the connection is closed: closing with bytes unread would take the answer back.
const REFUSED_BYTES_MAX: usize = 64 << 10;

/// What becomes of a client that begins without TLS where there is a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// It is served.
    Allowed,
    /// It is told this, as far as its protocol has words for it, and the connection is closed.
    Refused(&'static [u8]),
}

/// A stream, encrypted or not.
#[derive(Debug)]
enum MaybeTlsStream {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection in its place. Reading fails once it must end to make room for another one.
pub struct Connection {
    stream: MaybeTlsStream,
    ticket: Ticket,
    evicted: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("stream", &self.stream)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

impl Connection {
    fn new(stream: MaybeTlsStream, ticket: Ticket) -> Self {
        Self {
            stream,
            evicted: Box::pin(ticket.evicted_owned()),
            ticket,
        }
    }

    /// Its place: to be told when the client is known.
    #[must_use]
    pub const fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

type Handshake = BoxFuture<'static, Option<(Connection, SocketAddr)>>;

/// A listening socket, with or without TLS.
pub struct TlsListener {
    listener: TcpListener,
    tls: Option<(Arc<ServerTls>, Protocol, Plaintext)>,
    admission: Admission,
    /// Accepted, and waiting for a place.
    waiting: Option<(TcpStream, SocketAddr)>,
    handshakes: FuturesUnordered<Handshake>,
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener")
            .field("listener", &self.listener)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl TlsListener {
    /// Connections in the clear.
    #[must_use]
    pub fn plain(listener: TcpListener, admission: Admission) -> Self {
        Self {
            listener,
            tls: None,
            admission,
            waiting: None,
            handshakes: FuturesUnordered::new(),
        }
    }

    /// Connections with TLS, and those without as `plaintext` says.
    #[must_use]
    pub fn tls(
        listener: TcpListener,
        tls: Arc<ServerTls>,
        protocol: Protocol,
        plaintext: Plaintext,
        admission: Admission,
    ) -> Self {
        Self {
            listener,
            tls: Some((tls, protocol, plaintext)),
            admission,
            waiting: None,
            handshakes: FuturesUnordered::new(),
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection that is ready to be served. Handshakes go on only while this is awaited: call it in a loop, and serve elsewhere.
    ///
    /// # Cancel safety
    /// Nothing is lost: handshakes under way are kept.
    pub async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (listener, admission) = (&self.listener, &self.admission);
            let (waiting, handshakes) = (&mut self.waiting, &mut self.handshakes);
            let next = async {
                let (_, peer) = match waiting {
                    Some(waiting) => waiting,
                    None => waiting.insert(listener.accept().await?),
                };
                Ok((admission.admit(peer.ip()).await, *peer))
            };
            let admitted: io::Result<_> = tokio::select! {
                Some(done) = handshakes.next(), if !handshakes.is_empty() => match done {
                    Some(ready) => return ready,
                    None => continue,
                },
                // Each handshake has a place: there are not more than may be opening.
                admitted = next => admitted,
            };
            let (admitted, peer) = match admitted {
                Ok(admitted) => admitted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // As one more handshake: those under way go on meanwhile.
                    self.handshakes.push(Box::pin(async {
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                        None
                    }));
                    continue;
                }
            };
            let Some((stream, _)) = self.waiting.take() else {
                continue;
            };
            let ticket = match admitted {
                Ok(ticket) => ticket,
                Err(full) => {
                    tracing::debug!(%peer, %full, "a connection was refused");
                    continue;
                }
            };
            // An error means that the connection is gone; whoever reads from it will see.
            let _ = stream.set_nodelay(true);
            match &self.tls {
                None => return (Connection::new(MaybeTlsStream::Plain(stream), ticket), peer),
                Some((tls, protocol, plaintext)) => {
                    let (acceptor, plaintext) = (tls.acceptor(*protocol), *plaintext);
                    self.handshakes.push(Box::pin(async move {
                        let work = async {
                            tokio::select! {
                                biased;
                                () = ticket.evicted() => Err(io::Error::from(ErrorKind::ConnectionAborted)),
                                stream = handshake(stream, acceptor, plaintext, &ticket) => stream,
                            }
                        };
                        match tokio::time::timeout(HANDSHAKE_DEADLINE, work).await {
                            Ok(Ok(stream)) => stream.map(|stream| (Connection::new(stream, ticket), peer)),
                            Ok(Err(error)) => {
                                tracing::debug!(%peer, %error, "TLS handshake failed");
                                None
                            }
                            Err(_) => {
                                tracing::debug!(%peer, "TLS handshake took too long");
                                None
                            }
                        }
                    }));
                }
            }
        }
    }
}

/// Does the handshake; `None` for a client that was refused.
async fn handshake(
    mut stream: TcpStream,
    acceptor: Acceptor,
    plaintext: Plaintext,
    ticket: &Ticket,
) -> io::Result<Option<MaybeTlsStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    ticket.heard();
    if first == [TLS_HANDSHAKE] {
        let stream = acceptor.tls.accept(stream).await?;
        return Ok(Some(MaybeTlsStream::Tls(Box::new(stream))));
    }
    match plaintext {
        Plaintext::Allowed => Ok(Some(MaybeTlsStream::Plain(stream))),
        Plaintext::Refused(answer) => {
            stream.write_all(answer).await?;
            stream.shutdown().await?;
            let mut rest = (&mut stream).take(u64::try_from(REFUSED_BYTES_MAX).unwrap_or(u64::MAX));
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            Ok(None)
        }
    }
}

macro_rules! delegate {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.as_mut().get_mut() {
            Connection { stream: MaybeTlsStream::Plain(stream), .. } => Pin::new(stream).$method($($argument),*),
            Connection { stream: MaybeTlsStream::Tls(stream), .. } => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ticket.is_evicted() || self.evicted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = delegate!(self, poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.ticket.heard();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            MaybeTlsStream::Plain(stream) => stream.is_write_vectored(),
            MaybeTlsStream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
