//! From where one may ask: from programs, and from pages that this process served. Not from the pages of others that a browser happens to show.
//!
//! A browser that reaches the node does so on behalf of any page. A plain request of a foreign page is given away by `Origin`, whether the browser knows a
//! password or the node asks for none. A name that is made to resolve to loopback (DNS rebinding) is given away by `Host`; that matters where whoever reaches
//! the node is trusted, which is on loopback only. Where a password is asked for, a browser does not say it under another name, and nodes have many names.
//! A page of ours may load nothing from elsewhere, and nobody may show it in a frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flowstone_coordinator::Authenticator;

use crate::refusal::Refusal;

/// What answers other than the page may do in a browser: nothing.
const CONTENT_SECURITY_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The names that a node may be asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hosts {
    /// Those of the machine itself.
    Loopback,
    /// Any.
    All,
}

/// Lets a request pass if it may, and adds the headers that every answer has.
pub(crate) async fn protect(
    State(authenticator): State<Authenticator>,
    request: Request,
    next: Next,
) -> Response {
    let hosts = if authenticator.password_required() {
        Hosts::All
    } else {
        Hosts::Loopback
    };
    let authority = request.uri().authority().map(ToString::to_string);
    let mut response = match check(request.headers(), authority.as_deref(), hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ] {
        headers.insert(name, value);
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(CONTENT_SECURITY_POLICY);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// `authority`: that of the request line, which HTTP/2 has in place of `Host`.
fn check(headers: &HeaderMap, authority: Option<&str>, hosts: Hosts) -> Result<(), Refusal> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or_default())
    };
    let host = text(header::HOST).or(authority).unwrap_or_default();
    if hosts == Hosts::Loopback && !is_loopback(host) {
        return Err(
            Refusal::forbidden("the request is addressed to another host").with_hint(
                "Ask for localhost, 127.0.0.1 or [::1]: the node serves its own machine only.",
            ),
        );
    }
    match text(header::ORIGIN) {
        Some(origin) if !is_of_host(origin, host) => Err(Refusal::forbidden(
            "the request comes from the page of another origin",
        )),
        _ => Ok(()),
    }
}

/// Whether a `Host` names this machine, whatever the port: it may be forwarded.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => return is_loopback_v6(address),
            Some((address, port)) => return is_port(port) && is_loopback_v6(address),
            None => return false,
        },
        None => match host.find(':') {
            Some(colon) => {
                let (name, port) = host.split_at(colon);
                if !is_port(port) {
                    return false;
                }
                name
            }
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_loopback_v6(address: &str) -> bool {
    address
        .parse::<Ipv6Addr>()
        .is_ok_and(|address| address.is_loopback())
}

/// A colon and a number.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|digits| digits.parse::<u16>().is_ok())
}

/// Whether an `Origin` is that of a page served under this `Host`.
fn is_of_host(origin: &str, host: &str) -> bool {
    ["http://", "https://"].into_iter().any(|scheme| {
        origin
            .strip_prefix(scheme)
            .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests;
