//! Who sends a request.
//!
//! Owns the reading of `Authorization: Basic` and the answers to those who are not let in. Must not know how a password is checked.
//!
//! Invariant. Behind [`require`] every request carries a [`User`].

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flowstone_coordinator::{AuthError, Authenticator};

use crate::listener::Peer;

/// Who a request comes from when it says nothing and need not.
const DEFAULT_USER: &str = "materialize";
const CHALLENGE: &str = "Basic realm=\"flowstone\", charset=\"UTF-8\"";
/// Seconds after which those who failed too often may try again.
const RETRY_AFTER_S: &str = "10";

/// Who sent a request: an extension of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(
    /// Its name.
    pub String,
);

/// Lets a request through if its user is who they say; where no password is asked for, everybody is.
pub async fn require(
    State(authenticator): State<Authenticator>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let credentials = basic(request.headers());
    let admitted = if authenticator.password_required() {
        match credentials {
            None => return challenge("a user and a password are required\n"),
            Some((user, password)) => authenticator
                .verify_password(&user, &password, peer.ip())
                .await
                .map(|()| user),
        }
    } else {
        let user = credentials.map_or_else(|| DEFAULT_USER.to_owned(), |(user, _)| user);
        authenticator.admit_trusted(&user).map(|()| user)
    };
    match admitted {
        Ok(user) => {
            request.extensions_mut().insert(User(user));
            next.run(request).await
        }
        Err(error) => refusal(&error),
    }
}

fn challenge(message: &str) -> Response {
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, CHALLENGE)],
        message.to_owned(),
    )
        .into_response()
}

fn refusal(error: &AuthError) -> Response {
    let message = format!("{error}\n");
    match error {
        AuthError::Password { .. } | AuthError::Scram(_) => challenge(&message),
        AuthError::NotPermitted { .. } => (StatusCode::FORBIDDEN, message).into_response(),
        AuthError::TooManyFailures => (
            StatusCode::TOO_MANY_REQUESTS,
            [(header::RETRY_AFTER, RETRY_AFTER_S)],
            message,
        )
            .into_response(),
        AuthError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, message).into_response(),
    }
}

/// The user and the password of `Authorization: Basic`; `None` if there is none that can be read.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read_and_nothing_else() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            basic(&headers)
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        // The example of RFC 7617.
        assert_eq!(
            read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            pair("Aladdin", "open sesame")
        );
        assert_eq!(read("basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(read("Basic Og=="), pair("", ""));
        for other in [
            "Basic",
            "Basic !",
            "Basic YWJj",
            "Bearer YTpi",
            "Basic /w==",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(basic(&HeaderMap::new()), None);
    }
}
