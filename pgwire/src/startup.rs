//! From a fresh socket to an open session: TLS, the startup message, authentication, greeting.
//!
//! Owns the order of these, the framing of authentication messages and the deadline for all of them. Must not know how a password is checked: it carries the
//! messages of [`flowstone_coordinator::auth::Login`].
//!
//! Invariants. Before a client is authenticated it is told nothing but whether that failed, and it cannot make the node buffer more than [`AUTH_MESSAGE_BYTES_MAX`].
//! What a client sent before the handshake of TLS is never read as if it had come through it.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use flowstone_coordinator::auth::scram::ScramError;
use flowstone_coordinator::{AuthError, Authenticator, Client, Session, SessionOptions};
use flowstone_tls::{Protocol, Ticket};
use futures::{SinkExt, StreamExt};
use pgwire::messages::response::{ErrorResponse, ReadyForQuery, TransactionStatus as WireStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::{MaybeTls, negotiate_tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, FramedParts};

use crate::connection::{ConnectionError, Failure, Socket};
use crate::frontend::{Codec, Incoming, STARTUP_BYTES_MAX};
use crate::server::Security;
use crate::{Error, sqlstate};

/// From the connection to the open session, the waits for earlier failures included.
const STARTUP_DEADLINE: Duration = Duration::from_secs(60);
/// Longest message of an authentication, in bytes: PostgreSQL's limit.
const AUTH_MESSAGE_BYTES_MAX: usize = 65_535;
/// The type of a client's message in an authentication.
const AUTH_MESSAGE: u8 = b'p';
/// Type and length in front of every message.
const HEADER_BYTES: usize = 5;

/// Opens the session that a client asks for; `None` if it asked for something else, was refused, or left.
///
/// # Errors
/// [`ConnectionError`] if the socket fails, the client breaks the protocol or takes too long.
pub(crate) async fn open(
    socket: TcpStream,
    client: &Client,
    security: &Security,
    ticket: &Ticket,
) -> Result<Option<(Socket, Session)>, ConnectionError> {
    let opened = async {
        tokio::select! {
            biased;
            () = ticket.evicted() => Err(ConnectionError::Evicted),
            opened = start(socket, client, security, ticket) => opened,
        }
    };
    tokio::time::timeout(STARTUP_DEADLINE, opened)
        .await
        .map_err(|_| ConnectionError::StartupTimeout)?
}

/// Tells a client that is not even listened to why, and hangs up.
///
/// # Errors
/// The socket fails.
pub(crate) async fn refuse_at_once(mut socket: TcpStream, error: &Error) -> std::io::Result<()> {
    let mut message = BytesMut::new();
    let fields = sqlstate::fields(error, "FATAL");
    if PgWireBackendMessage::ErrorResponse(ErrorResponse::new(fields))
        .encode(&mut message)
        .is_err()
    {
        return Ok(());
    }
    socket.write_all(&message).await?;
    socket.shutdown().await?;
    // Closing with bytes unread would take the answer back.
    let mut rest = socket.take(u64::try_from(STARTUP_BYTES_MAX).unwrap_or(u64::MAX));
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn start(
    socket: TcpStream,
    client: &Client,
    security: &Security,
    ticket: &Ticket,
) -> Result<Option<(Socket, Session)>, ConnectionError> {
    let peer = socket.peer_addr()?.ip();
    let acceptor = security
        .tls
        .as_ref()
        .map(|tls| tls.acceptor(Protocol::Postgres));
    let end_point = acceptor
        .as_ref()
        .and_then(|acceptor| acceptor.end_point.clone());
    let acceptor = acceptor.map(|acceptor| acceptor.tls);
    socket.readable().await?;
    ticket.heard();
    let Some(negotiated) = negotiate_tls::<()>(socket, acceptor).await? else {
        return Ok(None);
    };
    let mut socket = with_codec(negotiated, Codec::Startup);
    let encrypted = matches!(socket.get_ref(), MaybeTls::Tls(_));
    if encrypted && !socket.read_buffer().is_empty() {
        // It came in the clear, right behind the request for TLS: not from the client, or not from one that means well.
        return refuse(socket, &Error::UnencryptedData).await;
    }
    let first = socket.next().await;
    let startup = match first.map(|first| first.map(|received| received.incoming)) {
        Some(Ok(Incoming::Malformed { error, .. })) => return refuse(socket, &error).await,
        Some(Err(ConnectionError::Broken(error))) => return refuse(socket, &error).await,
        Some(Err(error)) => return Err(error),
        // Without authentication and even without TLS, as in PostgreSQL: the secret is what counts, and libpq sends it in the clear.
        Some(Ok(Incoming::Message(PgWireFrontendMessage::CancelRequest(cancel)))) => {
            client.cancel(cancel.pid, &cancel.secret_key.to_bytes());
            SinkExt::<PgWireBackendMessage>::close(&mut socket).await?;
            return Ok(None);
        }
        Some(Ok(Incoming::Message(PgWireFrontendMessage::Startup(startup)))) => startup,
        _ => return Ok(None),
    };
    if security.tls_required && !encrypted {
        return refuse(socket, &Error::TlsRequired).await;
    }
    let options = session_options(&startup);
    let authenticator = client.authenticator();
    let admitted = if authenticator.password_required() {
        let end_point = end_point.filter(|_| encrypted);
        authenticate(&mut socket, &authenticator, &options.user, peer, end_point).await
    } else {
        authenticator
            .admit_trusted(&options.user)
            .map_err(|error| Error::from(error).into())
    };
    match admitted {
        Ok(()) => {}
        Err(Failure::Statement(error)) => return refuse(socket, &error).await,
        Err(Failure::Connection(error)) => return Err(error),
    }
    let session = match client.open_session(options).await {
        Ok(session) => session,
        Err(error) => return refuse(socket, &error.into()).await,
    };
    if let Err(full) = ticket.opened(session.is_superuser()) {
        return refuse(socket, &full.into()).await;
    }
    // Made anew, because messages were read past it: it must look at what is buffered first.
    let mut socket = with_codec(socket, Codec::session(session.memory()));
    greet(&mut socket, &session).await?;
    Ok(Some((socket, session)))
}

/// The same stream, what was read of it and is not used yet included, with another codec.
fn with_codec<S, C>(socket: Framed<S, C>, codec: Codec) -> Framed<S, Codec> {
    let parts = socket.into_parts();
    let mut new = FramedParts::new::<PgWireBackendMessage>(parts.io, codec);
    new.read_buf = parts.read_buf;
    new.write_buf = parts.write_buf;
    Framed::from_parts(new)
}

/// Tells the client why there will be no session.
async fn refuse<T>(mut socket: Socket, error: &Error) -> Result<Option<T>, ConnectionError> {
    socket
        .send(PgWireBackendMessage::ErrorResponse(ErrorResponse::new(
            sqlstate::fields(error, "FATAL"),
        )))
        .await?;
    SinkExt::<PgWireBackendMessage>::close(&mut socket).await?;
    Ok(None)
}

/// SASL: offers mechanisms, and carries the two rounds of SCRAM.
async fn authenticate(
    socket: &mut Socket,
    authenticator: &Authenticator,
    user: &str,
    peer: IpAddr,
    end_point: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let mut login = authenticator.login(user, peer, end_point);
    let mechanisms = login.mechanisms().iter().map(|&name| name.to_owned());
    send(socket, Authentication::SASL(mechanisms.collect())).await?;
    let message = auth_message(socket).await?;
    let (mechanism, client_first) = initial_response(&message).ok_or_else(|| {
        let cut_short = "The initial response is cut short.";
        Error::from(AuthError::from(ScramError::Malformed(cut_short)))
    })?;
    let server_first = login.begin(mechanism, client_first).map_err(Error::from)?;
    send(
        socket,
        Authentication::SASLContinue(server_first.into_bytes().into()),
    )
    .await?;
    let client_final = auth_message(socket).await?;
    let server_final = login.finish(&client_final).await.map_err(Error::from)?;
    send(
        socket,
        Authentication::SASLFinal(server_final.into_bytes().into()),
    )
    .await?;
    Ok(())
}

async fn send(socket: &mut Socket, message: Authentication) -> Result<(), ConnectionError> {
    socket
        .send(PgWireBackendMessage::Authentication(message))
        .await
}

/// The body of the next message, which must be one of an authentication.
pub(crate) async fn auth_message<S: AsyncRead + Unpin>(
    socket: &mut Framed<S, Codec>,
) -> Result<BytesMut, Failure> {
    loop {
        let buffer = socket.read_buffer_mut();
        if let Some(header) = buffer.first_chunk::<HEADER_BYTES>() {
            let [kind, length @ ..] = *header;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if kind != AUTH_MESSAGE {
                return Err(Error::Protocol(format!(
                    "expected a SASL response, got message type {kind}"
                ))
                .into());
            }
            if !(HEADER_BYTES - 1..=AUTH_MESSAGE_BYTES_MAX).contains(&length) {
                return Err(Error::Protocol("invalid message length".to_owned()).into());
            }
            if buffer.len() > length {
                let mut message = buffer.split_to(length + 1);
                message.advance(HEADER_BYTES);
                return Ok(message);
            }
        }
        let mut buffer = std::mem::take(buffer);
        let read = socket.get_mut().read_buf(&mut buffer).await;
        *socket.read_buffer_mut() = buffer;
        if read.map_err(ConnectionError::from)? == 0 {
            return Err(ConnectionError::Gone.into());
        }
    }
}

/// The mechanism and the client's first message in a `SASLInitialResponse`.
pub(crate) fn initial_response(message: &[u8]) -> Option<(&str, &[u8])> {
    let end = message.iter().position(|byte| *byte == 0)?;
    let (mechanism, rest) = message.split_at_checked(end)?;
    let (length, data) = rest.get(1..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    let mechanism = std::str::from_utf8(mechanism).ok()?;
    (data.len() == length).then_some((mechanism, data))
}

pub(crate) fn session_options(startup: &Startup) -> SessionOptions {
    let mut options = SessionOptions {
        user: String::new(),
        database: None,
        parameters: Vec::new(),
    };
    for (name, value) in &startup.parameters {
        match name.as_str() {
            "user" => options.user.clone_from(value),
            "database" => options.database = Some(value.clone()),
            // Command-line options: `-c name=value` pairs.
            "options" => options.parameters.extend(command_line_options(value)),
            _ => options.parameters.push((name.clone(), value.clone())),
        }
    }
    options
}

/// Reads `-c name=value` and `--name=value` out of the `options` startup parameter.
fn command_line_options(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut words = option_words(text).into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--")
                .or_else(|| word.strip_prefix("-c"))
                .map(str::to_owned)
        };
        if let Some((name, value)) = assignment
            .as_deref()
            .and_then(|assignment| assignment.split_once('='))
        {
            found.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    found
}

/// Splits at white space; a backslash takes the next character as it is.
fn option_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (character, Some(word)) if !character.is_whitespace() => word.push(character),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

async fn greet(socket: &mut Socket, session: &Session) -> Result<(), ConnectionError> {
    socket
        .feed(PgWireBackendMessage::Authentication(Authentication::Ok))
        .await?;
    for (name, value) in session.parameter_statuses() {
        socket
            .feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
                name, value,
            )))
            .await?;
    }
    let key = SecretKey::I32(session.secret());
    socket
        .feed(PgWireBackendMessage::BackendKeyData(BackendKeyData::new(
            session.process_id(),
            key,
        )))
        .await?;
    socket
        .send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(
            WireStatus::Idle,
        )))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
