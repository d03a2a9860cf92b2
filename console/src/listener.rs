//! Connections of HTTP, with or without TLS.

use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use flowstone_tls::{Connection, Ticket, TlsListener};

/// What a client hears that speaks HTTP to a port of HTTPS: the answer of other servers.
pub const PLAINTEXT_REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 29\r\nConnection: close\r\n\r\nthis port accepts HTTPS only\n";

/// The listener as axum wants it.
#[derive(Debug)]
pub struct HttpListener(
    /// Accepts them.
    pub TlsListener,
);

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The place of its connection.
    pub ticket: Ticket,
}

impl Listener for HttpListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, HttpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, HttpListener>) -> Self {
        Self {
            address: *stream.remote_addr(),
            ticket: stream.io().ticket().clone(),
        }
    }
}
