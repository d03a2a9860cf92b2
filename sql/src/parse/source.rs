//! CREATE CONNECTION and CREATE SOURCE, and the option lists they share with ALTER.

use std::cell::RefCell;

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::ast::{
    ConnectionKind, ConnectionOption, ConnectionOptionName, CreateConnection, CreateSource,
    CreateSourceKind, GeneratorKind, Name, OptionValue, SourceTables, StatementKind,
    SubsourceReference,
};
use crate::error::{Error, ErrorKind};

const CONNECTION_OPTIONS: [ConnectionOptionName; 11] = [
    ConnectionOptionName::Host,
    ConnectionOptionName::Port,
    ConnectionOptionName::User,
    ConnectionOptionName::Password,
    ConnectionOptionName::Database,
    ConnectionOptionName::SslMode,
    ConnectionOptionName::SslCertificateAuthority,
    ConnectionOptionName::SslCertificate,
    ConnectionOptionName::SslKey,
    ConnectionOptionName::SshTunnel,
    ConnectionOptionName::AwsPrivatelink,
];

/// The name of a connection option.
pub(super) fn connection_option_name(c: &mut Cursor<'_>) -> Result<ConnectionOptionName, Error> {
    let found = CONNECTION_OPTIONS
        .iter()
        .find(|name| c.take(&name.keyword().split(' ').collect::<Vec<_>>()));
    found.copied().ok_or_else(|| c.error("a connection option"))
}

/// `name [=] value`
pub(super) fn connection_option(c: &mut Cursor<'_>) -> Result<ConnectionOption, Error> {
    let position = c.position();
    let name = connection_option_name(c)?;
    let value = c.option_value()?;
    if value == OptionValue::None {
        return Err(c.error("a value"));
    }
    Ok(ConnectionOption {
        name,
        value,
        position,
    })
}

fn twice(name: ConnectionOptionName, position: usize) -> Error {
    Error::syntax(format!(
        "option {} specified more than once",
        name.keyword()
    ))
    .at(position)
}

/// `WITH (VALIDATE [=] bool)`, if it comes next.
pub(super) fn validate_option(c: &mut Cursor<'_>) -> Result<Option<bool>, Error> {
    let mut validate = None;
    for option in c.with_options(&["VALIDATE"])? {
        let value = option.value.boolean();
        validate = Some(value.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidParameterValue,
                "invalid value for VALIDATE: a boolean is required",
            )
            .at(option.position)
        })?);
    }
    Ok(validate)
}

/// `CREATE CONNECTION`, after its kind.
pub(super) fn create_connection(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let if_not_exists = c.if_not_exists()?;
    let name = c.name("a connection name")?;
    c.expect(&["TO"])?;
    let position = c.position();
    let others: [(&[&str], bool); 9] = [
        (&["MYSQL"], true),
        (&["SQL", "SERVER"], true),
        (&["KAFKA"], false),
        (&["CONFLUENT", "SCHEMA", "REGISTRY"], false),
        (&["SSH", "TUNNEL"], true),
        (&["AWS", "PRIVATELINK"], false),
        (&["AWS"], false),
        (&["ICEBERG", "CATALOG"], false),
        (&["GCP"], false),
    ];
    if !c.take(&["POSTGRES"]) {
        if let Some((words, same_options)) = others.iter().find(|(words, _)| c.take(words)) {
            if *same_options {
                // The options are those of PostgreSQL, so what is wrong with them can be said as well.
                c.parenthesized(connection_option)?;
            }
            return Err(Error::unsupported(format!(
                "connections TO {} are not supported",
                words.join(" ")
            ))
            .at(position));
        }
        return Err(c.error("a kind of connection"));
    }
    let options = c.parenthesized(connection_option)?;
    for (index, option) in options.iter().enumerate() {
        if options
            .iter()
            .take(index)
            .any(|earlier| earlier.name == option.name)
        {
            return Err(twice(option.name, option.position));
        }
    }
    let validate = validate_option(c)?;
    Ok(StatementKind::CreateConnection(CreateConnection {
        name,
        if_not_exists,
        kind: ConnectionKind::Postgres,
        options,
        validate,
    }))
}

/// `TEXT COLUMNS (…)` or `EXCLUDE COLUMNS (…)`, also under their older name `IGNORE COLUMNS`.
pub(super) fn column_option(
    c: &mut Cursor<'_>,
    text: &mut Vec<Name>,
    exclude: &mut Vec<Name>,
) -> Result<(), Error> {
    let position = c.position();
    if c.take(&["TEXT", "COLUMNS"]) {
        text.extend(c.name_list("a column", 4)?);
    } else if c.take(&["EXCLUDE", "COLUMNS"]) || c.take(&["IGNORE", "COLUMNS"]) {
        exclude.extend(c.name_list("a column", 4)?);
    } else if c.peek_words(&["PARTITION", "BY"]) {
        return Err(Error::unsupported("option PARTITION BY is not supported").at(position));
    } else if c.peek_words(&["RETAIN", "HISTORY"]) {
        return Err(Error::unsupported("option RETAIN HISTORY is not supported").at(position));
    } else if c.nth_is(0, "DETAILS") {
        return Err(Error::unsupported("option DETAILS is not supported").at(position));
    } else {
        return Err(c.error("TEXT COLUMNS or EXCLUDE COLUMNS"));
    }
    Ok(())
}

/// `CREATE SOURCE`, after its kind.
pub(super) fn create_source(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let if_not_exists = c.if_not_exists()?;
    let name = c.name("a source name")?;
    let in_cluster = c.in_cluster()?;
    c.expect(&["FROM"])?;
    let position = c.position();
    let kind = if c.take(&["POSTGRES"]) {
        postgres(c)?
    } else if c.take(&["LOAD", "GENERATOR"]) {
        generator(c)?
    } else {
        let others: [&[&str]; 4] = [&["KAFKA"], &["MYSQL"], &["SQL", "SERVER"], &["WEBHOOK"]];
        return Err(match others.iter().find(|words| c.peek_words(words)) {
            Some(words) => Error::unsupported(format!(
                "sources FROM {} are not supported",
                words.join(" ")
            ))
            .at(position),
            None => c.error("a kind of source"),
        });
    };
    for word in ["FORMAT", "KEY", "INCLUDE", "ENVELOPE"] {
        if c.nth_is(0, word) {
            return Err(Error::unsupported(format!(
                "{word} of this kind of source is not supported"
            ))
            .at(c.position()));
        }
    }
    let tables = source_tables(c)?;
    let expose_progress_as = if c.take(&["EXPOSE", "PROGRESS"]) {
        c.expect(&["AS"])?;
        Some(c.name("a name")?)
    } else {
        None
    };
    let options = c.with_options(&["RETAIN HISTORY", "TIMESTAMP INTERVAL", "SIZE"])?;
    Ok(StatementKind::CreateSource(CreateSource {
        name,
        if_not_exists,
        in_cluster,
        kind,
        tables,
        expose_progress_as,
        options,
    }))
}

fn postgres(c: &mut Cursor<'_>) -> Result<CreateSourceKind, Error> {
    c.expect(&["CONNECTION"])?;
    let connection = c.name("a connection")?;
    let publication = RefCell::new(None);
    let mut text_columns = Vec::new();
    let mut exclude_columns = Vec::new();
    let list = c.position();
    c.parenthesized(|c| {
        let position = c.position();
        if !c.take(&["PUBLICATION"]) {
            return column_option(c, &mut text_columns, &mut exclude_columns);
        }
        let value = c.option_value()?;
        let Some(value) = value.text() else {
            return Err(c.error("a publication"));
        };
        if publication.borrow_mut().replace(value.to_owned()).is_some() {
            return Err(Error::syntax("option PUBLICATION specified more than once").at(position));
        }
        Ok(())
    })?;
    let Some(publication) = publication.into_inner() else {
        return Err(Error::syntax("option PUBLICATION is required").at(list));
    };
    Ok(CreateSourceKind::Postgres {
        connection,
        publication,
        text_columns,
        exclude_columns,
    })
}

fn generator(c: &mut Cursor<'_>) -> Result<CreateSourceKind, Error> {
    let position = c.position();
    let generator = if c.take(&["AUCTION"]) {
        GeneratorKind::Auction
    } else if c.take(&["COUNTER"]) {
        GeneratorKind::Counter
    } else if c.take(&["TPCH"]) {
        GeneratorKind::Tpch
    } else if let Some(word) = c
        .bare(0)
        .filter(|word| matches!(word.as_str(), "MARKETING" | "KEY" | "CLOCK" | "DATUMS"))
    {
        let word = if word == "KEY" { "KEY VALUE" } else { &word };
        return Err(
            Error::unsupported(format!("load generator {word} is not supported")).at(position),
        );
    } else {
        return Err(c.error("AUCTION, COUNTER or TPCH"));
    };
    let mut tick_interval = None;
    let mut scale_factor = None;
    let mut max_cardinality = None;
    if *c.peek(0) == Token::LParen {
        c.parenthesized(|c| {
            let position = c.position();
            if c.take(&["TICK", "INTERVAL"]) {
                c.take_token(&Token::Eq);
                let interval = c.duration("TICK INTERVAL")?;
                if interval.as_millis() == 0 {
                    return Err(Error::new(
                        ErrorKind::InvalidParameterValue,
                        "TICK INTERVAL must be at least one millisecond",
                    )
                    .at(position));
                }
                tick_interval = Some(interval);
            } else if generator == GeneratorKind::Tpch && c.take(&["SCALE", "FACTOR"]) {
                let value = c.option_value()?;
                let factor = value
                    .text()
                    .and_then(|text| text.parse::<f64>().ok())
                    .filter(|factor| factor.is_finite() && *factor > 0.0);
                let invalid = || {
                    Error::new(
                        ErrorKind::InvalidParameterValue,
                        "SCALE FACTOR must be a positive number",
                    )
                    .at(position)
                };
                scale_factor = Some(factor.ok_or_else(invalid)?);
            } else if generator == GeneratorKind::Counter && c.take(&["MAX", "CARDINALITY"]) {
                c.take_token(&Token::Eq);
                max_cardinality = Some(c.unsigned("MAX CARDINALITY")?);
            } else if c.peek_words(&["AS", "OF"]) || c.peek_words(&["UP", "TO"]) {
                return Err(Error::unsupported(
                    "AS OF and UP TO of a load generator are not supported",
                )
                .at(position));
            } else {
                return Err(c.error("an option of the load generator"));
            }
            Ok(())
        })?;
    }
    Ok(CreateSourceKind::LoadGenerator {
        generator,
        tick_interval,
        scale_factor,
        max_cardinality,
    })
}

fn source_tables(c: &mut Cursor<'_>) -> Result<SourceTables, Error> {
    if !c.take(&["FOR"]) {
        return Ok(SourceTables::None);
    }
    if c.take(&["ALL"]) {
        c.expect(&["TABLES"])?;
        return Ok(SourceTables::All);
    }
    if c.take(&["SCHEMAS"]) {
        return c
            .parenthesized(|c| c.ident("a schema upstream"))
            .map(SourceTables::Schemas);
    }
    if c.take(&["TABLES"]) {
        return c.parenthesized(subsource).map(SourceTables::Tables);
    }
    Err(c.error("ALL TABLES, SCHEMAS or TABLES"))
}

/// `table [AS name]`
pub(super) fn subsource(c: &mut Cursor<'_>) -> Result<SubsourceReference, Error> {
    let reference = c.name("a table upstream")?;
    let alias = if c.take(&["AS"]) || c.take(&["INTO"]) {
        Some(c.name("a name")?)
    } else {
        None
    };
    Ok(SubsourceReference { reference, alias })
}
