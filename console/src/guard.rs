//! From where one may ask: from programs, and from pages that this process served. Not from the pages of others that a browser happens to show.
//!
//! A browser that reaches the node does so on behalf of any page. A plain request of a foreign page is given away by `Origin`, whether the browser knows a
//! password or the node asks for none. A name that is made to resolve to loopback (DNS rebinding) is given away by `Host`; that matters where whoever reaches
//! the node is trusted, which is on loopback only. Where a password is asked for, a browser does not say it under another name, and nodes have many names.
//! A page of ours may load nothing from elsewhere, and nobody may show it in a frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Version, header};
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

/// Refuses a request that does not say which host it is addressed to, once and clearly: what stands between it and the node may have read it another way.
pub(crate) async fn well_formed(request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(ToString::to_string);
    // HTTP/1.0 does not ask for one, and probes of health still speak it.
    let may_be_absent = request.version() == Version::HTTP_10
        && authority.is_none()
        && !request.headers().contains_key(header::HOST);
    match addressee(request.headers(), authority.as_deref()) {
        Err(_) if may_be_absent => next.run(request).await,
        Ok(_) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The host that a request is addressed to. `authority`: that of the request line, which HTTP/2 has in place of `Host`.
fn addressee<'a>(headers: &'a HeaderMap, authority: Option<&'a str>) -> Result<&'a str, Refusal> {
    let malformed = |message: &str| Err(Refusal::malformed(message));
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), authority) {
        (Some(host), _) => host.to_str().unwrap_or_default(),
        (None, Some(authority)) => authority,
        (None, None) => return malformed("the request does not say which host it is addressed to"),
    };
    if hosts.next().is_some() {
        return malformed("the request has more than one Host header");
    }
    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
        return malformed("the Host header is not the host that is asked for");
    }
    if !is_host(host) {
        return malformed("the Host header is not a host");
    }
    Ok(host)
}

/// Whether this is a name or an address, and perhaps a port: no user, no path, no list.
fn is_host(text: &str) -> bool {
    let (name, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<Ipv6Addr>().is_ok() => return is_rest(rest),
        Some(_) => return false,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && name.bytes().all(in_name) && is_rest(rest)
}

/// Whether this may stand behind a host.
fn is_rest(text: &str) -> bool {
    text.is_empty() || is_port(text)
}

/// `authority`: that of the request line, which HTTP/2 has in place of `Host`.
fn check(headers: &HeaderMap, authority: Option<&str>, hosts: Hosts) -> Result<(), Refusal> {
    let host = addressee(headers, authority)?;
    if hosts == Hosts::Loopback && !is_loopback(host) {
        return Err(
            Refusal::forbidden("the request is addressed to another host").with_hint(
                "Ask for localhost, 127.0.0.1 or [::1]: the node serves its own machine only.",
            ),
        );
    }
    let is_own = |origin: &HeaderValue| is_of_host(origin.to_str().unwrap_or_default(), host);
    if headers.get_all(header::ORIGIN).iter().all(is_own) {
        return Ok(());
    }
    Err(Refusal::forbidden(
        "the request comes from the page of another origin",
    ))
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
