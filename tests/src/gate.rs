//! A gate between a client and a server: it lets as many bytes of the server through as it is told to.

use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Bytes per permit: a semaphore does not count far enough to count bytes.
const PIECE: usize = 1024;

/// The gate, on a port of its own. It closes with its value.
#[derive(Debug)]
pub struct Gate {
    port: u16,
    pieces: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl Gate {
    /// Puts a gate before the server on `port` of loopback. It lets nothing through yet.
    ///
    /// # Errors
    /// No port is free.
    pub async fn before(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own_port = listener.local_addr()?.port();
        let pieces = Arc::new(Semaphore::new(0));
        let shared = Arc::clone(&pieces);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let pieces = Arc::clone(&shared);
                connections.spawn(async move { connect(client, port, &pieces).await.ok() });
            }
        });
        Ok(Self {
            port: own_port,
            pieces,
            accepting,
        })
    }

    /// The port to connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Lets so many more bytes of the server through, over all connections together.
    pub fn allow(&self, kibibytes: usize) {
        self.pieces.add_permits(kibibytes);
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.pieces.close();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(client: TcpStream, port: u16, pieces: &Semaphore) -> Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // Whichever side ends, both do.
    tokio::select! {
        sent = tokio::io::copy(&mut from_client, &mut to_server) => { sent?; }
        sent = trickle(&mut from_server, &mut to_client, pieces) => sent?,
    }
    Ok(())
}

async fn trickle(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    pieces: &Semaphore,
) -> Result<()> {
    let mut piece = [0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        // A closed semaphore gives an error: the gate is open.
        if let Ok(permit) = pieces.acquire().await {
            permit.forget();
        }
        to.write_all(piece.get(..length).unwrap_or_default())
            .await?;
    }
}
