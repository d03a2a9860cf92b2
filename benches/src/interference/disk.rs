//! A full disk: Delta commits of a node of its own are refused for a while, by a failpoint (docs/adr/0017). Called by `cases`.
//!
//! The disk itself has room. So the node does not refuse statements, as it does on a disk that it sees filling up.

use std::time::Duration;

use anyhow::Result;
use flowstone_tests::{Node, NodeOptions, wait};

use super::Size;
use super::measure::{self, Measured};
use crate::servers::SHARDS;

const FAILPOINT: &str = "delta-commit.write";
/// The first write that is refused: one that the objects which the probes need do not lead to.
const FIRST: usize = 16;
/// How long it may take until writes are refused, and until they are no more.
const DEADLINE: Duration = Duration::from_secs(300);

/// Measures while commits are refused, and while somebody runs the statement `meanwhile`.
///
/// The node is another one than that of the other cases, because failpoints are planned when it starts.
pub(super) async fn measure(size: Size, meanwhile: Option<&str>) -> Result<Measured> {
    let dir = tempfile::tempdir()?;
    let failpoints = format!("{FAILPOINT}=full@{FIRST}x{}", size.refusals);
    let options = NodeOptions {
        environment: vec![("FLOWSTONE_FAILPOINTS".to_owned(), failpoints)],
        ..NodeOptions::default()
    };
    let mut node = Node::start_with(dir.path(), SHARDS, options).await?;
    let client = node.connect().await?;
    measure::prepare(&client).await?;
    wait::until("commits to be refused", DEADLINE, async || {
        client
            .batch_execute("INSERT INTO probed VALUES (0, 0)")
            .await
            .map_err(|error| format!("{error:?}"))?;
        refused(&node, 1)
    })
    .await?;
    let background = async {
        if let Some(sql) = meanwhile {
            client.batch_execute(sql).await?;
        }
        wait::until("commits to be taken again", DEADLINE, async || {
            refused(&node, size.refusals)
        })
        .await
    };
    let measured = measure::measure(&node, &client, background).await?;
    drop(client);
    node.stop().await?;
    Ok(measured)
}

/// Whether commits were refused so many times; else how many times they were.
fn refused(node: &Node, times: usize) -> Result<(), String> {
    let log = std::fs::read_to_string(node.log_path()).map_err(|error| error.to_string())?;
    let seen = log.matches(&format!("failpoint={FAILPOINT} ")).count();
    if seen >= times {
        Ok(())
    } else {
        Err(format!("{seen} of {times} refusals"))
    }
}
