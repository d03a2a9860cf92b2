use super::*;

fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
        .collect()
}

#[test]
fn loopback_has_many_names_and_others_none() {
    for host in [
        "localhost",
        "LOCALHOST:6876",
        "127.0.0.1:6876",
        "127.1.2.3",
        "[::1]",
        "[::1]:6876",
    ] {
        assert!(is_loopback(host), "{host}");
    }
    for host in [
        "",
        "example.com",
        "localhost.example.com",
        "example.com:6876",
        "10.0.0.1:6876",
        "127.0.0.1.example.com",
        "127.0.0.1:",
        "127.0.0.1:x",
        "localhost:6876:1",
        "[::1",
        "[::1]x",
        "[::2]:6876",
        "::1",
        "user@localhost",
    ] {
        assert!(!is_loopback(host), "{host}");
    }
}

#[test]
fn programs_and_our_own_page_may_ask() {
    for given in [
        headers(&[(header::HOST, "localhost:6876")]),
        headers(&[
            (header::HOST, "localhost:6876"),
            (header::ORIGIN, "http://localhost:6876"),
        ]),
        headers(&[
            (header::HOST, "[::1]:8080"),
            (header::ORIGIN, "https://[::1]:8080"),
        ]),
    ] {
        assert!(check(&given, None, Hosts::Loopback).is_ok(), "{given:?}");
    }
    assert!(
        check(&HeaderMap::new(), Some("localhost:6876"), Hosts::Loopback).is_ok(),
        "HTTP/2 has no Host"
    );
}

#[test]
fn pages_of_others_may_not() {
    for given in [
        headers(&[]),
        headers(&[(header::HOST, "rebound.example.com:6876")]),
        headers(&[
            (header::HOST, "rebound.example.com:6876"),
            (header::ORIGIN, "http://rebound.example.com:6876"),
        ]),
        headers(&[
            (header::HOST, "localhost:6876"),
            (header::ORIGIN, "http://example.com"),
        ]),
        // Another server of the same machine is another origin.
        headers(&[
            (header::HOST, "localhost:6876"),
            (header::ORIGIN, "http://localhost:3000"),
        ]),
        headers(&[(header::HOST, "localhost:6876"), (header::ORIGIN, "null")]),
        headers(&[(header::HOST, "localhost:6876"), (header::ORIGIN, "")]),
    ] {
        assert!(check(&given, None, Hosts::Loopback).is_err(), "{given:?}");
    }
}

#[test]
fn where_passwords_are_asked_for_a_node_has_any_name_and_still_no_foreign_page_may_ask() {
    let host = (header::HOST, "db.example.com:6876");
    for given in [
        headers(std::slice::from_ref(&host)),
        headers(&[
            host.clone(),
            (header::ORIGIN, "https://db.example.com:6876"),
        ]),
    ] {
        assert!(check(&given, None, Hosts::All).is_ok(), "{given:?}");
    }
    for origin in ["https://example.com", "https://db.example.com", "null"] {
        let given = headers(&[host.clone(), (header::ORIGIN, origin)]);
        assert!(check(&given, None, Hosts::All).is_err(), "{given:?}");
    }
}

#[test]
fn a_request_names_one_host_and_nothing_else() {
    let named = |hosts: &[&'static str], authority| {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        addressee(&headers, authority).map(str::to_owned)
    };
    for host in ["localhost", "db_1.example.com:80", "[::1]:6876", "10.0.0.1"] {
        assert_eq!(named(&[host], None).unwrap(), host);
        assert_eq!(named(&[], Some(host)).unwrap(), host);
        assert_eq!(named(&[host], Some(host)).unwrap(), host);
    }
    for (hosts, authority) in [
        (&[][..], None),
        (&["localhost", "localhost"], None),
        (&["localhost", "example.com"], None),
        (&["localhost", "localhost"], Some("localhost")),
        (&["localhost"], Some("example.com")),
        (&[""], None),
        (&["user@localhost"], None),
        (&["user:password@localhost:80"], None),
        (&["localhost, example.com"], None),
        (&["localhost example.com"], None),
        (&["localhost/"], None),
        (&["http://localhost"], None),
        (&["localhost:"], None),
        (&["localhost:80:80"], None),
        (&["localhost:65536"], None),
        (&[":80"], None),
        (&["[::1"], None),
        (&["[::1]80"], None),
        (&["::1"], None),
        (&[], Some("user@localhost")),
    ] {
        assert!(named(hosts, authority).is_err(), "{hosts:?} {authority:?}");
    }
}
