//! The exchange against the vector of RFC 7677, against a client of our own, and against those who tamper.

use super::*;

const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

fn pencil() -> Verifier {
    Verifier::derive("pencil", &BASE64.decode(SALT).unwrap(), ITERATIONS)
}

/// What a client that knows `password` answers.
fn client_final(
    password: &str,
    bare: &str,
    server_first: &str,
    header: &[u8],
) -> (String, Key, String) {
    let field = |name: char| {
        server_first
            .split(',')
            .find_map(|field| field.strip_prefix(&format!("{name}=")))
            .unwrap()
            .to_owned()
    };
    let salted = salted_password(
        password,
        &BASE64.decode(field('s')).unwrap(),
        field('i').parse().unwrap(),
    );
    let without_proof = format!("c={},r={}", BASE64.encode(header), field('r'));
    let transcript = format!("{bare},{server_first},{without_proof}");
    let client_key = mac(&salted, b"Client Key");
    let mut proof = mac(&hash(&client_key), transcript.as_bytes());
    for (byte, key) in proof.iter_mut().zip(client_key) {
        *byte ^= key;
    }
    let server = mac(&mac(&salted, b"Server Key"), transcript.as_bytes());
    (without_proof, proof, format!("v={}", BASE64.encode(server)))
}

fn run(password: &str, flag: &str, mechanism: &str, end_point: Option<&[u8]>) -> Outcome {
    let bare = "n=,r=abc";
    let first = format!("{flag},,{bare}");
    let (server_first, exchange) =
        Exchange::begin(mechanism, first.as_bytes(), end_point, pencil(), "xyz").unwrap();
    let mut header = format!("{flag},,").into_bytes();
    if flag.starts_with('p') {
        header.extend_from_slice(end_point.unwrap());
    }
    let (without_proof, proof, server_final) = client_final(password, bare, &server_first, &header);
    let message = format!("{without_proof},p={}", BASE64.encode(proof));
    let outcome = exchange.finish(message.as_bytes()).unwrap();
    if outcome.proven {
        assert_eq!(outcome.server_final, server_final);
    }
    outcome
}

#[test]
fn the_vector_of_rfc_7677() {
    let (server_first, exchange) = Exchange::begin(
        SCRAM_SHA_256,
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        None,
        pencil(),
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    )
    .unwrap();
    assert_eq!(
        server_first,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let outcome = exchange
        .finish(b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
        .unwrap();
    assert_eq!(
        outcome,
        Outcome {
            proven: true,
            server_final: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned()
        }
    );
}

#[test]
fn a_verifier_reads_and_writes_what_postgresql_does() {
    let verifier = Verifier::derive("pencil", b"0123456789abcdef", ITERATIONS);
    let text = verifier.to_string();
    assert!(
        text.starts_with("SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$"),
        "{text}"
    );
    let read = Verifier::parse(&text).unwrap();
    assert_eq!(read, verifier);
    assert!(read.matches("pencil") && !read.matches("Pencil") && !read.matches(""));
    assert!(!format!("{verifier:?}").contains("MDEy"));
    for other in [
        "pencil",
        "",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$0:MDEy$AAAA:AAAA",
        "SCRAM-SHA-256$4096:MDEy$AAAA:AAAA",
        "SCRAM-SHA-256$4096:MDEy$AAAA",
        "md53175bce1d3201d16594cebf9d7eb3f9d",
    ] {
        assert!(Verifier::parse(other).is_none(), "{other}");
    }
}

#[test]
fn passwords_are_normalised_as_saslprep_says() {
    // U+00AA is U+0061 under NFKC, U+00AD is mapped to nothing.
    let verifier = Verifier::derive("p\u{aa}ss\u{ad}word", b"salt", ITERATIONS);
    assert!(verifier.matches("password"));
    // A password that SASLprep forbids is taken as it is.
    assert!(Verifier::derive("a\u{7}b", b"salt", ITERATIONS).matches("a\u{7}b"));
}

#[test]
fn a_client_with_and_without_channel_binding_proves_the_password() {
    let end_point: &[u8] = &[7; 32];
    for (flag, mechanism, end_point) in [
        ("n", SCRAM_SHA_256, None),
        ("n", SCRAM_SHA_256, Some(end_point)),
        ("y", SCRAM_SHA_256, None),
        (
            "p=tls-server-end-point",
            SCRAM_SHA_256_PLUS,
            Some(end_point),
        ),
    ] {
        assert!(
            run("pencil", flag, mechanism, end_point).proven,
            "{flag} {mechanism}"
        );
        assert!(
            !run("pencil ", flag, mechanism, end_point).proven,
            "{flag} {mechanism}"
        );
    }
}

#[test]
fn a_mock_verifier_fits_no_password() {
    let mock = Verifier::mock([1; SALT_BYTES]);
    assert!(!mock.matches("pencil") && !mock.matches(""));
    assert_eq!(mock.iterations(), ITERATIONS.get());
}

#[test]
fn whoever_strips_or_forges_channel_binding_is_refused() {
    let end_point: &[u8] = &[7; 32];
    let begin = |mechanism: &str, first: &str, end_point: Option<&[u8]>| {
        Exchange::begin(mechanism, first.as_bytes(), end_point, pencil(), "xyz").map(|_| ())
    };
    for (mechanism, flag, end_point) in [
        (SCRAM_SHA_256, "y", Some(end_point)),
        (SCRAM_SHA_256_PLUS, "p=tls-unique", Some(end_point)),
    ] {
        let outcome = begin(mechanism, &format!("{flag},,n=,r=abc"), end_point);
        assert!(
            matches!(outcome, Err(ScramError::Binding(_))),
            "{flag}: {outcome:?}"
        );
    }
    for (mechanism, flag, end_point) in [
        (SCRAM_SHA_256_PLUS, "n", Some(end_point)),
        (SCRAM_SHA_256_PLUS, "p=tls-server-end-point", None),
        (SCRAM_SHA_256, "p=tls-server-end-point", Some(end_point)),
        ("ANONYMOUS", "n", None),
    ] {
        let outcome = begin(mechanism, &format!("{flag},,n=,r=abc"), end_point);
        assert!(
            matches!(outcome, Err(ScramError::Malformed(_))),
            "{flag}: {outcome:?}"
        );
    }
    // A proof made for another channel.
    let bare = "n=,r=abc";
    let first = format!("p=tls-server-end-point,,{bare}");
    let (server_first, exchange) = Exchange::begin(
        SCRAM_SHA_256_PLUS,
        first.as_bytes(),
        Some(end_point),
        pencil(),
        "xyz",
    )
    .unwrap();
    let mut header = b"p=tls-server-end-point,,".to_vec();
    header.extend_from_slice(&[8; 32]);
    let (without_proof, proof, _) = client_final("pencil", bare, &server_first, &header);
    let message = format!("{without_proof},p={}", BASE64.encode(proof));
    assert!(matches!(
        exchange.finish(message.as_bytes()),
        Err(ScramError::Binding(_))
    ));
}

#[test]
fn messages_that_break_the_grammar_are_refused() {
    for first in [
        "",
        "n",
        "n,,",
        "n,,n=",
        "n,,n=,r=",
        "n,,r=abc",
        "n,a=admin,n=,r=abc",
        "n,,m=x,n=,r=abc",
        "n,,n=,r=a b",
    ] {
        let outcome =
            Exchange::begin(SCRAM_SHA_256, first.as_bytes(), None, pencil(), "xyz").map(|_| ());
        assert!(
            matches!(outcome, Err(ScramError::Malformed(_))),
            "{first}: {outcome:?}"
        );
    }
    for last in [
        "",
        "c=biws",
        "c=biws,r=abcxyz",
        "c=biws,r=abc,p=AAAA",
        "r=abcxyz,c=biws,p=AAAA",
        "c=biws,r=abcxyz,p=AAAA",
        "c=biws,r=abcxyz,p=!",
    ] {
        let (_, exchange) =
            Exchange::begin(SCRAM_SHA_256, b"n,,n=,r=abc", None, pencil(), "xyz").unwrap();
        let outcome = exchange.finish(last.as_bytes());
        assert!(
            matches!(outcome, Err(ScramError::Malformed(_))),
            "{last}: {outcome:?}"
        );
    }
    let (_, exchange) =
        Exchange::begin(SCRAM_SHA_256, b"n,,n=,r=abc", None, pencil(), "xyz").unwrap();
    assert!(exchange.finish(&[0xff]).is_err());
}
