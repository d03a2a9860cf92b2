//! Who sends a request.
//!
//! Owns the reading of `Authorization: Basic` and the answers to those who are not let in. Must not know how a password is checked.
//!
//! Invariant. Behind [`require`] every request carries a [`User`].

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flowstone_coordinator::{AuthError, Authenticator, Report};
use flowstone_sql::catalog::DEFAULT_ROLE;

use crate::listener::Peer;
use crate::refusal::Refusal;

const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"flowstone\", charset=\"UTF-8\"");
/// Seconds after which those who failed too often may try again.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("10");

/// Who sent a request: an extension of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(
    /// Its name.
    pub String,
);

/// What a request says of who sends it.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    /// Nothing.
    Absent,
    /// Something that is not HTTP's basic authentication.
    Unreadable,
    /// A user and a password.
    Basic(String, String),
}

/// Lets a request through if its user is who they say; where no password is asked for, everybody is, and the default role who says nothing.
pub async fn require(
    State(authenticator): State<Authenticator>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = match credentials(request.headers()) {
        Credentials::Unreadable => {
            return challenge(Report::new(
                "28000",
                "the authorization is not HTTP's basic one",
            ));
        }
        Credentials::Absent if authenticator.password_required() => {
            return challenge(Report::new("28000", "a user and a password are required"));
        }
        Credentials::Absent => authenticator
            .admit_trusted(DEFAULT_ROLE)
            .map(|()| DEFAULT_ROLE.to_owned()),
        Credentials::Basic(user, password) if authenticator.password_required() => authenticator
            .verify_password(&user, &password, peer.address.ip())
            .await
            .map(|()| user),
        Credentials::Basic(user, _) => authenticator.admit_trusted(&user).map(|()| user),
    };
    match admitted {
        Ok(user) => {
            if let Err(full) = peer.ticket.opened(false) {
                let report = Report::new("53300", full.to_string());
                return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, report).into_response();
            }
            request.extensions_mut().insert(User(user));
            next.run(request).await
        }
        Err(error) => refusal(&error),
    }
}

fn challenge(report: Report) -> Response {
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, report).into_response();
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, CHALLENGE);
    response
}

fn refusal(error: &AuthError) -> Response {
    let report = Report::from(error);
    match error {
        AuthError::Password { .. } | AuthError::Scram(_) => challenge(report),
        AuthError::NotPermitted { .. } => {
            Refusal::new(StatusCode::FORBIDDEN, report).into_response()
        }
        AuthError::TooManyFailures => {
            let mut response = Refusal::new(StatusCode::TOO_MANY_REQUESTS, report).into_response();
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER_S);
            response
        }
        AuthError::Unavailable => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, report).into_response()
        }
    }
}

/// What `Authorization` says.
fn credentials(headers: &HeaderMap) -> Credentials {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Credentials::Absent;
    };
    match basic(value) {
        Some((user, password)) => Credentials::Basic(user, password),
        None => Credentials::Unreadable,
    }
}

/// The user and the password of `Basic`; `None` if they cannot be read, or the name can be nobody's.
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    if user.is_empty() || user.contains('\0') {
        return None;
    }
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read_and_nothing_else() {
        let read = |value: &str| {
            credentials(&HeaderMap::from_iter([(
                header::AUTHORIZATION,
                value.parse().unwrap(),
            )]))
        };
        let pair =
            |user: &str, password: &str| Credentials::Basic(user.to_owned(), password.to_owned());
        // The example of RFC 7617.
        assert_eq!(
            read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            pair("Aladdin", "open sesame")
        );
        assert_eq!(read("basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(read("Basic YWRhOg=="), pair("ada", ""));
        for other in [
            "Basic",
            "Basic !",
            // ada
            "Basic YWRh",
            "Bearer YTpi",
            "Basic /w==",
            // :secret
            "Basic OnNlY3JldA==",
            // a\0b:c
            "Basic YQBiOmM=",
        ] {
            assert_eq!(read(other), Credentials::Unreadable, "{other}");
        }
        assert_eq!(credentials(&HeaderMap::new()), Credentials::Absent);
    }
}
