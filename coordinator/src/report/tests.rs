use flowstone_types::{Epoch, EvalError};

use super::*;

fn report(error: impl Into<Error>) -> Report {
    Report::from(&error.into())
}

#[test]
fn what_drivers_look_at_has_postgresqls_codes() {
    let eval = |kind| Error::from(RequestError::Eval(EvalError::new(kind, "x")));
    let sql = |kind| Error::from(flowstone_sql::Error::new(kind, "x"));
    for (error, code) in [
        (sql(ErrorKind::Syntax), "42601"),
        (sql(ErrorKind::UndefinedTable), "42P01"),
        (sql(ErrorKind::UndefinedColumn), "42703"),
        (sql(ErrorKind::DuplicateTable), "42P07"),
        (eval(EvalErrorKind::DivisionByZero), "22012"),
        (eval(EvalErrorKind::Internal), "XX000"),
        (
            RequestError::NotNull {
                column: "a".to_owned(),
                relation: "t".to_owned(),
            }
            .into(),
            "23502",
        ),
        (RequestError::Cancelled.into(), "57014"),
        (Error::Cancelled, "57014"),
        (Error::Timeout, "57014"),
        (TransactionError::Aborted.into(), "25P02"),
        (SessionError::UnknownCursor("c".to_owned()).into(), "34000"),
    ] {
        let report = Report::from(&error);
        assert_eq!(report.code, code, "{error}");
        assert_eq!(report.message, error.to_string());
        assert_eq!(report.is_bug(), code == "XX000", "{error}");
    }
}

#[test]
fn values_have_codes_of_their_own() {
    let error = TypeError::OutOfRange {
        type_name: "integer".to_owned(),
        value: "9e9".to_owned(),
    };
    assert_eq!(
        Report::from(&error),
        Report::new("22003", "value \"9e9\" is out of range for type integer")
    );
    assert!(Report::from(&TypeError::WeightOverflow).is_bug());
}

#[test]
fn a_number_that_cannot_be_held_is_not_supported_and_says_what_to_do() {
    let kind = EvalErrorKind::NumericNotHeld;
    for found in [
        Report::from(&TypeError::NumericNotHeld("x".to_owned())),
        report(RequestError::Eval(EvalError::new(kind, "x"))),
        report(flowstone_sql::Error::new(ErrorKind::Evaluation(kind), "x")),
    ] {
        assert_eq!(found, Report::new("0A000", "x").with_hint(NUMERIC_HINT));
    }
    let own = flowstone_sql::Error::new(ErrorKind::Evaluation(kind), "x").with_hint("Do.");
    assert_eq!(report(own).hint.as_deref(), Some("Do."));
}

#[test]
fn an_upstreams_code_is_passed_on() {
    let upstream = |sqlstate: Option<&str>| {
        report(RequestError::Upstream {
            message: "no".to_owned(),
            sqlstate: sqlstate.map(str::to_owned),
            detail: Some("More.".to_owned()),
            hint: Some("Do.".to_owned()),
        })
    };
    assert_eq!(upstream(Some("28P01")).code, "28P01");
    assert_eq!(upstream(None).code, "08006");
    assert_eq!(upstream(None).detail.as_deref(), Some("More."));
    assert_eq!(upstream(None).hint.as_deref(), Some("Do."));
}

#[test]
fn statements_errors_carry_position_detail_and_hint() {
    let error =
        flowstone_sql::Error::new(ErrorKind::UndefinedColumn, "column \"x\" does not exist")
            .at(8)
            .with_detail("More.")
            .with_hint("Do.");
    let expected = Report {
        code: "42703".to_owned(),
        message: "column \"x\" does not exist".to_owned(),
        detail: Some("More.".to_owned()),
        hint: Some("Do.".to_owned()),
        position: Some(8),
    };
    assert_eq!(report(error), expected);
    let plain = report(RequestError::SinceAdvanced {
        asked: Epoch(1),
        since: Epoch(2),
    });
    assert_eq!(
        (plain.detail, plain.hint, plain.position),
        (None, None, None)
    );
}

#[test]
fn a_query_beyond_its_memory_says_what_to_do() {
    let report = report(RequestError::OutOfMemory {
        detail: "More.".to_owned(),
    });
    assert_eq!(report.code, "53200");
    assert_eq!(report.detail.as_deref(), Some("More."));
    assert!(
        report
            .hint
            .is_some_and(|hint| hint.contains("query_memory_mib"))
    );
}

#[test]
fn who_is_not_let_in_hears_what_is_wrong_with_the_exchange_only() {
    let scram = Report::from(&AuthError::from(ScramError::Binding("It is.")));
    assert_eq!(scram.code, "28000");
    assert_eq!(scram.detail.as_deref(), Some("It is."));
    let password = Report::from(&AuthError::Password {
        user: "ada".to_owned(),
    });
    assert_eq!(
        password,
        Report::new("28P01", "password authentication failed for user \"ada\"")
    );
}
