use super::*;

fn pairs(found: &[(String, String)]) -> Vec<(&str, &str)> {
    found
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[test]
fn command_line_options_are_settings() {
    for (text, expected) in [
        ("", vec![]),
        (
            "-c search_path=a -c statement_timeout=5s",
            vec![("search_path", "a"), ("statement_timeout", "5s")],
        ),
        ("-cDateStyle=ISO", vec![("DateStyle", "ISO")]),
        ("--statement-timeout=5s", vec![("statement_timeout", "5s")]),
        (
            "  -c   application_name=a\\ b\\\\c  ",
            vec![("application_name", "a b\\c")],
        ),
        ("-c a=b=c", vec![("a", "b=c")]),
        // What is no setting is passed over.
        ("-c", vec![]),
        ("-d 5 word", vec![]),
    ] {
        assert_eq!(pairs(&command_line_options(text)), expected, "{text:?}");
    }
}

#[test]
fn the_startup_message_names_user_database_and_settings() {
    let mut startup = Startup::new();
    for (name, value) in [
        ("user", "ada"),
        ("database", "materialize"),
        ("application_name", "psql"),
        ("options", "-c search_path=here"),
    ] {
        startup.parameters.insert(name.to_owned(), value.to_owned());
    }
    let options = session_options(&startup);
    assert_eq!(options.user, "ada");
    assert_eq!(options.database.as_deref(), Some("materialize"));
    let mut found = pairs(&options.parameters);
    found.sort_unstable();
    assert_eq!(
        found,
        [("application_name", "psql"), ("search_path", "here")]
    );
}

#[test]
fn without_a_database_there_is_the_default_one() {
    let mut startup = Startup::new();
    startup
        .parameters
        .insert("user".to_owned(), "ada".to_owned());
    assert_eq!(session_options(&startup).database, None);
}

#[test]
fn an_initial_response_that_is_cut_short_is_none() {
    let whole = b"SCRAM-SHA-256\0\0\0\0\x04abcd";
    assert_eq!(
        initial_response(whole),
        Some(("SCRAM-SHA-256", b"abcd".as_slice()))
    );
    for length in 0..whole.len() {
        assert_eq!(initial_response(&whole[..length]), None, "{length}");
    }
    for message in [
        b"SCRAM\0\xff\xff\xff\xff".as_slice(),
        b"SCRAM\0\0\0\0\x01abcd",
        b"\xff\0\0\0\0\0",
    ] {
        assert_eq!(initial_response(message), None, "{message:?}");
    }
}
