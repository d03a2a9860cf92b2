use flowstone_types::{Epoch, EvalError};

use super::*;

fn field(error: &Error, code: u8) -> Option<String> {
    fields(error, "ERROR")
        .into_iter()
        .find(|(found, _)| *found == code)
        .map(|(_, text)| text)
}

fn request(error: RequestError) -> Error {
    Error::Coordinator(CoordinatorError::Request(error))
}

#[test]
fn what_drivers_look_at_has_postgresqls_codes() {
    let eval = |kind| request(RequestError::Eval(EvalError::new(kind, "x")));
    let sql = |kind| Error::from(flowstone_sql::Error::new(kind, "x"));
    for (error, code) in [
        (sql(ErrorKind::Syntax), "42601"),
        (sql(ErrorKind::UndefinedTable), "42P01"),
        (sql(ErrorKind::UndefinedColumn), "42703"),
        (sql(ErrorKind::DuplicateTable), "42P07"),
        (eval(EvalErrorKind::DivisionByZero), "22012"),
        (eval(EvalErrorKind::Internal), "XX000"),
        (
            request(RequestError::NotNull {
                column: "a".to_owned(),
                relation: "t".to_owned(),
            }),
            "23502",
        ),
        (request(RequestError::Cancelled), "57014"),
        (Error::Coordinator(CoordinatorError::Cancelled), "57014"),
        (Error::Coordinator(CoordinatorError::Timeout), "57014"),
        (
            Error::Coordinator(TransactionError::Aborted.into()),
            "25P02",
        ),
        (
            Error::Coordinator(SessionError::UnknownCursor("c".to_owned()).into()),
            "34000",
        ),
        (Error::UnknownPortal("p".to_owned()), "34000"),
        (Error::UnknownStatement("s".to_owned()), "26000"),
        (Error::DuplicateStatement("s".to_owned()), "42P05"),
        (Error::DuplicatePortal("p".to_owned()), "42P03"),
        (Error::CopyAbandoned("enough".to_owned()), "57014"),
        (Error::Encoding("0x00".to_owned()), "22021"),
        (Error::Protocol("what".to_owned()), "08P01"),
    ] {
        assert_eq!(sqlstate(&error), code, "{error}");
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
    }
}

#[test]
fn an_upstreams_code_is_passed_on() {
    let upstream = |sqlstate: Option<&str>| {
        request(RequestError::Upstream {
            message: "no".to_owned(),
            sqlstate: sqlstate.map(str::to_owned),
            detail: Some("More.".to_owned()),
            hint: Some("Do.".to_owned()),
        })
    };
    assert_eq!(sqlstate(&upstream(Some("28P01"))), "28P01");
    assert_eq!(sqlstate(&upstream(None)), "08006");
    assert_eq!(field(&upstream(None), b'D').as_deref(), Some("More."));
    assert_eq!(field(&upstream(None), b'H').as_deref(), Some("Do."));
}

#[test]
fn statements_errors_carry_position_detail_and_hint() {
    let error = Error::from(
        flowstone_sql::Error::new(ErrorKind::UndefinedColumn, "column \"x\" does not exist")
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
    let plain = request(RequestError::SinceAdvanced {
        asked: Epoch(1),
        since: Epoch(2),
    });
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
        assert_eq!(sqlstate(&error), code, "{error}");
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
