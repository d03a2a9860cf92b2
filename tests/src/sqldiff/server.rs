//! One of the servers that are compared: a database of it, and what it says about a statement.

use std::error::Error;

use anyhow::Result;
use bytes::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type as WireType, to_sql_checked};
use tokio_postgres::{Client, Row as WireRow};

use crate::answer::{Answer, CONNECTION, Row, STATEMENT_DEADLINE, ask, connect};

/// The user of PostgreSQL, and the database that is there.
pub const POSTGRES: &str = "postgres";

/// The user of a node, and the database that is there.
pub const NODE: &str = "materialize";

/// The SQLSTATE of a statement that took too long.
pub const CANCELED: &str = "57014";

/// A connection to a database of a server.
#[derive(Debug)]
pub struct Server {
    port: u16,
    user: &'static str,
    database: String,
    client: Client,
}

/// What a server says about a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The rows or the error.
    pub answer: Answer,
    /// The columns, if there are any.
    pub columns: Vec<Described>,
    /// The types of parameters, by their OIDs.
    pub parameters: Vec<u32>,
}

/// What a server says about a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its type's OID.
    pub oid: u32,
    /// Its type's modifier, or -1.
    pub modifier: i32,
}

/// A parameter as bytes.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Text or binary.
    pub format: Format,
    /// The value, or NULL.
    pub bytes: Option<Vec<u8>>,
}

impl ToSql for Raw {
    fn to_sql(
        &self,
        _: &WireType,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.bytes {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &WireType) -> bool {
        true
    }

    fn encode_format(&self, _: &WireType) -> Format {
        self.format
    }

    to_sql_checked!();
}

/// A value of a row as bytes.
struct Bytes(Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &WireType, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &WireType) -> bool {
        true
    }
}

impl Server {
    /// Makes a database of a server, and connects to it.
    ///
    /// # Errors
    /// The server does not answer, or has such a database.
    pub async fn create(port: u16, user: &'static str, database: &str) -> Result<Self> {
        // Both servers have a database with the name of their user.
        let client = open(port, user, user).await?;
        client
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await?;
        Ok(Self {
            port,
            user,
            database: database.to_owned(),
            client: open(port, user, database).await?,
        })
    }

    /// Connects again.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn reconnect(&mut self) -> Result<()> {
        self.client = open(self.port, self.user, &self.database).await?;
        Ok(())
    }

    /// Asks, and does not want to know more than the rows.
    pub async fn ask(&self, sql: &str) -> Answer {
        ask(&self.client, sql).await
    }

    /// Asks for rows as text, and what their columns are.
    pub async fn describe(&self, sql: &str) -> Outcome {
        let refused = |answer| Outcome {
            answer,
            columns: Vec::new(),
            parameters: Vec::new(),
        };
        let prepared = tokio::time::timeout(STATEMENT_DEADLINE, self.client.prepare(sql)).await;
        let columns = match prepared {
            Err(_) => return refused(Answer::timeout()),
            Ok(Err(error)) => return refused(Answer::of_error(&error)),
            Ok(Ok(statement)) => described(&statement),
        };
        Outcome {
            answer: self.ask(sql).await,
            columns,
            parameters: Vec::new(),
        }
    }

    /// Asks with parameters for rows in the binary format, which are shown in hexadecimal.
    pub async fn execute(&self, sql: &str, parameters: &[Raw]) -> Outcome {
        let asked = tokio::time::timeout(STATEMENT_DEADLINE, self.execute_now(sql, parameters));
        match asked.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(answer)) => Outcome {
                answer,
                columns: Vec::new(),
                parameters: Vec::new(),
            },
            Err(_) => Outcome {
                answer: Answer::timeout(),
                columns: Vec::new(),
                parameters: Vec::new(),
            },
        }
    }

    async fn execute_now(&self, sql: &str, parameters: &[Raw]) -> Result<Outcome, Answer> {
        let statement = self
            .client
            .prepare(sql)
            .await
            .map_err(|error| Answer::of_error(&error))?;
        let types = statement.params().iter().map(WireType::oid).collect();
        let columns = described(&statement);
        if statement.params().len() != parameters.len() {
            return Ok(Outcome {
                answer: Answer::Rows(Vec::new()),
                columns,
                parameters: types,
            });
        }
        let values: Vec<&(dyn ToSql + Sync)> = parameters
            .iter()
            .map(|value| -> &(dyn ToSql + Sync) { value })
            .collect();
        let rows = self
            .client
            .query(&statement, &values)
            .await
            .map_err(|error| Answer::of_error(&error))?;
        let rows = rows.iter().map(hexadecimal).collect::<Result<_, _>>();
        Ok(Outcome {
            answer: Answer::Rows(rows.map_err(|error| Answer::of_error(&error))?),
            columns,
            parameters: types,
        })
    }

    /// A value in the binary format, as this server writes it.
    pub async fn binary(&self, literal: &str) -> Option<Vec<u8>> {
        let sql = format!("SELECT {literal}");
        let rows = self.client.query(sql.as_str(), &[]).await.ok()?;
        let value: Option<Bytes> = rows.first()?.try_get(0).ok()?;
        value.map(|bytes| bytes.0)
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }
}

impl Outcome {
    /// The SQLSTATE of an error.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &self.answer {
            Answer::Rows(_) => None,
            Answer::Error { code, .. } => Some(code),
        }
    }

    /// Whether the connection was lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.code() == Some(CONNECTION)
    }
}

/// A connection. PostgreSQL does not go on with what takes it long: nodes are not asked for that.
async fn open(port: u16, user: &str, database: &str) -> Result<Client> {
    let client = connect(port, user, database).await?;
    if user == POSTGRES {
        client.batch_execute("SET statement_timeout = '5s'").await?;
    }
    Ok(client)
}

fn described(statement: &tokio_postgres::Statement) -> Vec<Described> {
    statement
        .columns()
        .iter()
        .map(|column| Described {
            name: column.name().to_owned(),
            oid: column.type_().oid(),
            modifier: column.type_modifier(),
        })
        .collect()
}

fn hexadecimal(row: &WireRow) -> Result<Row, tokio_postgres::Error> {
    (0..row.len())
        .map(|place| {
            let value: Option<Bytes> = row.try_get(place)?;
            Ok(value.map(|bytes| {
                let digits = bytes.0.iter().map(|byte| format!("{byte:02x}"));
                format!("x{}", digits.collect::<String>())
            }))
        })
        .collect()
}
