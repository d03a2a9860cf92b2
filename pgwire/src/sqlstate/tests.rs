use flowstone_coordinator::{Error as CoordinatorError, SessionError};
use flowstone_types::TypeError;

use super::*;

fn field(error: &Error, code: u8) -> Option<String> {
    fields(error, "ERROR")
        .into_iter()
        .find(|(found, _)| *found == code)
        .map(|(_, text)| text)
}

#[test]
fn what_drivers_look_at_has_postgresqls_codes() {
    for (error, code) in [
        (Error::Coordinator(CoordinatorError::Cancelled), "57014"),
        (
            Error::Coordinator(SessionError::UnknownCursor("c".to_owned()).into()),
            "34000",
        ),
        (
            Error::Coordinator(CoordinatorError::Internal("x".to_owned())),
            "XX000",
        ),
        (Error::UnknownPortal("p".to_owned()), "34000"),
        (Error::UnknownStatement("s".to_owned()), "26000"),
        (Error::DuplicateStatement("s".to_owned()), "42P05"),
        (Error::DuplicatePortal("p".to_owned()), "42P03"),
        (Error::CopyAbandoned("enough".to_owned()), "57014"),
        (Error::Encoding("0x00".to_owned()), "22021"),
        (Error::Protocol("what".to_owned()), "08P01"),
    ] {
        assert_eq!(field(&error, b'C').as_deref(), Some(code), "{error}");
        assert_eq!(field(&error, b'M'), Some(error.to_string()));
        assert_eq!(is_bug(&error), code == "XX000", "{error}");
    }
}

#[test]
fn a_bad_line_of_copy_says_where_and_what() {
    let copy = |fault| Error::Copy {
        message: "bad".to_owned(),
        context: "COPY, line 7".to_owned(),
        fault,
    };
    let value = TypeError::OutOfRange {
        type_name: "integer".to_owned(),
        value: "9e9".to_owned(),
    };
    for (fault, code) in [
        (CopyFault::Format, "22P04"),
        (CopyFault::Encoding, "22021"),
        (CopyFault::Value(value), "22003"),
    ] {
        let error = copy(fault);
        assert_eq!(field(&error, b'C').as_deref(), Some(code));
        assert_eq!(field(&error, b'W').as_deref(), Some("COPY, line 7"));
        assert_eq!(field(&error, b'M').as_deref(), Some("bad"));
        assert_eq!(field(&error, b'H'), None);
    }
    let unheld = copy(CopyFault::Value(TypeError::NumericNotHeld("x".to_owned())));
    assert_eq!(field(&unheld, b'C').as_deref(), Some("0A000"));
    assert_eq!(field(&unheld, b'M').as_deref(), Some("bad"));
    assert!(field(&unheld, b'H').is_some_and(|hint| hint.contains("numeric(38, s)")));
}

#[test]
fn a_report_becomes_fields_and_what_it_lacks_none() {
    let error = Error::from(
        flowstone_sql::Error::new(
            flowstone_sql::error::ErrorKind::UndefinedColumn,
            "column \"x\" does not exist",
        )
        .at(8)
        .with_detail("More.")
        .with_hint("Do."),
    );
    let all = fields(&error, "ERROR");
    for expected in [
        (b'S', "ERROR"),
        (b'V', "ERROR"),
        (b'C', "42703"),
        (b'M', "column \"x\" does not exist"),
        (b'D', "More."),
        (b'H', "Do."),
        (b'P', "8"),
    ] {
        assert!(
            all.contains(&(expected.0, expected.1.to_owned())),
            "{expected:?} is not in {all:?}"
        );
    }
    let plain = Error::UnknownPortal("p".to_owned());
    for code in [b'D', b'H', b'P', b'W'] {
        assert_eq!(field(&plain, code), None);
    }
}

#[test]
fn who_is_not_let_in_hears_no_more_than_in_postgresql() {
    use flowstone_coordinator::AuthError;
    use flowstone_coordinator::auth::scram::ScramError;
    for (error, code) in [
        (
            Error::Auth(AuthError::Password {
                user: "ada".to_owned(),
            }),
            "28P01",
        ),
        (
            Error::Auth(AuthError::NotPermitted {
                role: "ada".to_owned(),
            }),
            "28000",
        ),
        (Error::Auth(AuthError::TooManyFailures), "28000"),
        (Error::Auth(ScramError::Binding("It is.").into()), "28000"),
        (Error::Auth(ScramError::Malformed("It is.").into()), "08P01"),
        (Error::TlsRequired, "28000"),
        (Error::UnencryptedData, "08P01"),
    ] {
        assert_eq!(field(&error, b'C').as_deref(), Some(code), "{error}");
    }
    let password = fields(
        &Error::Auth(AuthError::Password {
            user: "ada".to_owned(),
        }),
        "FATAL",
    );
    assert!(password.contains(&(
        b'M',
        "password authentication failed for user \"ada\"".to_owned()
    )));
    assert!(!password.iter().any(|(kind, _)| matches!(kind, b'D' | b'H')));
    let plaintext = fields(&Error::TlsRequired, "FATAL");
    assert!(plaintext.iter().any(|(kind, _)| *kind == b'H'));
}
