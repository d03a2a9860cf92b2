//! Statements about clusters: CREATE CLUSTER, CREATE CLUSTER REPLICA, ALTER CLUSTER and DROP CLUSTER REPLICA.
//!
//! Options stand in parentheses or not, with an equals sign before their values or not.

use std::time::Duration;

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::ast::{
    AlterCluster, AlterClusterAction, ClusterOptionName, ClusterOptions, ClusterWait, Count,
    CreateCluster, CreateClusterReplica, DropClusterReplicas, Ident, Name, OnTimeout, OptionValue,
    ReplicaDefinition, StatementKind,
};
use crate::error::{Error, ErrorKind};

/// Whether `CLUSTER REPLICA` comes next and is not a cluster of the name `replica`.
pub(super) fn replica_follows(c: &Cursor<'_>) -> bool {
    c.peek_words(&["CLUSTER", "REPLICA"])
        && matches!(c.peek(2), Token::Word(_))
        && (c.peek(3) == &Token::Period || c.nth_is(2, "IF") && c.nth_is(3, "EXISTS"))
}

/// `CREATE CLUSTER …` after its first word.
pub(super) fn create(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    if replica_follows(c) {
        c.expect(&["CLUSTER", "REPLICA"])?;
        return create_replica(c);
    }
    c.expect(&["CLUSTER"])?;
    let if_not_exists = c.if_not_exists()?;
    let name = c.ident("a cluster name")?;
    let mut options = Options::default();
    if !c.is_end() {
        listed(c, |c| options.read(c))?;
    }
    Ok(StatementKind::CreateCluster(CreateCluster {
        name,
        if_not_exists,
        options: options.found,
    }))
}

fn create_replica(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let (cluster, name) = replica_name(c)?;
    let mut size = None;
    if !c.is_end() {
        listed(c, |c| replica_option(c, &mut size))?;
    }
    Ok(StatementKind::CreateClusterReplica(CreateClusterReplica {
        cluster,
        replica: ReplicaDefinition { name, size },
    }))
}

/// `cluster.replica`
fn replica_name(c: &mut Cursor<'_>) -> Result<(Ident, Ident), Error> {
    let cluster = c.ident("a cluster name")?;
    c.expect_token(&Token::Period)?;
    let replica = c.ident("a replica name")?;
    Ok((cluster, replica))
}

/// `ALTER CLUSTER name …` after the name, but for what other objects have too.
pub(super) fn alter(
    c: &mut Cursor<'_>,
    name: Name,
    if_exists: bool,
) -> Result<Option<StatementKind>, Error> {
    let action = if c.nth_is(0, "SET") && *c.peek(1) == Token::LParen {
        c.skip();
        let mut options = Options::default();
        c.parenthesized(|c| options.read(c))?;
        let wait = if c.take(&["WITH"]) {
            Some(wait(c)?)
        } else {
            None
        };
        AlterClusterAction::Set {
            options: Box::new(options.found),
            wait,
        }
    } else if c.nth_is(0, "RESET") && *c.peek(1) == Token::LParen {
        c.skip();
        AlterClusterAction::Reset(c.parenthesized(option_name)?)
    } else if c.take(&["SWAP"]) {
        c.expect(&["WITH"])?;
        AlterClusterAction::Swap(c.ident("a cluster name")?)
    } else {
        return Ok(None);
    };
    Ok(Some(StatementKind::AlterCluster(AlterCluster {
        name,
        if_exists,
        action,
    })))
}

/// `DROP CLUSTER REPLICA …` after its first word.
pub(super) fn drop_replicas(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.expect(&["CLUSTER", "REPLICA"])?;
    let if_exists = c.if_exists()?;
    let names = c.comma_separated(replica_name)?;
    Ok(StatementKind::DropClusterReplicas(DropClusterReplicas {
        names,
        if_exists,
    }))
}

/// Options separated by commas, in parentheses or to the statement's end.
fn listed(
    c: &mut Cursor<'_>,
    option: impl FnMut(&mut Cursor<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if *c.peek(0) == Token::LParen {
        c.parenthesized(option)?;
    } else {
        c.comma_separated(option)?;
    }
    Ok(())
}

fn option_name(c: &mut Cursor<'_>) -> Result<ClusterOptionName, Error> {
    for name in ClusterOptionName::ALL {
        if c.take(&name.keyword().split(' ').collect::<Vec<_>>()) {
            return Ok(name);
        }
    }
    Err(c.error("an option of a cluster"))
}

/// The options read so far.
#[derive(Debug, Default)]
struct Options {
    found: ClusterOptions,
    seen: Vec<ClusterOptionName>,
}

impl Options {
    /// Reads one option.
    fn read(&mut self, c: &mut Cursor<'_>) -> Result<(), Error> {
        let position = c.position();
        let name = option_name(c)?;
        if self.seen.contains(&name) {
            return Err(repeated(name.keyword(), position));
        }
        self.seen.push(name);
        match name {
            ClusterOptionName::Size => self.found.size = Some(size(c)?),
            ClusterOptionName::ReplicationFactor => {
                c.take_token(&Token::Eq);
                let position = c.position();
                let value = c.unsigned("REPLICATION FACTOR")?;
                self.found.replication_factor = Some(Count { value, position });
            }
            ClusterOptionName::Managed => {
                let position = c.position();
                let managed = c.option_value()?.boolean();
                self.found.managed = Some(
                    managed.ok_or_else(|| invalid("MANAGED", "must be true or false", position))?,
                );
            }
            ClusterOptionName::Replicas => {
                c.take_token(&Token::Eq);
                self.found.replicas = Some(replicas(c)?);
            }
            ClusterOptionName::Schedule => schedule(c)?,
            // There is one process and one zone, and what it does is always shown: these say nothing that could be otherwise.
            ClusterOptionName::IntrospectionInterval
            | ClusterOptionName::IntrospectionDebugging
            | ClusterOptionName::AvailabilityZones
            | ClusterOptionName::Disk
            | ClusterOptionName::WorkloadClass => {
                c.take_token(&Token::Eq);
                if *c.peek(0) == Token::LParen {
                    c.skip_group()?;
                } else {
                    c.option_value()?;
                }
            }
        }
        Ok(())
    }
}

fn repeated(name: &str, position: usize) -> Error {
    Error::syntax(format!("option {name} specified more than once")).at(position)
}

fn invalid(name: &str, what: &str, position: usize) -> Error {
    Error::new(
        ErrorKind::InvalidParameterValue,
        format!("invalid {name}: {what}"),
    )
    .at(position)
}

/// `[=] '25cc'`
fn size(c: &mut Cursor<'_>) -> Result<Ident, Error> {
    c.take_token(&Token::Eq);
    let position = c.position();
    match c.option_value()? {
        OptionValue::String(value) | OptionValue::Word(value) => Ok(Ident { value, position }),
        OptionValue::None => Err(c.error("a size")),
        OptionValue::Number(_)
        | OptionValue::Secret(_)
        | OptionValue::Name(_)
        | OptionValue::Addresses(_) => Err(invalid("SIZE", "must be a string", position)),
    }
}

/// `[=] MANUAL`; clusters that come and go by themselves there are not.
fn schedule(c: &mut Cursor<'_>) -> Result<(), Error> {
    c.take_token(&Token::Eq);
    let position = c.position();
    if c.take(&["MANUAL"]) {
        return Ok(());
    }
    if c.peek_words(&["ON", "REFRESH"]) {
        let error = Error::unsupported("SCHEDULE = ON REFRESH of a cluster is not supported");
        return Err(error
            .with_hint("Set REPLICATION FACTOR to 0 to pause a cluster, and back to resume it.")
            .at(position));
    }
    Err(c.error("MANUAL or ON REFRESH"))
}

/// `(r1 (SIZE '25cc'), …)`
fn replicas(c: &mut Cursor<'_>) -> Result<Vec<ReplicaDefinition>, Error> {
    if *c.peek(0) == Token::LParen && *c.peek(1) == Token::RParen {
        c.skip();
        c.skip();
        return Ok(Vec::new());
    }
    c.parenthesized(|c| {
        let name = c.ident("a replica name")?;
        let mut size = None;
        c.parenthesized(|c| replica_option(c, &mut size))?;
        Ok(ReplicaDefinition { name, size })
    })
}

fn replica_option(c: &mut Cursor<'_>, found: &mut Option<Ident>) -> Result<(), Error> {
    let position = c.position();
    if c.take(&["SIZE"]) {
        if found.is_some() {
            return Err(repeated("SIZE", position));
        }
        *found = Some(size(c)?);
        return Ok(());
    }
    let without_effect: [&[&str]; 4] = [
        &["INTROSPECTION", "INTERVAL"],
        &["INTROSPECTION", "DEBUGGING"],
        &["AVAILABILITY", "ZONE"],
        &["DISK"],
    ];
    if without_effect.iter().any(|words| c.take(words)) {
        c.option_value()?;
        return Ok(());
    }
    Err(c.error("SIZE or another option of a replica"))
}

/// `(WAIT FOR '30s')` or `(WAIT UNTIL READY (TIMEOUT = '10m', ON TIMEOUT = 'COMMIT'))`
fn wait(c: &mut Cursor<'_>) -> Result<ClusterWait, Error> {
    c.expect_token(&Token::LParen)?;
    c.expect(&["WAIT"])?;
    c.take_token(&Token::Eq);
    let wait = if c.take(&["FOR"]) {
        ClusterWait {
            timeout: c.duration("WAIT FOR")?,
            on_timeout: OnTimeout::Commit,
        }
    } else if c.take(&["UNTIL", "READY"]) {
        until_ready(c)?
    } else {
        return Err(c.error("FOR or UNTIL READY"));
    };
    c.expect_token(&Token::RParen)?;
    Ok(wait)
}

fn until_ready(c: &mut Cursor<'_>) -> Result<ClusterWait, Error> {
    let mut timeout: Option<Duration> = None;
    let mut on_timeout: Option<OnTimeout> = None;
    let start = c.position();
    c.parenthesized(|c| {
        let position = c.position();
        if c.take(&["TIMEOUT"]) {
            if timeout.is_some() {
                return Err(repeated("TIMEOUT", position));
            }
            c.take_token(&Token::Eq);
            timeout = Some(c.duration("TIMEOUT")?);
        } else if c.take(&["ON", "TIMEOUT"]) {
            if on_timeout.is_some() {
                return Err(repeated("ON TIMEOUT", position));
            }
            c.take_token(&Token::Eq);
            let position = c.position();
            let text = c.option_value()?.text().map(str::to_ascii_uppercase);
            on_timeout = Some(match text.as_deref() {
                Some("COMMIT") => OnTimeout::Commit,
                Some("ROLLBACK") => OnTimeout::Rollback,
                _ => {
                    return Err(invalid(
                        "ON TIMEOUT",
                        "must be COMMIT or ROLLBACK",
                        position,
                    ));
                }
            });
        } else {
            return Err(c.error("TIMEOUT or ON TIMEOUT"));
        }
        Ok(())
    })?;
    let timeout = timeout.ok_or_else(|| {
        let message = "option TIMEOUT is required";
        Error::new(ErrorKind::InvalidParameterValue, message).at(start)
    })?;
    Ok(ClusterWait {
        timeout,
        on_timeout: on_timeout.unwrap_or(OnTimeout::Rollback),
    })
}

#[cfg(test)]
mod tests;
