use axum::http::HeaderValue;

use super::*;

fn read(body: &str) -> Result<Statements, String> {
    statements(body.as_bytes()).map_err(|refusal| format!("{refusal:?}"))
}

fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
}

#[test]
fn both_forms_are_read() {
    assert_eq!(
        read(r#"{"query": "SELECT 1; SELECT 2"}"#),
        Ok(Statements::Simple("SELECT 1; SELECT 2".to_owned()))
    );
    assert_eq!(
        read(
            r#"{"queries": [{"query": "SELECT $1", "params": ["1", null]}, {"query": "SELECT 2"}]}"#
        ),
        Ok(Statements::Extended(vec![
            Extended {
                query: "SELECT $1".to_owned(),
                params: vec![Some("1".to_owned()), None],
            },
            Extended {
                query: "SELECT 2".to_owned(),
                params: Vec::new(),
            },
        ]))
    );
    assert_eq!(
        read(r#"{"queries": []}"#),
        Ok(Statements::Extended(Vec::new()))
    );
}

#[test]
fn anything_else_is_refused_in_words() {
    for (body, words) in [
        ("", "EOF while parsing"),
        ("SELECT 1", "expected value"),
        ("[]", "malformed"),
        ("{}", "either"),
        (r#"{"query": null}"#, "either"),
        (r#"{"query": "a", "queries": []}"#, "either"),
        (r#"{"query": "a", "query": "b"}"#, "duplicate field"),
        (r#"{"query": "a", "sql": "b"}"#, "unknown field `sql`"),
        (r#"{"query": 1}"#, "expected a string"),
        (r#"{"query": "a"} trailing"#, "trailing characters"),
        (r#"{"queries": {"query": "a"}}"#, "expected a sequence"),
        (
            r#"{"queries": [{"query": "a", "parameters": []}]}"#,
            "unknown field `parameters`",
        ),
        (r#"{"queries": [{"params": []}]}"#, "missing field `query`"),
        (
            r#"{"queries": [{"query": "a", "params": [1]}]}"#,
            "expected a string",
        ),
    ] {
        let error = read(body).unwrap_err();
        assert!(error.contains(words), "{body}: {error}");
        assert!(error.contains("400"), "{body}: {error}");
    }
}

#[test]
fn only_json_is_json() {
    for accepted in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=utf-8",
    ] {
        assert!(is_json(&with(header::CONTENT_TYPE, accepted)), "{accepted}");
    }
    // What a form or a script of a foreign page can send without being asked.
    for refused in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/jsonp",
        "",
    ] {
        assert!(!is_json(&with(header::CONTENT_TYPE, refused)), "{refused}");
    }
    assert!(!is_json(&HeaderMap::new()));
}

#[test]
fn options_are_session_variables_and_the_database() {
    let uri =
        "/api/sql?options=%7B%22database%22%3A%22d%22%2C%22application_name%22%3A%22a%20b%22%7D"
            .parse()
            .unwrap();
    let user = User("ada".to_owned());
    let options = session_options(&uri, user.clone()).unwrap();
    assert_eq!(options.user, "ada");
    assert_eq!(options.database.as_deref(), Some("d"));
    assert_eq!(
        options.parameters,
        [("application_name".to_owned(), "a b".to_owned())]
    );
    for wrong in [
        "/api/sql?options=x",
        "/api/sql?options=%5B%5D",
        "/api/sql?options=%7B%22a%22%3A1%7D",
        "/api/sql?option=%7B%7D",
        "/api/sql?options=%7B%7D&options=%7B%7D",
    ] {
        assert!(
            session_options(&wrong.parse().unwrap(), user.clone()).is_err(),
            "{wrong}"
        );
    }
}
