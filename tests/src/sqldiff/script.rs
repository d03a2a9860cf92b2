//! What shows a disagreement: tables with rows, a statement, and maybe a view and changes. And the databases to try it in.

use anyhow::{Result, bail};
use tokio_postgres::types::Format;

use super::compare::{Difference, Fault, Rules, Verdict, compare};
use super::profile::Profile;
use super::schema::Table;
use super::server::{Outcome, Raw, Server};
use super::statement::{Form, Parameter, Statement};
use super::tree::Tree;
use super::types::quoted;
use crate::answer::{Answer, Row};

/// The name of the view of a script.
const VIEW: &str = "shrunk_view";

/// A table and its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The table.
    pub table: Table,
    /// Its rows as text.
    pub rows: Vec<Row>,
}

/// How the query of a script is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// As it is.
    No,
    /// As a view.
    Plain,
    /// As a materialized view.
    Materialized,
}

/// Everything that it takes to show a disagreement.
#[derive(Debug, Clone)]
pub struct Script {
    /// The tables.
    pub tables: Vec<Content>,
    /// What is asked.
    pub statement: Statement,
    /// Whether it is asked through a view.
    pub view: View,
    /// Changes between the creation of the view and the question.
    pub changes: Vec<Tree>,
}

impl View {
    /// The statement that makes one, with so many columns.
    #[must_use]
    pub fn create(self, name: &str, columns: usize, query: &str) -> String {
        let names = super::query::columns(columns);
        format!("CREATE {} {name} ({names}) AS {query}", self.word())
    }

    /// The statement that drops one.
    #[must_use]
    pub fn discard(self, name: &str) -> String {
        format!("DROP {} {name}", self.word())
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Materialized => "MATERIALIZED VIEW",
            Self::No | Self::Plain => "VIEW",
        }
    }
}

impl Content {
    /// The statement that writes its rows, if there are any.
    #[must_use]
    pub fn insert(&self) -> Option<String> {
        let value = |value: &Option<String>| {
            let text = value.as_deref();
            text.map_or_else(|| "NULL".to_owned(), quoted)
        };
        let rows: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                let values: Vec<String> = row.iter().map(value).collect();
                format!("({})", values.join(", "))
            })
            .collect();
        (!rows.is_empty())
            .then(|| format!("INSERT INTO {} VALUES {}", self.table.name, rows.join(", ")))
    }
}

impl Script {
    /// The SQL for people.
    #[must_use]
    pub fn sql(&self) -> String {
        let mut lines = Vec::new();
        for content in &self.tables {
            lines.push(content.table.create());
            lines.extend(content.insert());
        }
        let statement = self.statement.tree.sql();
        if self.view == View::No {
            lines.extend(self.changes.iter().map(Tree::sql));
        } else {
            // How many columns it has does not matter where they have names.
            lines.push(format!("CREATE {} v AS {statement}", self.view.word()));
            lines.extend(self.changes.iter().map(Tree::sql));
            lines.push("SELECT * FROM v -- beside the query itself".to_owned());
        }
        if self.view == View::No || !self.changes.is_empty() {
            lines.push(statement);
        }
        for (place, parameter) in self.statement.parameters.iter().enumerate() {
            let value = parameter.value.as_deref();
            let value = value.map_or_else(|| "NULL".to_owned(), quoted);
            lines.push(format!("-- ${} is {value}", place + 1));
        }
        lines.join(";\n")
    }
}

/// A database of each server that holds nothing but what is tried.
#[derive(Debug)]
pub struct Laboratory {
    postgres: Server,
    node: Server,
    profile: Profile,
    /// The tables that are there with their rows as they were made, unless they were changed.
    loaded: Option<Vec<Content>>,
    names: Vec<String>,
}

impl Laboratory {
    /// One of two databases that hold nothing.
    #[must_use]
    pub fn new(postgres: Server, node: Server, profile: Profile) -> Self {
        Self {
            postgres,
            node,
            profile,
            loaded: None,
            names: Vec::new(),
        }
    }

    /// Whether a script shows a disagreement.
    ///
    /// # Errors
    /// The tables cannot be made, or a server is away.
    pub async fn run(&mut self, script: &Script) -> Result<Verdict> {
        self.load(&script.tables).await?;
        let verdict = match script.view {
            View::No => self.run_statement(script).await?,
            view => self.run_view(script, view).await?,
        };
        if matches!(&verdict, Verdict::Different(difference) if difference.fault == Fault::Death) {
            // Whether only the session is gone, or the whole node, is seen now.
            self.node.reconnect().await?;
        }
        Ok(verdict)
    }

    /// Connects to the node again.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn reconnect(&mut self) -> Result<()> {
        self.node.reconnect().await
    }

    async fn load(&mut self, tables: &[Content]) -> Result<()> {
        if self.loaded.as_deref() == Some(tables) {
            return Ok(());
        }
        self.loaded = None;
        while let Some(name) = self.names.pop() {
            self.both(&format!("DROP TABLE IF EXISTS {name} CASCADE"))
                .await?;
        }
        for content in tables {
            self.both(&content.table.create()).await?;
            self.names.push(content.table.name.clone());
            if let Some(insert) = content.insert() {
                self.both(&insert).await?;
            }
        }
        self.loaded = Some(tables.to_vec());
        Ok(())
    }

    async fn both(&self, sql: &str) -> Result<()> {
        for server in [&self.postgres, &self.node] {
            if let Answer::Error { code, message } = server.ask(sql).await {
                bail!("{code}: {message}: {sql}");
            }
        }
        Ok(())
    }

    async fn change(&mut self, changes: &[Tree]) -> Result<()> {
        for change in changes {
            self.loaded = None;
            // A change that both refuse is none.
            let sql = change.sql();
            let (node, postgres) = tokio::join!(self.node.ask(&sql), self.postgres.ask(&sql));
            if matches!(node, Answer::Error { .. }) != matches!(postgres, Answer::Error { .. }) {
                bail!("a change differs: {sql}");
            }
        }
        Ok(())
    }

    async fn run_statement(&mut self, script: &Script) -> Result<Verdict> {
        let sql = script.statement.tree.sql();
        let rules = Rules::of(&script.statement, self.profile);
        if script.statement.form == Form::Prepared {
            return Ok(prepared(&self.postgres, &self.node, &script.statement, rules).await);
        }
        self.change(&script.changes).await?;
        if script.statement.form != Form::Change {
            let (node, postgres) =
                tokio::join!(self.node.describe(&sql), self.postgres.describe(&sql));
            return Ok(compare(&node, &postgres, rules));
        }
        self.loaded = None;
        let (node, postgres) = tokio::join!(self.node.describe(&sql), self.postgres.describe(&sql));
        let verdict = compare(&node, &postgres, rules);
        if verdict != Verdict::Same {
            return Ok(verdict);
        }
        for content in &script.tables {
            let verdict = state(&self.postgres, &self.node, &content.table, rules).await;
            if verdict != Verdict::Same {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Same)
    }

    async fn run_view(&mut self, script: &Script, view: View) -> Result<Verdict> {
        let sql = script.statement.tree.sql();
        let rules = Rules::of(&script.statement, self.profile).of_view();
        let columns = self.postgres.describe(&sql).await.columns.len();
        if columns == 0 {
            return Ok(Verdict::Same);
        }
        let create = view.create(VIEW, columns, &sql);
        if let Answer::Error { code, message } = self.node.ask(&create).await {
            return Ok(if code == "0A000" {
                Verdict::Unsupported(message)
            } else {
                Verdict::Different(not_created(&code, &message))
            });
        }
        let verdict = self.changed_view(script, &sql, rules).await;
        self.node.ask(&view.discard(VIEW)).await;
        verdict
    }

    async fn changed_view(&mut self, script: &Script, sql: &str, rules: Rules) -> Result<Verdict> {
        self.change(&script.changes).await?;
        let maintained = self.node.describe(&format!("SELECT * FROM {VIEW}")).await;
        let expected = self.postgres.describe(sql).await;
        Ok(of_view(compare(&maintained, &expected, rules)))
    }
}

/// That a view cannot be made though its query answers.
#[must_use]
pub fn not_created(code: &str, message: &str) -> Difference {
    Difference {
        fault: match code {
            "XX000" => Fault::Internal,
            crate::answer::CONNECTION => Fault::Death,
            crate::answer::TIMEOUT => Fault::Hang,
            _ => Fault::Refused,
        },
        codes: format!("{code} view"),
        description: format!("node: error {code}: {message} (CREATE VIEW)"),
    }
}

/// A disagreement about rows as one of a view.
#[must_use]
pub fn of_view(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Different(difference) if difference.fault == Fault::Rows => {
            Verdict::Different(Difference {
                fault: Fault::View,
                ..difference
            })
        }
        other => other,
    }
}

/// Whether a table holds the same on both servers.
pub async fn state(postgres: &Server, node: &Server, table: &Table, rules: Rules) -> Verdict {
    let sql = format!("SELECT * FROM {}", table.name);
    let (node, postgres) = tokio::join!(node.describe(&sql), postgres.describe(&sql));
    let rules = Rules {
        is_ordered: false,
        ..rules
    };
    match compare(&node, &postgres, rules) {
        Verdict::Different(difference) if difference.fault == Fault::Rows => {
            Verdict::Different(Difference {
                fault: Fault::State,
                ..difference
            })
        }
        other => other,
    }
}

/// Compares a statement with parameters in text and in binary.
pub async fn prepared(
    postgres: &Server,
    node: &Server,
    statement: &Statement,
    rules: Rules,
) -> Verdict {
    let sql = statement.tree.sql();
    let is_typed = |(place, parameter): (usize, &Parameter)| {
        sql.contains(&format!("${}::{}", place + 1, parameter.r#type.cast()))
    };
    let are_typed = statement.parameters.iter().enumerate().all(is_typed);
    for format in [Format::Text, Format::Binary] {
        // Bytes of a type make no sense as another one, which a server may have found for a parameter without a type.
        if matches!(format, Format::Binary) && !are_typed {
            continue;
        }
        let mut parameters = Vec::new();
        for parameter in &statement.parameters {
            parameters.push(raw(postgres, parameter, format).await);
        }
        let (ours, theirs): (Outcome, Outcome) = tokio::join!(
            node.execute(&sql, &parameters),
            postgres.execute(&sql, &parameters)
        );
        // Bytes have one way to be written; names and modifiers are those of the statement without parameters.
        let rules = Rules {
            is_lenient: false,
            ..rules
        };
        let verdict = compare(&ours, &theirs, rules);
        if verdict != Verdict::Same {
            return verdict;
        }
    }
    Verdict::Same
}

async fn raw(postgres: &Server, parameter: &Parameter, format: Format) -> Raw {
    let bytes = match (&parameter.value, format) {
        (None, _) => None,
        (Some(text), Format::Text) => Some(text.as_bytes().to_vec()),
        (Some(text), Format::Binary) => {
            let literal = format!("{}::{}", quoted(text), parameter.r#type.cast());
            postgres.binary(&literal).await
        }
    };
    Raw { format, bytes }
}
