//! PostgreSQL: a publication, read through a replication slot.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::message::{
    PostgresConnection, ReplicationSlot, SourceKind, SourceTable, SslMode, UpstreamConnection,
    UpstreamTable,
};
use flowstone_types::{ObjectId, SourcePosition, SqlType};

use super::{
    CatalogConnection, CatalogSource, Connection, ConnectionOption, ConnectionOptionName,
    ConnectionOptions, CreateSourceKind, MessageTable, NameOf, NewSource, OptionReader,
    SecretNamed, SourceItemKind, StringOrSecret, SystemColumns, column_option, given_twice,
};
use crate::error::{Error, ErrorKind};
use crate::ident::{Name, OptionValue, at, quote_ident, quote_literal};

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// What stands behind `POSTGRES` in `CREATE SOURCE`.
pub(super) fn source<R: OptionReader>(c: &mut R) -> Result<CreateSourceKind, Error> {
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
            return Err(given_twice("PUBLICATION", position));
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

/// [`CreateSourceKind::Postgres`].
#[derive(Debug)]
pub(super) struct NewPublication<'a> {
    pub(super) connection: &'a Name,
    pub(super) publication: &'a str,
    pub(super) text_columns: &'a [Name],
    pub(super) exclude_columns: &'a [Name],
}

impl<'a> NewSource<'a> for NewPublication<'a> {
    fn connection(&self) -> Option<&'a Name> {
        Some(self.connection)
    }

    fn column_options(&self) -> (&'a [Name], &'a [Name]) {
        (self.text_columns, self.exclude_columns)
    }

    fn nothing_to_capture(&self) -> Error {
        Error::new(
            ErrorKind::InvalidParameterValue,
            format!("publication \"{}\" is empty", self.publication),
        )
        .with_hint("Add tables to the publication upstream with ALTER PUBLICATION ... ADD TABLE.")
    }

    fn in_catalog(
        &self,
        connection: Option<(ObjectId, &Connection)>,
        slot: &str,
    ) -> Result<SourceItemKind, Error> {
        let Some((connection, Connection::Postgres { .. })) = connection else {
            let message = format!(
                "\"{}\" is not a connection to PostgreSQL",
                self.connection.item()
            );
            return Err(at(
                Error::new(ErrorKind::WrongObjectType, message),
                self.connection,
            ));
        };
        Ok(SourceItemKind::Postgres {
            connection,
            publication: self.publication.to_owned(),
            slot: slot.to_owned(),
        })
    }
}

/// [`SourceItemKind::Postgres`].
#[derive(Debug)]
pub(super) struct Publication<'a> {
    pub(super) connection: ObjectId,
    pub(super) publication: &'a str,
    pub(super) slot: &'a str,
}

impl CatalogSource for Publication<'_> {
    fn type_name(&self) -> &'static str {
        "postgres"
    }

    fn definition(&self, name_of: NameOf<'_>) -> String {
        format!(
            "POSTGRES CONNECTION {} (PUBLICATION = {})",
            name_of(self.connection),
            quote_literal(self.publication)
        )
    }

    fn progress_columns(&self) -> Vec<(&'static str, SqlType)> {
        vec![("lsn", SqlType::UInt8)]
    }

    fn offset_unit(&self) -> &'static str {
        "bytes"
    }

    fn upstream(
        &self,
        _id: ObjectId,
        connection: Option<UpstreamConnection>,
    ) -> Option<SourceKind> {
        let UpstreamConnection::Postgres(connection) = connection? else {
            return None;
        };
        Some(SourceKind::Postgres {
            connection,
            publication: self.publication.to_owned(),
            slot: self.slot.to_owned(),
        })
    }

    fn connection(&self) -> Option<ObjectId> {
        Some(self.connection)
    }

    fn slot(&self) -> Option<String> {
        Some(self.slot.to_owned())
    }

    fn position_without_kind(&self, number: u64) -> Option<SourcePosition> {
        Some(SourcePosition::PostgresLsn(number))
    }

    /// Updates and deletes of a table can be followed if it has a key or sends whole rows.
    fn check_tables(&self, tables: &[&UpstreamTable]) -> Result<(), Error> {
        let bad: BTreeSet<(&str, &str)> = tables
            .iter()
            .filter(|table| {
                !table.sends_whole_rows() && (table.key.is_empty() || table.replica_identity == 'n')
            })
            .map(|table| (table.schema.as_str(), table.name.as_str()))
            .collect();
        if bad.is_empty() {
            return Ok(());
        }
        let full = |(schema, name): &(&str, &str)| {
            format!("{}.{}", quote_ident(schema), quote_ident(name))
        };
        let names = bad.iter().map(full).collect::<Vec<_>>().join(", ");
        let fixes = bad
            .iter()
            .map(|table| format!("ALTER TABLE {} REPLICA IDENTITY FULL;", full(table)))
            .collect::<Vec<_>>()
            .join(" ");
        Err(Error::new(
            ErrorKind::InvalidObjectDefinition,
            "referenced items not tables with REPLICA IDENTITY FULL",
        )
        .with_detail(format!(
            "Neither a primary key nor REPLICA IDENTITY FULL: {names}."
        ))
        .with_hint(format!("Run upstream: {fixes}")))
    }

    fn source_columns(&self, relation: &str) -> Option<SystemColumns> {
        (relation == "mz_postgres_sources")
            .then(|| vec![("replication_slot", self.slot.to_owned())])
    }

    fn table_columns(
        &self,
        relation: &str,
        table: &SourceTable,
        _messages: Option<&MessageTable>,
    ) -> Option<SystemColumns> {
        (relation == "mz_postgres_source_tables").then(|| {
            vec![
                ("schema_name", table.upstream_schema.clone()),
                ("table_name", table.upstream_name.clone()),
            ]
        })
    }
}

/// [`Connection::Postgres`].
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a StringOrSecret,
    pub(super) password: Option<ObjectId>,
    pub(super) database: &'a str,
    pub(super) ssl_mode: SslMode,
    pub(super) ssl_root: Option<&'a StringOrSecret>,
}

impl Server<'_> {
    fn resolve(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<PostgresConnection> {
        Some(PostgresConnection {
            host: self.host.to_owned(),
            port: self.port,
            user: self.user.resolve(secrets)?,
            password: match self.password {
                Some(id) => Some(secrets.get(&id)?.clone()),
                None => None,
            },
            database: self.database.to_owned(),
            ssl_mode: self.ssl_mode,
            ssl_root: match self.ssl_root {
                Some(root) => Some(root.resolve(secrets)?),
                None => None,
            },
        })
    }
}

impl CatalogConnection for Server<'_> {
    fn type_name(&self) -> &'static str {
        "postgres"
    }

    fn definition(&self, name_of: NameOf<'_>) -> String {
        let mode = match self.ssl_mode {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify_ca",
            SslMode::VerifyFull => "verify_full",
        };
        let mut options = vec![
            format!("HOST = {}", quote_literal(self.host)),
            format!("PORT = {}", self.port),
            format!("USER = {}", self.user.definition(name_of)),
            format!("DATABASE = {}", quote_literal(self.database)),
            format!("SSL MODE = {mode}"),
        ];
        if let Some(password) = self.password {
            options.push(format!("PASSWORD = SECRET {}", name_of(password)));
        }
        if let Some(root) = self.ssl_root {
            options.push(format!(
                "SSL CERTIFICATE AUTHORITY = {}",
                root.definition(name_of)
            ));
        }
        format!("POSTGRES ({})", options.join(", "))
    }

    fn options(&self) -> Box<dyn ConnectionOptions> {
        Box::new(Options {
            host: Some(self.host.to_owned()),
            port: Some(self.port),
            user: Some(self.user.clone()),
            password: self.password,
            database: Some(self.database.to_owned()),
            ssl_mode: Some(self.ssl_mode),
            ssl_root: self.ssl_root.cloned(),
        })
    }

    fn secrets(&self) -> Vec<ObjectId> {
        let ids = [
            self.user.secret(),
            self.password,
            self.ssl_root.and_then(StringOrSecret::secret),
        ];
        ids.into_iter().flatten().collect()
    }

    fn upstream(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<UpstreamConnection> {
        self.resolve(secrets).map(UpstreamConnection::Postgres)
    }

    fn slot(&self, secrets: &BTreeMap<ObjectId, String>, slot: &str) -> Option<ReplicationSlot> {
        Some(ReplicationSlot {
            connection: self.resolve(secrets)?,
            slot: slot.to_owned(),
        })
    }
}

/// The options of a connection to PostgreSQL, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Options {
    host: Option<String>,
    port: Option<u16>,
    user: Option<StringOrSecret>,
    password: Option<ObjectId>,
    database: Option<String>,
    ssl_mode: Option<SslMode>,
    ssl_root: Option<StringOrSecret>,
}

impl ConnectionOptions for Options {
    fn set(&mut self, option: &ConnectionOption, secret: SecretNamed<'_>) -> Result<(), Error> {
        // Unlike elsewhere it may be empty.
        let text = || {
            let text = option.value.text().map(str::to_owned);
            text.ok_or_else(|| option.invalid("must be a string"))
        };
        let text_or_secret = || match &option.value {
            OptionValue::Secret(name) => secret(name).map(StringOrSecret::Secret),
            _ => text().map(StringOrSecret::String),
        };
        match option.name {
            ConnectionOptionName::Host => self.host = Some(text()?).filter(|host| !host.is_empty()),
            ConnectionOptionName::Port => {
                let port = text()?.parse::<u16>().ok().filter(|port| *port > 0);
                let port =
                    port.ok_or_else(|| option.invalid("must be a number between 1 and 65535"));
                self.port = Some(port?);
            }
            ConnectionOptionName::User => self.user = Some(text_or_secret()?),
            ConnectionOptionName::Password => self.password = Some(option.secret(secret)?),
            ConnectionOptionName::Database => self.database = Some(text()?),
            ConnectionOptionName::SslMode => {
                let mode = text()?.to_ascii_lowercase().replace('-', "_");
                self.ssl_mode = Some(match mode.as_str() {
                    "disable" | "disabled" => SslMode::Disable,
                    "prefer" | "preferred" => SslMode::Prefer,
                    "require" | "required" => SslMode::Require,
                    "verify_ca" => SslMode::VerifyCa,
                    "verify_full" => SslMode::VerifyFull,
                    _ => {
                        return Err(option.invalid(
                            "must be disable, prefer, require, verify_ca or verify_full",
                        ));
                    }
                });
            }
            ConnectionOptionName::SslCertificateAuthority => {
                self.ssl_root = Some(text_or_secret()?)
            }
            _ => return Err(option.unsupported()),
        }
        Ok(())
    }

    fn unset(&mut self, name: ConnectionOptionName) -> Result<(), Error> {
        match name {
            ConnectionOptionName::Port => self.port = None,
            ConnectionOptionName::Password => self.password = None,
            ConnectionOptionName::SslMode => self.ssl_mode = None,
            ConnectionOptionName::SslCertificateAuthority => self.ssl_root = None,
            ConnectionOptionName::Host
            | ConnectionOptionName::User
            | ConnectionOptionName::Database => return Err(name.stays()),
            _ => return Err(name.unsupported()),
        }
        Ok(())
    }

    fn finish(self: Box<Self>, name: &Name) -> Result<Connection, Error> {
        let required = |option: ConnectionOptionName| option.required(name);
        let options = *self;
        let ssl_mode = options.ssl_mode.unwrap_or_default();
        if options.ssl_root.is_none() && matches!(ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull)
        {
            return Err(required(ConnectionOptionName::SslCertificateAuthority));
        }
        Ok(Connection::Postgres {
            host: options
                .host
                .ok_or_else(|| required(ConnectionOptionName::Host))?,
            port: options.port.unwrap_or(PORT),
            user: options
                .user
                .ok_or_else(|| required(ConnectionOptionName::User))?,
            password: options.password,
            database: options
                .database
                .ok_or_else(|| required(ConnectionOptionName::Database))?,
            ssl_mode,
            ssl_root: options.ssl_root,
        })
    }
}
