//! Connections of gRPC, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use flowstone_tls::{MaybeTlsStream, TlsListener};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What a client hears that speaks without TLS to a port that requires it: an empty SETTINGS frame, and GOAWAY with the code INADEQUATE_SECURITY and words.
pub const PLAINTEXT_REFUSED: &[u8] =
    b"\0\0\0\x04\0\0\0\0\0\0\0\x22\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port accepts TLS only";

/// A connection and where it comes from.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: MaybeTlsStream,
    peer: SocketAddr,
}

/// Where a call comes from: an extension of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The connections of a listener, for ever.
pub(crate) fn connections(
    listener: TlsListener,
) -> impl Stream<Item = Result<Connection, io::Error>> {
    futures::stream::unfold(listener, |mut listener| async move {
        let (stream, peer) = listener.accept().await;
        Some((Ok(Connection { stream, peer }), listener))
    })
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.peer)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payload lengths and types of HTTP/2 frames.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
        let mut found = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (payload, rest) = rest.split_at(usize::try_from(length).unwrap());
            found.push((head[3], payload));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        found
    }

    #[test]
    fn the_refusal_is_http_2() {
        let goaway = [
            &0_u32.to_be_bytes()[..],
            &12_u32.to_be_bytes(),
            b"this port accepts TLS only",
        ]
        .concat();
        assert_eq!(
            frames(PLAINTEXT_REFUSED),
            [(4, &[][..]), (7, goaway.as_slice())]
        );
    }
}
