use flowstone_sql::parse::parse;

use super::*;

#[test]
fn what_streams_or_outlives_its_answer_is_refused() {
    for (sql, what) in [
        ("SUBSCRIBE t", "SUBSCRIBE"),
        ("SUBSCRIBE (SELECT 1)", "SUBSCRIBE"),
        ("COPY t FROM STDIN", "COPY"),
        ("COPY (SELECT 1) TO STDOUT", "COPY"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE"),
        ("FETCH 1 c", "FETCH"),
        ("CLOSE c", "CLOSE"),
    ] {
        let statements = parse(sql).unwrap();
        let report = check_supported(&statements[0].kind).unwrap_err();
        assert_eq!(report.code, "0A000");
        assert_eq!(report.message, format!("{what} is not supported over HTTP"));
        assert!(report.hint.is_some());
    }
    for sql in ["SELECT 1", "INSERT INTO t VALUES (1)", "BEGIN", "SHOW ALL"] {
        let statements = parse(sql).unwrap();
        assert_eq!(check_supported(&statements[0].kind), Ok(()), "{sql}");
    }
}

#[test]
fn parameters_are_text_of_their_type() {
    let array = parameter(Some("12"), &SqlType::Int4, &TimeZone::UTC).unwrap();
    assert_eq!(array.len(), 1);
    assert_eq!(array.data_type(), &SqlType::Int4.to_arrow());
    assert!(
        parameter(None, &SqlType::Int4, &TimeZone::UTC)
            .unwrap()
            .is_null(0)
    );
    let code = |text, sql_type| {
        parameter(Some(text), &sql_type, &TimeZone::UTC)
            .unwrap_err()
            .code
    };
    assert_eq!(code("x", SqlType::Int4), "22P02");
    assert_eq!(code("99999999999", SqlType::Int4), "22003");
    assert_eq!(code("a\0b", SqlType::Text), "22021");
}
