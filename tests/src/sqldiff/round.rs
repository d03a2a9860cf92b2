//! One seed: tables on PostgreSQL and on nodes with several numbers of shards, queries and views over them, changes, and the comparisons.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::compare::{Difference, Fault, Rules, Verdict, compare};
use super::profile::Profile;
use super::query::Queries;
use super::random::Random;
use super::report::{Finding, Report};
use super::run::Settings;
use super::schema::Schema;
use super::script::{Content, Laboratory, Script, View, not_created, of_view, prepared, state};
use super::server::{CANCELED, NODE, Outcome, POSTGRES, Server};
use super::shrink::shrink;
use super::statement::{Form, Statement, Statements};
use super::tree::Tree;
use crate::answer::Answer;
use crate::{Node, Postgres};

/// How long it may take to make one disagreement smaller.
const SHRINK_DURATION: Duration = Duration::from_secs(60);

/// How many views stand at a time; they are made anew when there are as many.
const VIEWS_MAX: usize = 14;

/// How many rows a table may have before most of them are deleted.
const ROWS_MAX: usize = 16;

/// How many rows an answer may have to be compared.
const ANSWER_MAX: usize = 5_000;

/// A node and its databases for a seed.
pub(super) struct Side {
    node: Node,
    shards: usize,
    server: Server,
    laboratory: Laboratory,
}

/// A query that is a view on the nodes.
struct Viewed {
    name: String,
    view: View,
    statement: Statement,
    /// Whether it stands on each of the nodes, and has not differed there.
    stands: Vec<bool>,
}

/// One seed.
pub(super) struct Round<'a> {
    settings: &'a Settings,
    report: &'a mut Report,
    seed: u64,
    /// When the seed is to end.
    until: Instant,
    postgres: Server,
    sides: Vec<Side>,
    statements: Statements,
    views: Vec<Viewed>,
    names: usize,
    /// The rows before the changes that were made last.
    before: Vec<Content>,
    changes: Vec<Tree>,
    /// The nodes that did not do one of the changes as PostgreSQL did, which has been told: their tables differ.
    diverged: Vec<usize>,
}

impl Side {
    /// Starts a node with so many shards for the seed in that place, on a directory.
    pub(super) async fn start(
        postgres: &Postgres,
        dir: &Path,
        shards: usize,
        place: usize,
        profile: Profile,
    ) -> Result<Self> {
        let node = Node::start(dir, shards).await?;
        let (node_port, postgres_port) = (node.pg_port(), postgres.port());
        let shrunk = format!("shrunk_{place}_{shards}");
        let laboratory = Laboratory::new(
            Server::create(postgres_port, POSTGRES, &shrunk).await?,
            Server::create(node_port, NODE, &shrunk).await?,
            profile,
        );
        Ok(Self {
            server: Server::create(node_port, NODE, &format!("seed_{place}")).await?,
            node,
            shards,
            laboratory,
        })
    }
}

impl<'a> Round<'a> {
    /// The seed and its place among all seeds, on a database of its own.
    pub(super) async fn new(
        postgres: &Postgres,
        sides: Vec<Side>,
        settings: &'a Settings,
        (place, seed): (usize, u64),
        report: &'a mut Report,
    ) -> Result<Self> {
        let mut random = Random::new(seed);
        let schema = Schema::new(settings.profile, &mut random);
        let database = format!("seed_{place}");
        Ok(Self {
            settings,
            report,
            seed,
            until: Instant::now() + settings.seed_duration,
            postgres: Server::create(postgres.port(), POSTGRES, &database).await?,
            sides,
            statements: Statements {
                queries: Queries::new(settings.profile, schema, random),
            },
            views: Vec::new(),
            names: 0,
            before: Vec::new(),
            changes: Vec::new(),
            diverged: Vec::new(),
        })
    }
}

/// Whether an answer is not worth to be compared.
fn is_too_much(expected: &Outcome) -> bool {
    match &expected.answer {
        Answer::Rows(rows) => rows.len() > ANSWER_MAX,
        Answer::Error { code, .. } => code == CANCELED,
    }
}

impl Round<'_> {
    /// Goes on until its time is over, or it has had all rounds.
    pub(super) async fn run(&mut self) -> Result<()> {
        for table in self.statements.queries.schema.tables.clone() {
            self.everywhere(&table.create()).await?;
            let rows = 2 + self.statements.queries.random().below(8);
            let insert = table.insert(rows, self.statements.queries.random());
            self.everywhere(&insert.sql()).await?;
        }
        for _ in 0..self.settings.rounds {
            if Instant::now() > self.until {
                break;
            }
            self.snapshot().await?;
            for _ in 0..self.settings.queries {
                if Instant::now() > self.until {
                    break;
                }
                let statement = self.statements.query();
                self.query(statement).await?;
            }
            if self.settings.profile.is_full() {
                let invalid = self.statements.invalid();
                self.query(invalid).await?;
            }
            if let Some(statement) = self.statements.prepared() {
                self.prepared(&statement).await?;
            }
            let changes = 1 + self.statements.queries.random().below(3);
            for _ in 0..changes {
                let change = self.statements.change();
                self.change(change).await?;
            }
            self.check_tables().await?;
            self.check_views().await?;
        }
        Ok(())
    }

    /// The same on all servers, without a comparison.
    async fn everywhere(&self, sql: &str) -> Result<()> {
        let nodes = self.sides.iter().map(|side| &side.server);
        for server in std::iter::once(&self.postgres).chain(nodes) {
            if let Answer::Error { code, message } = server.ask(sql).await {
                anyhow::bail!("{code}: {message}: {sql}");
            }
        }
        Ok(())
    }

    /// Remembers the rows of all tables, and makes large ones small.
    async fn snapshot(&mut self) -> Result<()> {
        self.changes.clear();
        self.diverged.clear();
        self.before.clear();
        for table in self.statements.queries.schema.tables.clone() {
            let sql = format!("SELECT * FROM {}", table.name);
            let Answer::Rows(mut rows) = self.postgres.ask(&sql).await else {
                anyhow::bail!("PostgreSQL does not answer: {sql}");
            };
            if rows.len() > ROWS_MAX {
                rows.truncate(ROWS_MAX / 3);
                self.everywhere(&format!("DELETE FROM {}", table.name))
                    .await?;
                let content = Content {
                    table: table.clone(),
                    rows: rows.clone(),
                };
                if let Some(insert) = content.insert() {
                    self.everywhere(&insert).await?;
                }
            }
            self.before.push(Content { table, rows });
        }
        Ok(())
    }

    fn count(&mut self, expected: &Outcome) {
        self.report.seen.answers += 1;
        match expected.answer {
            Answer::Rows(_) => self.report.seen.with_rows += 1,
            Answer::Error { .. } => self.report.seen.errors += 1,
        }
    }

    /// A query as it is, and as a view if nothing is wrong with it.
    async fn query(&mut self, statement: Statement) -> Result<()> {
        let sql = statement.tree.sql();
        let rules = Rules::of(&statement, self.settings.profile);
        // Chosen in any case, so that what comes next does not depend on answers.
        let view = if self.statements.queries.random().chance(25) && self.settings.profile.is_full()
        {
            View::Plain
        } else {
            View::Materialized
        };
        let expected = self.postgres.describe(&sql).await;
        self.count(&expected);
        if is_too_much(&expected) {
            return Ok(());
        }
        let mut is_same = true;
        for place in 0..self.sides.len() {
            let Some(side) = self.sides.get(place) else {
                continue;
            };
            let answer = side.server.describe(&sql).await;
            let verdict = compare(&answer, &expected, rules);
            is_same &= verdict == Verdict::Same;
            let script = self.script(statement.clone(), View::No, Vec::new());
            if self.judge(place, verdict, script).await? {
                break;
            }
        }
        let is_query = matches!(statement.form, Form::Query | Form::Wild);
        if is_same && is_query && !expected.columns.is_empty() {
            self.make_view(statement, view, expected.columns.len())
                .await?;
        }
        Ok(())
    }

    async fn prepared(&mut self, statement: &Statement) -> Result<()> {
        let rules = Rules::of(statement, self.settings.profile);
        for place in 0..self.sides.len() {
            let Some(side) = self.sides.get(place) else {
                continue;
            };
            self.report.seen.answers += 1;
            let verdict = prepared(&self.postgres, &side.server, statement, rules).await;
            let script = self.script(statement.clone(), View::No, Vec::new());
            if self.judge(place, verdict, script).await? {
                break;
            }
        }
        Ok(())
    }

    async fn make_view(&mut self, statement: Statement, view: View, columns: usize) -> Result<()> {
        if self.views.len() >= VIEWS_MAX {
            for viewed in std::mem::take(&mut self.views) {
                for side in &self.sides {
                    side.server.ask(&viewed.view.discard(&viewed.name)).await;
                }
            }
        }
        self.names += 1;
        let name = format!("v{}", self.names);
        let create = view.create(&name, columns, &statement.tree.sql());
        let mut stands = Vec::new();
        for place in 0..self.sides.len() {
            let Some(side) = self.sides.get(place) else {
                continue;
            };
            let answer = side.server.ask(&create).await;
            stands.push(matches!(answer, Answer::Rows(_)));
            if let Answer::Error { code, message } = answer {
                let verdict = if code == "0A000" {
                    Verdict::Unsupported(format!("view: {message}"))
                } else {
                    Verdict::Different(not_created(&code, &message))
                };
                let script = self.script(statement.clone(), view, Vec::new());
                self.judge(place, verdict, script).await?;
            }
        }
        if stands.contains(&true) {
            self.report.seen.views += 1;
            self.views.push(Viewed {
                name,
                view,
                statement,
                stands,
            });
        }
        Ok(())
    }

    async fn change(&mut self, statement: Statement) -> Result<()> {
        let sql = statement.tree.sql();
        let rules = Rules {
            any_evaluation_error: true,
            ..Rules::of(&statement, self.settings.profile)
        };
        let expected = self.postgres.describe(&sql).await;
        self.report.seen.changes += 1;
        self.changes.push(statement.tree.clone());
        for place in 0..self.sides.len() {
            let Some(side) = self.sides.get(place) else {
                continue;
            };
            let answer = side.server.describe(&sql).await;
            let verdict = compare(&answer, &expected, rules);
            if verdict != Verdict::Same {
                self.diverged.push(place);
            }
            let mut script = self.script(statement.clone(), View::No, self.changes.clone());
            script.changes.pop();
            self.judge(place, verdict, script).await?;
        }
        Ok(())
    }

    /// Whether the tables hold the same; if not, the rows of PostgreSQL are written to the nodes.
    async fn check_tables(&mut self) -> Result<()> {
        let Some(last) = self.changes.last().cloned() else {
            return Ok(());
        };
        let mut statement = Statement {
            tree: last,
            form: Form::Change,
            is_ordered: false,
            notes: super::expression::Notes::default(),
            parameters: Vec::new(),
        };
        statement.notes.merged = true;
        let rules = Rules::of(&statement, self.settings.profile);
        for table in self.statements.queries.schema.tables.clone() {
            for place in 0..self.sides.len() {
                let Some(side) = self.sides.get(place) else {
                    continue;
                };
                let verdict = state(&self.postgres, &side.server, &table, rules).await;
                if verdict == Verdict::Same {
                    continue;
                }
                // Which change made other rows is not known: each is tried alone.
                match &verdict {
                    _ if self.diverged.contains(&place) => {}
                    Verdict::Different(difference) if difference.fault == Fault::State => {
                        for tree in self.changes.clone() {
                            let mut one = statement.clone();
                            one.tree = tree;
                            let script = self.script(one, View::No, Vec::new());
                            self.find(place, difference, script).await;
                        }
                    }
                    _ => {
                        let script = self.script(statement.clone(), View::No, Vec::new());
                        self.judge(place, verdict, script).await?;
                    }
                }
                self.rewrite(place, &table.name).await?;
            }
        }
        Ok(())
    }

    /// Gives a node the rows that PostgreSQL has. Views that read the table are no longer what the changes made of them.
    async fn rewrite(&mut self, place: usize, table: &str) -> Result<()> {
        let found = self.before.iter().find(|one| one.table.name == table);
        let Some(content) = found else {
            return Ok(());
        };
        let sql = format!("SELECT * FROM {table}");
        let Answer::Rows(rows) = self.postgres.ask(&sql).await else {
            anyhow::bail!("PostgreSQL does not answer: {sql}");
        };
        let content = Content {
            table: content.table.clone(),
            rows,
        };
        let side = self.sides.get(place).context("there is such a node")?;
        side.server.ask(&format!("DELETE FROM {table}")).await;
        if let Some(insert) = content.insert()
            && let Answer::Error { code, message } = side.server.ask(&insert).await
        {
            anyhow::bail!("the rows of PostgreSQL cannot be written: {code}: {message}: {insert}");
        }
        self.changes
            .push(Tree::text(format!("DELETE FROM {table}")));
        Ok(())
    }

    async fn check_views(&mut self) -> Result<()> {
        for at in 0..self.views.len() {
            let Some(viewed) = self.views.get(at) else {
                continue;
            };
            let (view, statement) = (viewed.view, viewed.statement.clone());
            let (sql, select) = (
                statement.tree.sql(),
                format!("SELECT * FROM {}", viewed.name),
            );
            let stands = viewed.stands.clone();
            let rules = Rules::of(&statement, self.settings.profile).of_view();
            let expected = self.postgres.describe(&sql).await;
            if is_too_much(&expected) {
                continue;
            }
            for (place, _) in stands.iter().enumerate().filter(|(_, stands)| **stands) {
                let Some(side) = self.sides.get(place) else {
                    continue;
                };
                self.report.seen.checks += 1;
                let maintained = side.server.describe(&select).await;
                let mut verdict = of_view(compare(&maintained, &expected, rules));
                if verdict == Verdict::Same {
                    continue;
                }
                // The query itself may be wrong over the rows of now; then it is not the view.
                let asked = side.server.describe(&sql).await;
                let of_query = compare(&asked, &expected, rules);
                let mut script = self.script(statement.clone(), view, self.changes.clone());
                if !matches!(of_query, Verdict::Same) && !asked.is_lost() {
                    verdict = of_query;
                    script.view = View::No;
                    script.tables = self.now().await?;
                    script.changes.clear();
                }
                if let Some(viewed) = self.views.get_mut(at)
                    && let Some(stands) = viewed.stands.get_mut(place)
                {
                    *stands = false;
                }
                self.judge(place, verdict, script).await?;
            }
        }
        Ok(())
    }

    /// The rows of now.
    async fn now(&self) -> Result<Vec<Content>> {
        let mut contents = Vec::new();
        for content in &self.before {
            let sql = format!("SELECT * FROM {}", content.table.name);
            let Answer::Rows(rows) = self.postgres.ask(&sql).await else {
                anyhow::bail!("PostgreSQL does not answer: {sql}");
            };
            contents.push(Content {
                table: content.table.clone(),
                rows,
            });
        }
        Ok(contents)
    }

    fn script(&self, statement: Statement, view: View, changes: Vec<Tree>) -> Script {
        Script {
            tables: self.before.clone(),
            statement,
            view,
            changes,
        }
    }

    /// Does with a verdict what is to be done; says whether there was a disagreement.
    async fn judge(&mut self, place: usize, verdict: Verdict, script: Script) -> Result<bool> {
        match verdict {
            Verdict::Same => Ok(false),
            Verdict::Unsupported(message) => {
                self.report.refuse(&message);
                Ok(false)
            }
            Verdict::Different(difference) => {
                self.find(place, &difference, script).await;
                if matches!(difference.fault, Fault::Death | Fault::Hang) {
                    self.revive(place, difference.fault).await?;
                }
                Ok(true)
            }
        }
    }

    /// Makes a script smaller and reports it.
    async fn find(&mut self, place: usize, difference: &Difference, script: Script) {
        if self.report.is_repeated(difference) {
            return;
        }
        let Some(side) = self.sides.get_mut(place) else {
            return;
        };
        // Each try would take as long as the node is waited for.
        let shrunk = if difference.fault == Fault::Hang {
            None
        } else {
            let until = self.until.min(Instant::now()) + SHRINK_DURATION;
            shrink(&mut side.laboratory, script.clone(), difference, until).await
        };
        let is_shrunk = shrunk.is_some();
        // Which of several changes it was, only the databases of its own say.
        if !is_shrunk && difference.fault == Fault::State {
            return;
        }
        let original = difference.clone();
        let (script, difference) = shrunk.unwrap_or_else(|| (script, difference.clone()));
        let finding = Finding {
            seed: self.seed,
            shards: side.shards,
            script,
            difference,
            original,
            is_shrunk,
        };
        self.report.add(&finding);
    }

    /// Makes the node answer again after it died, lost a connection or went silent.
    async fn revive(&mut self, place: usize, fault: Fault) -> Result<()> {
        let side = self.sides.get_mut(place).context("there is such a node")?;
        if fault == Fault::Hang || side.server.reconnect().await.is_err() {
            drop(side.node.kill());
            side.node.restart().await?;
            side.server.reconnect().await?;
        }
        side.laboratory.reconnect().await
    }
}
