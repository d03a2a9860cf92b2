//! Who makes a call.
//!
//! Owns the service in front of the service ([`Guarded`]) and the reading of `authorization`. Must not know how a password is checked, or what calls do.
//!
//! Invariants. Behind [`Guarded`] every call carries its [`Caller`] as an extension. Nothing of a call but its headers is read before that: its message may be
//! large, and decoding it costs memory.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flowstone_sql::catalog::DEFAULT_ROLE;
use tonic::body::Body;
use tonic::codegen::http::{self, Extensions, HeaderMap, HeaderValue, header};
use tonic::codegen::{BoxFuture, Context, Poll};
use tonic::server::NamedService;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::Error;
use crate::inbox::Counted;
use crate::listener::Peer;
use crate::service::Service;
use crate::sessions::{Caller, Sessions};

/// Base64 as it is in headers: some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The service, for callers who are who they say.
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    service: FlightServiceServer<Service>,
    sessions: Arc<Sessions>,
}

impl Guarded {
    pub(crate) const fn new(
        service: FlightServiceServer<Service>,
        sessions: Arc<Sessions>,
    ) -> Self {
        Self { service, sessions }
    }
}

impl NamedService for Guarded {
    const NAME: &'static str = <FlightServiceServer<Service> as NamedService>::NAME;
}

impl tonic::codegen::Service<http::Request<Body>> for Guarded {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        tonic::codegen::Service::<http::Request<Body>>::poll_ready(&mut self.service, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut service = self.service.clone();
        let sessions = Arc::clone(&self.sessions);
        Box::pin(async move {
            match authenticate(&sessions, request.headers(), request.extensions()).await {
                Ok(caller) => {
                    let held = caller.memory().nothing();
                    let mut request = request.map(|body| Body::new(Counted::new(body, held)));
                    request.extensions_mut().insert(Arc::new(caller));
                    service.call(request).await
                }
                Err(error) => Ok(Status::from(error).into_http()),
            }
        })
    }
}

async fn authenticate(
    sessions: &Sessions,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Caller, Error> {
    let peer: &Peer = extensions
        .get()
        .ok_or_else(|| Error::Internal("a call comes from nowhere".to_owned()))?;
    let authorization = authorization(headers)?;
    let caller = tokio::select! {
        biased;
        () = sessions.stop().cancelled() => Err(Error::Stopping),
        caller = caller(sessions, authorization, peer.address.ip()) => caller,
    }?;
    peer.ticket
        .opened(false)
        .map_err(|_| Error::TooMany("connections"))?;
    Ok(caller)
}

/// Who a client is by what it says of itself.
///
/// # Errors
/// [`Error::UnknownSession`] for a token that is none, [`Error::BadCredentials`] if a password is missing, [`Error::Auth`] if it is wrong.
async fn caller(
    sessions: &Sessions,
    authorization: Option<Authorization>,
    peer: IpAddr,
) -> Result<Caller, Error> {
    let authenticator = sessions.authenticator();
    let user = match authorization {
        Some(Authorization::Bearer(token)) => return sessions.signed_in(token),
        Some(Authorization::Basic { user, password }) if authenticator.password_required() => {
            authenticator
                .verify_password(&user, &password, peer)
                .await?;
            return Ok(sessions.passing(user));
        }
        None if authenticator.password_required() => {
            return Err(Error::BadCredentials(
                "a user and a password are required".to_owned(),
            ));
        }
        Some(Authorization::Basic { user, .. }) => user,
        None => DEFAULT_ROLE.to_owned(),
    };
    authenticator.admit_trusted(&user)?;
    Ok(sessions.passing(user))
}

/// Who makes a call that has come through [`Guarded`].
///
/// # Errors
/// [`Error::Internal`] if it has not.
pub(crate) fn caller_of<T>(request: &Request<T>) -> Result<Arc<Caller>, Error> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    caller.ok_or_else(|| Error::Internal("a call without a caller".to_owned()))
}

#[derive(Debug, PartialEq, Eq)]
enum Authorization {
    Basic { user: String, password: String },
    Bearer(Uuid),
}

fn authorization(headers: &HeaderMap) -> Result<Option<Authorization>, Error> {
    headers
        .get(header::AUTHORIZATION)
        .map(read_authorization)
        .transpose()
}

fn read_authorization(value: &HeaderValue) -> Result<Authorization, Error> {
    let bad = |message: &str| Error::BadCredentials(message.to_owned());
    let value = value
        .to_str()
        .map_err(|_| bad("the authorization header is no text"))?;
    let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        let token = credentials
            .trim()
            .parse()
            .map_err(|_| Error::UnknownSession)?;
        return Ok(Authorization::Bearer(token));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad("the authorization header is neither Basic nor Bearer"));
    }
    let decoded = BASE64
        .decode(credentials.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| bad("the Basic authorization header cannot be decoded"))?;
    let (user, password) = decoded
        .split_once(':')
        .ok_or_else(|| bad("the Basic authorization header has no user and password"))?;
    if user.contains('\0') {
        return Err(bad("the Basic authorization header has a user of no name"));
    }
    let user = if user.is_empty() { DEFAULT_ROLE } else { user };
    Ok(Authorization::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Authorization, Error> {
        read_authorization(&value.parse().unwrap())
    }

    fn pair(user: &str, password: &str) -> Authorization {
        Authorization::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn users_and_passwords_come_from_basic_headers() {
        let basic = |text: &str| read(&format!("Basic {}", BASE64.encode(text)));
        assert_eq!(
            basic("ann:secret:with:colons"),
            Ok(pair("ann", "secret:with:colons"))
        );
        assert_eq!(read("Basic YW5uOnB3"), Ok(pair("ann", "pw")));
        assert_eq!(read("basic YToxMg"), Ok(pair("a", "12")));
        assert_eq!(read("Basic YToxMg=="), Ok(pair("a", "12")));
        assert_eq!(basic(":"), Ok(pair(DEFAULT_ROLE, "")));
        for refused in [
            basic("ann"),
            basic("a\0b:c"),
            read("Basic ***"),
            read("Digest x"),
            read("Basic"),
        ] {
            assert!(
                matches!(refused, Err(Error::BadCredentials(_))),
                "{refused:?}"
            );
        }
        assert_eq!(authorization(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn tokens_come_from_bearer_headers() {
        let token = Uuid::new_v4();
        assert_eq!(
            read(&format!("bearer {token}")),
            Ok(Authorization::Bearer(token))
        );
        assert_eq!(read("Bearer nonsense"), Err(Error::UnknownSession));
    }
}
