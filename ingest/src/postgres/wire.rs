//! A client of PostgreSQL's frontend/backend protocol: what capture needs of it, and that other clients lack (replication, COPY BOTH).
//!
//! Owns the socket, TLS, authentication, framing, simple queries, COPY OUT and the change into COPY BOTH.
//! Must not know what is copied or replicated.
//! Called by the snapshot, the stream, the polling of the publication and the description of upstreams.
//!
//! Invariants. The settings that decide the text form of values are pinned at startup. [`Connection::frame`] is cancel safe.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use flowstone_proto::message::{PostgresConnection, SslMode};
use postgres_protocol::authentication;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tls;

/// How long connecting and authenticating may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read at once: large enough that one read holds many changes.
const READ_BYTES: usize = 256 * 1024;
/// Backend messages are at most 1 GiB; anything larger is a broken stream.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// An error report of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why a conversation with the server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The network, or the server is gone.
    #[error("could not connect to server at \"{address}\": {source}")]
    Connect { address: String, source: io::Error },
    /// The network, or the server is gone.
    #[error("connection to server was lost: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("timeout while {0}")]
    Timeout(&'static str),
    /// TLS could not be set up.
    #[error("could not establish TLS: {0}")]
    Tls(String),
    /// The server refused.
    #[error("{0}")]
    Server(ServerError),
    /// The server said something this client does not understand.
    #[error("protocol violation: {0}")]
    Protocol(String),
}

impl WireError {
    /// The SQLSTATE of the server's refusal.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.code),
            _ => None,
        }
    }
}

/// One message of the server.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Ordinary statements.
    Query,
    /// Replication commands and ordinary statements.
    Replication,
}

/// Rows of a simple query: one optional text per column.
pub(crate) type TextRows = Vec<Vec<Option<String>>>;

/// An authenticated connection.
pub(crate) struct Connection {
    socket: Box<dyn Duplex>,
    input: BytesMut,
    output: BytesMut,
    parameters: HashMap<String, String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and authenticates.
    pub(crate) async fn open(
        connection: &PostgresConnection,
        purpose: Purpose,
    ) -> Result<Self, WireError> {
        tokio::time::timeout(CONNECT_TIMEOUT, Self::open_unbounded(connection, purpose))
            .await
            .unwrap_or(Err(WireError::Timeout("connecting to server")))
    }

    async fn open_unbounded(
        connection: &PostgresConnection,
        purpose: Purpose,
    ) -> Result<Self, WireError> {
        let address = || format!("{}:{}", connection.host, connection.port);
        let tcp = TcpStream::connect((connection.host.as_str(), connection.port))
            .await
            .map_err(|source| WireError::Connect {
                address: address(),
                source,
            })?;
        tcp.set_nodelay(true)?;
        let mut opened = Self {
            socket: secure(tcp, connection).await?,
            input: BytesMut::with_capacity(READ_BYTES),
            output: BytesMut::new(),
            parameters: HashMap::new(),
        };
        opened.startup(connection, purpose).await?;
        Ok(opened)
    }

    async fn startup(
        &mut self,
        connection: &PostgresConnection,
        purpose: Purpose,
    ) -> Result<(), WireError> {
        let mut parameters = vec![
            ("user", connection.user.as_str()),
            ("database", connection.database.as_str()),
            ("application_name", "flowstone"),
            ("client_encoding", "UTF8"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, YMD"),
            ("IntervalStyle", "postgres"),
            ("extra_float_digits", "3"),
            ("bytea_output", "hex"),
            ("search_path", "pg_catalog"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
        ];
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        frontend::startup_message(parameters, &mut self.output)?;
        self.flush().await?;
        self.authenticate(connection).await?;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'Z' => return Ok(()),
                b'E' => return Err(WireError::Server(server_error(&frame.body))),
                _ => {}
            }
        }
    }

    async fn authenticate(&mut self, connection: &PostgresConnection) -> Result<(), WireError> {
        let password = || {
            connection.password.as_deref().ok_or_else(|| {
                WireError::Server(ServerError {
                    code: "28P01".to_owned(),
                    message: "no password supplied".to_owned(),
                    ..ServerError::default()
                })
            })
        };
        let mut scram = None;
        loop {
            let mut frame = self.frame().await?;
            match frame.tag {
                b'R' => {}
                b'E' => return Err(WireError::Server(server_error(&frame.body))),
                _ => continue,
            }
            let kind = frame.body.try_get_i32().map_err(|_| truncated())?;
            match kind {
                0 => return Ok(()),
                3 => frontend::password_message(password()?.as_bytes(), &mut self.output)?,
                5 => {
                    let salt = <[u8; 4]>::try_from(frame.body.as_ref()).map_err(|_| truncated())?;
                    let hashed = authentication::md5_hash(
                        connection.user.as_bytes(),
                        password()?.as_bytes(),
                        salt,
                    );
                    frontend::password_message(hashed.as_bytes(), &mut self.output)?;
                }
                10 => {
                    if !frame
                        .body
                        .split(|byte| *byte == 0)
                        .any(|name| name == sasl::SCRAM_SHA_256.as_bytes())
                    {
                        return Err(WireError::Protocol(
                            "server offers no known SASL mechanism".to_owned(),
                        ));
                    }
                    let exchange =
                        ScramSha256::new(password()?.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response(
                        sasl::SCRAM_SHA_256,
                        exchange.message(),
                        &mut self.output,
                    )?;
                    scram = Some(exchange);
                }
                11 | 12 => {
                    let exchange = scram
                        .as_mut()
                        .ok_or_else(|| WireError::Protocol("unexpected SASL message".to_owned()))?;
                    if kind == 12 {
                        exchange.finish(&frame.body)?;
                        continue;
                    }
                    exchange.update(&frame.body)?;
                    frontend::sasl_response(exchange.message(), &mut self.output)?;
                }
                other => {
                    return Err(WireError::Protocol(format!(
                        "unsupported authentication method {other}"
                    )));
                }
            }
            self.flush().await?;
        }
    }

    /// A parameter the server reported, for example `server_version`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The major version of the server, 0 if it does not say.
    pub(crate) fn server_version(&self) -> u32 {
        let version = self.parameter("server_version").unwrap_or("");
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        self.socket.write_all(&self.output).await?;
        self.output.clear();
        self.socket.flush().await?;
        Ok(())
    }

    /// The next whole message that has been read already. Notices and parameters are dealt with here.
    pub(crate) fn buffered_frame(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            let Some((tag, length)) = self
                .input
                .split_first_chunk::<5>()
                .map(|([tag, length @ ..], _)| (*tag, u32::from_be_bytes(*length)))
            else {
                return Ok(None);
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if !(4..=FRAME_BYTES_MAX).contains(&length) {
                return Err(WireError::Protocol(format!("message of {length} bytes")));
            }
            if self.input.len() < length + 1 {
                self.input.reserve(length + 1 - self.input.len());
                return Ok(None);
            }
            let mut body = self.input.split_to(length + 1).freeze();
            body.advance(5);
            match tag {
                b'N' | b'A' | b'K' => {}
                b'S' => {
                    let mut parts = body
                        .split(|byte| *byte == 0)
                        .map(|part| String::from_utf8_lossy(part).into_owned());
                    if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                        self.parameters.insert(name, value);
                    }
                }
                _ => return Ok(Some(Frame { tag, body })),
            }
        }
    }

    /// Reads what has arrived.
    ///
    /// # Cancel safety
    /// Safe: nothing that was read is lost.
    pub(crate) async fn read(&mut self) -> Result<(), WireError> {
        self.input.reserve(
            READ_BYTES
                .saturating_sub(self.input.capacity() - self.input.len())
                .min(READ_BYTES),
        );
        if self.socket.read_buf(&mut self.input).await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "server closed the connection unexpectedly",
            )
            .into());
        }
        Ok(())
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn frame(&mut self) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(frame);
            }
            self.read().await?;
        }
    }

    /// Runs a simple query and collects the rows of all its statements.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<TextRows, WireError> {
        frontend::query(sql, &mut self.output)?;
        self.flush().await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'D' => rows.push(text_row(frame.body)?),
                b'E' => failure = Some(server_error(&frame.body)),
                b'Z' => return failure.map_or(Ok(rows), |error| Err(WireError::Server(error))),
                _ => {}
            }
        }
    }

    /// [`Connection::query`] with a deadline, for questions whose answer is at hand.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<TextRows, WireError> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.query(sql))
            .await
            .unwrap_or(Err(WireError::Timeout(
                "waiting for an answer of the server",
            )))
    }

    /// Sends `COPY … TO STDOUT`; the data is read by [`Connection::copy_data`].
    pub(crate) async fn copy_out(&mut self, sql: &str) -> Result<(), WireError> {
        self.start_copy(sql, b'H').await
    }

    /// Sends `START_REPLICATION`; what follows is CopyData in both directions.
    pub(crate) async fn copy_both(&mut self, sql: &str) -> Result<(), WireError> {
        self.start_copy(sql, b'W').await
    }

    async fn start_copy(&mut self, sql: &str, expected: u8) -> Result<(), WireError> {
        frontend::query(sql, &mut self.output)?;
        self.flush().await?;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                tag if tag == expected => return Ok(()),
                b'E' => {
                    let error = server_error(&frame.body);
                    self.until_ready().await?;
                    return Err(WireError::Server(error));
                }
                b'Z' => {
                    return Err(WireError::Protocol(
                        "server did not start to copy".to_owned(),
                    ));
                }
                _ => {}
            }
        }
    }

    async fn until_ready(&mut self) -> Result<(), WireError> {
        while self.frame().await?.tag != b'Z' {}
        Ok(())
    }

    /// The next piece of a COPY OUT; `None` at its end.
    pub(crate) async fn copy_data(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'd' => return Ok(Some(frame.body)),
                b'E' => {
                    let error = server_error(&frame.body);
                    self.until_ready().await?;
                    return Err(WireError::Server(error));
                }
                b'Z' => return Ok(None),
                _ => {}
            }
        }
    }

    /// Sends one CopyData.
    pub(crate) async fn send_copy_data(&mut self, data: &[u8]) -> Result<(), WireError> {
        frontend::CopyData::new(data)?.write(&mut self.output);
        self.flush().await
    }

    /// Says goodbye; errors do not matter any more.
    pub(crate) async fn close(mut self) {
        frontend::terminate(&mut self.output);
        if let Err(error) = self.flush().await {
            tracing::debug!(%error, "connection was gone before it was closed");
        }
    }
}

async fn secure(
    mut tcp: TcpStream,
    connection: &PostgresConnection,
) -> Result<Box<dyn Duplex>, WireError> {
    if connection.ssl_mode == SslMode::Disable {
        return Ok(Box::new(tcp));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    if tcp.read_u8().await? != b'S' {
        if connection.ssl_mode == SslMode::Prefer {
            return Ok(Box::new(tcp));
        }
        return Err(WireError::Tls(
            "server does not support TLS, but it was required".to_owned(),
        ));
    }
    let name = rustls::pki_types::ServerName::try_from(connection.host.clone())
        .map_err(|error| WireError::Tls(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(tls::client_config(connection)?);
    let stream = connector
        .connect(name, tcp)
        .await
        .map_err(|error| WireError::Tls(error.to_string()))?;
    Ok(Box::new(stream))
}

fn truncated() -> WireError {
    WireError::Protocol("message is too short".to_owned())
}

fn text_row(mut body: Bytes) -> Result<Vec<Option<String>>, WireError> {
    let columns = body.try_get_u16().map_err(|_| truncated())?;
    (0..columns)
        .map(|_| {
            let Ok(length) = usize::try_from(body.try_get_i32().map_err(|_| truncated())?) else {
                return Ok(None);
            };
            if body.remaining() < length {
                return Err(truncated());
            }
            let text = String::from_utf8(body.split_to(length).to_vec())
                .map_err(|_| WireError::Protocol("text is not UTF-8".to_owned()))?;
            Ok(Some(text))
        })
        .collect()
}

/// Reads an ErrorResponse.
pub(crate) fn server_error(body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else {
            continue;
        };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => error.code = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            _ => {}
        }
    }
    error
}

/// `"name"`, with quotes doubled.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`, with quotes doubled; needs `standard_conforming_strings`, which is on wherever logical replication exists.
pub(crate) fn quote_literal(text: &str) -> String {
    if text.contains('\\') {
        return format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// `1A/2B3C` as a number.
pub(crate) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u64::from(u32::from_str_radix(high, 16).ok()?);
    let low = u64::from(u32::from_str_radix(low, 16).ok()?);
    Some((high << 32) | low)
}

/// A number as `1A/2B3C`.
pub(crate) fn format_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & u64::from(u32::MAX))
}
